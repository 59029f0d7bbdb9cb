"""Random ordinary tars: what is planted is what GNU tar extracts."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.model.member import Kind
from tests.planted import Node, Planted, extracted, tree_writer

NAMES = [
    "a",
    "b",
    "c",
    "dir",
    "ä-ö",
    "sp ace",
    "x" * 90,
    "y" * 130,
    "new\nline",
    "back\\slash",
    ".h",
]
TAR = ["tar", "--extract", "--preserve-permissions", "--no-same-owner", "--delay-directory-restore"]


@dataclass(frozen=True)
class Item:
    path: str
    flag: bytes
    mode: int
    mtime: float
    content: bytes
    target: str


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
items = st.lists(
    st.builds(
        Item,
        path=paths,
        flag=st.sampled_from(
            [tarfile.REGTYPE] * 4
            + [tarfile.DIRTYPE] * 2
            + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
        ),
        mode=st.sampled_from([0o644, 0o755, 0o600, 0o700, 0o4755, 0o2755, 0o1777]),
        mtime=st.sampled_from([0, 1, 1_700_000_000, 1_600_000_000.25, 4_000_000_000]),
        content=st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"w" * 513, b"v" * 30_000]),
        target=paths,
    ),
    max_size=12,
)


def made(items: list[Item], form: int) -> bytes:
    """An archive by Python's tarfile."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.type, info.mode = item.flag, item.mode
            info.mtime = item.mtime if form == tarfile.PAX_FORMAT else int(item.mtime)
            info.linkname = item.target if item.flag in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(item.content) if item.flag == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(item.content))
    return out.getvalue()


def ordinary(items: list[Item]) -> list[Item]:
    """Leave out what makes GNU tar fail, or what depends on more than the archive.

    That is: entries below what is no directory (symlinks are told apart below), hard links to what
    is not there or is a directory, and anything over a directory that is not one.
    """
    kinds: dict[str, bytes] = {}
    kept = []
    for item in items:
        parents = [item.path[:at] for at, char in enumerate(item.path) if char == "/"]
        if any(kinds.get(parent, tarfile.DIRTYPE) != tarfile.DIRTYPE for parent in parents):
            continue
        if (
            item.flag == tarfile.LNKTYPE
            and kinds.get(item.target, tarfile.DIRTYPE) == tarfile.DIRTYPE
        ):
            continue
        if kinds.get(item.path) == tarfile.DIRTYPE and item.flag != tarfile.DIRTYPE:
            continue
        kinds |= dict.fromkeys(parents, tarfile.DIRTYPE)
        kinds[item.path] = item.flag
        kept.append(item)
    return kept


def compared(nodes: dict[bytes, Node], told: set[bytes]) -> dict[bytes, Node]:
    """Without what no archive tells: the times of implied directories, and those of symlinks."""
    return {
        path: replace(node, mtime_ns=0 if path not in told else node.mtime_ns)
        for path, node in nodes.items()
    }


