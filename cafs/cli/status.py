"""``cafs status``: what is mounted, what is fetched, from where."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.cli.live import LiveMount
    from cafs.reporting import RefStatus, Status
    from cafs.settings.values import Settings


_ANSWER_S: Final = 5.0
"""How long a worker may take to answer; it needs milliseconds."""
_FAILURES: Final = 5
"""How many of the last failures are shown; ``.cafs/errors.json`` has more."""


@click.command("status", short_help="Say what is mounted, and what is fetched from where.")
@click.argument("named", metavar="[MOUNT_POINT]", required=False, type=click.Path(path_type=Path))
@options.with_settings(*options.SOURCES)
@options.as_json
def command(
    *,
    named: Path | None,
    loaded: "Settings",
    as_json: bool,
) -> int:
    """Say what is mounted, what is fetched, from where, and how often it was there already.

    Of a mount (MOUNT_POINT, or that of cafs.toml) its worker answers, with the last failures;
    without one, what the store
    knows of the refs of cafs.toml is shown. Elsewhere all mounts of this user are listed.
    """
    import msgspec

    found = _status(loaded, named)
    if found is None:
        return _list_mounts(as_json=as_json)
    if as_json:
        say(msgspec.json.encode(found))
    else:
        _show(found)
    return 0


def _status(loaded: "Settings", named: Path | None) -> "Status | None":
    """The status of the mount that is meant; None when none is meant.

    Raises:
        MountError: the mount point was named, and nothing is mounted there.
    """
    from cafs.cli import live
    from cafs.errors import MountError
    from cafs.settings.places import settled

    if named is not None:
        place = settled(named.absolute())
        if live.mounted_type(place) != "fuse.cafs":
            raise MountError(f"no cafs is mounted on {place}", hint="cafs status lists mounts")
        return _of_worker(place)
    if loaded.mount_point is not None and live.mounted_type(loaded.mount_point) == "fuse.cafs":
        return _of_worker(loaded.mount_point)
    if loaded.project_file is None and not loaded.refs:
        return None
    from cafs.reporting import status_without_mount

    return status_without_mount(loaded)


def _of_worker(mount_point: Path) -> "Status":
    import msgspec

    from cafs.reporting import Status

    return msgspec.json.decode(_ask(mount_point, "status.json"), type=Status)


def _ask(mount_point: Path, name: str) -> bytes:
    """A control file of a mount, whose worker may be stopped or dead.

    Raises:
        MountError: it does not answer.
    """
    from cafs.cli import live
    from cafs.errors import MountError

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
    known = live.find(mount_point)
    if known is not None and not known.alive:
        log = f"; its log is {known.log}" if known.log else ""
        raise MountError(
            f"{mount_point} is a mount whose worker (pid {known.pid}) has died",
            hint=f"cafs unmount {mount_point}{log}",
        )
    raise MountError(
        f"the mount on {mount_point} does not answer: "
        + (said.strerror if said is not None and said.strerror else f"nothing in {_ANSWER_S:g} s"),
        hint=f"cafs unmount --lazy {mount_point}",
    )


def _failures(mount_point: str) -> list[str]:
    """The last failures in a mount, newest first, each once."""
    import msgspec

    from cafs.vfs.failures import Failure

    told = msgspec.json.decode(_ask(Path(mount_point), "errors.json"), type=list[Failure])
    lines = dict.fromkeys(f"{each.path}: {each.line}" for each in told)
    return list(lines)[:_FAILURES]


def _list_mounts(*, as_json: bool) -> int:
    import msgspec

    from cafs.cli import live

    mounts = live.all_mounts()
    if as_json:
        say(msgspec.json.encode({"mounts": mounts}))
        return 0
    for mount in mounts:
        say(f"{mount.mount_point}  {_state(mount)}  store {mount.store}")
    if not mounts:
        say("nothing is mounted, and there is no cafs.toml here or above")
    return 0


def _state(mount: "LiveMount") -> str:
    return f"pid {mount.pid}" if mount.alive else f"its worker (pid {mount.pid}) has died"


def _show(found: "Status") -> None:
    from cafs.cli.sizes import duration, size
    from cafs.reporting import uptime_s

    up = uptime_s(found)
    if found.mount_point is None or up is None:
        say("not mounted")
    else:
        say(f"mounted on {found.mount_point} (pid {found.pid}) for {duration(up)}")
    say(f"store {found.store}, {size(found.store_free)} free")
    if found.hit_rate is not None:
        requests = found.counters["fetch.requests"]
        say(
            f"fetched {size(found.fetched)} in {requests} requests; "
            f"{found.hit_rate:.0%} of reads found their bytes in the store"
        )
    _show_refs(found.refs)
    for line in _failures(found.mount_point) if found.mount_point is not None else ():
        say(f"failed {line}")
    for fetch in found.inflight:
        done = f"{size(fetch.received)} of {size(fetch.stop - fetch.start)}"
        say(f"fetching {fetch.name}: {done} from {fetch.url} ({fetch.priority})")


def _show_refs(refs: "tuple[RefStatus, ...]") -> None:
    """One line a ref, in columns; nothing is wrapped or cut, so that a program may read it too."""
    from cafs.cli.sizes import size

    if not refs:
        return
    rows = [("ref", "local", "of", "state", "from")]
    rows += [
        (
            ref.name,
            "-" if ref.size is None and not ref.present else size(ref.present),
            "?" if ref.size is None else size(ref.size),
            ref.state,
            ref.ref,
        )
        for ref in refs
    ]
    name, local, of, state, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        say(f"{row[0]:{name}}  {row[1]:>{local}}  {row[2]:>{of}}  {row[3]:{state}}  {row[4]}")
