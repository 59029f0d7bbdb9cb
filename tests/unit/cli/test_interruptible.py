"""Ctrl-C, and signals to end, while tasks of a verb are at work."""

import os
import signal
import subprocess
import sys

import pytest
import trio

from cafs.cli.failing import interrupted
from cafs.cli.interruptible import in_order, run_async


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_told_to_end_does_so_in_order_and_says_by_which_signal(number: int) -> None:
    reached: list[str] = []

    async def verb() -> None:
        try:
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        finally:
            reached.append("undone")

    def run() -> None:
        with in_order():
            try:
                run_async(verb)
            finally:
                reached.append("taken back")

    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 128 + number
    assert reached == ["undone", "taken back"]
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def verb() -> str:
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.lowlevel.checkpoint()
            return "done"

        assert run_async(verb) == "done"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_what_fails_by_itself_fails_as_it_is() -> None:
    async def verb() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run_async(verb)


def test_the_second_signal_ends_the_process_at_once() -> None:
    program = """
import os, signal, trio
from cafs.cli.interruptible import run_async

async def verb():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

run_async(verb)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGTERM
