"""Programs run out of what is mounted: an image, a tar.gz, a wheel."""

import hashlib
import os
import subprocess
import sys

import pytest

from cafs.testing.archives import tar_bytes, wheel_bytes
from cafs.testing.origin import Origin
from tests.conftest import Cafs, Registry

pytestmark = pytest.mark.fuse


def test_a_script_runs_out_of_a_tar_gz(cafs: Cafs, origin: Origin) -> None:
    script = b"#!/bin/sh\necho hello from $(basename $0) with $1\n"
    archive = tar_bytes({"tool/bin/hello": (0o755, script)}, compression="gz")
    pin = hashlib.sha256(archive).hexdigest()
    url = origin.put("/tool.tar.gz", archive)
    toml = f'[mount]\npath="cafs"\n[ref.tool]\nfrom="{url}"\nintegrity="sha256:{pin}"\n'
    with cafs.mount(toml) as mounted:
        hello = mounted.path / "ref/tool/tool/bin/hello"
        done = subprocess.run([hello, "love"], capture_output=True, text=True, check=True)
        assert done.stdout == "hello from hello with love\n"
        assert (mounted.path / "digest/sha256" / pin).read_bytes() == archive
        assert (mounted.path / "tree/sha256" / pin / "tool/bin/hello").read_bytes() == script


def test_a_module_is_imported_out_of_a_wheel(cafs: Cafs, origin: Origin) -> None:
    wheel = wheel_bytes(
        "greeting",
        {
            "greeting/__init__.py": b"from greeting.words import WORD\n",
            "greeting/words.py": b"WORD = 'hello'\n",
        },
    )
    url = origin.put("/greeting-1.0-py3-none-any.whl", wheel)
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.greeting]\nfrom="{url}"\n') as mounted:
        done = subprocess.run(
            [sys.executable, "-c", "import greeting; print(greeting.WORD, greeting.__file__)"],
            env={**os.environ, "PYTHONPATH": str(mounted.path / "ref/greeting")},
            capture_output=True,
            text=True,
            check=True,
        )
        word, file = done.stdout.split()
        assert word == "hello"
        assert file.startswith(str(mounted.path))


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_busybox_runs_in_a_mounted_image(
    cafs: Cafs, registry: Registry, busybox_image: str
) -> None:
    place = f"ref/docker/127.0.0.1+{registry.port}/{busybox_image}@latest"
    toml = f'[mount]\npath="cafs"\n[ref.base]\nfrom="docker://127.0.0.1:{registry.port}/{busybox_image}"\n'
    with cafs.mount(toml) as mounted:
        for root in (mounted.path / place, mounted.path / "ref/base"):
            done = subprocess.run(
                ["/usr/sbin/chroot", root, "/bin/busybox", "sh", "-c", "echo $0 runs; ls /"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "runs" in done.stdout
            assert "bin" in done.stdout.split()
        spelled = mounted.path / f"ref/docker/127.0.0.1:{registry.port}/{busybox_image}:latest"
        assert spelled.resolve() == (mounted.path / place).resolve()


def test_run_mounts_runs_and_unmounts(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/words.txt", b"one two three\n")
    cafs.project(f'[mount]\npath="cafs"\n[ref.words]\nfrom="{url}"\n')
    done = cafs.run("run", "--", "sh", "-c", "cat $CAFS_MOUNT/ref/words; exit 7", check=False)
    assert done.stdout == "one two three\n"
    assert done.returncode == 7
    assert not os.path.ismount(cafs.directory / "cafs")


def test_run_says_that_a_command_is_missing(cafs: Cafs) -> None:
    cafs.project('[mount]\npath="cafs"\n')
    done = cafs.run("run", "--", "no-such-command-anywhere", check=False)
    assert done.returncode == 127
    assert "no-such-command-anywhere" in done.stderr
