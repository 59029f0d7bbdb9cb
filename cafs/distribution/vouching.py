"""Vouching: which document says what the pieces of a part are, by its name."""

from cafs.fetch.content.vouching import Voucher
from cafs.model.identity import indexed_stream
from cafs.model.record import TreeStream
from cafs.model.resolved import Part


def by_index(part: Part, what: TreeStream) -> bool:
    """Whether it was an index that said what a stream is, and no table of contents."""
    return part.index is not None and what.key == indexed_stream(what.raw, part.index)


def voucher_of(part: Part, what: TreeStream) -> Voucher:
    """Who vouches for a stream of a part: the lock's index, or the manifest's table of contents."""
    if by_index(part, what) or part.contents is None:
        return Voucher(
            f"the index {part.index} that cafs.lock names", "cafs lock --check --full tells which"
        )
    return Voucher(f"the table of contents {part.contents.digest} that the manifest names")
