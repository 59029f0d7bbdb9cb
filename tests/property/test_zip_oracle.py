"""Random ordinary zips: what is planted is what Info-ZIP's unzip extracts."""

import io
import os
import stat
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.model.member import Kind
from tests.planted import Node, Planted, extracted, tree_writer

NAMES = ["a", "b", "dir", "sp ace", "x" * 90, "ä-ö", ".h", "back\\slash"]
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C.UTF-8"}
UNIX = 3
FAT = 0


@dataclass(frozen=True)
class Item:
    path: str
    kind: Kind
    mode: int
    method: int
    content: bytes
    host: int


items = st.lists(
    st.builds(
        Item,
        path=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
        kind=st.sampled_from([Kind.FILE] * 4 + [Kind.DIRECTORY, Kind.SYMLINK]),
        mode=st.sampled_from([0o644, 0o755, 0o600, 0o4711, 0o444]),
        method=st.sampled_from(METHODS),
        content=st.sampled_from([b"", b"x", b"y" * 70_000, bytes(range(256)) * 400]),
        host=st.sampled_from([UNIX, UNIX, FAT]),
    ),
    max_size=10,
)

TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
}


def made(items: list[Item]) -> bytes:
    """An archive by Python's zipfile."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, item in enumerate(items):
            slash = "/" if item.kind is Kind.DIRECTORY else ""
            info = zipfile.ZipInfo(item.path + slash, (1999 + number, 2, 28, 23, 59, 2 * number))
            info.create_system = item.host
            if item.host == UNIX:
                info.external_attr = (TYPES[item.kind] | item.mode) << 16
            else:
                info.external_attr = 0 if item.mode & 0o200 else 1
            info.compress_type = item.method
            content = b"some/where" if item.kind is Kind.SYMLINK else item.content
            archive.writestr(info, b"" if slash else content)
    return out.getvalue()


def ordinary(items: list[Item]) -> list[Item]:
    """One member a path, nothing below what is no directory; only Unix has symlinks."""
    kinds: dict[str, Kind] = {}
    spelled: set[str] = set()
    kept = []
    for item in items:
        path = item.path
        if item.host == FAT and "/" not in path and item.kind is not Kind.DIRECTORY:
            # A FAT name without any slash has its backslashes taken for some.
            path = path.replace("\\", "/")
        # unzip 6.00 mangles UTF-8 names with the UTF-8 flag when FAT wrote them, as Java does.
        if item.path in spelled or (item.host == FAT and not item.path.isascii()):
            continue
        spelled.add(item.path)
        parents = [path[:at] for at, char in enumerate(path) if char == "/"]
        if path in kinds or any(
            kinds.get(p, Kind.DIRECTORY) is not Kind.DIRECTORY for p in parents
        ):
            continue
        if item.kind is Kind.SYMLINK and item.host == FAT:
            continue
        kinds |= dict.fromkeys(parents, Kind.DIRECTORY)
        kinds[path] = item.kind
        kept.append(item)
    return kept


def compared(nodes: dict[bytes, Node]) -> dict[bytes, Node]:
    """Without what unzip does not restore the same everywhere: times of directories, symlinks."""
    return {
        path: node if node.kind is Kind.FILE else replace(node, mtime_ns=0)
        for path, node in nodes.items()
    }


def agree(data: bytes) -> None:
    """Plant and extract, and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        (Path(scratch) / "a.zip").write_bytes(data)
        done = subprocess.run(
            ["unzip", "-q", "../a.zip"],
            cwd=root,
            check=False,
            capture_output=True,
            umask=0o022,
            env=ENVIRONMENT,
        )
        assert done.returncode <= 1, done.stderr  # 1: warnings
        with tree_writer(Path(scratch) / "index") as writer:
            planted = Planted(writer).zip(data)
        assert compared(planted) == compared(extracted(root))


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(items.map(ordinary).filter(bool))
def test_planted_tree_is_what_unzip_extracts(items: list[Item]) -> None:
    agree(made(items))


def test_what_zip_writes_is_planted_as_it_extracts_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    (source / "d/file").write_bytes(b"content\n" * 100_000)
    (source / "d/e/ü").write_bytes(b"x")
    (source / "link").symlink_to("d/file")
    (source / "d/file").chmod(0o711)
    os.utime(source / "d/file", (1_500_000_001, 1_500_000_001))
    subprocess.run(
        ["zip", "-q", "-r", "-y", "../a.zip", "."], cwd=source, check=True, env=ENVIRONMENT
    )
    agree((tmp_path / "a.zip").read_bytes())


@pytest.mark.parametrize("options", [[], ["-fz"]], ids=["plain", "zip64"])
def test_a_zip_of_a_pipe_is_planted_as_unzip_extracts_it(
    options: list[str], tmp_path: Path
) -> None:
    # From a pipe, zip knows no sizes beforehand: data descriptors, zip64 fields.
    subprocess.run(
        ["zip", "-q", *options, "a.zip", "-"], input=b"piped" * 50_000, check=True, cwd=tmp_path
    )
    agree((tmp_path / "a.zip").read_bytes())


def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(66_000):
            archive.writestr(f"{number // 1000}/{number}", b"")
    with tree_writer(tmp_path) as writer:
        nodes = Planted(writer).zip(out.getvalue())
    assert len(nodes) == 66_000 + 66 + 1


@pytest.mark.parametrize(
    ("raw", "host", "told"),
    [
        (b"caf\x82.txt", FAT, "café.txt".encode()),
        (b"a\\b", FAT, b"a/b"),
        (b"a\\b", UNIX, b"a\\b"),
        ("ä".encode(), UNIX, "ä".encode()),
        (b"\xff", UNIX, b"\xff"),
    ],
)
def test_names_of_old_writers_are_read_as_unzip_reads_them(
    raw: bytes, host: int, told: bytes, tmp_path: Path
) -> None:
    data = made([Item("N" * len(raw), Kind.FILE, 0o644, 0, b"x", host)])
    data = data.replace(b"N" * len(raw), raw)
    with tree_writer(tmp_path) as writer:
        assert told in Planted(writer).zip(data)
