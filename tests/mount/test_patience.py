"""A source that does not answer in the middle of a read: how long who waits, and for what.

``scripts/soak silence`` does the same with 1 GiB and 20 s.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Mount
from cafs.testing.faults import HangBeforeHead, Rate
from cafs.testing.origin import Origin
from cafs.testing.silence import Reading
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SIZE = 64 * MIB
DEADLINE_S = 2.0
SLOW = Rate(64.0 * MIB, shared=True)
"""So that a read has a middle."""
SLACK_S = 1.8
"""A tenth of the deadline, and what a busy machine needs to say so; scripts/soak measures. It is
less than a second deadline.
"""


def fall_silent(origin: Origin, reader: Reading) -> None:
    """Send nothing more, from the middle of a read on."""
    limit = time.monotonic() + 60
    while reader.position < SIZE // 4:
        assert time.monotonic() < limit
        time.sleep(0.01)
    origin.silence("/big.bin")
    assert reader.position < SIZE


def others_read(mounted: Mount) -> float:
    """Read refs that nobody has read, and what is local; the longest wait."""
    longest = 0.0
    for name in ("one", "two", "tree/a", "tree/b"):
        began = time.monotonic()
        assert mounted.ref(name).read_bytes()
        longest = max(longest, time.monotonic() - began)
    return longest


def project(origin: Origin, body: Generated, on_error: str, pin: str) -> str:
    url = origin.put("/big.bin", body)
    lines = [
        '[mount]\npath = "cafs"\n[defaults]',
        f'deadline = "{DEADLINE_S:g}s"\non-error = "{on_error}"',
        f'[ref.big]\nfrom = "{url}"\n{pin}',
    ]
    small = {name: origin.put(f"/{name}", Generated(MIB, seed=4)) for name in ("one", "two")}
    lines += [f'[ref.{name}]\nfrom = "{url}"' for name, url in small.items()]
    tree = origin.put("/t.tar", tar_bytes({"a": (0o644, b"a"), "b": (0o644, b"b")}))
    return "\n".join([*lines, f'[ref.tree]\nfrom = "{tree}"\n'])


@pytest.mark.parametrize("pinned", [False, True])
def test_who_waits_sees_no_error_however_long_the_source_is_silent(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=5)
    pin = f'integrity = "sha256:{body.sha256()}"\n' if pinned else ""
    with cafs.mount(project(origin, body, "wait", pin)) as mounted:
        origin.fault("/big.bin", SLOW)
        reader = Reading(mounted.ref("big"))
        if pinned:
            origin.wait_until(lambda log: sum(one.bytes_sent for one in log) > SIZE // 4)
            origin.silence("/big.bin")
        else:
            fall_silent(origin, reader)
        time.sleep(1.5 * DEADLINE_S)
        assert reader.is_alive()
        assert others_read(mounted) < DEADLINE_S
        origin.heal()
        assert reader.digest() == body.sha256()
        assert reader.error is None


def test_who_does_not_wait_has_an_error_within_the_deadline_and_a_tenth(
    cafs: Cafs, origin: Origin
) -> None:
    body = Generated(SIZE, seed=6)
    with cafs.mount(project(origin, body, "fail", "")) as mounted:
        origin.fault("/big.bin", SLOW)
        reader = Reading(mounted.ref("big"))
        fall_silent(origin, reader)
        assert others_read(mounted) < DEADLINE_S
        reader.join(60)
        assert reader.error is not None
        assert reader.failed_s is not None
        assert reader.error.errno == errno.ETIMEDOUT
        assert DEADLINE_S - 0.1 <= reader.failed_s <= DEADLINE_S + SLACK_S
        assert "2.0 s" in os.getxattr(mounted.ref("big"), "user.cafs.error").decode()
        # What has come stays, and the rest comes when the source is there again.
        origin.heal()
        time.sleep(1.1)
        sent = origin.bytes_sent("/big.bin")
        again = Reading(mounted.ref("big"))
        assert again.digest() == body.sha256()
        assert origin.bytes_sent("/big.bin") - sent < SIZE


@pytest.mark.parametrize(
    "act", [lambda path: path.read_bytes(), lambda path: path.stat()], ids=["read", "stat"]
)
def test_the_deadline_holds_over_several_mirrors_that_hang(
    cafs: Cafs, origin: Origin, act: Callable[[Path], object]
) -> None:
    body = Generated(MIB, seed=7)
    urls = [origin.put(f"/{name}", body) for name in "abc"]
    origin.fault("/*", HangBeforeHead())
    mirrors = ", ".join(f'"{url}"' for url in urls[1:])
    toml = (
        f'[mount]\npath = "cafs"\n[ref.x]\nfrom = "{urls[0]}"\nmirrors = [{mirrors}]\n'
        f'deadline = "{DEADLINE_S:g}s"\nintegrity = "sha256:{body.sha256()}"\n'
    )
    with cafs.mount(toml) as mounted:
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out") as caught:
            act(mounted.ref("x"))
        assert caught.value.errno == errno.ETIMEDOUT
        assert DEADLINE_S - 0.1 <= time.monotonic() - began <= DEADLINE_S + SLACK_S


@pytest.mark.parametrize("pinned", [False, True])
def test_a_mirror_that_hangs_does_not_use_up_the_deadline(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(MIB, seed=9)
    urls = [origin.put(f"/{name}", body) for name in "ab"]
    pin = f'integrity = "sha256:{body.sha256()}"\n' if pinned else ""
    origin.fault("/a", HangBeforeHead())
    toml = (
        f'[mount]\npath = "cafs"\n[ref.x]\nfrom = "{urls[0]}"\nmirrors = ["{urls[1]}"]\n'
        f'deadline = "8s"\n{pin}'
    )
    with cafs.mount(toml) as mounted:
        assert mounted.ref("x").read_bytes() == body.read(0, MIB)


@pytest.mark.parametrize(("compression", "pinned"), [("", False), ("gz", True)])
def test_a_first_pass_that_takes_longer_than_the_deadline_ends_well(
    cafs: Cafs, origin: Origin, compression: str, pinned: bool
) -> None:
    """Bytes keep coming, so the listing waits until all are there."""
    noise = Generated(6 * MIB, seed=8)
    items = {f"f{n}": (0o644, noise.read(n * MIB, MIB)) for n in range(6)}
    archive = tar_bytes(items, compression=compression)
    url = origin.put(f"/tree.tar{compression and '.'}{compression}", archive)
    pin = f'integrity = "sha256:{hashlib.sha256(archive).hexdigest()}"\n' if pinned else ""
    origin.fault("/tree*", Rate(1.5 * MIB, shared=True))
    toml = f'[mount]\npath = "cafs"\n[ref.tree]\nfrom = "{url}"\ndeadline = "2s"\n{pin}'
    with cafs.mount(toml) as mounted:
        began = time.monotonic()
        assert sorted(os.listdir(mounted.ref("tree"))) == sorted(items)
        assert time.monotonic() - began > 3.0
        origin.heal()
        assert (mounted.ref("tree") / "f5").read_bytes() == items["f5"][1]
