"""``cafs status``: what is mounted, what is fetched, from where, and how its keeper is."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from cafs.cli import options
from cafs.cli.absent import is_absent, status as status_without_store, told
from cafs.cli.saying import readable, say

if TYPE_CHECKING:
    from cafs.cli.mounts.live import LiveMount
    from cafs.control.keeper import KeeperStatus
    from cafs.errors import MountError
    from cafs.reporting import MirrorStatus, RefStatus, Status
    from cafs.settings.values import Settings


_ANSWER_S: Final = 5.0
"""How long a worker may take to answer; it needs milliseconds, a new one some hundreds."""
_FAILURES: Final = 5
"""How many of the last failures are shown; ``.cafs/errors.json`` has more."""


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What could be learnt of a mount, or, without one, of the refs of the project.

    ``status`` is None exactly when the mount did not tell it, and ``trouble`` says why. ``absent``
    says that there is no store.
    """

    mount_point: Path | None = None
    live: "LiveMount | None" = None
    keeper: "KeeperStatus | None" = None
    status: "Status | None" = None
    trouble: "MountError | None" = None
    absent: bool = False


@click.command("status", short_help="Say what is mounted, and what is fetched from where.")
@click.argument("named", metavar="[MOUNT_POINT]", required=False, type=options.MountPoint())
@options.with_flags(*options.SOURCES)
@options.as_json
def command(
    *,
    named: Path | None,
    flags: options.Flags,
    as_json: bool,
) -> int:
    """Say what is mounted, what is fetched, from where, and how often it was there already.

    Of a mount (MOUNT_POINT, or that of cafs.toml, or the only one that was made for it) its keeper
    and its worker answer, with the last failures; without one, what the store knows of the refs of
    cafs.toml is shown. Elsewhere all mounts of this user are listed.
    """
    import msgspec

    seen = _look_at(_named(named)) if named is not None else _look(flags.load())
    if seen is None:
        return _list_mounts(as_json=as_json)
    if as_json:
        say(msgspec.json.encode(_facts(seen)))
    else:
        _show(seen)
    if seen.trouble is not None:
        raise seen.trouble
    return 0


def _named(named: Path) -> Path:
    """The mount point that was named.

    Raises:
        MountError: nothing of ours is mounted there.
    """
    from cafs.cli.mounts import live
    from cafs.errors import MountError

    place = options.place_of(named)
    if live.mounted_type(place) != live.TYPE:
        raise MountError(f"no cafs is mounted on {place}", hint="cafs status lists mounts")
    return place


def _look(loaded: "Settings") -> _Seen | None:
    """What the settings mean, looked at; None when they mean nothing."""
    from cafs.cli.mounts import live
    from cafs.cli.mounts.choosing import place_of_project

    place = place_of_project(loaded)
    if place is not None and live.mounted_type(place) == live.TYPE:
        return _look_at(place)
    if loaded.project_file is None and not loaded.refs:
        return None
    from cafs.reporting import status_without_mount

    if is_absent(loaded.store):
        return _Seen(status=status_without_store(loaded), absent=True)
    return _Seen(status=status_without_mount(loaded))


def _look_at(mount_point: Path) -> _Seen:
    """Ask the keeper first, which answers whatever its worker does, then the worker."""
    import msgspec

    from cafs.cli.mounts import live
    from cafs.control import keeper
    from cafs.errors import MountError
    from cafs.reporting import Status

    known = live.find(mount_point)
    kept = told = trouble = None
    try:
        if known is not None and known.control and known.alive:
            kept = keeper.status(known.control)
            _check(mount_point, known, kept)
        told = msgspec.json.decode(_ask(mount_point, "status.json"), type=Status)
    except MountError as error:
        trouble = error
    return _Seen(mount_point=mount_point, live=known, keeper=kept, status=told, trouble=trouble)


def _check(mount_point: Path, known: "LiveMount", kept: "KeeperStatus") -> None:
    """Raises MountError when the keeper has no worker, and will not have one by itself."""
    from cafs.errors import MountError

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
    from cafs.cli.mounts import live
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


def _facts(seen: _Seen) -> dict[str, object]:
    """What ``--json`` prints: a status, and its keeper; what is not known is None."""
    import msgspec

    from cafs.reporting import Status

    facts: dict[str, object] = dict.fromkeys(Status.__struct_fields__)
    if seen.status is not None:
        facts = msgspec.to_builtins(seen.status)
    elif seen.live is not None:
        facts |= {"view": seen.live.view, "store": seen.live.store}
    if seen.mount_point is not None:
        facts["mount_point"] = str(seen.mount_point)
    for name in ("mount_point", "store"):
        if isinstance(facts[name], str):
            facts[name] = readable(str(facts[name]))
    return facts | {"keeper": seen.keeper}


