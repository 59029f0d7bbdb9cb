"""Files as sources."""

import errno
import os
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cafs.errors import (
    CafsError,
    DeadlineError,
    InvalidReferenceError,
    NotFoundError,
    RefusedError,
    SourceChangedError,
    UnreachableError,
)
from cafs.model.pacing import USUAL, Pacing
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.file import FileTransport
from cafs.transport.interfaces import Request, Response
from tests.silent_disk import silent
from tests.unit.transport.test_credentials_running import until

BODY = bytes(range(256)) * 10_000
MTIME_NS = 1_700_000_000_123_456_789


async def body_of(response: Response) -> bytes:
    pieces = []
    while piece := await response.receive():
        assert len(piece) <= 1 << 20
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a b%41"
    path.write_bytes(BODY)
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    return path


async def test_a_file_is_read_whole(file: Path) -> None:
    async with await FileTransport().open(Request(file.as_uri())) as response:
        head = response.head
        assert (head.status, head.span, head.total) == (200, Span(0, len(BODY)), len(BODY))
        assert head.validator == Validator(size=len(BODY), mtime_ns=MTIME_NS)
        assert head.validator.strong
        assert head.ranges
        assert head.max_age_s == 0
        assert await body_of(response) == BODY
        assert await response.receive() == b""


@pytest.mark.parametrize(
    ("start", "stop", "end"),
    [
        (0, 1, 1),
        (5, 2_000_000, 2_000_000),
        (len(BODY) - 1, len(BODY) + 9, len(BODY)),
    ],
)
async def test_a_span_of_a_file_is_read(file: Path, start: int, stop: int, end: int) -> None:
    request = Request(file.as_uri(), Span(start, stop))
    async with await FileTransport().open(request) as response:
        assert response.head.status == 206
        assert response.head.span == Span(start, end)
        assert await body_of(response) == BODY[start:end]


async def test_a_span_behind_the_end_tells_the_total(file: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        await FileTransport().open(Request(file.as_uri(), Span(len(BODY), len(BODY) + 1)))
    assert caught.value.total == len(BODY)


async def test_an_empty_file_is_an_empty_whole(tmp_path: Path) -> None:
    (tmp_path / "e").touch()
    request = Request((tmp_path / "e").as_uri(), Span(0, 1))
    async with await FileTransport().open(request) as response:
        assert (response.head.status, response.head.total) == (200, 0)
        assert await response.receive() == b""


async def test_r10_a_file_is_unchanged_iff_size_and_time_are(file: Path) -> None:
    transport = FileTransport()
    async with await transport.open(Request(file.as_uri())) as response:
        version = response.head.validator
    probe = Request(file.as_uri(), Span(0, 1), if_changed=version)
    async with await transport.open(probe) as response:
        assert response.head.unchanged
        assert await response.receive() == b""
    os.utime(file, ns=(MTIME_NS, MTIME_NS + 1))
    async with await transport.open(probe) as response:
        assert not response.head.unchanged
        assert response.head.status == 206
    with file.open("ab") as more:
        more.write(b"x")
    os.utime(file, ns=(MTIME_NS, MTIME_NS))
    async with await transport.open(probe) as response:
        assert not response.head.unchanged


async def test_if_range_gets_the_whole_of_another_version(file: Path) -> None:
    transport = FileTransport()
    async with await transport.open(Request(file.as_uri())) as response:
        version = response.head.validator
    async with await transport.open(Request(file.as_uri(), Span(5, 9), version)) as response:
        assert response.head.status == 206
    os.utime(file, ns=(0, 0))
    async with await transport.open(Request(file.as_uri(), Span(5, 9), version)) as response:
        assert response.head.status == 200
        assert response.head.span == Span(0, len(BODY))


@pytest.mark.parametrize("change", ["write", "truncate", "touch"])
async def test_a_change_during_the_read_is_noticed(file: Path, change: str) -> None:
    async with await FileTransport().open(Request(file.as_uri())) as response:
        assert await response.receive() == BODY[: 1 << 20]
        if change == "write":
            with file.open("r+b") as writer:
                writer.write(b"zzz")
            os.utime(file, ns=(1, 1))
        elif change == "truncate":
            os.truncate(file, 1 << 20)
        else:
            os.utime(file, ns=(1, 1))
        with pytest.raises(SourceChangedError, match="changed"):
            await response.receive()


async def test_a_file_that_was_replaced_is_read_to_its_end(file: Path, tmp_path: Path) -> None:
    async with await FileTransport().open(Request(file.as_uri())) as response:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(file)
        assert await body_of(response) == BODY


async def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(RefusedError, match="not a regular file"):
            await FileTransport().open(Request(path.as_uri()))


@pytest.mark.parametrize("name", ["none", "a b%41/below"])
async def test_a_missing_file_is_not_found(file: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="file://"):
        await FileTransport().open(Request((tmp_path / name).as_uri()))


async def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("l")
    with pytest.raises(RefusedError):
        await FileTransport().open(Request((tmp_path / "l").as_uri()))


@pytest.mark.parametrize(
    "url", ["file://elsewhere/etc/passwd", "file:///a?b", "file:a", "file:///a%00b", "file://["]
)
async def test_a_url_of_no_local_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidReferenceError):
        await FileTransport().open(Request(url))


