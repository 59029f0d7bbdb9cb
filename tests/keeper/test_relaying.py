"""Requests to the worker and replies to the kernel: what passes, and in which order."""

import errno
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cafs.testing.fuse_wire import (
    IN_HEADER,
    READ_MAX,
    Notice,
    Opcode,
    Request,
    getxattr_body,
    handle_of,
    inval_inode_body,
    name_body,
    read_body,
    rename_body,
    setxattr_body,
)
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

SLOTS = 4096
SLOT_MAX = 320
SETTLED_S = 0.05
"""How long a reply waits until the kernel has what was said before it."""
WRITING = (
    Opcode.SETATTR,
    Opcode.SYMLINK,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.RENAME2,
    Opcode.LINK,
    Opcode.WRITE,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.CREATE,
    Opcode.FALLOCATE,
)
RELAYED = {
    Opcode.LOOKUP: name_body("name"),
    Opcode.GETATTR: bytes(16),
    Opcode.SETATTR: bytes(88),
    Opcode.READLINK: b"",
    Opcode.SYMLINK: name_body("name") + name_body("target"),
    Opcode.MKNOD: bytes(16) + name_body("name"),
    Opcode.MKDIR: bytes(8) + name_body("name"),
    Opcode.UNLINK: name_body("name"),
    Opcode.RMDIR: name_body("name"),
    Opcode.RENAME: rename_body("old", "new"),
    Opcode.LINK: bytes(8) + name_body("name"),
    Opcode.WRITE: bytes(40) + b"data",
    Opcode.STATFS: b"",
    Opcode.SETXATTR: setxattr_body("user.name", b"value"),
    Opcode.GETXATTR: getxattr_body("user.cafs.digest", 256),
    Opcode.LISTXATTR: bytes(8),
    Opcode.REMOVEXATTR: name_body("user.name"),
    Opcode.ACCESS: bytes(8),
    Opcode.CREATE: bytes(16) + name_body("name"),
}


@pytest.mark.parametrize(("opcode", "body"), RELAYED.items(), ids=[x.name for x in RELAYED])
def test_a_request_reaches_the_worker_as_the_kernel_sent_it(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode, body: bytes
) -> None:
    request = keeper.kernel.send(opcode, body, nodeid=0x1_2345_6789)
    assert worker.receive() == request


@pytest.mark.parametrize("length", [0, 1, 144, 4096, 256 << 10])
def test_a_reply_reaches_the_kernel_as_the_worker_sent_it(
    keeper: RunningKeeper, worker: HandWorker, length: int
) -> None:
    body = bytes(i % 251 for i in range(length))
    request = keeper.kernel.send(Opcode.READ, read_body(size=length), nodeid=7)
    worker.reply(worker.receive(), body)
    assert keeper.kernel.reply_to(request).body == body


@pytest.mark.parametrize("error", [errno.ENOENT, errno.EIO, errno.EBADMSG, errno.ETIMEDOUT, 511])
def test_an_error_reaches_the_kernel_as_the_worker_sent_it(
    keeper: RunningKeeper, worker: HandWorker, error: int
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR, bytes(16))
    worker.reply(worker.receive(), error=error)
    assert keeper.kernel.reply_to(request).error == error


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS])
def test_reads_carry_their_inode_as_handle_and_are_else_unchanged(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode
) -> None:
    nodeid = 0xFEDC_BA98_7654_3210
    request = keeper.kernel.send(opcode, read_body(offset=8192, size=262144), nodeid=nodeid)
    got = worker.receive()
    assert handle_of(got.body) == nodeid
    assert got == replace(request, body=read_body(fh=nodeid, offset=8192, size=262144))


def test_requests_keep_their_order_and_replies_may_change_it(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    sent = [keeper.kernel.send(Opcode.GETATTR, bytes(16), nodeid=i) for i in range(1, 100)]
    got = [worker.receive() for _ in sent]
    assert got == sent
    for request in reversed(got):
        worker.reply(request, struct.pack("=Q", request.unique))
    received = [keeper.kernel.receive() for _ in sent]
    assert [one.unique for one in received] == [one.unique for one in reversed(sent)]
    assert all(struct.unpack("=Q", one.body) == (one.unique,) for one in received)


def test_many_large_replies_at_once_are_all_whole(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    """The sockets have their usual buffers, which hold not even two of these."""
    asked = [keeper.kernel.send(Opcode.READ, read_body(size=256 << 10)) for _ in range(200)]
    pieces = {one.unique: one.unique.to_bytes(8, "little") * (16 << 10) for one in asked}

    def reply_to_all() -> None:
        for _ in asked:
            request = worker.receive()
            worker.reply(request, pieces[request.unique])

    with ThreadPoolExecutor(1) as pool:
        replying = pool.submit(reply_to_all)
        for request in asked:
            assert keeper.kernel.reply_to(request).body == pieces[request.unique]
        replying.result()
    assert keeper.status().waiting == 0


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS])
def test_a_read_whose_answer_was_lost_is_sent_again(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode
) -> None:
    nodeid = 0xFEDC_BA98_7654_3210
    request = keeper.kernel.send(opcode, read_body(offset=1 << 40, size=262144), nodeid=nodeid)
    for _ in range(5):
        got = worker.receive()
        assert got.unique == request.unique
        assert handle_of(got.body) == nodeid
        worker.ask_again(nodeid, 1 << 40)
    worker.reply(worker.receive(), b"at last")
    assert keeper.kernel.reply_to(request).body == b"at last"
    assert keeper.status().resent == 5


