"""Files of settings that change under a live mount: only a reload takes notice."""

import json
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cafs.control import keeper
from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs, Mount
from cafs.testing.origin import Origin
from tests.mount.kept_world import wait_for

pytestmark = pytest.mark.fuse

FILES = {f"d{i % 7}/f{i}": b"%d" % i for i in range(200)}
KILLED = "was killed by signal 9"
Change = Callable[[Cafs, Origin], None]


def settings(origin: Origin, name: str, files: dict[str, bytes]) -> str:
    url = origin.put(f"/{name}.tar", tar_bytes({path: (0o644, b) for path, b in files.items()}))
    return f'[mount]\npath="cafs"\n[ref.tree]\nfrom="{url}"\n'


def break_it(cafs: Cafs, _origin: Origin) -> None:
    cafs.project('[mount]\npath="cafs"\n[ref.tree]\nfr')


def remove_it(cafs: Cafs, _origin: Origin) -> None:
    (cafs.directory / "cafs.toml").unlink()


def change_it(cafs: Cafs, origin: Origin) -> None:
    cafs.project(settings(origin, "changed", dict.fromkeys(FILES, b"changed")))


def kill(mounted: Mount) -> None:
    """Kill the worker, and wait until another one serves."""
    former = mounted.worker
    os.kill(former, signal.SIGKILL)
    wait_for(lambda: mounted.worker not in {0, former})


@contextmanager
def readers(tree: Path) -> Iterator[list[str]]:
    """Programs that read the tree over and over; what went wrong."""
    failures: list[str] = []
    stop, round_ = threading.Event(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            for path, content in FILES.items():
                try:
                    with (tree / path).open("rb", buffering=0) as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        if file.read() != content:
                            failures.append(f"{path}: wrong")
                except OSError as error:
                    failures.append(f"{path}: {error}")
            round_.set()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for each in threads:
        each.start()
    try:
        yield failures
        round_.clear()
        assert round_.wait(60)
    finally:
        stop.set()
        for each in threads:
            each.join()


@pytest.mark.parametrize("change", [break_it, remove_it, change_it], ids=lambda each: each.__name__)
def test_who_reads_notices_no_change_of_a_file_when_workers_die(
    cafs: Cafs, origin: Origin, change: Change
) -> None:
    cafs.expect_log(KILLED)
    toml = settings(origin, "tree", FILES)
    with cafs.mount(toml) as mounted:
        with readers(mounted.ref("tree")) as failures:
            change(cafs, origin)
            for _ in range(2):
                kill(mounted)
        assert failures == []
        assert "tree" in os.listdir(mounted.path / "ref")
        assert keeper.status(mounted.control).workers == 3
        cafs.project(toml)  # whoever unmounts reads it, too


def test_a_reload_takes_a_change_up_and_it_stays(cafs: Cafs, origin: Origin) -> None:
    # Whether the command finds the mistake or the new worker does, it is told.
    cafs.expect_log(f"{KILLED}|exited with code 2|cafs.toml: line 4")
    good = settings(origin, "tree", FILES)
    with cafs.mount(good) as mounted:
        break_it(cafs, origin)
        kill(mounted)
        survivor = mounted.worker
        done = cafs.run("reload", mounted.path, check=False)
        assert done.returncode == 2
        assert f"{cafs.directory / 'cafs.toml'}: line 4" in done.stderr
        assert mounted.worker == survivor
        assert (mounted.ref("tree") / "d1/f1").read_bytes() == b"1"
        added = origin.put("/added", b"added")
        cafs.project(f'{good}[ref.added]\nfrom="{added}"\n')
        assert not mounted.ref("added").exists()
        cafs.run("reload")
        wait_for(lambda: mounted.ref("added").exists())
        break_it(cafs, origin)
        with readers(mounted.ref("tree")) as failures:
            kill(mounted)
            assert mounted.ref("added").read_bytes() == b"added"
        assert failures == []
        cafs.project(good)


def test_a_reload_that_fails_changes_nothing_for_the_workers_to_come(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.expect_log(f"{KILLED}|mount's root|exited with code 8")
    ref = settings(origin, "tree", {"sub/file": b"text"})
    with cafs.mount(ref, "--view", "ref/tree") as mounted:
        # Another root than the one that the kernel has: the new worker is refused by itself.
        cafs.project(f"{ref}strip=1\n")
        done = cafs.run("reload", check=False)
        assert done.returncode == 8
        assert "the old worker serves on" in done.stderr
        kill(mounted)
        assert (mounted.path / "sub/file").read_bytes() == b"text"


def test_workers_go_on_though_the_ca_bundle_is_gone(
    cafs: Cafs, origin: Origin, certificate: Path
) -> None:
    cafs.expect_log(KILLED)
    bundle = cafs.directory / "ca.pem"
    bundle.write_bytes(certificate.read_bytes())
    cafs.environment["CAFS_CA_BUNDLE"] = str(bundle)
    with cafs.mount(settings(origin, "tree", FILES)) as mounted:
        bundle.unlink()
        kill(mounted)
        assert (mounted.ref("tree") / "d1/f1").read_bytes() == b"1"
        del cafs.environment["CAFS_CA_BUNDLE"]  # whoever unmounts reads it, too


def test_workers_go_on_though_the_directory_where_the_mount_was_made_is_gone(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.expect_log(f"{KILLED}|working directory|exited with code 2")
    cafs.project(settings(origin, "tree", FILES))
    top, inside = cafs.directory, cafs.directory / "inside"
    inside.mkdir()
    cafs.directory = inside
    with cafs.mount() as mounted:
        cafs.directory = top
        inside.rmdir()
        with readers(mounted.ref("tree")) as failures:
            kill(mounted)
        assert failures == []
        done = cafs.run("reload", check=False)
        assert done.returncode == 2
        assert "the working directory has been removed" in done.stderr
        assert json.loads(cafs.run("status", "--json").stdout)["keeper"]["state"] == "serving"


def test_a_mount_in_the_foreground_reads_its_settings_and_keeps_them(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.project(settings(origin, "tree", FILES))
    process = cafs.popen("mount", "--foreground")
    file = cafs.directory / "cafs/ref/tree/d1/f1"
    try:
        wait_for(lambda: os.path.ismount(cafs.directory / "cafs") or process.poll() is not None)
        assert file.read_bytes() == b"1"
        told = json.loads(cafs.run("status", "--json").stdout)
        break_it(cafs, origin)
        worker = os.pidfd_open(told["keeper"]["worker"])
        signal.pidfd_send_signal(worker, signal.SIGKILL)
        assert select.select([worker], [], [], 60)[0]
        os.close(worker)
        fresh = cafs.directory / "cafs/ref/tree/d2/f2"
        assert fresh.read_bytes() == b"2"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
