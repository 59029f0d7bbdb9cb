"""Content by digest: from the store, else from where a ref of the mount says that it is."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from cafs.distribution.archive import Archives
from cafs.distribution.interfaces import OpenTree
from cafs.distribution.recording import LAYER
from cafs.distribution.resolver import Resolver
from cafs.distribution.trees import Trees
from cafs.errors import NotFoundError
from cafs.fetch.content.member import MemberContent
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.making import ARCHIVE
from cafs.model.descriptor import OCTETS
from cafs.model.digest import Digest
from cafs.model.ref import DigestRef, DockerRef
from cafs.model.resolved import Part
from cafs.model.spec import RefSpec
from cafs.store.store import Store
from cafs.store.trees.members import MemberPlace

_PIECE: Final = 1 << 20


class Digests:
    """Opens blobs by digest, and blobs as archives.

    Only content that is checked against the digest is ever opened: what the store has verified, a
    member that was hashed in an archive that it has verified, or what a ref pins and is therefore
    fetched whole first. A weak digest (md5, sha1) names nothing.

    Args:
        store: what is there already.
        resolver: knows what the mount's refs mean.
        specs: the refs that may know where content is; asked for anew each time.
        fetcher: opens blobs.
        archives: opens trees.
        trees: opens trees.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        *,
        store: Store,
        resolver: Resolver,
        specs: Callable[[], Iterable[RefSpec]],
        fetcher: Fetcher,
        archives: Archives,
        trees: Trees,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._specs = specs
        self._fetcher = fetcher
        self._archives = archives
        self._trees = trees

    async def blob_content(self, digest: Digest, patience: Patience) -> Content:
        """The bytes with that digest.

        Raises:
            NotFoundError: the store does not have them, and no ref names them.
            CafsError: the ref that names them cannot be opened.

        Cancellation: what has been fetched stays.
        """
        known = await self._fetcher.find(digest, patience)
        if known is not None:
            part = Part(media_type=known.media_type, size=known.size, digest=known.digest, urls=())
            return await self._fetcher.content(part, (), name=str(digest))
        member = self._fetcher.member(digest, self._reopen)
        if member is not None and member.present():
            return member
        found = None if digest.weak else self._search(digest)
        if found is not None:
            spec, number = found
            # What has a digest for a name is checked before it is read, whatever the ref says.
            return await self._resolver.part(replace(spec, verify="block"), number, patience)
        if member is None:
            raise _unknown(digest)
        return member

    async def check(self, digest: Digest, patience: Patience) -> None:
        """Make sure that there is somebody to have the bytes with that digest from; fetches none.

        Raises:
            NotFoundError: as ``blob_content``.
            CafsError: another store cannot be asked.

        Cancellation: as ``blob_content``.
        """
        if await self._fetcher.find(digest, patience) is not None:
            return
        named = not digest.weak and self._search(digest) is not None
        if not named and self._fetcher.member(digest, self._reopen) is None:
            raise _unknown(digest)

    async def blob_tree(self, digest: Digest, patience: Patience) -> OpenTree:
        """The bytes with that digest, opened as an archive.

        Raises:
            NotFoundError: as ``blob_content``.
            UnsupportedError: they are no archive.
            CafsError: they cannot be fetched, or are damaged.

        Cancellation: what has been fetched stays.
        """
        raw = await self._raw(digest, patience)
        part = Part(media_type=OCTETS, size=raw.size, digest=digest, urls=())
        record = self._archives.find(part) or await self._archives.plant(raw, part, patience)

        async def content(_: int) -> Content:
            return raw

        return await self._trees.open(RefSpec(name="", ref=DigestRef(digest)), record, content)

    async def _raw(self, digest: Digest, patience: Patience) -> Content:
        """The bytes with that digest as content that can be opened: a member becomes a blob."""
        content = await self.blob_content(digest, patience)
        if isinstance(content, MemberContent):
            await self._keep(content, patience)
            content = await self.blob_content(digest, patience)
        return content

    async def _keep(self, content: Content, patience: Patience) -> None:
        writer = await self._store.blobs.create()
        try:
            for offset in range(0, content.size, _PIECE):
                await writer.write(await content.read(offset, _PIECE, patience))
            await writer.commit(content.digest(), content.size)
        finally:
            await writer.cancel()

    async def _reopen(self, place: MemberPlace, patience: Patience) -> Content:
        """The content that a member lies in, decoded again from the archive's blob.

        Raises:
            NotFoundError: nobody has that any more.
            CafsError: as ``blob_content``.
        """
        record, number = place.tree, place.stream
        what = record.streams[number]
        if record.digest is None:
            raise NotFoundError(f"{what.raw}: what it was is not known")
        raw = await self._raw(record.digest, patience)
        if not what.rules:
            return raw
        making = LAYER if record.identity == LAYER.identity(what.raw) else ARCHIVE
        if what.rules == "tar":
            # The same bytes may have come under another name: then they are decoded for that.
            record = await self._fetcher.plant(
                raw, name=str(record.digest), media_type="", patience=patience, making=making
            )
        return self._fetcher.decoded(record, number, raw, making)

    def _search(self, digest: Digest) -> tuple[RefSpec, int] | None:
        """A ref that pins the digest, and the number of its part."""
        for spec in self._specs():
            # The integrity of an image is that of its manifest, which is no part.
            if spec.integrity == digest and not isinstance(spec.ref, DockerRef):
                return spec, 0
            # What a lock says of a ref is known before anybody has read it.
            resolved = self._resolver.peek(spec) or spec.locked
            for number, part in enumerate(resolved.parts if resolved is not None else ()):
                if part.digest == digest:
                    return spec, number
        return None


def _unknown(digest: Digest) -> NotFoundError:
    return NotFoundError(
        f"{digest}: not in the store, and no ref of this mount names it",
        hint="a ref with this integrity makes it known",
    )
