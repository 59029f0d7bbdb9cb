"""Tar archives: headers, PAX records, sparse maps.

Its first byte says how an input is taken: two bits for how it is read, two for whose checksums are
made right, since no blind change of a header would pass: of none, of blocks that look like a header
of ustar or GNU tar, of all.
"""

from typing import Final

from cafs.codec import tar
from cafs.codec.tar_header import BLOCK
from cafs.model.member import Kind, Member
from tests.fuzz.fuzzing import LIMITS, STEPS, Given, content_to_blame

MOST: Final = 8 << 10
_FIELD: Final = slice(148, 156)
_MAGIC: Final = b"ustar"
_MAGIC_AT: Final = 257


def one(data: bytes) -> None:
    """Read an archive to its end."""
    knobs, data = (data[0], data[1:]) if data else (0, b"")
    wanted = knobs >> 2 & 3
    if wanted:
        data = repaired(data, every=wanted == 3)
    source = Given(data, STEPS[knobs & 3])
    with content_to_blame():
        for member in tar.members(source.read, name="x.tar", limits=LIMITS):
            check(member, source.at)


def repaired(data: bytes, *, every: bool) -> bytes:
    """An archive with right checksums: in ``every`` block, or in those with a header's magic."""
    made = bytearray(data)
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        block = made[at : at + BLOCK]
        if any(block) and (every or block.startswith(_MAGIC, _MAGIC_AT)):
            block[_FIELD] = b" " * 8
            made[at + _FIELD.start : at + _FIELD.stop] = b"%06o\0 " % sum(block)
    return bytes(made)


def check(member: Member, at: int) -> None:
    """A member is what who plants it takes for granted."""
    assert len(member.path) <= LIMITS.path_bytes
    assert b"\0" not in member.path
    assert (member.target is not None) == (member.kind in {Kind.SYMLINK, Kind.HARD_LINK})
    assert b"\0" not in (member.target or b"")
    assert 0 <= member.mode <= 0o7777
    assert 0 <= member.uid < 1 << 32
    assert 0 <= member.gid < 1 << 32
    assert -(1 << 63) <= member.mtime_ns < 1 << 63
    assert 0 <= member.device < 1 << 32
    assert 0 <= member.size <= LIMITS.size
    # Its headers have been read, its content has not.
    assert member.offset == at
    if member.kind is not Kind.FILE:
        assert member.size == 0
        assert member.sparse is None
    if member.sparse is not None:
        end = 0
        for piece in member.sparse:
            assert piece.offset >= end
            assert piece.length > 0
            end = piece.offset + piece.length
        assert end <= member.size
    assert list(member.xattrs) == sorted(dict(member.xattrs).items())
    assert all(name.startswith(b"user.") for name, _ in member.xattrs)
