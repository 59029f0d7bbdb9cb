"""What refs mean: asked for by each ref's own policy, and remembered for mounts to come.

Of what a lock names nobody is asked: it is held against what is known here, and believed.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from cafs.distribution.interfaces import Handler, Note
from cafs.distribution.lock_manifests import refuse_other_layers
from cafs.distribution.naming import title
from cafs.distribution.remembered import still_meant
from cafs.distribution.stronger import pin_of, refuse_another
from cafs.errors import DigestMismatchError, OfflineError, StorageFullError
from cafs.model.identity import located_stream
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef
from cafs.model.resolved import Part, Resolved
from cafs.model.span import Span
from cafs.model.spec import RefSpec
from cafs.model.validator import UNKNOWN_VERSION
from cafs.store.store import Store

_LOG = logging.getLogger(__name__)


class Meanings:
    """Finds out what refs mean, and records it for other mounts.

    Args:
        handler_of: who knows such refs.
        store: where answers and bytes are kept.
        offline: nobody may be asked anything.

    Concurrency: any number of tasks; two that ask the same both ask.
    """

    def __init__(
        self, handler_of: Callable[[RefSpec], Handler], store: Store, *, offline: bool
    ) -> None:
        self._handler_of = handler_of
        self._store = store
        self._offline = offline

    async def find(self, spec: RefSpec, note: Note) -> Resolved:
        """What the ref means now, as far as its policy lets anybody be asked.

        Args:
            spec: the ref.
            note: told of each failure that is tried again.

        Raises:
            OfflineError: nobody may be asked, and the store does not know.
            DigestMismatchError: a lock says what its pin, or its manifest, contradicts; or as
                ``pin_of``.
            UnsupportedError: as ``pin_of``.
            CafsError: as ``Handler.resolve``.

        Cancellation: it may have been recorded or not.
        """
        pin_of(spec)  # a lock does not make two that contradict each other right
        previous = still_meant(spec, self._store.references.latest(spec.source))
        resolved = await self._ask(spec, previous, note)
        if previous is None or replace(resolved, resolved_ns=previous.resolved_ns) != previous:
            if previous is not None and previous.digest != resolved.digest:
                _LOG.info("%s: now %s, was %s", title(spec), resolved.digest, previous.digest)
            await self._record(spec.source, resolved)
        return resolved

    async def doubt(self, spec: RefSpec) -> None:
        """What came is not what the ref's digest says: believe no size that only a source told.

        It may have been that of an error page. The next mount asks for it anew, instead of
        refusing for ever what is right.

        Cancellation: all or nothing.
        """
        latest = self._store.references.latest(spec.source)
        if latest is None or not isinstance(spec.ref, ArchiveRef | BlobRef | DigestRef):
            return
        parts = tuple(
            replace(part, size=None) if self._pinned(part) and not self._whole(part) else part
            for part in latest.parts
        )
        if parts != latest.parts:
            await self._record(spec.source, replace(latest, parts=parts))

    async def _record(self, source: str, resolved: Resolved) -> None:
        """Keep an answer for the next mount; on a full disk, that asks itself."""
        try:
            await self._store.references.record(source, resolved)
        except StorageFullError as error:
            _LOG.info("the answer is not kept for other mounts: %s", error.line)

    async def _ask(self, spec: RefSpec, previous: Resolved | None, note: Note) -> Resolved:
        """What the ref means, by its policy (R-24). Of what is locked nobody is asked."""
        if spec.locked is not None:
            await self._compare(spec, spec.locked)
            if isinstance(spec.ref, DockerRef):
                await refuse_other_layers(
                    self._store.blobs, spec.locked, name=spec.name, title=title(spec)
                )
            return replace(spec.locked, resolved_ns=time.time_ns())
        pull = "never" if self._offline else spec.pull
        if previous is not None and (
            pull == "never" or (pull == "new" and self._lasting(previous))
        ):
            return previous
        if pull == "new" and previous is not None:
            # What is remembered is neither here nor pinned: by now the source may have another
            # version, and half of each is of no use.
            pull = "update"
        handler = self._handler_of(spec)

        try:
            return await handler.resolve(replace(spec, pull=pull), previous, note)
        except OfflineError as error:
            hint = "mount once without --offline" if self._offline else 'pull = "never" is set'
            raise OfflineError(f"{title(spec)}: never resolved here", hint=hint) from error

    async def _compare(self, spec: RefSpec, locked: Resolved) -> None:
        """Refuse what is locked where a pin by another algorithm means something else.

        A pinned image's manifest is had for that, once: all that an image is follows from it.

        Raises:
            DigestMismatchError: it means something else.
            CafsError: the manifest cannot be had.
        """
        is_image = isinstance(spec.ref, DockerRef)
        said = locked.named if is_image else locked.digest
        if said is None or refuse_another(self._store, spec, said) or not is_image:
            return
        pull = "never" if self._offline else spec.pull
        asked = replace(spec, pull=pull, locked=None)
        found = await self._handler_of(spec).resolve(asked, None, lambda _: None)
        named = None if found.named is None else self._store.blobs.stat(found.named)
        if named is None or named.digest != said:
            actual = found.named if named is None else named.digest
            raise DigestMismatchError(f"{title(spec)}: cafs.lock", expected=actual, actual=said)

    def _lasting(self, resolved: Resolved) -> bool:
        """Whether the answer can still be read whatever the source has now."""
        return all(self._pinned(part) or self._whole(part) for part in resolved.parts)

    def _pinned(self, part: Part) -> bool:
        return part.digest is not None and part.validator == UNKNOWN_VERSION

    def _whole(self, part: Part) -> bool:
        if part.digest is not None and self._store.blobs.stat(part.digest) is not None:
            return True
        stream = self._store.streams.find(located_stream(part))
        if stream is None or stream.size is None:
            return False
        return stream.present().covers(Span(0, stream.size))
