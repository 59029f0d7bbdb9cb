"""Checkpoints: what was written since the last one is made to outlive a power cut.

By bytes and by time: the disk is asked after so much was written, or so long after the first byte.
One process at a time does it, for what all of them have written.
"""

import logging
import os
import threading
from typing import Final

import trio

from cafs.errors import StorageError, StorageFullError
from cafs.model.identity import StreamKey
from cafs.model.span import SpanSet
from cafs.store.disk.door import open_file
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import Layout
from cafs.store.disk.locking import flock, gate, hold_gate
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.pending import Pending
from cafs.store.tables.records import StreamRecord

_LOG: Final = logging.getLogger("cafs.store")


class Checkpointer:
    """Decides when to checkpoint, and does it.

    Concurrency: ``note`` from any thread; the rest from one trio run.
    """

    def __init__(
        self, layout: Layout, ledger: Ledger, pending: Pending, *, limit: int, period_s: float
    ) -> None:
        self._layout = layout
        self._ledger = ledger
        self.pending = pending
        self._limit = limit
        self._period_s = period_s
        self._lock = threading.Lock()
        self._bytes = 0
        self._token = trio.lowlevel.current_trio_token()
        self._some = trio.Event()
        self._much = trio.Event()

    def note(self, count: int) -> None:
        """Say that so many bytes were written and recorded."""
        with self._lock:
            first = not self._bytes
            much = self._bytes < self._limit <= self._bytes + count
            self._bytes += count
        if first:
            self._token.run_sync_soon(self._wake_for_some)
        if much:
            self._token.run_sync_soon(self._wake_for_much)

    # The events are looked up when the loop gets there: a checkpoint may have renewed them.
    def _wake_for_some(self) -> None:
        self._some.set()

    def _wake_for_much(self) -> None:
        self._much.set()

    async def run(self) -> None:
        """Checkpoint whenever it is time, until cancelled.

        A failure is logged, and tried again with the next bytes: until then what is present is
        present, and only a power cut would lose it.
        """
        while True:
            await self._some.wait()
            with trio.move_on_after(self._period_s):
                await self._much.wait()
            try:
                await self.checkpoint()
            except StorageError as error:
                _LOG.warning("store.checkpoint.failed error=%s", error.line)

    async def end(self) -> None:
        """Checkpoint for the last time; a full disk keeps nobody from ending.

        What it then has no room to record only a power cut loses, and the next checkpoint of any
        process records it.

        Raises:
            StorageError: the disk failed; what may be lost is forgotten.

        Cancellation: as ``checkpoint``.
        """
        try:
            await self.checkpoint()
        except StorageFullError as error:
            _LOG.info("store.checkpoint.failed error=%s", error.line)

    async def checkpoint(self) -> None:
        """Make all that is recorded outlive a power cut.

        Raises:
            StorageError: the disk failed; what may be lost is forgotten.
            StorageFullError: no space for the records; nothing is forgotten.

        Cancellation: no effect; once begun it is carried through.
        """
        self._some = trio.Event()
        self._much = trio.Event()
        try:
            await trio.to_thread.run_sync(self._checkpoint)
        except OSError as error:
            raise storage_error(error, f"{self._layout.root}: checkpoint") from error

    def _checkpoint(self) -> None:
        with self._lock:
            self._bytes = 0
        descriptor = os.open(
            self._layout.checkpoint_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            flock(descriptor, exclusive=True, wait=True)
            failure = self._sync()
        finally:
            os.close(descriptor)
        if failure is not None:
            raise failure

    def _sync(self) -> StorageError | None:
        failure: StorageError | None = None
        synced: dict[tuple[StreamKey, StreamRecord], SpanSet] = {}
        for key, former in self.pending.spans():
            try:
                record, each = self._settled(key, former)
                descriptor = open_file(self._ledger.path(key, record), os.O_RDWR)
            except FileNotFoundError:
                continue
            except OSError as error:  # the others are synced all the same
                failure = storage_error(error, f"stream {key}: cannot be synced")
                continue
            try:
                os.fdatasync(descriptor)
                synced[key, record] = each
            except OSError as error:
                # The kernel has marked the pages clean: whether they were written is not known.
                # Those of writes that came after the look at the records may be among them.
                hold_gate(descriptor)
                self.pending.drop(key, record)
                failure = storage_error(error, f"stream {key}: what was new is dropped")
            finally:
                os.close(descriptor)
        self.pending.keep(synced)
        return failure

    def _settled(self, key: StreamKey, former: StreamRecord) -> tuple[StreamRecord, SpanSet]:
        """A stream as it is, and what of it no checkpoint has seen, at one moment.

        Who takes something out changes the record first and the spans after it, with the gate held:
        seen in between, what has gone would seem to be part of what there is now.

        Raises:
            OSError: its file is not there, or cannot be opened.
        """
        with gate(self._ledger.path(key, former)):
            now = self._ledger.record(key)
            if now is None or now.file != former.file:
                return former, SpanSet()
            return now, self.pending.of(key, now)
