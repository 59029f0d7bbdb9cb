"""Exposures: content that a mount handed out before all of it was checked, and what came of that.

It is noted before the first such byte is handed out, with the mount's records, so that a worker
which takes the place of one that was killed knows it too. A note says of which incarnation of the
stream the bytes were: only if nothing was taken away from that before it passed its gate, what was
handed out is what was checked. In any other case it is disowned: nothing of it is read any more
under the mount until somebody has the mount reloaded, and then it is read as ``block`` has it.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec
import trio

from cafs.errors import ContentError
from cafs.model.identity import StreamKey, indexed_stream, located_stream
from cafs.model.resolved import Part
from cafs.model.spec import Verify
from cafs.store.tables.records import Incarnation
from cafs.store.trees.attachments import Attachments

_FOLDER: Final = "?unchecked"
"""Where the notes are among a mount's attachments; no path of the namespace has a ``?``."""
_LOG: Final = logging.getLogger("cafs.fetch")


class DisownedError(ContentError):
    """What was read of content before it was checked turned out to be wrong."""

    code = "digest-mismatch"


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """What a mount handed out of one content before it was checked.

    ``of`` is the incarnation of its stream. ``wrong`` says why it is disowned, empty while nothing
    speaks against it; ``sure`` that it is known to be wrong, and not only unknown. ``pardoned``
    says that the mount was reloaded since: it may be read again, but not before it is checked.
    """

    key: StreamKey
    name: str
    of: Incarnation
    wrong: str = ""
    sure: bool = False
    pardoned: bool = False

    def check(self) -> None:
        """Refuse it while it is disowned.

        Raises:
            DisownedError: it is.
        """
        if self.wrong and not self.pardoned:
            raise DisownedError(
                self.wrong, hint="once its source is right, cafs reload lets it be read again"
            )


class Exposures:
    """What one mount handed out before it was checked, by stream.

    Args:
        attachments: where it is noted; None keeps the notes in memory, for who has no mount.
        mount: whose notes they are.

    Concurrency: one trio run.
    """

    def __init__(self, attachments: Attachments | None = None, mount: int = 0) -> None:
        self._attachments = attachments
        self._mount = mount
        self._found: dict[StreamKey, Exposure] = {}
        self._noting = trio.Lock()
        for each in () if attachments is None else attachments.under(mount, _FOLDER):
            if each.content:
                found = msgspec.msgpack.decode(each.content, type=Exposure)
                self._found[found.key] = found
        self._told, self._telling = trio.open_memory_channel[Exposure](float("inf"))
        for found in self._found.values():
            # Of what a former worker handed out, the kernel may have anything.
            self._told.send_nowait(found)

    def find(self, key: StreamKey) -> Exposure | None:
        """What was handed out of a stream, and has not been found right."""
        return self._found.get(key)

    def none(self) -> bool:
        """Whether there is nothing of that kind, as nearly always."""
        return not self._found

    def of(self, parts: Iterable[Part], verify: Verify) -> Exposure | None:
        """What was handed out of parts of a ref, and has not been found right; the worst of it.

        What is checked before it is read (``verify``) may still be decoded as somebody else says.
        """
        keys = [key for part in parts for key in streams_of(part, raw=verify != "block")]
        found = [self._found.get(key) for key in keys]
        return max(filter(None, found), key=lambda one: bool(one.wrong), default=None)

    def error(self, parts: Iterable[Part], verify: Verify) -> str | None:
        """Why parts of a ref are not read any more, one line; None where they are."""
        found = self.of(parts, verify)
        try:
            if found is not None:
                found.check()
        except DisownedError as error:
            return error.line
        return None

    def disowned(self) -> list[Exposure]:
        """What was wrong, and was not let off."""
        return [each for each in self._found.values() if each.wrong and not each.pardoned]

    async def expose(self, key: StreamKey, name: str, of: Incarnation) -> Exposure:
        """Note that bytes are about to be handed out; what was noted first counts.

        Raises:
            StorageError: it cannot be noted.

        Cancellation: it may be noted or not.
        """
        found = self._found.get(key)
        if found is not None:
            return found
        async with self._noting:
            found = self._found.get(key)
            if found is None:
                found = Exposure(key=key, name=name, of=of)
                await self._note(found)
                self._found[key] = found
        return found

    async def clear(self, key: StreamKey) -> None:
        """All that was handed out was found right.

        Cancellation: it may be noted or not; then the next worker finds it out again.
        """
        if self._found.pop(key, None) is not None and self._attachments is not None:
            await self._attachments.attach(self._mount, _path(key), content=b"", replace=True)

    async def disown(self, key: StreamKey, why: str, *, sure: bool) -> None:
        """What was handed out was wrong, or nobody can tell; nothing if nothing was.

        Cancellation: from the call on it is; it may be noted or not.
        """
        found = self._found.get(key)
        if found is None or (found.wrong and (found.sure or not sure)):
            return
        wrong = f"{why}; what was read of it before is {'wrong' if sure else 'worth nothing'}"
        found = self._found[key] = msgspec.structs.replace(found, wrong=wrong, sure=sure)
        _LOG.error("fetch.disowned: %s", wrong)
        self._told.send_nowait(found)
        with trio.CancelScope(shield=True):
            await self._note(found)

    async def pardon(self) -> None:
        """Let all be read again, once it is right: whoever asks for that knows that it changes.

        Raises:
            StorageError: it cannot be noted.

        Cancellation: some may be let off.
        """
        for found in self.disowned():
            self._found[found.key] = msgspec.structs.replace(found, pardoned=True)
            await self._note(self._found[found.key])

    async def news(self) -> AsyncIterator[Exposure]:
        """What the kernel must forget, as it becomes known; first of all what others handed out.

        Concurrency: one task.
        """
        async for each in self._telling:
            yield each

    async def _note(self, found: Exposure) -> None:
        if self._attachments is not None:
            content = msgspec.msgpack.encode(found)
            await self._attachments.attach(
                self._mount, _path(found.key), content=content, replace=True
            )


def streams_of(part: Part, *, raw: bool) -> list[StreamKey]:
    """The streams of a part that may be handed out though they were not checked as a whole.

    Those that it is decoded to as somebody says; and its own, where ``raw`` says so.
    """
    own = located_stream(part)
    said = (part.index, part.contents.digest if part.contents is not None else None)
    decoded = [indexed_stream(own, each) for each in said if each is not None]
    return [own, *decoded] if raw else decoded


def _path(key: StreamKey) -> str:
    return f"{_FOLDER}/{key}"
