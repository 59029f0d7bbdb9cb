"""``cafs reload``: replace the worker of a live mount, while its readers read on."""

import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.cli.mounts.live import LiveMount

_WORD_S: Final = 5.0
"""How long the word of a worker may be on its way once the keeper knows that it has failed."""


@click.command("reload", short_help="Replace the worker of a mount; readers read on.")
@options.mount_point
@options.with_flags("config")
@options.as_json
def command(*, flags: options.Flags, as_json: bool) -> int:
    """Replace the worker of a mount by one from what is installed now, with the settings of now.

    MOUNT_POINT is that of cafs.toml when it is not given; where that names none, the only mount
    that was made for it. No read fails meanwhile. When the new worker cannot serve, it is said why,
    and the old one serves on. What stays as it was: the flags of cafs mount, the store, the view,
    what mutable refs mean, and the options of the mount itself (allow-other, suid, dev).
    """
    place = flags.place()
    worker = _reload(_with_keeper(place))
    if as_json:
        import msgspec

        say(msgspec.json.encode({"mount_point": str(place), "worker": worker}))
    else:
        say(f"cafs: reloaded {place} (worker {worker})")
    return 0


def _with_keeper(mount_point: Path) -> "LiveMount":
    """The mount there, which has a keeper.

    Raises:
        MountError: nothing that is known here is mounted there, it is dead, or has no keeper.
    """
    from cafs.cli.mounts import live
    from cafs.errors import MountError

    known = live.find(mount_point)
    if live.mounted_type(mount_point) != live.TYPE:
        raise MountError(f"no cafs is mounted on {mount_point}", hint="cafs status lists mounts")
    if known is None:
        raise MountError(f"the mount on {mount_point} is {live.whose(mount_point)}")
    if not known.alive:
        raise MountError(
            f"the {known.holder} (pid {known.pid}) of the mount on {mount_point} has died",
            hint=f"mount it again, which cleans up: cafs mount {mount_point}",
        )
    if not known.control:
        raise MountError(
            f"the mount on {mount_point} has no keeper that could replace its worker",
            hint="unmount it, and mount it without --no-keeper",
        )
    return known


def _reload(known: "LiveMount") -> int:
    """Have the keeper replace the worker; the new one's pid.

    Raises:
        MountError: it did not, or does not answer.
        click.exceptions.Exit: the new worker said why it cannot serve; that has been printed.
    """
    from cafs.cli.mounts.background import heed
    from cafs.control import keeper
    from cafs.errors import MountError

    listen, speak = os.pipe()
    with open(listen, "rb") as word:  # noqa: PTH123 - a descriptor, not a path
        try:
            done = keeper.reload(known.control, speak)
        finally:
            os.close(speak)
        if done.ok:
            return done.worker
        # Whoever had the other end is gone, or about to go: this does not wait for long.
        heard = select.select([word], [], [], _WORD_S)[0]
        line = word.readline() if heard else b""
    still = "the old worker serves on" if keeper.status(known.control).worker else "it has none"
    if line:
        click.echo(f"cafs: {known.mount_point} gets no new worker, {still}", err=True)
        heed(line)
    raise MountError(
        f"{known.mount_point} gets no new worker, {still}: {done.why}",
        hint=f"see {known.log}" if known.log else "",
    )
