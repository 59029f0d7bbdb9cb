"""``cafs inflight``: what is being fetched now, by whom, from where."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.control.fetches import Fetching


@click.command("inflight", short_help="List what is being fetched now.")
@click.argument("named", metavar="[MOUNT_POINT]", required=False, type=options.MountPoint())
@options.as_json
def command(*, named: Path | None, as_json: bool) -> int:
    """List what the mounts and the prefetches of this user fetch now, or one mount.

    The first word of a line is what cafs cancel takes: the content that is fetched. Several
    spans of one content have the same.

    With --json: one object a line for each fetch.
    """
    from cafs.cli.mounts.reaching import listen_to

    heard = listen_to(None if named is None else options.place_of(named))
    fetching = [told for told in heard.fetching.values() if told.inflight]
    for told in fetching:
        (_tell if as_json else _show)(told)
    for trouble in heard.troubles:
        raise trouble
    if not as_json and not fetching:
        say("nothing is being fetched")
    return 0


def _tell(told: "Fetching") -> None:
    import msgspec

    whom = {"mount_point": told.mount_point, "pid": told.pid}
    for fetch in told.inflight:
        say(msgspec.json.encode(msgspec.to_builtins(fetch) | whom))


def _show(told: "Fetching") -> None:
    """One line a fetch: nothing is wrapped or cut, so that a program may read it too."""
    from cafs.cli.sizes import duration, part

    whom = told.mount_point or f"pid {told.pid}"
    for fetch in told.inflight:
        length = fetch.stop - fetch.start
        done = part(fetch.received, length) + (f" at {fetch.start}" if length else "")
        since = duration(fetch.seconds)
        where = f", {fetch.url}" if fetch.url else ""
        say(f"{fetch.id}  {fetch.name}: {done}, {fetch.priority}, for {since}, {whom}{where}")
