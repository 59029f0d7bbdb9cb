"""Credentials in the netrc file, which says them machine by machine.

As curl reads it: the first entry of a machine counts, for all of its ports; what is not known is
passed over; who may read the file is its owner's business. Unlike curl, ``default`` is for nobody:
it would be shown to every host that a mirror or a redirect names.

Source: curl's manual, --netrc; the GNU inetutils manual, "The .netrc file".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from typing_extensions import override

from cafs.model.login import HostLogin, rule_for
from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.files import Files
from cafs.transport.credentials.interfaces import Asked, Keyring

_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"?|(\S+)')
_ESCAPE: Final = re.compile(r"\\(.)")


class Entry(NamedTuple):
    """What the file says for one machine."""

    login: str
    password: str


class Netrc(Keyring):
    """What ``$NETRC``, or else ``~/.netrc``, says.

    Args:
        logins: of the settings; they may forbid to look here.
        environ: says where the file is.
    """

    def __init__(self, logins: Sequence[HostLogin], environ: Mapping[str, str]) -> None:
        self._logins = tuple(logins)
        self._files = Files()
        named = environ.get("NETRC")
        home = environ.get("HOME")
        self._path = Path(named) if named else Path(home) / ".netrc" if home else None

    @override
    async def look(self, asked: Asked) -> Finding:
        if self._path is None:
            return Finding(None, ())
        login = rule_for(asked.url, self._logins)
        place = str(self._path)
        if login is not None and not login.netrc:
            return Finding(None, (Look(place, "not looked at, as settings say"),))
        data = await self._files.content(self._path)
        if data is None:
            return Finding(None, (Look(place, "no such file"),))
        entry = entries(data.decode(errors="surrogateescape")).get(asked.origin.host)
        if entry is None:
            return Finding(None, (Look(place, "nothing for this host"),))
        if not entry.password:
            raise UnusableError(place, f"machine {asked.origin.host} has no password")
        found = Credential.basic(entry.login, entry.password, place)
        return Finding(found, (Look(place, found.kind, found=True),))


def entries(text: str) -> dict[str, Entry]:
    """The first entry of each machine; machines are lower-case."""
    found: dict[str, Entry] = {}
    machine, login, password = "", "", ""
    words = _words(text)
    for word in words:
        match word:
            case "machine" | "default":
                _keep(found, machine, login, password)
                machine = next(words, "").lower() if word == "machine" else ""
                login = password = ""
            case "login" | "user":
                login = next(words, "")
            case "password":
                password = next(words, "")
            case "account":
                next(words, "")
            case _:
                continue
    _keep(found, machine, login, password)
    return found


def _keep(found: dict[str, Entry], machine: str, login: str, password: str) -> None:
    if machine:
        found.setdefault(machine, Entry(login, password))


def _words(text: str) -> Iterator[str]:
    """The words of the file, without comments and macros."""
    macro = False
    for line in text.split("\n"):
        bare = line.strip()
        macro = macro and bool(bare)
        if macro or bare.startswith("#"):
            continue
        for number, match in enumerate(_WORD.finditer(bare)):
            quoted, plain = match.groups()
            if plain == "macdef" and number == 0:
                macro = True  # up to an empty line
                break
            yield _ESCAPE.sub(r"\1", quoted if plain is None else plain)
