"""Installing cafs compiles the keeper, all of it, and puts it beside the command."""

import shlex
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from hatch_build import NAME, SANITIZED, SOURCES, CompilerError, compile_keeper

ROOT = Path(__file__).parents[2]
Compiler = Callable[[str], Path]


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Puts a shell script in the compiler's place, which finds its arguments in ``arguments``."""

    def use(script: str) -> Path:
        path = tmp_path / "compiler"
        arguments = tmp_path / "arguments"
        path.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" >{shlex.quote(str(arguments))}\n{script}\n'
        )
        path.chmod(0o755)
        monkeypatch.setenv("CC", f"{shlex.quote(str(path))} -first")
        return arguments

    return use


def test_every_source_is_compiled_with_the_flags_of_the_user_last(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = compiler('while [ "$1" != -o ]; do shift; done; echo made >"$2"')
    monkeypatch.setenv("CFLAGS", "-O3 '-DX=a b'")
    compile_keeper(ROOT, tmp_path / NAME)
    given = arguments.read_text().splitlines()
    assert given[0] == "-first"
    assert set(given) >= {str(path) for path in (ROOT / SOURCES).rglob("*.c")}
    assert given.index("-DX=a b") == given.index("-O3") + 1 > given.index("-O2")
    assert (tmp_path / NAME).read_text() == "made\n"


def test_a_failing_compiler_leaves_the_program_that_was_there(
    compiler: Compiler, tmp_path: Path
) -> None:
    program = tmp_path / NAME
    program.write_text("old")
    compiler("exit 1")
    with pytest.raises(CompilerError, match="the C compiler failed"):
        compile_keeper(ROOT, program)
    assert program.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "compiler", "arguments"}


def test_without_a_compiler_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CompilerError, match=r"no-such-compiler.*install.*gcc"):
        compile_keeper(ROOT, tmp_path / NAME)


def test_a_sanitized_keeper_runs(tmp_path: Path) -> None:
    compile_keeper(ROOT, tmp_path / NAME, SANITIZED)
    run = subprocess.run([tmp_path / NAME], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("usage: cafs-keeper")
    assert b"__asan_init" in (tmp_path / NAME).read_bytes()


@pytest.mark.parametrize("kind", ["standard", "editable"])
def test_a_wheel_has_the_program_and_not_its_sources(kind: str, tmp_path: Path) -> None:
    (path,) = map(Path, WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=[kind]))
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(f"/scripts/{NAME}"))
        assert wheel.read(name).startswith(b"\x7fELF")
        assert not [name for name in wheel.namelist() if name.startswith(SOURCES)]
    if kind == "standard":
        assert "-py3-none-linux_" in path.name


def test_a_source_distribution_has_all_that_compiling_needs(tmp_path: Path) -> None:
    (path,) = map(Path, SdistBuilder(str(ROOT)).build(directory=str(tmp_path)))
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / SOURCES).glob("*.[ch]")}
    assert names >= sources | {"hatch_build.py", "pyproject.toml"}
