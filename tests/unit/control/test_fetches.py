"""The socket by which a process that fetches is asked, with both of its ends."""

import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from cafs.control import fetches
from cafs.control.listening import listening
from cafs.errors import MountError
from cafs.fetch.interfaces import Inflight, Priority
from cafs.model.span import Span

T = TypeVar("T")
SECRET = "https://me:hunter2@files.example/x?signature=hunter2"


class Pretended:
    """Two fetches of one content, and what was asked to end."""

    def __init__(self, count: int = 2) -> None:
        self.ended: list[str | None] = []
        self.count = count

    def inflight(self) -> Sequence[Inflight]:
        return [
            Inflight(
                id="0a1b2c3d",
                name="gcc",
                url=SECRET,
                span=Span(100 * number, 100 * number + 100),
                received=7,
                since=0.0,
                priority=Priority.READAHEAD,
            )
            for number in range(self.count)
        ]

    def cancel(self, id_: str | None = None) -> Sequence[str]:
        self.ended.append(id_)
        return ["gcc"] if id_ in {None, "0a1b2c3d"} else []


@asynccontextmanager
async def heard(directory: Path, pretended: Pretended, of: str = "key") -> AsyncIterator[Path]:
    async with listening(directory, of, pretended, mount_point="/mnt/x"):
        (path,) = fetches.sockets(directory)
        yield path


async def thread(ask: Callable[..., T], *arguments: object) -> T:
    """Ask in a thread: both ends are in this process."""
    return await trio.to_thread.run_sync(partial(ask, *arguments))


async def test_what_is_fetched_is_told_without_secrets(tmp_path: Path) -> None:
    async with heard(tmp_path, Pretended()) as path:
        told = await thread(fetches.inflight, path)
    assert told is not None
    assert (told.pid, told.mount_point) == (os.getpid(), "/mnt/x")
    assert [(one.id, one.start, one.stop) for one in told.inflight] == [
        ("0a1b2c3d", 0, 100),
        ("0a1b2c3d", 100, 200),
    ]
    assert told.inflight[0].priority == "readahead"
    assert "files.example" in told.inflight[0].url
    assert "hunter2" not in str(told)


async def test_a_fetch_is_ended_by_its_id_and_all_without_one(tmp_path: Path) -> None:
    pretended = Pretended()
    async with heard(tmp_path, pretended) as path:
        assert await thread(fetches.cancel, path, "0a1b2c3d") == ("gcc",)
        assert await thread(fetches.cancel, path, "other") == ()
        assert await thread(fetches.cancel, path) == ("gcc",)
    assert pretended.ended == ["0a1b2c3d", "other", None]


async def test_an_answer_may_be_long(tmp_path: Path) -> None:
    async with heard(tmp_path, Pretended(20_000)) as path:
        told = await thread(fetches.inflight, path)
    assert told is not None
    assert len(told.inflight) == 20_000


async def test_many_may_ask_at_once(tmp_path: Path) -> None:
    answers: list[object] = []

    async def ask() -> None:
        answers.append(await thread(fetches.inflight, path))

    async with heard(tmp_path, Pretended()) as path, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert len(answers) == 50
    assert None not in answers


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"ask":"reboot"}\n',
        b'{"ask":"cancel","id":"\xff"}\n',
        b"x" * 10_000 + b"\n",
        b'{"ask":' + b"[" * 3000 + b"\n",
    ],
)
async def test_what_is_no_command_is_answered_so_and_ends_nothing(
    tmp_path: Path, line: bytes
) -> None:
    def say(path: Path) -> object:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(line)
            with connection.makefile("rb") as said:
                return json.loads(said.readline())

    pretended = Pretended()
    async with heard(tmp_path, pretended) as path:
        assert "no command" in str(await thread(say, path))
        assert await thread(fetches.inflight, path)
    assert pretended.ended == []


async def test_one_who_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    async with heard(tmp_path, Pretended()) as path:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            assert await thread(fetches.inflight, path)


async def test_nobody_else_may_enter_it(tmp_path: Path) -> None:
    async with heard(tmp_path, Pretended()) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_another_user_who_reaches_it_is_told_nothing() -> None:
    client = """
import os, socket, sys
os.setgroups([])
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(b'{"ask":"cancel"}')
    print("told", connection.recv(1000))
except OSError as error:
    print("hung up", error)
"""
    pretended = Pretended()
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o711)  # noqa: S103 - others may enter, for once
        async with heard(Path(place), pretended) as path:
            path.chmod(0o666)  # the mode is not all that keeps others out
            done = await trio.run_process(
                [sys.executable, "-c", client, str(path)], capture_stdout=True
            )
    assert done.stdout.startswith((b"told b''", b"hung up"))
    assert pretended.ended == []


async def test_the_socket_goes_with_its_process_and_one_that_was_killed_is_swept(
    tmp_path: Path,
) -> None:
    killed = tmp_path / f"key.1{fetches.SUFFIX}"
    other = tmp_path / f"another.1{fetches.SUFFIX}"
    for left in (killed, other):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(left))
    async with listening(tmp_path, "key", Pretended(), mount_point=None):
        assert not killed.exists()
        async with listening(tmp_path, "prefetch", Pretended(), mount_point=None):
            assert len(fetches.sockets(tmp_path)) == 3
    assert fetches.sockets(tmp_path) == [other]
    assert fetches.inflight(other) is None
    assert fetches.cancel(other) == ()
    assert not os.listdir(tmp_path)


async def test_a_process_that_hangs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "_ANSWER_S", 0.1)
    path = tmp_path / f"key.1{fetches.SUFFIX}"
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(path))
        hanging.listen()
        with pytest.raises(MountError, match=r"key\.1"):
            fetches.inflight(path)
    assert path.exists()


@pytest.mark.expects_log("control.fetches.unheard")
async def test_a_directory_that_cannot_be_used_fails_nothing(tmp_path: Path) -> None:
    async with listening(tmp_path / "no", "key", Pretended(), mount_point=None):
        pass


async def test_the_directory_may_have_a_long_name(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 200)
    os.mkdir(deep)
    async with heard(deep, Pretended()) as path:
        assert await thread(fetches.inflight, path)
    assert not os.listdir(deep)


def test_no_directory_is_no_socket(tmp_path: Path) -> None:
    assert fetches.sockets(tmp_path / "no") == []
