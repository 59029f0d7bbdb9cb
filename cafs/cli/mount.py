"""``cafs mount``: start a worker, and return when it is ready."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.settings.values import Settings


@click.command("mount", short_help="Mount the refs of cafs.toml.")
@options.mount_point
@options.with_settings(*options.MOUNT)
@click.option("--foreground", is_flag=True, help="Serve in this process until it is told to end.")
@click.option("--ready-fd", type=int, hidden=True)
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    *,
    loaded: "Settings",
    foreground: bool,
    ready_fd: int | None,
    as_json: bool,
) -> int:
    """Mount, in the background; return when the mount answers.

    MOUNT_POINT is that of cafs.toml when it is not given; it is made when it is missing.

    \b
    Examples:
        cafs mount
        cafs mount /mnt/cafs --store /var/cache/cafs
        cafs mount --view ref/toolchain toolchain
    """
    if foreground:
        from cafs.cli import serving  # most of a worker's start: not before it is one

        return serving.serve(loaded, ready_fd=ready_fd)
    from cafs.cli import background

    live = background.start(target(loaded), options.as_arguments(context))
    if as_json:
        import msgspec

        say(msgspec.json.encode(live))
    else:
        say(f"cafs: mounted on {live.mount_point} (pid {live.pid}, log {live.log})")
    return 0


def target(loaded: "Settings") -> Path:
    """Where to mount.

    Raises:
        UsageError: neither the command line nor cafs.toml says.
    """
    from cafs.errors import UsageError

    if loaded.mount_point is None:
        file = loaded.project_file
        raise UsageError(
            f"no mount point: {f'{file} names none' if file else 'there is no cafs.toml'}",
            hint='give one, or set path = "cafs" under [mount] in cafs.toml',
        )
    return loaded.mount_point
