"""What an answer makes of the document that was there, without anybody being asked."""

from dataclasses import replace

from cafs.model.descriptor import OCTETS
from cafs.model.digest import Digest
from cafs.model.document import CacheDocument
from cafs.model.validator import Validator
from cafs.transport.documenting import documented, part_of, to_tell
from cafs.transport.interfaces import Head

DIGEST = Digest.parse(f"sha256:{'0' * 64}")
STRONG = Validator(etag='"1"')
OLD = CacheDocument(
    digest=DIGEST,
    validator=STRONG,
    fetched_s=5.0,
    max_age_s=60,
    size=7,
    ranges=True,
    media_type="text/plain",
)


def head(validator: Validator = STRONG, total: int | None = 7) -> Head:
    return Head(url="http://a/", status=200, validator=validator, total=total, max_age_s=9)


def test_the_digest_is_kept_with_the_version_and_the_size_alone() -> None:
    assert documented(OLD, head(), 8.0).digest == DIGEST
    assert documented(OLD, head(Validator(etag='"2"')), 8.0).digest is None
    assert documented(OLD, head(total=8), 8.0).digest is None
    weak = Validator(etag='W/"1"')
    assert documented(replace(OLD, validator=weak), head(weak), 8.0).digest is None
    assert documented(None, head(), 8.0).digest is None


def test_what_an_unchanged_answer_does_not_repeat_still_holds() -> None:
    silent = Head(url="http://a/", status=304, unchanged=True)
    assert documented(OLD, silent, 8.0) == replace(OLD, fetched_s=8.0)
    told = replace(silent, headers={"cache-control": "max-age=3"}, max_age_s=3)
    assert documented(OLD, told, 8.0).max_age_s == 3


def test_a_source_is_told_its_document_only_of_content_that_is_at_hand() -> None:
    plugin = replace(OLD, plugin="{}")
    assert to_tell(plugin) == "{}"
    assert to_tell(replace(plugin, digest=None)) == "{}", "a version is at hand"
    assert not to_tell(replace(plugin, digest=None, validator=Validator()))
    assert not to_tell(None)


def test_a_part_begins_with_who_answered_and_takes_the_word_that_was_given() -> None:
    part = part_of(("a:1", "b:1"), "b:1", OLD, "")
    assert (part.urls, part.media_type, part.located_ns) == (("b:1", "a:1"), "text/plain", 0)
    assert part_of(("a:1",), "a:1", OLD, "x/y").media_type == "x/y"
    nameless = replace(OLD, media_type="", validator=Validator())
    assert part_of(("a:1",), "a:1", nameless, "").media_type == OCTETS
    assert part_of(("a:1",), "a:1", nameless, "").located_ns == 5_000_000_000
