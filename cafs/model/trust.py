"""Trust: what stands behind bytes, and what a reader needs to stand behind them."""

import enum
from typing import Final

import msgspec

from cafs.model.digest import Digest


class Trust(enum.StrEnum):
    """What stands behind the bytes that a reader gets.

    ``VERIFIED``: they are, or were decoded here from, a blob that was checked as a whole against
    the digest that it must have. ``VOUCHED``: each piece was checked against an index that a lock
    file names, or against a table of contents that the image's manifest names; the blob has not
    been checked as a whole. ``WEAK``: it was, but all that it was checked against is md5 or sha1;
    so it is for refs with that pin, and for nobody else. ``PROVISIONAL``: nobody says what they
    must be, or they have not been checked yet.
    """

    VERIFIED = "verified"
    VOUCHED = "vouched"
    WEAK = "weak"
    PROVISIONAL = "provisional"


class Need(msgspec.Struct, frozen=True):
    """What must stand behind bytes of a stream for one reader.

    ``verified``: they must come from a blob that was checked as a whole, whichever. ``source``:
    they must come from this one. The streams of one key are not always decoded from the same bytes:
    where no digest pins the raw content, its source may have sent others since.
    """

    verified: bool = False
    source: Digest | None = None

    def met(self, source: Digest | None) -> bool:
        """Whether bytes will do that come from this blob; None where nothing stands behind them."""
        if self.source is not None:
            return source == self.source
        return source is not None or not self.verified


ANYTHING: Final = Need()
"""For who reads what no digest pins."""
VERIFIED: Final = Need(verified=True)
