"""The fixtures fail what they must fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WARNS = "import logging\nlogging.getLogger('cafs.x').warning('disk is odd')\n"


def outcome(tmp_path: Path, test: str, **environment: str) -> str:
    """What pytest says at the end of a run of one module with our fixtures."""
    module = tmp_path / "test_it.py"
    module.write_text(f"import pytest\nfrom tests.conftest import *\n{test}")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(module)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def indented(code: str) -> str:
    return re.sub("^", "    ", code, flags=re.MULTILINE)


def test_an_unexpected_warning_fails_its_test(tmp_path: Path) -> None:
    body = indented(WARNS)
    said = outcome(
        tmp_path,
        f"def test_unexpected():\n{body}\n"
        f"@pytest.mark.expects_log('disk is')\ndef test_expected():\n{body}\n"
        f"@pytest.mark.expects_log('other')\ndef test_other():\n{body}\n",
    )
    assert re.search(r"^3 passed, 2 errors in", said, re.MULTILINE), said
    assert "ERROR test_it.py::test_unexpected" in said
    assert "ERROR test_it.py::test_other" in said


@pytest.mark.parametrize(("ci", "ending"), [("", "1 skipped"), ("true", "1 error")])
def test_a_missing_program_is_a_failure_where_ci_is_set(
    tmp_path: Path, ci: str, ending: str
) -> None:
    test = "@pytest.fixture\ndef needs():\n    return program('no-such-program')\n"
    test += "def test_it(needs): pass\n"
    test = f"from tests.conftest import program\n{test}"
    said = outcome(tmp_path, test, CI=ci)
    assert re.search(rf"^{ending} in", said, re.MULTILINE), said
