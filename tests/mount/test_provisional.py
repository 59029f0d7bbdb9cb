"""What programs see of content that is checked behind them: bytes at once, none wrong twice."""

import errno
import hashlib
import mmap
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cafs.testing.archives import file, zip_archive
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import Corrupt, StallBeyond
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SIZE = 12 * MIB
FRONT = 4 * MIB
BODY = Generated(SIZE, seed=11)
PATH = "/model.bin"
WRONG = MIB + 5
PIECE = 64 << 10
WARNINGS = "fetch.disowned|fetch.provisional|fetch.mirror"


def until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    limit = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def project(origin: Origin, more: str = "") -> str:
    url, digest = origin.put(PATH, BODY), BODY.sha256()
    plain = f'from = "blob+{url}"\nintegrity = "sha256:{digest}"\n'
    return f'[ref.model]\n{plain}verify = "provisional"\n[ref.strict]\n{plain}{more}'


def read_at(path: Path, offset: int, length: int = PIECE) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def error_of(read: Callable[[], object]) -> int | None:
    try:
        read()
    except OSError as error:
        return error.errno
    return None


def trust(path: Path) -> str:
    return os.getxattr(path, "user.cafs.trust").decode()


def checksum(path: Path) -> bytes:
    return os.getxattr(path, "user.checksum.sha256")


def failure(mounted: Mount) -> str:
    """What the status says of the ref."""
    (error,) = [each["error"] for each in mounted.status()["refs"] if each["name"] == "model"]
    return error or ""


@contextmanager
def spoiled(origin: Origin) -> Iterator[None]:
    """A wrong byte, behind which no more comes before the block has ended."""
    origin.fault(PATH, Corrupt(at=WRONG), StallBeyond(at=FRONT))
    yield
    origin.heal(PATH)
    origin.fault(PATH, Corrupt(at=WRONG))


def test_bytes_come_before_the_whole_and_become_verified(cafs: Cafs, origin: Origin) -> None:
    with cafs.mount(project(origin)) as mounted:
        origin.fault(PATH, StallBeyond(at=FRONT))
        model = mounted.ref("model")
        assert read_at(model, MIB) == BODY.read(MIB, PIECE)
        assert trust(model) == "provisional"
        assert error_of(lambda: checksum(model)) == errno.ENODATA
        assert os.listdir(mounted.path / "digest/sha256") == []
        assert os.listdir(mounted.path / "tree/sha256") == []
        origin.heal(PATH)
        origin.release()
        until(lambda: trust(model) == "verified")
        assert checksum(model).hex() == BODY.sha256()
        until(lambda: os.listdir(mounted.path / "digest/sha256") == [BODY.sha256()])
        assert model.read_bytes() == BODY.read(0, SIZE)


def test_what_wants_it_checked_reads_nothing_of_what_was_wrong(cafs: Cafs, origin: Origin) -> None:
    cafs.expect_log(WARNINGS)
    with cafs.mount(project(origin)) as mounted:
        with spoiled(origin):
            assert read_at(mounted.ref("model"), MIB) != BODY.read(MIB, PIECE)
        strict = mounted.ref("strict")
        assert error_of(strict.read_bytes) == errno.EBADMSG
        by_digest = mounted.path / "digest/sha256" / BODY.sha256()
        assert error_of(by_digest.read_bytes) in {errno.EBADMSG, errno.ENOENT}
        origin.heal(PATH)


