"""R-23: digests by how they begin, at the cost of those that do."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cafs.model.digest import Digest
from cafs.store.blobs.prefixes import Prefixes
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot, Table

COUNT = 3000
CANONICAL = sorted(hashlib.sha256(b"%d" % number).hexdigest() for number in range(COUNT))
ALIASES = sorted(hashlib.sha512(b"%d" % number).hexdigest() for number in range(COUNT))


@pytest.fixture
def prefixes(tmp_path: Path) -> Iterator[Prefixes]:
    path = tmp_path / "index"
    path.mkdir()
    tables = {"blobs": 1, "aliases": 1, "members": 1, "numbers": 1, "trees": 1, "entries": 1}
    index = Environment(path, tables, synced=False, make_room=lambda: False)
    with_edges = [*CANONICAL, "00" * 32, "ff" * 32, "ff" * 31 + "fe"]
    blobs, aliases = index.table("blobs"), index.table("aliases")

    def fill(batch: Batch) -> None:
        for text in with_edges:
            batch.put(blobs, bytes.fromhex(text), b"")
        for text in ALIASES:
            batch.put(aliases, b"sha512:" + bytes.fromhex(text), b"")

    index.apply(fill)
    yield Prefixes(index)
    index.close()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64])
def test_r23_what_begins_so_is_found_whatever_the_number_of_digits(
    prefixes: Prefixes, length: int
) -> None:
    for text in (*CANONICAL[:: COUNT // 40], "0" * 64, "f" * 64):
        wanted = text[:length]
        everything = sorted({*CANONICAL, "00" * 32, "ff" * 32, "ff" * 31 + "fe"})
        found = [each.hex for each in prefixes.blobs("sha256", wanted)]
        assert found == [each for each in everything if each.startswith(wanted)]
    for text in ALIASES[:: COUNT // 40]:
        found = [each.hex for each in prefixes.blobs("sha512", text[:length])]
        assert found == [each for each in ALIASES if each.startswith(text[:length])]


def test_r23_a_lookup_reads_what_it_answers_and_no_more(
    prefixes: Prefixes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    scan = Snapshot.scan

    def counting(
        self: Snapshot, table: Table, start: bytes, stop: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        for key, value in scan(self, table, start, stop):
            read.append(key)
            yield key, value

    monkeypatch.setattr(Snapshot, "scan", counting)
    assert list(prefixes.blobs("sha256", CANONICAL[7])) == [Digest.parse("sha256:" + CANONICAL[7])]
    assert len(read) == 1
    assert next(prefixes.blobs("sha256", CANONICAL[7][:1])).hex.startswith(CANONICAL[7][:1])
    assert len(read) <= 1 + 64


def test_another_algorithm_is_never_mixed_in(prefixes: Prefixes) -> None:
    assert not list(prefixes.blobs("sha384", ALIASES[0][:2]))
    assert not list(prefixes.blobs("md5", "00"))
