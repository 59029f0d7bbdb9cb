"""A worker on trial: what happens between the first heartbeats and their replies."""

import trio
from trio.testing import wait_all_tasks_blocked

from cafs.fuse.trial import Trial


async def test_heartbeats_wait_until_the_trial_is_passed_and_then_until_all_is_settled() -> None:
    trial = Trial()
    happened: list[str] = []

    async def judge() -> None:
        await trial.asked()
        happened.append("asked")

    async def follow() -> None:
        await trial.served()
        happened.append("served")

    async def beat() -> None:
        await trial.held()
        happened.append("answered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(judge)
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        assert happened == []
        nursery.start_soon(beat)
        nursery.start_soon(beat)
        await wait_all_tasks_blocked()
        assert happened == ["asked"]
        trial.passed()
        await wait_all_tasks_blocked()
        assert happened == ["asked", "answered", "answered"]
        nursery.start_soon(beat)
        nursery.start_soon(beat)
        await wait_all_tasks_blocked()
        assert happened == ["asked", "answered", "answered", "served"]
        trial.settled()
    assert happened == ["asked", *["answered"] * 2, "served", *["answered"] * 2]
    with trio.fail_after(10):
        await beat()
