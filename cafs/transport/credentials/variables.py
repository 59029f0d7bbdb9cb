"""Credentials in variables of the environment: ``CAFS_LOGIN_EXAMPLE_COM``.

The name is the host's in capitals: ``_`` for a dot, ``__`` for a hyphen, and a port that is not the
scheme's own behind another ``_``. So no two hosts share a variable. The value is ``NAME:PASSWORD``
or ``Bearer TOKEN``.
"""

import re
from collections.abc import Mapping
from typing import Final

from typing_extensions import override

from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.interfaces import Asked, Keyring
from cafs.transport.urls import Origin

_PREFIX: Final = "CAFS_LOGIN_"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")


def variable_for(origin: Origin) -> str | None:
    """The variable's name; None for hosts that none can be for (IPv6, or with a ``_``)."""
    if not _NAME.fullmatch(origin.host):
        return None
    host = origin.host.replace("-", "__").replace(".", "_").upper()
    # No name ends in a component of digits alone, and no address has five of them.
    return f"{_PREFIX}{host}" + ("" if origin.usual else f"_{origin.port}")


class Variables(Keyring):
    """What the environment says."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @override
    async def look(self, asked: Asked) -> Finding:
        variable = variable_for(asked.origin)
        if variable is None:
            return Finding(None, ())
        place = f"variable {variable}"
        text = self._environ.get(variable, "").strip()
        if not text:
            return Finding(None, (Look(place, "not set"),))
        scheme, space, token = text.partition(" ")
        if space and scheme.lower() == "bearer":
            found = Credential.bearer(token.strip(), place)
        else:
            user, colon, password = text.partition(":")
            if not colon:
                raise UnusableError(place, "neither NAME:PASSWORD nor Bearer TOKEN")
            found = Credential.basic(user, password, place)
        return Finding(found, (Look(place, found.kind, found=True),))
