"""Notes in quarantine: what was wrong with what lies there, for who looks for a pattern."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cafs.store.disk.files import FULL

_LOG: Final = logging.getLogger("cafs.store")


def note_path(path: Path) -> Path:
    """Where the note of what lies there is."""
    return path.with_name(f"{path.name}.json")


def put_note(
    path: Path, *, name: str, error: str, lost: Sequence[tuple[int, int]] | None = None
) -> None:
    """Note what is wrong with what lies, or is going to lie, at a path. Blocks.

    A full disk has no room for it: that keeps nobody from putting aside what is wrong.

    Args:
        path: of what is wrong.
        name: what it is.
        error: what is the matter.
        lost: where, from which byte to which; None for all.

    Raises:
        OSError: the disk failed.
    """
    where = {} if lost is None else {"lost": lost}
    note = {"name": name, "error": error, **where, "time_ns": time.time_ns(), "v": 1}
    try:
        note_path(path).write_bytes(msgspec.json.encode(note) + b"\n")
    except OSError as failure:
        note_path(path).unlink(missing_ok=True)
        if failure.errno not in FULL:
            raise
        _LOG.info("store.quarantine.unnoted path=%s error=%s", path, failure)
