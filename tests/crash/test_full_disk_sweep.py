"""Whichever write fails for want of space, nothing wrong is served, kept or left behind.

The child lets the nth write fail, for n = 1, 2, … until a run passes untouched: writes into files,
making, sizing, naming and syncing them, and commits of records.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def test_any_write_may_find_the_disk_full_for_once_or_from_then_on(tmp_path: Path) -> None:
    # All of a lasting shortage; of one that has passed by the next write, every third.
    children = [sweep(tmp_path, "lasting", 1), sweep(tmp_path, "once", 3)]
    answers = [(child, child.communicate()[0]) for child in children]
    for child, said in answers:
        wrong = [line for line in said.splitlines() if line.startswith("write ")]
        assert not wrong
        assert child.returncode == 0, said
        *_, last = said.splitlines()
        words = last.split()
        assert words[0] == "done"
        assert int(words[3]) > 80  # so many writes there are


def sweep(path: Path, mode: str, step: int) -> "subprocess.Popen[str]":
    place = path / mode
    place.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.full_disk_child", place, mode, "1", str(step)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
