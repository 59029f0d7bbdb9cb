"""What cache documents say: of an answer, to a source, of content. Pure; asks and keeps nothing."""

from cafs.model.descriptor import OCTETS
from cafs.model.document import CacheDocument
from cafs.model.resolved import Part
from cafs.transport.interfaces import Head


def documented(old: CacheDocument | None, head: Head, now_s: float) -> CacheDocument:
    """The document after an answer; it knows the digest when the version is still the same.

    Args:
        old: what was known of the same source, None for nothing.
        head: the answer's.
        now_s: seconds since the epoch.
    """
    if head.unchanged and old is not None:
        # What a 304 does not repeat still holds (RFC 9111 §3.2).
        age = head.max_age_s if "cache-control" in head.headers else old.max_age_s
        return old.freshened(now_s, age, head.validator.etag)
    same = (
        old is not None
        and old.validator.strong
        and (old.validator.text, old.size) == (head.validator.text, head.total)
    )
    return CacheDocument(
        digest=old.digest if old is not None and same else None,
        validator=head.validator,
        fetched_s=now_s,
        max_age_s=head.max_age_s,
        size=head.total,
        ranges=head.ranges,
        media_type=head.content_type,
    )


def to_tell(old: CacheDocument | None) -> str:
    """What the source wanted to be told, if its content, or a version of it, is at hand."""
    if old is None or (old.digest is None and not old.validator.text):
        return ""
    return old.plugin


def part_of(urls: tuple[str, ...], url: str, document: CacheDocument, media_type: str) -> Part:
    """The content that a document is about.

    Args:
        urls: where it can be had, best first.
        url: the one of them that the document is about; it comes first.
        document: the document.
        media_type: what the content shall be taken for; empty takes the document's word.
    """
    return Part(
        media_type=media_type or document.media_type or OCTETS,
        size=document.size,
        digest=document.digest,
        urls=(url, *(each for each in urls if each != url)),
        validator=document.validator,
        ranges=document.ranges,
        located_ns=0 if document.validator.text else int(document.fetched_s * 1e9),
        at=document.at,
    )
