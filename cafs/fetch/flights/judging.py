"""Judging: whether an answer is of the content that was promised. Pure; acts on nothing.

Content with a pin needs no validator: its digest tells, wherever the bytes came from. Content
without one is what was located, in that version, or it is an error; never a mix.
"""

from dataclasses import dataclass

from cafs.errors import ContentError, SizeMismatchError, SourceChangedError
from cafs.model.identity import StreamKey
from cafs.model.validator import Validator
from cafs.transport.interfaces import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was promised of the raw bytes of one stream.

    ``size`` is bytes, None when nobody told. ``validator`` is the version that was located; it
    means nothing when ``pinned``, which says that a digest will decide. ``ranges`` says that byte
    ranges may be asked for. ``limit`` bounds what is fetched when the size is not known; bytes.
    """

    name: str
    key: StreamKey
    size: int | None
    validator: Validator
    pinned: bool
    ranges: bool
    limit: int

    @property
    def steady(self) -> bool:
        """Whether bytes of several responses are known to be of one version."""
        return not self.pinned and self.validator.strong


def judge(head: Head, terms: Terms, size: int | None) -> bool:
    """Check an answer against what was promised.

    Args:
        head: the answer's.
        terms: the promise.
        size: that of the whole, as far as it is known by now.

    Returns:
        whether the body is the whole content from its first byte, though a range was asked for or
        not.

    Raises:
        SourceChangedError: it is another version.
        SizeMismatchError: content with a pin, and another size.
    """
    whole = head.status != 206  # noqa: PLR2004 - Partial Content
    if not terms.pinned:
        _same_version(head, terms)
    if head.total is not None and size is not None and head.total != size:
        raise wrong_size(terms, size, head.total)
    return whole


def wrong_size(terms: Terms, expected: int, actual: int) -> SourceChangedError | ContentError:
    """The error for another size than the promised one."""
    if terms.pinned:
        return SizeMismatchError(terms.name, expected=expected, actual=actual)
    return changed(terms, f"{expected} bytes", f"{actual} bytes")


def changed(terms: Terms, expected: str, actual: str) -> SourceChangedError:
    """The error for another version."""
    return SourceChangedError(
        f"{terms.name}: the source changed: was {expected}, is {actual}",
        hint="a new mount shows the new version; an integrity keeps to one",
    )


def _same_version(head: Head, terms: Terms) -> None:
    """Refuse another version, and what cannot be told where it could be told before.

    A 206 need not repeat the validator: it answers an If-Range, so it is the same. A 200 must: it
    is what a changed source answers to an If-Range.
    """
    known, now = terms.validator, head.validator
    for was, is_now in ((known.etag, now.etag), (known.last_modified, now.last_modified)):
        if was and is_now and was != is_now:
            raise changed(terms, was, is_now)
    if known.mtime_ns is not None and now.mtime_ns is not None and known.text != now.text:
        raise changed(terms, known.text, now.text)
    if terms.steady and head.status != 206 and now.text != known.text:  # noqa: PLR2004
        raise changed(terms, known.text, now.text or "a version that it does not tell")
