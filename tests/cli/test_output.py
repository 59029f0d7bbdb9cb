"""What a person sees on the terminal and at the ends of pipes, and what it exits with."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cafs.model.digest import digest_of
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.faults import Rate
from cafs.testing.origin import Origin
from tests.cli.test_run_signals import has_worker, hold_workers_back, until
from tests.conftest import Cafs

MIB = 1 << 20
BUSY = 2_000_000.0
"""Bytes a second that leave time to look."""


def test_wrong_words_have_the_form_of_every_failure(cafs: Cafs) -> None:
    for arguments, words in (
        (("mout",), ("there is no verb 'mout'", "'mount'", "cafs --help")),
        (("status", "--jsn"), ("--jsn", "--json", "cafs status --help")),
        (("mount", "a", "b"), ("(b)", "cafs mount --help")),
    ):
        done = cafs.run(*arguments, check=False)
        assert done.returncode == 2
        first, second = done.stderr.splitlines()
        assert first.startswith("error: ")
        assert second.startswith("hint: ")
        for word in words:
            assert word in done.stderr


def test_what_is_logged_of_fetching_is_not_told_beside_the_error(
    cafs: Cafs, origin: Origin
) -> None:
    data = Generated(3 * MIB, seed=5).read(0, 3 * MIB)
    url = origin.put("/model.bin", data)
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    cafs.run("lock")
    shutil.rmtree(cafs.store)
    origin.put("/model.bin", data[:-1] + bytes([data[-1] ^ 1]))
    done = cafs.run("cat", "ref/model", check=False)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: model: bytes {2 * MIB}-{3 * MIB - 1} of the file are sha256:")
    assert second.startswith("hint: ")
    # Nor is it that nobody has the index: then it is read whole, and that is all.
    shutil.rmtree(cafs.directory / "cafs.lock.d")
    shutil.rmtree(cafs.store)
    origin.put("/model.bin", data)
    assert cafs.run("cat", "ref/model").stderr == ""


def test_what_is_logged_is_told_once_and_at_the_end(cafs: Cafs, origin: Origin) -> None:
    data, wrong = (Generated(MIB, seed=each).read(0, MIB) for each in (5, 6))
    good, bad = origin.put("/model.bin", data), origin.put("/wrong.bin", wrong)
    refs = f'integrity="{digest_of(data)}"\nfrom="{bad}"\nmirrors=["{good}"]\n'
    cafs.project(f"[ref.model]\n{refs}")
    done = cafs.run("prefetch")
    assert done.stdout == "model: 1.0 MiB of 1.0 MiB local\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: fetch.mirror.wrong host=")
    shutil.rmtree(cafs.store)
    assert cafs.run("prefetch", "--quiet").stderr == ""


def test_inspect_tells_what_is_wrong_with_an_index_after_what_it_has_found(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", Generated(3 * MIB, seed=5))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    cafs.run("lock")
    shutil.rmtree(cafs.store)
    for index in (cafs.directory / "cafs.lock.d").glob("*.idx"):
        index.write_bytes(b"no index")
    done = cafs.run("inspect", "model")
    assert "not lazy: " in done.stdout
    told = done.stderr.splitlines()
    assert told[0].startswith("warning: model: index sha256:")
    assert "cafs lock model makes it anew" in told[0]
    assert len(set(told)) == len(told)
    origin.stop()
    (cafs.directory / "cafs.lock").unlink()
    done = cafs.run("inspect", "model", "--deadline", "1s", check=False)
    assert done.returncode == 5
    assert all(line.startswith(("error: ", "hint: ")) for line in done.stderr.splitlines())


@pytest.mark.parametrize("verb", [("ls", "tree"), ("cat", "tree/file"), ("status",), ("resolve",)])
def test_output_that_cannot_be_written_is_7_and_no_bug(
    cafs: Cafs, origin: Origin, verb: tuple[str, ...]
) -> None:
    url = origin.put("/tree.tar", tar_bytes({"file": (0o644, b"text")}))
    cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cafs", *verb],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cafs.directory,
            env=cafs.environment,
            check=False,
        )
    assert done.returncode == 7
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"])
def test_who_closes_standard_error_too_is_told_by_the_exit_code(
    cafs: Cafs, origin: Origin, closed: str
) -> None:
    """Nothing is written into the files that would have those numbers then."""
    url = origin.put("/model.bin", Generated(MIB, seed=7))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    cafs.run("prefetch")
    for words, code in (("rm nothing", 3), ("verify --quiet", 0), ("verify --sample 0", 2)):
        command = f"exec {sys.executable} -m cafs {words} {closed}"
        done = subprocess.run(
            ["sh", "-c", command], cwd=cafs.directory, env=cafs.environment, check=False
        )
        assert done.returncode == code, words
    assert cafs.run("verify").stdout == "1.0 MiB in 1 item verified: nothing is wrong\n"


def test_a_file_of_the_store_that_may_not_be_read_is_named_and_no_bug(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", Generated(MIB, seed=8))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    cafs.run("prefetch")
    index = Path(json.loads(cafs.run("status", "--json").stdout)["store"]) / "index"
    index.chmod(0)
    bound = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    for verb in ("verify", "du"):
        done = subprocess.run(
            [*(bound if os.geteuid() == 0 else ()), sys.executable, "-P", "-m", "cafs", verb],
            cwd=cafs.directory,
            env=cafs.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7
        assert str(index) in done.stderr
        assert "Permission denied" in done.stderr
        assert "Traceback" not in done.stderr
    index.chmod(0o700)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_told_to_end_leaves_things_as_they_were(
    cafs: Cafs, origin: Origin, number: int
) -> None:
    url = origin.put("/model.bin", Generated(MIB, seed=7))
    origin.fault("/model.bin", Rate(bytes_per_s=20_000.0))
    before = '# a project\n[mount]\npath = "cafs"\n'
    cafs.project(before)
    runtime = Path(cafs.environment["XDG_RUNTIME_DIR"]) / "cafs"
    for verb in (("add", "model", url), ("prefetch", url)):
        sent = origin.bytes_sent("/model.bin")
        process = cafs.popen(*verb)
        until = time.monotonic() + 60
        while origin.bytes_sent("/model.bin") == sent:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err.strip()) == (128 + number, "", "")
        assert (cafs.directory / "cafs.toml").read_text() == before
        assert not list(runtime.glob("*.fetches"))


def test_a_reader_that_goes_ends_it_as_it_ends_a_filter(cafs: Cafs, origin: Origin) -> None:
    names = {f"name-{number:05}": (0o644, b"") for number in range(20_000)}
    url = origin.put("/tree.tar", tar_bytes(names))
    cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    listing = cafs.popen("ls", "tree")
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr.read() == ""
    listing.stderr.close()
    assert listing.wait() == 0


def test_prefetch_goes_on_when_nobody_reads_its_progress(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(3 * MIB, seed=5))
    origin.fault("/model.bin", Rate(bytes_per_s=BUSY))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    fetching = cafs.popen("prefetch", "--json")
    assert fetching.stdout is not None
    assert fetching.stderr is not None
    fetching.stdout.readline()
    fetching.stdout.close()
    assert fetching.stderr.read() == ""
    fetching.stderr.close()
    assert fetching.wait() == 0
    facts = json.loads(cafs.run("status", "--json").stdout)
    assert facts["refs"][0]["present"] == 3 * MIB


def test_ctrl_c_is_130_and_says_nothing(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(64 * MIB, seed=6))
    origin.fault("/model.bin", Rate(bytes_per_s=BUSY))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    fetching = cafs.popen("prefetch", "--json")
    assert fetching.stdout is not None
    while not json.loads(fetching.stdout.readline())["downloaded"]:
        pass
    fetching.send_signal(signal.SIGINT)
    _, said = fetching.communicate()
    assert fetching.returncode == 130
    assert said.strip() == ""


def test_prefetch_fetches_the_others_when_one_fails(cafs: Cafs, origin: Origin) -> None:
    good = origin.put("/good.bin", b"good")
    gone = good.replace("good", "gone")
    cafs.project(f'[ref.a]\nfrom="{gone}"\n[ref.b]\nfrom="{good}"\n')
    done = cafs.run("prefetch", check=False)
    assert done.returncode == 3
    assert "404" in done.stderr
    assert done.stdout == "b: 4 B of 4 B local\n"


def on_a_terminal(cafs: Cafs, *arguments: str, **environment: str) -> str:
    """What a command prints when all of its descriptors are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cafs", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cafs.directory,
        env={**cafs.environment, "COLUMNS": "100", **environment},
    )
    os.close(theirs)
    pieces: list[bytes] = []
    with suppress(OSError):  # Linux: EIO when the last writer has gone
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    os.close(ours)
    assert process.wait() == 0
    return b"".join(pieces).decode()


