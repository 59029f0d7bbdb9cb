"""Tars made to harm, or cut short: a clear error that names the member, and nothing else."""

import io
import os
import subprocess
import tarfile
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.codec import tar
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member


def block(
    path: bytes = b"f",
    *,
    flag: bytes = b"0",
    size: bytes = b"00000000000\0",
    link: bytes = b"",
    rest: bytes = b"ustar\x0000",
) -> bytes:
    """A header with the right checksum and whatever else."""
    head = path.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.rjust(12, b"0")
    head += b"00000000001\0" + b" " * 8 + flag + link.ljust(100, b"\0") + rest
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def pax(records: bytes, flag: bytes = b"x") -> bytes:
    """An extended header."""
    size = b"%011o\0" % len(records)
    return block(b"pax", flag=flag, size=size) + records + bytes(-len(records) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header."""
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    total = length + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)


END = bytes(1024)


def parsed(data: bytes, limits: Limits | None = None) -> list[Member]:
    """All members."""
    return list(tar.members(io.BytesIO(data).read, name="evil.tar", limits=limits))


def sample(form: int) -> bytes:
    """A small archive with one of everything."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for path, size in (("a", 700), ("d" * 120, 10), ("empty", 0)):
            info = tarfile.TarInfo(path)
            info.size = size
            archive.addfile(info, io.BytesIO(b"x" * size))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 120
        archive.addfile(link)
    content = out.getvalue().rstrip(b"\0")
    return content + bytes(-len(content) % 512 + 512)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_cut_is_an_error_or_a_prefix_that_gnu_tar_accepts(form: int) -> None:
    data = sample(form)
    whole = parsed(data)
    accepted = []
    for cut in range(len(data)):
        with suppress(MalformedError):
            members = parsed(data[:cut])
            assert members == whole[: len(members)]
            accepted.append(cut)
    boundaries = [cut for cut in accepted if cut % 512 == 0]
    assert accepted == boundaries, "a cut within a block was not noticed"
    for cut in boundaries:
        listed = subprocess.run(
            ["tar", "--list"], input=data[:cut], check=False, capture_output=True
        )
        assert listed.returncode == 0, f"GNU tar refuses what ends at {cut}: {listed.stderr!r}"


def test_a_cut_names_the_member_whose_content_is_missing() -> None:
    with pytest.raises(MalformedError, match=r"evil.tar: member 'big'.*ends within its content"):
        parsed(block(b"big", size=b"00000010000\0") + bytes(512))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a tar at all" * 100, "not a tar archive"),
        (b"short", "not a tar archive"),
        (b"", "not a tar archive"),
        (block()[:-1] + b"\1", "not a tar archive"),
        (block() + b"\1" * 512, "no header at byte 512"),
        (block(size=b"\xff" * 12), "size is -1 bytes"),
        (block(size=b"\x80" + b"\x7f" * 11), "size is"),
        (block(size=b"0000000009\0\0"), "byte 0"),
        (block(size=b"-0000000001\0"), "is no number"),
        (block(flag=b"L", size=b"77777777777\0"), "extended header of"),
        (block(flag=b"L", size=b"\xff" * 12), "extended header of -1"),
        (block(flag=b"x", size=b"00000000010\0") + bytes(100), "within an extended header"),
        (pax(record(b"path", b"x")) + END, "behind an extended header"),
        (pax(b"0 path=x\n") + block() + END, "wrong length"),
        (pax(b"99 path=x\n") + block() + END, "wrong length"),
        (pax(b"path=x\n") + block() + END, "without a length"),
        (pax(b"7 path\n") + block() + END, "damaged record"),
        (pax(record(b"path", b"a\0b")) + block() + END, "NUL"),
        (pax(record(b"size", b"-1")) + block() + END, "size"),
        (pax(record(b"size", b"99999999999999999999")) + block() + END, "size"),
        (pax(record(b"mtime", b"later")) + block() + END, "time"),
        (pax(record(b"mtime", b"NaN")) + block() + END, "time"),
        (pax(record(b"uid", b"root")) + block() + END, "an owner b'root'"),
        (pax(record(b"uid", b"-9-9")) + block() + END, "an owner b'-9-9'"),
        (pax(record(b"gid", b"1_0")) + block() + END, "an owner b'1_0'"),
        (pax(record(b"uid", b"9" * 5000)) + block() + END, "an owner b'9{40}'$"),
        (pax(record(b"size", b"9" * 4300)) + block() + END, "a size b'9{40}'$"),
        (pax(record(b"path", b"p" * 5000)) + block() + END, "more than 4096 bytes"),
    ],
)
def test_headers_that_lie_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        parsed(data)
    assert caught.value.what.startswith("evil.tar: ")


