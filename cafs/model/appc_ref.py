"""Refs to images that are found by name and labels (R-19, R-20)."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote_plus, unquote

from typing_extensions import override

from cafs.errors import InvalidReferenceError

_AC_IDENTIFIER: Final = re.compile(r"[a-z0-9]+(?:[-._~/][a-z0-9]+)*")
_RANKS: Final = {"os": 1, "arch": 2}


@dataclass(frozen=True, slots=True)
class AppcRef:
    """An image found by name and labels. Labels are unique, sorted by name; "version" is one.

    Raises:
        InvalidReferenceError: a name or label that is no AC identifier (R-20), a label given twice,
            or an empty version.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Sort the labels, refuse what no image has."""
        for word in (self.name, *(label for label, _ in self.labels)):
            if not _AC_IDENTIFIER.fullmatch(word):
                raise InvalidReferenceError(
                    f"{word!r} is no AC identifier",
                    hint="lower-case letters, digits, and single '-', '.', '_', '~', '/' between",
                )
        names = [label for label, _ in self.labels]
        for label in names:
            if names.count(label) > 1:
                raise InvalidReferenceError(f"{self.name}: label {label!r} is given twice")
        if ("version", "") in self.labels:
            raise InvalidReferenceError(f"{self.name}: the version is empty")
        object.__setattr__(self, "labels", tuple(sorted(self.labels)))

    @classmethod
    def parse(cls, text: str) -> "AppcRef":
        """Parse an app string, ``name[:version][,label=value]…`` (R-20). Values are verbatim.

        Raises:
            InvalidReferenceError: not of that form.
        """
        return cls(*_parts(text))

    @classmethod
    def parse_data(cls, data: str, query: str) -> "AppcRef":
        """Parse the DATA and the query of a ``cimd:`` text; the name may be escaped (R-19).

        Raises:
            InvalidReferenceError: not of that form.
        """
        name, labels = _parts(data)
        if query:
            try:
                pairs = parse_qsl(
                    query, keep_blank_values=True, strict_parsing=True, errors="surrogateescape"
                )
            except ValueError as error:
                raise InvalidReferenceError(f"{data}?{query}: {error}") from error
            labels += tuple(pairs)
        return cls(unquote(name), labels)

    @property
    def version(self) -> str | None:
        """The label "version", None without one."""
        return dict(self.labels).get("version")

    @property
    def ranked(self) -> tuple[tuple[str, str], ...]:
        """The labels but the version, as people read them: os, arch, then the rest by name."""
        rest = (pair for pair in self.labels if pair[0] != "version")
        return tuple(sorted(rest, key=lambda pair: (_RANKS.get(pair[0], 3), pair[0])))

    @property
    def canonical(self) -> str:
        """The ``cimd:`` text, labels sorted, their values query-escaped (R-19, its bug mended)."""
        query = "&".join(
            f"{quote_plus(label, safe='/')}={quote_plus(value, safe='', errors='surrogateescape')}"
            for label, value in self.labels
        )
        return f"cimd:appc:v=0:{self.name}{'?' if query else ''}{query}"

    @property
    def friendly(self) -> str:
        """``appc:`` and the app string; the canonical text when no app string can say it."""
        if not all(_writable(value) for _, value in self.labels):
            return self.canonical
        words = "".join(f",{label}={value}" for label, value in self.ranked)
        version = self.version
        return f"appc:{self.name}{'' if version is None else ':' + version}{words}"

    @property
    def shown(self) -> str:
        """The short form; nothing in it is secret."""
        return self.friendly

    @property
    def host(self) -> str | None:
        """The host that discovery starts at: the name's first component (R-34)."""
        return self.name.partition("/")[0]

    @override
    def __str__(self) -> str:
        return self.friendly


def _writable(value: str) -> bool:
    """Whether a value can stand in an app string, where nothing is escaped."""
    return value.isprintable() and value == value.strip() and not set(",:") & set(value)


def _parts(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Take an app string apart; names and labels are unchecked."""
    head, *words = text.split(",")
    if text.count(":") > head.count(":") or head.count(":") > 1:
        raise InvalidReferenceError(
            f"{text!r}: ':' stands once, straight after the name", hint="name:version,label=value"
        )
    name, colon, version = head.partition(":")
    labels = [("version", version)] if colon else []
    for word in words:
        label, equals, value = word.partition("=")
        if not equals:
            raise InvalidReferenceError(f"{text!r}: {word!r} is no label", hint="label=value")
        labels.append((label, value))
    return name, tuple(labels)
