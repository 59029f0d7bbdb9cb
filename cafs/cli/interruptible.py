"""Running a verb so that Ctrl-C ends it, whatever it does just then."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


def run_async(
    main: Callable[[*_Arguments], Awaitable[_Result]], *arguments: *_Arguments
) -> _Result:
    """Run an async function as ``trio.run`` does, with Ctrl-C at checkpoints of ``main`` only.

    Else Python raises it in whichever task runs: in one that receives bytes, say, which takes it
    for a bug of its own, while the verb goes on.

    Raises:
        KeyboardInterrupt: Ctrl-C, alone or in a group that a nursery made of it.
    """
    import trio

    return trio.run(main, *arguments, restrict_keyboard_interrupt_to_checkpoints=True)
