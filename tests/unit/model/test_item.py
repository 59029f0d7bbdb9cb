"""Items: what a store keeps or lets go of by itself."""

import pytest

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.item import Item


def test_an_item_is_a_blob_or_a_stream() -> None:
    digest, key = digest_of(b"x"), StreamKey("ab" * 32)
    assert (Item.blob(digest).digest, Item.blob(digest).stream_key) == (digest, None)
    assert (Item.stream(key).digest, Item.stream(key).stream_key) == (None, key)
    assert str(Item.blob(digest)) == str(digest)
    assert str(Item.stream(key)) == f"stream:{key}"
    assert len(Item.blob(digest).key) == len(Item.stream(key).key) == 33


def test_a_blob_goes_by_its_canonical_digest() -> None:
    with pytest.raises(ValueError, match="not canonical"):
        Item.blob(digest_of(b"x", "sha512"))
