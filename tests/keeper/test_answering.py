"""What the keeper answers by itself, so that it costs no worker."""

import errno
import struct

import pytest

from cafs.testing.fuse_wire import (
    KERNEL_FLAGS,
    Flag,
    InitIn,
    Opcode,
    getxattr_body,
    name_body,
)
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper

ANSWERED = {
    Opcode.FLUSH: errno.ENOSYS,
    Opcode.IOCTL: errno.ENOSYS,
    Opcode.LSEEK: errno.ENOSYS,
    Opcode.POLL: errno.ENOSYS,
    Opcode.BMAP: errno.ENOSYS,
    Opcode.FSYNC: errno.ENOSYS,
    Opcode.FSYNCDIR: errno.ENOSYS,
    Opcode.INTERRUPT: errno.ENOSYS,
    Opcode.RELEASE: 0,
    Opcode.RELEASEDIR: 0,
    Opcode.DESTROY: 0,
}
OPENS = {
    Opcode.OPEN: Flag.NO_OPEN_SUPPORT,
    Opcode.OPENDIR: Flag.NO_OPENDIR_SUPPORT,
}
XATTRS = {
    "security.selinux": errno.EOPNOTSUPP,
    "security.capability": errno.ENODATA,
    "security.ima": errno.ENODATA,
    "security.selinux2": errno.ENODATA,
    "system.posix_acl_access": errno.ENODATA,
    "system.posix_acl_default": errno.ENODATA,
    "trusted.overlay.opaque": errno.ENODATA,
}


@pytest.mark.parametrize(("opcode", "error"), ANSWERED.items(), ids=[x.name for x in ANSWERED])
def test_the_keeper_answers_it_and_the_worker_hears_nothing(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode, error: int
) -> None:
    before = keeper.status()
    reply = keeper.kernel.ask(opcode, bytes(64), nodeid=9)
    assert (reply.error, reply.body) == (error, b"")
    assert worker.waiting() == []
    after = keeper.status()
    assert after.answered == before.answered + 1
    assert (after.relayed, after.waiting) == (before.relayed, before.waiting)


@pytest.mark.parametrize("opcode", [Opcode.FORGET, Opcode.BATCH_FORGET])
@pytest.mark.parametrize("length", [8, 16, 8000])
def test_forgetting_is_swallowed_without_a_reply(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode, length: int
) -> None:
    keeper.kernel.send(opcode, bytes(length))
    # The next request's reply is the first that comes.
    asked = keeper.kernel.send(Opcode.FLUSH, bytes(24))
    assert keeper.kernel.receive().unique == asked.unique
    assert worker.waiting() == []


@pytest.mark.parametrize("opcode", OPENS, ids=lambda opcode: opcode.name)
def test_opens_cost_nothing_where_the_kernel_can_do_without_them(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode
) -> None:
    assert keeper.kernel.ask(opcode, bytes(8)).error == errno.ENOSYS
    assert worker.waiting() == []


@pytest.mark.parametrize(("opcode", "flag"), OPENS.items(), ids=[x.name for x in OPENS])
def test_opens_go_to_the_worker_where_the_kernel_cannot(
    keeper: RunningKeeper, opcode: Opcode, flag: Flag
) -> None:
    worker = keeper.begin(InitIn(flags=KERNEL_FLAGS & ~flag))
    request = keeper.kernel.send(opcode, bytes(8), nodeid=4)
    assert worker.receive() == request
    worker.reply(request, struct.pack("=QII", 4, 0, 0))
    assert keeper.kernel.reply_to(request).body == struct.pack("=QII", 4, 0, 0)
    (other,) = set(OPENS) - {opcode}
    assert keeper.kernel.ask(other, bytes(8)).error == errno.ENOSYS


@pytest.mark.parametrize(("name", "error"), XATTRS.items(), ids=XATTRS)
@pytest.mark.parametrize("size", [0, 132])
def test_xattrs_that_no_archive_has_are_answered_by_their_prefix(
    keeper: RunningKeeper, worker: HandWorker, name: str, error: int, size: int
) -> None:
    assert keeper.kernel.ask(Opcode.GETXATTR, getxattr_body(name, size)).error == error
    assert worker.waiting() == []


@pytest.mark.parametrize("name", ["user.cafs.digest", "securit", "security", "systemd.x", "user."])
def test_other_xattrs_are_the_workers(keeper: RunningKeeper, worker: HandWorker, name: str) -> None:
    request = keeper.kernel.send(Opcode.GETXATTR, getxattr_body(name, 64))
    assert worker.receive() == request


@pytest.mark.parametrize(
    ("opcode", "body"),
    [
        (Opcode.GETXATTR, b""),
        (Opcode.GETXATTR, bytes(8)),
        (Opcode.GETXATTR, bytes(8) + b"security.no-end"),
        (Opcode.LOOKUP, b""),
        (Opcode.LOOKUP, b"n" * 255),
        (Opcode.LOOKUP, b"n" * 256),
        (Opcode.READ, b""),
        (Opcode.READDIR, bytes(7)),
        (Opcode.INTERRUPT, b""),
        (Opcode.FORGET, b""),
        (Opcode.BATCH_FORGET, b"\xff" * 8),
    ],
    ids=lambda value: value.name if isinstance(value, Opcode) else str(len(value)),
)
def test_a_body_that_ends_too_early_harms_nobody(
    keeper: RunningKeeper, worker: HandWorker, opcode: Opcode, body: bytes
) -> None:
    keeper.kernel.send(opcode, body)
    for request in worker.waiting():
        worker.reply(request, error=errno.EIO)
    request = keeper.kernel.send(Opcode.LOOKUP, name_body("next"))
    while (got := worker.receive()) != request:
        worker.reply(got, error=errno.EIO)
    worker.reply(request)
    assert keeper.kernel.reply_to(request).error == 0
