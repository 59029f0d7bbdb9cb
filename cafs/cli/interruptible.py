"""Running a verb so that Ctrl-C, and who tells it to end, ends it in order, whatever it does."""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeVar, TypeVarTuple

from cafs.cli.failing import interrupted

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def run_async(
    main: Callable[[*_Arguments], Awaitable[_Result]], *arguments: *_Arguments
) -> _Result:
    """Run an async function as ``trio.run`` does, with Ctrl-C at checkpoints of ``main`` only.

    Else Python raises it in whichever task runs: in one that receives bytes, say, which takes it
    for a bug of its own, while the verb goes on.

    Raises:
        KeyboardInterrupt: Ctrl-C, alone or in a group that a nursery made of it.
        SystemExit: as ``in_order``.
    """
    import trio

    with in_order():
        return trio.run(main, *arguments, restrict_keyboard_interrupt_to_checkpoints=True)


@contextmanager
def in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; a second one ends the process at once.

    Those that are ignored, or that somebody else takes, stay so; and all of them where Ctrl-C is
    ignored.

    Raises:
        SystemExit: one of them came; with the shell's exit code for it.
    """
    came: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)

    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = [each for each in _ENDING if plain and signal.getsignal(each) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    except BaseException as error:
        if came and interrupted(error):
            raise SystemExit(128 + came[0]) from None
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
