"""The example plugins of the documents do what they say: one in sh, one that fetches torrents."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import trio

from cafs.errors import DeadlineError, NotFoundError, RefusedError
from cafs.model.plugging import PluginSpec
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.interfaces import Request
from tests.unit.transport.plugins.plugin_world import open_plugin, read

EXAMPLES = Path(__file__).parents[4] / "docs" / "examples"
SEEDER = Path(__file__).with_name("seeder.py")
BODY = Random(7).randbytes(2_500_001)
NOTE = b"a note"


@pytest.fixture
def shell(tmp_path: Path) -> PluginSpec:
    (tmp_path / "body.bin").write_bytes(BODY)
    (tmp_path / "empty").touch()
    (tmp_path / "inner").mkdir()
    return PluginSpec("dir", (str(EXAMPLES / "cafs-transport-shell"), str(tmp_path)), 20.0)


def test_the_example_in_sh_has_40_lines_at_most() -> None:
    assert len((EXAMPLES / "cafs-transport-shell").read_text().splitlines()) <= 40


async def test_the_example_in_sh_brings_files_and_parts_of_them(shell: PluginSpec) -> None:
    async with open_plugin(shell) as plugin:
        assert await read(plugin, "dir:body.bin") == BODY
        for span in (Span(0, 1), Span(999, 1_500_000), Span(2_500_000, 2_500_001)):
            assert await read(plugin, Request("dir:body.bin", span)) == BODY[span.start : span.stop]
        assert await read(plugin, Request("dir:body.bin", Span(2_500_000, 10**9))) == BODY[-1:]
        async with await plugin.open(Request("dir:empty", Span(0, 1))) as response:
            assert (response.head.status, response.head.total) == (200, 0)
            assert await response.receive() == b""
        for name in ("nothing", "inner", "../passwd", "a%20b", ".hidden"):
            with pytest.raises(NotFoundError, match="no such file"):
                await read(plugin, f"dir:{name}")
        with pytest.raises(RefusedError) as caught:
            await read(plugin, Request("dir:body.bin", Span(2_500_001, 2_500_002)))
        assert caught.value.total == len(BODY)


@dataclass(frozen=True)
class Peer:
    infohash: str
    port: int

    def url(self, path: str) -> str:
        return f"torrent:{self.infohash}/{path}?x.pe=127.0.0.1:{self.port}"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """A peer that has a torrent of two files."""
    files = tmp_path / "stuff"
    files.mkdir()
    (files / "body.bin").write_bytes(BODY)
    (files / "note.txt").write_bytes(NOTE)
    with subprocess.Popen(
        [sys.executable, str(SEEDER), str(files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        infohash, port = process.stdout.readline().split()
        yield Peer(infohash, int(port))
        process.kill()


@pytest.fixture
def torrent() -> PluginSpec:
    program = str(EXAMPLES / "cafs-transport-torrent")
    command = (sys.executable, program, "--local", "--listen", "127.0.0.1:0")
    return PluginSpec("torrent", command, 20.0)


async def test_a_torrent_comes_from_a_peer_by_parts(peer: Peer, torrent: PluginSpec) -> None:
    url = peer.url("body.bin")
    async with open_plugin(torrent) as plugin:
        async with await plugin.open(Request(url, Span(1_000_000, 1_000_010))) as response:
            head = response.head
            assert (head.status, head.total, head.ranges) == (206, len(BODY), True)
            assert (head.validator.text, head.validator.strong) == (f'"{peer.infohash}"', True)
            assert await response.receive() == BODY[1_000_000:1_000_010]
        parts: dict[int, bytes] = {}

        async def one(start: int) -> None:
            parts[start] = await read(plugin, Request(url, Span(start, start + 500_000)))

        async with trio.open_nursery() as nursery:
            for start in range(0, len(BODY), 500_000):
                nursery.start_soon(one, start)
        assert b"".join(parts[start] for start in sorted(parts)) == BODY
        assert await read(plugin, url) == BODY
        assert await read(plugin, peer.url("note.txt")) == NOTE
        with pytest.raises(NotFoundError, match="no 'other' in the torrent"):
            await read(plugin, peer.url("other"))
        asked = Request(url, Span(0, 1), if_changed=Validator(etag=f'"{peer.infohash}"'))
        async with await plugin.open(asked) as response:
            assert response.head.unchanged
            assert '"infohash"' in response.document


async def test_a_torrent_without_peers_is_waited_for_as_long_as_is_set(
    torrent: PluginSpec,
) -> None:
    impatient = PluginSpec("torrent", torrent.command, 3.0)
    async with open_plugin(impatient) as plugin:
        with pytest.raises(DeadlineError, match="said nothing for 3 s"):
            await read(plugin, f"torrent:{'ab' * 20}/x")


def test_the_session_in_the_documents_goes_as_it_is_shown(tmp_path: Path) -> None:
    """Typed line by line, a plugin says what the page says."""
    document = (EXAMPLES.parent / "plugins.md").read_text()
    block = document.partition("<!-- session:")[2].partition("```\n")[2].partition("```")[0]
    lines = block.splitlines()
    typed = "".join(f"{line[2:]}\n" for line in lines if line.startswith("> "))
    shown = "".join(f"{line[2:]}\n" for line in lines if line.startswith("< "))
    assert shown.count("\n") == 5
    (tmp_path / "hello.txt").write_text("hello, world")
    os.utime(tmp_path / "hello.txt", (1_700_000_000, 1_700_000_000))
    program = str(EXAMPLES / "cafs-transport-shell")
    command = [program, str(tmp_path)]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=True)
    assert done.stdout == shown
    assert done.stderr == ""
