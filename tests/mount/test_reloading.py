"""``cafs reload``: another worker, and nobody who reads notices."""

import json
import os
import select
import signal
import threading
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

EMPTY = '[mount]\npath="cafs"\n'


def test_a_reload_brings_another_worker_and_keeps_the_mount(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        former, inode = mounted.worker, os.stat(mounted.path / "ref").st_ino
        said = cafs.run("reload").stdout
        later = mounted.worker
        assert later not in {0, former}
        assert said == f"cafs: reloaded {mounted.path} (worker {later})\n"
        facts = json.loads(cafs.run("reload", "--json", mounted.path).stdout)
        assert facts == {"mount_point": str(mounted.path), "worker": mounted.worker}
        assert facts["worker"] != later
        assert os.stat(mounted.path / "ref").st_ino == inode
        told = json.loads(cafs.run("status", "--json").stdout)
        assert told["keeper"]["workers"] == 3
        assert told["keeper"]["pid"] == mounted.pid


def test_readers_read_on(cafs: Cafs, origin: Origin) -> None:
    files = {f"d{i % 7}/f{i}": (0o644, b"%d" % i) for i in range(500)}
    url = origin.put("/tree.tar", tar_bytes(files))
    failures: list[str] = []
    stop = threading.Event()

    def read(tree: Path) -> None:
        while not stop.is_set():
            for path, (_, content) in files.items():
                try:
                    if (tree / path).read_bytes() != content:
                        failures.append(f"{path}: wrong")
                except OSError as error:
                    failures.append(f"{path}: {error}")

    with cafs.mount(f'{EMPTY}[ref.tree]\nfrom="{url}"\n') as mounted:
        reader = threading.Thread(target=read, args=(mounted.ref("tree"),))
        reader.start()
        try:
            for _ in range(3):
                cafs.run("reload")
        finally:
            stop.set()
            reader.join()
    assert failures == []


def test_the_new_worker_has_the_new_settings(cafs: Cafs, origin: Origin) -> None:
    one = origin.put("/one", b"one")
    two = origin.put("/two", b"two")
    with cafs.mount(f'{EMPTY}[ref.one]\nfrom="{one}"\n') as mounted:
        assert mounted.ref("one").read_bytes() == b"one"
        assert not mounted.ref("two").exists()
        cafs.project(f'{EMPTY}[ref.one]\nfrom="{one}"\n[ref.two]\nfrom="{two}"\n')
        cafs.run("reload")
        assert mounted.ref("two").read_bytes() == b"two"
        assert mounted.ref("one").read_bytes() == b"one"
        assert "two" in os.listdir(mounted.path / "ref")


def test_store_and_view_stay_what_they_were(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/tree.tar", tar_bytes({"sub/file": (0o644, b"text")}))
    ref = f'[ref.tree]\nfrom="{url}"\n'
    with cafs.mount(f'[mount]\npath="cafs"\nview="ref/tree"\n{ref}') as mounted:
        assert os.listdir(mounted.path) == ["sub"]
        cafs.project(f'[mount]\npath="cafs"\nview="ref/tree/sub"\n{ref}')
        config = Path(cafs.environment["XDG_CONFIG_HOME"], "cafs", "config.toml")
        config.parent.mkdir()
        config.write_text(f'[store]\npath="{cafs.directory / "other"}"\n')
        cafs.run("reload")
        assert os.listdir(mounted.path) == ["sub"]
        assert (mounted.path / "sub/file").read_bytes() == b"text"
        told = json.loads(cafs.run("status", "--json").stdout)
        assert (told["view"], told["store"]) == ("ref/tree", str(cafs.store))
    assert not (cafs.directory / "other").exists()


def test_broken_settings_are_named_and_the_old_worker_serves_on(cafs: Cafs) -> None:
    cafs.expect_log("worker|form")
    with cafs.mount(EMPTY) as mounted:
        former = mounted.worker
        cafs.project(f'{EMPTY}[ref.model]\nform="https://example.com/x"\n')
        # The command itself reads no refs: it is the new worker that says what is wrong.
        other = cafs.directory / "elsewhere.toml"
        other.write_text("")
        done = cafs.run("reload", "--config", other, mounted.path, check=False)
        assert done.returncode == 2
        for words in ("cafs.toml", "ref.model.form", "from"):
            assert words in done.stderr
        assert f"{mounted.path} gets no new worker, the old worker serves on" in done.stderr
        assert done.stdout == ""
        assert mounted.worker == former
        assert "ref" in os.listdir(mounted.path)
        cafs.project(EMPTY)
        cafs.run("reload")
        assert mounted.worker != former


def test_a_worker_that_dies_without_a_word_is_the_keepers_to_tell(
    cafs: Cafs, tmp_path: Path
) -> None:
    cafs.expect_log("worker")
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    cafs.environment["PYTHONPATH"] = str(hostile)
    with cafs.mount(EMPTY) as mounted:
        former = mounted.worker
        del cafs.environment["PYTHONPATH"]
        (hostile / "sitecustomize.py").write_text("import os\nos._exit(9)\n")
        done = cafs.run("reload", check=False)
        assert done.returncode == 8
        assert "exited with code 9" in done.stderr
        assert str(mounted.log_file) in done.stderr
        assert mounted.worker == former


def test_a_download_goes_on_where_it_was(cafs: Cafs, origin: Origin) -> None:
    body = Generated(8 << 20, seed=1)
    url = origin.put("/model.bin", body)
    with cafs.mount(f'{EMPTY}[ref.model]\nfrom="{url}"\n') as mounted:
        first = mounted.ref("model").read_bytes()
        sent = origin.bytes_sent()
        cafs.run("reload")
        with mounted.ref("model").open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert mounted.ref("model").read_bytes() == first
        assert origin.bytes_sent() == sent


def test_without_a_keeper_there_is_nothing_to_reload(cafs: Cafs) -> None:
    with cafs.mount(EMPTY, "--no-keeper") as mounted:
        done = cafs.run("reload", check=False)
        assert done.returncode == 8
        assert "has no keeper" in done.stderr
        assert "--no-keeper" in done.stderr
        assert "ref" in os.listdir(mounted.path)


def test_what_is_not_mounted_is_not_reloaded(cafs: Cafs) -> None:
    cafs.project(EMPTY)
    done = cafs.run("reload", check=False)
    assert done.returncode == 8
    assert "no cafs is mounted" in done.stderr


def test_a_dead_keeper_is_named(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        process = os.pidfd_open(mounted.pid)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], 60)[0]
        os.close(process)
        done = cafs.run("reload", check=False)
        assert done.returncode == 8
        assert f"pid {mounted.pid}" in done.stderr
        assert "cafs mount" in done.stderr
        cafs.run("unmount")
