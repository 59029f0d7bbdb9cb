"""``cafs status``: what is mounted, what is fetched, from where."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.cli.live import LiveMount
    from cafs.reporting import RefStatus, Status
    from cafs.settings.values import Settings


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

    Of a mount (MOUNT_POINT, or that of cafs.toml) its worker answers; without one, what the store
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
    from cafs.assemble import status_without_mount

    return status_without_mount(loaded)


def _of_worker(mount_point: Path) -> "Status":
    import msgspec

    from cafs.errors import MountError
    from cafs.reporting import Status

    try:
        text = (mount_point / ".cafs" / "status.json").read_bytes()
    except OSError as error:
        raise MountError(
            f"the mount on {mount_point} does not answer: {error.strerror}",
            hint=f"cafs unmount --lazy {mount_point}",
        ) from error
    return msgspec.json.decode(text, type=Status)


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
    for ref in found.refs:
        if ref.error:
            say(f"failed {ref.name}: {ref.error.removeprefix(f'{ref.name}: ')}")
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
            "-" if ref.state == "unread" else size(ref.present),
            "?" if ref.size is None else size(ref.size),
            ref.state,
            ref.ref,
        )
        for ref in refs
    ]
    name, local, of, state, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        say(f"{row[0]:{name}}  {row[1]:>{local}}  {row[2]:>{of}}  {row[3]:{state}}  {row[4]}")