def agree(data: bytes, told: set[bytes], *options: str) -> None:
    """Plant and extract, and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        subprocess.run(
            [*TAR, *options], input=data, cwd=root, check=True, capture_output=True, umask=0o022
        )
        strip = next((int(o.split("=")[1]) for o in options if o.startswith("--strip")), 0)
        with tree_writer(Path(scratch) / "index") as writer:
            planted = Planted(writer, strip=strip).tar(data)
        assert compared(planted, told) == compared(extracted(root), told)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(items)
def test_planted_tree_is_what_gnu_tar_extracts(form: int, items: list[Item]) -> None:
    kept = ordinary(items)
    told = {os.fsencode(item.path) for item in kept}
    agree(made(kept, form), told)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(items, st.integers(1, 3))
def test_stripped_tree_is_what_gnu_tar_extracts(items: list[Item], strip: int) -> None:
    # Stripped paths may collide; the oracle's errors then are ours too, which other tests show.
    kept, seen = [], set()
    for item in ordinary([i for i in items if i.flag in (tarfile.REGTYPE, tarfile.DIRTYPE)]):
        short = "/".join(item.path.split("/")[strip:])
        if short not in seen and item.flag == tarfile.REGTYPE:
            seen.add(short)
            kept.append(item)
    kinds = {"/".join(i.path.split("/")[strip:]) for i in kept}
    clash = any(f"{a}/" in f"{b}/" and a != b for a in kinds for b in kinds)
    if not clash:
        told = {os.fsencode("/".join(i.path.split("/")[strip:])) for i in kept} - {b""}
        agree(made(kept, tarfile.GNU_FORMAT), told, f"--strip-components={strip}")


def entry(path: str, flag: bytes = tarfile.REGTYPE, target: str = "", text: bytes = b"t") -> Item:
    return Item(path, flag, 0o644 if flag == tarfile.REGTYPE else 0o755, 1000, text, target)


DIRECTORY, SYMLINK, LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
CURIOUS = {
    "below a symlink": [entry("d", DIRECTORY), entry("s", SYMLINK, "d"), entry("s/f")],
    "a directory over a symlink": [
        entry("d", DIRECTORY),
        entry("s", SYMLINK, "d"),
        entry("s", DIRECTORY),
        entry("s/f"),
    ],
    "a file over a symlink": [entry("d"), entry("s", SYMLINK, "d"), entry("s", text=b"new")],
    "a hard link to a symlink": [entry("s", SYMLINK, "nowhere"), entry("h", LINK, "s")],
    "a hard link through a symlink": [
        entry("d/f"),
        entry("s", SYMLINK, "d"),
        entry("h", LINK, "s/f"),
    ],
    "a hard link to itself": [entry("f"), entry("f", LINK, "f")],
    "a hard link over a hard link": [entry("f"), entry("h", LINK, "f"), entry("h", LINK, "f")],
    "a hard link over another file": [entry("f"), entry("g"), entry("g", LINK, "f")],
    "a linked file again": [entry("f"), entry("h", LINK, "f"), entry("f", text=b"new")],
    "a directory over a file": [entry("x"), entry("x", DIRECTORY), entry("x/f")],
    "a file over an empty directory": [entry("x", DIRECTORY), entry("x")],
    "a directory twice": [entry("x", DIRECTORY), entry("x/f"), entry("x", DIRECTORY)],
    "a directory after its content": [entry("x/y/f"), entry("x", DIRECTORY)],
    "absolute": [entry("/abs/f"), entry("h", LINK, "/abs/f")],
    "dots and slashes": [entry("./a//b/./f"), entry("a/b/g/.", DIRECTORY), entry(".", DIRECTORY)],
}


@pytest.mark.parametrize("items", CURIOUS.values(), ids=CURIOUS)
def test_curious_archives_are_planted_as_gnu_tar_extracts_them(items: list[Item]) -> None:
    told = {os.path.normpath(os.fsencode(item.path)).lstrip(b"/") for item in items}
    agree(made(items, tarfile.GNU_FORMAT), (told - {b"."}) | ({b""} if b"." in told else set()))


FORMS = [
    ["--format=v7"],
    ["--format=oldgnu"],
    ["--format=ustar"],
    ["--format=gnu"],
    ["--format=posix"],
    ["--format=gnu", "--sparse"],
    ["--format=posix", "--sparse", "--sparse-version=0.0"],
    ["--format=posix", "--sparse", "--sparse-version=0.1"],
    ["--format=posix", "--sparse", "--sparse-version=1.0"],
    ["--format=posix", "--xattrs"],
]


def real_directory(root: Path) -> None:
    """A directory with everything that GNU tar can store."""
    (root / "d/e").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content\n" * 1000)
    (root / "d/empty").touch()
    (root / ("n" * 60) / ("o" * 60)).mkdir(parents=True)
    (root / ("n" * 60) / ("o" * 60) / ("p" * 20)).write_bytes(b"long")
    (root / "link").symlink_to("d/file")
    (root / "up").symlink_to("../outside")
    os.link(root / "d/file", root / "d/e/hard")
    os.link(root / "d/file", root / "hard2")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as file:
        for at in range(40):
            file.seek(at * 200_000)
            file.write(b"data %d" % at * 300)
        file.truncate(9_000_000)
    with (root / "hole").open("wb") as file:
        file.truncate(1_000_000)
    (root / "d/e").chmod(0o700)
    (root / "d/file").chmod(0o4711)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(
            path, ns=(0, 1_600_000_000_000_000_000 + number * 123_456_789), follow_symlinks=False
        )
    os.utime(root, ns=(0, 1_500_000_000_000_000_000))


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_what_gnu_tar_writes_is_planted_as_it_extracts_it(form: list[str], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    real_directory(source)
    if form == ["--format=v7"]:
        (source / "fifo").unlink()
        shutil.rmtree(source / ("n" * 60))
    data = subprocess.run(
        ["tar", "--create", *form, "."], cwd=source, check=True, capture_output=True
    ).stdout
    told = set(extracted(source))
    agree(data, told)


def test_user_attributes_are_kept_and_others_are_not(tmp_path: Path) -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {
        "SCHILY.xattr.user.b": "2",
        "SCHILY.xattr.user.a%3Db": "1",
        "SCHILY.xattr.security.capability": "x",
        "comment": "nothing",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with tree_writer(tmp_path) as writer:
        Planted(writer).tar(out.getvalue())
        number = writer.child(0, b"f")
        assert number is not None
        assert writer.entry(number).xattrs == ((b"user.a=b", b"1"), (b"user.b", b"2"))
        assert writer.entry(number).kind is Kind.FILE
