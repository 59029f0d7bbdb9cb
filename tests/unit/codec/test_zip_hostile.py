"""Zips made to harm, or damaged: a clear error that names the member, and nothing else."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.codec.zip import members
from cafs.codec.zip_content import content_start, inflate
from cafs.codec.zip_end import TAIL, Directory, NeedMore, locate
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member
from cafs.model.record import Segment
from tests.planted import Planted, segment_content, tree_writer


@dataclass(frozen=True)
class Central:
    """A central header's fields; offsets and sizes as they should be unless a test lies."""

    path: bytes = b"f"
    host: int = 3
    flags: int = 0
    method: int = 0
    crc: int = zlib.crc32(b"content")
    packed: int = 7
    size: int = 7
    extra: bytes = b""
    attributes: int = 0o100644 << 16
    offset: int = 0
    date: int = (40 << 9) | (1 << 5) | 1

    def packed_header(self) -> bytes:
        head = struct.pack(
            "<4s2B5H3I5H2I",
            b"PK\1\2",
            30,
            self.host,
            20,
            self.flags,
            self.method,
            0,
            self.date,
            self.crc,
            self.packed,
            self.size,
            len(self.path),
            len(self.extra),
            0,
            0,
            0,
            self.attributes,
            self.offset,
        )
        return head + self.path + self.extra


def local(path: bytes = b"f", content: bytes = b"content") -> bytes:
    head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, len(path), 0)
    return head + path + content


def archive(*centrals: Central, body: bytes = local(), count: int | None = None) -> bytes:
    """A zip of these headers."""
    directory = b"".join(central.packed_header() for central in centrals)
    told = len(centrals) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, told, told, len(directory), len(body), 0)
    return body + directory + end


def found(data: bytes) -> Directory:
    place = locate(data, len(data), name="evil.zip")
    assert isinstance(place, Directory)
    return place


def read(data: bytes, limits: Limits | None = None) -> list[tuple[Member, Segment]]:
    """All members of a zip in memory."""
    directory = found(data)
    source = io.BytesIO(data)
    source.seek(directory.offset)
    listed = list(members(source.read, directory, name="evil.zip", limits=limits))
    assert source.tell() <= directory.offset + directory.length
    return listed


def test_the_archives_that_tests_bend_are_right_when_they_are_not_bent() -> None:
    ((member, segment),) = read(archive(Central()))
    assert (member.path, member.kind, member.mode, member.size) == (b"f", Kind.FILE, 0o644, 7)
    assert segment_content(archive(Central()), segment) == b"content"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no zip archive"),
        (b"PK\5\6", "no zip archive"),
        (archive(Central())[:-30], "no zip archive"),
        (archive(Central(), count=2), "has 1 members, its end record tells 2"),
        (archive(Central(), count=0), "has 1 members, its end record tells 0"),
        (archive(Central(packed=70, size=70)), "member 'f': its content would reach beyond"),
        (archive(Central(offset=1 << 31)), "member 'f': its content would reach beyond"),
        (archive(Central(size=8)), "member 'f': stored, but 8 bytes in 7"),
        (archive(Central(size=0xFFFFFFFF)), "member 'f': its zip64 field is missing"),
        (archive(Central(path=b"p" * 5000)), "path of more than 4096"),
        (archive(Central(path=b"a"), Central(path=b"b")), "member 'b'.* overlaps another"),
        (
            archive(Central(), Central(path=b"b", offset=10), body=local() + bytes(99)),
            "member 'b'.* overlaps another",
        ),
        (
            archive(*[Central(offset=o) for o in (30, 0, 30, 0)], body=local() * 2),
            "overlaps another",
        ),
        (
            archive(Central(method=8, size=1 << 31), body=local()),
            "member 'f': 2147483648 bytes in 7 bytes",
        ),
        (
            archive(Central(attributes=0o120777 << 16, size=5000, packed=5000), body=bytes(9999)),
            "a symlink to 5000 bytes of text",
        ),
        (archive(Central()).replace(b"PK\1\2", b"PK\1\3"), "no header of member 0"),
    ],
)
def test_directories_that_lie_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        read(data)
    assert caught.value.what.startswith("evil.zip: ")


def test_a_directory_beyond_the_file_is_refused() -> None:
    data = bytearray(archive(Central()))
    struct.pack_into("<I", data, len(data) - 6, 1 << 30)
    with pytest.raises(MalformedError, match="would reach beyond its end"):
        found(bytes(data))


