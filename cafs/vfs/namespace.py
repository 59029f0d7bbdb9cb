"""What a path of the mount means, from its text and the settings' names alone. Pure.

A path is a tuple of components below the mount's whole namespace (not below its view). Paths end
where a ref, a blob or a control file is reached: what lies inside a ref is the business of its
tree. The texts of refs in paths are those of ``cafs.model.refpath``.
"""

import os
from collections.abc import Collection
from typing import Final, TypeAlias, assert_never

import msgspec

from cafs.errors import InvalidReferenceError, UsageError
from cafs.model import refpath
from cafs.model.digest import CANONICAL, SIZES, Digest
from cafs.model.ref import Ref

Path: TypeAlias = tuple[str, ...]
"""Components, none of them empty, ``.`` or ``..``; () is the root."""

CONTROL: Final = ".cafs"
TOP: Final = ("digest", "ref", "tree")
"""What the root lists. ``.cafs`` is found, and never listed."""
AD_HOC: Final = ("archive", "blob", "docker")
"""What ``ref/`` lists beside the named refs."""
LISTED_ALGORITHMS: Final = (CANONICAL,)
"""What ``digest/`` and ``tree/`` list; the other algorithms are found, as aliases."""
_MAX_ALIASES: Final = 40
"""How many symlinks a view may go through, as in path_resolution(7)."""


class Root(msgspec.Struct, frozen=True):
    """The root of the namespace."""


class RefRoot(msgspec.Struct, frozen=True):
    """``ref``."""


class NamedRef(msgspec.Struct, frozen=True):
    """``ref/<name>``: a ref of the settings, directory or file."""

    name: str


class AdHocDirectory(msgspec.Struct, frozen=True):
    """A part of a ref's path below ``ref/docker`` and its like: more components must come."""


class AdHocRef(msgspec.Struct, frozen=True):
    """A ref that its path spells out, directory or file."""

    ref: Ref


class Alias(msgspec.Struct, frozen=True):
    """Another spelling of a path: a symlink with a relative target."""

    target: str


class DigestRoot(msgspec.Struct, frozen=True):
    """``digest``."""


class DigestAlgorithm(msgspec.Struct, frozen=True):
    """``digest/<algorithm>``."""

    algorithm: str


class DigestBlob(msgspec.Struct, frozen=True):
    """``digest/<algorithm>/<hex>``: a blob's bytes, as a file."""

    digest: Digest


class TreeRoot(msgspec.Struct, frozen=True):
    """``tree``."""


class TreeAlgorithm(msgspec.Struct, frozen=True):
    """``tree/<algorithm>``."""

    algorithm: str


class TreeBlob(msgspec.Struct, frozen=True):
    """``tree/<algorithm>/<hex>``: a blob opened as an archive."""

    digest: Digest


class Control(msgspec.Struct, frozen=True):
    """``.cafs``."""


class ControlFile(msgspec.Struct, frozen=True):
    """``.cafs/<name>``; whether there is such a file is known to the control files alone."""

    name: str


Opener: TypeAlias = NamedRef | AdHocRef | TreeBlob
"""What may show a tree."""
Node: TypeAlias = (
    Root
    | RefRoot
    | AdHocDirectory
    | Alias
    | DigestRoot
    | DigestAlgorithm
    | DigestBlob
    | TreeRoot
    | TreeAlgorithm
    | Control
    | ControlFile
    | Opener
)


def node_at(path: Path, names: Collection[str]) -> Node | None:
    """What a path is; None when there is no such path. ``names`` are those of the named refs."""
    if not path:
        return Root()
    top, below = path[0], path[1:]
    match top:
        case "ref":
            return _below_ref(below, names)
        case "digest":
            return _below_digest(below)
        case "tree":
            return _below_tree(below)
        case ".cafs":
            return _below_control(below)
        case _:
            return None


def _below_ref(path: Path, names: Collection[str]) -> Node | None:
    if not path:
        return RefRoot()
    if path[0] in names:
        return NamedRef(path[0]) if len(path) == 1 else None
    meaning = refpath.step(tuple(os.fsencode(component) for component in path))
    match meaning:
        case refpath.Partial():
            return AdHocDirectory()
        case refpath.Complete(ref):
            return AdHocRef(ref)
        case refpath.Alias(target):
            return Alias(target)
        case refpath.Absent():
            return None
        case _:
            assert_never(meaning)


def _below_digest(path: Path) -> Node | None:
    match path:
        case ():
            return DigestRoot()
        case (algorithm,) if algorithm in SIZES:
            return DigestAlgorithm(algorithm)
        case (algorithm, digits):
            digest = _digest(algorithm, digits)
            return DigestBlob(digest) if digest is not None else None
        case _:
            return None


def _below_tree(path: Path) -> Node | None:
    match path:
        case ():
            return TreeRoot()
        case (algorithm,) if algorithm in SIZES:
            return TreeAlgorithm(algorithm)
        case (algorithm, digits):
            digest = _digest(algorithm, digits)
            return TreeBlob(digest) if digest is not None else None
        case _:
            return None


def _below_control(path: Path) -> Node | None:
    match path:
        case ():
            return Control()
        case (name,):
            return ControlFile(name)
        case _:
            return None


def _digest(algorithm: str, digits: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{digits}")
    except InvalidReferenceError:
        return None


class View(msgspec.Struct, frozen=True):
    """What a mount shows at its root: a node, and a path inside its tree (else ())."""

    path: Path
    node: Node
    inside: tuple[bytes, ...]


def view_at(text: str, names: Collection[str]) -> View:
    """Understand ``--view``: a path of the namespace, or one inside a directory ref.

    Raises:
        UsageError: no such path, or a path through a file.
    """
    rest = [component for component in text.split("/") if component not in ("", ".")]
    path: Path = ()
    node: Node = Root()
    aliases = 0
    while rest and not isinstance(node, Opener):
        child = (*path, rest.pop(0))
        found = node_at(child, names)
        if found is None or isinstance(found, DigestBlob | Control | ControlFile):
            raise UsageError(
                f"view {text!r}: there is no directory {'/'.join(child)!r}",
                hint=f"a view is '/', 'ref', 'ref/NAME' or a path inside a ref; names: "
                f"{', '.join(sorted(names)) or 'none'}",
            )
        if isinstance(found, Alias):
            aliases += 1
            if aliases > _MAX_ALIASES:
                raise UsageError(f"view {text!r}: too many levels of symbolic links")
            path, rest = _follow(path, found.target, rest)
            node = _known(path, names)
            continue
        path, node = child, found
    return View(path, node, tuple(os.fsencode(component) for component in rest))


def _follow(parent: Path, target: str, rest: list[str]) -> tuple[Path, list[str]]:
    steps = target.split("/")
    up = steps.count("..")
    return parent[: len(parent) - up], [*steps[up:], *rest]


def _known(path: Path, names: Collection[str]) -> Node:
    node = node_at(path, names)
    if node is None:
        raise UsageError(f"there is no directory {'/'.join(path)!r}")
    return node
