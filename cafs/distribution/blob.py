"""Blobs: one file at a URL, or with a digest and nothing more."""

import time

from typing_extensions import override

from cafs.distribution.files import Files
from cafs.distribution.interfaces import Handler, Note, OpenTree
from cafs.distribution.naming import shape_of, title
from cafs.distribution.parts import UrlParts
from cafs.distribution.stronger import pin_of
from cafs.errors import UnsupportedError
from cafs.fetch.interfaces import Content, Patience
from cafs.model.ref import ArchiveRef, BlobRef
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec


class BlobHandler(Handler):
    """Refs to one blob.

    Concurrency: any number of tasks.
    """

    def __init__(self, parts: UrlParts, files: Files) -> None:
        self._parts = parts
        self._files = files

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
        pin = pin_of(spec)
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
        # It is read whole before its first byte is given: so it can be what the pin says.
        pinned = await self._files.held(spec, resolved.parts[part])
        return await self._parts.content(pinned, patience, name=title(spec), verify=spec.verify)

    @override
    async def open_shown(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> Content:
        part = resolved.parts[0]
        # The index of an archive says what it decodes to, and not what it is.
        if resolved.shape is Shape.FILE and part.index is not None:
            await self._files.held(spec, part)
            raw = await self._parts.content(part, patience, name=title(spec))
            content = await self._files.by_pieces(spec, part, raw, patience)
            if content is not None:
                return content
        return await super().open_shown(spec, resolved, patience)
