"""What the makers make is what other people's tools read."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from cafs.testing.archives import (
    Compression,
    Dialect,
    Item,
    directory,
    file,
    hard_link,
    hostile_tars,
    many_files_tar,
    renamed,
    script,
    small_files,
    stored_zip,
    symlink,
    tar,
    tar_bytes,
    wheel_bytes,
    write_tar,
    zip_archive,
)

TREE = (
    directory("d", 0o750),
    file("d/plain", "text"),
    script("d/run", "#!/bin/sh\necho ran\n"),
    symlink("d/link", "plain"),
    hard_link("d/same", "d/plain"),
    file("d/" + "long" * 60, "x"),
    file("d/ümlaut", "y"),
    Item("d/tagged", b"z", pax=(("SCHILY.xattr.user.note", "hello"),)),
)


@pytest.mark.parametrize("compression", list(Compression))
def test_gnu_tar_reads_a_tar(tmp_path: Path, compression: Compression) -> None:
    archive = write_tar(tmp_path / f"a.tar{compression.value}", TREE, compression)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", out], check=True)
    assert (out / "d/plain").read_text() == "text"
    assert (out / "d/link").readlink() == Path("plain")
    assert (out / "d/same").samefile(out / "d/plain")
    assert subprocess.run([out / "d/run"], capture_output=True, check=True).stdout == b"ran\n"
    assert (out / "d").stat().st_mode & 0o777 == 0o750
    assert (out / TREE[5].path).read_text() == "x"
    in_memory = tmp_path / "b.tar"
    in_memory.write_bytes(tar(TREE, compression))
    listed = subprocess.run(["tar", "tf", in_memory], capture_output=True, check=True).stdout
    assert listed.count(b"\n") == len(TREE)


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_other_dialects_hold_the_same(dialect: Dialect, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", TREE[:5], dialect=dialect)
    with tarfile.open(path) as archive:
        assert archive.getnames() == [item.path for item in TREE[:5]]


def test_unzip_reads_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_archive(item for item in TREE if item.kind != tarfile.LNKTYPE))
    subprocess.run(["unzip", "-q", archive, "-d", tmp_path / "out"], check=True)
    out = tmp_path / "out"
    assert (out / "d/plain").read_text() == "text"
    assert (out / "d/link").readlink() == Path("plain")
    assert (out / "d/run").stat().st_mode & 0o777 == 0o755


def test_small_files_are_many_seeded_and_below_directories_that_came_first() -> None:
    items = list(small_files(250, seed=3))
    files = [item for item in items if item.kind == tarfile.REGTYPE]
    assert len({item.path for item in files}) == 250
    assert items == list(small_files(250, seed=3))
    assert files != [item for item in small_files(250, seed=4) if item.kind == tarfile.REGTYPE]
    seen = {"tree"}
    for item in items:
        assert item.path.rpartition("/")[0] in seen
        seen.add(item.path)


def test_a_renamed_tree_keeps_its_hard_links_together() -> None:
    moved = {item.path: item.target for item in renamed(TREE, "top")}
    assert moved["top/d/same"] == "top/d/plain"
    assert moved["top/d/link"] == "plain"


def test_hostile_tars_have_names_of_their_own() -> None:
    names = [one.name for one in hostile_tars()]
    assert len(set(names)) == len(names) > 8


def test_a_wheel_is_what_pip_would_install(tmp_path: Path) -> None:
    wheel = tmp_path / "greet-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel_bytes("greet", {"greet/__init__.py": b"WORD = 'hi'\n"}))
    shown = "import greet, importlib.metadata as m; print(greet.WORD, m.version('greet'))"
    done = subprocess.run(
        [sys.executable, "-c", shown],
        env={"PYTHONPATH": str(wheel)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"hi 1.0\n"


def test_a_stored_zip_is_a_zip_from_any_offset(tmp_path: Path) -> None:
    body = stored_zip(members=3, size=5000, seed=1)
    whole = body.read(0, body.size)
    assert len(whole) == body.size
    assert b"".join(body.read(at, 777) for at in range(0, body.size, 777)) == whole
    (tmp_path / "a.zip").write_bytes(whole)
    subprocess.run(["unzip", "-tq", tmp_path / "a.zip"], check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: body.member(name) for name in body.members
        }
    assert body.member("member-00000") != body.member("member-00001")


def test_files_by_name_and_by_number(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_bytes({"a": (0o755, b"x")}, compression="gz"))) as one:
        (member,) = one.getmembers()
        assert (member.name, member.mode) == ("a", 0o755)
    size = many_files_tar(tmp_path / "m.tar.gz", files=30)
    with tarfile.open(tmp_path / "m.tar.gz", "r:gz") as many:
        files = [member for member in many if member.isfile()]
    assert (len(files), sum(member.size for member in files)) == (30, size)
