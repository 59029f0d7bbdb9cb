"""What the kernel has cached reaches neither the keeper nor the worker, opens among it.

``scripts/bench warm`` does that with 20,000 files.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cafs.control.keeper import find_program
from cafs.testing.archives import Compression, small_files, symlink, write_tar
from cafs.testing.command import Mount
from cafs.testing.loading import Reader, compiled
from cafs.testing.origin import running_origin
from cafs.testing.soaking import Keeper
from tests.forked import ForkedCafs, Forks

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES = 4_000
PASSES = 8
QUESTIONS = 8_000
LIMIT = 4 << 20
FLAT = 256 << 10


@pytest.fixture(scope="module")
def tree(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Path]]:
    """A mount of many files and a symlink, and a list of the files' paths from its top on."""
    scratch = tmp_path_factory.mktemp("warm")
    items = [*small_files(FILES), symlink("tree/link", "000/000/000.c")]
    archive = write_tar(scratch / "tree.tar.gz", items, Compression.GZIP)
    names = [item.path.removeprefix("tree/") for item in items if item.content]
    (scratch / "list").write_text("".join(f"{name}\n" for name in names))
    with running_origin() as origin:
        url = origin.put("/tree.tar.gz", archive)
        cafs = ForkedCafs(scratch / "world", forks)
        with cafs.mount(f'[ref.tree]\nfrom = "{url}"\n') as mount:
            assert len(list((mount.ref("tree") / "tree").rglob("*.c"))) == FILES
            yield mount, scratch / "list"


def costs_nothing(mount: Mount, act: Callable[[], object]) -> None:
    """Repeat something until a time at which no request reached the worker, nor the keeper.

    A machine may take back pages and names at any time, so a pass that is not warm proves nothing;
    a pass that asked nothing proves that nothing needs to be asked.
    """
    keeper = Keeper(mount.control)
    seen = []
    for _ in range(PASSES):
        first = mount.status()["requests"]
        before = keeper.status()
        act()
        after = keeper.status()
        last = mount.status()["requests"]
        relayed, answered = after.relayed - before.relayed, after.answered - before.answered
        reached = sum(last.values()) - sum(first.values())
        seen.append((relayed, answered, reached))
        # ls(1) asks once a run for a label. To be told its counters asks the worker a few things.
        if relayed == 0 and answered <= 1 and reached < 10:
            return
    raise AssertionError(f"relayed, answered by the keeper, seen by the worker: {seen}")


def test_opening_reading_and_closing_warm_files_asks_nobody(
    tree: tuple[Mount, Path],
) -> None:
    mount, names = tree
    command = [str(compiled("probe", names.parent)), "read", str(names)]
    # From a directory of the tree on: the ref's own name is looked up again every second.
    top = mount.ref("tree") / "tree"
    costs_nothing(mount, lambda: subprocess.run(command, cwd=top, check=True, capture_output=True))


@pytest.mark.parametrize("command", [["ls", "-lR"], ["cat", "link"], ["find", "-newer", "link"]])
def test_walks_and_symlinks_ask_nobody(tree: tuple[Mount, Path], command: list[str]) -> None:
    mount, _ = tree
    top = mount.ref("tree") / "tree"
    costs_nothing(mount, lambda: subprocess.run(command, cwd=top, check=True, capture_output=True))


def test_requests_leave_nothing_behind_in_the_keeper(tree: tuple[Mount, Path]) -> None:
    mount, names = tree
    keeper = Keeper(mount.control)
    program = compiled("reader", names.parent)
    sizes, before = [], keeper.status()
    for _ in range(2):
        with Reader(program, "ask", mount.path, QUESTIONS // 4) as asking:
            _, said = asking.process.communicate(timeout=120)
        assert asking.process.returncode == 0, said
        sizes.append(keeper.memory())
    after = keeper.status()
    assert after.relayed - before.relayed >= QUESTIONS // 2
    assert after.answered - before.answered >= QUESTIONS // 2
    if b"__asan_init" not in find_program(os.environ).read_bytes():
        # A sanitizer's memory is not the keeper's.
        assert max(sizes) < LIMIT
        assert abs(sizes[1] - sizes[0]) <= FLAT
