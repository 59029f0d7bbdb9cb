"""What a first pass makes beside the tree: segments that decode alone to what it wrote."""

import bz2
import gzip
import hashlib
import io
import lzma
import random
import subprocess
import tarfile
import time
from functools import partial
from itertools import pairwise

import pytest
import zstandard

from cafs.codec.segments import decode
from cafs.codec.windows import unpack
from cafs.errors import MalformedError
from cafs.fetch.passes.aside import Aside
from cafs.model.digest import digest_of
from cafs.model.record import Segment, TreeRecord
from cafs.model.span import Span
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig

MIB = 1 << 20


def tar_of(count: int = 30, size: int = 300_000) -> bytes:
    """Files of text that refers back, and some noise."""
    dice = random.Random(5)
    words = [dice.randbytes(dice.randrange(3, 12)).hex().encode() for _ in range(3000)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(count):
            data = b" ".join(dice.choices(words, k=size // 14)) + dice.randbytes(1000)
            member = tarfile.TarInfo(f"file{number}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


TAR = tar_of()


def frames(data: bytes) -> bytes:
    """Several zstd frames, one behind the other."""
    engine = zstandard.ZstdCompressor(level=1)
    return b"".join(engine.compress(data[at : at + MIB]) for at in range(0, len(data), MIB))


PACKED = {
    "tar": TAR,
    "tar.gz": gzip.compress(TAR, 6, mtime=0),
    "members.tar.gz": b"".join(
        gzip.compress(TAR[at : at + 700_000], 1, mtime=0) for at in range(0, len(TAR), 700_000)
    ),
    "tar.zst": zstandard.compress(TAR, 1),
    "frames.tar.zst": frames(TAR),
    "tar.xz": lzma.compress(TAR, preset=0),
    "blocks.tar.xz": subprocess.run(
        ["xz", "-0c", "-T2", "--block-size=1MiB"], input=TAR, stdout=subprocess.PIPE, check=True
    ).stdout,
    "tar.bz2": bz2.compress(TAR, 1),
}


def segments_of(rig: Rig, record: TreeRecord) -> list[Segment]:
    return rig.store.trees.segments(record.number, 0, Span(0, record.streams[0].size))


@pytest.mark.parametrize("kind", PACKED)
async def test_every_segment_decodes_alone_to_what_the_pass_wrote(
    rig: Rig, origin: Origin, kind: str
) -> None:
    data = PACKED[kind]
    raw = await rig.pinned(digest_of(data), len(data), origin.put(f"/a.{kind}", data))
    record = await rig.plant(raw)
    segments = segments_of(rig, record)
    assert segments[0].start == 0
    assert all(one.start + one.length == two.start for one, two in pairwise(segments))
    assert segments[-1].start + segments[-1].length == record.streams[0].size == len(TAR)
    for segment in segments:
        stop = segment.input_start + segment.input_length

        def read(
            offset: int, length: int, first: int = segment.input_start, stop: int = stop
        ) -> bytes:
            assert first <= offset
            assert offset + length <= stop <= len(data)
            return data[offset : offset + length]

        window = rig.store.trees.window(record.number, 0, segment.start)
        found = b"".join(decode(segment, read, unpack(window) if window else b"", name=kind))
        assert found == TAR[segment.start :][: segment.length]
        assert hashlib.sha256(found).digest() == segment.sha256
    content = rig.fetcher.decoded(record, 0, raw)
    assert await content.read(0, len(TAR), USUAL) == TAR


@pytest.mark.parametrize("kind", ["tar.gz", "frames.tar.zst", "blocks.tar.xz", "tar.bz2"])
async def test_with_several_segments_what_is_missing_is_decoded_alone(
    rig: Rig, origin: Origin, kind: str
) -> None:
    data = PACKED[kind]
    raw = await rig.pinned(digest_of(data), len(data), origin.put(f"/a.{kind}", data))
    record = await rig.plant(raw)
    assert record.streams[0].rules == "segments"
    content = rig.fetcher.decoded(record, 0, raw)
    stream = rig.store.streams.find(content.key)
    assert stream is not None
    assert stream.behind() == digest_of(data)
    await stream.discard()
    assert await rig.plant(raw) == record
    assert await content.read(5 * MIB, 4096, USUAL) == TAR[5 * MIB :][:4096]
    assert 0 < content.present() <= 4 * MIB
    stream = rig.store.streams.find(content.key)
    assert stream is not None
    assert stream.behind() == digest_of(data)


async def test_with_one_segment_what_is_missing_takes_another_pass(
    rig: Rig, origin: Origin
) -> None:
    data = PACKED["tar.xz"]
    raw = await rig.pinned(digest_of(data), len(data), origin.put("/a.tar.xz", data))
    record = await rig.plant(raw)
    assert len(segments_of(rig, record)) == 1
    assert record.streams[0].rules == "tar"


async def test_a_plain_tar_has_slices_of_a_mebibyte(rig: Rig, origin: Origin) -> None:
    raw = await rig.pinned(digest_of(TAR), len(TAR), origin.put("/a.tar", TAR))
    record = await rig.plant(raw)
    assert record.streams[0].rules == ""
    lengths = [one.length for one in segments_of(rig, record)]
    assert lengths == [MIB] * (len(TAR) // MIB) + [len(TAR) % MIB]
    assert {one.codec for one in segments_of(rig, record)} == {"store"}


def test_what_fails_aside_is_raised_to_who_goes_on() -> None:
    def fail() -> None:
        raise MalformedError("a window that cannot be packed")

    with Aside() as aside:
        aside.post(fail)
        with pytest.raises(MalformedError, match="cannot be packed"):
            aside.settle()
        with pytest.raises(MalformedError, match="cannot be packed"):
            aside.post(fail)


def test_what_is_posted_is_done_in_order_before_it_is_settled() -> None:
    done: list[int] = []
    with Aside() as aside:
        for number in range(100):
            aside.post(partial(done.append, number))
        aside.settle()
        assert done == list(range(100))


def test_a_pass_that_ends_early_leaves_nothing_running() -> None:
    done: list[int] = []
    with Aside() as aside:
        aside.post(lambda: time.sleep(0.01))
        for number in range(10):
            aside.post(partial(done.append, number))
    assert len(done) < 10
    assert not aside.alive
