"""Mounts of a project with a lock: nobody is asked what a name means, and forgers get nowhere."""

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from cafs.model.digest import digest_of
from cafs.settings.lockfile import index_directory
from cafs.testing.archives import Compression, file, tar_bytes
from cafs.testing.daemons import Registry
from cafs.testing.faults import Status
from cafs.testing.images import Image, Layer, write_layout
from cafs.testing.origin import Origin
from tests.conftest import Cafs
from tests.mount.kept_world import wait_for

pytestmark = pytest.mark.fuse

TREE = tar_bytes({"bin/cc": (0o755, b"compiler" * 1000)}, compression="gz")
MIB = 1 << 20
OTHER = tar_bytes({"bin/cc": (0o755, b"comp1ler" * 1000)}, compression="gz")


def elsewhere(cafs: Cafs, place: Path) -> Cafs:
    """Another machine with a clone of the project."""
    other = cafs.beside(place)
    for path in cafs.directory.iterdir():
        if path.name.startswith("cafs.lock") or path.suffix == ".toml":
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, other.directory / path.name)
    return other


def settings(**urls: str) -> str:
    return '[mount]\npath = "cafs"\n' + "".join(
        f'[ref.{name}]\nfrom = "{url}"\n' for name, url in urls.items()
    )


def test_a_locked_file_has_its_size_and_its_meaning_without_a_request(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    cafs.project(settings(tool=origin.put("/tool", b"tool")))
    cafs.run("lock")
    origin.put("/tool", b"another")
    origin.forget()
    with elsewhere(cafs, tmp_path / "other").mount() as mounted:
        tool = mounted.ref("tool")
        assert tool.stat().st_size == 4
        assert os.getxattr(tool, "user.cafs.digest").decode() == str(digest_of(b"tool"))
        assert origin.requests == ()
        # What the URL has now is something else, and is not passed off as what was locked.
        with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
            tool.read_bytes()
    with cafs.mount() as mounted:
        assert mounted.ref("tool").read_bytes() == b"tool"


def test_a_locked_image_asks_its_registry_for_layers_only(
    cafs: Cafs, registry: Registry, tmp_path: Path
) -> None:
    layer = Layer((file("etc/os-release", "ID=one"),), Compression.GZIP)
    registry.push(write_layout(tmp_path / "one", [Image((layer,))]), "locks/moving")
    cafs.project(settings(base=f"docker://{registry.host}/locks/moving"))
    cafs.run("lock")
    moved = Layer((file("etc/os-release", "ID=two"),), Compression.GZIP)
    registry.push(write_layout(tmp_path / "two", [Image((moved,))]), "locks/moving")
    other = elsewhere(cafs, tmp_path / "other")
    before = len(registry.requests())
    with other.mount() as mounted:
        assert (mounted.ref("base") / "etc/os-release").read_text() == "ID=one"
    asked = [each.path for each in registry.requests()[before:]]
    assert asked
    assert not [path for path in asked if "/manifests/" in path]
    with other.mount(None, "--pull", "update") as mounted:
        assert (mounted.ref("base") / "etc/os-release").read_text() == "ID=two"


def test_a_mount_that_is_reloaded_with_another_lock_moves_on(cafs: Cafs, origin: Origin) -> None:
    cafs.project(settings(tree=origin.put("/t.tgz", TREE), tool=origin.put("/tool", b"tool")))
    cafs.run("lock")
    with cafs.mount() as mounted:
        compiler, tool = mounted.ref("tree") / "bin/cc", mounted.ref("tool")
        assert compiler.read_bytes() == b"compiler" * 1000
        origin.put("/t.tgz", OTHER)
        origin.put("/tool", b"t00l")
        cafs.run("lock", "--upgrade")
        assert compiler.read_bytes() == b"compiler" * 1000
        # The kernel believes these names for a second, and the reload takes less.
        assert tool.read_bytes() == b"tool"
        cafs.run("reload")
        assert tool.read_bytes() == b"t00l"
        assert compiler.read_bytes() == b"comp1ler" * 1000


def test_a_lock_that_is_older_than_the_settings_is_said_and_not_obeyed(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.project(settings(tree=origin.put("/t.tgz", TREE)))
    cafs.run("lock")
    cafs.project(settings(tree=origin.put("/other.tgz", OTHER)))
    cafs.expect_log("cafs.lock is older than the settings of tree")
    with cafs.mount() as mounted:
        assert (mounted.ref("tree") / "bin/cc").read_bytes() == b"comp1ler" * 1000
        note = "note cafs.lock is older than the settings of tree: run cafs lock tree"
        assert note in cafs.run("status").stdout
        assert note.removeprefix("note ") in mounted.log()


def test_a_forged_digest_is_never_met(cafs: Cafs, origin: Origin, tmp_path: Path) -> None:
    cafs.project(settings(tree=origin.put("/t.tgz", TREE), tool=origin.put("/tool", b"tool")))
    cafs.run("lock")
    text = (cafs.directory / "cafs.lock").read_text()
    for content in (TREE, b"tool"):
        text = text.replace(str(digest_of(content)), str(digest_of(b"forged")))
    (cafs.directory / "cafs.lock").write_text(text)
    other = elsewhere(cafs, tmp_path / "other")
    other.expect_log("")
    with other.mount() as mounted:
        with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
            mounted.ref("tool").read_bytes()
        with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
            (mounted.ref("tree") / "bin/cc").read_bytes()
        error = os.getxattr(mounted.ref("tree"), "user.cafs.error").decode()
        assert "sha256" in error


@pytest.mark.parametrize("position", [0, 60, -1])
def test_an_index_with_a_flipped_byte_is_said_and_the_bytes_are_right(
    cafs: Cafs, origin: Origin, tmp_path: Path, position: int
) -> None:
    cafs.project(settings(tree=origin.put("/t.tgz", TREE)))
    cafs.run("lock")
    other = elsewhere(cafs, tmp_path / "other")
    (index,) = index_directory(other.directory / "cafs.lock").glob("*.idx")
    raw = bytearray(index.read_bytes())
    right = digest_of(bytes(raw))
    raw[position] ^= 1
    index.write_bytes(raw)
    other.expect_log("tree: index sha256|lazy.no")
    with other.mount() as mounted:
        assert (mounted.ref("tree") / "bin/cc").read_bytes() == b"compiler" * 1000
        told = other.run("status").stdout
        assert f"{index}: expected {right}, got {digest_of(bytes(raw))}" in told
        assert "cafs lock tree makes it anew" in told
        for path in (mounted.ref("tree"), mounted.ref("tree") / "bin/cc"):
            line = os.getxattr(path, "user.cafs.error").decode()
            assert f"tree: index {right} of {other.directory / 'cafs.lock'}: {index}" in line
        assert "lazy.no: tree: " in mounted.log()


def test_a_large_index_is_had_from_where_the_project_says(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    toml = settings(tree=origin.put("/t.tgz", TREE))
    cafs.project(f'{toml}[lock]\nindex-url = "{origin.url("/idx/")}{{hex}}.idx"\n')
    cafs.run("lock")
    other = elsewhere(cafs, tmp_path / "other")
    folder = index_directory(other.directory / "cafs.lock")
    (index,) = folder.glob("*.idx")
    origin.put(f"/idx/{index.name}", index.read_bytes())
    shutil.rmtree(folder)
    with other.mount() as mounted:
        assert (mounted.ref("tree") / "bin/cc").read_bytes() == b"compiler" * 1000
        assert origin.requests_for(f"/idx/{index.name}")
        assert "note" not in other.run("status").stdout


def test_an_index_that_nobody_has_costs_a_pass_and_no_error(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    toml = settings(tree=origin.put("/t.tgz", TREE))
    cafs.project(f'{toml}[lock]\nindex-url = "{origin.url("/idx/")}{{hex}}.idx"\n')
    cafs.run("lock")
    other = elsewhere(cafs, tmp_path / "other")
    shutil.rmtree(index_directory(other.directory / "cafs.lock"))
    origin.fault("/idx/*", Status(404))
    other.expect_log("tree: index sha256|lazy.no")
    with other.mount() as mounted:
        assert (mounted.ref("tree") / "bin/cc").read_bytes() == b"compiler" * 1000
        assert "404" in other.run("status").stdout


def test_what_is_locked_is_read_by_the_byte_and_vouched_for(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    """Who locks reads every byte once; everybody after that reads what he touches."""
    files = {
        f"lib/{number:02}": (0o644, random.Random(number).randbytes(MIB)) for number in range(12)
    }
    raw = tar_bytes(files, compression="gz")
    model = random.Random(12).randbytes(12 * MIB)
    cafs.project(settings(tree=origin.put("/t.tgz", raw), model=origin.put("/model", model)))
    cafs.run("lock")
    other = elsewhere(cafs, tmp_path / "other")
    origin.forget()
    with other.mount() as mounted:
        tree = mounted.ref("tree")
        assert sorted(os.listdir(tree / "lib")) == [f"{number:02}" for number in range(12)]
        assert origin.bytes_sent() < MIB
        assert (tree / "lib/07").read_bytes() == files["lib/07"][1]
        assert origin.bytes_sent() < len(raw) / 2
        assert os.getxattr(tree / "lib/07", "user.cafs.trust") == b"vouched"
        for name, (_, content) in list(files.items())[4:]:
            assert (tree / name).read_bytes() == content
        with mounted.ref("model").open("rb", buffering=0) as one:
            assert one.read(16) == model[:16]
            assert os.getxattr(mounted.ref("model"), "user.cafs.trust") == b"vouched"
            assert origin.bytes_sent("/model") <= 3 * MIB
            assert one.read() == model[16:]
        wait_for(lambda: os.getxattr(mounted.ref("model"), "user.cafs.trust") == b"verified")
        # What the lock names is there, whether its source has it or not.
        origin.remove("/t.tgz")
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            (tree / "lib/00").read_bytes()
        assert "404" in os.getxattr(tree / "lib/00", "user.cafs.error").decode()


def test_a_lock_of_other_bytes_is_never_met_piece_by_piece(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    """Everything in the lock fits together, its index too; only the source has other bytes."""
    url = origin.put("/t.tgz", OTHER)
    cafs.project(settings(tree=url))
    cafs.run("lock")
    origin.put("/t.tgz", TREE)
    other = elsewhere(cafs, tmp_path / "other")
    other.expect_log("")
    with other.mount() as mounted:
        place = mounted.ref("tree") / "bin/cc"
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
                place.read_bytes()
        assert "tree" in os.getxattr(place, "user.cafs.error").decode()
