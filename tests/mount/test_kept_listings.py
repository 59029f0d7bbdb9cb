"""Listings that the kernel keeps: it asks again when they grow, and never believes a failure.

Under a keeper nobody asks to open a directory, and the kernel keeps each listing until it sees
another mtime, which it asks for once a second where a listing may change.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cafs.fuse.errnos import LISTING
from cafs.model.digest import digest_of
from tests.mount.fuse_world import BIG, MANY, SWAPPED
from tests.mount.kept_world import Kept, keeping, wait_for

pytestmark = pytest.mark.fuse
SOON_S = 30.0
"""Attributes are believed for a second, or a year; the rest is for a slow machine."""


@pytest.fixture(scope="module")
def shared(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A mount for all tests that only add to it."""
    with keeping(tmp_path_factory.mktemp("shared")) as found:
        yield found


@pytest.fixture
def kept(tmp_path: Path, fuse: None) -> Iterator[Kept]:
    with keeping(tmp_path) as found:
        yield found


def asked_by(kept: Kept, act: Callable[[], object]) -> int:
    """How many listings the worker was asked for while something was done."""
    before = kept.counters()[f"fuse.{LISTING}"]
    act()
    return kept.counters()[f"fuse.{LISTING}"] - before


def kept_by_the_kernel(kept: Kept, top: Path) -> bool:
    """Whether listings are had without asking; the kernel may take back any, so more than once."""
    often = lambda: [os.listdir(top) for _ in range(5)]  # noqa: E731
    return any(not asked_by(kept, often) for _ in range(20))


def comes_to_list(path: Path, names: set[str]) -> None:
    """Wait until a directory lists these names."""
    wait_for(lambda: set(os.listdir(path)) == names, SOON_S)


def test_nobody_is_asked_to_open_and_a_listing_is_asked_for_once(shared: Kept) -> None:
    top = shared.gcc / "many"
    assert len(os.listdir(top)) == MANY
    assert kept_by_the_kernel(shared, top)
    counters = shared.counters()
    assert counters["fuse.open"] + counters["fuse.opendir"] == 0


@pytest.mark.parametrize(
    ("name", "number"), [("missing", errno.ENXIO), ("broken", errno.EHOSTUNREACH)]
)
def test_a_ref_that_fails_is_no_empty_directory_and_is_asked_again(
    shared: Kept, name: str, number: int
) -> None:
    path = shared.path / "ref" / name
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            os.listdir(path)
        assert caught.value.errno == number
    assert os.getxattr(path, "user.cafs.error").startswith(b"GET https://files.example: ")
    shared.levers.tell("mend", name)
    assert set(os.listdir(path)) == set(os.listdir(shared.gcc))
    assert (path / "big").read_bytes() == BIG


def test_a_ref_that_opens_is_listed_once_it_is_resolved(shared: Kept) -> None:
    assert shared.gcc.is_dir()
    before = set(os.listdir(shared.gcc))
    time.sleep(1.1)
    assert set(os.listdir(shared.gcc)) == before
    assert kept_by_the_kernel(shared, shared.gcc)


def test_directories_of_refs_named_by_path_grow(shared: Kept) -> None:
    top = shared.path / "ref" / "archive"
    host = top / "https" / "files.example"
    for path in (top, top / "https", host):
        assert os.listdir(path) == []
    assert len(os.listdir(host / "one.tar@" / "many")) == MANY
    comes_to_list(top, {"https"})
    comes_to_list(top / "https", {"files.example"})
    comes_to_list(host, {"one.tar@"})
    assert (host / "sub" / "two.tar@" / "bin" / "cc").read_bytes() == b"#!cc"
    comes_to_list(host, {"one.tar@", "sub"})
    comes_to_list(host / "sub", {"two.tar@"})


def test_the_list_of_blobs_grows_and_shrinks(shared: Kept) -> None:
    blobs = shared.path / "digest" / "sha256"
    others = set(os.listdir(blobs))
    texts = [f"blob {number}" for number in range(100)]
    names = {digest_of(text.encode()).hex for text in texts}
    assert not others & names
    assert shared.levers.tell("put", *texts) == "done"
    comes_to_list(blobs, others | names)
    shared.levers.tell("drop", texts[0])
    comes_to_list(blobs, (others | names) - {digest_of(texts[0].encode()).hex})
    shared.levers.tell("put", texts[0])
    comes_to_list(blobs, others | names)


def test_a_listing_that_is_read_slowly_misses_nothing_that_stays(shared: Kept) -> None:
    blobs = shared.path / "digest" / "sha256"
    others = set(os.listdir(blobs))
    texts = [f"first {number}" for number in range(900)]
    shared.levers.tell("put", *texts)
    comes_to_list(blobs, others | {digest_of(text.encode()).hex for text in texts})
    stays = {digest_of(text.encode()).hex for text in texts[300:]}
    comes = [f"later {number}" for number in range(50)]
    found: list[str] = []
    with os.scandir(blobs) as entries:
        # The C library reads ahead by the buffer of 32 KiB; these names are more than two.
        for entry in entries:
            found.append(entry.name)
            if len(found) == 10:
                shared.levers.tell("drop", *texts[:300])
                shared.levers.tell("put", *comes)
    assert len(found) == len(set(found))
    assert stays <= set(found)
    comes_to_list(blobs, others | stays | {digest_of(text.encode()).hex for text in comes})


def test_a_new_worker_with_other_settings_has_other_refs(kept: Kept) -> None:
    before = set(os.listdir(kept.path / "ref"))
    kept.levers.name("clang", "rust")
    kept.kill(signal.SIGKILL)
    comes_to_list(kept.path / "ref", before | {"clang", "rust"})
    assert (kept.path / "ref" / "rust" / "bin" / "cc").read_bytes() == b"#!cc"


def test_a_ref_that_shows_another_tree_fails_once_and_then_shows_it(kept: Kept) -> None:
    assert os.path.getsize(kept.gcc / "big") == len(BIG)
    names = set(os.listdir(kept.gcc))
    kept.levers.tell("swap")
    # The names are the kernel's for a year, and nobody asks to open: the first read finds out.
    with pytest.raises(OSError) as caught:
        (kept.gcc / "big").read_bytes()
    assert caught.value.errno == errno.ESTALE
    assert (kept.gcc / "big").read_bytes() == SWAPPED[b"big"].data
    assert (kept.gcc / "new").read_bytes() == b"new"
    assert "bin" in names
