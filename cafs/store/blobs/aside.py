"""Put aside: streams that failed at the gate, and what of them is worth taking back."""

from pathlib import Path
from typing import Final

import trio

from cafs.errors import ContentError
from cafs.labour import worked
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.disk.files import storage_error
from cafs.store.disk.noting import note_path, put_note
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.stream import Stream
from cafs.store.tables.records import StreamRecord

_CHUNK: Final = 1 << 20
"""Bytes taken back between two looks at whether anybody still waits."""


class Aside:
    """Streams in quarantine, in the directory ``folder``.

    Concurrency: any number of worker threads and processes.
    """

    def __init__(self, folder: Path, shelf: Shelf) -> None:
        self._folder = folder
        self._shelf = shelf

    def put(
        self, key: StreamKey, record: StreamRecord, path: Path, name: str, error: ContentError
    ) -> bool:
        """Put a stream that failed aside, where nothing reads it, with a note that says why.

        It replaces what failed under that key before: a source that stays wrong fills no disk.

        Args:
            key: the stream.
            record: as it was when it failed.
            path: where its file lies.
            name: what it is, for people.
            error: how it failed.

        Returns:
            whether it was still the stream that failed.

        Raises:
            StorageError: the records cannot be changed.
            OSError: the disk failed.
        """
        for former in self._folder.glob(f"{key}.*"):
            former.unlink(missing_ok=True)
        target = self._folder / path.name
        put_note(target, name=name, error=error.what)
        ours = self._shelf.ledger.remove(key, record)
        if ours:
            self._shelf.forget(key, record)
            path.rename(target)
        else:  # something was taken out of it meanwhile: it is another stream by now
            note_path(target).unlink(missing_ok=True)
        return ours

    def take_back(self, key: StreamKey, spans: SpanSet, size: int | None) -> SpanSet:
        """Write spans of the file that was put aside last for a stream into the stream again.

        Blocks; for worker threads made by trio. The spans that were there are returned.

        Raises:
            StorageError: the disk failed.

        Cancellation: between two pieces.
        """
        found = self._folder.glob(f"{key}.*")
        file = next((each for each in found if each.suffix != ".json"), None)
        if file is None:
            return SpanSet()
        taken: list[Span] = []
        stream = Stream(self._shelf, key, size)
        try:
            with file.open("rb", buffering=0) as opened:
                for span in spans:
                    for start in range(span.start, span.stop, _CHUNK):
                        trio.from_thread.check_cancelled()
                        opened.seek(start)
                        data = opened.read(min(_CHUNK, span.stop - start))
                        stream.write_sync(start, data)
                        taken.append(Span(start, start + len(data)))
                        worked()
        except FileNotFoundError:
            pass  # it went because room is short
        except OSError as error:
            raise storage_error(error, f"taking back stream {key}") from error
        return SpanSet(taken)
