"""Y-4: a fetcher program of the old contract, behind the plugin that runs it."""

import os
import stat
import sys
from pathlib import Path

import pytest
import trio

from cafs.errors import RefusedError, UnreachableError
from cafs.model.plugging import PluginSpec
from cafs.model.span import Span
from cafs.transport.interfaces import Request
from cafs.transport.plugins.fetching import Fetching
from cafs.transport.plugins.frames import WINDOW
from tests.unit.transport.plugins.plugin_world import open_plugin, read

FETCHER = """#!/bin/sh
# FETCHER URL FILE
case $1 in
*/bad) echo "partial" >"$2"; echo "no such resource: $1" >&2; exit 3 ;;
*/mute) exit 9 ;;
*/none) exit 0 ;;
*/slow) sleep 60 ;;
*/chatty) head -c 20000000 /dev/zero | tr '\\0' x >&2; echo " and the reason" >&2; exit 4 ;;
*/big) head -c 5000000 /dev/zero >"$2" ;;
*) printf 'fetched %s' "$1" >"$2" ;;
esac
"""


@pytest.fixture
def fetcher(tmp_path: Path) -> PluginSpec:
    program = tmp_path / "fetcher"
    program.write_text(FETCHER)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    command = (sys.executable, "-P", "-m", "cafs.transport.plugins.fetching", "sbr,x")
    return PluginSpec("sbr", (*command, str(program)), 20.0)


async def test_y4_what_the_fetcher_wrote_is_the_content(fetcher: PluginSpec) -> None:
    async with open_plugin(fetcher) as plugin:
        assert await read(plugin, "sbr:1") == b"fetched sbr:1"
        assert await read(plugin, "sbr:big/big") == bytes(5_000_000)


async def test_y4_a_fetcher_brings_the_whole_whatever_is_asked(fetcher: PluginSpec) -> None:
    async with (
        open_plugin(fetcher) as plugin,
        await plugin.open(Request("sbr:1", Span(0, 1))) as response,
    ):
        assert (response.head.status, response.head.total) == (200, 13)
        assert (response.head.span, response.head.ranges) == (Span(0, 13), False)
        assert await response.receive() == b"fetched sbr:1"


async def test_y4_a_failure_says_what_the_fetcher_said(fetcher: PluginSpec) -> None:
    async with open_plugin(fetcher) as plugin:
        with pytest.raises(UnreachableError, match="no such resource: sbr:a/bad"):
            await read(plugin, "sbr:a/bad")
        with pytest.raises(UnreachableError, match="exit code 9"):
            await read(plugin, "sbr:a/mute")
        with pytest.raises(RefusedError, match=r"there is no content\.tmp"):
            await read(plugin, "sbr:a/none")
        assert await read(plugin, "sbr:2") == b"fetched sbr:2"


async def test_nothing_is_left_of_what_was_fetched(
    fetcher: PluginSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    async with open_plugin(fetcher) as plugin:
        await read(plugin, "sbr:1")
        async with await plugin.open(Request("sbr:big/big")) as response:
            await response.receive()
            assert os.listdir(place)
        with trio.move_on_after(0.3):
            await read(plugin, "sbr:a/slow")
        assert await read(plugin, "sbr:3") == b"fetched sbr:3"
    assert not os.listdir(place)


async def test_many_fetchers_and_a_slow_reader(fetcher: PluginSpec) -> None:
    got: list[bytes] = []

    async def one(number: int) -> None:
        got.append(await read(plugin, f"sbr:{number}"))

    async with (
        open_plugin(fetcher) as plugin,
        await plugin.open(Request("sbr:big/big")) as slow,
    ):
        assert 0 < len(await slow.receive()) <= WINDOW
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(one, number)
    assert sorted(got) == sorted(b"fetched sbr:%d" % number for number in range(20))


async def test_y4_of_one_that_never_stops_talking_the_end_is_kept(fetcher: PluginSpec) -> None:
    ours, _ = trio.testing.memory_stream_one_way_pair()
    kept = Fetching(["sbr"], [fetcher.command[-1]], ours)
    code, tail = await kept._run("sbr:a/chatty", Path("/none"))
    assert code == 4
    assert len(tail) < 10_000
    assert tail.endswith(b"xxx and the reason\n")
    async with open_plugin(fetcher) as plugin:
        with pytest.raises(UnreachableError, match=r"xxx and the reason$") as caught:
            await read(plugin, "sbr:a/chatty")
    assert len(caught.value.what) < 1000


async def test_y4_a_fetcher_that_is_not_there_is_named(fetcher: PluginSpec) -> None:
    missing = PluginSpec("sbr", (*fetcher.command[:-1], "/none/fetcher"), 20.0)
    async with open_plugin(missing) as plugin:
        for _ in range(2):
            with pytest.raises(UnreachableError, match=r"/none/fetcher: No such file"):
                await read(plugin, "sbr:1")
