"""``cafs run -- CMD``: mount, run a command, unmount; what a build wants."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

import click

from cafs.cli import options
from cafs.cli.failing import lament
from cafs.cli.saying import aside

if TYPE_CHECKING:
    from cafs.settings.values import Settings

_Disposition: TypeAlias = Callable[[int, FrameType | None], object] | int | None


@click.command(
    "run",
    short_help="Mount, run a command, unmount.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@options.with_settings(*options.MOUNT)
@click.option("--no-keeper", is_flag=True, help="Let the mount end with its one worker.")
@click.argument("arguments", metavar="-- CMD [ARGS]...", nargs=-1, required=True)
@click.pass_context
def command(
    context: click.Context, *, loaded: "Settings", no_keeper: bool, arguments: tuple[str, ...]
) -> int:
    """Run CMD with the mount of cafs.toml in place, and exit with its exit code.

    The mount is ended whatever the command does. What it has left running and still uses the mount
    is named, and served on where nobody else sees it. CMD sees CAFS_MOUNT, the mount point.

    \b
    Example:
        cafs run -- make -j8
    """
    from cafs.cli.mounts import background, claiming, launching
    from cafs.cli.verbs.mount import target

    place = target(loaded, takes_one=False)
    flags = options.as_arguments(context)
    launch = launching.plan(loaded, place, flags, with_keeper=not no_keeper)
    with _Relay() as relay:
        with claiming.claimed(place):
            claiming.prepare(place, launch.store)
            live = background.start(launch, bound=not no_keeper)
        try:
            code = _attend(arguments, live.mount_point, relay)
        finally:
            relay.deaf = True
            _end(place)
    return code


def _end(place: Path) -> None:
    """End the mount. Where something uses it, the place is free all the same.

    So the command's exit code stays what it is, and the next run finds nothing in its way.

    Raises:
        MountError: it cannot be ended.
    """
    from cafs.cli.mounts import unmounting

    try:
        unmounting.unmount(place)
    except unmounting.BusyError as error:
        unmounting.unmount(place, lazy=True)
        who = error.users or "somebody whom this user does not see"
        aside(f"warning: the mount on {place} is detached, and ends when who uses it does: {who}")


class _Relay:
    """Takes the signals that would end this process before the mount has ended.

    Before there is a command they end ``run``, with the shell's exit code. Then they are the
    command's to answer: it gets SIGTERM and SIGHUP from here, and Ctrl-C from the terminal, as
    this process does. While the mount is being ended they change nothing.
    """

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.deaf = False
        self._former: dict[int, _Disposition] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Who is under nohup stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.deaf:
            return
        if self.child is None:
            raise SystemExit(128 + number)
        if number != signal.SIGINT:
            self.child.send_signal(number)


def _attend(arguments: tuple[str, ...], mount_point: str, relay: _Relay) -> int:
    """Run the command to its end.

    Returns:
        Its exit code; 128 + the signal that killed it; 127 when there is no such command, 126 when
        it cannot be run (the shell's codes).
    """
    try:
        relay.child = subprocess.Popen(arguments, env={**os.environ, "CAFS_MOUNT": mount_point})
    except FileNotFoundError:
        lament(f"{arguments[0]}: no such command", "")
        return 127
    except OSError as error:
        lament(f"{arguments[0]}: {error.strerror}", "")
        return 126
    code = relay.child.wait()
    return code if code >= 0 else 128 - code
