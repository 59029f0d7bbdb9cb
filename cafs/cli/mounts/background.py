"""Starting what holds a mount, and waiting for the word that the mount answers.

That is a keeper, which starts workers; without one, a worker that mounts by itself. The first
worker writes one JSON line to a pipe: that it is ready, or the error that kept it from being so.
End of file without a line means that it died; then the log tells why. A worker that finds nobody
there to tell ends, and the mount with it: who wanted it has been killed.
"""

import errno
import glob
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Final, NoReturn

import click
import msgspec
import platformdirs

from cafs.cli.failing import lament
from cafs.cli.mounts import live, unmounting
from cafs.cli.mounts.heralding import Word
from cafs.cli.mounts.launching import Launch
from cafs.cli.mounts.live import LiveMount
from cafs.errors import MountError

_LOG_NAME: Final = 120
"""Bytes of a mount point's name in that of its log."""
_LOG_TAIL: Final = 2_000
"""Bytes of a dead process's log that are shown."""
_PR_SET_PDEATHSIG: Final = 1
"""Source: linux/prctl.h."""
_END_S: Final = 5.0
"""How long a keeper may take to end at a signal when nobody uses its mount yet."""
_REASON: Final = re.compile(r"ERROR cafs\.keeper: (.+)")


def log_file(mount_point: Path) -> Path:
    """Where a mount's processes log: one file a mount point, of the last mount that was ready.

    Raises:
        MountError: its directory cannot be made.
    """
    state = Path(platformdirs.user_state_path("cafs"))
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MountError(
            f"{state}, for logs, cannot be made: {error.strerror}", hint="set XDG_STATE_HOME"
        ) from error
    place = hashlib.sha256(os.fsencode(mount_point)).hexdigest()[:8]
    name = os.fsencode(mount_point.name or "root")[:_LOG_NAME].decode(errors="ignore")
    return state / f"{name}-{place}.log"


def become(launch: Launch, claim: int) -> NoReturn:
    """Turn this process into the keeper of a mount, which logs to standard error.

    Args:
        launch: what to mount.
        claim: the descriptor of ``claimed``. The first worker takes it for the pipe of its word,
            and so holds it until the mount answers.

    Raises:
        MountError: the keeper cannot be run.
    """
    mounted = launch.mounted(os.getpid(), "")
    command = launch.command(claim)
    os.set_inheritable(claim, True)
    live.save(mounted)
    try:
        os.execv(command[0], command)  # noqa: S606 - a list of arguments, no shell
    except OSError as error:
        live.remove(mounted)
        raise MountError(f"cannot run {command[0]}: {error.strerror}") from error


def start(launch: Launch, *, bound: bool = False) -> LiveMount:
    """Start what holds a mount, and wait until the mount answers.

    Args:
        launch: what to mount.
        bound: whether it is told to end when this process has ended, however that was: a keeper
            unmounts then, once nobody uses the mount.

    Raises:
        MountError: it died without a word, or what tells of it cannot be written.
        click.exceptions.Exit: the worker said why it cannot serve; the message has been printed.
        KeyboardInterrupt, SystemExit: a signal came. Whatever is raised: nothing is mounted then.
    """
    log = log_file(launch.mount_point)
    # Another mount may be writing that file, and this one may fail because of it: so it writes a
    # file of its own, which takes the place when the mount is ready.
    draft = log.with_suffix(f".{os.getpid()}")
    _forget_drafts(log)
    listen, speak = os.pipe()
    with open(listen, "rb") as pipe, _interruptible():  # noqa: PTH123 - a descriptor, not a path
        holder = _run(launch, speak, draft, log, bound=bound)
        mounted = launch.mounted(holder.pid, str(log))
        try:
            # Before the mount is ready: if this process is killed, others can find it and end it.
            live.save(mounted)
            line = pipe.readline()
            if not line:
                _fail(launch, holder, draft)
            heed(line, user=launch.user)
            _publish(draft, log)
        except BaseException:
            _end(mounted, holder)
            draft.unlink(missing_ok=True)
            raise
    return mounted


def _publish(draft: Path, log: Path) -> None:
    try:
        draft.replace(log)
    except OSError as error:
        raise MountError(f"{log}, for logs, cannot be replaced: {error.strerror}") from error


