"""A worker's life under a keeper, which the test plays: what it leaves behind, and for whom."""

import errno
import hashlib
import os
import signal
import struct

import pytest

from cafs.store.trees.mounts import new_key
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.fuse_wire import Opcode
from cafs.testing.hand_keeper import OWNER, HandKeeper
from tests.cli.worker_world import World, find, node_of, read, until
from tests.conftest import Cafs

MIB = 1 << 20
GONE = {errno.ENOENT, errno.ESTALE}
OWNERS = struct.Struct("=II")
OWNERS_AT = 108
"""Where struct fuse_entry_out has the user: after 40 bytes of its own, and 68 of fuse_attr."""


def test_a_worker_serves_lends_its_lease_and_says_its_pid(world: World, lease: list[int]) -> None:
    with world.keeper.worker() as worker:
        said = worker.begin()
        lease.append(worker.take_lease())
        assert said.ready is not None
        assert said.ready.pid == worker.pid
        found = find(worker, "ref/data/a")
        assert read(worker, node_of(found)).body == b"alpha"
        assert OWNERS.unpack_from(found.body, OWNERS_AT) == OWNER
        assert world.number() is not None
        assert world.held()


def test_the_next_worker_gives_the_same_numbers_and_asks_for_nothing_twice(
    world: World, lease: list[int]
) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
        place = node_of(find(worker, "ref/data"))
        file = node_of(find(worker, "ref/data/a"))
        shown = node_of(find(worker, ".cafs/version"))
        worker.signal(signal.SIGKILL)
        assert worker.code() == -signal.SIGKILL
    assert world.held()
    world.origin.forget()
    # The source has changed: whoever asks what the ref means now gets another answer.
    world.origin.put("/data.tar", tar_bytes({"a": (0o644, b"other")}), etag='"2"')
    with world.keeper.worker() as worker:
        worker.begin()
        assert read(worker, file).body == b"alpha"
        assert read(worker, shown).error == 0
        assert node_of(find(worker, "ref/data")) == place
        assert node_of(find(worker, "ref/data/a")) == file
        assert not worker.lends()  # the keeper has it
    assert not world.origin.requests


@pytest.mark.parametrize("how", ["SIGTERM", "death of the keeper"])
def test_a_worker_that_ends_leaves_the_mount_to_the_next(
    world: World, lease: list[int], how: str
) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
        if how == "SIGTERM":
            worker.signal(signal.SIGTERM)
        else:
            worker.hang_up()
        assert worker.code() == 0
    assert world.number() is not None
    assert world.held()


def test_what_a_dead_keeper_leaves_is_swept_by_the_next_mount(world: World) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        os.close(worker.take_lease())
        find(worker, "ref/data/a")
        worker.hang_up()
        assert worker.code() == 0
    assert world.number() is not None
    other = HandKeeper(world.cafs, new_key(), world.cafs.directory / "other")
    with other.worker() as worker:
        worker.begin()
        os.close(worker.take_lease())
        until(lambda: world.number() is None)
        until(lambda: "store.mounts.swept count=1" in other.log.read_text())
        assert not world.lease_file().exists()


def test_a_mount_that_has_ended_is_forgotten(world: World, lease: list[int]) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
        find(worker, "ref/data/a")
        # At once, as the keeper does it: the worker has to hear the one before it heeds the other.
        worker.tell(b"E")
        worker.signal(signal.SIGTERM)
        assert worker.code() == 0
    assert world.number() is None
    assert not world.lease_file().exists()


def test_ctrl_c_is_for_the_keeper(world: World) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        worker.signal(signal.SIGINT)
        assert node_of(find(worker, "ref/data"))
        worker.signal(signal.SIGTERM)
        assert worker.code() == 0


def test_a_worker_whose_settings_are_wrong_says_so_and_exits_with_its_code(world: World) -> None:
    world.project(refs="[ref.data]\nform = 1\n")
    with world.keeper.worker() as worker:
        failure = worker.word().failure
        assert failure is not None
        assert (failure.exit, worker.code()) == (2, 2)
        assert "ref.data.form" in failure.what
        assert "did you mean" in failure.hint
    log = world.keeper.log.read_text()
    assert "ERROR cafs: " in log
    assert log.count("did you mean") == 1
    assert "Traceback" not in log


