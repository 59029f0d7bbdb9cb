"""What commands make of paths and names, and of there being none."""

import hashlib
import json
import os
import select
import signal
import subprocess
import sys

import pytest

from cafs.testing.archives import symlink, tar, tar_bytes
from cafs.testing.origin import Origin
from tests.conftest import Cafs


def test_without_a_project_every_verb_says_that_there_is_none(cafs: Cafs) -> None:
    verbs = (("mount",), ("unmount",), ("reload",), ("prefetch",), ("resolve",))
    for arguments in (*verbs, ("run", "--", "true")):
        done = cafs.run(*arguments, check=False)
        assert done.returncode == 2, arguments
        assert "there is no cafs.toml" in done.stderr, arguments
    assert "nothing is mounted" in cafs.run("status").stdout


def test_a_project_without_refs_is_named(cafs: Cafs) -> None:
    file = cafs.project("[mount]\n")
    for verb in ("mount", "prefetch"):
        done = cafs.run(verb, check=False)
        assert done.returncode == 2
        assert str(file) in done.stderr


def test_a_name_that_is_nearly_right_is_named(cafs: Cafs) -> None:
    cafs.project('[ref.toolchain]\nfrom="https://example.com/toolchain.tar"\n')
    for verb in ("ls", "cat"):
        done = cafs.run(verb, "tolchain/bin", check=False)
        assert done.returncode == 3
        assert "did you mean 'toolchain'?" in done.stderr


def test_a_view_hides_nothing_from_who_looks_without_a_mount(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/tree.tar", tar_bytes({"sub/file": (0o644, b"text")}))
    cafs.project(f'[mount]\nview="ref/tree/sub"\n[ref.tree]\nfrom="{url}"\n')
    assert cafs.run("ls", "tree").stdout == "sub\n"
    assert cafs.run("cat", "ref/tree/sub/file").stdout == "text"
    assert cafs.run("ls").stdout.split() == ["digest", "ref", "tree"]


def test_ls_tells_where_symlinks_lead(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/tree.tar", tar([symlink("cc", "gcc-13")]))
    cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    assert cafs.run("ls", "-l", "tree").stdout.endswith(" cc -> gcc-13\n")
    facts = json.loads(cafs.run("ls", "--json", "tree").stdout)
    assert (facts["kind"], facts["target"]) == ("symlink", "gcc-13")


def test_status_says_why_refs_failed_below_the_table(
    fuse: None, cafs: Cafs, origin: Origin
) -> None:
    gone = origin.put("/there.tar", b"").replace("there", "a-rather-long-name-that-is-not-there")
    with cafs.mount(f'[ref.gone]\nfrom="{gone}"\n') as mount:
        assert cafs.run("status", mount.path).stdout.count("gone") == 1
        for name in ("x", "x", "y"):
            assert not (mount.ref("gone") / name).exists()
        lines = cafs.run("status").stdout.splitlines()
        assert [line.split() for line in lines if line.startswith("gone ")] == [
            ["gone", "-", "?", "failed", gone]
        ]
        (failure,) = [line for line in lines if line.startswith("failed ref/gone: ")]
        assert failure.endswith("404 Not Found")


def test_status_finds_a_mount_through_a_symlink(fuse: None, cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", b"model")
    with cafs.mount(f'[ref.model]\nfrom="{url}"\n') as mount:
        link = cafs.directory / "link"
        link.symlink_to(mount.path)
        assert json.loads(cafs.run("status", "--json", link).stdout)["pid"] == mount.worker


def test_a_digest_is_found_wherever_a_ref_may_be_written(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", b"model")
    digest = f"sha256:{hashlib.sha256(b'model').hexdigest()}"
    cafs.project(f'[ref.model]\nfrom="{url}"\nintegrity="{digest}"\n')
    assert cafs.run("cat", "model").stdout == "model"
    assert cafs.run("cat", digest).stdout == "model"
    assert digest in cafs.run("resolve", digest).stdout
    assert json.loads(cafs.run("resolve", "--json", digest).stdout)["digest"] == digest


@pytest.mark.parametrize(
    ("keeping", "who"), [((), "keeper"), (("--no-keeper",), "worker")], ids=["keeper", "no keeper"]
)
def test_status_names_who_held_a_mount_and_died(
    fuse: None, cafs: Cafs, origin: Origin, keeping: tuple[str, ...], who: str
) -> None:
    cafs.project(f'[mount]\npath="cafs"\n[ref.model]\nfrom="{origin.put("/model.bin", b"")}"\n')
    pid = json.loads(cafs.run("mount", "--json", *keeping).stdout)["pid"]
    try:
        process = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([process], [], [], 10)[0]
        os.close(process)
        done = cafs.run("status", check=False)
        assert done.returncode == 8
        assert f"whose {who} (pid {pid}) has died" in done.stderr
        assert "cafs unmount" in done.stderr
    finally:
        cafs.run("unmount")
    assert "not mounted" in cafs.run("status").stdout


def test_status_of_a_mount_whose_holder_is_stopped_is_an_error_and_not_a_hang(
    fuse: None, cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", b"model")
    cafs.environment["PYTHONSAFEPATH"] = "1"  # else Python looks for itself in ./cafs, the mount
    with (
        cafs.mount(f'[ref.model]\nfrom="{url}"\n') as kept,
        cafs.mount(None, "second", "--no-keeper") as unkept,
    ):
        holders = kept.pid, unkept.pid
        try:
            for pid in holders:
                os.kill(pid, signal.SIGSTOP)
            # Each waits for seconds, so both at once.
            asked = [cafs.popen("status", mount.path) for mount in (kept, unkept)]
            said = [each.communicate(timeout=60)[1] for each in asked]
        finally:
            for pid in holders:
                os.kill(pid, signal.SIGCONT)
        for process, told in zip(asked, said, strict=True):
            assert process.returncode == 8, told
            assert "does not answer" in told


def test_a_file_is_no_mount_point(fuse: None, cafs: Cafs) -> None:
    file = cafs.directory / "file"
    file.write_text("")
    done = cafs.run("mount", file, check=False)
    assert done.returncode == 8
    assert "is no directory" in done.stderr


def test_a_clone_brings_no_code_that_a_worker_runs(fuse: None, cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", b"model")
    cafs.project(f'[mount]\npath="here"\n[ref.model]\nfrom="{url}"\n')
    for name in ("trio", "msgspec", "click", "cafs"):
        (cafs.directory / f"{name}.py").write_text("open('ran', 'w')\n")
    command = [sys.executable, "-P", "-m", "cafs", "run", "--", "cat", "here/ref/model"]
    done = subprocess.run(
        command, cwd=cafs.directory, env=cafs.environment, capture_output=True, check=False
    )
    assert (done.stdout, done.stderr) == (b"model", b"")
    assert not (cafs.directory / "ran").exists()
