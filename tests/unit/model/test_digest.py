"""Digests: parsing, printing, integrity strings, hashing."""

import hashlib

import pytest

from cafs.errors import InvalidReferenceError
from cafs.model.digest import EMPTY, SIZES, Digest, Hasher, digest_of

HELLO_SHA512 = (
    "m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="
)


@pytest.mark.parametrize("algorithm", SIZES)
def test_text_round_trips(algorithm: str) -> None:
    digest = digest_of(b"hello", algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, b'hello').hexdigest()}"
    assert Digest.parse(str(digest)) == digest
    assert Digest.parse_integrity(digest.integrity) == digest


def test_b17_the_empty_digest_is_known() -> None:
    assert EMPTY.hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_y20_the_integrity_of_hello() -> None:
    assert Digest.parse_integrity(f"sha512-{HELLO_SHA512}") == digest_of(b"hello", "sha512")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha3:" + "a" * 64,
        "SHA256:" + "a" * 64,
        " sha256:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha512",
        "sha512-",
        "sha512-####",
        "sha512-aGVsbG8=",
        f"sha384-{HELLO_SHA512}",
        f"sha512-{HELLO_SHA512}?option",
        f"sha512-{HELLO_SHA512[:-3]}R==",
        f"sha512-{HELLO_SHA512[:10]}\n{HELLO_SHA512[10:]}",
    ],
)
def test_y19_integrity_is_strict(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Digest.parse_integrity(text)


def test_b2_sha256_is_canonical_and_the_longer_ones_are_claims() -> None:
    for algorithm, length in (("sha256", 64), ("sha384", 96), ("sha512", 128)):
        digest = Digest.parse(f"{algorithm}:{'0a' * (length // 2)}")
        assert (digest.canonical, digest.weak) == (algorithm == "sha256", False)
        assert str(digest) == f"{algorithm}:{'0a' * (length // 2)}"


def test_weak_algorithms_are_marked() -> None:
    assert [name for name in SIZES if digest_of(b"", name).weak] == ["sha1", "md5"]
    assert [name for name in SIZES if digest_of(b"", name).canonical] == ["sha256"]


def test_a_hasher_hashes_pieces_with_all_algorithms() -> None:
    hasher = Hasher(["md5", "sha512"])
    for piece in (b"he", b"", b"llo"):
        hasher.update(piece)
    assert hasher.size == 5
    for algorithm in ("sha256", "md5", "sha512"):
        assert hasher.digest(algorithm) == digest_of(b"hello", algorithm)
    with pytest.raises(KeyError):
        hasher.digest("sha1")
