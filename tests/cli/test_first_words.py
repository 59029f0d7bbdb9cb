"""What is said before there is a store, of one in an odd place, and of one that was broken."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

MIB = 1 << 20


@pytest.fixture
def cafs(started: Cafs) -> Cafs:
    """Started as people do: nothing has been imported for it."""
    return started


@pytest.fixture
def model(cafs: Cafs, origin: Origin) -> str:
    """The URL of a ref that nobody has fetched."""
    url = origin.put("/model.bin", Generated(MIB, seed=1))
    cafs.project(f'[mount]\npath="m"\n[ref.model]\nfrom="{url}"\n')
    return url


def test_who_only_looks_makes_no_store(cafs: Cafs, model: str) -> None:
    for verb in ("status", "du"):
        assert f"{cafs.store}: there is no store yet\n" in cafs.run(verb).stdout
    status = json.loads(cafs.run("status", "--json").stdout)
    assert status["room"]["used"] == 0
    assert status["store_free"] > 0
    assert [(ref["name"], ref["ref"], ref["state"]) for ref in status["refs"]] == [
        ("model", model, "unread")
    ]
    one, whole = map(json.loads, cafs.run("du", "--json").stdout.splitlines())
    assert (one["name"], one["bytes"], whole["total"], whole["free"] > 0) == ("model", 0, 0, True)
    assert cafs.run("du", "modell", check=False).returncode == 3
    assert not cafs.store.exists()
    cafs.run("prefetch", "-q")
    after = json.loads(cafs.run("status", "--json").stdout)
    assert set(after) == set(status)
    assert "no store" not in cafs.run("status").stdout + cafs.run("du").stdout


@pytest.mark.usefixtures("model")
def test_a_store_whose_path_is_no_utf8_is_used(cafs: Cafs) -> None:
    place = os.fsdecode(os.fsencode(cafs.store.parent) + b"/st\xff")
    cafs.environment["CAFS_STORE"] = place
    assert cafs.run("prefetch").returncode == 0
    assert cafs.run("verify").stdout.endswith("nothing is wrong\n")
    assert "1.0 MiB" in cafs.run("du").stdout
    assert json.loads(cafs.run("status", "--json").stdout)["store"].endswith("/st\ufffd")
    assert f"store {place} has 1.0 MiB" in cafs.run("status").stdout
    refused = cafs.run("mount", check=False)
    assert refused.returncode == 2
    assert "UTF-8" in refused.stderr


@pytest.mark.usefixtures("model")
def test_who_meets_a_broken_index_in_passing_says_once_what_is_lost(cafs: Cafs) -> None:
    cafs.run("prefetch", "-q")
    path = cafs.store / "index" / "data.mdb"
    with path.open("r+b") as file:
        for offset in range(0, path.stat().st_size, 4096):
            file.seek(offset + 16)
            file.write(b"\xa5" * 8)
    [line] = [line for line in cafs.run("du").stderr.splitlines() if "index" in line]
    for word in ("damaged", "made anew from its blobs", "asked again", "pins are lost"):
        assert word in line
    assert cafs.run("du").stderr == ""


@pytest.mark.usefixtures("model")
def test_less_room_than_others_are_left_is_said_so(cafs: Cafs) -> None:
    cafs.run("prefetch", "-q")
    cafs.environment["CAFS_MIN_FREE"] = "100TiB"
    assert "free, less than the 100.0 TiB that are left to others" in cafs.run("status").stdout


@pytest.mark.usefixtures("model")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_store_that_cannot_be_written_says_what_to_do(cafs: Cafs, tmp_path: Path) -> None:
    cafs.run("prefetch", "-q")
    shell = f"mount --bind {cafs.store} {cafs.store} && mount -o remount,bind,ro {cafs.store}"
    command = f'{shell} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "sh", *cafs._command, "du"],
        cwd=cafs.directory,
        env=cafs.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "Read-only file system" in done.stderr
    assert "hint: a store must be writable" in done.stderr
