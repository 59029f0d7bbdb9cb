"""Noise in the records of a store: it heals at once, or says that it does and what to do.

The noise is made by ``scribble_child.py``, which dies of none of it: it forks for each.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.crash import scribble_child
from tests.crash.scribble_child import DAMAGED, FINE

pytestmark = pytest.mark.crash

CASES = int(os.environ.get("CAFS_TEST_SCRIBBLES", "40"))
"""For the index, and a quarter of them for the other; hundreds take a minute."""
_DEATHS: Final = {"SIGSEGV", "SIGBUS", "SIGABRT", "SIGALRM"}
"""Of pages that lead out of the file, or in a circle."""


@pytest.mark.parametrize(("which", "cases"), [("index", CASES), ("recent", CASES // 4)])
def test_noise_in_the_records_heals_at_once_or_is_told_as_damage_and_heals_the_next_time(
    which: str, cases: int
) -> None:
    memory = Path("/dev/shm")  # noqa: S108 - a disk would sync hundreds of stores
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-P", scribble_child.__file__, f"{folder}/store", which]
        done = subprocess.run(
            [*command, "0", str(cases)], capture_output=True, text=True, check=True
        )
    met = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(met) == cases
    for each in ("first", "then"):
        assert not [one for one in met if one[each] not in {str(FINE), str(DAMAGED), *_DEATHS}]
    told = [each for each in met if each["first"] == str(DAMAGED)]
    assert not [each for each in told if each["then"] != str(FINE)]
    # Who dies of it marks nothing: ``cafs verify`` finds it.
    assert sum(each["first"] == str(FINE) for each in met) > cases // 2
