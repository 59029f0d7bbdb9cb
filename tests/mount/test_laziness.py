"""Only what is read is fetched."""

import os

import pytest

from cafs.model.span import Span
from cafs.testing.archives import stored_zip
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20


def test_4_kib_in_the_middle_of_a_blob_without_a_pin_fetch_less_than_2_mib(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", Generated(256 * MIB, seed=1))
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.model]\nfrom="{url}"\n') as mounted:
        file = mounted.path / "ref/model"
        assert file.stat().st_size == 256 * MIB
        assert file.stat().st_blocks * 512 == 256 * MIB
        middle = Span(128 * MIB + 12_345, 128 * MIB + 12_345 + 4096)
        with file.open("rb", buffering=0) as opened:
            data = os.pread(opened.fileno(), middle.length, middle.start)
        assert data == origin.expected("/model.bin", middle)
        assert origin.bytes_sent() < 2 * MIB
        local, size = os.getxattr(file, "user.cafs.present").decode().split("/")
        assert 4096 <= int(local) < 2 * MIB
        assert int(size) == 256 * MIB


def test_listing_a_zip_without_a_pin_fetches_less_than_1_mib(cafs: Cafs, origin: Origin) -> None:
    archive = stored_zip(members=100, size=MIB, seed=2)
    origin.put("/big.zip", archive)
    url = origin.url("/big.zip")
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.big]\nfrom="{url}"\n') as mounted:
        names = sorted(os.listdir(mounted.path / "ref/big"))
        assert len(names) == 100
        sizes = {(mounted.path / "ref/big" / name).stat().st_size for name in names}
        assert sizes == {MIB}
        assert origin.bytes_sent() < MIB
        before = origin.bytes_sent()
        data = (mounted.path / "ref/big" / names[50]).read_bytes()
        assert data == archive.member(names[50])
        # The member, and at most what is read ahead of a reader that goes forward.
        assert origin.bytes_sent() - before < 4 * MIB


def test_a_directory_ref_is_listed_without_any_request(cafs: Cafs, origin: Origin) -> None:
    url = origin.url("/missing.tar.gz")
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.tool]\nfrom="{url}"\n') as mounted:
        assert os.listdir(mounted.path / "ref").count("tool") == 1
        assert (mounted.path / "ref/tool").is_dir()
        assert not origin.requests
