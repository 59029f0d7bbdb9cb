"""Extended attributes: what cafs knows of a path, and what an archive kept of its own.

Nothing is fetched or resolved for an attribute: what is not known is absent. Our own names are
readable and not listed, because ``cp -a`` would copy what is listed. An archive cannot speak in our
names.
"""

from typing import Final

from cafs.model.descriptor import OCTETS
from cafs.model.ref import shown_canonical
from cafs.vfs.failures import Failures
from cafs.vfs.knowing import Knowing
from cafs.vfs.opening import Opening
from cafs.vfs.places import Named, Place, Planted, text_of
from cafs.vfs.planted import PlantedTrees

_USER: Final = b"user."
_OURS: Final = b"user.cafs."
_CHECKSUM: Final = b"user.checksum.sha256"


class Xattrs:
    """Answers for the extended attributes of a mount's nodes.

    - ``user.cafs.digest``: the digest, as text.
    - ``user.cafs.ref``: the ref that the path belongs to, canonical, without a query.
    - ``user.cafs.present``: ``local/size``, bytes.
    - ``user.cafs.trust``: ``verified``; ``vouched`` where a lock's index, or a table of contents
      that the manifest pins, says what each piece must be; ``weak`` where the only pin is md5 or
      sha1; ``provisional`` without a pin.
    - ``user.cafs.mediatype``: of a file, what its source calls it, or who brought a blob first.
    - ``user.cafs.error``: the last failure, one line; or why a lock's index is of no use.
    - ``user.checksum.sha256``: the raw 32 bytes, when verified.
    - ``user.*`` of the archive.

    Concurrency: synchronous; the store is asked in short read transactions.
    """

    def __init__(
        self, knowing: Knowing, opening: Opening, planted: PlantedTrees, failures: Failures
    ) -> None:
        self._knowing = knowing
        self._opening = opening
        self._planted = planted
        self._failures = failures

    def value(self, place: Place, name: bytes) -> bytes | None:
        """The value of an attribute; None when it is absent.

        Raises:
            SourceChangedError: the tree has left the store.
        """
        if not name.startswith(_USER) or not isinstance(place, Named | Planted):
            return None
        if name == _OURS + b"error":
            return self._error(place)
        if name == _OURS + b"ref":
            return self._ref(place)
        if name == _CHECKSUM or name.startswith(_OURS):
            return self._known(place, name)
        if isinstance(place, Planted):
            entry = self._planted.entry(place.at, place.number)
            return dict(entry.xattrs).get(name)
        return None

    def names(self, place: Place) -> list[bytes]:
        """The names to list: those that the archive itself has.

        Raises:
            SourceChangedError: the tree has left the store.
        """
        if not isinstance(place, Planted):
            return []
        entry = self._planted.entry(place.at, place.number)
        return [
            name
            for name, _ in entry.xattrs
            if name.startswith(_USER) and name != _CHECKSUM and not name.startswith(_OURS)
        ]

    def _error(self, place: Named | Planted) -> bytes | None:
        line = self._failures.last(place.inode)
        if isinstance(place, Named):
            # A name in it that failed is noted at its inode, since that name cannot be asked.
            line = self._failures.last(text_of(place.path)) or line
        opening, node = self._opening, place.node
        line = opening.disowned(node) or line or opening.error(node) or opening.told(node)
        return line.encode() if line else None

    def _ref(self, place: Named | Planted) -> bytes | None:
        spec = self._opening.spec(place.node)
        return shown_canonical(spec.ref).encode() if spec is not None else None

    def _known(self, place: Named | Planted, name: bytes) -> bytes | None:
        known = self._knowing.of(place)
        match name:
            case b"user.cafs.digest":
                return str(known.digest).encode() if known.digest is not None else None
            case b"user.cafs.present":
                return None if known.size is None else b"%d/%d" % (known.present, known.size)
            case b"user.cafs.trust":
                return known.trust.encode() if known.trust is not None else None
            case b"user.cafs.mediatype":
                said = known.media_type or OCTETS
                return None if said == OCTETS else said.encode()
            case _:
                return known.checksum if name == _CHECKSUM else None