SPARSE = {
    "no size": record(b"GNU.sparse.map", b"0,1"),
    "half a piece": record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0"),
    "backwards": record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"5,1,0,1"),
    "beyond": record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"9,1"),
    "no data": record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.map", b"0,3"),
    "huge": record(b"GNU.sparse.size", b"9" * 30) + record(b"GNU.sparse.map", b""),
    "in content": record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.realsize", b"9"),
}


@pytest.mark.parametrize("records", SPARSE.values(), ids=SPARSE)
def test_sparse_maps_that_lie_are_refused(records: bytes) -> None:
    with pytest.raises(MalformedError):
        parsed(pax(records) + block(b"holes") + END)


def test_attributes_that_no_file_can_have_are_left_out() -> None:
    kept = (b"user.large", bytes(64 << 10))
    records = record(b"SCHILY.xattr." + kept[0], kept[1])
    records += record(b"SCHILY.xattr.user.huge", bytes((64 << 10) + 1))
    records += record(b"SCHILY.xattr.user." + b"n" * 251, b"v")
    records += record(b"SCHILY.xattr.user.a\0security.b", b"v")
    (member,) = parsed(pax(records) + block() + END)
    assert member.xattrs == (kept,)


@pytest.mark.parametrize("flag", [b"1", b"2", b"5"])
def test_only_files_are_sparse(flag: bytes) -> None:
    notes = record(b"GNU.sparse.size", b"4096") + record(b"GNU.sparse.map", b"")
    (member,) = parsed(pax(notes) + block(flag=flag, link=b"target") + END)
    assert (member.path, member.size, member.sparse) == (b"f", 0, None)


@pytest.mark.parametrize("content", [b"x\n", b"1\n0\n", b"9" * 600, b"2\n0\n1\n"])
def test_sparse_maps_in_content_that_lie_are_refused(content: bytes) -> None:
    data = pax(SPARSE["in content"])
    data += block(size=b"%011o\0" % len(content)) + content + bytes(-len(content) % 512)
    with pytest.raises(MalformedError, match="sparse map is damaged"):
        parsed(data + END)


def test_a_line_of_a_sparse_map_without_end_is_refused_before_it_is_gathered() -> None:
    content = b"1" * (1 << 20)
    source = io.BytesIO(
        pax(SPARSE["in content"]) + block(size=b"%011o\0" % len(content)) + content + END
    )
    with pytest.raises(MalformedError, match=r"sparse map is damaged: b'1{40}' is no number"):
        list(tar.members(source.read, name="evil.tar"))
    assert source.tell() == 4 * 512


def test_an_old_sparse_map_without_end_is_refused() -> None:
    first = bytearray(block(flag=b"S", rest=b"ustar  \0".ljust(225, b"\0") + b"\1"))
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    more = bytes(504) + b"\1" + bytes(7)
    with pytest.raises(MalformedError, match="sparse map is damaged: it has no end"):
        parsed(bytes(first) + more * 5000)


def test_members_of_other_volumes_are_not_supported() -> None:
    with pytest.raises(UnsupportedError, match="another volume"):
        parsed(block(flag=b"M") + END)


