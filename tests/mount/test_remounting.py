"""Mounted again on the same store: nothing is fetched again."""

import hashlib

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20


def test_r13_an_unpinned_url_is_revalidated_and_its_document_freshened(
    cafs: Cafs, origin: Origin
) -> None:
    body = Generated(2 * MIB, seed=5)
    url = origin.put("/data.bin", body, cache_control="max-age=0")
    toml = f'[mount]\npath="cafs"\n[ref.data]\nfrom="{url}"\n'
    with cafs.mount(toml) as mounted:
        assert hashlib.sha256((mounted.path / "ref/data").read_bytes()).hexdigest() == body.sha256()
    origin.forget()
    # The revalidating answer says how long it may be used: from then on there is no request.
    origin.put("/data.bin", body, cache_control="max-age=3600")
    with cafs.mount(toml) as mounted:
        assert len((mounted.path / "ref/data").read_bytes()) == 2 * MIB
    (revalidation,) = origin.requests
    assert revalidation.status == 304
    assert revalidation.header("if-none-match") is not None
    assert origin.bytes_sent() == 0
    origin.forget()
    with cafs.mount(toml) as mounted:
        assert hashlib.sha256((mounted.path / "ref/data").read_bytes()).hexdigest() == body.sha256()
    assert not origin.requests


def test_an_archive_is_not_fetched_again(cafs: Cafs, origin: Origin) -> None:
    archive = tar_bytes({"a": (0o644, b"alpha"), "d/b": (0o644, b"beta")}, compression="zst")
    pin = hashlib.sha256(archive).hexdigest()
    url = origin.put("/data.tar.zst", archive)
    toml = f'[mount]\npath="cafs"\n[ref.data]\nfrom="{url}"\nintegrity="sha256:{pin}"\n'
    with cafs.mount(toml) as mounted:
        assert (mounted.path / "ref/data/d/b").read_bytes() == b"beta"
    origin.forget()
    with cafs.mount(toml, "--offline") as mounted:
        assert (mounted.path / "ref/data/d/b").read_bytes() == b"beta"
        assert (mounted.path / "ref/data/a").read_bytes() == b"alpha"
    assert not origin.requests


def test_a_changed_url_shows_its_new_version_in_a_new_mount(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/data.txt", b"old")
    toml = f'[mount]\npath="cafs"\n[ref.data]\nfrom="{url}"\n'
    with cafs.mount(toml) as mounted:
        assert (mounted.path / "ref/data").read_bytes() == b"old"
        origin.put("/data.txt", b"newer")
        assert (mounted.path / "ref/data").read_bytes() == b"old"
    with cafs.mount(toml) as mounted:
        assert (mounted.path / "ref/data").read_bytes() == b"newer"
