"""The load generator sees what is wrong: bytes, lengths, names, errors. Here a plain directory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing.archives import small_files
from cafs.testing.bodies import Generated
from cafs.testing.loading import Expected, Figures, Load, compiled, write_expected

BLOB = Generated(3 << 20, seed=1)
VICTIM = "tree/000/000/007.c"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("load", tmp_path_factory.mktemp("load"))


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    """Fifty files and a blob below ``there``, and what is right of them."""
    items = list(small_files(50))
    for item in items:
        place = tmp_path / "there" / item.path
        place.parent.mkdir(parents=True, exist_ok=True)
        if item.content:
            place.write_bytes(item.content)
    (tmp_path / "there/blob").write_bytes(BLOB.read(0, BLOB.size))
    return write_expected(tmp_path, items, BLOB)


def load(program: Path, expected: Expected, tmp_path: Path) -> Figures:
    there = tmp_path / "there"
    files = expected.write_list(tmp_path / "list", there)
    blob = there / "blob"
    with Load(program, files, expected, blob=blob, threads=4, operations=2000) as running:
        figures = running.finish()
    assert figures.operations == 8000
    return figures


def test_what_is_right_is_found_right(program: Path, expected: Expected, tmp_path: Path) -> None:
    figures = load(program, expected, tmp_path)
    assert (figures.errors, figures.wrong, figures.trouble) == (0, 0, "")
    assert min(figures.files, figures.blocks, figures.lists, figures.bytes) > 0
    assert 0 < figures.longest_s < figures.took_s


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("spoil", [flip, cut, lengthen])
def test_a_wrong_file_is_found(
    program: Path, expected: Expected, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / "there" / VICTIM)
    figures = load(program, expected, tmp_path)
    assert figures.errors == 0
    assert figures.wrong > 0
    assert VICTIM in figures.trouble


def test_a_missing_file_is_an_error_and_missed_in_its_listing(
    program: Path, expected: Expected, tmp_path: Path
) -> None:
    (tmp_path / "there" / VICTIM).unlink()
    figures = load(program, expected, tmp_path)
    assert figures.errors > 0
    assert figures.wrong > 0
    assert VICTIM in figures.trouble


def test_a_wrong_byte_in_the_blob_is_found(
    program: Path, expected: Expected, tmp_path: Path
) -> None:
    blob = tmp_path / "there/blob"
    content = bytearray(blob.read_bytes())
    content[1 << 20] ^= 1
    blob.write_bytes(content)
    figures = load(program, expected, tmp_path)
    assert figures.wrong > 0
    assert "blob: wrong bytes" in figures.trouble
