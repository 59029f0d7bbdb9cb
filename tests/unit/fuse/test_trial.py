"""A worker on trial: what happens between the first heartbeat and the reply."""

import trio
from trio.testing import wait_all_tasks_blocked

from cafs.fuse.trial import Trial


async def test_heartbeats_wait_until_the_trial_is_passed() -> None:
    trial = Trial()
    happened: list[str] = []

    async def judge() -> None:
        await trial.asked()
        happened.append("asked")

    async def beat() -> None:
        await trial.held()
        happened.append("answered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(judge)
        await wait_all_tasks_blocked()
        assert happened == []
        nursery.start_soon(beat)
        nursery.start_soon(beat)
        await wait_all_tasks_blocked()
        assert happened == ["asked"]
        trial.passed()
    assert happened == ["asked", "answered", "answered"]
    with trio.fail_after(60):
        await beat()