def _failures(mount_point: Path) -> list[str]:
    """The last failures in a mount, newest first, each once."""
    import msgspec

    from cafs.vfs.failures import Failure

    told = msgspec.json.decode(_ask(mount_point, "errors.json"), type=list[Failure])
    lines = dict.fromkeys(f"{each.path}: {each.line}" for each in told)
    return list(lines)[:_FAILURES]


def _list_mounts(*, as_json: bool) -> int:
    import msgspec

    from cafs.cli.mounts import live

    mounts = []
    for mount in live.all_mounts():
        # What a crash has left behind is of no use once its mount has gone.
        if not mount.alive and live.mounted_type(Path(mount.mount_point)) != live.TYPE:
            live.remove(mount)
        else:
            mounts.append(mount)
    if as_json:
        say(msgspec.json.encode({"mounts": mounts}))
        return 0
    for mount in mounts:
        say(f"{mount.mount_point}  {_state(mount)}  store {mount.store}")
    if not mounts:
        say("nothing is mounted, and there is no cafs.toml here or above")
    return 0


def _state(mount: "LiveMount") -> str:
    from cafs.cli.mounts import live

    if not mount.alive:
        return f"its {mount.holder} (pid {mount.pid}) has died"
    if not live.is_uppermost(mount):
        return f"{mount.holder} pid {mount.pid}, detached, serves its last readers"
    return f"{mount.holder} pid {mount.pid}"


def _show(seen: _Seen) -> None:
    from cafs.cli.sizes import duration, part, size
    from cafs.reporting import uptime_s

    found = seen.status
    up = uptime_s(found) if found is not None else None
    if seen.mount_point is None:
        say("not mounted")
    elif found is None or up is None:
        say(f"mounted on {seen.mount_point}")
    else:
        say(f"mounted on {seen.mount_point} (worker pid {found.pid}) for {duration(up)}")
    if seen.keeper is not None:
        _show_keeper(seen.keeper)
    if found is None:
        return
    say(_room(found, absent=seen.absent))
    if found.hit_rate is not None:
        requests = found.counters["fetch.requests"]
        say(
            f"fetched {size(found.fetched)} in {requests} requests; "
            f"{found.hit_rate:.0%} of reads found their bytes in the store"
        )
    if found.found:
        say(f"found {size(found.found)} in other stores on this machine")
    _show_refs(found.refs)
    for note in found.notes:
        say(f"note {note}")
    _show_mirrors(found.mirrors)
    for line in _failures(seen.mount_point) if seen.mount_point is not None else ():
        say(f"failed {line}")
    for fetch in found.inflight:
        where = f" from {fetch.url}" if fetch.url else ""
        done = part(fetch.received, fetch.stop - fetch.start)
        say(f"fetching {fetch.name}: {done}{where} ({fetch.priority})")


def _room(found: "Status", *, absent: bool) -> str:
    """How full the store is, or that there is none."""
    from cafs.cli.sizes import size

    if absent:
        return told(Path(found.store))
    room = found.room
    bound = "" if room.quota is None else f" of {size(room.quota)}"
    kept = ""
    if room.min_free > found.store_free:
        kept = f", less than the {size(room.min_free)} that are left to others"
    elif room.min_free:
        kept = f", of which {size(room.min_free)} are left to others"
    aside = f", {size(room.quarantine)} of it in quarantine" if room.quarantine else ""
    free = f"{size(found.store_free)} free{kept}"
    return f"store {found.store} has {size(room.used)}{bound}{aside}; {free}"


def _show_keeper(kept: "KeeperStatus") -> None:
    worker = f"worker pid {kept.worker}" if kept.worker else "no worker"
    say(
        f"keeper pid {kept.pid}: {kept.state}, {worker}, {kept.workers} started so far; "
        f"{kept.waiting} requests wait, {kept.relayed} were relayed, {kept.resent} sent again"
    )


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


def _show_mirrors(mirrors: "tuple[MirrorStatus, ...]") -> None:
    """One line a host, those that are not as they should be with the reason."""
    from cafs.cli.sizes import size

    for each in mirrors:
        facts = [f"{size(each.bytes)}"]
        if each.rate is not None:
            facts.append(f"{size(each.rate)}/s")
        if each.latency is not None:
            facts.append(f"answers in {1000 * each.latency:.0f} ms")
        why = f": {each.why}" if each.why else ""
        say(f"from {each.host.removesuffix(':')}: {', '.join(facts)}; {each.state}{why}")
