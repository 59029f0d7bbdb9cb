"""Images of a real registry: layers merged as an engine would unpack them."""

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from cafs.testing.archives import Compression, directory, file, hard_link, symlink
from cafs.testing.daemons import Registry
from cafs.testing.images import Image, Layer, write_layout
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

LOWEST = Layer(
    (
        directory("usr"),
        directory("usr/lib"),
        file("usr/lib/base.so", "base"),
        symlink("lib", "usr/lib"),
        directory("etc"),
        file("etc/kept", "kept"),
        file("etc/removed", "removed"),
        file("etc/replaced", "old"),
        directory("gone"),
        file("gone/inside", "inside"),
        directory("opaque"),
        file("opaque/below", "below"),
        directory("opaque/deep"),
        file("opaque/deep/below", "below"),
        symlink("link", "etc"),
        file("becomes-directory", "file"),
        directory("becomes-file"),
        file("becomes-file/inside", "inside"),
        file("original", "linked"),
    ),
    Compression.GZIP,
)
MIDDLE = Layer(
    (
        file("etc/.wh.removed", ""),
        file(".wh.gone", ""),
        file("etc/replaced", "new"),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/above", "above"),
        file("lib/added.so", "added below a lower symlink"),
        directory("link"),
        file("link/own", "a directory over a symlink"),
        hard_link("hard", "original"),
        directory("becomes-directory"),
        file("becomes-directory/inside", "inside"),
        file("becomes-file", "file"),
        file(".wh..wh.plnk", ""),
    ),
    Compression.ZSTD,
)
HIGHEST = Layer(
    (
        file("etc/removed", "back again"),
        directory("gone"),
        file("gone/anew", "anew"),
        file("etc/.wh.never-was", ""),
        directory("same"),
        file("same/stays", "stays"),
        file("same/.wh.stays", ""),
    ),
    Compression.NONE,
)


def contents(root: Path) -> dict[str, str]:
    """Every path below a directory, with what it is."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "/" if stat.S_ISDIR(mode) else path.read_text()
    return found


def test_three_layers_with_every_kind_of_whiteout(
    cafs: Cafs, registry: Registry, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "oci", [Image((LOWEST, MIDDLE, HIGHEST))])
    registry.push(layout, "layered")
    with cafs.mount(f'[ref.image]\nfrom="docker://{registry.host}/layered"\n') as mounted:
        image = mounted.ref("image")
        assert contents(image) == {
            "becomes-directory": "/",
            "becomes-directory/inside": "inside",
            "becomes-file": "file",
            "etc": "/",
            "etc/kept": "kept",
            "etc/removed": "back again",
            "etc/replaced": "new",
            "gone": "/",
            "gone/anew": "anew",
            "hard": "linked",
            "lib": "-> usr/lib",
            "link": "/",
            "link/own": "a directory over a symlink",
            "opaque": "/",
            "opaque/above": "above",
            "original": "linked",
            "same": "/",
            "same/stays": "stays",
            "usr": "/",
            "usr/lib": "/",
            "usr/lib/added.so": "added below a lower symlink",
            "usr/lib/base.so": "base",
        }
        hard, original = (image / "hard").stat(), (image / "original").stat()
        assert (hard.st_ino, hard.st_nlink) == (original.st_ino, 2)
        pinned = f"ref/docker/127.0.0.1+{registry.port}/layered@{layout.digest.replace(':', '-')}"
        assert (mounted.path / pinned / "etc/kept").read_text() == "kept"
    asked = len(registry.requests())
    with cafs.mount(None, "--offline") as mounted:
        assert (mounted.ref("image") / "etc/removed").read_text() == "back again"
    assert len(registry.requests()) == asked


def test_an_index_gives_the_platform_that_is_asked_for(
    cafs: Cafs, registry: Registry, tmp_path: Path
) -> None:
    images = [
        Image((Layer((file("arch", name),)),), architecture=name) for name in ("amd64", "arm64")
    ]
    registry.push(write_layout(tmp_path / "oci", images), "multi")
    toml = f'from="docker://{registry.host}/multi"\n'
    with cafs.mount(
        f'[ref.arm]\n{toml}platform="linux/arm64"\n[ref.amd]\n{toml}platform="linux/amd64"\n'
        f'[ref.odd]\n{toml}platform="linux/s390x"\n'
    ) as mounted:
        assert (mounted.ref("arm") / "arch").read_text() == "arm64"
        assert (mounted.ref("amd") / "arch").read_text() == "amd64"
        with pytest.raises(FileNotFoundError):
            (mounted.ref("odd") / "arch").read_text()
        reason = os.getxattr(mounted.ref("odd"), "user.cafs.error").decode()
        assert "linux/amd64" in reason
        assert "linux/arm64" in reason


def test_a_missing_tag_cannot_be_listed_and_has_nothing(
    cafs: Cafs, registry: Registry, busybox_image: str
) -> None:
    with cafs.mount(
        f'[ref.image]\nfrom="docker://{registry.host}/{busybox_image}:no-such-tag"\n'
    ) as mounted:
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.listdir(mounted.ref("image"))
        with pytest.raises(FileNotFoundError):
            (mounted.ref("image") / "bin").stat()
        assert "no-such-tag" in os.getxattr(mounted.ref("image"), "user.cafs.error").decode()


def test_a_copy_out_of_an_image_is_what_tar_unpacks(
    cafs: Cafs, registry: Registry, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "oci", [Image((LOWEST,))])
    registry.push(layout, "single")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    (layer,) = (
        blob
        for blob in (layout.path / "blobs/sha256").iterdir()
        if blob.read_bytes()[:2] == b"\x1f\x8b"
    )
    subprocess.run(["tar", "xzf", layer, "-C", unpacked], check=True)
    with cafs.mount(f'[ref.image]\nfrom="docker://{registry.host}/single"\n') as mounted:
        copy = tmp_path / "copy"
        shutil.copytree(mounted.ref("image"), copy, symlinks=True)
        assert contents(copy) == contents(unpacked)
