"""The file system through the kernel: a planted world, mounted by a process of its own.

Tests that only look at it share a mount; what the kernel has of its pages may be from any of them.
"""

import errno
import json
import mmap
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from cafs.fuse.errnos import errno_of
from cafs.model.digest import digest_of
from tests.mount.fuse_world import BIG, FAILURES, MANY, TREE
from tests.mount.kept_world import Kept, keeping

pytestmark = pytest.mark.fuse
ROOT = Path(__file__).parents[2]
PASSES, WALKED = 20, 400
ASKED = ("fuse.read", "fuse.lookup", "fuse.getattr")


@dataclass
class Mounted:
    """A mount, and the process that serves it."""

    path: Path
    process: subprocess.Popen[str]
    log: Path

    @property
    def gcc(self) -> Path:
        return self.path / "ref" / "gcc"

    def counters(self) -> dict[str, int]:
        """The child's counters."""
        found: dict[str, int] = json.loads((self.path / ".cafs" / "status.json").read_text())
        return found

    def line(self) -> str:
        """The next line that the child says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait(self) -> int:
        return self.process.wait(60)

    @property
    def is_mounted(self) -> bool:
        return any(line.split()[1] == str(self.path) for line in mounts())


def mounts() -> list[str]:
    return Path("/proc/mounts").read_text(errors="surrogateescape").splitlines()


@contextmanager
def mounting(tmp_path: Path, *options: str) -> Iterator[Mounted]:
    """Mount in a child; unmount whatever happens."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        if os.environ.get("CI"):
            pytest.fail("/dev/fuse is missing")
        pytest.skip("/dev/fuse is missing")
    path = tmp_path / "mount"
    path.mkdir()
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.mount.fuse_child", path, tmp_path / "store", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    mounted = Mounted(path, process, log)
    try:
        yield mounted
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
        if mounted.is_mounted:
            subprocess.run(["umount", "-l", path], check=True)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Mounted]:
    """A mount that answers, of a worker that mounted by itself."""
    with mounting(tmp_path) as found:
        assert found.line() == "ready", found.log.read_text()
        yield found


@pytest.fixture(scope="module", params=["alone", "kept"])
def mounted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fuse: None
) -> Iterator[Mounted | Kept]:
    """A mount that answers, without and with a keeper: programs see no difference."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "kept":
        with keeping(directory) as kept:
            yield kept
        return
    with mounting(directory) as found:
        assert found.line() == "ready", found.log.read_text()
        yield found


def forget(path: Path) -> None:
    """Let the kernel have no page of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_the_mount_is_what_it_says_it_is(mounted: Mounted | Kept) -> None:
    (line,) = (each for each in mounts() if each.split()[1] == str(mounted.path))
    source, _, kind, options, *_ = line.split()
    assert (source, kind) == ("cafs", "fuse.cafs")
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
    room = os.statvfs(mounted.path)
    assert 0 < room.f_bavail <= room.f_blocks
    assert room.f_namemax == 255


def test_programs_see_the_tree(mounted: Mounted | Kept) -> None:
    assert sorted(os.listdir(mounted.path)) == ["digest", "ref", "tree"]
    found = os.stat(mounted.gcc / "bin" / "cc")
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert (found.st_size, found.st_mtime_ns, found.st_nlink) == (4, 1_600_000_000_123_456_789, 2)
    assert os.stat(mounted.gcc / "bin" / "gcc").st_ino == found.st_ino
    assert (mounted.gcc / "bin" / "c89").readlink() == Path("cc")
    assert (mounted.gcc / "bin" / "c89").read_bytes() == b"#!cc"
    assert (mounted.gcc / "sparse").read_bytes() == TREE[b"sparse"].data
    assert (mounted.gcc / "empty").read_bytes() == b""
    assert stat.S_IMODE(os.stat(mounted.gcc / "su").st_mode) == 0o755
    assert os.stat(mounted.gcc / "big").st_blocks == len(BIG) // 512
    assert sorted(os.listdir(mounted.gcc / "many")) == [f"{n:04}" for n in range(MANY)]


