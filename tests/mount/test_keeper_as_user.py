"""Whoever is no administrator can do all of this, in a mount namespace that opens /dev/fuse.

The cases are in ``user_cases.py``; they run as ``nobody``, all on one processor.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NOBODY = 65_534
# The node lies on a file system that nobody else sees; it and the mount end with the namespace.
# Mounts that were there before are let go: the namespace would keep them from ending.
OPEN_FUSE = """\
umount --all --lazy --no-canonicalize --types fuse.cafs || true
mount -t tmpfs -o mode=755 tmpfs "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
shift
exec "$@"
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory of nobody's; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="cafs-user."))
    path.chmod(0o755)
    for name in ("work", "dev"):
        (path / name).mkdir()
    if os.geteuid() == 0:
        os.chown(path / "work", NOBODY, NOBODY)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def as_nobody(directory: Path) -> list[str]:
    """What runs a command as nobody, where everybody may open /dev/fuse."""
    if os.geteuid() != 0:
        return []
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    namespace = ["unshare", "--mount", "--propagation=private"]
    return [*namespace, "sh", "-euc", OPEN_FUSE, "sh", str(directory / "dev"), *user]


@pytest.mark.usefixtures("nobody_enters")
@pytest.mark.timeout(600)
def test_an_ordinary_user_on_one_processor(open_directory: Path) -> None:
    if os.geteuid() != 0 and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is closed to this user")
    cases = Path(__file__).with_name("user_cases.py")
    command = [*as_nobody(open_directory), "taskset", "--cpu-list", "0", sys.executable]
    command += ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(cases)]
    done = subprocess.run(
        [*command, f"--basetemp={open_directory}/work/base"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(open_directory / "work")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
