"""Starting a plugin is in nobody's way: a disk that does not answer, a reader that is gone."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
import trio

from cafs.errors import UnreachableError
from cafs.model.plugging import PluginSpec
from cafs.transport.plugins.running import start
from cafs.transport.plugins.starting import Start
from tests.silent_disk import silent
from tests.unit.transport.plugins.plugin_world import open_plugin, read
from tests.unit.transport.test_credentials_running import until, until_gone


def starting() -> list[threading.Thread]:
    """The threads in which programs are being started."""
    return [each for each in threading.enumerate() if each.name == "plugin start"]


def children() -> set[str]:
    """Our processes that have not been waited for."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for each in tasks for pid in each.read_text().split()}


async def test_a_program_on_a_disk_that_does_not_answer_holds_up_nobody_else(
    fuse: None, tmp_path: Path
) -> None:
    spec = PluginSpec("x", (str(tmp_path / "disk" / "plugin"),), 0.5)
    errors: list[UnreachableError] = []

    async def ask() -> None:
        with pytest.raises(UnreachableError, match=r"was not started within 0\.5 s") as caught:
            await read(plugin, "x:1")
        errors.append(caught.value)

    with silent(tmp_path / "disk"):
        async with open_plugin(spec) as plugin:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(ask)
                    beats = 0
                    while len(errors) < 5:
                        await trio.sleep(0.01)
                        beats += 1
                assert beats > 10, "others go on meanwhile"
                await trio.sleep(errors[-1].retry_after_s or 0.0)
                await trio.sleep(0.3)
                await ask()
            assert len(starting()) == 1, "one thread hangs, however often it is tried"
        assert len(starting()) == 1, "and the plugin's end does not wait for it"
    await until(lambda: not starting())


async def test_a_start_that_was_given_up_leaves_no_process_once_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, made = threading.Event(), []

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            gate.wait(60)
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            made.append(self.pid)

    monkeypatch.setattr("cafs.transport.plugins.starting.subprocess.Popen", Slow)
    before = len(os.listdir("/proc/self/fd"))
    with trio.move_on_after(0.1):
        await start(("/bin/sleep", "60"), trio.CapacityLimiter(1))
    assert not made, "nobody waits for the thread"
    gate.set()
    await until(lambda: bool(made))
    await until_gone(made[0])
    await until(lambda: not starting())
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_a_start_that_is_given_up_as_it_ends_leaves_no_process() -> None:
    begun = Start(("/bin/sleep", "60"), os.environ)
    made = begun.make()
    assert made is not None
    assert begun.forget() is made, "whoever gives it up has it"
    made.kill()
    with made:
        pass


def test_a_start_that_is_given_up_before_it_begins_runs_nothing(tmp_path: Path) -> None:
    begun = Start(("/bin/touch", str(tmp_path / "ran")), os.environ)
    assert begun.forget() is None
    assert begun.make() is None
    assert not (tmp_path / "ran").exists()


async def test_many_starts_that_are_cancelled_leave_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    threads, others = trio.CapacityLimiter(4), children()

    async def one(number: int) -> None:
        with trio.move_on_after(number * 0.0005):
            running = await start(("/bin/cat",), threads)
            await running.end()

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(one, number)
    await until(lambda: not starting())
    assert children() <= others, "not even zombies"
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_all_who_wait_for_its_end_are_told() -> None:
    running = await start(("/bin/sh", "-c", "read line; exit 7"), trio.CapacityLimiter(1))
    codes: list[int] = []

    async def wait() -> None:
        codes.append(await running.process.wait())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert running.process.returncode is None
        await running.stdin.send_all(b"\n")
    assert codes == [7, 7, 7]
    await running.end()
