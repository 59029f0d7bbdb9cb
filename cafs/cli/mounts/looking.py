"""Looking at a mount from outside: its keeper answers whatever its worker does, then the worker."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.cli.absent import is_absent, status as status_without_store
from cafs.cli.mounts import live
from cafs.cli.mounts.choosing import place_of_project
from cafs.errors import MountError
from cafs.settings.loading import with_lock

if TYPE_CHECKING:
    from cafs.cli.mounts.live import LiveMount
    from cafs.control.keeper import KeeperStatus
    from cafs.reporting import Status
    from cafs.settings.loading import Project

_ANSWER_S: Final = 5.0
"""How long a worker may take to answer; it needs milliseconds, a new one some hundreds."""
_FAILURES: Final = 5
"""How many of the last failures are told; ``.cafs/errors.json`` has more."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What could be learnt of a mount, or, without one, of the refs of the project.

    ``status`` is None exactly when the mount did not tell it, and ``trouble`` says why. ``absent``
    says that there is no store. ``elsewhere`` are other mounts of the project than the one that is
    meant, which is not there.
    """

    mount_point: Path | None = None
    live: "LiveMount | None" = None
    keeper: "KeeperStatus | None" = None
    status: "Status | None" = None
    trouble: "MountError | None" = None
    absent: bool = False
    elsewhere: tuple[str, ...] = ()


def look_at(place: Path) -> Seen:
    """A mount, looked at.

    Args:
        place: absolute.

    Raises:
        MountError: nothing of ours is mounted there.
    """
    if live.mounted_type(place) != live.TYPE:
        raise MountError(f"no cafs is mounted on {place}", hint="cafs status lists mounts")
    return _ask_both(place)


def look(project: "Project") -> Seen | None:
    """What the settings mean, looked at; None when they mean nothing.

    What is locked is asked for where nothing is mounted: a mount tells itself what refs mean in it.

    Raises:
        UsageError: the project has several mounts, and its settings name none.
        SettingsError: there is no mount, and cafs.lock is wrong.
        StorageError: there is no mount, and the store cannot be read.
    """
    place = place_of_project(project.settings)
    if place is not None and live.mounted_type(place) == live.TYPE:
        return _ask_both(place)
    if project.settings.project_file is None and not project.settings.refs:
        return None
    from cafs.reporting import status_without_mount

    loaded = with_lock(project)
    file, absent = loaded.project_file, is_absent(loaded.store)
    others = live.Known([], []) if file is None else live.of_project(file)
    status = status_without_store(loaded) if absent else status_without_mount(loaded)
    return Seen(
        status=_with_notes(status, others.troubles),
        absent=absent,
        elsewhere=tuple(each.mount_point for each in others.mounts),
    )


def _ask_both(mount_point: Path) -> Seen:
    """Ask the keeper first, which answers whatever its worker does, then the worker."""
    from cafs.control import keeper
    from cafs.reporting import Status

    known, troubles = _known(mount_point)
    kept = told = trouble = None
    try:
        if known is not None and known.control and known.alive:
            kept = keeper.status(known.control)
            _check(mount_point, known, kept)
        told = msgspec.json.decode(_ask(mount_point, "status.json"), type=Status)
        told = _with_notes(told, troubles)
    except MountError as error:
        trouble = error
    return Seen(mount_point=mount_point, live=known, keeper=kept, status=told, trouble=trouble)


def _known(mount_point: Path) -> "tuple[LiveMount | None, list[MountError]]":
    """What is known of a mount, and why nothing is: it is asked all the same."""
    try:
        return live.find(mount_point), []
    except MountError as error:
        return None, [error]


def _with_notes(status: "Status", troubles: list[MountError]) -> "Status":
    """With why not everything is known of what is mounted."""
    notes = tuple(f"not every mount is known: {each.line}" for each in troubles)
    return msgspec.structs.replace(status, notes=(*status.notes, *notes))


def _check(mount_point: Path, known: "LiveMount", kept: "KeeperStatus") -> None:
    """Raises MountError when the keeper has no worker, and will not have one by itself."""
    if kept.state == "given-up":
        log = f"; its log is {known.log}" if known.log else ""
        raise MountError(
            f"the workers of {mount_point} failed {kept.workers} times, its reads fail with EIO",
            hint=f"once the reason is gone: cafs reload {mount_point}{log}",
        )


def _ask(mount_point: Path, name: str) -> bytes:
    """A control file of a mount, whose worker may be stopped or dead.

    Raises:
        MountError: it does not answer.
    """
    answers: list[bytes | OSError] = []

    def ask() -> None:
        try:
            answers.append((mount_point / ".cafs" / name).read_bytes())
        except OSError as error:
            answers.append(error)

    # A read from a stopped worker does not return; a daemon thread may be left in it.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    said = next(iter(answers), None)
    if isinstance(said, bytes):
        return said
    known, _ = _known(mount_point)
    log = f"; its log is {known.log}" if known is not None and known.log else ""
    if known is not None and not known.alive:
        raise MountError(
            f"{mount_point} is a mount whose {known.holder} (pid {known.pid}) has died",
            hint=f"cafs unmount {mount_point}{log}",
        )
    verb = "reload" if known is not None and known.control else "unmount --lazy"
    raise MountError(
        f"the mount on {mount_point} does not answer: "
        + (said.strerror if said is not None and said.strerror else f"nothing in {_ANSWER_S:g} s"),
        hint=f"cafs {verb} {mount_point}{log}",
    )


def failures(mount_point: Path) -> list[str]:
    """The last failures in a mount, newest first, each once."""
    from cafs.vfs.failures import Failure

    told = msgspec.json.decode(_ask(mount_point, "errors.json"), type=list[Failure])
    lines = dict.fromkeys(f"{each.path}: {each.line}" for each in told)
    return list(lines)[:_FAILURES]
