"""Content that plugins and S3 bring, through a mount: it is read, checked, kept and explained."""

import errno
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from random import Random

import pytest
import trio

from cafs.model.document import CacheDocument
from cafs.store.store import open_store
from cafs.testing.archives import tar_bytes
from cafs.testing.command import Mount
from cafs.testing.objects import running_object_store
from cafs.testing.origin import Origin
from tests.conftest import Cafs
from tests.unit.transport.plugins.plugin_world import PROGRAM, content

pytestmark = pytest.mark.fuse

SHELL = Path(__file__).parents[2] / "docs" / "examples" / "cafs-transport-shell"
BODY = Random(11).randbytes(3_000_001)
PROJECT = '[mount]\npath = "cafs"\n'


def enable(cafs: Cafs, scheme: str, *command: str, timeout: str = "20s") -> None:
    file = Path(cafs.environment["XDG_CONFIG_HOME"]) / "cafs" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    words = ", ".join(f'"{word}"' for word in command)
    with file.open("a") as opened:
        opened.write(f'[plugins.{scheme}]\ncommand = [{words}]\ntimeout = "{timeout}"\n')


def enable_x(cafs: Cafs, timeout: str = "20s") -> None:
    enable(cafs, "x", sys.executable, "-I", "-S", str(PROGRAM), timeout=timeout)


def reason(path: Path) -> str:
    return os.getxattr(path, "user.cafs.error").decode()


def fetched(mounted: Mount) -> int:
    return mounted.status()["fetched"]


def test_a_file_that_a_plugin_brings_is_read_by_parts(cafs: Cafs) -> None:
    enable_x(cafs)
    toml = PROJECT + '[ref.data]\nfrom = "x:bytes/200000000"\n'
    with cafs.mount(toml) as mounted:
        path = mounted.ref("data")
        assert path.stat().st_size == 200_000_000
        with path.open("rb") as opened:
            for at in (150_000_000, 7, 199_999_000):
                opened.seek(at)
                assert opened.read(1000) == content(at, at + 1000)
        assert fetched(mounted) < 100_000_000


def test_an_archive_and_a_pinned_file_come_by_a_plugin_in_sh(cafs: Cafs, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tar_bytes({"a": (0o644, b"alpha")}, compression="gz"))
    (tmp_path / "body.bin").write_bytes(BODY)
    enable(cafs, "dir", str(SHELL), str(tmp_path))
    pin = hashlib.sha256(BODY).hexdigest()
    toml = (
        PROJECT
        + '[ref.a]\nfrom = "dir:a.tar.gz"\n'
        + f'[ref.body]\nfrom = "dir:body.bin"\nintegrity = "sha256:{pin}"\n'
        + f'[ref.wrong]\nfrom = "dir:a.tar.gz"\nintegrity = "sha256:{pin}"\n'
    )
    cafs.expect_log(pin)
    with cafs.mount(toml) as mounted:
        assert (mounted.ref("a") / "a").read_bytes() == b"alpha"
        assert mounted.ref("body").read_bytes() == BODY
        assert "\nfrom dir: " in cafs.run("status").stdout
        with pytest.raises(OSError) as caught:
            os.listdir(mounted.ref("wrong"))
        assert caught.value.errno == errno.EBADMSG


def test_a_plugin_that_is_killed_is_started_again_under_a_reader(cafs: Cafs) -> None:
    enable_x(cafs)
    toml = PROJECT + '[ref.pid]\nfrom = "blob+x:pid"\n[ref.data]\nfrom = "x:bytes/60000000"\n'
    with cafs.mount(toml) as mounted:
        pid = int(mounted.ref("pid").read_bytes())
        data = b""
        with mounted.ref("data").open("rb") as opened:
            while piece := opened.read(1 << 20):
                if not data:
                    os.kill(pid, signal.SIGKILL)
                data += piece
        assert data == content(0, 60_000_000)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_plugin_that_fails_gives_way_to_a_mirror(cafs: Cafs) -> None:
    enable_x(cafs)
    body = content(0, 3_000_000)
    pin = hashlib.sha256(body).hexdigest()
    toml = (
        PROJECT + '[ref.data]\nfrom = "x:die"\nmirrors = ["x:bytes/3000000"]\n'
        f'integrity = "sha256:{pin}"\n'
    )
    with cafs.mount(toml) as mounted:
        assert mounted.ref("data").read_bytes() == body


