"""A transport that is loaded when somebody first asks it."""

import threading
from collections.abc import Callable

import pytest
import trio

from cafs.errors import UnreachableError
from cafs.transport.interfaces import Request, Transport
from cafs.transport.later import Later
from tests.unit.transport.scripted import Scripted

REQUEST = Request("https://one.test/blob")


class Loading:
    """Loads a transport that a test wrote; ``threads`` are those that it was loaded in."""

    def __init__(self, *failures: Exception) -> None:
        self.transport = Scripted([None])
        self.threads: list[int] = []
        self._failures = list(failures)

    def __call__(self) -> Callable[[], Transport]:
        self.threads.append(threading.get_ident())
        if self._failures:
            raise self._failures.pop()
        return lambda: self.transport


async def ask(later: Later) -> None:
    async with await later.open(REQUEST):
        pass


async def test_what_nobody_asks_is_not_loaded() -> None:
    loading = Loading()
    await Later(loading).aclose()
    assert loading.threads == []
    assert loading.transport.closed == 0


async def test_many_who_ask_at_once_load_it_once_and_beside_the_others() -> None:
    loading = Loading()
    later = Later(loading)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, later)
    await ask(later)
    assert loading.transport.requests == [REQUEST] * 6
    [thread] = loading.threads
    assert thread != threading.get_ident()
    await later.aclose()
    assert loading.transport.closed == 1


async def test_what_could_not_be_loaded_is_loaded_by_the_next_who_asks() -> None:
    loading = Loading(UnreachableError("no"))
    later = Later(loading)
    with pytest.raises(UnreachableError):
        await ask(later)
    await ask(later)
    assert len(loading.threads) == 2
