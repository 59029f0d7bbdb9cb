"""``cafs run -- CMD``: mount, run a command, unmount; what a build wants."""

import os
import signal
import subprocess
from pathlib import Path

import click

from cafs.cli import options


@click.command(
    "run",
    short_help="Mount, run a command, unmount.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@options.common
@options.dynamic
@click.option("--view", metavar="PATH", help="Show this subtree at the root, as 'ref/gcc'.")
@click.argument("arguments", metavar="-- CMD [ARGS]...", nargs=-1, required=True)
def command(
    *,
    config: Path | None,
    store: Path | None,
    offline: bool,
    dynamic: bool,
    view: str | None,
    arguments: tuple[str, ...],
) -> int:
    """Run CMD with the mount of cafs.toml in place, and exit with its exit code.

    The mount is ended whatever the command does. CMD sees CAFS_MOUNT, the mount point.

    \b
    Example:
        cafs run -- make -j8
    """
    from cafs.cli import background, unmounting
    from cafs.cli.mount import target

    loaded = options.settings(
        config_file=config,
        store_path=store,
        offline_only=offline,
        view=view,
        any_host=dynamic,
    )
    place = target(loaded)
    flags = [
        *(["--config", str(config)] if config else []),
        *(["--store", str(store)] if store else []),
        *(["--view", view] if view else []),
        *(["--offline"] if offline else []),
        *(["--dynamic"] if dynamic else []),
    ]
    live = background.start(place, flags)
    try:
        code = _attend(arguments, live.mount_point)
    finally:
        unmounting.unmount(place)
    return code


def _attend(arguments: tuple[str, ...], mount_point: str) -> int:
    """Run the command to its end; Ctrl-C and SIGTERM are the command's to answer.

    Returns:
        Its exit code; 128 + the signal that killed it; 127 when there is no such command, 126 when
        it cannot be run (the shell's codes).
    """
    try:
        child = subprocess.Popen(arguments, env={**os.environ, "CAFS_MOUNT": mount_point})
    except FileNotFoundError:
        click.echo(f"error: {arguments[0]}: no such command", err=True)
        return 127
    except OSError as error:
        click.echo(f"error: {arguments[0]}: {error.strerror}", err=True)
        return 126
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminate = signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    return code if code >= 0 else 128 - code