def test_after_a_wrong_byte_all_reads_fail_and_the_kernel_has_nothing_of_it(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.expect_log(WARNINGS)
    with cafs.mount(project(origin)) as mounted:
        origin.fault(PATH, Corrupt(at=WRONG), StallBeyond(at=FRONT))
        model = mounted.ref("model")
        with (
            model.open("rb", buffering=0) as opened,
            mmap.mmap(opened.fileno(), FRONT, prot=mmap.PROT_READ) as mapped,
        ):
            assert os.pread(opened.fileno(), PIECE, MIB) != BODY.read(MIB, PIECE)
            assert mapped[WRONG] != BODY.read(WRONG, 1)[0]
            origin.heal(PATH)
            origin.fault(PATH, Corrupt(at=WRONG))
            origin.release()
            until(lambda: "serving.pages.dropped" in mounted.log())
            until(lambda: error_of(lambda: os.pread(opened.fileno(), 1, MIB)) == errno.EBADMSG)
            assert error_of(lambda: os.pread(opened.fileno(), PIECE, 0)) == errno.EBADMSG
            assert error_of(lambda: read_at(model, MIB)) == errno.EBADMSG
            assert faults(model)
        line = os.getxattr(model, "user.cafs.error").decode()
        assert f"expected sha256:{BODY.sha256()}, got sha256:" in line
        assert "what was read of it before is wrong" in line
        assert failure(mounted) == line
        assert "ERROR cafs.fetch: fetch.disowned" in mounted.log()
        origin.heal(PATH)
        # That its source is right by now does not make good what was read.
        assert error_of(model.read_bytes) == errno.EBADMSG


def faults(path: Path) -> bool:
    """Whether a program that reads a byte of a mapped file is killed by SIGBUS."""
    program = (
        "import mmap, sys; file = open(sys.argv[1], 'rb'); "
        f"print(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[{WRONG}])"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=False)
    return done.returncode == -signal.SIGBUS


def test_the_worker_that_takes_over_checks_what_the_one_before_handed_out(
    cafs: Cafs, origin: Origin
) -> None:
    cafs.expect_log(WARNINGS + "|worker")
    with cafs.mount(project(origin)) as mounted:
        origin.fault(PATH, Corrupt(at=WRONG), StallBeyond(at=FRONT))
        model = mounted.ref("model")
        with model.open("rb", buffering=0) as opened:
            assert os.pread(opened.fileno(), PIECE, MIB) != BODY.read(MIB, PIECE)
            former = mounted.worker
            os.kill(former, signal.SIGKILL)
            origin.heal(PATH)
            origin.fault(PATH, Corrupt(at=WRONG))
            origin.release()
            until(lambda: mounted.worker not in {0, former})
            until(lambda: "fetch.disowned" in mounted.log())
            until(lambda: error_of(lambda: os.pread(opened.fileno(), 1, MIB)) == errno.EBADMSG)
            # And the next one knows what this one has found.
            origin.heal(PATH)
            second = mounted.worker
            os.kill(second, signal.SIGKILL)
            until(lambda: mounted.worker not in {0, second})
            assert error_of(lambda: os.pread(opened.fileno(), 1, MIB)) == errno.EBADMSG


def test_a_reload_lets_it_be_read_again_once_it_is_right(cafs: Cafs, origin: Origin) -> None:
    cafs.expect_log(WARNINGS)
    with cafs.mount(project(origin)) as mounted:
        model = mounted.ref("model")
        with spoiled(origin):
            read_at(model, MIB)
        until(lambda: error_of(lambda: read_at(model, 0)) == errno.EBADMSG)
        # Wrong still: then nothing is read, not even for a moment.
        cafs.run("reload")
        assert error_of(lambda: read_at(model, MIB)) == errno.EBADMSG
        origin.heal(PATH)
        cafs.run("reload")
        assert model.read_bytes() == BODY.read(0, SIZE)
        assert trust(model) == "verified"
        assert failure(mounted) == ""


ZIP = "/archive.zip"
MEMBERS = {
    name: Generated(size, seed=5).read(0, size)
    for name, size in (("first", 3 * MIB), ("second", 40 * MIB), ("third", 3 * MIB))
}


def zipped(origin: Origin) -> tuple[bytes, str]:
    """A zip whose members lie in it as they are, and a project with it."""
    data = zip_archive((file(*each) for each in MEMBERS.items()), method=zipfile.ZIP_STORED)
    url, digest = origin.put(ZIP, data), hashlib.sha256(data).hexdigest()
    plain = f'from = "archive+{url}"\nintegrity = "sha256:{digest}"\n'
    return data, f'[ref.early]\n{plain}verify = "provisional"\n[ref.strict]\n{plain}'


def test_a_zip_is_listed_and_read_before_it_is_checked_and_by_nobody_else(
    cafs: Cafs, origin: Origin
) -> None:
    data, toml = zipped(origin)
    digest = hashlib.sha256(data).hexdigest()
    with cafs.mount(toml) as mounted:
        origin.fault(ZIP, StallBeyond(at=5 * MIB, until=40 * MIB))
        early = mounted.ref("early")
        assert sorted(os.listdir(early)) == sorted(MEMBERS)
        assert (early / "first").read_bytes() == MEMBERS["first"]
        assert trust(early / "first") == "provisional"
        assert trust(early / "third") == "provisional"
        assert trust(early) == "provisional"
        assert error_of(lambda: checksum(early / "first")) == errno.ENODATA
        assert os.listdir(mounted.path / "tree/sha256") == []
        member = hashlib.sha256(MEMBERS["first"]).hexdigest()
        assert not (mounted.path / "digest/sha256" / member).exists()
        origin.heal(ZIP)
        origin.release()
        until(lambda: trust(early / "first") == "verified")
        for name, content in MEMBERS.items():
            assert (early / name).read_bytes() == content
            assert trust(early / name) == "verified"
        strict = mounted.ref("strict")
        assert (strict / "second").read_bytes() == MEMBERS["second"]
        until(lambda: error_of(lambda: checksum(strict / "second")) is None)
        assert checksum(strict / "second") == hashlib.sha256(MEMBERS["second"]).digest()
        assert (mounted.path / "tree/sha256" / digest / "third").read_bytes() == MEMBERS["third"]


def test_a_zip_that_was_wrong_anywhere_shows_nothing_any_more(cafs: Cafs, origin: Origin) -> None:
    cafs.expect_log(WARNINGS)
    _, toml = zipped(origin)
    with cafs.mount(toml) as mounted:
        # What is wrong is in a member that nobody reads.
        origin.fault(ZIP, Corrupt(at=6 * MIB), StallBeyond(at=5 * MIB, until=40 * MIB))
        early = mounted.ref("early")
        with (early / "first").open("rb") as opened:
            assert opened.read() == MEMBERS["first"]
            origin.heal(ZIP)
            origin.fault(ZIP, Corrupt(at=6 * MIB))
            origin.release()
            until(lambda: "serving.pages.dropped" in mounted.log())
            # The keeper tells the kernel in a thread of its own.
            until(lambda: error_of(lambda: os.pread(opened.fileno(), 1, 0)) == errno.EBADMSG)
        until(lambda: error_of((early / "first").read_bytes) == errno.EBADMSG)
        assert error_of((early / "third").read_bytes) == errno.EBADMSG
        assert error_of(lambda: os.listdir(early)) == errno.EBADMSG
        origin.heal(ZIP)
        cafs.run("reload")
        assert (early / "second").read_bytes() == MEMBERS["second"]
        assert trust(early / "second") == "verified"
