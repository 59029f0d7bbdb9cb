"""What compares trees finds what differs; what looks into the page cache sees what was read."""

import os
from pathlib import Path

import pytest

from cafs.model.span import Span, SpanSet
from cafs.testing.debian import LackingError, need
from cafs.testing.residency import resident
from cafs.testing.sameness import Outcome, compare

PAGE = os.sysconf("SC_PAGE_SIZE")


def planted(root: Path) -> Path:
    """A tree with one of each kind."""
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"content")
    (root / "d" / "g").hardlink_to(root / "d" / "f")
    (root / "d" / "e").write_bytes(b"")
    (root / "l").symlink_to("d/f")
    os.utime(root / "l", ns=(10**18, 10**18), follow_symlinks=False)
    for name in ("d/f", "d/e", "d"):
        os.utime(root / name, ns=(10**18, 10**18))
    return root


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return planted(tmp_path / "one"), planted(tmp_path / "other")


def differing(trees: tuple[Path, Path], form: str = "plain") -> Outcome:
    outcome = Outcome(form)
    compare(*trees, outcome, readers=2, seed=1)
    return outcome


def test_the_same_is_the_same(trees: tuple[Path, Path]) -> None:
    outcome = differing(trees)
    assert outcome.well
    assert outcome.entries == 5
    assert outcome.bytes == 14


def test_everything_that_differs_is_found(trees: tuple[Path, Path]) -> None:
    other = trees[1]
    file = other / "d" / "f"
    file.write_bytes(b"contenT")
    os.utime(file, ns=(10**18 + 1, 10**18 + 1))
    assert differing(trees, "estargz").wrong == [
        "d/f: other bytes from 0 on",
        "d/g: other bytes from 0 on",
    ] or differing(trees, "estargz").wrong == [
        "d/g: other bytes from 0 on",
        "d/f: other bytes from 0 on",
    ]
    assert sum("of 1000000000000000001" in line for line in differing(trees).wrong) == 2
    file.unlink()
    file.write_bytes(b"content")
    file.chmod(0o600)
    (other / "l").unlink()
    (other / "l").symlink_to("d/e")
    (other / "more").mkdir()
    (other / "d" / "e").unlink()
    found = "\n".join(differing(trees).wrong)
    for what in ("d/f: st_mode", "d/g: st_nlink", "another file than", "l: leads to d/e"):
        assert what in found
    assert "/more: only in one of them" in found
    assert "d/e: only in one of them" in found


def test_a_file_has_in_memory_what_was_read_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * PAGE))
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        before = resident(path)
        os.pread(file.fileno(), 10, 17 * PAGE)
    if before:
        pytest.skip("the file system keeps what it was told to drop")
    assert resident(path) == SpanSet([Span(17 * PAGE, 18 * PAGE)])
    (tmp_path / "empty").touch()
    assert not resident(tmp_path / "empty")


def test_what_is_not_here_is_named_with_its_package() -> None:
    with pytest.raises(LackingError, match="apt-get install no-such-program"):
        need("no-such-program")
