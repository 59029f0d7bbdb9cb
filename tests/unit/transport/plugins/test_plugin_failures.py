"""Plugins that die, say nothing or say what is no protocol fail their requests at once."""

import os
import signal
import sys

import pytest
import trio
from trio.testing import MockClock

from cafs.errors import CafsError, DeadlineError, RefusedError, UnreachableError
from cafs.model.plugging import PluginSpec
from cafs.transport.interfaces import Request
from cafs.transport.plugins.failing import redacted
from cafs.transport.plugins.transport import PluginTransport
from tests.unit.transport.plugins.plugin_world import (
    answered,
    asking,
    content,
    logged,
    open_plugin,
    read,
    spec,
)

SOON_S = 15.0
"""Below the plugin's own limit of 20 s: what takes less was not waited for."""


async def failed(plugin: PluginTransport, url: str) -> CafsError:
    with trio.fail_after(SOON_S), pytest.raises(CafsError) as caught:
        await read(plugin, url)
    return caught.value


async def again(plugin: PluginTransport, url: str) -> bytes:
    """Read, as soon as the program may be started again."""
    with trio.fail_after(SOON_S):
        while True:
            try:
                return await read(plugin, url)
            except UnreachableError as error:
                await trio.sleep(error.retry_after_s or SOON_S)


@pytest.mark.parametrize("flags", [(), ("--requests", "1")])
async def test_d19_a_dead_plugin_fails_all_its_requests_with_its_last_words(
    flags: tuple[str, ...],
) -> None:
    errors: list[CafsError] = []

    async def ask(url: str) -> None:
        errors.append(await failed(plugin, url))

    async with open_plugin(spec(*flags)) as plugin:
        others = [] if flags else ["x:silent", "x:silent", "x:stalled"]
        async with trio.open_nursery() as nursery:
            for url in others:
                nursery.start_soon(ask, url)
            await trio.testing.wait_all_tasks_blocked(0.1)
            nursery.start_soon(ask, "x:die/3")
        assert len(errors) == 1 + len(others)
        for error in errors:
            assert isinstance(error, UnreachableError)
            assert "exit code 3" in error.what
            assert "disk on fire" in error.what
        assert await again(plugin, "x:bytes/10") == content(0, 10)


async def test_a_plugin_that_dies_in_the_middle_breaks_the_body_there() -> None:
    async with open_plugin(spec()) as plugin, await plugin.open(Request("x:half")) as response:
        data = b""
        while len(data) < 65536:
            data += await response.receive()
        assert data == content(0, 65536)
        with pytest.raises(UnreachableError, match=r"exit code 4.*disk on fire"):
            await response.receive()


async def test_a_killed_plugin_is_a_dead_one() -> None:
    async with open_plugin(spec()) as plugin, trio.open_nursery() as nursery:
        pid = int(await read(plugin, "x:pid"))

        async def kill() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            os.kill(pid, signal.SIGKILL)

        nursery.start_soon(kill)
        error = await failed(plugin, "x:silent")
        assert "was killed by signal 9" in error.what


BABBLE = [
    ("hello%0A", "'hello' came instead of an answer"),
    (f'{{"id":ID,"head":{"[" * 2000}%0A', "came instead of an answer"),
    ('{"id":99,"done":{}}%0A', "there is no request 99"),
    ('{"id":ID,"data":4}%0A1234', "data before its head"),
    ('{"id":ID,"done":{}}%0A', "an end that does not fit its head"),
    ('{"id":ID,"head":{}}%0A{"id":ID,"head":{}}%0A', "two heads"),
    ('{"id":ID,"head":{}}%0A{"id":ID,"use-cached":{}}%0A', "does not fit its head"),
]


