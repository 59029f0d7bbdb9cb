"""Patience with a source that does not answer, or not now: who is told what, and when."""

import trio

from cafs.fetch.interfaces import Patience
from cafs.model.span import Span
from cafs.testing.bodies import Generated
from cafs.testing.faults import Stall
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import Rig, until

MIB = 1 << 20


async def test_bytes_that_have_come_are_given_at_once_though_no_more_follow(
    rig: Rig, origin: Origin
) -> None:
    """They may still be kept back for a write of many; nothing that follows would write them."""
    content = await rig.located(origin.put("/x", Generated(4 * MIB, seed=1)))
    origin.fault("/x", Stall(after_bytes=700_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.read, 0, 2 * MIB, Patience(None))
        await until(lambda: any(one.received >= 700_000 for one in rig.fetcher.inflight()))
        with trio.fail_after(5):
            for offset in (0, 300_000, 695_000):
                expected = origin.expected("/x", Span(offset, offset + 4096))
                assert await content.read(offset, 4096, Patience(None)) == expected
        nursery.cancel_scope.cancel()
