"""A mount whose store's disk is full to the last block: what is read, what is not, and afterwards.

Ids of behaviours: design §6, the ladder of a full disk; ADR 0020.
"""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cafs.testing.archives import file, tar_bytes, zip_archive
from cafs.testing.bodies import Generated, Literal
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from tests.small_disk import disk_of, fill, free

pytestmark = pytest.mark.fuse

MIB = 1 << 20
UNKEPT = "store.checkpoint.failed|store.uses.unwritten|fetch.budget.unkept"


@pytest.fixture
def disk(cafs: Cafs) -> Iterator[Path]:
    """The disk that the store lies on, of 64 MiB; nothing else of the command does."""
    cafs.expect_log(UNKEPT)
    with disk_of(cafs.store.parent, 64) as path:
        yield path


def body(size: int, seed: int) -> bytes:
    return Generated(size, seed=seed).read(0, size)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def ref(name: str, url: str, pin: str = "") -> str:
    integrity = f'integrity = "{pin}"\n' if pin else ""
    return f'[ref.{name}]\nfrom = "{url}"\n{integrity}'


def errno_of(action: Callable[[], object]) -> int:
    """The errno of an action, 0 when it succeeded."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def part(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as opened:
        return os.pread(opened.fileno(), length, offset)


def test_what_is_here_is_read_and_what_is_not_is_read_without_being_stored(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    data = body(48 * MIB, 1)
    toml = ref("big", origin.put("/big", Literal(data))) + ref(
        "new", origin.put("/new", Literal(b"never asked for before"))
    )
    with cafs.mount(toml) as mount:
        big = mount.ref("big")
        assert part(big, 0, MIB) == data[:MIB]
        filler = fill(disk)
        assert part(big, 0, MIB) == data[:MIB]
        assert big.read_bytes() == data  # more than memory is used for
        assert mount.ref("new").read_bytes() == b"never asked for before"
        assert {"big", "new"} <= set(os.listdir(mount.path / "ref"))
        assert cafs.run("status").returncode == 0
        assert mount.status()["refs"]
        filler.unlink()
        assert cafs.run("prefetch").returncode == 0
        assert {one["present"] for one in mount.status()["refs"]} == {48 * MIB, 22}
        assert big.read_bytes() == data
        assert cafs.run("unmount", mount.path).returncode == 0


def test_pinned_content_is_checked_in_memory_or_not_read(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    small, fits, large = b"x" * 1000, body(20 * MIB, 2), body(40 * MIB, 3)
    toml = (
        ref("small", origin.put("/small", Literal(small)), sha256(small))
        + ref("fits", origin.put("/fits", Literal(fits)), sha256(fits))
        + ref("large", origin.put("/large", Literal(large)), sha256(large))
        + ref("wrong", origin.put("/wrong", Literal(b"other")), sha256(b"bytes"))
        + ref("wronger", origin.put("/wronger", Literal(bytes(5 * MIB))), sha256(fits[: 5 * MIB]))
    )
    with cafs.mount(toml) as mount:
        filler = fill(disk)
        assert mount.ref("small").read_bytes() == small
        assert mount.ref("fits").read_bytes() == fits
        assert origin.bytes_sent("/fits") < 21 * MIB
        assert errno_of(mount.ref("large").read_bytes) == errno.ENOSPC
        assert errno_of(mount.ref("wrong").read_bytes) == errno.EBADMSG
        time.sleep(2.1)  # what was wanted a moment ago keeps its room
        assert errno_of(mount.ref("wronger").read_bytes) == errno.EBADMSG
        assert mount.ref("small").read_bytes() == small
        filler.unlink()
        time.sleep(1.1)  # the kernel asks twice, and is told the same
        assert mount.ref("large").read_bytes() == large


def test_members_of_an_archive_that_was_opened_are_read(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    large = body(12 * MIB, 4)[: 12 * MIB - 5] + b"tail!"
    items = [file("a", b"alpha" * 1000), file("large", large), file("b", b"beta" * 1000)]
    tar = tar_bytes({"t": (0o644, body(2 * MIB, 5)), "u": (0o644, b"u" * 5000)})
    toml = ref("zip", origin.put("/a.zip", Literal(zip_archive(items)))) + ref(
        "tar", origin.put("/a.tar", Literal(tar))
    )
    with cafs.mount(toml) as mount:
        assert (mount.ref("zip") / "a").read_bytes() == b"alpha" * 1000
        assert (mount.ref("tar") / "u").read_bytes() == b"u" * 5000
        fill(disk)
        assert (mount.ref("zip") / "b").read_bytes() == b"beta" * 1000
        assert (mount.ref("zip") / "large").read_bytes() == large
        assert (mount.ref("tar") / "t").read_bytes() == body(2 * MIB, 5)


def test_a_prefetch_stops_and_says_what_to_do(cafs: Cafs, origin: Origin, disk: Path) -> None:
    data = body(80 * MIB, 6)
    with cafs.mount(ref("big", origin.put("/big", Literal(data)))) as mount:
        done = cafs.run("prefetch", check=False)
        assert done.returncode == 7, done.stderr
        assert "MiB free" in done.stderr
        assert "cafs gc" in done.stderr
        assert done.stderr.count("error") == 1
        assert part(mount.ref("big"), 70 * MIB, MIB) == data[70 * MIB : 71 * MIB]
        assert cafs.run("status").returncode == 0


def test_readers_read_right_bytes_while_the_disk_fills_and_empties(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    bodies = {f"r{number}": body(12 * MIB, 10 + number) for number in range(4)}
    pinned = body(6 * MIB, 20)
    toml = "".join(
        ref(name, origin.put(f"/{name}", Literal(data))) for name, data in bodies.items()
    ) + ref("pinned", origin.put("/pinned", Literal(pinned)), sha256(pinned))
    wrong: list[str] = []
    errors: list[int] = []
    done = threading.Event()

    def read(path: Path, data: bytes) -> None:
        position = 0
        while not done.is_set():
            try:
                got = part(path, position, 256 << 10)
            except OSError as error:
                errors.append(error.errno or -1)
            else:
                if got != data[position : position + len(got)] or not got:
                    wrong.append(f"{path.name} at {position}")
            position = (position + (1792 << 10)) % (len(data) - (256 << 10))

    with cafs.mount(toml) as mount:
        everything = {**bodies, "pinned": pinned}
        readers = [
            threading.Thread(target=read, args=(mount.ref(name), data))
            for name, data in everything.items()
        ]
        for reader in readers:
            reader.start()
        for number in range(3):
            filler = fill(disk, number)
            time.sleep(0.5)
            filler.unlink()
            time.sleep(0.3)
        fill(disk)
        time.sleep(0.5)
        done.set()
        for reader in readers:
            reader.join()
        assert not wrong
        assert set(errors) <= {errno.ENOSPC}
        (disk / "filler0").unlink()
        time.sleep(1.1)
        for name, data in everything.items():
            assert mount.ref(name).read_bytes() == data


def test_a_mount_is_made_and_unmade_on_a_full_disk(cafs: Cafs, origin: Origin, disk: Path) -> None:
    url = origin.put("/a", Literal(b"alpha" * 1000))
    toml = '[mount]\npath = "cafs"\n' + ref("a", url)
    with cafs.mount(toml) as mount:
        assert mount.ref("a").read_bytes() == b"alpha" * 1000
    fill(disk)
    with cafs.mount(toml) as mount:
        assert mount.ref("a").read_bytes() == b"alpha" * 1000
        os.kill(mount.worker, 9)
        cafs.expect_log("was killed by signal 9")
        assert mount.ref("a").read_bytes() == b"alpha" * 1000
        assert free(disk) < 5 * MIB


def test_what_was_used_longest_ago_makes_way_for_what_is_read(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    old, new = body(30 * MIB, 30), body(8 * MIB, 31)
    toml = ref("old", origin.put("/old", Literal(old)), sha256(old)) + ref(
        "new", origin.put("/new", Literal(new))
    )
    with cafs.mount(toml) as mount:
        assert mount.ref("old").read_bytes() == old
        time.sleep(3.1)  # what was used a moment ago stays
        fill(disk)
        assert mount.ref("new").read_bytes() == new
        present = {one["name"]: one["present"] for one in mount.status()["refs"]}
        assert present == {"old": 0, "new": 8 * MIB}
        assert mount.ref("old").read_bytes() == old


def test_a_prefetch_goes_on_while_anything_makes_way_and_stops_where_the_rest_is_pinned(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    old, kept, new, last = (body(size * MIB, 32 + size) for size in (30, 6, 20, 14))
    named = {"old": old, "kept": kept, "new": new, "last": last}
    toml = "".join(
        ref(name, origin.put(f"/{name}", Literal(data)), sha256(data) if name != "new" else "")
        for name, data in named.items()
    )
    with cafs.mount(toml) as mount:
        for name in ("old", "kept"):
            assert mount.ref(name).read_bytes() == named[name]
        assert cafs.run("pin", "kept").returncode == 0
        time.sleep(3.1)  # what was used a moment ago stays
        fill(disk)
        assert cafs.run("prefetch", "new").returncode == 0
        present = {one["name"]: one["present"] for one in mount.status()["refs"]}
        assert present == {"old": 0, "kept": 6 * MIB, "new": 20 * MIB, "last": 0}
        assert cafs.run("pin", "new").returncode == 0
        done = cafs.run("prefetch", "last", check=False)
        assert done.returncode == 7, done.stderr
        assert "cafs gc" in done.stderr
        assert mount.ref("new").read_bytes() == new
        assert mount.ref("kept").read_bytes() == kept


def test_things_are_told_and_removed_on_a_full_disk(cafs: Cafs, origin: Origin, disk: Path) -> None:
    one, two = body(10 * MIB, 40), body(12 * MIB, 41)
    toml = ref("one", origin.put("/one", Literal(one)), sha256(one)) + ref(
        "two", origin.put("/two", Literal(two)), sha256(two)
    )
    with cafs.mount(toml) as mount:
        assert mount.ref("one").read_bytes() == one
        assert mount.ref("two").read_bytes() == two
        fill(disk)
        for command in (["status"], ["du"], ["gc", "--dry-run"], ["gc"], ["pin"]):
            assert cafs.run(*command).returncode == 0
        before = free(disk)
        time.sleep(1.1)  # what was read a moment ago is in use
        assert cafs.run("rm", "one").returncode == 0
        assert free(disk) - before > 8 * MIB  # of 10: a record, or the log, takes a page
        assert mount.ref("two").read_bytes() == two
        assert mount.ref("one").read_bytes() == one
        assert cafs.run("unmount", mount.path).returncode == 0


def test_an_archive_that_was_never_opened_waits_for_room(
    cafs: Cafs, origin: Origin, disk: Path
) -> None:
    inside = body(3 * MIB, 50)
    tar = tar_bytes({"d/t": (0o644, inside)}, compression="gz")
    url = origin.put("/a.tar.gz", Literal(tar))
    with cafs.mount(ref("pack", url, sha256(tar))) as mount:
        filler = fill(disk)
        assert errno_of(lambda: os.listdir(mount.ref("pack"))) == errno.ENOSPC
        assert cafs.run("status").returncode == 0
        filler.unlink()
        time.sleep(1.1)
        assert (mount.ref("pack") / "d/t").read_bytes() == inside
