"""``cafs unmount``: end a mount."""

import click

from cafs.cli import options
from cafs.cli.saying import say


@click.command("unmount", short_help="End a mount.")
@options.mount_point
@options.with_flags("config")
@click.option("--lazy", is_flag=True, help="Detach now; serve on who has something open in it.")
def command(*, flags: options.Flags, lazy: bool) -> int:
    """Unmount, and wait until the processes of the mount have ended.

    MOUNT_POINT is that of cafs.toml when it is not given; where that names none, the only mount
    that was made for it. A busy mount stays, and who keeps it busy is named. One whose processes
    have died is cleaned up.
    """
    from cafs.cli.mounts import unmounting

    place = flags.place()
    if unmounting.unmount(place, lazy=lazy):
        say(f"cafs: cleaned up {place}: who served it had died")
    else:
        say(f"cafs: unmounted {place}")
    return 0
