"""Credentials that settings name: files and variables, host by host."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from cafs.model.login import HostLogin, rule_for
from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.files import Files
from cafs.transport.credentials.interfaces import Asked, Keyring


class Stated(Keyring):
    """What ``[credentials."HOST"]`` says.

    Args:
        logins: of the settings.
        environ: where the variables are that they name.
    """

    def __init__(self, logins: Sequence[HostLogin], environ: Mapping[str, str]) -> None:
        self._logins = tuple(logins)
        self._environ = environ
        self._files = Files()

    @override
    async def look(self, asked: Asked) -> Finding:
        login = rule_for(asked.url, self._logins)
        if login is None:
            return Finding(None, ())
        name = f'settings [credentials."{login.host}"]'
        secret = login.password_file or login.password_env
        token = login.token_file or login.token_env
        if not secret and not token:
            return Finding(None, (Look(name, "no password and no token"),))
        text, where = await self._secret(login, name)
        place = f"{name}, {where}"
        found = (
            Credential.bearer(text, place)
            if token
            else Credential.basic(login.username, text, place)
        )
        return Finding(found, (Look(place, found.kind, found=True),))

    async def _secret(self, login: HostLogin, name: str) -> tuple[str, str]:
        """The text, and where it was."""
        file = login.token_file or login.password_file
        if file is not None:
            return await self._from_file(file, f"{name}, {file}"), str(file)
        variable = login.token_env or login.password_env or ""
        text = self._environ.get(variable, "")
        if not text:
            raise UnusableError(f"{name}, variable {variable}", "not set")
        return text, f"variable {variable}"

    async def _from_file(self, path: Path, name: str) -> str:
        data = await self._files.content(path, name)
        if data is None:
            raise UnusableError(name, "there is no such file")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise UnusableError(name, "not UTF-8") from None
        # Editors and `echo` end a file with a line end, which is no part of any password.
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise UnusableError(name, "empty")
        return text