def test_a_worker_whose_store_cannot_be_used_says_so_and_exits_with_its_code(world: World) -> None:
    world.cafs.store.mkdir(parents=True)
    (world.cafs.store / "VERSION").write_text("999\n")
    with world.keeper.worker() as worker:
        failure = worker.word().failure
        assert failure is not None
        assert (failure.exit, worker.code()) == (7, 7)
        assert "newer cafs" in failure.what


def test_a_worker_with_another_view_is_refused(world: World, lease: list[int]) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
    with world.keeper.worker("--view=ref") as worker:
        failure = worker.word().failure
        assert failure is not None
        assert (failure.exit, worker.code()) == (8, 8)
        assert "with the view '/', and the settings now say 'ref'" in failure.what


def test_a_worker_that_would_show_another_ref_at_the_root_is_refused(
    world: World, lease: list[int]
) -> None:
    view = "--view=ref/data"
    with world.keeper.worker(view) as worker:
        worker.begin()
        lease.append(worker.take_lease())
        assert read(worker, node_of(find(worker, "a"))).body == b"alpha"
    world.project(refs=f'[ref.data]\nfrom = "{world.url}"\nstrip = 1\n')
    with world.keeper.worker(view) as worker:
        failure = worker.word().failure
        assert failure is not None
        assert (failure.exit, worker.code()) == (8, 8)
        assert "the mount's root would show something else" in failure.what
        assert not worker.lends()


def test_a_ref_that_the_settings_name_no_longer_is_not_found(
    world: World, lease: list[int]
) -> None:
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
        place = node_of(find(worker, "ref/data"))
        file = node_of(find(worker, "ref/data/a"))
        worker.signal(signal.SIGTERM)
        assert worker.code() == 0
    world.project(refs=f'[ref.later]\nfrom = "{world.url}"\n')
    with world.keeper.worker() as worker:
        worker.begin()
        assert find(worker, "ref/data").error == errno.ENOENT
        assert worker.ask(Opcode.GETATTR, place, bytes(16)).error in GONE
        assert read(worker, file).error in GONE
        assert node_of(find(worker, "ref/later/a")) != file
    # It comes back with its numbers: what the kernel remembers goes on meaning the same.
    world.project()
    with world.keeper.worker() as worker:
        worker.begin()
        assert read(worker, file).body == b"alpha"
        assert node_of(find(worker, "ref/data")) == place


def test_a_budget_that_is_spent_stays_spent(world: World, lease: list[int]) -> None:
    body = Generated(8 * MIB, seed=3)
    url = world.origin.put("/big", body)
    pin = hashlib.sha256(b"").hexdigest()
    refs = f'[ref.big]\nfrom = "{url}"\n[ref.none]\nfrom = "sha256:{pin}"\n'
    world.project(refs, mount='budget = "2MiB"\n')
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
        file = node_of(find(worker, "ref/big"))
        answers = [read(worker, file, at * MIB).error for at in range(8)]
        assert answers[0] == 0
        assert answers[-1] == errno.EDQUOT
        until(lambda: world.spent() >= 2 * MIB)
        worker.signal(signal.SIGKILL)
        worker.code()
    world.origin.forget()
    with world.keeper.worker() as worker:
        worker.begin()
        assert read(worker, file).error == 0  # it is here
        assert read(worker, file, 7 * MIB).error == errno.EDQUOT
    assert world.origin.bytes_sent("/big") == 0
    world.project(refs, mount='budget = "20MiB"\n')
    with world.keeper.worker() as worker:
        worker.begin()
        assert read(worker, file, 7 * MIB).error == 0


def test_a_worker_that_nobody_waits_for_any_more_ends_before_it_serves(world: World) -> None:
    with world.keeper.worker() as worker:
        worker.stop_listening()
        assert worker.code() == 8
    assert "who asked for the mount has gone" in world.keeper.log.read_text()


def test_a_worker_without_a_keeper_says_what_it_lacks(world: World) -> None:
    done = world.cafs.run(*world.keeper.command()[4:], check=False)
    assert done.returncode == 8
    assert "this worker has no keeper" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_worker_is_no_verb_for_people(cafs: Cafs) -> None:
    assert "\n  worker " not in cafs.run("--help").stdout
