"""What verbs that look after the store are told to look after: refs, and single digests."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cafs.cli.choosing import chosen
from cafs.errors import NotFoundError

if TYPE_CHECKING:
    from cafs.model.digest import Digest
    from cafs.model.item import Item
    from cafs.model.spec import RefSpec
    from cafs.settings.values import Settings
    from cafs.store.space.measuring import Owner
    from cafs.store.store import Store


class Kept(msgspec.Struct, frozen=True):
    """A ref by its spec, or a blob by a digest; ``name`` is what people call it."""

    name: str
    spec: "RefSpec | None" = None
    digest: "Digest | None" = None


def kept(loaded: "Settings", words: Sequence[str]) -> "list[Kept]":
    """What the words mean: names from cafs.toml, refs written out, digests; all names for none.

    Raises:
        NotFoundError, UsageError, InvalidReferenceError: as ``chosen``.
    """
    from cafs.model.ref import DigestRef

    found: list[Kept] = []
    for spec in chosen(loaded, words):
        if not spec.name and isinstance(spec.ref, DigestRef):
            found.append(Kept(spec.ref.friendly, digest=spec.ref.digest))
        else:
            found.append(Kept(spec.name or spec.ref.shown, spec=spec))
    return found


def blob_of(store: "Store", digest: "Digest") -> "Item":
    """The blob that a digest of any algorithm means.

    Raises:
        NotFoundError: it is not in the store.
    """
    from cafs.model.item import Item

    known = store.blobs.stat(digest)
    if known is None and store.members.find(digest):
        raise NotFoundError(
            f"{digest}: a file inside an archive, and no blob", hint="name the ref of the archive"
        )
    if known is None:
        raise NotFoundError(f"{digest}: not in the store")
    return Item.blob(known.digest)


def owner_of(store: "Store", spec: "RefSpec") -> "Owner":
    """A ref as the owner of what the store has for it."""
    from cafs.model.ref import DigestRef
    from cafs.store.space.measuring import Owner
    from cafs.store.tables.records import hashed

    digests = [] if spec.integrity is None else [spec.integrity]
    if isinstance(spec.ref, DigestRef):
        digests.append(spec.ref.digest)
    return Owner(
        spec.name or spec.ref.shown,
        hashed(spec.source),
        store.references.latest(spec.source),
        tuple(digests),
    )
