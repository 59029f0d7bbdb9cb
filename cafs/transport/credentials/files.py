"""Reading files that hold secrets: in a thread, whole, bounded in size and time."""

from pathlib import Path
from typing import Final

import trio

from cafs.transport.credentials.credential import UnusableError

_LIMIT: Final = 1 << 20
_PATIENCE_S: Final = 10.0
"""A file may lie on a disk that nobody answers for, or be a pipe that nobody writes to."""


async def content(path: Path, name: str = "") -> bytes | None:
    """What a file holds; None when there is none.

    Args:
        path: where it is.
        name: what messages call it; empty for its path.

    Raises:
        UnusableError: it cannot be read, or holds more than a MiB.

    Cancellation: no effect; the thread ends by itself.
    """
    name = name or str(path)

    def read() -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None

    try:
        with trio.fail_after(_PATIENCE_S):
            data = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    except trio.TooSlowError as error:
        raise UnusableError(name, f"not read within {_PATIENCE_S:g} s") from error
    except OSError as error:
        raise UnusableError(name, f"cannot be read: {error.strerror}") from error
    if data is not None and len(data) > _LIMIT:
        raise UnusableError(name, "more than a MiB")
    return data
