"""Frames: what is said over a plugin's stdin and stdout, as bytes and as values. No I/O.

Each way is JSON, one object a line. Only ``{"id":7,"data":N}`` is followed by N raw bytes.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from cafs.transport.plugins.handshake import Version

LINE_LIMIT: Final = 256 << 10
"""Bytes in one line: a document may be large, and garbage without a line break is endless."""
DATA_LIMIT: Final = 1 << 20
"""Bytes behind one line."""
WINDOW: Final = 1 << 20
"""Bytes that a request may have sent and its reader not taken: what one slow reader costs."""


class BabbleError(Exception):
    """What came is not of the protocol; the text says what is wrong with it."""


class Hello(msgspec.Struct, frozen=True):
    """What a plugin says of itself.

    ``schemes`` are those that it answers for; ``requests`` is how many it takes at once, None for
    any number. With 1 it need not look at its stdin before a request is answered.
    """

    name: str
    version: object
    schemes: tuple[str, ...]
    requests: int | None = None


class HeadSays(msgspec.Struct, frozen=True):
    """What a plugin says before the bytes; ``span`` None is the whole. Sizes are bytes."""

    total: int | None = None
    span: tuple[int, int] | None = None
    validator: str | None = None
    content_type: str = ""
    max_age_s: int = 0
    ranges: bool = False


class EndSays(msgspec.Struct, frozen=True):
    """What a plugin says at the end; ``document`` is what it wants to be told the next time."""

    document: msgspec.Raw = msgspec.Raw()
    max_age_s: int | None = None


class ErrorSays(msgspec.Struct, frozen=True):
    """Why there is nothing; ``total`` tells the size when the span lies outside of the whole."""

    kind: str
    what: str = ""
    retry_after_s: float | None = None
    total: int | None = None


class _Greeting(msgspec.Struct):
    plugin: Hello


class _Line(msgspec.Struct):
    id: int
    head: HeadSays | None = None
    data: int | None = None
    done: EndSays | None = None
    cached: EndSays | None = msgspec.field(default=None, name="use-cached")
    error: ErrorSays | None = None


class Headed(msgspec.Struct, frozen=True):
    """The head of an answer."""

    number: int
    says: HeadSays


class Data(msgspec.Struct, frozen=True):
    """Bytes of an answer: a part of a frame, as it came."""

    number: int
    piece: bytes


class Ended(msgspec.Struct, frozen=True):
    """The end of an answer; ``cached``: what is at hand will do. ``document`` is JSON as text."""

    number: int
    cached: bool
    document: str
    max_age_s: int | None


class Failed(msgspec.Struct, frozen=True):
    """The end of a request that got no answer, or not all of it."""

    number: int
    says: ErrorSays


Frame = Headed | Data | Ended | Failed


class Parser:
    """Frames from bytes, wherever these are cut.

    Concurrency: one task.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._number = 0
        self._left = 0

    def greeting(self, data: bytes) -> Hello | None:
        """What the plugin says of itself; None until its line is complete.

        Raises:
            BabbleError: something else came.
        """
        self._buffer += data
        line = self._line()
        if line is None:
            return None
        try:
            return msgspec.json.decode(line, type=_Greeting).plugin
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BabbleError(f"{_excerpt(line)} came instead of a greeting: {error}") from error

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that the bytes complete, and the parts of a frame's data as they come.

        Raises:
            BabbleError: something else came.
        """
        self._buffer += data
        while self._buffer:
            if self._left:
                piece = bytes(self._buffer[: self._left])
                del self._buffer[: self._left]
                self._left -= len(piece)
                yield Data(self._number, piece)
                continue
            line = self._line()
            if line is None:
                return
            frame = self._frame(line)
            if frame is not None:
                yield frame

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, LINE_LIMIT)
        if end < 0:
            if len(self._buffer) >= LINE_LIMIT:
                raise BabbleError(f"{_excerpt(self._buffer)} goes on without a line break")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _frame(self, line: bytes) -> Frame | None:
        try:
            said = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BabbleError(f"{_excerpt(line)} came instead of an answer: {error}") from error
        kinds = (said.head, said.data, said.done, said.cached, said.error)
        if sum(kind is not None for kind in kinds) != 1:
            raise BabbleError(f"{_excerpt(line)} is none of head, data, done, use-cached and error")
        if said.data is not None:
            if not 0 <= said.data <= DATA_LIMIT:
                raise BabbleError(f"{said.data} bytes in one frame; {DATA_LIMIT} at most")
            self._number, self._left = said.id, said.data
            return None
        if said.head is not None:
            return Headed(said.id, said.head)
        if said.error is not None:
            return Failed(said.id, said.error)
        return _ended(said.id, said.done, said.cached)


def hello(version: Version) -> bytes:
    """What cafs says first."""
    return _said({"cafs": {"version": [version.major, version.minor]}})


class Get(msgspec.Struct, frozen=True, kw_only=True):
    """A request. ``cached``: the content of ``validator``, or ``document``, is at hand."""

    url: str
    span: tuple[int, int] | None
    validator: str | None
    document: msgspec.Raw | None
    cached: bool
    headers: dict[str, str]
    window: int = WINDOW


def get(number: int, request: Get) -> bytes:
    """Ask."""
    return _said({"id": number, "get": request})


def more(number: int, length: int) -> bytes:
    """So many more bytes may be sent for a request."""
    return _said({"more": number, "bytes": length})


def cancel(number: int) -> bytes:
    """Nobody waits for a request any more."""
    return _said({"cancel": number})


def _ended(number: int, done: EndSays | None, cached: EndSays | None) -> Ended:
    says = cached or done or EndSays()
    document = bytes(says.document).decode()
    if document == "null":
        document = ""
    if document and not document.startswith("{"):
        raise BabbleError(f"{_excerpt(document.encode())} is no document: a JSON object is one")
    return Ended(number, cached is not None, document, says.max_age_s)


def _said(line: object) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _excerpt(line: bytes | bytearray) -> str:
    # A careless plugin prints the URL that it fetches, and its query may be a secret.
    shown = bytes(line[:60]).partition(b"?")[0].decode("ascii", "backslashreplace")
    return repr(shown) + ("…" if len(line) > len(shown) else "")
