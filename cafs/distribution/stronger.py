"""Pins: what the settings insist on, whatever a lock says.

A ref may name its content by a digest, and have an integrity besides; what comes is held against
one of them. A lock names bytes by their sha256. It vouches for what is read of them in pieces; it
does not undo what its reader has written down himself. So as soon as it is known here which bytes
the settings' own pin means, by whatever algorithm, the lock must mean the same; and until then
nothing but what an index describes is handed out without that pin's consent.
"""

from collections.abc import Sequence
from dataclasses import replace

from cafs.distribution.naming import title
from cafs.errors import DigestMismatchError, UnsupportedError
from cafs.model.digest import Digest
from cafs.model.identity import raw_stream
from cafs.model.ref import DigestRef, DockerRef
from cafs.model.resolved import Part
from cafs.model.spec import RefSpec
from cafs.store.store import Store


def pin_of(spec: RefSpec) -> Digest | None:
    """The digest that the settings insist on; None where they name none.

    Of two it is the one that proves something: one that is weak gives way.

    Raises:
        DigestMismatchError: they name two by one algorithm.
        UnsupportedError: they name two, each of which would have to be compared with the content.
    """
    own = spec.ref.digest if isinstance(spec.ref, DockerRef | DigestRef) else None
    given = spec.integrity
    if own is None or given is None or own == given:
        return own or given
    if own.algorithm == given.algorithm:
        raise DigestMismatchError(title(spec), expected=given, actual=own)
    if own.weak != given.weak:
        return given if own.weak else own
    raise UnsupportedError(
        f"{title(spec)}: named by {own}, with an integrity of {given}: only one can be compared",
        hint="leave the integrity out, or give it by the algorithm of the ref",
    )


def stronger_pins(spec: RefSpec) -> tuple[Digest, ...]:
    """The pins of a ref that no sha256 can be compared with; what proves nothing is none."""
    own = spec.ref.digest if isinstance(spec.ref, DockerRef | DigestRef) else None
    pins = (own, spec.integrity)
    return tuple(pin for pin in pins if pin is not None and not pin.canonical and not pin.weak)


def refuse_another(store: Store, spec: RefSpec, said: Digest) -> bool:
    """Refuse what a lock says where the store knows that the pins mean other bytes.

    Returns:
        Whether the store knows all of them.

    Raises:
        DigestMismatchError: it knows one, and that is something else.
    """
    return _all_known(store, stronger_pins(spec), said, title(spec))


def _all_known(store: Store, pins: Sequence[Digest], said: Digest, name: str) -> bool:
    known = [(pin, store.blobs.stat(pin)) for pin in pins]
    for pin, found in known:
        if found is not None and found.digest != said:
            what = f"{name}: what cafs.lock names"
            raise DigestMismatchError(what, expected=f"{found.digest} ({pin})", actual=said)
    return all(found is not None for _, found in known)


async def agree(store: Store, pins: Sequence[Digest], said: Digest, name: str) -> bool:
    """Hold a blob against pins, as far as it is here; whether it is all that they mean.

    Raises:
        DigestMismatchError: a pin means other bytes.
        StorageError: the store failed.

    Cancellation: no effect.
    """
    if _all_known(store, pins, said, name):
        return True
    known, whole = store.blobs.stat(said), raw_stream(said)
    if known is None or store.streams.find(whole) is None:
        return False
    # The bytes are here, and nobody has asked yet whether they are what the pins say.
    await store.blobs.admit(
        whole, media_type=known.media_type, claims=(said, *pins), size=known.size, name=name
    )
    return _all_known(store, pins, said, name)


async def held(store: Store, spec: RefSpec, part: Part) -> Part:
    """The part as it must be held against: by the settings' pin, unless that is this very digest.

    Raises:
        DigestMismatchError, StorageError: as ``agree``.

    Cancellation: no effect.
    """
    pins = stronger_pins(spec)
    if not pins or part.digest is None or not part.digest.canonical:
        return part
    same = await agree(store, pins, part.digest, title(spec))
    return part if same else replace(part, digest=pins[0])
