"""gc, du and rm by the command: what they remove and say, beside others, and on full disks."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cafs.model.digest import digest_of
from cafs.store.disk.locking import flock
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.faults import Rate
from cafs.testing.origin import Origin
from tests.conftest import Cafs

MIB = 1 << 20
TREE = tar_bytes({"a/b": (0o644, b"beta" * 4000)}, compression="gz")


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def filled(cafs: Cafs, origin: Origin) -> Cafs:
    """A store with two refs that share their bytes, and one that is alone, all whole."""
    model = origin.put("/model.bin", Generated(MIB, seed=1))
    again = origin.put("/again.bin", Generated(MIB, seed=1))
    tree = origin.put("/t.tgz", TREE)
    cafs.project(
        f'[ref.model]\nfrom="{model}"\n[ref.again]\nfrom="{again}"\n[ref.tree]\nfrom="{tree}"\n'
    )
    cafs.run("prefetch", "--quiet")
    return cafs


def test_du_says_what_each_ref_has_alone_and_with_others(filled: Cafs) -> None:
    again, model, tree, store = lines(filled.run("du", "--json").stdout)
    assert again.pop("meant_ns") is not None
    sizes = {"bytes": MIB, "shared": MIB, "unique": 0}
    assert again == {"name": "again", "digest": None, **sizes}  # when it was asked for, nobody knew
    assert (model["name"], model["shared"]) == ("model", MIB)
    assert (tree["name"], tree["shared"]) == ("tree", 0)
    assert store["total"] == store["listed"] == MIB + int(str(tree["bytes"]))
    assert store["other"] == 0
    told = filled.run("du", "tree").stdout.splitlines()
    assert told[0].split() == ["ref", "bytes", "shared", "unique"]
    assert told[1].split()[0] == "tree"
    assert "of no ref above: 1.0 MiB" in told[2]
    filled.project("")
    everything = lines(filled.run("du", "--json", "--all").stdout)
    assert [str(each.get("name", "")).rpartition("/")[2] for each in everything] == [
        "again.bin",
        "model.bin",
        "t.tgz",
        "",
    ]
    assert filled.run("du").stdout == filled.run("du", "--all").stdout


def test_du_of_a_digest_is_that_of_its_blob_though_nobody_has_asked_for_it_by_that(
    filled: Cafs,
) -> None:
    digest = f"sha256:{Generated(MIB, seed=1).sha256()}"
    one, _ = lines(filled.run("du", "--json", digest).stdout)
    assert (one["bytes"], one["shared"]) == (MIB, MIB)
    other, _ = lines(filled.run("du", "--json", f"sha256:{'ab' * 32}").stdout)
    assert other["bytes"] == 0


def test_what_has_the_same_name_is_told_apart_by_what_it_is(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/t.tgz", TREE)
    cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    cafs.run("prefetch", "--quiet")
    origin.put("/t.tgz", tar_bytes({"a/c": (0o644, b"gamma")}, compression="gz"))
    cafs.run("prefetch", "--quiet")
    origin.put("/t.tgz", TREE)
    cafs.project(f'[ref.tree]\nfrom="{url}"\nintegrity="{digest_of(TREE)}"\n')
    cafs.run("prefetch", "--quiet")
    cafs.project("")
    names = [line.rpartition("  ")[0] for line in cafs.run("du").stdout.splitlines()]
    assert len({name for name in names if url in name}) == 2
    assert sum(digest_of(TREE).short in name for name in names) == 1
    ours = lines(cafs.run("du", "--json").stdout)[:-1]
    assert len({each["digest"] for each in ours}) == 2
    told = cafs.run("gc", "-n", "--older-than", "0s").stdout.splitlines()
    which = [line for line in told if " reference " in line or " tree " in line]
    assert len(which) >= 5
    assert len(set(which)) == len(which), which
    assert sum(digest_of(TREE).short in line for line in which) >= 3


def test_gc_finds_nothing_where_all_is_of_use(filled: Cafs) -> None:
    assert filled.run("gc").stdout == "0 B freed\n"
    [told] = lines(filled.run("gc", "--json").stdout)
    assert told == {"removed": 0, "found": 0, "bytes": 0, "failed": 0}


def test_gc_takes_the_slices_of_a_file_that_is_here_as_a_whole(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(3 * MIB, seed=7))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    cafs.run("lock")
    shutil.rmtree(cafs.store)
    cafs.run("cat", "ref/model")  # it ends at once, and nobody lets go of the slices
    cafs.run("prefetch", "model")  # nor does who wants the file as a whole
    dry = lines(cafs.run("gc", "--json", "--dry-run").stdout)
    told = lines(cafs.run("gc", "--json").stdout)
    for each in (dry[0], told[0]):
        assert (each["kind"], each["bytes"]) == ("stream", 3 * MIB)
        assert each["reason"] == "pieces of a file that is here as a whole"
    assert (len(told), told[0]["removed"], told[1]["bytes"]) == (2, True, 3 * MIB)
    origin.forget()
    cafs.run("cat", "ref/model")
    assert origin.bytes_sent() == 0
    assert cafs.run("gc").stdout == "0 B freed\n"


def test_gc_older_than_removes_what_it_lists_and_says_how_much(filled: Cafs) -> None:
    listed = lines(filled.run("gc", "--json", "--dry-run", "--older-than", "0s").stdout)
    assert {each["kind"] for each in listed[:-1]} >= {"blob", "stream", "tree", "reference"}
    assert not any(each["removed"] for each in listed[:-1])
    assert "not used since" in filled.run("gc", "-n", "--older-than", "0s").stdout
    assert filled.run("cat", "--offline", "tree/a/b").stdout == "beta" * 4000
    removed = lines(filled.run("gc", "--json", "--older-than", "0s").stdout)
    assert [(each["kind"], each["name"]) for each in removed[:-1]] == [
        (each["kind"], each["name"]) for each in listed[:-1]
    ]
    assert all(each["removed"] for each in removed[:-1])
    assert removed[-1]["removed"] == listed[-1]["found"]
    assert removed[-1]["bytes"] == listed[-1]["bytes"]
    assert filled.run("gc", "-n", "--older-than", "0s").stdout == "0 B would be freed\n"
    assert not [path for path in (filled.store / "blobs").rglob("*") if path.is_file()]
    assert filled.run("cat", "tree/a/b").stdout == "beta" * 4000


def test_gc_goes_down_to_the_quota_and_lists_what_it_will_take(filled: Cafs) -> None:
    assert filled.run("gc", "--quota", "2MiB").stdout == "0 B freed\n"
    listed = lines(filled.run("gc", "--json", "--dry-run", "--quota", "1MiB").stdout)
    assert {each["kind"] for each in listed[:-1]} == {"excess"}
    removed = lines(filled.run("gc", "--json", "--quota", "1MiB").stdout)
    assert [each["name"] for each in removed[:-1]] == [each["name"] for each in listed[:-1]]
    assert removed[-1]["bytes"] == listed[-1]["bytes"]
    assert int(str(lines(filled.run("du", "--json").stdout)[-1]["total"])) <= MIB


def test_gc_keeps_what_is_pinned(filled: Cafs) -> None:
    filled.run("pin", "tree")
    told = filled.run("gc", "--older-than", "0s").stdout
    assert "1.0 MiB freed" in told
    assert filled.run("cat", "--offline", "tree/a/b").stdout == "beta" * 4000


def test_gc_beside_another_says_so_and_does_nothing(filled: Cafs) -> None:
    (filled.store / "leases" / "collecting").touch()
    with (filled.store / "leases" / "collecting").open("r+b") as other:
        assert flock(other.fileno(), exclusive=True, wait=False)
        done = filled.run("gc", "--older-than", "0s")
        assert (done.stdout, "another cafs gc" in done.stderr) == ("", True)
    assert "freed" in filled.run("gc").stdout


@pytest.mark.parametrize("text", ["soon", "-1h", "7y", ""])
def test_gc_says_what_a_time_looks_like(cafs: Cafs, text: str) -> None:
    done = cafs.run("gc", f"--older-than={text}", check=False)
    assert (done.returncode, "--older-than" in done.stderr) == (2, True)


def test_rm_removes_what_only_a_ref_has(filled: Cafs) -> None:
    shared = json.loads(filled.run("rm", "--json", "model").stdout)
    assert (shared["freed"], shared["shared"], shared["mounts"]) == (0, MIB, [])
    assert "1.0 MiB freed" in filled.run("rm", "again").stdout
    assert filled.run("cat", "--offline", "tree/a/b").stdout == "beta" * 4000
    done = filled.run("cat", "--offline", "ref/again", check=False)
    assert done.returncode == 5


def test_rm_refuses_what_is_pinned_and_what_refs_have(filled: Cafs) -> None:
    digest = str(digest_of(TREE))
    filled.run("pin", "tree")
    for word in ("tree", digest):
        done = filled.run("rm", "--force", word, check=False)
        assert (done.returncode, "cafs unpin" in done.stderr) == (7, True)
    filled.run("unpin", "tree")
    done = filled.run("rm", digest, check=False)
    assert (done.returncode, "--force" in done.stderr) == (2, True)
    assert "freed" in filled.run("rm", "--force", digest).stdout
    done = filled.run("rm", digest, check=False)
    assert (done.returncode, "not in the store" in done.stderr) == (3, True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB, to be filled."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs")
    yield path
    subprocess.run(["umount", path], check=True)


def test_everything_that_makes_room_works_where_there_is_none(
    cafs: Cafs, origin: Origin, full_disk: Path
) -> None:
    cafs.environment["CAFS_STORE"] = str(full_disk / "store")
    urls = [origin.put(f"/{each}", Generated(8 * MIB, seed=each)) for each in range(4)]
    cafs.project("".join(f'[ref.r{each}]\nfrom="{url}"\n' for each, url in enumerate(urls)))
    cafs.run("prefetch", "--quiet")
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={full_disk / 'filler'}", "bs=4k"],
        check=False,
        capture_output=True,
    )
    assert os.statvfs(full_disk).f_bavail == 0
    assert "8.0 MiB" in cafs.run("du", "r0").stdout
    cafs.run("pin", "r0")
    assert "8.0 MiB freed" in cafs.run("rm", "r1").stdout
    assert "16.0 MiB freed" in cafs.run("gc", "--older-than", "0s").stdout
    assert os.statvfs(full_disk).f_bavail * 4096 >= 20 * MIB
    cafs.run("unpin", "r0")
    cafs.run("prefetch", "--quiet", "r1")


def test_b_s4_gc_beside_a_prefetch_takes_nothing_of_it(cafs: Cafs, origin: Origin) -> None:
    names = [f"r{number}" for number in range(8)]
    urls = {name: origin.put(f"/{name}", Generated(MIB, seed=ord(name[1]))) for name in names}
    tree = origin.put("/t.tgz", TREE)
    for path in (*urls, "t.tgz"):
        origin.fault(f"/{path}", Rate(2 * MIB))
    refs = "".join(f'[ref.{name}]\nfrom="{url}"\n' for name, url in urls.items())
    cafs.project(f'{refs}[ref.tree]\nfrom="{tree}"\n')
    prefetch = cafs.popen("prefetch", "--quiet")
    while prefetch.poll() is None:
        cafs.run("gc", "--older-than", "0s", "--quiet")
    told = prefetch.communicate()
    assert prefetch.returncode == 0, told
    sent = sum(origin.bytes_sent(f"/{name}") for name in names)
    assert sent <= len(names) * (MIB + 100_000)


@pytest.mark.parametrize("damaged", [True, False])
def test_who_looks_and_clears_up_needs_no_directory_of_mounts(filled: Cafs, damaged: bool) -> None:
    if damaged:
        runtime = Path(filled.environment["XDG_RUNTIME_DIR"]) / "cafs"
        runtime.mkdir(mode=0o700, exist_ok=True)
        (runtime / "foreign.json").write_text("{")
    else:
        filled.environment["XDG_RUNTIME_DIR"] = "/proc/nope"
    told = filled.run("status").stdout
    assert told.startswith("not mounted\n")
    assert ("foreign.json is damaged" in told) is damaged
    assert json.loads(filled.run("status", "--json").stdout)["elsewhere"] == []
    filled.run("gc")
    assert "tree" in filled.run("rm", "tree").stdout
    (filled.directory / "cafs.toml").unlink()
    listed = filled.run("status")
    assert listed.stdout.startswith("nothing is mounted")
    assert ("foreign.json is damaged" in listed.stderr) is damaged
