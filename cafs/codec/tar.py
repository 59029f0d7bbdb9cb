"""Tar archives as a forward read: headers become members, content passes by.

ustar, v7, GNU (long names, sparse files, base-256 numbers) and PAX. What GNU tar takes with a shrug
is taken (no zeros at the end, junk behind them); what it takes with an error is an error.

* Memory does not grow with the archive: one member's headers at a time.
* The input is read strictly forward, in pieces of at most 1 MiB, so that a caller's ``read`` sees
  every byte of the decoded stream once and in order.
* Nothing of a path is resolved here; that is the planter's part.

Source:
    POSIX.1-2017 pax; GNU tar manual, "Tar Internals"; GNU tar 1.34 as the oracle in tests.
"""

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from cafs.codec import pax, tar_sparse
from cafs.codec.naming import label
from cafs.codec.tar_header import BLOCK, KINDS, Header, HeaderParser
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import TOO_MUCH, Limits
from cafs.model.member import Kind, Member

_PIECE: Final = 1 << 20
_LINKS: Final = frozenset((Kind.SYMLINK, Kind.HARD_LINK))
_ZEROS: Final = bytes(BLOCK)
_EXTENSIONS: Final = frozenset(b"LKxgX")
_FILES: Final = frozenset((b"0", b"\0", b"7"))
_OLD_SPARSE: Final = b"S"
_VOLUME: Final = b"V"
_SPLIT: Final = frozenset((b"M", b"N"))
_DUMP_DIRECTORY: Final = b"D"


def members(
    read: Callable[[int], bytes], *, name: str, limits: Limits | None = None
) -> Iterator[Member]:
    """Read an archive to its end.

    A member is yielded when its headers have been read and before its content is; asking for the
    next one reads the content. The rest of the input behind the end mark is read too.

    Args:
        read: the decoded stream from its beginning: at most as many bytes as asked for, none only
            at the end.
        name: what errors call the archive.
        limits: the defaults of ``Limits`` when None.

    Raises:
        MalformedError: no tar archive, damaged, truncated, or beyond the limits. It names the
            member, or the place.
        UnsupportedError: a member that continues on another volume.
    """
    return _Archive(read, name, limits or Limits()).members()


class _Input:
    """The decoded stream, and where in it we are."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, at most 1 MiB; fewer only at the end."""
        data = self._read(size)
        if 0 < len(data) < size:
            parts = [data]
            missing = size - len(data)
            while missing and (more := self._read(missing)):
                parts.append(more)
                missing -= len(more)
            data = b"".join(parts)
        self.at += len(data)
        return data

    def pass_by(self, size: int) -> bool:
        """Read and drop bytes; whether there were so many."""
        while size > 0:
            step = min(size, _PIECE)
            if len(self.take(step)) < step:
                return False
            size -= step
        return True


