"""``cafs mount``: start a keeper and its worker, and return when the mount answers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.cli.mounts.launching import Launch
    from cafs.settings.values import Settings


@click.command("mount", short_help="Mount the refs of cafs.toml.")
@options.mount_point
@options.with_settings(*options.MOUNT)
@click.option("--foreground", is_flag=True, help="Stay in this process until it is told to end.")
@click.option("--no-keeper", is_flag=True, help="Let the mount end with its one worker.")
@click.option(
    "--user", metavar="NAME", help="As root: serve as them.  [default: the store's owner]"
)
@click.option("--key", hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    *,
    loaded: "Settings",
    foreground: bool,
    no_keeper: bool,
    user: str | None,
    key: str | None,
    ready_fd: int | None,
    as_json: bool,
) -> int:
    """Mount, in the background; return when the mount answers.

    MOUNT_POINT is that of cafs.toml when it is not given; it is made when it is missing. A dead
    mount that is in the way is cleaned up. The mount outlives its worker, which cafs reload
    replaces.

    \b
    Examples:
        cafs mount
        cafs mount /mnt/cafs --store /var/cache/cafs
        cafs mount --view ref/toolchain toolchain
    """
    from cafs.cli.mounts import background, claiming, launching

    place = target(loaded)
    flags = options.as_arguments(context)
    launch = launching.plan(loaded, place, flags, with_keeper=not no_keeper, user=user, key=key)
    if ready_fd is not None:  # we are what the branch below has started, and all is prepared
        return _serve(loaded, launch, ready_fd)
    with claiming.claimed(place) as claim:
        claiming.prepare(place, launch.store)
        if foreground and launch.program is None:
            return _serve(loaded, launch, None)
        if foreground:
            background.become(launch, claim)
        mounted = background.start(launch)
    if as_json:
        import msgspec

        say(msgspec.json.encode(mounted))
    else:
        by = f"{mounted.holder} pid {mounted.pid}, log {mounted.log}"
        say(f"cafs: mounted on {mounted.mount_point} ({by})")
    return 0


def _serve(loaded: "Settings", launch: "Launch", word: int | None) -> int:
    """Mount and serve in this process, without a keeper, until that has ended."""
    from cafs.cli.mounts import live, serving  # most of a worker's start: not before it is one

    mounted = launch.mounted(os.getpid(), os.environ.get("CAFS_LOG_FILE", ""))
    live.save(mounted)
    try:
        return serving.serve(loaded, mounted, word=word)
    finally:
        live.remove(mounted)


def target(loaded: "Settings", *, takes_one: bool = True) -> Path:
    """Where to mount.

    Args:
        loaded: the settings.
        takes_one: whether the verb's command line can say it.

    Raises:
        UsageError: neither the command line nor cafs.toml says.
    """
    from cafs.errors import UsageError

    if loaded.mount_point is None:
        file = loaded.project_file
        raise UsageError(
            f"no mount point: {f'{file} names none' if file else 'there is no cafs.toml'}",
            hint=f"{'give one' if takes_one else 'set CAFS_MOUNT_POINT'}, or set "
            'path = "cafs" under [mount] in cafs.toml',
        )
    return loaded.mount_point
