"""Paths given on the command line, followed in a file system that is not mounted."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cafs.cli.choosing import is_ref
from cafs.errors import NotFoundError, UsageError
from cafs.model.member import Kind
from cafs.model.nearest import nearest_hint
from cafs.model.ref import DigestRef, parse_ref
from cafs.model.refpath import path_of
from cafs.vfs.attributes import Attributes
from cafs.vfs.filesystem import FileSystem

_ROOT: Final = 1
_TOP: Final = ("ref", "digest", "tree", ".cafs")
_LINKS: Final = 40
"""Symlinks followed in one path, as the kernel does (path_resolution(7))."""


def mount_path(text: str, names: Iterable[str]) -> str:
    """The path below the mount that a person means.

    A ref (``docker://…``, ``https://…``), a name from cafs.toml with a path in it
    (``toolchain/bin``), or a path as the mount has it (``ref/toolchain/bin``).

    Raises:
        InvalidReferenceError: it looks like a ref and is none.
        NotFoundError: it begins with neither a name nor anything that a mount has at its top.
    """
    if is_ref(text):
        ref = parse_ref(text, base=Path.cwd(), schemes=None)
        if isinstance(ref, DigestRef):
            return f"digest/{ref.digest.algorithm}/{ref.digest.hex}"
        return f"ref/{path_of(ref)}"
    clean = text.strip("/")
    first, known = clean.split("/", 1)[0], sorted(names)
    if first in known:
        return f"ref/{clean}"
    if first not in {"", ".", "..", *_TOP}:
        raise NotFoundError(
            f"{text!r}: no ref is named {first!r}", hint=nearest_hint(first, [*known, *_TOP])
        )
    return clean


async def follow(filesystem: FileSystem, path: str) -> Attributes:
    """The node at a path, symlinks followed inside the mount; absolute ones are refused.

    Raises:
        NotFoundError: there is no such path.
        UsageError: a symlink leads out of the mount, or in circles.
    """
    trail = [await filesystem.attributes(_ROOT)]
    pending = _components(path.encode(errors="surrogateescape"))
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            trail = trail[:-1] or trail
            continue
        if trail[-1].kind is not Kind.DIRECTORY:
            raise NotFoundError(f"{path}: a file stands where a directory should")
        node = await filesystem.lookup(trail[-1].inode, name)
        if not node.inode:
            # Inside a tree a name that is not there never will be: an answer, for a kernel.
            raise NotFoundError(f"{path}: no {os.fsdecode(name)!r} there")
        if node.kind is not Kind.SYMLINK:
            trail.append(node)
            continue
        links += 1
        target = await filesystem.readlink(node.inode)
        if links > _LINKS or target.startswith(b"/"):
            raise UsageError(f"{path}: the symlink to {target.decode(errors='replace')} leads away")
        pending += _components(target)
    # A lookup asks no source; the attributes are those of the content, wherever it is.
    return await filesystem.attributes(trail[-1].inode)


def _components(path: bytes) -> list[bytes]:
    """The components of a path, the first one last, without empty ones and ``.``."""
    return [each for each in reversed(path.split(b"/")) if each not in {b"", b"."}]