async def test_localhost_is_this_machine(file: Path) -> None:
    url = file.as_uri().replace("file://", "file://localhost")
    async with await FileTransport().open(Request(url)) as response:
        assert await body_of(response) == BODY


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left_behind(file: Path, tmp_path: Path) -> None:
    transport = FileTransport()
    async with await transport.open(Request(file.as_uri())):
        pass  # the first use of a thread may open descriptors of its own
    before = descriptors()
    for _ in range(10):
        response = await transport.open(Request(file.as_uri()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_or_closed, response)
            await response.aclose()
        await response.aclose()
        for request in (Request(tmp_path.as_uri()), Request(file.as_uri(), Span(10**9, 10**9 + 1))):
            with pytest.raises(CafsError):
                await transport.open(request)
    await transport.aclose()
    assert descriptors() == before


async def receive_or_closed(response: Response) -> None:
    try:
        await response.receive()
    except trio.ClosedResourceError:
        return


HASTY = Pacing(connections=3, first_byte_s=0.3, stall_s=0.3)


async def test_a_disk_that_does_not_answer_is_given_up_and_holds_up_nobody_else(
    fuse: None, tmp_path: Path
) -> None:
    transport, url = FileTransport(HASTY), (tmp_path / "disk" / "file").as_uri()
    told: list[str] = []

    async def ask() -> None:
        with pytest.raises(DeadlineError, match=r"did not answer within 0\.3 s") as caught:
            await transport.open(Request(url))
        assert caught.value.transient
        told.append(caught.value.line)

    threads = threading.active_count()
    with silent(tmp_path / "disk"), trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            of_others = trio.to_thread.current_default_thread_limiter()
            assert not of_others.borrowed_tokens
        with trio.move_on_after(0.05) as given_up:
            await transport.open(Request(url))
        assert given_up.cancelled_caught
        assert len(told) == 5
        assert threading.active_count() <= threads + HASTY.connections


@pytest.mark.parametrize("given_up", [True, False], ids=["by its reader", "by us"])
async def test_a_read_that_does_not_end_is_given_up_and_closes_the_file_when_it_does(
    file: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock, given_up: bool
) -> None:
    transport = FileTransport()
    async with await transport.open(Request(file.as_uri())):
        pass  # the first use of a thread may open descriptors of its own
    before = descriptors()
    begun, goes_on, pread = threading.Event(), threading.Event(), os.pread

    def slow(fd: int, length: int, start: int) -> bytes:
        begun.set()
        goes_on.wait(60)
        return pread(fd, length, start)

    async def give_up() -> None:
        await until(begun.is_set)
        if given_up:
            reading.cancel()
        else:
            mock_clock.jump(USUAL.stall_s)

    monkeypatch.setattr(os, "pread", slow)
    response = await transport.open(Request(file.as_uri()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        expected = trio.Cancelled if given_up else DeadlineError
        with trio.CancelScope() as reading, pytest.raises(expected):
            await response.receive()
    await response.aclose()
    assert descriptors() == before + 1, "a thread reads from it still"
    goes_on.set()
    await until(lambda: descriptors() == before)


async def test_a_file_that_was_read_to_its_end_is_closed_then(file: Path) -> None:
    transport = FileTransport()
    async with await transport.open(Request(file.as_uri())):
        pass  # the first use of a thread may open descriptors of its own
    before = descriptors()
    async with await transport.open(Request(file.as_uri(), Span(5, 9))) as response:
        assert descriptors() == before + 1
        assert await body_of(response) == BODY[5:9]
        assert descriptors() == before


@pytest.mark.parametrize("length", [4, 5, 4 << 20], ids=["all of it", "a part", "none"])
async def test_a_file_that_cannot_be_closed_rightly_has_been_read_all_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    failed: list[int] = []
    close, pread = os.close, os.pread

    def failing(fd: int) -> None:
        own = os.readlink(f"/proc/self/fd/{fd}") == str(file)
        close(fd)
        if own:
            failed.append(fd)
            raise OSError(errno.EIO, "close")

    def short(fd: int, length: int, start: int) -> bytes:
        if length > 5:
            raise OSError(errno.ESTALE, "pread")
        return pread(fd, min(4, length), start)

    monkeypatch.setattr(os, "close", failing)
    monkeypatch.setattr(os, "pread", short)
    transport = FileTransport()
    response = await transport.open(Request(file.as_uri(), Span(5, 5 + length)))
    if length > 5:
        with pytest.raises(UnreachableError, match="pread"):
            await response.receive()
    else:
        assert await response.receive() == BODY[5:9]
    await response.aclose()
    assert (await transport.open(Request(file.as_uri(), method="HEAD"))).head.total == len(BODY)
    with pytest.raises(RefusedError, match="behind"):
        await transport.open(Request(file.as_uri(), Span(len(BODY), len(BODY) + 1)))
    assert len(failed) == 3
