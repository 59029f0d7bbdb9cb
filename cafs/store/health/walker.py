"""The process that walks the pages of one environment, and may die of it.

``python -m cafs.store.health.walker DIRECTORY`` reads the versions of its tables' records as JSON
from standard input, and writes one JSON object a line: how many pages it has seen, and at last what
it found. It takes a bounded part of memory, and writes nothing.
"""

import os
import resource
import sys
from pathlib import Path
from typing import Final

import msgspec

from cafs.errors import StorageError
from cafs.store.db.btree import Walk
from cafs.store.db.btree_pages import DamageError, Meta, metas
from cafs.store.db.environment import pinned

_ROOM: Final = 2 << 30
"""Address space beyond that of the file: for Python, and for what is written meanwhile."""
_TRIES: Final = 5


class Broken(msgspec.Struct, frozen=True):
    """A record that is not what was written, and its neighbours (``btree.BrokenRecord``); hex."""

    table: str
    low: str
    key: str
    high: str | None


class Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the process says: how far it is, or at last (``done``) what it found.

    ``pages`` of ``total`` were seen. ``damage`` is empty when everything fits. ``failure`` says why
    nothing could be found out. ``records`` counts by table.
    """

    pages: int = 0
    total: int = 0
    done: bool = False
    damage: str = ""
    failure: str = ""
    broken: tuple[Broken, ...] = ()
    records: dict[str, int] = {}


def main() -> None:
    """Walk; the exit code is 0 when it could be told what was found."""
    path = Path(sys.argv[1])
    versions = msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, int])
    size = (path / "data.mdb").stat().st_size
    limit = 3 * size + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        line = walk(path, versions)
    except (OSError, StorageError) as error:
        line = Line(done=True, failure=str(error))
    _say(line)


def walk(path: Path, versions: dict[str, int]) -> Line:
    """Walk the last commit of an environment.

    Raises:
        OSError: the disk failed.
        StorageError: the environment cannot be opened, or grows too fast.
    """
    descriptor = os.open(path / "data.mdb", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _steady(descriptor)  # before LMDB believes them
        for _ in range(_TRIES):
            with pinned(path) as number:
                meta = next((each for each in _steady(descriptor) if each.number == number), None)
                if meta is None:
                    continue  # two commits came between
                return _walked(descriptor, meta, versions)
    except DamageError as error:
        return Line(done=True, damage=str(error))
    finally:
        os.close(descriptor)
    raise StorageError(f"{path}: others write without a pause")


def _walked(descriptor: int, meta: Meta, versions: dict[str, int]) -> Line:
    total = meta.last + 1
    one = Walk(descriptor, meta, versions, lambda pages: _say(Line(pages=pages, total=total)))
    records = one.run()
    broken = tuple(
        Broken(each.table, each.low.hex(), each.key.hex(), _hex(each.high)) for each in one.broken
    )
    return Line(pages=total, total=total, done=True, broken=broken, records=records)


def _hex(key: bytes | None) -> str | None:
    return None if key is None else key.hex()


def _steady(descriptor: int) -> tuple[Meta, Meta]:
    """The two pages that commits write over, when nobody was just doing so.

    Raises:
        DamageError: they are wrong each time.
    """
    for last in range(_TRIES):
        try:
            return metas(descriptor)
        except DamageError:
            if last == _TRIES - 1:
                raise
    raise AssertionError


def _say(line: Line) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)  # whoever asked has been killed; a normal exit would try to write again


if __name__ == "__main__":
    main()
