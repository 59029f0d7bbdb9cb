"""``cafs run -- CMD``: mount, run a command, unmount; what a build wants."""

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.failing import lament

if TYPE_CHECKING:
    from cafs.settings.values import Settings


@click.command(
    "run",
    short_help="Mount, run a command, unmount.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@options.with_settings(*options.MOUNT)
@click.argument("arguments", metavar="-- CMD [ARGS]...", nargs=-1, required=True)
@click.pass_context
def command(context: click.Context, *, loaded: "Settings", arguments: tuple[str, ...]) -> int:
    """Run CMD with the mount of cafs.toml in place, and exit with its exit code.

    The mount is ended whatever the command does. CMD sees CAFS_MOUNT, the mount point.

    \b
    Example:
        cafs run -- make -j8
    """
    from cafs.cli import background, unmounting
    from cafs.cli.mount import target

    place = target(loaded)
    live = background.start(place, options.as_arguments(context))
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
        lament(f"{arguments[0]}: no such command", "")
        return 127
    except OSError as error:
        lament(f"{arguments[0]}: {error.strerror}", "")
        return 126
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminate = signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    return code if code >= 0 else 128 - code
