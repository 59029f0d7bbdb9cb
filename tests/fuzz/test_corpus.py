"""The inputs that fuzzing has found worth keeping still find nothing."""

import subprocess
from pathlib import Path

import pytest

from hatch_build import LANGUAGE, SANITIZED
from tests.fuzz.fuzzing import PARSERS, target

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["relay", "workers"])
def test_no_known_input_finds_a_fault(name: str, tmp_path: Path) -> None:
    corpus = sorted((HERE / "corpus" / name).iterdir())
    assert corpus
    program = tmp_path / name
    sources = [HERE / f"{name}_fuzz.c", HERE / "replay.c"]
    subprocess.run(["cc", *LANGUAGE, *SANITIZED, "-o", program, *sources], check=True)
    run = subprocess.run([program, *corpus], stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(run.stderr.splitlines()) == len(corpus)


@pytest.mark.parametrize("name", PARSERS)
def test_no_known_input_finds_a_fault_in_a_parser(name: str) -> None:
    corpus = sorted((HERE / "corpus" / name).iterdir())
    assert corpus
    take = target(name).one
    for path in corpus:
        data = path.read_bytes()
        try:
            take(data)
        except Exception as error:
            raise AssertionError(f"{name}: {path.name}") from error