def test_real_tools_agree(mounted: Mounted | Kept, tmp_path: Path) -> None:
    listed = subprocess.run(
        ["ls", "-a", mounted.gcc], capture_output=True, check=True, text=True
    ).stdout.split()
    assert listed == [".", "..", "big", "bin", "empty", "many", "noted", "sparse", "su"]
    found = subprocess.run(
        ["find", mounted.gcc, "-type", "f"], capture_output=True, check=True, text=True
    ).stdout.splitlines()
    assert len(found) == MANY + 7
    summed = subprocess.run(
        ["sha256sum", mounted.gcc / "big"], capture_output=True, check=True, text=True
    ).stdout
    assert summed.startswith(digest_of(BIG).hex)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", mounted.gcc, copy], check=True)
    assert os.listxattr(copy / "noted") == ["user.note"]
    assert os.stat(copy / "bin" / "cc").st_nlink == 2


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_reason_reaches_read_as_its_errno(mounted: Mounted | Kept, name: str) -> None:
    path = mounted.path / "ref" / f"file-{name}"
    with pytest.raises(OSError) as caught:
        path.read_bytes()
    assert caught.value.errno == errno_of(type(FAILURES[name]))
    assert os.getxattr(path, "user.cafs.error") == b"x"


def test_a_ref_that_fails_tells_why(mounted: Mounted | Kept) -> None:
    broken = mounted.path / "ref" / "broken"
    assert broken.is_dir()
    with pytest.raises(OSError) as caught:
        os.listdir(broken)
    assert caught.value.errno == errno.EHOSTUNREACH
    told = os.getxattr(broken, "user.cafs.error")
    assert told == b"GET https://files.example: 503 (wait)"
    assert b"503" in (mounted.path / ".cafs" / "errors.json").read_bytes()


