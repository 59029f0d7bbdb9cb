"""A broken worker can fail requests, never the keeper: the kernel sees only what is well-formed.

The fake kernel fails a test by itself when a message is malformed or answers what nobody asked.
"""

import errno
import os

import pytest

from cafs.testing.fuse_wire import (
    MESSAGE_MAX,
    InitIn,
    InitOut,
    Notice,
    Opcode,
    Reply,
    delete_body,
    inval_entry_body,
    inval_inode_body,
)
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

GOOD_NOTICES = {
    Notice.INVAL_INODE: inval_inode_body(7, 0, 0),
    Notice.INVAL_ENTRY: inval_entry_body(1, "name"),
    Notice.DELETE: delete_body(1, 7, "name"),
}


def still_works(keeper: RunningKeeper, worker: HandWorker) -> None:
    request = keeper.kernel.send(Opcode.GETATTR, nodeid=12345)
    while (got := worker.receive()) != request:
        worker.reply(got)
    worker.reply(request, b"still")
    assert keeper.kernel.reply_to(request).body == b"still"
    status = keeper.status()
    assert (status.pid, status.state, status.worker) == (keeper.pid, "serving", worker.pid)


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        b"x" * 15,
        Reply.pack(2, 0, b"", length=0),
        Reply.pack(2, 0, b"", length=15),
        Reply.pack(2, 0, b"1234", length=16),
        Reply.pack(2, 0, b"1234", length=21),
        Reply.pack(2, 0, b"1234", length=0xFFFFFFFF),
        Reply.pack(0, Notice.INVAL_INODE, bytes(24), length=17),
        Reply.pack(4, 0, bytes(MESSAGE_MAX)),
    ],
    ids=["1", "15", "says 0", "less", "header only", "more", "huge", "notice", "too much"],
)
def test_who_sends_what_is_no_reply_is_replaced(
    keeper: RunningKeeper, worker: HandWorker, message: bytes
) -> None:
    keeper.expect_log("worker")
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    worker.send(message)
    worker.wait()
    second = keeper.workers.next()
    second.take_over()
    assert second.receive() == request
    second.reply(request, b"right")
    assert keeper.kernel.reply_to(request).body == b"right"


