"""Reading files that hold secrets: in a thread, whole, bounded in size and time."""

from pathlib import Path
from typing import Final

import trio

from cafs.transport.credentials.credential import UnusableError

_LIMIT: Final = 1 << 20
_PATIENCE_S: Final = 10.0
"""A file may lie on a disk that nobody answers for, or be a pipe that nobody writes to."""


class Files:
    """Reads files.

    Each has one thread at most, of nobody else's number: one that hangs for ever holds up those who
    want the same file, for some seconds, and takes no thread from anybody.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self) -> None:
        self._threads: dict[Path, trio.CapacityLimiter] = {}

    async def content(self, path: Path, name: str = "") -> bytes | None:
        """What a file holds; None when there is none.

        Args:
            path: where it is; one of a few that settings and variables name.
            name: what messages call it; empty for its path.

        Raises:
            UnusableError: it cannot be read, or holds more than a MiB.

        Cancellation: no effect; the thread ends by itself.
        """
        name = name or str(path)
        own = self._threads.setdefault(path, trio.CapacityLimiter(1))
        try:
            with trio.fail_after(_PATIENCE_S):
                data = await trio.to_thread.run_sync(
                    _read, path, limiter=own, abandon_on_cancel=True
                )
        except trio.TooSlowError as error:
            raise UnusableError(name, f"not read within {_PATIENCE_S:g} s") from error
        except OSError as error:
            raise UnusableError(name, f"cannot be read: {error.strerror}") from error
        if data is not None and len(data) > _LIMIT:
            raise UnusableError(name, "more than a MiB")
        return data


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
