"""Descriptors: what is one, and what is none."""

import pytest

from cafs.errors import InvalidReferenceError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, digest_of


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("size", [0, 1, 1 << 62])
def test_b1_a_descriptor_has_a_media_type_a_digest_and_a_size(algorithm: str, size: int) -> None:
    digest = digest_of(b"x", algorithm)
    descriptor = Descriptor("text/plain", digest, size)
    assert (descriptor.media_type, descriptor.digest, descriptor.size) == (
        "text/plain",
        digest,
        size,
    )


@pytest.mark.parametrize(("media_type", "size"), [("", 0), (OCTETS, -1)])
def test_b1_without_a_media_type_or_with_a_negative_size_it_is_none(
    media_type: str, size: int
) -> None:
    with pytest.raises(InvalidReferenceError, match=str(EMPTY)):
        Descriptor(media_type, EMPTY, size)
