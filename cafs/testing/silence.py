"""A source that falls silent in the middle of a long read: ``scripts/soak silence``.

One blob is read front to back through a mount, and after a quarter of it nothing more comes of it,
for a while: with ``on-error = "wait"`` no read may fail, and all bytes must be right; with ``fail``
the first error must come within the deadline and a tenth. Meanwhile other refs, which nobody has
read before, are read one after the other: each has its bytes in a second.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typing_extensions import override

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import Rate
from cafs.testing.origin import Origin

_PATH: Final = "/long"
_PIECE: Final = 1 << 20
_END_S: Final = 60.0
_SMALL: Final = 64 << 10
_RATE: Final = 128 * float(1 << 20)
"""Bytes a second at which it comes before: slow enough to have a middle."""
_POLL_S: Final = 0.01
_OTHER_S: Final = 1.0
_LATE: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What a silence came to. ``failed_s`` is how long after the last whole piece a read failed.

    ``others`` is how many other refs were read, ``slowest_s`` the longest wait for one.
    """

    on_error: str
    deadline_s: float
    silent_s: float
    right: bool
    failed_s: float | None
    others: int
    slowest_s: float

    @property
    def well(self) -> bool:
        """Whether all is as it was promised."""
        if not self.others or self.slowest_s > _OTHER_S:
            return False
        if self.on_error == "wait":
            return self.right and self.failed_s is None
        return self.failed_s is not None and self.failed_s <= _LATE * self.deadline_s

    @override
    def __str__(self) -> str:
        end = "no error" if self.failed_s is None else f"an error after {self.failed_s:.2f} s"
        bytes_ = ", all bytes right" if self.right else ""
        return (
            f"silence of {self.silent_s:g} s, {self.on_error}, deadline {self.deadline_s:g} s: "
            f"{end}{bytes_}; {self.others} other refs, the slowest {self.slowest_s:.3f} s"
        )


class Reading(threading.Thread):
    """Reads a file front to back, up to its first error.

    ``position`` is how far it came, ``error`` what it ended with, ``failed_s`` how long after the
    last whole piece.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._hash = hashlib.sha256()
        self.position = 0
        self.error: OSError | None = None
        self.failed_s: float | None = None
        self.start()

    @override
    def run(self) -> None:
        whole = time.monotonic()
        with self._path.open("rb", buffering=0) as opened:
            while True:
                try:
                    piece = opened.read(_PIECE)
                except OSError as error:
                    self.error = error
                    self.failed_s = time.monotonic() - whole
                    return
                if not piece:
                    return
                if len(piece) == _PIECE:  # what comes before an error may be short, and late
                    whole = time.monotonic()
                self._hash.update(piece)
                self.position += len(piece)

    def digest(self) -> str:
        """Of what was read, once it has ended.

        Raises:
            TimeoutError: it does not end.
        """
        self.join(_END_S)
        if self.is_alive():
            raise TimeoutError(f"{self._path} is still read")
        return self._hash.hexdigest()


def fall_silent(
    cafs: Cafs, origin: Origin, *, on_error: str, blob: int, silent_s: float, deadline_s: float
) -> Silence:
    """Read a blob of so many bytes while its source says nothing for so long."""
    body = Generated(blob, seed=3)
    names = [f"other{number}" for number in range(max(4, int(2 * silent_s)))]
    with _mounted(cafs, origin, body, names, on_error=on_error, deadline_s=deadline_s) as mount:
        reading = Reading(mount.ref("long"))
        while reading.position < blob // 4:
            time.sleep(_POLL_S)
        origin.silence(_PATH)
        waits_s = _read_others(mount, names, time.monotonic() + silent_s)
        if on_error == "wait":
            origin.heal()
        reading.join()
        origin.heal()
    return Silence(
        on_error=on_error,
        deadline_s=deadline_s,
        silent_s=silent_s,
        right=reading.digest() == body.sha256(),
        failed_s=reading.failed_s,
        others=len(waits_s),
        slowest_s=max(waits_s),
    )


@contextmanager
def _mounted(
    cafs: Cafs,
    origin: Origin,
    body: Generated,
    names: list[str],
    *,
    on_error: str,
    deadline_s: float,
) -> Iterator[Mount]:
    lines = [f'[defaults]\non-error = "{on_error}"\ndeadline = "{deadline_s:g}s"']
    lines.append(f'[ref.long]\nfrom = "{origin.put(_PATH, body)}"')
    for number, name in enumerate(names):
        url = origin.put(f"/{on_error}/{name}", Generated(_SMALL, seed=number))
        lines.append(f'[ref.{name}]\nfrom = "{url}"')
    origin.fault(_PATH, Rate(_RATE, shared=True))
    with cafs.mount("\n".join([*lines, ""])) as mount:
        yield mount


def _read_others(mount: Mount, names: list[str], end: float) -> list[float]:
    """Read each once until it is time, regularly; how long each took, s."""
    waits_s = []
    pause_s = (end - time.monotonic()) / len(names)
    for name in names:
        began = time.monotonic()
        if len(mount.ref(name).read_bytes()) != _SMALL:
            raise AssertionError(f"{name} is short")
        waits_s.append(time.monotonic() - began)
        time.sleep(max(0.0, pause_s - waits_s[-1]))
    return waits_s