def test_only_what_was_lost_is_sent_again(keeper: RunningKeeper, worker: HandWorker) -> None:
    kernel = keeper.kernel
    lost = kernel.send(Opcode.READ, read_body(offset=4096, size=4096), nodeid=7)
    kernel.send(Opcode.READ, read_body(offset=0, size=8192), nodeid=7)
    kernel.send(Opcode.READ, read_body(offset=4096, size=4096), nodeid=8)
    kernel.send(Opcode.GETATTR, struct.pack("=IIQ", 0, 0, 4096) + bytes(24), nodeid=7)
    answered = kernel.send(Opcode.READ, read_body(offset=12288, size=4096), nodeid=7)
    for _ in range(4):
        worker.receive()
    worker.reply(worker.receive(), b"heard")
    assert kernel.reply_to(answered).body == b"heard"
    for node, offset in [(7, 12288), (7, 1), (9, 4096), (7, 4096)]:
        worker.ask_again(node, offset)
    assert worker.receive().unique == lost.unique
    assert keeper.status().resent == 1
    assert worker.waiting() == []


@pytest.mark.parametrize("length", [1, 255])
def test_a_name_that_a_file_may_have_is_looked_up(
    keeper: RunningKeeper, worker: HandWorker, length: int
) -> None:
    request = keeper.kernel.send(Opcode.LOOKUP, name_body("n" * length))
    assert worker.receive() == request


@pytest.mark.parametrize("length", [256, 471, 472, 1023, 4000])
def test_a_longer_name_is_refused_without_a_worker(
    keeper: RunningKeeper, worker: HandWorker, length: int
) -> None:
    reply = keeper.kernel.ask(Opcode.LOOKUP, name_body("n" * length))
    assert reply.error == errno.ENAMETOOLONG
    assert worker.waiting() == []


@pytest.mark.parametrize(
    ("opcode", "before"),
    [
        (Opcode.MKDIR, 8),
        (Opcode.MKNOD, 16),
        (Opcode.CREATE, 16),
        (Opcode.LINK, 8),
        (Opcode.UNLINK, 0),
        (Opcode.GETXATTR, 8),
        (Opcode.REMOVEXATTR, 0),
    ],
    ids=lambda value: value.name if isinstance(value, Opcode) else "",
)
def test_the_longest_name_fits_in_any_request_with_one(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode, before: int
) -> None:
    request = keeper.kernel.send(opcode, bytes(before) + name_body("n" * 255))
    assert worker.receive() == request


@pytest.mark.parametrize("opcode", WRITING)
def test_what_would_write_and_is_too_long_to_remember_is_erofs(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode
) -> None:
    body = b"x" * (SLOT_MAX - IN_HEADER.size)
    assert keeper.kernel.ask(opcode, body + b"x").error == errno.EROFS
    request = keeper.kernel.send(opcode, body)
    assert worker.receive() == request


@pytest.mark.parametrize("opcode", [Opcode.GETXATTR, Opcode.GETATTR, Opcode.READLINK, 77, 4096])
def test_what_would_not_write_and_is_too_long_to_remember_is_eio(
    keeper: RunningKeeper, worker: HandWorker, opcode: int
) -> None:
    body = getxattr_body("user." + "x" * 2000)
    assert keeper.kernel.ask(opcode, body).error == errno.EIO
    assert worker.waiting() == []


