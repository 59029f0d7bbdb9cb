"""Killed at any step of fetching, committing, evicting and collecting: nothing wrong, nothing lost.

All steps: ``python -m tests.crash.cycle_child DIRECTORY 1 1``.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", [3, 20])
def test_whatever_step_it_dies_at_digests_are_right_and_no_space_is_lost(
    tmp_path: Path, first: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.cycle_child", tmp_path, str(first), "34"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    *wrong, last = done.stdout.splitlines()
    assert wrong == []
    assert last.startswith("steps ")
    assert int(last.removeprefix("steps ")) > 50
