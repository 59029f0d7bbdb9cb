"""Plants members into a tree as GNU tar would extract them, inside the tree's root.

A member's path is text from a stranger. It is resolved here, against what was planted before it:

* Leading slashes and ``.`` components mean nothing; ``..`` is refused.
* A component that is a symlink is followed as if the tree's root were ``/``: nothing leaves it.
* Missing parents are made, with mode 0755 and mtime 0 until their own member tells otherwise.
* The last member of a name wins; a directory over a directory keeps what is in it.
* A hard link is another name of what its target names *now*; the target must be there.

Where GNU tar stops short of an extraction (it delays symlinks that point out of the directory, and
will not replace a directory that is not empty) the tree is what plain reading of the archive gives;
container images need that.

``links`` of a directory stays 1: by convention that means "not counted", and ``find`` then looks
into every directory instead of trusting the count.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from cafs.codec.naming import label
from cafs.errors import MalformedError
from cafs.model.limits import TOO_MUCH, Limits
from cafs.model.member import ROOT, Entry, Kind, Member
from cafs.store.trees.tree_writing import TreeWriter

_FOLLOWED: Final = 40
"""Symlinks followed for one path, as in Linux (MAXSYMLINKS)."""

_NAME_BYTES: Final = 255
"""Bytes of a name: more cannot be looked up."""

_REMEMBERED: Final = 4096
"""Directories whose paths are known by heart; members come directory by directory."""

_DIRECTORY_MODE: Final = 0o755
_SYMLINK_MODE: Final = 0o777
"""Linux has no other."""
_ODD: Final = frozenset((b"", b".", b".."))


class Planter:
    """Turns members, in their archive's order, into entries.

    Args:
        writer: of a tree without entries; the planter adds the root.
        name: what errors call the archive.
        limits: the defaults of ``Limits`` when None.
        strip: leading components removed, as ``tar --strip-components`` does; a member that has no
            more than these is not planted.
        stream: number of the tree's stream that the members' offsets count in.

    Image layers do more with a name than GNU tar does; their planter is a subclass that overrides
    ``plant``, ``_put``, ``_make`` and ``_target``.

    Concurrency: one caller at a time, in the thread of the writer.
    """

    def __init__(
        self,
        writer: TreeWriter,
        *,
        name: str,
        limits: Limits | None = None,
        strip: int = 0,
        stream: int = 0,
    ) -> None:
        self._writer = writer
        self._name = name
        self._limits = limits or Limits()
        self._strip = strip
        self._stream = stream
        self._directories: dict[bytes, int] = {}
        self._sha256 = b""
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=_DIRECTORY_MODE))

    def plant(self, member: Member, sha256: bytes = b"") -> int | None:
        """Plant a member; ``sha256`` is the raw digest of its content, where it has none itself.

        Returns:
            the number of its entry; None when ``strip`` left nothing of it.

        Raises:
            MalformedError: it would escape, has an impossible name, lies below what is no
                directory or in a loop of symlinks, links to what is not there, or is one too many.
        """
        self._sha256 = sha256 or member.sha256
        path = member.path
        if self._strip:
            stripped = _stripped(path, self._strip)
            if stripped is None:
                return None
            path = stripped
        head, _, name = path.rpartition(b"/")
        parent = self._directories.get(head)
        if (
            parent is None
            or name in _ODD
            or len(name) > _NAME_BYTES
            or b"\0" in name
            or len(path) > self._limits.path_bytes
            or path.count(b"/") >= self._limits.depth
        ):
            parts = self._parts(path, member)
            if not parts:
                return self._plant_root(member)
            last = parts.pop()
            parent = self._directory(parts, member)
            if last == name:
                # Else the head is not the parent's path: "a/b/." is "b" in "a".
                self._remember(head, parent)
            name = last
        if self._writer.count >= self._limits.members:
            raise MalformedError(
                f"{self._name}: more than {self._limits.members} entries",
                hint=TOO_MUCH,
            )
        return self._put(parent, name, path, member)

    def finish(self) -> None:
        """Say that all members were planted; nothing is left to be done then."""
        self._directories.clear()

    def _put(self, parent: int, name: bytes, path: bytes, member: Member) -> int:
        """Bind a member's entry to its name, instead of what had it."""
        if member.kind is Kind.SYMLINK and not member.target and not member.size:
            raise self._malformed(member, "a symlink without a text")
        before = self._writer.child(parent, name)
        if member.kind is Kind.HARD_LINK:
            return self._link(parent, name, before, member)
        entry = self._entry(parent, name, member)
        if before is not None:
            if entry.kind is Kind.DIRECTORY and self._kind(before) is Kind.DIRECTORY:
                self._writer.replace(before, entry)
                return before
            self._remove(parent, name, before)
        number = self._writer.add(entry)
        if entry.kind is Kind.DIRECTORY:
            self._remember(path, number)
        return number

    def _entry(self, parent: int, name: bytes, member: Member) -> Entry:
        return Entry(
            name=name,
            parent=parent,
            kind=member.kind,
            mode=_SYMLINK_MODE if member.kind is Kind.SYMLINK else member.mode,
            uid=member.uid,
            gid=member.gid,
            mtime_ns=member.mtime_ns,
            size=member.size,
            stream=self._stream,
            offset=member.offset,
            target=member.target,
            device=member.device,
            xattrs=member.xattrs,
            sparse=member.sparse,
            sha256=self._sha256,
        )

    def _plant_root(self, member: Member) -> int:
        if member.kind is not Kind.DIRECTORY:
            raise self._malformed(member, "the root of the archive can only be a directory")
        self._writer.replace(ROOT, self._entry(ROOT, b"", member))
        return ROOT

    def _link(self, parent: int, name: bytes, before: int | None, member: Member) -> int:
        """Give a file another name."""
        target = self._target(member)
        entry = self._writer.entry(target)
        if entry.kind is Kind.DIRECTORY:
            raise self._malformed(member, "a hard link to a directory")
        if before is not None:
            if before == target or self._writer.entry(before).link == target != ROOT:
                return before
            self._remove(parent, name, before)
            entry = self._writer.entry(target)
        self._writer.replace(target, replace(entry, links=entry.links + 1))
        return self._writer.add(
            Entry(name=name, parent=parent, kind=Kind.HARD_LINK, mode=entry.mode, link=target)
        )

    def _target(self, member: Member) -> int:
        """The number of the file that a hard link names, itself no hard link."""
        path = member.target or b""
        if self._strip:
            path = _stripped(path, self._strip) or b""
        parts = self._parts(path, member)
        if not parts:
            raise self._malformed(member, "a hard link to nothing")
        name = parts.pop()
        parent = self._walk(parts, member, make=False)
        found = None if parent is None else self._writer.child(parent, name)
        if found is None:
            shown = path[:200].decode("utf-8", "backslashreplace")
            raise self._malformed(member, f"a hard link to {shown!r}, which is not there")
        entry = self._writer.entry(found)
        return entry.link if entry.kind is Kind.HARD_LINK else found

    def _parts(self, path: bytes, member: Member) -> list[bytes]:
        """The components of a path, of which each is a possible name."""
        parts = _components(path)
        if b".." in parts:
            raise self._malformed(member, "its path leaves the archive ('..')")
        if len(parts) > self._limits.depth or len(path) > self._limits.path_bytes:
            raise self._malformed(
                member, f"a path of {len(path)} bytes, {len(parts)} components", hint="too deep"
            )
        for part in parts:
            if len(part) > _NAME_BYTES:
                raise self._malformed(member, f"a name of {len(part)} bytes")
            if b"\0" in part:
                raise self._malformed(member, "a NUL in its path")
        return parts

    def _directory(self, parts: list[bytes], member: Member) -> int:
        """The directory of that path, made where it is missing."""
        found = self._walk(parts, member, make=True)
        if found is None:
            raise AssertionError("a walk that makes directories finds one")
        return found

    def _walk(self, parts: Iterable[bytes], member: Member, *, make: bool) -> int | None:
        """Follow components from the root; None when one is missing and is not to be made."""
        at = ROOT
        left = [*parts][::-1]
        followed = 0
        while left:
            part = left.pop()
            if part == b"..":
                # Out of a symlink's text; the root is its own parent.
                at = self._writer.entry(at).parent
                continue
            number = self._writer.child(at, part)
            if number is None:
                if not make:
                    return None
                at = self._make(at, part)
                continue
            entry = self._writer.entry(number)
            if entry.kind is Kind.HARD_LINK:
                entry = self._writer.entry(entry.link)
            if entry.kind is Kind.DIRECTORY:
                at = number
            elif entry.kind is Kind.SYMLINK and entry.target is not None:
                followed += 1
                if followed > _FOLLOWED:
                    raise self._malformed(member, "a loop of symlinks on its path")
                if entry.target.startswith(b"/"):
                    at = ROOT
                left += self._text_parts(entry.target, member)[::-1]
            else:
                shown = part.decode("utf-8", "backslashreplace")
                raise self._malformed(member, f"it lies below {shown!r}, which is no directory")
        return at

    def _text_parts(self, text: bytes, member: Member) -> list[bytes]:
        """The components of a symlink's text."""
        parts = _components(text)
        if any(len(part) > _NAME_BYTES or b"\0" in part for part in parts):
            raise self._malformed(member, "a symlink with an impossible text on its path")
        return parts

    def _make(self, parent: int, name: bytes) -> int:
        return self._writer.add(
            Entry(name=name, parent=parent, kind=Kind.DIRECTORY, mode=_DIRECTORY_MODE)
        )

    def _remember(self, path: bytes, number: int) -> None:
        """Know a directory's number by its path as spelled."""
        if len(self._directories) >= _REMEMBERED:
            self._directories.clear()
        self._directories[path] = number

    def _kind(self, number: int) -> Kind:
        return self._writer.entry(number).kind

    def _remove(self, parent: int, name: bytes, number: int) -> None:
        """Take a name away, with all below it when it is a directory's."""
        if self._writer.entry(number).kind is Kind.DIRECTORY:
            for each in self._below(number):
                self._take_away(*each)
        self._take_away(parent, name, number)

    def _below(self, directory: int) -> Iterator[tuple[int, bytes, int]]:
        """All names below a directory: parent, name, number; parents before children."""
        pending = [directory]
        while pending:
            at = pending.pop()
            for name, number in self._writer.children(at):
                yield at, name, number
                if self._writer.entry(number).kind is Kind.DIRECTORY:
                    pending.append(number)

    def _take_away(self, parent: int, name: bytes, number: int) -> None:
        self._writer.unbind(parent, name)
        self._forget(number, self._writer.entry(number))

    def _forget(self, number: int, entry: Entry) -> None:
        """One name fewer leads to an entry."""
        if entry.kind is Kind.HARD_LINK:
            number = entry.link
            entry = self._writer.entry(number)
        if entry.kind is not Kind.DIRECTORY:
            self._writer.replace(number, replace(entry, links=entry.links - 1))
        if entry.kind in {Kind.DIRECTORY, Kind.SYMLINK}:
            # Paths may have led through it.
            self._directories.clear()

    def _malformed(self, member: Member, what: str, *, hint: str = "") -> MalformedError:
        return MalformedError(f"{label(self._name, member.path)}: {what}", hint=hint)


def _components(path: bytes) -> list[bytes]:
    """The components that mean something, ``..`` among them."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _stripped(path: bytes, count: int) -> bytes | None:
    """A path without its first components; None when it has no more than these.

    As GNU tar counts them: runs of slashes separate once, ``.`` is a component like others.
    """
    parts = [part for part in path.split(b"/") if part]
    return b"/".join(parts[count:]) if len(parts) > count else None
