"""The pages of an LMDB file, one at a time, read without LMDB: nothing in them is believed.

Source: mdb.c of LMDB 0.9, ``MDB_page``, ``MDB_node``, ``MDB_db``, ``MDB_meta``; ``mdb_page_flush``
(which flags reach the disk), ``mdb_node_add`` and ``mdb_node_del`` (nodes lie one behind the other
at the end of a page, each at an even place).
"""

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

BRANCH, LEAF, OVERFLOW, META_PAGE = 1, 2, 4, 8
"""Kinds of pages."""
BIG, TABLE = 1, 2
"""Flags of a node: its value lies in pages of its own; it is a table."""
METAS: Final = 2
"""Pages that tell where everything is; commits take turns to write them."""
HEADER: Final = 16
"""Bytes of a page before its content."""
_HEADER: Final = struct.Struct("<QHHHH")
_NODE: Final = struct.Struct("<HHHH")
_TREE: Final = struct.Struct("<IHHQQQQQ")
_META: Final = struct.Struct("<IIQQ")
_META_END: Final = struct.Struct("<QQ")
_MAGIC: Final = 0xBEEFC0DE
_FORMAT: Final = 1
_SIZES: Final = frozenset({512 << shift for shift in range(8)})
"""Bytes that a page may have."""


class DamageError(Exception):
    """The file is not what LMDB wrote. The text says where."""


class Tree(NamedTuple):
    """What LMDB has written down of one tree of pages."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int

    @classmethod
    def parse(cls, raw: bytes) -> "Tree":
        """The tree in the bytes of a table's node.

        Raises:
            DamageError: it is none.
        """
        if len(raw) != _TREE.size:
            raise DamageError("the list of tables names something else")
        return cls(*_TREE.unpack(raw))


class Meta(NamedTuple):
    """One of the pages that tell where everything is. ``number`` is that of its commit."""

    page_size: int
    free: Tree
    main: Tree
    last: int
    number: int


class Node(NamedTuple):
    """A record of a page, or what leads to another page.

    ``value`` is what lies in the page itself; ``length`` is that of all of it. ``child`` is the
    page that a node of a branch leads to.
    """

    key: bytes
    value: bytes
    length: int
    child: int
    flags: int


def metas(descriptor: int) -> tuple[Meta, Meta]:
    """The two pages that tell where everything is.

    Raises:
        DamageError: they are none, or contradict each other.
        OSError: the disk failed.
    """
    head = os.pread(descriptor, HEADER + _META.size + _TREE.size, 0)
    if len(head) < HEADER + _META.size + _TREE.size:
        raise DamageError("it has no first page")
    size = _TREE.unpack_from(head, HEADER + _META.size)[0]
    if size not in _SIZES:
        raise DamageError(f"its pages are said to have {size} bytes")
    first, second = (_meta(os.pread(descriptor, size, each * size), each) for each in range(METAS))
    if first.page_size != second.page_size:
        raise DamageError("its first pages do not agree on the size of a page")
    apart = abs(first.number - second.number)
    if apart > 1 or (apart and first.number % METAS):
        raise DamageError("its first pages are not those of two commits in a row")
    return first, second


def _meta(page: bytes, number: int) -> Meta:
    place = HEADER + _META.size
    if len(page) < place + 2 * _TREE.size + _META_END.size:
        raise DamageError(f"page {number} is cut short")
    at, _, flags, _, _ = _HEADER.unpack_from(page)
    magic, version, _, _ = _META.unpack_from(page, HEADER)
    if (at, flags, magic, version) != (number, META_PAGE, _MAGIC, _FORMAT):
        raise DamageError(f"page {number} is no first page")
    free = Tree(*_TREE.unpack_from(page, place))
    main = Tree(*_TREE.unpack_from(page, place + _TREE.size))
    last, commit = _META_END.unpack_from(page, place + 2 * _TREE.size)
    return Meta(free.pad, free, main, last, commit)


def nodes(page: bytes, number: int, kind: int) -> Iterator[Node]:
    """The nodes of a branch or a leaf, in their order.

    Args:
        page: all of its bytes.
        number: of the page.
        kind: ``BRANCH`` or ``LEAF``.

    Raises:
        DamageError: it is another page, or cannot be right.
    """
    at, _, flags, lower, upper = _HEADER.unpack_from(page)
    if at != number or flags != kind:
        raise DamageError("it is another one")
    if lower % 2 or not HEADER <= lower <= upper <= len(page):
        raise DamageError("its bounds are wrong")
    pointers = struct.unpack_from(f"<{(lower - HEADER) // 2}H", page, HEADER)
    taken: list[tuple[int, int]] = []
    for pointer in pointers:
        if pointer + _NODE.size > len(page):
            raise DamageError("a record lies outside of it")
        low, high, top, keys = _NODE.unpack_from(page, pointer)
        begin = pointer + _NODE.size + keys
        length = low | high << 16
        inside = 0 if kind == BRANCH else 8 if top & BIG else length
        if begin + inside > len(page):
            raise DamageError("a record reaches beyond it")
        taken.append((pointer, _NODE.size + keys + inside))
        key = page[pointer + _NODE.size : begin]
        yield Node(key, page[begin : begin + inside], length, length | top << 32, top)
    place = upper
    for pointer, length in sorted(taken):
        if pointer != place:
            raise DamageError("its records do not lie one behind the other")
        place += length + (length & 1)
    if place != len(page):
        raise DamageError("its records end before it does")


def overflow(head: bytes, number: int, needed: int) -> int:
    """How many pages hold a value that needs ``needed`` of them, by the head of the first.

    They may be more than it needs: LMDB writes a shorter value over a longer one in its place.

    Raises:
        DamageError: it is another page, or they are too few.
    """
    if len(head) < HEADER:
        raise DamageError("it holds no such value")
    at, _, flags, low, high = _HEADER.unpack_from(head)
    if at != number or flags != OVERFLOW or low | high << 16 < needed:
        raise DamageError("it holds no such value")
    return int(low | high << 16)
