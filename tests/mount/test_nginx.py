"""The same against a server that others wrote: nginx."""

import hashlib
import os
import random

import pytest

from cafs.testing.daemons import Nginx
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20


def test_ranges_and_revalidation_with_nginx(cafs: Cafs, nginx: Nginx) -> None:
    body = random.Random(12).randbytes(32 * MIB)
    (nginx.files / "data.bin").write_bytes(body)
    toml = f'[ref.data]\nfrom="{nginx.url("/data.bin")}"\n'
    with cafs.mount(toml) as mounted:
        with mounted.ref("data").open("rb", buffering=0) as opened:
            assert os.pread(opened.fileno(), 4096, 20 * MIB) == body[20 * MIB : 20 * MIB + 4096]
        assert nginx.bytes_sent("/data.bin") < 2 * MIB
        assert {one.status for one in nginx.requests()} == {206}
        with mounted.ref("data").open("rb") as whole:
            assert hashlib.file_digest(whole, "sha256").digest() == hashlib.sha256(body).digest()
        # A read-ahead that the seek broke off was under way: what nginx had sent of it is lost.
        assert nginx.bytes_sent("/data.bin") <= len(body) + 2 * MIB
    before = len(nginx.requests())
    with cafs.mount(toml) as mounted:
        assert mounted.ref("data").read_bytes() == body
    (revalidation,) = nginx.requests()[before:]
    assert revalidation.status == 304
    os.utime(nginx.files / "data.bin", (1, 1))
    (nginx.files / "data.bin").write_bytes(b"new")
    with cafs.mount(toml) as mounted:
        assert mounted.ref("data").read_bytes() == b"new"
