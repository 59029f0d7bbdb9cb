"""Mounts found by their key: who goes on, who holds the lease, and what is swept away."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import pytest
import trio

from cafs.errors import MountError, NotFoundError
from cafs.model.resolved import Resolved, Shape
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import after
from cafs.store.holds.leases import Leases
from cafs.store.store import Store, open_store
from cafs.store.tables import mount_tables
from cafs.store.trees.mounts import new_key

CHILD = Path(__file__).with_name("mounting_child.py")
ROOT = Path(__file__).parents[3]


class Kept(TypedDict):
    """What a keeping child says."""

    mount: int
    took: bool
    tree: int
    snapshot: int
    before: str
    settled_ns: int
    spent: int
    settings: str | None


@contextmanager
def child(store: Path, *arguments: str, fds: tuple[int, ...] = ()) -> Iterator[Iterator[str]]:
    """A child's lines; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(store), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        pass_fds=fds,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()


def lease_files(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "leases").glob("mount-*"))


def settings_left(store: Path) -> int:
    """How many mounts there are settings of in a store that nobody has open, living or not."""
    recent = Environment(
        store / "recent-first", {"settings": 1}, synced=False, make_room=lambda: False
    )
    with recent.read() as snapshot:
        count = len(list(snapshot.scan(recent.table("settings"), b"", after(b""))))
    recent.close()
    return count


def meaning(ref: str) -> Resolved:
    return Resolved(ref=ref, shape=Shape.FILE, digest=None, parts=(), resolved_ns=1)


# -- one process


async def test_a_mount_is_found_by_its_key(store: Store) -> None:
    one, two = new_key(), new_key()
    assert store.mounts.number(one) is None
    mount = await store.mounts.open(one, "one")
    other = await store.mounts.open(two, "two")
    assert mount != other
    assert await store.mounts.open(one, "one") == mount
    assert (store.mounts.number(one), store.mounts.number(two)) == (mount, other)
    await store.mounts.remove(mount)
    assert store.mounts.number(one) is None
    assert lease_files(store.path) == [f"mount-{two}"]


@pytest.mark.parametrize("key", ["", "../" * 11, "A" * 32, "a" * 31, "a" * 33])
async def test_a_key_is_32_hexadecimal_digits(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        await store.mounts.open(key, "test")


async def test_a_mount_keeps_its_view(store: Store) -> None:
    key = new_key()
    mount = await store.mounts.open(key, "/mnt", view="ref/gcc")
    with pytest.raises(MountError, match=r"/mnt: is mounted with the view 'ref/gcc'.*say 'ref'"):
        await store.mounts.open(key, "/mnt", view="ref")
    assert await store.mounts.open(key, "/mnt", view="ref/gcc") == mount


async def test_a_mount_that_is_kept_but_was_forgotten_is_not_made_anew(store: Store) -> None:
    key = new_key()
    leases = Leases(store.path / "leases")
    with leases.deciding():
        kept = leases.take(key)
    assert kept is not None
    with pytest.raises(MountError, match="forgotten"):
        await store.mounts.open(key, "/mnt")
    kept.release()
    assert await store.mounts.open(key, "/mnt") == store.mounts.number(key)


async def test_a_lease_goes_on_with_whom_it_was_lent(store: Store) -> None:
    key = new_key()
    leases = Leases(store.path / "leases")
    with leases.deciding():
        lease = leases.take(key)
        assert lease is not None
        lent = os.dup(lease.fileno())
        lease.release()
        assert leases.held(key)
        assert leases.take(key) is None
        os.close(lent)
        assert not leases.held(key)


async def test_what_nobody_keeps_is_swept_and_what_somebody_keeps_is_not(tmp_path: Path) -> None:
    kept, left = new_key(), new_key()
    async with open_store(tmp_path, boot_id="first") as store:
        old = await store.mounts.open(left, "left")
        await store.attachments.attach(old, "ref/a", content=b"x")
        await store.mounts.resolve(old, "key", meaning("r"))
        await store.mounts.set_settings(old, b"old")
    async with open_store(tmp_path, boot_id="first") as store:
        mount = await store.mounts.open(kept, "kept")
        # Lease files without a record: somebody died between the two.
        (tmp_path / "leases" / f"mount-{new_key()}").touch()
        assert store.mounts.number(left) == old
        assert await store.mounts.sweep() == 1
        assert store.mounts.number(left) is None
        assert store.mounts.number(kept) == mount
        assert store.attachments.at(old, "ref/a") is None
        assert store.mounts.resolved(old, "key") is None
        assert store.mounts.settings(old) is None
        assert lease_files(tmp_path) == [f"mount-{kept}"]
        assert await store.mounts.sweep() == 0
        await store.mounts.set_settings(mount, b"kept")
    assert settings_left(tmp_path) == 1


async def test_a_removal_that_was_cut_off_is_carried_through_by_a_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_tables, "_PURGE", 1)
    key = new_key()
    mount = await store.mounts.open(key, "test")
    for number in range(100):
        await store.attachments.attach(mount, f"ref/{number}", content=b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.mounts.remove, mount)
        while store.mounts.number(key) is not None:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert store.attachments.at(mount, "ref/99") is not None
    assert await store.mounts.sweep() == 1
    assert store.attachments.find(mount, 2) is None
    assert store.attachments.under(mount, "ref") == []
    assert await store.mounts.sweep() == 0


