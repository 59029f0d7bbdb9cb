"""Members of a zip whose index is locked: each costs itself, and is what the index says."""

import hashlib
import io
import random
import zipfile

import pytest
from msgspec.structs import replace

from cafs.errors import ContentError, UnsupportedError
from cafs.fetch.interfaces import Content
from cafs.model.digest import digest_of
from cafs.model.identity import indexed_stream, indexed_tree
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import Segment, TreeStream
from cafs.model.span import Span
from cafs.testing.faults import Corrupt
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig

MIB = 1 << 20
INDEX = digest_of(b"the index of a zip")
DOUBTED = pytest.mark.expects_log("fetch.mirror.doubted")


def contents() -> list[bytes]:
    dice = random.Random(2)
    return [dice.randbytes(1_200_000) + bytes(300_000) for _ in range(12)]


CONTENTS = contents()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(CONTENTS):
            archive.writestr(f"a/name/of/some/length/{number}", data)
    return out.getvalue()


ZIP = zipped()


async def vouched(rig: Rig, url: str, *, forged: bool = False, codec: str = "") -> Content:
    """What a pass over the zip says, with digests of the members, as an index; nothing is here."""
    raw = await rig.pinned(digest_of(ZIP), len(ZIP), url)
    own = await rig.plant(raw)
    segments = rig.store.trees.segments(own.number, 0, Span(0, own.streams[0].size))
    for stream in (raw.key, own.streams[0].key):
        found = rig.store.streams.find(stream)
        if found is not None:
            await found.discard()
    await rig.store.blobs.delete(digest_of(ZIP))
    with rig.store.trees.writer(indexed_tree(own.identity, INDEX)) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        for number, segment in enumerate(segments):
            writer.add_segment(0, said(segment, number, forged=forged, codec=codec))
        what = TreeStream(
            key=indexed_stream(raw.key, INDEX),
            size=own.streams[0].size,
            raw=raw.key,
            part=0,
            rules="zip",
            vouched=True,
        )
        record = writer.publish((what,), None)
    raw = await rig.pinned(digest_of(ZIP), len(ZIP), url)
    return rig.fetcher.decoded(record, 0, raw)


def said(segment: Segment, number: int, *, forged: bool, codec: str) -> Segment:
    digest = hashlib.sha256(CONTENTS[number + forged if number < 11 else number]).digest()
    return replace(segment, sha256=digest, codec=codec or segment.codec)


async def test_a_member_costs_itself(rig: Rig, origin: Origin) -> None:
    content = await vouched(rig, origin.put("/a.zip", ZIP))
    origin.forget()
    start = 5 * len(CONTENTS[0])
    assert await content.read(start + 100, 4096, USUAL) == CONTENTS[5][100:4196]
    assert 0 < origin.bytes_sent() < 2 * MIB
    assert await content.read(0, content.size, USUAL) == b"".join(CONTENTS)


@DOUBTED
@pytest.mark.parametrize("at", ["header", "content"])
async def test_a_wrong_byte_is_fetched_again_or_an_error(rig: Rig, origin: Origin, at: str) -> None:
    url = origin.put("/a.zip", ZIP)
    content = await vouched(rig, url)
    (segment,) = rig.store.trees.segments(content_tree(rig, content), 0, Span(0, 1))
    wrong = segment.input_start + (0 if at == "header" else 600_000)
    origin.fault("/a.zip", Corrupt(at=wrong, times=1))
    assert await content.read(0, 4096, USUAL) == CONTENTS[0][:4096]
    stream = rig.store.streams.find(content.key)
    assert stream is not None
    await stream.discard()
    raw = await rig.pinned(digest_of(ZIP), len(ZIP), url)
    found = rig.store.streams.find(raw.key)
    if found is not None:
        await found.discard()
    origin.heal()
    origin.fault("/a.zip", Corrupt(at=wrong))
    with pytest.raises(ContentError):
        await content.read(0, 4096, USUAL)
    assert content.present() == 0


def content_tree(rig: Rig, content: Content) -> int:
    (tree,) = [one for one in rig.store.trees.all() if one.streams[0].key == content.key]
    return tree.number


@DOUBTED
async def test_an_index_that_names_another_members_digest_hands_out_nothing(
    rig: Rig, origin: Origin
) -> None:
    content = await vouched(rig, origin.put("/a.zip", ZIP), forged=True)
    with pytest.raises(ContentError, match="the index says"):
        await content.read(0, 4096, USUAL)
    assert content.present() == 0


async def test_a_method_that_is_not_known_fetches_nothing(rig: Rig, origin: Origin) -> None:
    content = await vouched(rig, origin.put("/a.zip", ZIP), codec="encrypted")
    origin.forget()
    with pytest.raises(UnsupportedError):
        await content.read(0, 4096, USUAL)
    assert origin.bytes_sent() == 0


@DOUBTED
@pytest.mark.parametrize("at", [27, 29])
async def test_a_header_that_leads_beyond_the_archive_is_fetched_again(
    rig: Rig, origin: Origin, at: int
) -> None:
    """The high bytes of the lengths of a member's name and extra fields."""
    content = await vouched(rig, origin.put("/a.zip", ZIP))
    tree = content_tree(rig, content)
    end = Span(content.size - 1, content.size)
    (last,) = rig.store.trees.segments(tree, 0, end)
    origin.fault("/a.zip", Corrupt(at=last.input_start + at, times=1))
    assert await content.read(content.size - 10, 10, USUAL) == CONTENTS[-1][-10:]
