"""Builds the keeper: compiles cafs/fuse/keeper/*.c, and has it installed beside ``cafs``.

The wheel's build does so through :class:`KeeperHook`, for an editable install too. By hand::

    .venv/bin/python hatch_build.py [--sanitized] PROGRAM

``CC`` (default ``cc``), ``CFLAGS`` and ``LDFLAGS`` are obeyed, the flags after ours.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from typing_extensions import override

ROOT: Final = Path(__file__).resolve().parent
SOURCES: Final = "cafs/fuse/keeper"
NAME: Final = "cafs-keeper"

LANGUAGE: Final = ("-std=c11", "-D_GNU_SOURCE", "-g", "-pthread", "-Wall", "-Wextra")
RELEASE: Final = (
    *("-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong"),
    *("-fPIE", "-pie", "-Wl,-z,relro,-z,now,-z,noexecstack"),
)
SANITIZED: Final = (
    *("-O1", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "-fno-omit-frame-pointer",
)
"""Ends the program at the first error, with a report on stderr. Only here warnings are errors, and
in scripts/check: what a compiler of tomorrow warns of shall keep nobody from installing."""


class CompilerError(Exception):
    """The keeper could not be compiled; the message says what to do."""


def compile_keeper(root: Path, program: Path, flags: Sequence[str] = RELEASE) -> None:
    """Compile all of the keeper under the project at ``root`` to ``program``.

    A program that is there is replaced at once or not at all, so that it may be running.

    Raises:
        CompilerError: there is no compiler, or it failed; it has said why on stderr.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        message = (
            f"cannot build {NAME}: there is no C compiler {compiler[0]!r}; "
            "install one (Debian: gcc libc6-dev), or name it in CC"
        )
        raise CompilerError(message)
    sources = sorted(map(str, (root / SOURCES).glob("*.c")))
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=f".{program.name}.") as scratch:
        made = Path(scratch) / program.name
        command = [
            *(*compiler, *LANGUAGE, *flags, *shlex.split(os.environ.get("CFLAGS", ""))),
            *("-o", str(made), *sources, *shlex.split(os.environ.get("LDFLAGS", ""))),
        ]
        if subprocess.run(command, check=False).returncode != 0:
            message = f"cannot build {NAME}: the C compiler failed: {shlex.join(command)}"
            raise CompilerError(message)
        made.replace(program)


class KeeperHook(BuildHookInterface):  # type: ignore[type-arg] # the parameter is not public
    """Gives the wheel the keeper as a script, and the name of the platform that it runs on."""

    PLUGIN_NAME = "custom"

    @override
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel, standard or editable, is put together."""
        self.scratch = tempfile.mkdtemp(prefix="cafs-build.")
        program = Path(self.scratch) / NAME
        try:
            compile_keeper(Path(self.root), program)
        except CompilerError as error:
            shutil.rmtree(self.scratch)
            self.app.abort(str(error))
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["shared_scripts"][str(program)] = NAME

    @override
    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled; the wheel has it."""
        shutil.rmtree(self.scratch)


def main() -> int:
    """Compile to the program that the command line names."""
    parser = argparse.ArgumentParser(description="Compile the keeper.")
    parser.add_argument("--sanitized", action="store_true", help="with ASan and UBSan")
    parser.add_argument("program", type=Path)
    arguments = parser.parse_args()
    try:
        compile_keeper(ROOT, arguments.program, SANITIZED if arguments.sanitized else RELEASE)
    except CompilerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