def test_one_volume_of_several_is_not_supported() -> None:
    data = bytearray(archive(Central()))
    struct.pack_into("<H", data, len(data) - 18, 1)
    with pytest.raises(UnsupportedError, match="of several"):
        found(bytes(data))


def test_a_directory_that_ends_early_is_refused() -> None:
    data = archive(Central())
    directory = found(data)
    source = io.BytesIO(data[directory.offset : directory.offset + 40])
    with pytest.raises(MalformedError, match="ends too early"):
        list(members(source.read, directory, name="evil.zip"))


def test_limits_on_members_and_sizes_are_obeyed() -> None:
    centrals = [Central(offset=38 * number) for number in range(4)]
    data = archive(*centrals, body=local() * 4)
    assert len(read(data)) == 4
    with pytest.raises(MalformedError, match="more than 3 members"):
        read(data, Limits(members=3))
    with pytest.raises(MalformedError, match="7 bytes in 7 bytes, where 6 may be"):
        read(data, Limits(size=20))


def test_a_comment_may_contain_the_mark_of_an_end_record() -> None:
    for comment in (b"PK\5\6", b"PK\5\6" + bytes(19), b"PK\5\6" + b"\xff" * 30):
        data = archive(Central())[:-2] + struct.pack("<H", len(comment)) + comment
        assert [member.path for member, _ in read(data)] == [b"f"]
    # A comment that is a whole end record is taken for it, by every tool.
    data = archive(Central())[:-2] + struct.pack("<H", 22) + b"PK\5\6" + bytes(18)
    assert read(data) == []


def test_what_precedes_or_follows_an_archive_does_no_harm() -> None:
    data = b"#!/bin/sh\n" * 100 + archive(Central()) + b"trailing"
    directory = found(data)
    assert directory.shift == 1000
    ((_, segment),) = read(data)
    assert segment_content(data, segment) == b"content"


def test_a_short_tail_asks_for_more_and_only_for_what_can_help() -> None:
    data = archive(Central())
    long = data[:-2] + struct.pack("<H", 60_000) + b"c" * 60_000
    asked = locate(long[-100:], len(long))
    assert asked == NeedMore(max(0, len(long) - TAIL))
    padded = bytes(1 << 20)
    with pytest.raises(MalformedError, match="no zip archive"):
        locate(padded[-TAIL:], len(padded))


def test_a_zip64_end_record_is_found_and_its_values_win_where_the_old_are_full() -> None:
    plain = archive(Central())
    directory = found(plain)
    end64 = struct.pack(
        "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, directory.length, directory.offset
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(plain) - 22, 1)
    full = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    data = plain[:-22] + end64 + locator + full
    assert found(data) == directory
    # In front of it something else, which the offsets do not know.
    assert found(b"stub" + data) == replace(directory, offset=directory.offset + 4, shift=4)
    # The tail begins behind the record.
    assert locate(data[-42:], len(data)) == NeedMore(len(plain) - 22)
    # A locator that points far away does not make anybody fetch the whole file.
    far = bytes(5 << 20) + locator[:8] + bytes(8) + locator[16:] + full
    with pytest.raises(MalformedError):
        locate(far[-TAIL:], len(far))


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x2000])
def test_encrypted_members_are_listed_and_not_read(flags: int) -> None:
    ((member, segment),) = read(archive(Central(flags=flags, packed=7, size=3)))
    assert member.size == 3
    assert segment.codec == "encrypted"
    with pytest.raises(UnsupportedError, match=r"x.zip: it is encrypted"):
        inflate(segment.codec, name="x.zip")


def test_unknown_methods_are_listed_and_not_read() -> None:
    ((_, segment),) = read(archive(Central(method=98)))
    assert segment.codec == "method-98"
    with pytest.raises(UnsupportedError, match="method-98"):
        inflate(segment.codec)


@pytest.mark.parametrize("header", [b"", b"PK\1\2" + bytes(40), b"PK\3\4" + bytes(20)])
def test_a_local_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedError, match="no local header"):
        content_start(header)


def unpacked(codec: str, data: bytes, *, length: int | None, step: int = 1000) -> bytes:
    engine = inflate(codec, name="m", length=length)
    inputs = (data[at : at + step] for at in range(0, len(data), step))
    whole = b"".join(piece for each in inputs for piece in engine.pieces(each))
    engine.finish()
    return whole


