"""A worker that dies in the middle of a fetch: nothing is lost, and little is fetched again."""

import hashlib
import os
import re
import select
import signal
import threading
from functools import partial

import pytest

from cafs.model.span import Span
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.crowd import disk_usage
from cafs.testing.faults import Rate
from cafs.testing.origin import Origin
from cafs.testing.serving import Exchange
from cafs.testing.soaking import KEEPER_LINES, Keeper

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MIB = 1 << 20
SIZE = 96 * MIB
UNBOOKED = 8 * MIB
"""Bytes that may lie in the store at one moment and are not booked yet."""


def sent(exchange: Exchange) -> Span:
    """The part of the body that an exchange sent."""
    first = re.fullmatch(r"bytes=(\d+)-\d*", exchange.header("range") or "bytes=0-")
    assert first is not None
    start = int(first[1])
    return Span(start, start + exchange.bytes_sent)


def repeated(spans: list[Span]) -> int:
    """How many bytes the spans have that an earlier one had already."""
    total, reached = 0, 0
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0, min(reached, span.stop) - span.start)
        reached = max(reached, span.stop)
    return total


def missing(spans: list[Span], stored: int) -> int:
    """How many bytes have been sent, however often, and are not stored."""
    return sum(span.stop - span.start for span in spans) - repeated(spans) - stored


def bodies(log: tuple[Exchange, ...]) -> list[Span]:
    """What was sent of the body, so far."""
    return [sent(one) for one in log if one.method == "GET"]


def kill(pid: int) -> None:
    """Kill a process that is not our child, and wait for its end."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], 60)[0]
    finally:
        os.close(process)


def test_what_is_sent_again_is_not_missing_more_often() -> None:
    once, twice = [Span(0, 30)], [Span(0, 30), Span(0, 30), Span(30, 40)]
    assert (missing(once, 25), missing(twice, 25)) == (5, 15)
    assert (repeated(once), repeated(twice)) == (0, 30)


@pytest.mark.parametrize("pinned", [False, True])
def test_kill_9_in_the_middle_of_a_cold_fetch_costs_the_reader_nothing(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=3)
    url = origin.put("/model.bin", body)
    origin.fault("/model.bin", Rate(32 * MIB))
    pin = f'integrity = "sha256:{body.sha256()}"\n' if pinned else ""
    cafs.expect_log(KEEPER_LINES)
    found: list[str] = []
    lost = stored = 0

    def has_sent(length: int, log: tuple[Exchange, ...]) -> bool:
        assert disk_usage(cafs.store) >= stored - UNBOOKED  # no worker throws away what is there
        return sum(one.bytes_sent for one in log) > length

    with cafs.mount(f'[ref.model]\nfrom = "{url}"\n{pin}') as mounted:
        keeper = Keeper(mounted.control)

        def read() -> None:
            with mounted.ref("model").open("rb") as opened:
                found.append(hashlib.file_digest(opened, "sha256").hexdigest())

        reader = threading.Thread(target=read)
        reader.start()
        for share in (0.3, 0.6):
            origin.wait_until(partial(has_sent, int(share * SIZE)))
            kill(keeper.wait_serving().worker)
            # What lay in sockets, or between a socket and the store. What a new worker has had sent
            # again without need is not among it.
            stored = disk_usage(cafs.store)
            lost += missing(bodies(origin.requests), stored)
            keeper.wait_serving()
            assert disk_usage(cafs.store) >= stored - UNBOOKED
        reader.join()
        assert keeper.status().workers == 3
    origin.settle()
    assert found == [body.sha256()]
    assert sum(one.aborted for one in origin.requests) >= 1
    assert repeated(bodies(origin.requests)) <= lost + 2 * UNBOOKED