def test_a_plugin_that_lies_in_the_mount_is_started_by_who_answers_for_it(
    cafs: Cafs, origin: Origin
) -> None:
    program = f"#!{sys.executable} -IS\n".encode() + PROGRAM.read_bytes()
    tools = origin.put("/tools.tar", tar_bytes({"plugin": (0o755, program)}))
    enable(cafs, "x", str(cafs.directory / "cafs" / "ref" / "tools" / "plugin"))
    toml = PROJECT + f'[ref.tools]\nfrom = "{tools}"\n[ref.data]\nfrom = "x:bytes/1000"\n'
    with cafs.mount(toml) as mounted:
        assert mounted.ref("data").read_bytes() == content(0, 1000)


def test_why_a_plugin_failed_is_said(cafs: Cafs) -> None:
    enable_x(cafs)
    toml = (
        '[mount]\npath = "cafs"\n[defaults]\ndeadline = "20s"\n'
        '[ref.dead]\nfrom = "x:die"\ndeadline = "1s"\n[ref.no]\nfrom = "x:error/not-found"\n'
        # The program that died is left alone for about a second.
        '[ref.yes]\nfrom = "x:bytes/10"\n'
    )
    with cafs.mount(toml) as mounted:
        with pytest.raises(FileNotFoundError):
            mounted.ref("no").stat()
        assert "no: x:error/not-found" in reason(mounted.path / "ref")
        with pytest.raises(OSError) as caught:
            mounted.ref("dead").stat()
        assert caught.value.errno in {errno.EHOSTUNREACH, errno.ETIMEDOUT}
        assert mounted.ref("yes").read_bytes() == content(0, 10)


def remembered(store: Path, url: str) -> CacheDocument | None:
    async def load() -> CacheDocument | None:
        async with open_store(store) as opened:
            return opened.documents.load(url)

    return trio.run(load)


def test_r3_what_a_plugin_wants_to_be_told_is_told_in_the_next_mount(cafs: Cafs) -> None:
    enable_x(cafs)
    toml = PROJECT + '[defaults]\npull = "update"\n[ref.data]\nfrom = "x:cached"\n'
    for number, expected in enumerate((3, 0, 0), 1):
        with cafs.mount(toml) as mounted:
            assert mounted.ref("data").read_bytes() == b"abc"
            assert fetched(mounted) == expected
            # What content it was is noted when it has been checked, which no reader waits for.
            until = time.monotonic() + 60
            document = remembered(cafs.store, "x:cached")
            while document is None or document.digest is None:
                assert time.monotonic() < until
                document = remembered(cafs.store, "x:cached")
            assert json.loads(document.plugin) == {"seen": number}


def test_a_scheme_that_nothing_enables_is_refused_with_what_to_do(cafs: Cafs) -> None:
    cafs.project(PROJECT + '[ref.data]\nfrom = "torrent:0123/x"\n')
    done = cafs.run("mount", check=False)
    assert done.returncode == 2
    assert "[plugins.torrent] in ~/.config/cafs/config.toml" in done.stderr


def test_objects_of_s3_are_read_by_parts(cafs: Cafs) -> None:
    with running_object_store() as store:
        store.put("bucket/dir/body.bin", BODY)
        store.put("bucket/a.tar", tar_bytes({"a": (0o644, b"alpha")}))
        cafs.environment |= store.environment
        toml = (
            PROJECT
            + '[ref.body]\nfrom = "s3://bucket/dir/body.bin"\n'
            + '[ref.a]\nfrom = "s3://bucket/a.tar"\n'
        )
        with cafs.mount(toml) as mounted:
            with mounted.ref("body").open("rb") as opened:
                opened.seek(2_000_000)
                assert opened.read(10) == BODY[2_000_000:2_000_010]
            assert mounted.ref("body").read_bytes() == BODY
            assert (mounted.ref("a") / "a").read_bytes() == b"alpha"
            log = mounted.log()
        assert "hunter2" not in log