def packed(method: int, content: bytes) -> bytes:
    """What Python's zipfile makes of a member's content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as target:
        target.writestr("m", content)
    ((_, segment),) = read(out.getvalue())
    start = segment.input_start + content_start(out.getvalue()[segment.input_start :])
    return out.getvalue()[start : start + segment.input_length]


CONTENT = bytes(range(256)) * 3000
CODECS = {
    "store": CONTENT,
    "deflate": packed(zipfile.ZIP_DEFLATED, CONTENT),
    "bzip2": packed(zipfile.ZIP_BZIP2, CONTENT),
    "lzma": packed(zipfile.ZIP_LZMA, CONTENT),
    "zstd": zstandard.ZstdCompressor().compress(CONTENT),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_content_of_every_method_is_decoded(codec: str, step: int) -> None:
    data = CODECS[codec]
    length = len(CONTENT)
    if step == 1 and codec == "store":
        step = 1000
    assert unpacked(codec, data, length=length, step=step) == CONTENT


@pytest.mark.parametrize("codec", CODECS)
def test_content_of_another_length_than_announced_is_refused(codec: str) -> None:
    data = CODECS[codec]
    with pytest.raises(MalformedError, match="m: decodes to more than"):
        unpacked(codec, data, length=len(CONTENT) - 1)
    with pytest.raises(MalformedError, match="m: the data ends after"):
        unpacked(codec, data, length=len(CONTENT) + 1)
    with pytest.raises(MalformedError, match="m: "):
        unpacked(codec, data[:-20], length=len(CONTENT))


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "store"])
def test_damaged_content_is_refused_or_has_another_checksum(codec: str) -> None:
    data = bytearray(CODECS[codec])
    for at in range(0, len(data), max(1, len(data) // 50)):
        data[at] ^= 0x55
        with suppress(MalformedError, UnsupportedError):
            assert len(unpacked(codec, bytes(data), length=len(CONTENT))) == len(CONTENT)
        data[at] ^= 0x55


def zeros(codec: str) -> bytes:
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    if codec == "zstd":
        return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    method = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    return packed(method[codec], bytes(64 << 20))


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "lzma", "zstd"])
def test_a_bomb_comes_in_pieces_and_ends_at_the_announced_length(codec: str) -> None:
    def exploded() -> Iterator[int]:
        for piece in inflate(codec, length=32 << 20).pieces(zeros(codec)):
            yield len(piece)

    lengths: list[int] = []
    with pytest.raises(MalformedError, match="decodes to more than the 33554432 bytes"):
        lengths.extend(exploded())
    assert max(lengths, default=0) <= 16 << 20


def test_bad_dates_and_modes_become_usual_ones() -> None:
    ((member, _),) = read(archive(Central(date=0, attributes=0)))
    assert (member.mtime_ns, member.mode) == (0, 0o644)


def test_paths_that_would_escape_are_refused_by_name(tmp_path: Path) -> None:
    for number, path in enumerate((b"../f", b"a/../../f", b"a\0b", b"")):
        data = archive(Central(path=path), body=local(path))
        with (
            tree_writer(tmp_path / str(number)) as writer,
            pytest.raises(MalformedError, match="member"),
        ):
            Planted(writer).zip(data)


def test_a_unicode_path_counts_only_with_its_checksum() -> None:
    right = struct.pack("<HHBI", 0x7075, 9, 1, zlib.crc32(b"f")) + b"name"
    wrong = struct.pack("<HHBI", 0x7075, 9, 1, zlib.crc32(b"g")) + b"name"
    assert read(archive(Central(extra=right)))[0][0].path == b"name"
    assert read(archive(Central(extra=wrong)))[0][0].path == b"f"
    assert read(archive(Central(extra=right[:6])))[0][0].path == b"f"


def many() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for number in range(3):
            target.writestr(f"dir/{number}", bytes(number * 100))
    return out.getvalue()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_an_error_of_ours_or_none(changes: list[tuple[int, int]]) -> None:
    data = bytearray(many())
    for at, value in changes:
        # The directory and the end record are in the last part; damage to content is CRC's part.
        data[len(data) - 1 - at % 250] = value
    with suppress(MalformedError, UnsupportedError):
        for member, segment in read(bytes(data)):
            assert 0 <= segment.input_start + segment.input_length <= len(data)
            assert member.size == segment.length
