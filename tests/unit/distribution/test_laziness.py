"""Laziness: a sentence for each reason why all must come first, and none where it need not."""

from dataclasses import replace

import pytest

from cafs.distribution.laziness import Facts, kind_of, reason
from cafs.model.resolved import Part

INDEXED = Facts(kind="gzip", ranges=True, versioned=True, checked=True, indexed=True, segments=100)


def test_what_can_be_decoded_from_many_places_is_lazy() -> None:
    assert reason(INDEXED) == ""
    assert reason(replace(INDEXED, ranges=None, checked=False)) == ""


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(INDEXED, ranges=False), "no byte ranges"),
        (replace(INDEXED, versioned=False), "no version of it (no strong ETag)"),
        (replace(INDEXED, small=True), "small"),
        (replace(INDEXED, indexed=False, segments=None), "gzip without an index: lock it"),
        (replace(INDEXED, kind="", indexed=False, segments=None), "an archive without an index"),
        (replace(INDEXED, kind="zstd", segments=1), "zstd with one frame"),
        (replace(INDEXED, kind="xz", segments=1), "xz with one block"),
        (replace(INDEXED, kind="", segments=1), "decoded in one piece"),
        (replace(INDEXED, kind="tar", segments=None), "tar without an index"),
        (replace(INDEXED, kind="zip", indexed=False, segments=None), "a zip with a pin"),
        (replace(INDEXED, kind=None, indexed=False, segments=None), "a file with a pin"),
    ],
)
def test_why_not_is_said_in_words(facts: Facts, said: str) -> None:
    assert said in reason(facts)


@pytest.mark.parametrize(
    "facts",
    [
        Facts(kind="zip", ranges=True, versioned=True, checked=False),
        Facts(kind=None, ranges=True, versioned=True, checked=False),
        Facts(kind="tar", ranges=True, versioned=True, checked=False, indexed=True),
        Facts(kind="zip", ranges=True, versioned=True, checked=True, indexed=True, segments=1),
    ],
)
def test_what_lies_as_it_is_and_needs_no_check_before_is_lazy(facts: Facts) -> None:
    assert reason(facts) == ""


@pytest.mark.parametrize(
    ("url", "media_type", "kind"),
    [
        ("https://example.com/a.tar.gz?b=c", "text/plain", "gzip"),
        ("https://example.com/a.tgz", "", "gzip"),
        ("https://example.com/a.tar", "", "tar"),
        ("https://example.com/a.whl", "", "zip"),
        ("https://example.com/v2/a", "application/vnd.oci.image.layer.v1.tar+zstd", "zstd"),
        ("https://example.com/v2/a", "application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"),
        ("https://example.com/v2/a", "application/vnd.oci.image.layer.v1.tar", "tar"),
        ("https://example.com/v2/a", "application/octet-stream", ""),
    ],
)
def test_an_archive_is_what_its_name_or_its_type_says(url: str, media_type: str, kind: str) -> None:
    assert kind_of(Part(media_type=media_type, size=None, digest=None, urls=(url,))) == kind
