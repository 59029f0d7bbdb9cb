"""Zip archives: the end, the directory, local headers, and the members' contents.

Its first byte says how an input is read; its first two bits, how much of the end is read at first.
"""

from typing import Final

from cafs.codec import zip as zip_codec, zip_content
from cafs.codec.zip_end import TAIL, Directory, NeedMore, locate
from cafs.model.member import Kind, Member
from cafs.model.record import Segment
from tests.fuzz.fuzzing import LIMITS, STEPS, Given, content_to_blame

MOST: Final = 4 << 10
_TAILS: Final = (TAIL, 22, 100, 400)
_CONTENTS: Final = 20
"""Members of an archive that are decoded: directories can name one place very often."""


def one(data: bytes) -> None:
    """Find the directory, read it, and decode what it names."""
    knobs, data = (data[0], data[1:]) if data else (0, b"")
    step = STEPS[knobs >> 2 & 3]
    members: list[tuple[Member, Segment]] = []
    with content_to_blame():
        directory = located(data, _TAILS[knobs & 3])
        assert 0 <= directory.offset <= directory.offset + directory.length <= len(data)
        source = Given(data[directory.offset :], step)
        start = 0
        for member, segment in zip_codec.members(source.read, directory, limits=LIMITS):
            assert source.at <= directory.length
            assert segment.start == start
            start += segment.length
            check(member, segment, directory)
            members.append((member, segment))
    for _, segment in members[:_CONTENTS]:
        with content_to_blame():
            inflated(data, segment, step)


def located(data: bytes, first: int) -> Directory:
    """The directory, asked for with more and more of the end."""
    start = max(0, len(data) - first)
    while isinstance(found := locate(data[start:], len(data)), NeedMore):
        assert 0 <= found.offset < start, "it asks for what it has"
        start = found.offset
    return found


def check(member: Member, segment: Segment, directory: Directory) -> None:
    """A member is what who plants it takes for granted, a segment lies before the directory."""
    assert len(member.path) <= 4 * LIMITS.path_bytes
    assert member.offset == segment.start
    assert member.size == segment.length
    assert member.kind is not Kind.DIRECTORY or not member.size
    assert 0 <= member.mode <= 0o7777
    assert -(1 << 63) <= member.mtime_ns < 1 << 63
    assert 0 <= segment.start <= segment.start + segment.length <= LIMITS.size
    assert segment.input_start >= 0
    assert segment.input_start + zip_content.LOCAL + segment.input_length <= directory.offset


def inflated(data: bytes, segment: Segment, step: int) -> None:
    """Decode a member's content as a reader of it would."""
    local = data[segment.input_start : segment.input_start + zip_content.LOCAL]
    start = segment.input_start + zip_content.content_start(local)
    source = Given(data[start : start + segment.input_length], step)
    inflater = zip_content.inflate(segment.codec, length=segment.length)
    total = 0
    while piece := source.read(128 << 10):
        for part in inflater.pieces(piece):
            total += len(part)
            assert total <= segment.length
    inflater.finish()
    assert total == segment.length
