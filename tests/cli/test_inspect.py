"""inspect: whether a ref is read lazily, why not, and what reading some of it costs."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from cafs.errors import UsageError
from cafs.model.digest import digest_of
from cafs.testing.archives import (
    Compression,
    directory,
    file,
    symlink,
    tar,
    zip_archive,
)
from cafs.testing.bodies import Literal
from cafs.testing.faults import IgnoreRange, NoValidators
from cafs.testing.origin import Origin
from tests.conftest import Cafs, Registry

MIB: Final = 1 << 20
_BYTES: Final = random.Random(1).randbytes(MIB)
"""What does not become smaller, so that segments are as long as their input."""
FILES: Final = [file(f"top/{number:02}", _BYTES[number:]) for number in range(8)]
ITEMS: Final = [
    directory("top"),
    *FILES,
    symlink("top/link", "../top/03"),
    symlink("top/away", "/top/05"),
]
TGZ: Final = tar(ITEMS, Compression.GZIP)


def inspected(cafs: Cafs, *words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cafs.run("inspect", *words, "--json").stdout)
    return found


def project(cafs: Cafs, url: str, more: str = "") -> None:
    cafs.project(f'[ref.a]\nfrom = "{url}"\n{more}\n')


def elsewhere(cafs: Cafs, tmp_path: Path) -> Cafs:
    """The same project on another machine: with the lock, and an empty store."""
    other = Cafs(tmp_path / "elsewhere")
    for path in cafs.directory.rglob("*"):
        if path.is_file():
            target = other.directory / path.relative_to(cafs.directory)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return other


def test_an_archive_without_an_index_says_that_it_should_be_locked(
    cafs: Cafs, origin: Origin
) -> None:
    project(cafs, origin.put("/a.tar.gz", TGZ))
    origin.forget()
    found = inspected(cafs, "a", "top/03")
    assert not found["lazy"]
    assert not found["locked"]
    [part] = found["parts"]
    assert part["why"].startswith("gzip without an index: lock it")
    assert part["ranges"] is True
    assert part["size"] == len(TGZ)
    assert part["index"] is None
    assert found["reading"]["empty"] is None
    assert origin.bytes_sent() < 1024
    assert "not known before all of it was read once" in cafs.run("inspect", "a", "top").stdout


def test_what_is_locked_says_what_reading_costs_and_that_is_what_it_costs(
    fuse: None, cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    """As an empty store has it; and afterwards it costs nothing."""
    project(cafs, origin.put("/a.tar.gz", TGZ))
    cafs.run("lock")
    other = elsewhere(cafs, tmp_path)
    origin.forget()
    found = inspected(other, "a", "top/03")
    assert origin.bytes_sent() < 1024
    assert found["lazy"]
    assert found["locked"]
    [part] = found["parts"]
    assert part["why"] is None
    index = part["index"]
    assert (index["source"], index["place"]) == ("lock", "cafs.lock.d")
    assert index["entries"] == len(ITEMS) + 1
    assert index["segments"] > 2
    assert index["median"] * index["segments"] >= MIB
    reading = found["reading"]
    assert (reading["files"], reading["size"]) == (1, MIB - 3)
    assert reading["empty"] == reading["here"]
    assert reading["packed"] <= reading["empty"]["bytes"] <= reading["packed"] + 128 * 1024
    with other.mount((other.directory / "cafs.toml").read_text()) as at:
        origin.forget()
        assert (at.ref("a") / "top" / "03").read_bytes() == _BYTES[3:]
        assert origin.bytes_sent() <= reading["empty"]["bytes"]
        assert len(origin.requests) <= reading["empty"]["requests"] + 1
    again = inspected(other, "a", "top/03")["reading"]
    assert again["empty"] == reading["empty"]
    assert again["here"] == {"bytes": 0, "requests": 0}


def test_what_only_this_store_knows_is_not_told_of_an_empty_one(cafs: Cafs, origin: Origin) -> None:
    project(cafs, origin.put("/a.tar.gz", TGZ))
    cafs.run("prefetch", "a")
    found = inspected(cafs, "a", "top/03")
    [part] = found["parts"]
    assert (part["index"]["source"], part["lazy"]) == ("pass", True)
    assert part["elsewhere"].startswith("gzip without an index: lock it")
    assert found["reading"]["empty"]["bytes"] == len(TGZ)
    assert found["reading"]["here"] == {"bytes": 0, "requests": 0}
    said = cafs.run("inspect", "a", "top/03").stdout
    assert "lazy in this store, which has an index of its own: only" in said
    assert "not lazy for an empty store: gzip without an index: lock it" in said
    assert "cafs lock gives the index of this store to others" in said
    cafs.run("lock")
    found = inspected(cafs, "a", "top/03")
    assert found["parts"][0]["elsewhere"] is None
    assert found["reading"]["empty"]["bytes"] < len(TGZ) / 2
    assert "not lazy" not in cafs.run("inspect", "a").stdout


def test_paths_are_files_directories_and_symlinks_and_a_list_may_name_more(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    project(cafs, origin.put("/a.tar.gz", TGZ), "strip = 0")
    cafs.run("lock")
    everything = inspected(cafs, "a", "/")["reading"]
    assert everything["files"] == len(FILES)
    assert everything["here"] == {"bytes": 0, "requests": 0}
    listed = tmp_path / "paths"
    listed.write_text("top/link\n/top/away\ntop/03\ntop/../top/07\n\nnowhere\ntop/03/below\n")
    found = inspected(cafs, "a", "--paths", listed)["reading"]
    assert found["files"] == 3
    assert found["missing"] == ["nowhere", "top/03/below"]
    assert "not there: nowhere, top/03/below" in cafs.run("inspect", "a", "--paths", listed).stdout
    done = cafs.run("inspect", "a", "top/03", "nowhere", check=False)
    assert done.returncode == 3
    assert "no 'nowhere' there" in done.stderr
    assert "reading 1 file" in done.stdout


def test_a_list_may_come_from_standard_input(cafs: Cafs, origin: Origin) -> None:
    project(cafs, origin.put("/a.zip", zip_archive(FILES)))
    command = [sys.executable, "-P", "-m", "cafs", "inspect", "a", "--json", "--paths", "-"]
    done = subprocess.run(
        command,
        input=b"top/01\ntop/02\n",
        capture_output=True,
        check=True,
        cwd=cafs.directory,
        env=cafs.environment,
    )
    assert json.loads(done.stdout)["reading"]["files"] == 2


def test_a_zip_without_a_pin_is_lazy_by_itself(cafs: Cafs, origin: Origin) -> None:
    data = zip_archive(FILES)
    project(cafs, origin.put("/a.zip", data))
    origin.forget()
    found = inspected(cafs, "a", "top/01")
    assert found["lazy"]
    assert found["parts"][0]["index"]["source"] == "pass"
    assert MIB <= found["reading"]["empty"]["bytes"] < 2 * MIB
    assert origin.bytes_sent() < MIB


def test_a_zip_with_a_pin_is_not_until_it_is_locked(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    data = zip_archive(FILES)
    project(cafs, origin.put("/a.zip", data), f'integrity = "{digest_of(data)}"')
    assert "a zip with a pin and no index" in inspected(cafs, "a")["parts"][0]["why"]
    cafs.run("lock")
    found = inspected(elsewhere(cafs, tmp_path), "a", "top/01")
    assert found["lazy"]
    assert found["reading"]["empty"]["bytes"] < 2 * MIB


def test_a_source_without_ranges_or_versions_is_told(cafs: Cafs, origin: Origin) -> None:
    project(cafs, origin.put("/a.tar.gz", TGZ))
    origin.fault("/a.tar.gz", IgnoreRange())
    [part] = inspected(cafs, "a")["parts"]
    assert part["ranges"] is False
    assert "gives no byte ranges" in part["why"]
    project(cafs, origin.put("/b.tar.gz", TGZ))
    origin.fault("/b.tar.gz", NoValidators())
    assert "no version of it" in inspected(cafs, "a")["parts"][0]["why"]


def test_a_locked_ref_whose_source_has_no_ranges_is_told_too(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    project(cafs, origin.put("/a.tar.gz", TGZ))
    cafs.run("lock")
    origin.fault("/a.tar.gz", IgnoreRange())
    [part] = inspected(elsewhere(cafs, tmp_path), "a")["parts"]
    assert part["ranges"] is False
    assert "gives no byte ranges" in part["why"]


@pytest.mark.parametrize(
    ("compression", "said"),
    [(Compression.XZ, "xz with one block"), (Compression.ZSTD, "zstd with one frame")],
)
def test_what_can_only_be_decoded_as_a_whole_says_so_when_it_is_locked(
    cafs: Cafs, origin: Origin, compression: Compression, said: str
) -> None:
    project(cafs, origin.put(f"/a.tar{compression.value}", tar(ITEMS[:4], compression)))
    cafs.run("lock")
    [part] = inspected(cafs, "a")["parts"]
    assert part["index"]["segments"] == 1
    assert part["why"].startswith(said)


def test_a_file_with_a_pin_and_one_without(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/data", Literal(_BYTES))
    project(cafs, url)
    assert inspected(cafs, "a")["lazy"]
    project(cafs, url, f'integrity = "{digest_of(_BYTES)}"')
    assert "a file with a pin" in inspected(cafs, "a")["parts"][0]["why"]
    done = cafs.run("inspect", "a", "some/path", check=False)
    assert done.returncode == 2
    assert UsageError.__name__ not in done.stderr
    assert "one file" in done.stderr


def test_nobody_is_asked_offline(cafs: Cafs, origin: Origin) -> None:
    project(cafs, origin.put("/a.tar.gz", TGZ))
    cafs.run("lock")
    origin.forget()
    found = inspected(cafs, "a", "top", "--offline")
    assert found["lazy"]
    assert found["reading"]["here"] == {"bytes": 0, "requests": 0}
    assert not origin.requests


def test_a_mount_logs_the_same_reason_once(fuse: None, cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/a.tar.gz", TGZ)
    project(cafs, url)
    said = inspected(cafs, "a")["parts"][0]["why"]
    with cafs.mount((cafs.directory / "cafs.toml").read_text()) as mount:
        assert (mount.ref("a") / "top" / "01").stat().st_size == MIB - 1
        assert (mount.ref("a") / "top" / "02").stat().st_size == MIB - 2
        assert mount.log().count(said) == 1


def test_of_an_image_each_layer_is_told(
    cafs: Cafs, registry: Registry, busybox_image: str, tmp_path: Path
) -> None:
    """What nobody has locked is asked only whether it has ranges; what is locked, what it costs."""
    source = f"docker://{registry.host}/{busybox_image}"
    before = len(registry.requests())
    found = inspected(cafs, source)
    sent = registry.requests()[before:]
    assert sum(one.bytes_sent for one in sent) < 64 << 10
    assert [part["ranges"] for part in found["parts"]] == [True] * len(found["parts"])
    large = [part for part in found["parts"] if part["size"] > 256 << 10]
    assert large
    assert {part["why"] for part in large} == {
        "gzip without an index: lock it, or everyone reads all of it once"
    }
    project(cafs, source)
    cafs.run("lock")
    other = elsewhere(cafs, tmp_path)
    reading = inspected(other, "a", "bin/busybox")["reading"]
    assert reading["files"] == 1
    assert reading["segments"] >= 1
    assert reading["empty"]["bytes"] >= reading["packed"] > 0


def test_of_a_locked_file_the_index_is_told_here_and_elsewhere(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    data = random.Random(3).randbytes(3 * MIB + 7)
    project(cafs, origin.put("/model.bin", data))
    cafs.run("lock")
    assert cafs.run("lock", "--check", "--full").stdout.startswith("cafs.lock matches")
    origin.forget()
    other = elsewhere(cafs, tmp_path)
    for here, source, place in ((cafs, "pass", None), (other, "lock", "cafs.lock.d")):
        found = inspected(here, "a")
        assert found["shape"] == "file"
        assert found["lazy"]
        assert found["parts"][0]["index"] == {
            "source": source,
            "place": place,
            "segments": 4,
            "median": MIB,
            "decoded": len(data),
            "entries": 1,
        }
    assert origin.bytes_sent("/model.bin") <= 2
