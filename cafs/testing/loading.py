"""Runs the C programs of the kit: readers under load that check every byte, and single readers.

They are C, so that an interpreter's pauses are not taken for those of what is read. They are
compiled when they are first wanted.
"""

import subprocess
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from cafs.testing.archives import Item
from cafs.testing.bodies import Generated

_PERIOD: Final = 1_048_573
"""Generated content repeats after so many bytes."""
_LONG_S: Final = 86_400
_END_S: Final = 60.0


class Figures(msgspec.Struct, frozen=True):
    """What a load came to.

    ``files``, ``blocks``, ``lists`` count operations, ``errors`` calls that failed, ``wrong`` reads
    that did not give the right bytes. ``longest_s`` is the longest wait for one operation, and
    ``longest_of`` its kind. ``trouble`` is the first thing that was wrong, or empty.
    """

    files: int
    blocks: int
    lists: int
    bytes: int
    errors: int
    wrong: int
    over_100ms: int
    over_1s: int
    longest_s: float
    longest_of: str
    took_s: float
    trouble: str

    @property
    def operations(self) -> int:
        """Operations of all kinds."""
        return self.files + self.blocks + self.lists


@dataclass(frozen=True, slots=True)
class Expected:
    """The right bytes of what a load reads, as files.

    ``places`` has offset, length and path below the tree for each file in ``contents``; ``pool`` is
    what the blob repeats.
    """

    places: tuple[tuple[int, int, str], ...]
    contents: Path
    pool: Path

    def write_list(self, path: Path, root: Path) -> Path:
        """Write the list that a load reads of the files below ``root``; its path."""
        lines = (f"{offset} {length} {root / name}\n" for offset, length, name in self.places)
        path.write_text("".join(lines))
        return path


def write_expected(directory: Path, items: Iterable[Item], blob: Generated) -> Expected:
    """Write down what the files among the items contain, and what the blob repeats."""
    contents, pool = directory / "contents", directory / "pool"
    places = []
    with contents.open("wb") as out:
        for item in items:
            if item.kind == tarfile.REGTYPE:
                places.append((out.tell(), len(item.content), item.path))
                out.write(item.content)
    pool.write_bytes(blob.read(0, _PERIOD))
    return Expected(tuple(places), contents, pool)


def compiled(name: str, directory: Path) -> Path:
    """The program made of ``NAME.c`` of the kit, compiled into a directory unless it is there.

    Raises:
        subprocess.CalledProcessError: the compiler refuses it.
    """
    program = directory / name
    if not program.exists():
        source = Path(__file__).with_name(f"{name}.c")
        command = ["cc", "-O2", "-pthread", "-o", str(program), str(source)]
        subprocess.run(command, check=True)
    return program


class Load:
    """Readers at work, until ``stop`` or the end of the ``with``.

    With ``operations`` each thread ends by itself after so many. ``dropping`` is a mount of which
    the kernel drops all that it has cached, every second; root's alone.

    Concurrency: one thread.
    """

    def __init__(
        self,
        program: Path,
        files: Path,
        expected: Expected,
        *,
        blob: Path,
        threads: int,
        dropping: Path | None = None,
        operations: int | None = None,
    ) -> None:
        end = ("-s", _LONG_S) if operations is None else ("-n", operations)
        command = [str(program), "-t", str(threads), *map(str, end)]
        # Whoever is not root can drop the pages of what they open.
        command += ["-e"] if dropping is None else ["-d", str(dropping)]
        command += ["-b", str(blob), "-p", str(expected.pool)]
        self._process = subprocess.Popen(
            [*command, str(files), str(expected.contents)], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def stop(self) -> Figures:
        """Let every reader end its operation; what it all came to.

        Raises:
            AssertionError: it could not run, or a reader sticks.
        """
        self._process.terminate()
        return self.finish()

    def finish(self) -> Figures:
        """Wait until every reader has ended by itself; what it all came to.

        Raises:
            AssertionError: it could not run, or a reader sticks.
        """
        try:
            said, _ = self._process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired as error:
            raise AssertionError("a reader sticks") from error
        assert self._process.returncode == 0, f"load: exit {self._process.returncode}"  # noqa: S101
        return msgspec.json.decode(said, type=Figures)


class Reader:
    """One reader in a process of its own; killed at the end of the ``with``.

    Concurrency: one thread.
    """

    def __init__(self, program: Path, verb: str, path: Path, number: int = 0) -> None:
        self.process = subprocess.Popen(
            [str(program), verb, str(path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        assert self.process.stderr is not None  # noqa: S101
        line = self.process.stderr.readline()
        if line != b"begin\n":
            self.__exit__()
            raise AssertionError(f"reader: {line.decode()}")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()