def test_the_longest_message_that_the_kernel_may_send_is_answered(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    body = bytes(READ_MAX - IN_HEADER.size)
    assert keeper.kernel.ask(Opcode.WRITE, body).error == errno.EROFS


def test_a_full_table_stops_the_reading_and_loses_nothing(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    kernel = keeper.kernel
    asked: list[Request] = []
    taken: list[Request] = []
    while len(taken) < SLOTS:
        request = kernel.make(Opcode.GETATTR, bytes(16))
        if kernel.push(request):
            asked.append(request)
        taken += worker.waiting()
    keeper.wait_until(lambda status: status.waiting == SLOTS)
    # The pipe to the keeper fills up now, and nobody empties it.
    while kernel.push(request := kernel.make(Opcode.GETATTR, bytes(16))):
        asked.append(request)
    assert keeper.status().waiting == SLOTS
    assert worker.waiting() == []
    worker.reply(taken[0])
    assert kernel.receive().unique == taken[0].unique
    assert worker.receive() == asked[SLOTS]
    taken.append(asked[SLOTS])
    for index in range(1, len(asked)):
        if index == len(taken):
            taken.append(worker.receive())
        worker.reply(taken[index])
        assert kernel.receive().unique == asked[index].unique
        taken += worker.waiting()
    assert taken == asked
    assert kernel.unanswered == ()


def test_a_worker_that_reads_nothing_holds_up_only_what_it_has_to_answer(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    kernel = keeper.kernel
    # More than the socket to the worker takes.
    asked = [kernel.send(Opcode.GETATTR, bytes(16)) for _ in range(2000)]
    for _ in range(5000):
        kernel.send(Opcode.FORGET, bytes(8), nodeid=5)
    assert kernel.ask(Opcode.FLUSH, bytes(24)).error == errno.ENOSYS
    assert keeper.status().waiting == len(asked)
    assert [worker.receive() for _ in asked] == asked
    for request in asked:
        worker.reply(request)
        kernel.receive()
    assert kernel.unanswered == ()


def test_a_second_reply_to_one_request_is_dropped(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    first = keeper.kernel.send(Opcode.GETATTR)
    second = keeper.kernel.send(Opcode.GETATTR)
    assert [worker.receive(), worker.receive()] == [first, second]
    for request in (first, first, second):
        worker.reply(request)
    assert keeper.kernel.receive().unique == first.unique
    assert keeper.kernel.receive().unique == second.unique


def test_what_was_unanswered_at_a_workers_death_goes_to_the_next_in_order(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    asked = [keeper.kernel.send(Opcode.GETATTR, bytes(16), nodeid=i) for i in range(1, 501)]
    taken = [worker.receive() for _ in range(200)]
    for request in taken[::3]:
        worker.reply(request)
        keeper.kernel.reply_to(request)
    worker.kill()
    late = keeper.kernel.send(Opcode.GETATTR, bytes(16), nodeid=999)
    second = keeper.workers.next()
    second.take_over()
    answered = set(taken[::3])
    expected = [request for request in asked if request not in answered]
    assert [second.receive() for _ in expected] == expected
    assert second.receive() == late
    for request in [*expected, late]:
        second.reply(request)
        keeper.kernel.reply_to(request)
    assert keeper.kernel.unanswered == ()
    # Those that the first worker had not been sent are not sent again.
    assert 200 - len(answered) <= keeper.status().resent <= len(expected)


def test_a_reply_that_a_worker_wrote_before_it_died_counts_once(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    request = keeper.kernel.send(Opcode.READ, read_body(), nodeid=3)
    got = worker.receive()
    worker.reply(got, b"bytes")
    worker.kill()
    assert keeper.kernel.reply_to(request).body == b"bytes"
    second = keeper.workers.next()
    second.take_over()
    other = keeper.kernel.send(Opcode.GETATTR)
    assert second.receive() == other


def test_late_replies_of_a_worker_that_was_replaced_are_swallowed(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    asked = [keeper.kernel.send(Opcode.GETATTR, bytes(16), nodeid=i) for i in range(1, 20)]
    taken = [worker.receive() for _ in asked]
    worker.ignore_term()
    second = keeper.reload()
    again = [second.receive() for _ in asked]
    assert again == asked
    for request in taken:
        worker.reply(request, b"old")
    for request in again:
        second.reply(request, b"new")
    for request in asked:
        assert keeper.kernel.reply_to(request).body == b"new"
    assert keeper.kernel.is_quiet()


def test_attributes_are_taken_away_before_the_reply_behind_that(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    in_time = 0
    for inode in range(500):
        request = keeper.kernel.send(Opcode.GETATTR)
        assert worker.receive() == request
        began = time.monotonic()
        worker.notify(Notice.INVAL_INODE, inval_inode_body(inode, offset=-1))
        worker.reply(request, error=errno.ESTALE)
        assert keeper.kernel.reply_to(request).error == errno.ESTALE
        # Who reads the reply may open the path again at once. It waits for no longer than that.
        early = bool(keeper.kernel.notices)
        assert early or time.monotonic() - began >= SETTLED_S
        in_time += early
        assert keeper.kernel.notice().body == inval_inode_body(inode, -1)
    assert in_time