def test_limits_on_members_and_sizes_are_obeyed() -> None:
    with pytest.raises(MalformedError, match="more than 3 members"):
        parsed(block() * 4 + END, Limits(members=3))
    with pytest.raises(MalformedError, match="its size is 512 bytes"):
        parsed(block(size=b"00000001000\0") + bytes(512) + END, Limits(size=600))


def test_what_gnu_tar_shrugs_at_is_taken() -> None:
    assert parsed(END) == []
    assert [m.path for m in parsed(block(b"a") + bytes(512) + b"junk" * 9999)] == [b"a"]
    assert [m.path for m in parsed(block(b"a") + block(b"b"))] == [b"a", b"b"]
    assert [m.kind for m in parsed(block(b"old/", flag=b"\0") + END)] == [Kind.DIRECTORY]
    assert [m.kind for m in parsed(block(b"new", flag=b"Q") + END)] == [Kind.FILE]


def test_an_owner_that_nobody_can_be_is_nobody() -> None:
    for said in (b"-1", b"4294967295", b"9" * 32):
        (member,) = parsed(pax(record(b"uid", said)) + block() + END)
        assert member.uid == 65534


def test_numbers_of_all_spellings_are_read() -> None:
    big = b"\x80" + (1 << 33).to_bytes(11, "big")
    (member,) = parsed(pax(record(b"size", b"0")) + block(size=big) + END)
    assert member.size == 0
    negative = bytearray(block())
    negative[136:148] = b"\xff" * 12
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative)
    assert parsed(bytes(negative) + END)[0].mtime_ns == -1_000_000_000
    (member,) = parsed(pax(record(b"mtime", b"-1.5")) + block() + END)
    assert member.mtime_ns == -1_500_000_000


@pytest.mark.parametrize(
    ("major", "minor", "device"),
    [
        (b"0000001\0", b"0000003\0", os.makedev(1, 3)),
        (b"0007777\0", b"3777777\0", os.makedev(4095, (1 << 20) - 1)),
        (b"0010000\0", b"0000000\0", 0),
        (b"0000001\0", b"4000000\0", 0),
        (b"\x80\0\0\0\xff\xff\xff\xff", b"0000000\0", 0),
        (b"\x80\x01\0\0\0\0\0\0", b"0000000\0", 0),
        (b"\xff" * 8, b"0000000\0", 0),
    ],
)
def test_a_device_that_linux_cannot_have_has_no_number(
    major: bytes, minor: bytes, device: int
) -> None:
    names = bytes(64)
    (member,) = parsed(block(flag=b"3", rest=b"ustar\x0000" + names + major + minor) + END)
    assert (member.kind, member.device) == (Kind.CHARACTER_DEVICE, device)


def test_a_global_header_holds_until_a_member_says_otherwise() -> None:
    data = pax(record(b"mtime", b"5"), b"g") + block(b"a")
    data += pax(record(b"mtime", b"6")) + block(b"b") + block(b"c") + END
    assert [m.mtime_ns // 10**9 for m in parsed(data)] == [5, 6, 5]


def test_content_is_read_forward_once_in_small_pieces() -> None:
    data = block(b"big", size=b"%011o\0" % 5_000_000) + bytes(5_000_000 + -5_000_000 % 512) + END
    source, sizes = io.BytesIO(data), []

    def read(size: int) -> bytes:
        sizes.append(size)
        return source.read(min(size, 70_000))

    (member,) = tar.members(read, name="x")
    assert (member.offset, member.size) == (512, 5_000_000)
    assert max(sizes) <= 1 << 20
    assert source.tell() == len(data)


VARIED = [sample(tarfile.GNU_FORMAT), sample(tarfile.PAX_FORMAT), pax(SPARSE["beyond"]) + block()]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_damage_is_an_error_of_ours_or_none(data: st.DataObject) -> None:
    archive = bytearray(data.draw(st.sampled_from(VARIED)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            # With the checksum put right, the damage gets further.
            start = at // 512 * 512
            header = archive[start : start + 512]
            if len(header) == 512:
                header[148:156] = b" " * 8
                archive[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    with suppress(MalformedError, UnsupportedError):
        parsed(bytes(archive))