def test_every_write_is_refused(mounted: Mounted | Kept) -> None:
    cc = mounted.gcc / "bin" / "cc"
    attempts: list[Callable[[], object]] = [
        lambda: os.open(cc, os.O_WRONLY),
        lambda: os.open(mounted.gcc / "new", os.O_CREAT | os.O_WRONLY),
        lambda: os.truncate(cc, 0),
        lambda: os.mkdir(mounted.gcc / "new"),
        lambda: os.unlink(cc),
        lambda: os.rename(cc, mounted.gcc / "new"),
        lambda: os.chmod(cc, 0),
        lambda: os.utime(cc),
        lambda: os.symlink("x", mounted.gcc / "new"),
        lambda: os.link(cc, mounted.gcc / "new"),
        lambda: os.setxattr(cc, "user.x", b"x"),
        lambda: os.removexattr(cc, "user.x"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
    assert not os.access(cc, os.W_OK)


def test_a_bug_is_one_eio_and_the_mount_lives_on(mounted: Mounted | Kept) -> None:
    with pytest.raises(OSError) as caught:
        (mounted.path / "ref" / "file-bug").read_bytes()
    assert caught.value.errno == errno.EIO
    assert (mounted.gcc / "bin" / "cc").read_bytes() == b"#!cc"
    assert mounted.counters()["fuse.bugs"] >= 1
    log = mounted.log.read_text()
    assert "Traceback" in log
    assert "ZeroDivisionError: planted" in log


def walk(top: Path) -> int:
    """Stat and read the first files; the bytes of all."""
    total = 0
    for entry in sorted(os.scandir(top), key=lambda each: each.name)[:WALKED]:
        assert entry.stat().st_size == len(Path(entry.path).read_bytes())
        total += entry.stat().st_size
    return total


def test_a_second_pass_does_not_reach_the_worker(mounted: Mounted | Kept) -> None:
    top = mounted.gcc / "many"
    first, asked = walk(top), []
    # The kernel may take back pages and names as it likes: a pass that shows that proves nothing.
    for _ in range(PASSES):
        before = mounted.counters()
        assert walk(top) == first
        after = mounted.counters()
        asked.append([after.get(each, 0) - before.get(each, 0) for each in ASKED])
        # The ref's own name and attributes are asked for again each second.
        if max(asked[-1]) < WALKED // 20:
            return
    raise AssertionError(f"{ASKED}: {asked}")


def test_absent_names_are_remembered(mounted: Mounted | Kept) -> None:
    for _ in range(3):
        assert not (mounted.gcc / "bin" / "nothing").exists()
    before = mounted.counters()["fuse.lookup"]
    for _ in range(100):
        assert not (mounted.gcc / "bin" / "nothing").exists()
    assert mounted.counters()["fuse.lookup"] - before < 50


def test_random_reads_ask_for_little(mounted: Mounted | Kept) -> None:
    random = Random(2)
    forget(mounted.gcc / "big")
    with (mounted.gcc / "big").open("rb", buffering=0) as file:
        before = mounted.counters()
        for _ in range(16):
            offset = random.randrange(4096, len(BIG) - 4096) & ~0xFFF
            assert os.pread(file.fileno(), 4096, offset) == BIG[offset : offset + 4096]
    after = mounted.counters()
    assert 0 < (after["bytes"] - before["bytes"]) / 16 <= 128 * 1024


def test_pages_of_a_mapping_are_the_files(mounted: Mounted | Kept) -> None:
    forget(mounted.gcc / "big")
    with (mounted.gcc / "big").open("rb") as file:
        before = mounted.counters()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[3 << 20] == BIG[3 << 20]
        after = mounted.counters()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == BIG
    # The page cache asks for its read-ahead round the fault; the status adds a page.
    assert 0 < after["bytes"] - before["bytes"] <= 512 << 10


def test_our_attributes_are_readable_and_not_listed(mounted: Mounted | Kept) -> None:
    noted = mounted.gcc / "noted"
    assert os.listxattr(noted) == ["user.note"]
    assert os.getxattr(noted, "user.note") == b"theirs"
    assert os.getxattr(noted, "user.cafs.ref").startswith(b"cimd:archive:v=0:")
    for name in ("user.cafs.error", "security.capability", "trusted.x"):
        with pytest.raises(OSError) as caught:
            os.getxattr(noted, name)
        assert caught.value.errno == errno.ENODATA


def test_control_files_read_whole_though_they_change(mounted: Mounted | Kept) -> None:
    for number in range(1, 21):
        assert not (mounted.gcc / f"nothing{number}").exists()
        text = (mounted.path / ".cafs" / "status.json").read_text()
        assert json.loads(text)["fuse.lookup"] > number
    assert (mounted.path / ".cafs" / "version").read_text() == "1.2.3\n"
    assert sorted(os.listdir(mounted.path / ".cafs")) == [
        "README",
        "errors.json",
        "inflight.json",
        "status.json",
        "version",
    ]


def test_a_signal_ends_and_unmounts(alone: Mounted) -> None:
    alone.process.terminate()
    assert alone.wait() == 0, alone.log.read_text()
    assert alone.line() == "ended"
    assert not alone.is_mounted
    assert os.listdir(alone.path) == []


def test_a_reader_that_waits_does_not_keep_the_mount(alone: Mounted) -> None:
    reader = subprocess.Popen(
        ["cat", alone.path / "ref" / "file-stuck"], stderr=subprocess.PIPE, text=True
    )
    while not alone.counters()["stuck"]:
        assert reader.poll() is None
    assert (alone.gcc / "bin" / "cc").read_bytes() == b"#!cc"
    alone.process.terminate()
    assert alone.wait() == 0, alone.log.read_text()
    assert not alone.is_mounted
    _, said = reader.communicate(timeout=60)
    assert reader.returncode != 0
    assert said


def test_unmounting_from_outside_ends_the_worker(alone: Mounted) -> None:
    subprocess.run(["fusermount3", "-u", alone.path], check=True)
    assert alone.wait() == 0, alone.log.read_text()
    assert alone.line() == "ended"


def test_a_second_session_in_a_process_is_refused(tmp_path: Path) -> None:
    with mounting(tmp_path, "--twice") as found:
        assert "serves a mount already" in found.line()
        assert found.line() == "ready"
        assert (found.gcc / "bin" / "cc").read_bytes() == b"#!cc"


def test_a_dead_mount_in_the_way_is_named(tmp_path: Path) -> None:
    with mounting(tmp_path) as found:
        assert found.line() == "ready"
        found.process.send_signal(signal.SIGKILL)
        found.wait()
        with pytest.raises(OSError) as caught:
            os.stat(found.path)
        assert caught.value.errno == errno.ENOTCONN
        again = subprocess.run(
            [sys.executable, "-m", "tests.mount.fuse_child", found.path, tmp_path / "store"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode != 0
        assert "MountError" in again.stderr
        assert f"fusermount3 -u {found.path}" in again.stderr or "not connected" in again.stderr


def test_mounting_on_nothing_is_refused(tmp_path: Path) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "tests.mount.fuse_child", tmp_path / "none", tmp_path / "store"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode != 0
    assert "no such directory" in again.stderr
