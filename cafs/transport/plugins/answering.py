"""What a plugin's answers mean: requests in its words, heads in ours. Pure."""

from typing import Final

import msgspec

from cafs.errors import RefusedError
from cafs.model.address import shown
from cafs.model.span import Span
from cafs.model.validator import UNKNOWN_VERSION, Validator
from cafs.transport.interfaces import Head, Request
from cafs.transport.plugins.frames import Ended, Get, HeadSays

_WHOLE: Final = 200
_PARTIAL: Final = 206
_UNCHANGED: Final = 304
_LARGEST: Final = 10**18
"""Bytes that no content has: the sizes that HTTP tells are taken up to here too."""
_KEPT: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers that hold credentials: a plugin gets none but its own."""


def asked(request: Request) -> Get:
    """The request as a plugin gets it."""
    condition = request.if_changed or request.if_range
    span = request.span
    return Get(
        url=request.url,
        span=None if span is None else (span.start, span.stop),
        validator=condition.text if condition is not None and condition.text else None,
        document=msgspec.Raw(request.document.encode()) if request.document else None,
        cached=request.if_changed is not None or bool(request.document),
        headers={name: text for name, text in request.headers if name.lower() not in _KEPT},
    )


def head_of(request: Request, says: HeadSays) -> Head:
    """The head of an answer, checked against its request.

    Raises:
        RefusedError: it is not of what was asked for, or contradicts itself.
    """
    part = _part(request, says)
    whole = says.total is not None and part == Span(0, says.total)
    partial = request.span is not None and says.span is not None
    if says.span is not None and not partial and not whole:
        raise _contradiction(request, says)
    if partial and request.if_range is not None and not says.validator:
        # Nothing would tell whether it is of the version that the other parts are of.
        raise RefusedError(
            f"GET {shown(request.url)}: the plugin does not tell the version that a part is of"
        )
    return Head(
        url=request.url,
        status=_PARTIAL if partial else _WHOLE,
        validator=Validator(etag=says.validator) if says.validator else UNKNOWN_VERSION,
        span=part,
        total=says.total,
        ranges=says.ranges or partial,
        max_age_s=max(says.max_age_s, 0),
        content_type=says.content_type,
        headers={},
    )


def unchanged_of(request: Request, end: Ended) -> Head:
    """The head of an answer that says that what is at hand will do.

    Raises:
        RefusedError: nobody said that anything was at hand.
    """
    if request.if_changed is None and not request.document:
        raise RefusedError(f"GET {shown(request.url)}: the plugin says that what is here will do")
    told = end.max_age_s is not None
    return Head(
        url=request.url,
        status=_UNCHANGED,
        unchanged=True,
        max_age_s=max(end.max_age_s or 0, 0),
        # What is not repeated still holds, as it does of HTTP.
        headers={"cache-control": f"max-age={end.max_age_s}"} if told else {},
    )


def _part(request: Request, says: HeadSays) -> Span | None:
    """Where the bytes lie that will come; None when that is not known."""
    if says.total is not None and not 0 <= says.total < _LARGEST:
        raise _contradiction(request, says)
    if says.span is None:
        return None if says.total is None else Span(0, says.total)
    start, stop = says.span
    if not 0 <= start <= stop or (says.total is not None and stop > says.total):
        raise _contradiction(request, says)
    wanted = request.span
    if wanted is not None and not (start == wanted.start < stop <= wanted.stop):
        raise _contradiction(request, says)
    return Span(start, stop)


def _contradiction(request: Request, says: HeadSays) -> RefusedError:
    wanted = request.span or "all"
    answer = f"{list(says.span) if says.span else 'all'} of {says.total}"
    return RefusedError(f"GET {shown(request.url)}: the plugin was asked for {wanted}: {answer}")
