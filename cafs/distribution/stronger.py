"""Pins by another algorithm than sha256: what the settings insist on, whatever a lock says.

A lock names bytes by their sha256. It vouches for what is read of them in pieces; it does not undo
what its reader has written down himself. So as soon as it is known here which bytes the settings'
own pin means, the lock must mean the same; and until then nothing but what an index describes is
handed out without that pin's consent.
"""

from dataclasses import replace

from cafs.distribution.blob import title
from cafs.errors import DigestMismatchError
from cafs.model.digest import Digest
from cafs.model.identity import raw_stream
from cafs.model.ref import DigestRef, DockerRef
from cafs.model.resolved import Part
from cafs.model.spec import RefSpec
from cafs.store.store import Store


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
    known = [(pin, store.blobs.stat(pin)) for pin in stronger_pins(spec)]
    for pin, found in known:
        if found is not None and found.digest != said:
            name = f"{title(spec)}: what cafs.lock names"
            raise DigestMismatchError(name, expected=f"{found.digest} ({pin})", actual=said)
    return all(found is not None for _, found in known)


async def held(store: Store, spec: RefSpec, part: Part) -> Part:
    """The part as it must be held against: by the settings' pin, unless that is this very digest.

    Raises:
        DigestMismatchError: the pin means other bytes than the part's digest.
        StorageError: the store failed.

    Cancellation: no effect.
    """
    pins = stronger_pins(spec)
    if not pins or part.digest is None or not part.digest.canonical:
        return part
    known = store.blobs.stat(part.digest)
    whole = raw_stream(part.digest)
    if (
        known is not None
        and not refuse_another(store, spec, part.digest)
        and store.streams.find(whole) is not None
    ):
        # The bytes are here, and nobody has asked yet whether they are what the pin says.
        claims = (part.digest, *pins)
        await store.blobs.admit(
            whole, media_type=known.media_type, claims=claims, size=known.size, name=title(spec)
        )
    return part if refuse_another(store, spec, part.digest) else replace(part, digest=pins[0])