def test_a_reply_as_large_as_a_socket_takes_harms_nobody(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker")
    # As root any length can be sent; others get as far as their limit.
    option = 32 if os.geteuid() == 0 else 7  # SO_SNDBUFFORCE, SO_SNDBUF
    worker.requests.setsockopt(1, option, 4 << 20)
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    worker.send(Reply.pack(request.unique, 0, bytes(1 << 20)))
    worker.wait()
    second = keeper.workers.next()
    second.take_over()
    assert second.receive() == request


@pytest.mark.parametrize("error", [5, 1, -512, -5000, -(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("body", [b"", b"data"], ids=["header", "data"])
def test_an_error_that_there_is_not_becomes_eio(
    keeper: RunningKeeper, worker: HandWorker, error: int, body: bytes
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    worker.send(Reply.pack(request.unique, error, body))
    assert keeper.kernel.reply_to(request) == Reply(request.unique, errno.EIO)
    still_works(keeper, worker)


def test_an_error_with_data_loses_the_data(keeper: RunningKeeper, worker: HandWorker) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    worker.send(Reply.pack(request.unique, -errno.ENOENT, b"data" * 1000))
    assert keeper.kernel.reply_to(request) == Reply(request.unique, errno.ENOENT)
    still_works(keeper, worker)


def test_a_reply_that_nobody_asked_for_is_dropped(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    for unique in (1, 3, request.unique + 1, request.unique + 2, 1 << 62, (1 << 64) - 2, 1 << 63):
        worker.send(Reply.pack(unique, 0, b"data"))
    keeper.status()
    still_works(keeper, worker)


def test_a_reply_before_its_request_is_dropped(keeper: RunningKeeper, worker: HandWorker) -> None:
    guess = keeper.kernel.make(Opcode.GETATTR)
    worker.send(Reply.pack(guess.unique + 2, 0, b"guessed"))
    assert keeper.status().state == "serving"
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    worker.reply(request, b"true")
    assert keeper.kernel.reply_to(request).body == b"true"


def test_a_reply_to_what_the_worker_was_not_sent_yet_is_dropped(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    # More than the socket to the worker takes, so that the last waits in the keeper.
    asked = [keeper.kernel.send(Opcode.GETATTR) for _ in range(1000)]
    keeper.wait_until(lambda status: status.waiting == len(asked))
    worker.reply(asked[-1], b"guessed")
    for request in asked:
        assert worker.receive() == request
        worker.reply(request, b"true")
        assert keeper.kernel.reply_to(request).body == b"true"


def test_a_second_answer_to_init_is_dropped(keeper: RunningKeeper) -> None:
    asked = keeper.kernel.send(Opcode.INIT, InitIn().encode(), nodeid=0, pid=0)
    worker = keeper.workers.next()
    init = worker.begin()
    keeper.kernel.reply_to(asked)
    worker.reply(init, InitOut().encode())
    worker.reply(init, b"")
    still_works(keeper, worker)


@pytest.mark.parametrize("code", GOOD_NOTICES, ids=lambda code: code.name)
def test_notifications_that_the_kernel_may_get_are_passed_on(
    keeper: RunningKeeper, worker: HandWorker, code: Notice
) -> None:
    worker.notify(code, GOOD_NOTICES[code])
    assert keeper.kernel.notice() == Reply(0, code, GOOD_NOTICES[code])
    assert keeper.status().notices == 1


@pytest.mark.parametrize("code", sorted({*range(-3, 12), 1 << 30, -(1 << 31)} - set(GOOD_NOTICES)))
def test_other_notifications_are_dropped_and_counted(
    keeper: RunningKeeper, worker: HandWorker, code: int
) -> None:
    keeper.expect_log("notification")
    for length in (0, 24, 400):
        worker.notify(code, bytes(length))
    worker.notify(Notice.INVAL_INODE, inval_inode_body(7))
    assert keeper.kernel.notice().error == Notice.INVAL_INODE
    status = keeper.status()
    assert (status.notices, status.notices_dropped) == (1, 3)
    still_works(keeper, worker)


def test_a_notification_that_is_too_long_is_dropped(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("notification")
    fits = inval_entry_body(1, "n" * (512 - 16 - 17))
    worker.notify(Notice.INVAL_ENTRY, fits + b"\0")
    worker.notify(Notice.INVAL_ENTRY, fits)
    assert keeper.kernel.notice().body == fits
    assert keeper.status().notices_dropped == 1


def test_notifications_that_the_kernel_does_not_take_stop_nothing_else(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("notification")
    taken = 3000
    # Nobody reads them: the pipe to the kernel fills up, then the queue of 1,024.
    for inode in range(taken):
        worker.notify(Notice.INVAL_ENTRY, inval_entry_body(inode, "name"))
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
    status = keeper.status()
    assert status.notices_dropped > 0
    assert status.notices >= 1024
    assert status.notices + status.notices_dropped == taken
    seen = [keeper.kernel.notice().body for _ in range(status.notices)]
    in_order = [inval_entry_body(inode, "name") for inode in range(taken)]
    assert seen[:1024] == in_order[:1024]
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0


def test_pages_of_a_whole_tree_are_to_go_however_slowly_the_kernel_takes_that(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    trees = (range(100_000, 104_000), range(7, 10), range(1 << 40, (1 << 40) + 4000))
    # Nobody reads them: the pipe to the kernel fills up, and whole trees wait behind it.
    for tree in trees:
        for inode in tree:
            worker.notify(Notice.INVAL_INODE, inval_inode_body(inode))
    still_works(keeper, worker)
    total = sum(map(len, trees))
    status = keeper.wait_until(lambda status: status.notices == total)
    assert status.notices_dropped == 0
    seen = [keeper.kernel.notice().body for _ in range(total)]
    assert seen == [inval_inode_body(inode) for tree in trees for inode in tree]


def test_pages_that_were_forgotten_and_read_again_are_forgotten_again(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    for inode in (7, 8, 7, 7, 0, (1 << 64) - 1, 0):
        worker.notify(Notice.INVAL_INODE, inval_inode_body(inode))
        assert keeper.kernel.notice().body == inval_inode_body(inode)


def test_pages_of_more_places_than_there_are_go_with_those_between(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    # Nobody reads them: the pipe to the kernel fills up, then all places. What comes then is above
    # them, below them, and in the midst.
    asked = [*range(10_000, 22_000, 2), *range(9_998, 9_900, -2), *range(10_001, 10_050, 2), 1]
    for inode in asked:
        worker.notify(Notice.INVAL_INODE, inval_inode_body(inode))
    still_works(keeper, worker)
    status = keeper.wait_until(lambda status: status.notices == len(asked))
    assert status.notices_dropped == 0
    awaited = {inval_inode_body(inode) for inode in asked}
    while awaited:
        awaited.discard(keeper.kernel.notice().body)
    still_works(keeper, worker)


def test_pages_that_are_too_far_from_all_places_are_dropped_and_counted(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("notification")
    taken = 6000
    for inode in range(taken):
        worker.notify(Notice.INVAL_INODE, inval_inode_body(inode << 40))
    status = keeper.wait_until(lambda status: status.notices + status.notices_dropped == taken)
    assert status.notices_dropped > 0
    seen = [keeper.kernel.notice().body for _ in range(status.notices)]
    assert seen[:1024] == [inval_inode_body(inode << 40) for inode in range(1024)]
    still_works(keeper, worker)


@pytest.mark.parametrize("message", [b"X", b"E", b"G", b"l", bytes(4096)], ids=len)
def test_nonsense_on_the_channel_is_logged_and_dropped(
    keeper: RunningKeeper, worker: HandWorker, message: bytes
) -> None:
    keeper.expect_log("worker|channel|lease")
    worker.channel.send(message)
    keeper.wait_for_log("worker|channel|lease")
    still_works(keeper, worker)


def test_an_empty_message_on_either_socket_harms_nobody(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("worker|channel")
    request = keeper.kernel.send(Opcode.GETATTR)
    worker.receive()
    # An empty datagram looks like an end, and may cost this worker its place.
    worker.channel.send(b"")
    worker.send(b"")
    worker.wait()
    second = keeper.workers.next()
    second.take_over()
    assert second.receive() == request


@pytest.mark.parametrize(
    "answer",
    [b"", bytes(8), InitOut().encode()[:20], InitOut(major=8).encode(), bytes(1000)],
    ids=["empty", "8", "20", "major", "1000"],
)
def test_a_first_worker_whose_answer_to_init_is_none_is_replaced(
    keeper: RunningKeeper, answer: bytes
) -> None:
    keeper.expect_log("worker|INIT")
    asked = keeper.kernel.send(Opcode.INIT, InitIn().encode(), nodeid=0, pid=0)
    first = keeper.workers.next()
    init = first.receive()
    first.reply(init, answer)
    first.wait()
    second = keeper.workers.next()
    second.begin()
    assert len(keeper.kernel.reply_to(asked).body) == len(InitOut().encode())
