"""With which settings a worker serves, when files change between one worker and the next."""

import errno
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.hand_keeper import KeptWorker
from tests.cli.worker_world import World, find, node_of, read

Change = Callable[[World], None]


def change_from(world: World) -> None:
    url = world.origin.put("/other.tar", tar_bytes({"a": (0o644, b"other")}))
    world.project(f'[ref.data]\nfrom = "{url}"\n')


def break_project(world: World) -> None:
    world.cafs.project('[mount]\npath = "caf')


def remove_project(world: World) -> None:
    (world.cafs.directory / "cafs.toml").unlink()


def hide_project(world: World) -> None:
    world.cafs.directory.rename(world.cafs.directory.with_name("elsewhere"))


def break_users(world: World) -> None:
    config = Path(world.cafs.environment["XDG_CONFIG_HOME"], "cafs", "config.toml")
    config.parent.mkdir()
    config.write_text("[hosts]\nallow = 1\n")


CHANGES = [change_from, break_project, remove_project, hide_project, break_users]


def serve_and_crash(worker: KeptWorker, lease: list[int], content: bytes) -> None:
    worker.begin()
    if worker.lends():
        lease.append(worker.take_lease())
    assert read(worker, node_of(find(worker, "ref/data/a"))).body == content
    worker.signal(signal.SIGKILL)
    worker.code()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_successor_has_the_settings_of_the_worker_before_whatever_became_of_the_files(
    world: World, lease: list[int], change: Change
) -> None:
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"alpha")
    world.origin.forget()
    change(world)
    for _ in range(2):  # what is inherited can be inherited
        with world.keeper.successor() as worker:
            worker.resume()
            assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"alpha"
            worker.signal(signal.SIGKILL)
            worker.code()
    assert not world.origin.requests


def test_a_worker_whose_word_is_waited_for_reads_the_files_and_its_successors_have_what_it_read(
    world: World, lease: list[int]
) -> None:
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"alpha")
    change_from(world)
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"other")
    break_project(world)
    with world.keeper.successor() as worker:
        worker.resume()
        assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"other"


def test_names_that_mean_something_else_are_forgotten_before_a_reload_has_ended(
    world: World, lease: list[int]
) -> None:
    same = world.origin.put("/same.tar", tar_bytes({"a": (0o644, b"same")}))
    world.project(f'[ref.data]\nfrom = "{world.url}"\n[ref.same]\nfrom = "{same}"\n')
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"alpha")
    world.project(f'[ref.data]\nfrom = "{same}"\n[ref.same]\nfrom = "{same}"\n')
    with world.keeper.worker() as worker:
        worker.initialise()
        worker.beat()
        assert worker.notices == []  # until now the worker before could answer for them
        worker.beat()
        (told,) = worker.notices
        assert told[16:] == b"data\0"
        assert int.from_bytes(told[:8], "little") == node_of(find(worker, "ref"))


def test_what_is_not_content_is_inherited_too(world: World, lease: list[int]) -> None:
    world.project(f'[ref.data]\nfrom = "{world.url}"\n', mount='budget = "1B"\n')
    with world.keeper.worker() as worker:
        worker.begin()
        lease.append(worker.take_lease())
    world.project()
    with world.keeper.successor() as worker:
        worker.resume()
        assert find(worker, "ref/data/a").error == errno.EDQUOT


def test_settings_count_once_the_keeper_has_accepted_their_worker(
    world: World, lease: list[int]
) -> None:
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"alpha")
    change_from(world)
    with world.keeper.worker() as worker:
        worker.initialise()
        # It goes about its business, and says nothing: the keeper may still refuse it.
        assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"other"
        assert not worker.has_spoken()
        worker.signal(signal.SIGKILL)
        worker.code()
    with world.keeper.successor() as worker:
        worker.resume()
        assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"alpha"
    with world.keeper.worker() as worker:
        worker.initialise()
        worker.beat()
        # The reply is what makes it serve: the keeper has hardly read it, and the worker dies.
        worker.signal(signal.SIGKILL)
        assert worker.word().ready is not None
    with world.keeper.successor() as worker:
        worker.resume()
        assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"other"


def test_a_worker_that_fails_leaves_the_settings_as_they_were(
    world: World, lease: list[int]
) -> None:
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"alpha")
    change_from(world)
    with world.keeper.worker("--view=ref") as worker:
        assert worker.word().failure is not None
        assert worker.code() == 8
    with world.keeper.successor() as worker:
        worker.resume()
        assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"alpha"


def test_a_worker_that_waits_for_the_keepers_verdict_ends_when_it_is_told_to(
    world: World, lease: list[int]
) -> None:
    with world.keeper.worker() as worker:
        serve_and_crash(worker, lease, b"alpha")
    change_from(world)
    with world.keeper.worker() as worker:
        worker.initialise()
        worker.signal(signal.SIGTERM)
        assert worker.code() == 0


@pytest.mark.parametrize("left", [None, b"nonsense", b"\x80"], ids=["none", "damaged", "another"])
def test_a_successor_that_finds_no_settings_says_so_and_what_to_do(
    world: World, left: bytes | None
) -> None:
    if left is not None:
        world.remember(left)
    with world.keeper.successor() as worker:
        assert worker.code() == 8
    place = world.cafs.directory / "cafs"
    log = world.keeper.log.read_text()
    assert f"{place}: the store has forgotten with which settings it was mounted" in log
    assert f"cafs reload {place}" in log
    assert "Traceback" not in log
    # That helps.
    with world.keeper.worker() as worker:
        worker.begin()
        assert read(worker, node_of(find(worker, "ref/data/a"))).body == b"alpha"
