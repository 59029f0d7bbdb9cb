"""Flips of single bits in the files of LMDB: nothing wrong is read, and all that matters is found.

The flips are made by ``flip_child.py``, which dies of none of them: it forks for each.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.crash import flip_child
from tests.crash.flip_child import FINE, FOUND

pytestmark = [pytest.mark.crash, pytest.mark.slow]

FLIPS = int(os.environ.get("CAFS_TEST_FLIPS", "40"))
"""In each file; hundreds take a minute."""
_HARMLESS = {str(FINE), "70", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGALRM"}
"""How a reader may end: with right bytes, with an error (70), or dead; never with wrong ones."""


@pytest.mark.parametrize("which", ["index", "recent"])
def test_a_flip_in_the_records_serves_nothing_wrong_and_is_found_or_changes_nothing(
    which: str,
) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - a disk would sync hundreds of stores
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-P", flip_child.__file__, f"{folder}/store", which, str(FLIPS)]
        done = subprocess.run([*command, "7"], capture_output=True, text=True, check=True)
    flips = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(flips) == FLIPS
    wrong = [each for each in flips if each["read"] not in _HARMLESS]
    assert not wrong, "a reader got wrong bytes"
    missed = [each for each in flips if each["verify"] not in {str(FINE), str(FOUND)}]
    assert not missed, "not found, or the store was of no use afterwards"
    assert Counter(each["verify"] for each in flips)[str(FOUND)] >= 3
