"""``cafs unmount``: end a mount."""

from pathlib import Path

import click

from cafs.cli import options


@click.command("unmount", short_help="End a mount.")
@click.argument("mount_point", required=False, type=click.Path(path_type=Path))
@options.config
@click.option("--lazy", is_flag=True, help="Detach now; the worker ends with its last reader.")
def command(mount_point: Path | None, config: Path | None, lazy: bool) -> int:
    """Unmount, and wait until the worker has ended.

    MOUNT_POINT is that of cafs.toml when it is not given.
    """
    from cafs.cli import unmounting
    from cafs.cli.mount import target

    place = (
        mount_point.absolute()
        if mount_point
        else target(options.settings(config_file=config, store_path=None, offline_only=False))
    )
    unmounting.unmount(place, lazy=lazy)
    click.echo(f"cafs: unmounted {place}")
    return 0
