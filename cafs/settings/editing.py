"""Edits a cafs.toml as a person would: what is not meant stays as it was, comments and order too.

What comes out is parsed and compared with what it should be before anybody writes it. tomlkit's
only door.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from cafs.errors import NotFoundError, SettingsError
from cafs.model.nearest import nearest_hint

_HEADER: Final = re.compile(r"\[\[?([^\[\]#]+)\]\]?(?:\s*#.*)?")
Facts = Mapping[str, str | int | list[str]]
"""What a ref's table says, in the order in which it is written."""


def with_ref(text: str, name: str, facts: Facts, *, file: Path) -> str:
    """The text with one more ref, at its end.

    Args:
        text: of the project's file, which is valid TOML; empty for a new one.
        name: the ref's; its table is not there yet.
        facts: what the table says.
        file: for messages.

    Raises:
        SettingsError: the name is in use, or the file is written in a way that this cannot edit.
    """
    before = _parsed(text, file)
    refs = before.get("ref", {})
    if not isinstance(refs, dict) or name in refs:
        raise SettingsError(
            str(file),
            f"ref.{name}",
            "is there already",
            hint=f"cafs remove {name}, or choose another name",
        )
    wanted = deepcopy(before)
    wanted["ref"] = {**refs, name: dict(facts)}
    table = tomlkit.table()
    for key, value in facts.items():
        table.add(key, value)
    above = tomlkit.table(is_super_table=True)
    above.add(name, table)
    added = tomlkit.document()
    added.add("ref", above)
    gap = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
    return _sure(f"{text}{gap}{tomlkit.dumps(added)}", wanted, file)


def without_refs(text: str, names: Iterable[str], *, file: Path, uncommented: bool = False) -> str:
    """The text without some refs, and without the comments right above their tables.

    Args:
        text: of the project's file.
        names: the refs'.
        file: for messages.
        uncommented: the refs were written without comments: those that are there stay.

    Raises:
        NotFoundError: it has no such ref.
        SettingsError: the file is written in a way that this cannot edit.
    """
    wanted = _parsed(text, file)
    refs = wanted.get("ref", {})
    known = refs if isinstance(refs, dict) else {}
    gone, every = list(dict.fromkeys(names)), sorted(known)
    for name in gone:
        if name not in known:
            hint = nearest_hint(name, every) if every else ""
            raise NotFoundError(f"{file} has no ref named {name!r}", hint=hint)
        del known[name]
    if not known:
        wanted.pop("ref", None)
    cut = _cut(text, gone, uncommented=uncommented)
    if _says(cut, wanted):
        return cut
    try:
        document = tomlkit.parse(text)
        for name in gone:
            del document["ref"][name]
        if not known:
            del document["ref"]
        return _sure(tomlkit.dumps(document), wanted, file)
    except TOMLKitError as error:
        raise _too_odd(file) from error


def without_added(text: str, name: str, facts: Facts, added: str, *, file: Path) -> str | None:
    """The text without a ref that ``with_ref`` has put there, whatever others have changed since.

    ``with_ref`` writes no comments: lines of such are somebody's, and stay.

    Args:
        text: of the project's file as it is now.
        name: the ref's.
        facts: what its table was given.
        added: what was put at the text's end then.
        file: for messages.

    Returns:
        None where there is nothing to take out: the ref has gone, or says something else by now.

    Raises:
        SettingsError: the file is no TOML any more, or is written in a way that this cannot edit.
    """
    wanted = _parsed(text, file)
    refs = wanted.get("ref", {})
    if not isinstance(refs, dict) or refs.get(name) != facts:
        return None
    del refs[name]
    if not refs:
        del wanted["ref"]
    cut = text.replace(added, "", 1)
    if _says(cut, wanted):
        return cut
    return without_refs(text, [name], file=file, uncommented=True)


def _cut(text: str, names: Collection[str], *, uncommented: bool) -> str:
    """The text without the blocks that begin with a header of one of these refs.

    A block begins with the comments right above its header, unless it is ``uncommented``. Of a
    text that is written otherwise (inline tables, headers inside strings) something else comes out:
    the caller looks.
    """
    kept: list[str] = []
    comments: list[str] = []
    dropping = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("#"):
            comments.append(line)
            continue
        header = _HEADER.fullmatch(line.strip())
        if header is not None:
            dropping = _path(header[1])[:2] in [("ref", name) for name in names]
        if not dropping:
            kept += [*comments, line]
        elif comments and not line.strip():
            # What stands apart from a table's lines belongs to none, or to the next.
            kept += [*comments, line]
        elif uncommented:
            kept += comments
        comments = []
    ends = dropping and not comments and text.splitlines()[-1].strip()
    if ends and kept and not kept[-1].strip():
        # What stood between the last table and the one before it stands between nothing now.
        del kept[-1]
    return "".join([*kept, *comments])


def _path(key: str) -> tuple[str, ...]:
    """The words of a dotted key, none for what is no key."""
    words: list[str] = []
    try:
        table: object = tomllib.loads(f"[{key}]")
    except tomllib.TOMLDecodeError:
        return ()
    while isinstance(table, dict) and table:
        ((word, table),) = table.items()
        words.append(word)
    return tuple(words)


def _parsed(text: str, file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        raise SettingsError(str(file), "", str(error)) from error


def _sure(text: str, wanted: dict[str, object], file: Path) -> str:
    """The text, if it says what it should."""
    if not _says(text, wanted):
        raise _too_odd(file)
    return text


def _says(text: str, wanted: dict[str, object]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _too_odd(file: Path) -> SettingsError:
    what = "is written in a way that this cannot edit"
    return SettingsError(str(file), "ref", what, hint="edit it by hand, then run cafs lock")
