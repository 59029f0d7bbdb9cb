"""Images with tables of contents, from a real registry, without any lock: read by the chunk."""

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing import tabled
from cafs.testing.archives import Item, directory, file, hard_link, script, symlink
from cafs.testing.daemons import Logged, Registry
from cafs.testing.images import Image, Layer, write_layout
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse
Push = Callable[[Registry, Path, str], str]
FILLER = random.Random(3).randbytes(6 << 20)
ITEMS = (
    directory("bin"),
    script("bin/run", "#!/bin/sh\necho runs\n"),
    symlink("bin/link", "run"),
    file("filler", FILLER),
    directory("etc", 0o750),
    Item("etc/passwd", b"root:x:0:0\n", mode=0o640, mtime=1_234_567_890),
    hard_link("etc/same", "etc/passwd"),
    file("holes", b"begin" + bytes(1 << 20) + b"end"),
    Item("etc/marked", b"x", pax=(("SCHILY.xattr.user.note", "kept"),)),
)


def items(only: str) -> tuple[Item, ...]:
    """The items of one image only: of a layer that a registry has, in whatever form, skopeo pushes
    no other form.
    """
    return (*ITEMS, file("only", only))


def push_estargz(registry: Registry, path: Path, only: str) -> str:
    """Push an image with an eStargz layer; its name."""
    layer = tabled.estargz(items(only))
    registry.push(tabled.write_tabled(path, [layer]), "tables/estargz:1")
    return "tables/estargz"


def push_chunked(registry: Registry, path: Path, only: str) -> str:
    """Push an image whose layer skopeo converts to zstd:chunked; its name."""
    layout = write_layout(path, [Image((Layer(items(only)),))])
    command = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"]
    command += ["--dest-compress-format", "zstd:chunked", layout.reference]
    target = f"docker://{registry.host}/tables/chunked:1"
    subprocess.run([*command, target], check=True, capture_output=True)
    return "tables/chunked"


def asked(registry: Registry, name: str, before: int) -> list[Logged]:
    """What was asked of a repository, after so many requests."""
    return [one for one in registry.requests()[before:] if one.path.startswith(f"/v2/{name}/")]


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a directory, and what programs see of it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        links = seen.st_nlink if path.is_file() else 0
        note = os.getxattr(path, "user.note") if path.name == "marked" else b""
        about = (seen.st_mode, seen.st_size, seen.st_mtime_ns, links, note)
        found[str(path.relative_to(root))] = (*about, content)
    return found


@pytest.mark.parametrize("push", [push_estargz, push_chunked])
def test_one_file_costs_the_manifest_the_table_and_its_chunk(
    cafs: Cafs, registry: Registry, tmp_path: Path, push: Push
) -> None:
    name = push(registry, tmp_path / "layout", "few")
    before = len(registry.requests())
    with cafs.mount(f'[ref.image]\nfrom="docker://{registry.host}/{name}:1"\n') as mounted:
        image = mounted.ref("image")
        assert sorted(os.listdir(image)) == ["bin", "etc", "filler", "holes", "only"]
        listed = asked(registry, name, before)
        assert [one.status for one in listed if "manifests" in one.path] == [200]
        tables = [one for one in listed if "blobs" in one.path]
        assert len(tables) <= 2
        assert {one.status for one in tables} == {206}
        assert (image / "etc" / "passwd").read_text() == "root:x:0:0\n"
        assert os.getxattr(image / "etc" / "passwd", "user.cafs.trust") == b"vouched"
        assert subprocess.check_output(["sh", image / "bin" / "run"], text=True) == "runs\n"
        blobs = [one for one in asked(registry, name, before) if "blobs" in one.path]
        assert len(blobs) <= 4
        assert sum(one.bytes_sent for one in blobs) < 2 << 20
    with cafs.mount(None, "--offline") as mounted:
        assert (mounted.ref("image") / "etc" / "same").read_text() == "root:x:0:0\n"


@pytest.mark.parametrize("push", [push_estargz, push_chunked])
def test_every_file_is_what_the_plain_image_has(
    cafs: Cafs, registry: Registry, tmp_path: Path, push: Push
) -> None:
    only = push.__name__
    name = push(registry, tmp_path / "layout", only)
    plain = write_layout(tmp_path / "plain", [Image((Layer(items(only)),))])
    registry.push(plain, "tables/plain:1")
    with cafs.mount(
        f'[ref.image]\nfrom="docker://{registry.host}/{name}:1"\n'
        f'[ref.plain]\nfrom="docker://{registry.host}/tables/plain:1"\n'
    ) as mounted:
        assert facts(mounted.ref("image")) == facts(mounted.ref("plain"))
