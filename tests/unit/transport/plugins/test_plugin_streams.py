"""Many requests at once: each gets its own bytes, and none waits for another's reader."""

import os

import pytest
import trio

from cafs.errors import RefusedError
from cafs.model.span import Span
from cafs.transport.interfaces import Request
from cafs.transport.plugins.frames import WINDOW
from tests.unit.transport.plugins.plugin_world import content, open_plugin, read, spec


async def test_64_streams_at_once_get_their_own_bytes() -> None:
    results: dict[int, bytes] = {}

    async def one(number: int) -> None:
        request = Request("x:bytes/50000000", Span(number * 300_000, (number + 1) * 300_000))
        results[number] = await read(plugin, request)

    async with open_plugin(spec()) as plugin:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(64):
                    nursery.start_soon(one, number)
    for number in range(64):
        assert results[number] == content(number * 300_000, (number + 1) * 300_000)


async def test_one_slow_reader_does_not_stall_others() -> None:
    size = 4 * WINDOW
    async with open_plugin(spec()) as plugin:
        async with await plugin.open(Request(f"x:bytes/{size}")) as slow:
            first = await slow.receive()
            # Nobody takes any more of it; the others bring many times what it may hold back.
            with trio.fail_after(20):
                for _ in range(3):
                    assert await read(plugin, f"x:bytes/{size}") == content(0, size)
            data = bytearray(first)
            with trio.fail_after(20):
                while piece := await slow.receive():
                    data += piece
        assert bytes(data) == content(0, size)


async def test_what_a_slow_reader_costs_is_bounded() -> None:
    async with (
        open_plugin(spec()) as plugin,
        await plugin.open(Request(f"x:bytes/{20 * WINDOW}")) as slow,
    ):
        await slow.receive()
        await read(plugin, "x:late/0.3")
        (exchange,) = plugin._program._requests._open.values()  # type: ignore[union-attr]
        assert exchange._waiting <= WINDOW + WINDOW // 4


async def test_a_plugin_that_takes_no_heed_of_its_credit_babbles() -> None:
    async with (
        open_plugin(spec()) as plugin,
        await plugin.open(Request(f"x:flood/{8 * WINDOW}")) as slow,
    ):
        with pytest.raises(RefusedError, match="more than it was allowed"), trio.fail_after(60):
            await read(plugin, "x:silent")
        assert slow.head.total == 8 * WINDOW


async def test_a_request_that_nobody_wants_is_cancelled() -> None:
    async with open_plugin(spec()) as plugin:
        pid = await read(plugin, "x:pid")
        async with await plugin.open(Request(f"x:bytes/{50 * WINDOW}")) as response:
            await response.receive()
        with trio.move_on_after(0.1):
            await plugin.open(Request("x:silent"))
        assert await read(plugin, "x:pid") == pid
        program = plugin._program
        assert program is not None
        with trio.fail_after(60):
            while "cancelled" not in program.words(""):
                await read(plugin, "x:late/0.01")


async def test_a_span_that_was_read_costs_nothing_more() -> None:
    """A reader stops at the last byte that it wants, and the end comes after it."""
    async with open_plugin(spec("--requests", "1")) as plugin:
        pid = await read(plugin, "x:pid")
        for at in range(20):
            async with await plugin.open(Request("x:bytes/9999", Span(at, at + 5))) as response:
                assert await response.receive() == content(at, at + 5)
        assert await read(plugin, "x:pid") == pid


async def test_a_plugin_that_takes_one_at_a_time_is_asked_one_at_a_time() -> None:
    results: list[bytes] = []

    async def one(number: int) -> None:
        span = Span(number, number + 3 * WINDOW)
        results.append(await read(plugin, Request("x:bytes/99999999", span)))
        assert results[-1] == content(span.start, span.stop)

    async with open_plugin(spec("--requests", "1")) as plugin:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(one, number)
    assert len(results) == 8


async def test_leaving_a_plugin_that_takes_one_at_a_time_stops_it() -> None:
    async with open_plugin(spec("--requests", "1")) as plugin:
        pid = int(await read(plugin, "x:pid"))
        async with await plugin.open(Request(f"x:bytes/{50 * WINDOW}")) as response:
            await response.receive()
        assert int(await read(plugin, "x:pid")) != pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_who_waits_for_its_turn_does_not_pay_for_who_left() -> None:
    results: list[bytes] = []

    async def wait() -> None:
        results.append(await read(plugin, "x:bytes/10"))

    async with open_plugin(spec("--requests", "1")) as plugin:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                response = await plugin.open(Request(f"x:bytes/{50 * WINDOW}"))
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.05)
                await response.aclose()
    assert results == [content(0, 10)]
