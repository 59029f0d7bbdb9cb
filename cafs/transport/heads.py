"""What the headers of an HTTP response say. Pure functions; no network, and a clock in one alone.

Header names are lower-case throughout.
"""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from cafs.errors import RefusedError
from cafs.model.span import Span
from cafs.model.validator import Validator

_CONTENT_RANGE: Final = re.compile(
    r"bytes[ =]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE
)
_UNSATISFIED: Final = re.compile(r"bytes[ =]+\*/([0-9]{1,18})", re.IGNORECASE)
_BY_OUR_CLOCK_S: Final = 300.0
"""How long is waited, at most, until a date that only our own clock can be compared with: it may be
wrong by hours."""
_INTEGER: Final = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_CODED_NAMES: Final = {
    "gzip": (".gz", ".tgz", ".svgz"),
    "x-gzip": (".gz", ".tgz", ".svgz"),
    "compress": (".z", ".taz"),
    "x-compress": (".z", ".taz"),
    "bzip2": (".bz2", ".tbz", ".tbz2"),
    "x-bzip2": (".bz2", ".tbz", ".tbz2"),
    "xz": (".xz", ".txz"),
    "x-xz": (".xz", ".txz"),
    "zstd": (".zst", ".tzst"),
    "br": (".br",),
}
"""How files end that servers take for coded ones; the codings are those of the wild, too."""
_MAX_AGE_S: Final = 2**31 - 1
"""RFC 9111 §1.2.2: a larger age is as good as this one."""
_STRONG_AFTER_S: Final = 60
"""How much later than Last-Modified the Date must be.

RFC 9110 §8.8.2.2 asks for a second, and that both come from one clock or are so far apart that
clocks do not matter. Whether one clock made them cannot be seen, so this is RFC 7232's minute.
"""


class ContentRange(msgspec.Struct, frozen=True):
    """Where the body of a 206 lies: ``span`` of a whole of ``total`` bytes (None: not told)."""

    span: Span
    total: int | None


def max_age_s(cache_control: str) -> int:
    """How long an answer may be used without asking, in seconds (R-15, mended).

    ``no-store`` and ``no-cache`` win over every age, wherever they stand. Of several ages the last
    one counts; one that is not positive is 0; one that is no integer, or has a leading zero, is
    ignored. Expires, Age, s-maxage and Vary play no part.
    """
    age = 0
    for directive in cache_control.lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name.rstrip() in ("no-store", "no-cache"):
            return 0
        if name.rstrip() == "max-age" and _INTEGER.fullmatch(value.strip()):
            age = min(max(int(value), 0), _MAX_AGE_S)
    return age


def validator_of(headers: Mapping[str, str]) -> Validator:
    """The version that a response names.

    An ETag with other characters than ASCII is none: in which bytes it came is not known any more,
    so it could not be sent back.

    Source: RFC 9110 §8.8.1, §8.8.2.2.
    """
    etag = headers.get("etag", "").strip()
    if not etag.isascii():
        etag = ""
    if etag[:2] == "w/":
        etag = f"W/{etag[2:]}"
    modified = headers.get("last-modified", "").strip()
    when = _date(modified)
    date = _date(headers.get("date", ""))
    if when is None or not modified.isascii():
        when, modified = None, ""
    dated = (
        when is not None and date is not None and (date - when).total_seconds() >= _STRONG_AFTER_S
    )
    return Validator(etag=etag, last_modified=modified, dated=dated)


def content_range(text: str) -> ContentRange | None:
    """Parse a Content-Range; None when it is none, or contradicts itself."""
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(Span(first, last + 1), total)


def unsatisfied_total(text: str) -> int | None:
    """The total that the Content-Range of a 416 tells; None when it tells none."""
    found = _UNSATISFIED.fullmatch(text.strip())
    return int(found[1]) if found else None


def content_length(headers: Mapping[str, str]) -> int | None:
    """Content-Length in bytes; None when absent, or not in force because of a transfer coding."""
    text = headers.get("content-length", "")
    if "transfer-encoding" in headers or not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return None
    return int(text)


def answered_range(name: str, wanted: Span, headers: Mapping[str, str]) -> ContentRange:
    """The range that a 206 holds, checked against the one that was asked for.

    It begins where asked, and ends where asked or before: a server may send less than it is asked
    for, and what is still missing is asked for next.

    Raises:
        RefusedError: it does not, or it is in several parts, or not told, or contradicted by
            Content-Length. Using it would put bytes in the wrong place.

    Source: RFC 9110 §15.3.7.
    """
    if headers.get("content-type", "").lower().startswith("multipart/byteranges"):
        raise RefusedError(f"{name}: asked for {wanted}, got several ranges")
    text = headers.get("content-range", "")
    answer = content_range(text)
    if answer is None:
        raise RefusedError(f"{name}: asked for {wanted}, got Content-Range {text!r}")
    if answer.span.start != wanted.start or answer.span.stop > wanted.stop:
        raise RefusedError(f"{name}: asked for {wanted}, got Content-Range {text!r}")
    length = content_length(headers)
    if length is not None and length != answer.span.length:
        raise RefusedError(f"{name}: Content-Range {text!r} with {length} bytes")
    return answer


def check_coding(name: str, path: str, headers: Mapping[str, str]) -> None:
    """Refuse bytes that a content coding changed: nobody asked for one.

    What they stand for is another sequence of bytes, with other offsets, another size and another
    digest. But some servers call a file that lies there compressed "coded", after its name; those
    bytes are the file.

    Args:
        name: the request, for people.
        path: of the URL.
        headers: of the response.

    Raises:
        RefusedError: the bytes are coded.

    Source: RFC 9110 §8.4, §12.5.3; ADR 0012.
    """
    codings = {each.strip().lower() for each in headers.get("content-encoding", "").split(",")}
    suffixes = [_CODED_NAMES.get(each, ()) for each in codings - {"", "identity"}]
    if all(path.lower().endswith(each) for each in suffixes):
        return
    text = ", ".join(sorted(codings))
    raise RefusedError(
        f"{name}: sent in Content-Encoding {text!r}, though identity was asked for",
        hint="name a mirror that sends the file as it is, or let its server not compress it",
    )


def retry_after_s(
    headers: Mapping[str, str], clock: Callable[[], float] = time.time
) -> float | None:
    """How long the server asks to wait, in seconds; None when it does not say.

    A date is compared with the response's own Date, so that our clock does not matter. A response
    without one leaves us our own, and is believed for five minutes at most.

    Source: RFC 9110 §10.2.3, §6.6.1.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return float(text)
    until, now = _date(text), _date(headers.get("date", ""))
    if until is None:
        return None
    if now is None:
        return min(max(0.0, until.timestamp() - clock()), _BY_OUR_CLOCK_S)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
