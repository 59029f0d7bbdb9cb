"""Helper programs: bounded in time and in words, in nobody's way, and gone when nobody waits."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cafs.transport.credentials.credential import UnusableError
from cafs.transport.credentials.running import Runner
from tests.unit.transport.identities import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between open and read
        return False


async def until(holds: Callable[[], bool]) -> None:
    def wait() -> None:
        limit = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < limit
            time.sleep(0.01)

    await trio.to_thread.run_sync(wait)


async def until_gone(pid: int) -> None:
    await until(lambda: not is_running(pid))


async def pid_in(file: Path) -> int:
    await until(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(await trio.Path(file).read_text())


async def test_what_it_reads_says_and_returns(home: Home) -> None:
    program = home.program("p", '#!/bin/sh\nread line\necho "$1 $line $HOME"; pwd\nexit 3\n')
    spoken = await Runner(home.environ).run((str(program), "get"), b"hello\n", "p")
    assert spoken.code == 3
    assert spoken.output.decode() == f"get hello {home.path}\n/\n"


async def test_one_that_does_not_read_is_no_failure(home: Home) -> None:
    program = home.program("p", "#!/bin/sh\nexec <&-\necho done\n")
    for _ in range(20):
        spoken = await Runner(home.environ).run((str(program),), b"x" * 4096, "p")
        assert spoken.output == b"done\n"


async def test_one_that_says_much_is_heard_to_its_end(home: Home) -> None:
    program = home.program("p", "#!/bin/sh\nhead -c 1000000 /dev/zero\n")
    spoken = await Runner(home.environ).run((str(program),), b"", "p")
    assert len(spoken.output) == 1_000_000


async def test_one_that_hangs_is_killed_with_its_children(home: Home) -> None:
    file = home.path / "pid"
    program = home.program("p", f"#!/bin/sh\nsleep 300 &\necho $! >{file}\necho hush\nwait\n")
    with pytest.raises(UnusableError, match=r"p: no answer within 0\.3 s") as caught:
        await Runner(home.environ, 0.3).run((str(program),), b"", "p")
    assert "hush" not in str(caught.value)
    await until_gone(await pid_in(file))


async def test_one_that_babbles_is_killed(home: Home) -> None:
    program = home.program("p", "#!/bin/sh\nexec yes hush-hush\n")
    with pytest.raises(UnusableError, match="more than a MiB") as caught:
        await Runner(home.environ).run((str(program),), b"", "p")
    assert "hush" not in str(caught.value)


async def test_one_that_leaves_a_daemon_behind_is_not_waited_for(home: Home) -> None:
    file = home.path / "pid"
    program = home.program("p", f"#!/bin/sh\nsleep 300 &\necho $! >{file}\necho done\n")
    with trio.fail_after(60):
        spoken = await Runner(home.environ, 60).run((str(program),), b"", "p")
    assert spoken.output == b"done\n"
    pid = await pid_in(file)
    assert is_running(pid), "an agent that a helper starts is the user's"
    os.kill(pid, signal.SIGKILL)


async def test_one_that_closes_its_output_first_is_waited_for(home: Home) -> None:
    program = home.program("p", "#!/bin/sh\necho done\nexec >&-\nsleep 0.2\nexit 4\n")
    spoken = await Runner(home.environ).run((str(program),), b"", "p")
    assert (spoken.code, spoken.output) == (4, b"done\n")


async def test_one_whose_reader_is_gone_is_killed(home: Home) -> None:
    file = home.path / "pid"
    program = home.program("p", f"#!/bin/sh\necho $$ >{file}\nexec sleep 300\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Runner(home.environ).run, (str(program),), b"", "p")
        pid = await pid_in(file)
        nursery.cancel_scope.cancel()
    await until_gone(pid)


async def test_one_that_was_cancelled_before_it_began_leaves_nothing(home: Home) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with trio.CancelScope() as scope:
            scope.cancel()
            await Runner(home.environ).run(("/bin/true",), b"", "p")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_many_leave_no_descriptors(home: Home) -> None:
    runner = Runner(home.environ)
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(runner.run, ("/bin/true",), b"", "p")
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/nowhere/p",), "No such file"),
        (("nowhere-p",), "No such file"),
        (("/etc/passwd",), "Permission denied"),
        (("a\0b",), "improper"),
    ],
)
async def test_one_that_cannot_be_run_says_why(
    home: Home, command: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UnusableError, match=f"p: cannot be run: {reason}"):
        await Runner(home.environ).run(command, b"", "p")


async def test_a_question_that_is_too_long_is_not_asked(home: Home) -> None:
    with pytest.raises(UnusableError, match="4096"):
        await Runner(home.environ).run(("/bin/cat",), b"x" * 4097, "p")
