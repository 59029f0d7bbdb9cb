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
@click.option("--lazy", is_flag=True, help="Detach now; the worker ends with its last reader.")
def command(*, loaded: "Settings", lazy: bool) -> int:
    """Unmount, and wait until the worker has ended.

    MOUNT_POINT is that of cafs.toml when it is not given.
    """
    from cafs.cli import unmounting
    from cafs.cli.mount import target

    place = target(loaded)
    unmounting.unmount(place, lazy=lazy)
    say(f"cafs: unmounted {place}")
    return 0