def test_prefetch_draws_a_bar_with_bytes_and_rate_on_a_terminal(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(3 * MIB, seed=7))
    origin.fault("/model.bin", Rate(bytes_per_s=BUSY))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    shown = on_a_terminal(cafs, "prefetch", TERM="xterm")
    assert "3.0/3.0 MiB" in shown
    assert "MiB/s" in shown


def test_lock_says_what_it_locked_when_its_bars_are_gone(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(MIB, seed=7))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    shown = on_a_terminal(cafs, "lock", TERM="xterm")
    assert "1.0/1.0 MiB" in shown
    assert re.search(r"model: locked sha256:\w+… \(1\.0 MiB\)\r\n\Z", shown)
    shown = on_a_terminal(cafs, "lock", TERM="dumb")
    assert re.fullmatch(r"model: unchanged sha256:\w+… \(1\.0 MiB\)\r\n", shown)


def test_a_dumb_terminal_gets_lines(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(MIB, seed=8))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    shown = on_a_terminal(cafs, "prefetch", TERM="dumb")
    assert shown == "model: 1.0 MiB of 1.0 MiB local\r\n"


def test_a_mount_that_is_refused_leaves_the_log_of_the_live_one(
    fuse: None, cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", b"model")
    with cafs.mount(f'[ref.model]\nfrom="{url}"\n') as mount:
        before = mount.log()
        assert "serves" in before
        assert cafs.run("mount", check=False).returncode == 8
        assert mount.log().startswith(before)
        assert [path.name for path in mount.log_file.parent.iterdir()] == [mount.log_file.name]


def test_a_worker_that_crashes_shows_its_last_lines_and_leaves_nothing(
    fuse: None, cafs: Cafs
) -> None:
    cafs.project('[mount]\npath = "cafs"\n')
    hostile = cafs.directory / "hostile"
    hostile.mkdir()
    script = "import os, sys\nif 'worker' in sys.orig_argv:\n"
    script += "    print('out of luck', file=sys.stderr, flush=True)\n    os._exit(9)\n"
    (hostile / "sitecustomize.py").write_text(script)
    cafs.environment["PYTHONPATH"] = str(hostile)
    done = cafs.run("mount", check=False)
    assert done.returncode == 8
    assert "out of luck" in done.stderr
    assert "ended with 9 before the mount was ready" in done.stderr
    assert not os.path.ismount(cafs.directory / "cafs")
    assert logs_of(cafs) == []


def test_what_a_killed_command_had_logged_is_removed_by_the_next(fuse: None, cafs: Cafs) -> None:
    cafs.project('[mount]\npath = "cafs"\n')
    goes_on = hold_workers_back(cafs)
    killed = cafs.popen("mount")
    while not logs_of(cafs):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    goes_on.touch()
    killed.communicate()
    until(lambda: not has_worker(cafs))
    with cafs.mount() as mount:
        assert logs_of(cafs) == [mount.log_file.name]


def logs_of(cafs: Cafs) -> list[str]:
    directory = Path(cafs.environment["XDG_STATE_HOME"], "cafs")
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_unmounting_from_inside_says_where_one_stands(
    fuse: None, cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", b"model")
    with cafs.mount(f'[ref.model]\nfrom="{url}"\n') as mount:
        done = subprocess.run(
            [sys.executable, "-m", "cafs", "unmount", str(mount.path)],
            cwd=mount.path / "ref",
            env=cafs.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 8
        assert "working directory is in" in done.stderr
