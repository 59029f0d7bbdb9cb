"""Transport cache documents: what is remembered of one URL, keyed by the URL before redirects."""

from dataclasses import dataclass, replace

from cafs.model.digest import Digest
from cafs.model.validator import Validator


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDocument:
    """What the last answer for a URL said, and which content that was.

    ``digest`` is None until the content has been seen whole. ``fetched_s`` is seconds since the
    epoch (the answer's arrival), ``max_age_s`` how long it may be used without asking, ``size``
    bytes or None, ``ranges`` whether byte ranges can be asked for. ``plugin`` is what a plugin
    wants to be told when it is asked again: a JSON object as text, which nobody else reads (R-3);
    empty where there is none. ``at`` is the URL that was asked, where the settings map the
    document's own to others; else empty.

    Immutable content, which is named by its digest, has no document (R-5).
    """

    digest: Digest | None
    validator: Validator
    fetched_s: float
    max_age_s: int
    size: int | None
    ranges: bool
    media_type: str
    plugin: str = ""
    at: str = ""

    def fresh(self, now_s: float) -> bool:
        """Whether the content may be used without asking (R-12, its comparison turned round).

        Strict: with a maximal age of 10 s, an age of 10 s is stale. An answer from the future is
        stale.
        """
        return self.max_age_s > 0 and 0 <= now_s - self.fetched_s < self.max_age_s

    def freshened(self, now_s: float, max_age_s: int, etag: str = "") -> "CacheDocument":
        """The document after a 304: a new time, a new age, and the ETag if one was sent (R-13)."""
        validator = replace(self.validator, etag=etag) if etag else self.validator
        return replace(self, fetched_s=now_s, max_age_s=max_age_s, validator=validator)
