"""From nodes of the namespace to what they show: specs, trees, content."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias, assert_never

from cachetools import LRUCache

from cafs.distribution.interfaces import OpenTree
from cafs.errors import PolicyError
from cafs.fetch.content.exposing import Exposure, Exposures
from cafs.fetch.interfaces import Content, Patience
from cafs.model.ref import Ref
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.vfs.crowding import Crowds, Request
from cafs.vfs.interfaces import Digests, Policy, Refs
from cafs.vfs.namespace import AdHocRef, DigestBlob, NamedRef, Node, TreeBlob

Shown: TypeAlias = NamedRef | AdHocRef | DigestBlob | TreeBlob
"""Nodes with content of their own; which of them are trees is for ``Opening.shape`` to say."""
Told: TypeAlias = Callable[[Iterable[Part]], str | None]
"""Says what speaks against how parts are read, one line; None where nothing does."""


def nothing(parts: Iterable[Part]) -> None:
    """Nothing speaks against them."""
    del parts


_MADE: Final = 1024
"""Specs of refs that were named by path, which are remembered: making one costs as much as a look
into the store."""


class Opening:
    """Opens what nodes show.

    Args:
        refs: opens refs.
        digests: opens content by digest.
        policy: says which refs a path may name.
        specs: the named refs, by name.
        ad_hoc: makes the spec of a ref that was named by path.
        deadline_s: how long content that was named by digest is waited for, without progress.
        exposures: what the mount handed out before it was checked.
        told: says what speaks against how parts are read, though they can be read; one line.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        refs: Refs,
        digests: Digests,
        policy: Policy,
        specs: Mapping[str, RefSpec],
        *,
        ad_hoc: Callable[[Ref], RefSpec],
        deadline_s: float | None,
        exposures: Exposures,
        told: Told = nothing,
    ) -> None:
        self._refs = refs
        self._digests = digests
        self._policy = policy
        self._specs = specs
        self._ad_hoc = ad_hoc
        self._deadline_s = deadline_s
        self._exposures = exposures
        self._told = told
        self._crowds = Crowds()
        self._made: LRUCache[Ref, RefSpec] = LRUCache(_MADE)

    def shape(self, node: Shown) -> Shape:
        """Whether a node is a file or shows a tree.

        Raises:
            PolicyError: a ref that no path may name.
        """
        match node:
            case DigestBlob():
                return Shape.FILE
            case TreeBlob():
                return Shape.TREE
            case NamedRef() | AdHocRef():
                return self._refs.shape(self._spec(node))
            case _:
                assert_never(node)

    def spec(self, node: Node) -> RefSpec | None:
        """The spec behind a node; None for a node that is no ref.

        Raises:
            PolicyError: a ref that no path may name.
        """
        return self._spec(node) if isinstance(node, NamedRef | AdHocRef) else None

    def allowed(self, node: Node) -> bool:
        """Whether a path may name a node; what one worker allowed, the next may not."""
        try:
            self.spec(node)
        except PolicyError:
            return False
        return True

    def request(self, node: Shown) -> Request:
        """A request for what a node shows: the block in which it is answered.

        Raises:
            PolicyError: a ref that no path may name.
        """
        match node:
            case NamedRef() | AdHocRef():
                spec = self._spec(node)
                what = spec.name or spec.ref.shown
                return Request(self._crowds, spec.key, what, spec.deadline_s)
            case TreeBlob(digest) | DigestBlob(digest):
                text = str(digest)
                return Request(self._crowds, text, text, self._deadline_s)
            case _:
                assert_never(node)

    async def tree(self, node: Shown, patience: Patience) -> OpenTree:
        """The tree that a node shows; ``patience`` is that of a ``request`` for it.

        Raises:
            CafsError: it cannot be resolved, fetched or read.

        Cancellation: what has been fetched stays.
        """
        match node:
            case NamedRef() | AdHocRef():
                return await self._refs.tree(self._spec(node), patience)
            case TreeBlob(digest) | DigestBlob(digest):
                return await self._digests.blob_tree(digest, patience)
            case _:
                assert_never(node)

    async def content(self, node: Shown, patience: Patience) -> Content:
        """The content of a node that is a file; ``patience`` is that of a ``request`` for it.

        Raises:
            CafsError: it cannot be resolved or found.

        Cancellation: what has been fetched stays.
        """
        match node:
            case NamedRef() | AdHocRef():
                return await self._refs.file(self._spec(node), patience)
            case TreeBlob(digest) | DigestBlob(digest):
                return await self._digests.blob_content(digest, patience)
            case _:
                assert_never(node)

    async def check(self, node: TreeBlob) -> None:
        """Make sure that there is somebody to have from what a digest names; fetches none of it.

        Raises:
            NotFoundError: nothing here knows such content.
            CafsError: as ``Digests.check``.

        Cancellation: as ``Digests.check``.
        """
        with self.request(node) as patience:
            await self._digests.check(node.digest, patience)

    async def doubt(self, node: Node) -> None:
        """What came of a ref is not what it must be; see ``Refs.doubt``."""
        spec = self.spec(node)
        if spec is not None:
            await self._refs.doubt(spec)

    def peek(self, node: Node) -> Resolved | None:
        """What a ref means in this mount, when that is known; asks nobody."""
        spec = self.spec(node)
        return self._refs.peek(spec) if spec is not None else None

    def error(self, node: Node) -> str | None:
        """The last failure to resolve or open a ref, one line."""
        spec = self.spec(node)
        return self._refs.error(spec) if spec is not None else None

    def told(self, node: Node) -> str | None:
        """What speaks against how a ref is read, one line: its index in the lock is of no use."""
        resolved = self.peek(node)
        return None if resolved is None else self._told(resolved.parts)

    def unchecked(self, node: Node) -> Exposure | None:
        """What was handed out of a ref before it was checked, and has not been found right."""
        if self._exposures.none():
            return None
        spec, resolved = self.spec(node), self.peek(node)
        if spec is None or resolved is None:
            return None
        return self._exposures.of(resolved.parts, spec.verify)

    def disowned(self, node: Node) -> str | None:
        """Why a ref is not read any more, one line: it was wrong after it had been handed out."""
        if self._exposures.none():
            return None
        spec, resolved = self.spec(node), self.peek(node)
        if spec is None or resolved is None:
            return None
        return self._exposures.error(resolved.parts, spec.verify)

    def refuse(self, node: Node) -> None:
        """Refuse what a ref showed before it was checked, and what turned out to be wrong.

        Raises:
            DisownedError: it did.
        """
        if self._exposures.disowned():
            unchecked = self.unchecked(node)
            if unchecked is not None:
                unchecked.check()

    def _spec(self, node: NamedRef | AdHocRef) -> RefSpec:
        if isinstance(node, NamedRef):
            return self._specs[node.name]
        self._policy.check(node.ref)
        spec = self._made.get(node.ref)
        if spec is None:
            spec = self._made[node.ref] = self._ad_hoc(node.ref)
        return spec
