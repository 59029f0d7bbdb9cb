"""Digests: what a server says that its bytes hash to, and whether they do.

Such a digest pins nothing, since who changes the bytes can change the header too. It notices what
a broken cache, a bad disk or a careless proxy did to them, before anybody has read them to the end,
and where nothing else would.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

import trio

from cafs.errors import ContentError
from cafs.model.digest import SIZES, Digest, Hasher

_ALGORITHMS: Final = {"sha-256": "sha256", "sha-512": "sha512"}
"""The names of the registry, and ours; the cheapest first."""
_MEMBER: Final = re.compile(r"([a-z0-9*_.-]+)=:([A-Za-z0-9+/=]*):(?:;.*)?", re.DOTALL)
_OLD_MEMBER: Final = re.compile(r"([A-Za-z0-9-]+)=([A-Za-z0-9+/=]+)")
_INLINE: Final = 16 << 10
"""What is hashed sooner than a thread would have begun to."""


def told(headers: Mapping[str, str], *, whole: bool) -> tuple[Digest, ...]:
    """The digests that a body must have, one for each header that tells one.

    A header that cannot be read, or has no algorithm of ours, is ignored, as its RFC wants.

    Args:
        headers: of the response.
        whole: whether the body is the whole representation; that is what Repr-Digest and the old
            Digest are of. Content-Digest is of the body, whatever part it is.

    Source: RFC 9530 §2, §3; RFC 3230 §4.3.2.
    """
    found = [_chosen(_members(headers.get("content-digest", "")))]
    if whole:
        found.append(_chosen(_members(headers.get("repr-digest", ""))))
        found.append(_chosen(_old_members(headers.get("digest", ""))))
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _members(text: str) -> dict[str, str]:
    pairs = (_MEMBER.fullmatch(each.strip()) for each in text.split(","))
    return {pair[1]: pair[2] for pair in pairs if pair is not None}


def _old_members(text: str) -> dict[str, str]:
    pairs = (_OLD_MEMBER.fullmatch(each.strip()) for each in text.split(","))
    return {pair[1].lower(): pair[2] for pair in pairs if pair is not None}


def _chosen(members: Mapping[str, str]) -> Digest | None:
    for theirs, ours in _ALGORITHMS.items():
        try:
            raw = base64.b64decode(members.get(theirs, ""), validate=True)
        except binascii.Error:
            continue
        if len(raw) == SIZES[ours]:
            return Digest(ours, raw)
    return None


class Checking:
    """Checks one body, piece by piece.

    Args:
        name: the request, for people.
        expected: what the body must hash to.

    Concurrency: one task at a time.
    """

    def __init__(self, name: str, expected: tuple[Digest, ...]) -> None:
        self._name = name
        self._expected = expected
        self._hasher = Hasher(each.algorithm for each in expected)

    async def take(self, piece: bytes) -> None:
        """Hash the next bytes.

        Cancellation: the check is of no use any more.
        """
        if len(piece) <= _INLINE:
            self._hasher.update(piece)
        else:
            await trio.to_thread.run_sync(self._hasher.update, piece)

    def finish(self) -> None:
        """Say that all bytes were taken.

        Raises:
            ContentError: they are not what the server said.
        """
        for each in self._expected:
            actual = self._hasher.digest(each.algorithm)
            if actual != each:
                raise ContentError(
                    f"{self._name}: its header says {each}, its bytes are {actual}",
                    hint="the server, or a proxy before it, damaged them",
                )
