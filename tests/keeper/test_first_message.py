"""INIT: what the keeper makes of the worker's answer, and who answers it to whom."""

import errno
from dataclasses import replace

import pytest

from cafs.testing.fuse_wire import KERNEL_FLAGS, Flag, InitIn, InitOut, Opcode, Reply, Request
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

ADDED = (
    Flag.CACHE_SYMLINKS
    | Flag.PARALLEL_DIROPS
    | Flag.POSIX_ACL
    | Flag.NO_OPEN_SUPPORT
    | Flag.NO_OPENDIR_SUPPORT
)
PLAIN = InitOut()


def ask_init(keeper: RunningKeeper, offer: InitIn) -> Request:
    return keeper.kernel.send(Opcode.INIT, offer.encode(), nodeid=0, pid=0)


def edited(keeper: RunningKeeper, answer: InitOut, offer: InitIn) -> InitOut:
    """What the kernel gets when the first worker answers so."""
    asked = ask_init(keeper, offer)
    keeper.workers.next().begin(answer)
    return InitOut.decode(keeper.kernel.reply_to(asked).body)


def test_the_first_worker_gets_init_as_the_kernel_sent_it(keeper: RunningKeeper) -> None:
    asked = ask_init(keeper, InitIn())
    assert keeper.workers.next().receive() == asked


@pytest.mark.parametrize("flag", list(ADDED), ids=str)
def test_a_flag_that_makes_warm_files_cheap_is_set_where_the_kernel_has_it(
    keeper: RunningKeeper, flag: Flag
) -> None:
    assert flag in edited(keeper, PLAIN, InitIn()).flags


@pytest.mark.parametrize("flag", [*ADDED, Flag.MAX_PAGES, Flag.ASYNC_READ], ids=str)
def test_what_the_kernel_did_not_offer_stays_off(keeper: RunningKeeper, flag: Flag) -> None:
    answer = replace(PLAIN, flags=PLAIN.flags | flag)
    got = edited(keeper, answer, InitIn(flags=KERNEL_FLAGS & ~flag))
    assert flag not in got.flags
    assert got.flags & ~KERNEL_FLAGS == Flag(0)


def test_bits_that_nobody_knows_are_masked(keeper: RunningKeeper) -> None:
    every = Flag((1 << 64) - 1)
    unknown = every & ~KERNEL_FLAGS
    got = edited(keeper, replace(PLAIN, flags=every), InitIn(flags=every))
    assert got.flags & unknown == Flag(0)


@pytest.mark.parametrize(
    "flag",
    [Flag.WRITEBACK_CACHE, Flag.PASSTHROUGH, Flag.OVER_IO_URING, Flag.HAS_INODE_DAX],
    ids=str,
)
def test_what_would_send_requests_another_way_is_never_on(
    keeper: RunningKeeper, flag: Flag
) -> None:
    answer = replace(PLAIN, flags=PLAIN.flags | flag | Flag.INIT_EXT)
    assert flag not in edited(keeper, answer, InitIn()).flags


def test_messages_stay_at_32_pages(keeper: RunningKeeper) -> None:
    assert edited(keeper, PLAIN, InitIn()).max_pages == 64


def test_many_reads_may_wait_in_the_background(keeper: RunningKeeper) -> None:
    got = edited(keeper, PLAIN, InitIn())
    assert (got.max_background, got.congestion_threshold) == (1024, 768)


def test_the_rest_of_the_reply_is_the_workers(keeper: RunningKeeper) -> None:
    answer = replace(PLAIN, minor=31, max_readahead=65536, time_gran=7)
    got = edited(keeper, answer, InitIn())
    same = ("major", "minor", "max_readahead", "time_gran")
    assert [getattr(got, name) for name in same] == [getattr(answer, name) for name in same]
    assert got.flags & PLAIN.flags == PLAIN.flags


def test_init_unanswered_when_the_first_worker_dies_goes_to_the_next(
    keeper: RunningKeeper,
) -> None:
    asked = ask_init(keeper, InitIn())
    first = keeper.workers.next()
    assert first.receive() == asked
    keeper.expect_log("worker")
    first.kill()
    second = keeper.workers.next()
    second.begin()
    assert InitOut.decode(keeper.kernel.reply_to(asked).body).max_pages == 64
    request = keeper.kernel.send(Opcode.GETATTR)
    assert second.receive() == request


def test_init_that_nobody_read_when_the_first_worker_died_goes_to_the_next(
    keeper: RunningKeeper,
) -> None:
    first = keeper.workers.next()
    keeper.expect_log("worker")
    first.kill()
    asked = ask_init(keeper, InitIn())
    second = keeper.workers.next()
    assert second.begin() == asked
    keeper.kernel.reply_to(asked)


def test_init_is_replayed_to_a_second_worker_whose_reply_the_kernel_does_not_get(
    keeper: RunningKeeper,
) -> None:
    asked = ask_init(keeper, InitIn())
    first = keeper.workers.next()
    first.begin()
    keeper.kernel.reply_to(asked)
    command = keeper.command("reload")
    second = keeper.workers.next()
    replayed = second.begin()
    assert (replayed.opcode, replayed.nodeid, replayed.body) == (
        asked.opcode,
        asked.nodeid,
        asked.body,
    )
    second.reply_beat(second.beat())
    second.reply_beat(second.beat())
    assert command.reloaded().ok
    # Replies come in order: had the replayed one been passed on, it would stand before this.
    assert keeper.kernel.ask(Opcode.FLUSH).error == errno.ENOSYS
    assert keeper.kernel.is_quiet()


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAIN, minor=30),
        replace(PLAIN, max_readahead=4096),
        replace(PLAIN, time_gran=1000),
        replace(PLAIN, flags=PLAIN.flags & ~Flag.DO_READDIRPLUS),
        replace(PLAIN, flags=PLAIN.flags | Flag.EXPORT_SUPPORT),
    ],
    ids=["minor", "readahead", "time_gran", "flag less", "flag more"],
)
def test_a_worker_that_answers_init_otherwise_is_refused(
    keeper: RunningKeeper, worker: HandWorker, other: InitOut
) -> None:
    keeper.expect_log("INIT|init|refused")
    command = keeper.command("reload")
    candidate = keeper.workers.next()
    candidate.begin(other)
    reloaded = command.reloaded()
    assert (reloaded.ok, reloaded.worker) == (False, 0)
    assert reloaded.why
    candidate.wait()
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request


def test_a_difference_that_the_kernel_does_not_see_is_none(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    second = keeper.reload(
        replace(PLAIN, max_background=77, congestion_threshold=50, max_pages=1, map_alignment=9)
    )
    request = keeper.kernel.send(Opcode.GETATTR)
    assert second.receive() == request


def test_a_worker_that_refuses_init_when_it_is_replayed_is_refused_itself(
    keeper: RunningKeeper, worker: HandWorker
) -> None:
    keeper.expect_log("INIT|init|refused")
    command = keeper.command("reload")
    candidate = keeper.workers.next()
    asked = candidate.receive()
    candidate.send(Reply.pack(asked.unique, -errno.EPROTO))
    assert not command.reloaded().ok
    request = keeper.kernel.send(Opcode.GETATTR)
    assert worker.receive() == request
