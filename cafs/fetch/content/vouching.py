"""Vouching: who says what the pieces of a stream must be, as errors tell it.

Where a piece is wrong, either the source has something else, or the document that describes it is
wrong; a reader of the error has to know which document that is, and how to find out.
"""

from typing import Final

import msgspec


class Voucher(msgspec.Struct, frozen=True):
    """A document that says what each piece of a stream must be.

    ``name`` is what people call it ("the index sha256:… that cafs.lock names"). ``check`` says what
    finds out whether it is right; empty where there is nothing like that.
    """

    name: str
    check: str = ""


AN_INDEX: Final = Voucher("the index")
"""One of which no more is known than that."""


FILE: Final = "file"
"""What pieces are of that are not decoded, in words."""


def said(noun: str, voucher: Voucher | None) -> str:
    """Where it is written what a piece must be; None is what was decoded here before."""
    if voucher is not None:
        return f"where {voucher.name} says"
    return "where it was before" if noun == FILE else "where it was decoded before to"


def hint(noun: str, voucher: Voucher | None) -> str:
    """What may be the matter with a piece, and what to do.

    Args:
        noun: what the piece is of: "archive", "layer", "file".
        voucher: who says what it must be; None where it was decoded here before.
    """
    if voucher is None:
        return f"the {noun} at its source is another one now"
    check = f"; {voucher.check}" if voucher.check else ""
    return f"either its source has another {noun}, or {voucher.name} is wrong{check}"