@pytest.mark.parametrize(("said", "says"), BABBLE)
async def test_a_babbling_plugin_fails_its_requests_at_once(said: str, says: str) -> None:
    errors: list[CafsError] = []

    async def ask() -> None:
        errors.append(await failed(plugin, "x:silent"))

    async with open_plugin(spec()) as plugin:
        pid = int(await read(plugin, "x:pid"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.1)
            errors.append(await failed(plugin, f"x:say/{said}"))
        for error in errors:
            assert isinstance(error, RefusedError)
            assert says in error.what
            assert "about to babble" in error.what
        assert int(await after_rest(plugin)) != pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def after_rest(plugin: PluginTransport) -> bytes:
    """The pid of the next program; one that babbled is refused until it may be started again."""
    with trio.fail_after(SOON_S):
        while True:
            try:
                return await read(plugin, "x:pid")
            except RefusedError:
                await trio.sleep(0.05)


async def test_a_silent_plugin_fails_the_request_after_its_time(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    async with open_plugin(spec()) as plugin, trio.open_nursery() as nursery:
        errors = asking(nursery, plugin, "x:silent")
        await logged(caplog, "thinking")
        mock_clock.jump(19.9)
        await trio.testing.wait_all_tasks_blocked()
        assert not errors
        mock_clock.jump(0.2)
        await answered(errors)
        assert isinstance(errors[0], DeadlineError)
        assert "said nothing for 20 s" in errors[0].what
        assert "thinking" in errors[0].what


async def test_a_plugin_that_is_silent_in_the_middle_fails_the_request_too(
    mock_clock: MockClock,
) -> None:
    async with (
        open_plugin(spec()) as plugin,
        await plugin.open(Request("x:stalled")) as response,
    ):
        assert await response.receive() == b"12345"
        mock_clock.autojump_threshold = 0  # nothing else is to come
        with pytest.raises(DeadlineError, match="said nothing for 20 s"):
            await response.receive()


async def test_a_request_that_hangs_harms_no_other(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    async with open_plugin(spec()) as plugin, trio.open_nursery() as nursery:
        pid = await read(plugin, "x:pid")
        errors = asking(nursery, plugin, "x:silent")
        await logged(caplog, "thinking")
        for _ in range(2):
            mock_clock.jump(9.9)
            assert await read(plugin, "x:late/0.01") == b"late"
            assert not errors
        mock_clock.jump(0.3)
        await answered(errors)
        assert isinstance(errors[0], DeadlineError)
        assert await read(plugin, "x:pid") == pid


async def test_a_plugin_that_is_not_there_is_said_so() -> None:
    nowhere = PluginSpec("x", ("cafs-transport-nowhere",), 5.0)
    async with open_plugin(nowhere) as plugin:
        with pytest.raises(RefusedError, match="cannot be started") as caught:
            await read(plugin, "x:bytes/1")
        assert "plugins.x.command" in caught.value.hint
        with pytest.raises(RefusedError, match="cannot be started"):
            await read(plugin, "x:bytes/1")


async def test_restarts_come_after_longer_and_longer_delays() -> None:
    delays: list[float] = []
    async with open_plugin(spec("--die")) as plugin:
        for _ in range(3):
            with pytest.raises(UnreachableError, match="no licence"):
                await read(plugin, "x:bytes/1")
            with pytest.raises(UnreachableError) as caught:
                await read(plugin, "x:bytes/1")
            assert caught.value.retry_after_s is not None
            delays.append(caught.value.retry_after_s)
            await trio.sleep(caught.value.retry_after_s)
    assert all(0 < delay <= most for delay, most in zip(delays, (0.25, 0.5, 1.0), strict=True))
    assert delays[0] < delays[1] < delays[2]


async def test_an_answer_makes_the_next_delay_short_again() -> None:
    async with open_plugin(spec()) as plugin:
        for _ in range(3):
            assert await again(plugin, "x:bytes/1") == b"\0"
            await failed(plugin, "x:die")
            error = await failed(plugin, "x:bytes/1")
            assert isinstance(error, UnreachableError)
            assert error.retry_after_s is not None
            assert error.retry_after_s <= 0.25


async def test_the_secret_of_a_url_is_in_no_reason_and_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    async with open_plugin(spec()) as plugin:
        error = await failed(plugin, "x:die?sig=hunter2")
        assert "cannot go on with x:die?…" in error.what
        assert "hunter2" not in error.line + repr(plugin) + caplog.text
        assert "transport.plugin.said" in caplog.text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no: x:a/b?sig=hunt%2Ber2&part=3", "no: x:a/b?…"),
        ("no: sig=hunt%2Ber2&part=3!", "no: …!"),
        ("unescaped: sig=hunt+er2&part=3", "unescaped: …"),
        ("wrong signature hunt+er2, or 'hunt%2Ber2'", "wrong signature …, or '…'"),
        ("part 3 of 33 is missing", "part 3 of 33 is missing"),
    ],
)
def test_the_secret_of_a_url_is_left_out_alone_and_unescaped_too(said: str, shown: str) -> None:
    assert redacted(said, ("x:c", "x:a/b?sig=hunt%2Ber2&part=3")) == shown


def test_a_query_without_names_is_a_secret_as_a_whole() -> None:
    assert redacted("no hunter2 here", ("x:a?hunter2#part",)) == "no … here"
    assert redacted("no query here", ("x:a?", "x:b")) == "no query here"


async def test_the_secret_of_a_url_is_in_no_log_after_its_answer_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    async with open_plugin(spec()) as plugin:
        assert await read(plugin, "x:afterword?sig=hunter2") == b"x"
        with trio.fail_after(SOON_S):
            while "that was" not in caplog.text:
                await read(plugin, "x:late/0.05")
    assert "that was x:afterword?…" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("flags", [(), ("--deaf",)])
async def test_a_program_ends_with_its_transport(flags: tuple[str, ...]) -> None:
    async with open_plugin(spec(*flags)) as plugin:
        pid = int(await read(plugin, "x:pid"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(trio.ClosedResourceError):
        await read(plugin, "x:pid")


async def test_children_of_a_plugin_that_ended_do_not_keep_it() -> None:
    script = "import os, sys, time\nos.fork() and os._exit(7)\ntime.sleep(60)\n"
    lonely = PluginSpec("x", (sys.executable, "-I", "-S", "-c", script), 20.0)
    async with open_plugin(lonely) as plugin:
        error = await failed(plugin, "x:bytes/1")
        assert "exit code 7" in error.what


@pytest.mark.parametrize("flags", [(), ("--requests", "1")])
async def test_nothing_is_said_before_the_greetings_though_who_began_it_has_gone(
    flags: tuple[str, ...],
) -> None:
    async with open_plugin(spec(*flags)) as plugin:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, plugin, "x:bytes/10")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.fail_after(SOON_S):
            assert await read(plugin, "x:bytes/3000000") == content(0, 3_000_000)