async def test_a_mount_that_has_ended_takes_nothing_in(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    await store.mounts.remove(mount)
    with pytest.raises(NotFoundError):
        await store.attachments.attach(mount, "ref/a")
    assert await store.mounts.resolve(mount, "key", meaning("r")) == meaning("r")
    assert store.mounts.resolved(mount, "key") is None
    assert await store.mounts.spend(mount, 100) == 0
    assert store.mounts.spent(mount) == 0
    await store.mounts.set_settings(mount, b"late")
    assert store.mounts.settings(mount) is None


async def test_what_was_spent_is_counted_by_mount(store: Store) -> None:
    one, two = await store.mounts.open(new_key(), "one"), await store.mounts.open(new_key(), "two")
    assert await store.mounts.spend(one, 100) == 100
    assert await store.mounts.spend(one, 1 << 40) == 100 + (1 << 40)
    assert await store.mounts.spend(two, 5) == 5
    await store.attachments.attach(one, "ref/a")
    assert (store.mounts.spent(one), store.mounts.spent(two)) == (100 + (1 << 40), 5)


async def test_the_settings_of_a_mount_are_those_that_were_set_last(store: Store) -> None:
    one, two = await store.mounts.open(new_key(), "one"), await store.mounts.open(new_key(), "two")
    assert store.mounts.settings(one) is None
    await store.mounts.set_settings(one, b"first")
    await store.mounts.set_settings(two, b"")
    await store.mounts.set_settings(one, bytes(1 << 20))
    await store.mounts.spend(one, 1)
    assert (store.mounts.settings(one), store.mounts.settings(two)) == (bytes(1 << 20), b"")


@pytest.mark.expects_log("store.record.broken table=settings")
async def test_settings_that_were_damaged_are_not_known(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    await store.mounts.set_settings(mount, b"whole")
    (data,) = store.path.glob("recent-*/data.mdb")
    with data.open("r+b") as file:
        file.seek(file.read().index(b"whole"))
        file.write(b"wHole")
    assert store.mounts.settings(mount) is None


async def test_of_two_that_settle_a_ref_the_first_is_right(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    assert await store.mounts.resolve(mount, "key", meaning("first")) == meaning("first")
    assert await store.mounts.resolve(mount, "key", meaning("second")) == meaning("first")
    assert store.mounts.resolved(mount, "key") == meaning("first")


# -- several processes


def test_a_new_worker_goes_on_where_the_killed_one_stopped(tmp_path: Path) -> None:
    key = new_key()
    keeper, lent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keeper:
        with child(tmp_path, "keep", key, str(lent.fileno()), fds=(lent.fileno(),)) as lines:
            lent.close()
            first: Kept = json.loads(next(lines))
        message, (lease,), _, _ = socket.recv_fds(keeper, 16, 1)
        assert message == b"L"
        with child(tmp_path, "churn", "1") as lines:  # sweeps
            assert json.loads(next(lines)) == 0
        with child(tmp_path, "keep", key) as lines:
            second: Kept = json.loads(next(lines))
        os.close(lease)
    assert first["took"]
    assert not second["took"]  # the keeper holds it
    assert (second["mount"], second["tree"]) == (first["mount"], first["tree"])
    assert second["snapshot"] == first["snapshot"] + 1
    assert second["before"] == ".cafs/status.json"  # the snapshot of the first can still be read
    assert second["settled_ns"] == first["snapshot"]  # what the first one resolved holds
    assert (first["spent"], second["spent"]) == (10, 20)
    assert (first["settings"], second["settings"]) == (None, "10")
    with child(tmp_path, "churn", "1") as lines:
        assert json.loads(next(lines)) == 0
    assert lease_files(tmp_path) == []


def test_mounts_that_begin_and_sweep_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    with child(tmp_path, "keep", new_key()) as kept:
        first: Kept = json.loads(next(kept))
        with (
            child(tmp_path, "churn", "20") as one,
            child(tmp_path, "churn", "20") as two,
            child(tmp_path, "churn", "20") as three,
        ):
            assert [json.loads(next(lines)) for lines in (one, two, three)] == [0, 0, 0]
        assert len(lease_files(tmp_path)) == 1
    assert first["took"]
