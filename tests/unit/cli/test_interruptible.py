"""Ctrl-C while tasks of a verb are at work."""

import os
import signal

import pytest
import trio

from cafs.cli.failing import interrupted
from cafs.cli.interruptible import run_async


def test_ctrl_c_ends_the_verb_and_not_the_task_that_happens_to_run() -> None:
    reached: list[str] = []

    async def receives_bytes() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("received")
            await trio.sleep_forever()
        except trio.Cancelled:
            reached.append("cancelled")
            raise

    async def verb() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receives_bytes)

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        run_async(verb)
    assert interrupted(caught.value)
    assert reached == ["received", "cancelled"]