def _forget_drafts(log: Path) -> None:
    """Remove the drafts of commands that were killed while they waited."""
    for draft in log.parent.glob(f"{glob.escape(log.stem)}.*"):
        if draft.suffix[1:].isdecimal() and not Path("/proc", draft.suffix[1:]).exists():
            draft.unlink(missing_ok=True)


def heed(line: bytes, *, user: str | None = None) -> None:
    """Take the word of a worker: nothing happens when it is ready.

    Args:
        line: the word.
        user: whom the worker runs as, None for who we are or where that is not known.

    Raises:
        click.exceptions.Exit: it said why it cannot serve; the message has been printed.
    """
    failure = msgspec.json.decode(line, type=Word).failure
    if failure is not None:
        # What we may, another user need not: it is said who that is.
        denied = user is not None and os.strerror(errno.EACCES) in failure.what
        whose = f"the user {user!r} is to serve this mount, and may not" if denied else ""
        lament(failure.what, "; ".join(filter(None, (failure.hint, whose))))
        raise click.exceptions.Exit(failure.exit)


def _run(
    launch: Launch, speak: int, draft: Path, log: Path, *, bound: bool
) -> "subprocess.Popen[bytes]":
    try:
        with _written(draft) as out:
            return subprocess.Popen(
                launch.command(speak),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(speak,),
                start_new_session=True,
                env={**os.environ, "CAFS_LOG_FILE": str(log)},
                preexec_fn=_bond() if bound else None,  # noqa: PLW1509 - there are no threads
            )
    except OSError as error:
        draft.unlink()
        raise MountError(f"cannot run {error.filename}: {error.strerror}") from error
    finally:
        os.close(speak)


def _bond() -> Callable[[], None]:
    """What a child calls before it becomes another program, to be told when we have ended.

    Source: prctl(2), PR_SET_PDEATHSIG; it outlives execve.
    """
    import ctypes

    ask = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def be_told() -> None:
        ask(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # we have ended meanwhile: nobody wants it any more
            os._exit(1)

    return be_told


def _written(draft: Path) -> "IO[bytes]":
    try:
        return draft.open("wb")
    except OSError as error:
        raise MountError(
            f"{draft}, for logs, cannot be written: {error.strerror}",
            hint="make room, or set XDG_STATE_HOME",
        ) from error


def _fail(launch: Launch, holder: "subprocess.Popen[bytes]", draft: Path) -> NoReturn:
    """Say why there was no word: what the keeper logged as an error, or how everything ended.

    Raises:
        MountError: always.
    """
    with suppress(subprocess.TimeoutExpired):
        holder.wait(_END_S)
    told = draft.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
    reasons = _REASON.findall(told)
    if reasons:
        # What fusermount3 said before: the keeper's line may refer to it.
        for line in told.splitlines():
            if "cafs.keeper: " not in line:
                click.echo(line, err=True)
        raise MountError(reasons[-1])
    click.echo(told, err=True, nl=False)
    raise MountError(
        f"the {_how_it_ended(launch, holder.returncode)} before the mount was ready",
        hint="the lines above are the last that it logged" if told else "",
    )


def _how_it_ended(launch: Launch, code: int | None) -> str:
    """Who ended, and how. A keeper exits with the code of its worker, and may be killed itself."""
    who = "worker" if launch.program is None or code is None or code >= 0 else "keeper"
    how = "ended" if code is None else f"ended with {code}"
    if code is not None and code < 0:
        how = f"was killed by signal {-code}"
    return f"{who} of {launch.mount_point} {how}"


def _end(mounted: LiveMount, holder: "subprocess.Popen[bytes]") -> None:
    """End what was started, whatever state it is in, so that nothing stays mounted.

    A keeper unmounts at the first SIGTERM, lazily at the second, and ends at the third.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        holder.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            holder.wait(_END_S)
            break
    place = Path(mounted.mount_point)
    if live.mounted_type(place) == live.TYPE and unmounting.is_dead(place):
        unmounting.clean_up(place, None)
    live.remove(mounted)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, where they would end this process, raise SystemExit instead."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, action in former.items() if action is signal.SIG_DFL]
    interrupt = signal.getsignal(signal.SIGINT)
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, action in {**former, signal.SIGINT: interrupt}.items():
            signal.signal(number, action)
