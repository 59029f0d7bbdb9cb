"""``cafs unmount``: end a mount."""

from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.settings.values import Settings


@click.command("unmount", short_help="End a mount.")
@options.mount_point
@options.with_settings("config")
@click.option("--lazy", is_flag=True, help="Detach now; serve on who has something open in it.")
def command(*, loaded: "Settings", lazy: bool) -> int:
    """Unmount, and wait until the processes of the mount have ended.

    MOUNT_POINT is that of cafs.toml when it is not given. A busy mount stays, and who keeps it
    busy is named. One whose processes have died is cleaned up.
    """
    from cafs.cli import unmounting
    from cafs.cli.mount import target

    place = target(loaded)
    if unmounting.unmount(place, lazy=lazy):
        say(f"cafs: cleaned up {place}: who served it had died")
    else:
        say(f"cafs: unmounted {place}")
    return 0
