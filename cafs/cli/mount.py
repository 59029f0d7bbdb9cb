"""``cafs mount``: start a worker, and return when it is ready."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options

if TYPE_CHECKING:
    from cafs.settings.values import Settings


@click.command("mount", short_help="Mount the refs of cafs.toml.")
@click.argument("mount_point", required=False, type=click.Path(path_type=Path))
@options.common
@click.option("--view", metavar="PATH", help="Show this subtree at the root, as 'ref/gcc'.")
@options.dynamic
@click.option("--allow-other", is_flag=True, help="Let other users read the mount.")
@click.option("--preserve-owner", is_flag=True, help="Keep the archives' owners (root only).")
@click.option("--suid", is_flag=True, help="Keep setuid and setgid bits.")
@click.option("--dev", is_flag=True, help="Show device nodes.")
@click.option("--foreground", is_flag=True, help="Serve in this process until it is told to end.")
@click.option("--ready-fd", type=int, hidden=True)
@options.as_json
def command(
    *,
    mount_point: Path | None,
    config: Path | None,
    store: Path | None,
    offline: bool,
    view: str | None,
    dynamic: bool,
    allow_other: bool,
    preserve_owner: bool,
    suid: bool,
    dev: bool,
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
    from cafs.cli import background, serving

    loaded = options.settings(
        config_file=config,
        store_path=store,
        offline_only=offline,
        mount_point=mount_point,
        view=view,
        any_host=dynamic,
        allow_other=allow_other,
        preserve_owner=preserve_owner,
        suid=suid,
        dev=dev,
    )
    if foreground:
        return serving.serve(loaded, ready_fd=ready_fd)
    live = background.start(target(loaded), sys.argv[1:])
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(live))
    else:
        click.echo(f"cafs: mounted on {live.mount_point} (pid {live.pid}, log {live.log})")
    return 0


def target(loaded: "Settings") -> Path:
    """Where to mount.

    Raises:
        UsageError: neither the command line nor cafs.toml says.
    """
    from cafs.errors import UsageError

    if loaded.mount_point is None:
        raise UsageError(
            "no mount point", hint='give one, or set path = "cafs" under [mount] in cafs.toml'
        )
    return loaded.mount_point