class _Archive:
    """The state between headers: extensions that wait for their member."""

    def __init__(self, read: Callable[[int], bytes], name: str, limits: Limits) -> None:
        self._input = _Input(read)
        self._name = name
        self._limits = limits
        self._headers = HeaderParser(name)
        self._global = pax.NOTHING
        self._block = _ZEROS
        self._clear()

    def _clear(self) -> None:
        self._own: pax.Extension | None = None
        self._long_path: bytes | None = None
        self._long_link: bytes | None = None
        self._extended = False

    def members(self) -> Iterator[Member]:
        """All members, in order."""
        count = 0
        while (header := self._next()) is not None:
            if header.flag[0] in _EXTENSIONS:
                self._extend(header)
                continue
            count += 1
            if count > self._limits.members:
                raise MalformedError(
                    f"{self._name}: more than {self._limits.members} members",
                    hint=TOO_MUCH,
                )
            self._check(header)
            start = self._input.at
            stored = self._stored(header)
            member = self._member(header, stored)
            if stored > self._limits.size - start:
                raise self._malformed(member.path, f"its size is {stored} bytes")
            if header.flag == _OLD_SPARSE:
                # Blocks that continue its map are no part of its size.
                start = member.offset
            stop = start + stored + -stored % BLOCK
            self._clear()
            if header.flag != _VOLUME:
                yield member
            if not self._input.pass_by(stop - self._input.at):
                raise self._malformed(member.path, "the archive ends within its content")

    def _next(self) -> Header | None:
        """The next header; None at the end, when all the input has been read."""
        at = self._input.at
        block = self._input.take(BLOCK)
        if len(block) == BLOCK and block != _ZEROS:
            self._block = block
            return self._headers.parse(block, at)
        if len(block) < BLOCK and (block or not at):
            what = f"the archive ends within the header at byte {at}" if at else "not a tar archive"
            raise MalformedError(f"{self._name}: {what}")
        if self._extended:
            raise MalformedError(f"{self._name}: the archive ends behind an extended header")
        while self._input.take(_PIECE):
            pass
        return None

    def _extend(self, header: Header) -> None:
        """Keep what an extension header says for the member that follows it."""
        size = header.size
        if not 0 <= size <= self._limits.header_bytes:
            raise self._malformed(header.path, f"an extended header of {size} bytes")
        padded = size + -size % BLOCK
        data = bytearray()
        while len(data) < padded:
            piece = self._input.take(min(padded - len(data), _PIECE))
            if not piece:
                raise self._malformed(header.path, "the archive ends within an extended header")
            data += piece
        content = bytes(data[:size])
        match header.flag:
            case b"L":
                self._long_path = content.partition(b"\0")[0]
            case b"K":
                self._long_link = content.partition(b"\0")[0]
            case b"g":
                self._global = self._records(header, content, self._global, pax.parse_global)
            case _:
                self._own = self._records(header, content, self._global, pax.parse)
        self._extended = header.flag != b"g"

    def _records(
        self,
        header: Header,
        content: bytes,
        base: pax.Extension,
        parse: Callable[[bytes, pax.Extension], pax.Extension],
    ) -> pax.Extension:
        try:
            return parse(content, base)
        except ValueError as error:
            raise self._malformed(header.path, str(error)) from error

    def _check(self, header: Header) -> None:
        """Refuse what only another volume can complete."""
        if header.flag in _SPLIT:
            raise UnsupportedError(
                f"{label(self._name, header.path)} is continued on another volume"
            )

    def _stored(self, header: Header) -> int:
        """How many bytes of content follow the header: links and directories have none."""
        extension = self._own or self._global
        size = header.size if extension.size is None else extension.size
        if size < 0:
            raise self._malformed(header.path, f"its size is {size} bytes")
        return 0 if header.flag in KINDS and header.flag != _DUMP_DIRECTORY else size

    def _member(self, header: Header, stored: int) -> Member:
        extension = self._own or self._global
        path = header.path if self._long_path is None else self._long_path
        link = header.link if self._long_link is None else self._long_link
        mtime_ns, uid, gid = header.mtime_ns, header.uid, header.gid
        if extension is not pax.NOTHING:
            path = path if extension.path is None else extension.path
            link = link if extension.link is None else extension.link
            mtime_ns = mtime_ns if extension.mtime_ns is None else extension.mtime_ns
            uid = uid if extension.uid is None else extension.uid
            gid = gid if extension.gid is None else extension.gid
        kind = KINDS.get(header.flag, Kind.FILE)
        if path[-1:] == b"/":
            path = path.rstrip(b"/")
            # Before there were directories in headers, a slash told them.
            kind = Kind.DIRECTORY if header.flag in _FILES else kind
        if len(path) > self._limits.path_bytes or len(link) > self._limits.path_bytes:
            raise self._malformed(path, f"a path of more than {self._limits.path_bytes} bytes")
        member = Member(
            path=path,
            kind=kind,
            mode=header.mode,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            size=stored if kind is Kind.FILE else 0,
            offset=self._input.at,
            target=link if kind in _LINKS else None,
            device=header.device,
            xattrs=extension.xattrs,
        )
        if header.flag == _OLD_SPARSE or (kind is Kind.FILE and extension.sparse is not None):
            return self._sparse(member, extension.sparse, stored)
        return member

    def _sparse(self, member: Member, notes: pax.SparseNotes | None, stored: int) -> Member:
        """Complete a sparse file: its real size, its pieces, and where their data begins."""
        start = self._input.at
        try:
            if notes is None:
                pieces, size = tar_sparse.old_map(self._block, self._input.take, self._limits)
                stored += self._input.at - start
            else:
                size = notes.size
                pieces = notes.pieces or ()
                if notes.in_content:
                    pieces = tar_sparse.map_in_content(self._input.take, stored, self._limits)
                if notes.name is not None:
                    member = replace(member, path=notes.name)
            begin = self._input.at
            tar_sparse.check(pieces, size, stored - (begin - start), self._limits)
        except ValueError as error:
            raise self._malformed(member.path, f"its sparse map is damaged: {error}") from error
        return replace(
            member,
            size=size,
            offset=begin,
            sparse=tuple(piece for piece in pieces if piece.length),
        )

    def _malformed(self, path: bytes, what: str) -> MalformedError:
        return MalformedError(f"{label(self._name, path)}: {what}")
