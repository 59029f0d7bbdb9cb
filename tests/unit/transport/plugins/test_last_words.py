"""What a plugin says on stderr: in the log, as far as that is of use, and its end in reasons."""

import pytest
import trio

from cafs.transport.plugins.last_words import LastWords

Log = pytest.LogCaptureFixture


@pytest.fixture
def log(caplog: Log) -> Log:
    caplog.set_level("INFO", "cafs.transport")
    return caplog


def said(log: Log) -> list[str]:
    return [each.getMessage().removeprefix("transport.plugin.") for each in log.records]


async def heard(*pieces: bytes, pause_s: float = 0.0) -> LastWords:
    """Who has listened to these, and to the end."""
    words = LastWords("x", lambda: ("x:a?hunter2",))
    send, receive = trio.testing.memory_stream_one_way_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(words.listen, receive)
        for piece in pieces:
            await send.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(pause_s)
        await send.aclose()
    return words


async def test_each_line_is_logged_and_the_last_are_remembered(log: Log) -> None:
    words = await heard(b"one\ntw", b"o\n\n  \nthree: x:a?hunter2\nfo", b"ur")
    assert said(log) == ["said x: one", "said x: two", "said x: three: x:a?…", "said x: four"]
    assert words.text == "two; three: x:a?…; four"


async def test_of_a_flood_so_much_is_logged_and_it_is_told_how_much_is_not(log: Log) -> None:
    flood = b"".join(b"line %04d\n" % number for number in range(5000))
    words = await heard(flood)
    assert len(said(log)) == 101
    assert said(log)[-2:] == ["said x: line 0099", "left_out x: 4900 lines, 44100 bytes"]
    assert words.text == "line 4997; line 4998; line 4999"


async def test_what_was_left_out_is_told_in_time_and_then_it_may_speak_again(
    log: Log, autojump_clock: trio.testing.MockClock
) -> None:
    flood = b"again and again\n" * 130
    await heard(flood, b"later\n", pause_s=11.0)
    assert said(log)[100:] == ["left_out x: 30 lines, 450 bytes", "said x: later"]


async def test_one_that_talks_for_a_day_is_logged_at_a_bounded_rate(
    log: Log, autojump_clock: trio.testing.MockClock
) -> None:
    await heard(*[b"tick\n" * 50] * 60, pause_s=1.0)
    assert len(said(log)) <= 6 * 101 + 1
    left = [line.split()[2] for line in said(log) if line.startswith("left_out")]
    ticks = sum(line.startswith("said") for line in said(log))
    assert ticks + sum(map(int, left)) == 3000, "nothing is lost without a word"


async def test_a_line_without_an_end_is_cut_and_says_by_how_much(log: Log) -> None:
    words = await heard(*[b"x" * 50_000] * 40, b"\nend\n")
    assert said(log) == [f"said x: {'x' * 300}… (1999700 more)", "said x: end"]
    assert words.text.endswith("; end")
