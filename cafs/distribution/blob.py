"""Blobs: one file at a URL, or with a digest and nothing more."""

import time

from typing_extensions import override

from cafs.distribution.interfaces import Handler, Note, OpenTree
from cafs.distribution.parts import UrlParts
from cafs.errors import UnsupportedError
from cafs.fetch.interfaces import Content, Patience
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, Ref
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec


def shape_of(ref: Ref) -> Shape:
    """How a ref appears in the mount, from the ref alone."""
    return Shape.FILE if isinstance(ref, BlobRef | DigestRef) else Shape.TREE


def title(spec: RefSpec) -> str:
    """What people call the ref: its name in the settings, else its short form without secrets."""
    return spec.name or spec.ref.shown


class BlobHandler(Handler):
    """Refs to one blob.

    Concurrency: any number of tasks.
    """

    def __init__(self, parts: UrlParts) -> None:
        self._parts = parts

    @override
    async def resolve(self, spec: RefSpec, previous: Resolved | None, note: Note) -> Resolved:
        part = await self._part(spec, previous, note)
        return Resolved(
            ref=spec.ref.canonical,
            shape=shape_of(spec.ref),
            digest=part.digest,
            parts=(part,),
            resolved_ns=time.time_ns(),
        )

    async def _part(self, spec: RefSpec, previous: Resolved | None, note: Note) -> Part:
        ref = spec.ref
        pin = ref.digest if isinstance(ref, DigestRef) else spec.integrity
        urls = (ref.url, *spec.mirrors) if isinstance(ref, BlobRef | ArchiveRef) else spec.mirrors
        if pin is None:
            return await self._parts.located(urls, name=title(spec), pull=spec.pull, note=note)
        return await self._parts.pinned(
            pin,
            urls,
            name=title(spec),
            pull=spec.pull,
            note=note,
            previous=previous.parts[0] if previous is not None else None,
        )

    @override
    async def open_tree(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> OpenTree:
        raise UnsupportedError(
            f"{title(spec)}: a file, not an archive",
            hint=f"archive+{spec.ref.shown} opens it as one",
        )

    @override
    async def open_file(
        self, spec: RefSpec, resolved: Resolved, patience: Patience, *, part: int = 0
    ) -> Content:
        return await self._parts.content(
            resolved.parts[part], patience, name=title(spec), verify=spec.verify
        )
