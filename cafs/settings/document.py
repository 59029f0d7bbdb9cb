"""One TOML file, read, and its tables, which are asked for typed values by key."""

import re
import tomllib
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Final, TypeVar

from typing_extensions import override

from cafs.errors import SettingsError
from cafs.settings.schema import Origin, Voice, check, table

T = TypeVar("T")
_MAX_FILE: Final = 1024 * 1024
"""Bytes. Settings are written by hand; anything larger is another file by mistake."""
_MOST: Final = (1 << 63) - 1
"""Numbers are packed in 64 bits."""
_FORMAT: Final = "see https://toml.io"
_LEAST: Final = -(1 << 63)
_ENDLESS: Final = re.compile(rb"[0-9][0-9_]{4299,}")
"""A number of more digits than Python turns into one."""
_CONFLICT: Final = re.compile(rb"^<{7} ", re.MULTILINE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Table:
    """One table of a file. Errors name the file and the whole dotted key.

    ``directory`` is the file's; ``name`` is the table's own dotted key, empty for the whole file.

    Concurrency: immutable; any number of readers.
    """

    __slots__ = ("_values", "directory", "name", "origin")

    def __init__(
        self, values: dict[str, object], *, origin: Origin, directory: Path, name: str = ""
    ) -> None:
        self._values = values
        self.origin = origin
        self.directory = directory
        self.name = name

    def below(self, *words: str) -> "Table":
        """The table at a key, an empty one when it is absent.

        Raises:
            SettingsError: something else stands there.
        """
        found = self
        for word in words:
            key = found.key(word)
            values = table(found._values.get(word, {}), key, self.origin)
            found = Table(values, origin=self.origin, directory=self.directory, name=key)
        return found

    def key(self, key: str) -> str:
        """The dotted key, from the top of the file."""
        return f"{self.name}.{key}" if self.name else key

    def __iter__(self) -> Iterator[str]:
        """The keys, as they stand in the file."""
        return iter(self._values)

    def has(self, key: str) -> bool:
        """Whether anything stands at a key."""
        return self.value(key) is not None

    def text(self, key: str) -> str | None:
        """The string at a key, None when it is absent."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(key, "must be a string", hint=f'{key.rpartition(".")[2]} = "…"')
        if _CONTROL.search(value):
            raise self.wrong(key, f"{value!r} has control characters in it")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings of a list, empty when it is absent."""
        value = self.value(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.wrong(key, "must be a list of strings", hint='["…", "…"]')
        texts: list[str] = []
        for each in value:
            if not isinstance(each, str) or _CONTROL.search(each):
                raise self.wrong(key, f"{each!r} must be a plain string")
            texts.append(each)
        return tuple(texts)

    def one_or_more(self, key: str) -> tuple[str, ...]:
        """The strings of a list, or a string for a list of one; empty when it is absent."""
        value = self.value(key)
        if isinstance(value, str):
            return (self.text(key) or "",)
        if value is not None and not isinstance(value, list):
            hint = '"…" or ["…", "…"]'
            raise self.wrong(key, "must be a string, or a list of strings", hint=hint)
        return self.texts(key)

    def parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        """What ``parse`` makes of the string at a key; its ValueError says what is wrong."""
        text = self.text(key)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise self.wrong(key, str(error)) from error

    def count(self, key: str, *, most: int = _MOST) -> int | None:
        """The number at a key, not negative and at most ``most``; None when it is absent."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, f"{value!r} must be a whole number, 0 or more")
        if value > most:
            raise self.wrong(key, f"{value} is more than {most}, which is the most")
        return value

    def number(self, key: str) -> float | None:
        """The number at a key, with or without a fraction; None when it is absent."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise self.wrong(key, f"{value!r} must be a number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        """``true`` or ``false`` at a key, None when it is absent."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, f"{value!r} must be true or false, without quotes")
        return value

    def wrong(self, key: str, what: str, *, hint: str = "") -> SettingsError:
        """The error that says what is wrong with a key."""
        return SettingsError(self.origin.name, self.key(key), what, hint=hint)

    def value(self, key: str) -> object:
        """What stands at a key, whatever it is; None when it is absent."""
        return self._values.get(key)


class Document(Table):
    """The checked tables of one file, asked by ``table.key``.

    Concurrency: immutable; any number of readers.
    """

    __slots__ = ()

    def __init__(self, tables: dict[str, object], *, origin: Origin, directory: Path) -> None:
        check(tables, origin)
        super().__init__(tables, origin=origin, directory=directory)

    @override
    def value(self, key: str) -> object:
        name, _, word = key.partition(".")
        return self.below(name).value(word)


def read(path: Path, voice: Voice) -> Document | None:
    """Read and check one file. None when it does not exist.

    Raises:
        SettingsError: it cannot be read, is no TOML (names the line), or has keys that may not
            stand in it.
    """
    values = tables(path)
    if values is None:
        return None
    return Document(values, origin=Origin(str(path), voice), directory=path.parent)


def tables(path: Path, *, most: int = _MAX_FILE, hint: str = "") -> dict[str, object] | None:
    """What a TOML file of at most ``most`` bytes has, unchecked. None when it does not exist.

    Args:
        path: the file.
        most: bytes.
        hint: what to do about a file that a program has written, and that is not as it was.

    Raises:
        SettingsError: it cannot be read, is no TOML (names the line), or has a number that does not
            fit into 64 bits (names the key).
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(name, "", f"cannot be read: {error.strerror}") from error
    if len(raw) > most:
        raise SettingsError(
            name, "", f"is larger than {most} bytes", hint=hint or "is it settings?"
        )
    values = _parse(raw, name, hint or _FORMAT)
    _refuse_large_numbers(values, name, hint)
    return values


def _parse(raw: bytes, name: str, hint: str) -> dict[str, object]:
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = _line(raw[: error.start])
        raise SettingsError(name, "", f"line {line}: is not UTF-8", hint=hint) from error
    except tomllib.TOMLDecodeError as error:
        if conflict := _CONFLICT.search(raw):
            what = f"line {_line(raw[: conflict.end()])}: begins a merge conflict"
            raise SettingsError(
                name,
                "",
                what,
                hint="settle it; of a lock take either side whole, and run cafs lock",
            ) from error
        text = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)\Z", text)
        if place is None:
            what = f"line {_line(raw.rstrip())}: {text}"
        else:
            what = f"line {place[1]}, column {place[2]}: {text[: place.start()]}"
        raise SettingsError(name, "", what, hint=hint) from error
    except ValueError as error:
        # The only other one: Python makes no number of so many digits.
        found = _ENDLESS.search(raw)
        where = "" if found is None else f"line {_line(raw[: found.start()])}: "
        raise SettingsError(
            name, "", f"{where}has a number that is too large", hint=hint
        ) from error
    except RecursionError as error:
        raise SettingsError(name, "", "is nested too deeply", hint=hint) from error


def _refuse_large_numbers(values: dict[str, object], name: str, hint: str) -> None:
    """Refuse what does not fit into 64 bits. Source: TOML 1.0, Integer.

    Of a hexadecimal one Python takes any number of digits, and cannot say it in decimal ones.
    """
    rest: list[tuple[str, object]] = [("", values)]
    while rest:
        key, value = rest.pop()
        if isinstance(value, dict):
            rest += [(f"{key}.{word}" if key else word, each) for word, each in value.items()]
        elif isinstance(value, list):
            rest += [(key, each) for each in value]
        elif isinstance(value, int) and not _LEAST <= value <= _MOST:
            raise SettingsError(name, key, "is a number that is too large", hint=hint)


def _line(before: bytes) -> int:
    return before.count(b"\n") + 1
