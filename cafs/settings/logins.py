"""``[credentials."HOST"]``: who one is to a host.

No secret is read here, and none is repeated: what stands where a secret's place should be may be
the secret itself.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cafs.model.login import HostLogin
from cafs.settings.document import Table
from cafs.settings.places import absolute

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRETS: Final = ("password-file", "password-env", "token-file", "token-env")


def login_of(table: Table, host: str, environ: Mapping[str, str]) -> HostLogin:
    """The login that a table says.

    Args:
        table: the host's.
        host: its normal form.
        environ: for ``~``.

    Raises:
        SettingsError: a wrong value, naming file and key.
    """
    said = [key for key in _SECRETS if table.has(key)]
    if len(said) > 1:
        raise table.wrong(said[1], f"there is {said[0]} already", hint="leave one of them out")
    by_password = bool(said) and said[0].startswith("password")
    username = table.text("username") or ""
    if by_password and not username:
        raise table.wrong(said[0], "needs a username", hint='username = "…"')
    if username and not by_password:
        hint = "password-file or password-env; a bearer token has no username"
        raise table.wrong("username", "needs a password", hint=hint)
    if ":" in username:
        raise table.wrong("username", "has no ':' in it", hint="no server could tell what is what")
    certificate, key = (_file(table, word, environ) for word in ("client-cert", "client-key"))
    if key and not certificate:
        raise table.wrong("client-key", "needs a certificate", hint='client-cert = "…"')
    if certificate:
        _check_certificate(table, certificate, key)
    insecure, netrc = table.flag("insecure"), table.flag("netrc")
    return HostLogin(
        host=host,
        username=username,
        password_file=_file(table, "password-file", environ),
        password_env=_variable(table, "password-env"),
        token_file=_file(table, "token-file", environ),
        token_env=_variable(table, "token-env"),
        client_cert=certificate,
        client_key=key,
        insecure=bool(insecure),
        netrc=netrc is not False,
    )


def _file(table: Table, key: str, environ: Mapping[str, str]) -> Path | None:
    text = table.text(key)
    path = None if text is None else absolute(text, environ)
    if text is not None and path is None:
        # It may be the secret itself, by mistake: it is not repeated.
        raise table.wrong(key, "must be the absolute path of a file", hint="/… or ~/…")
    return path


def _variable(table: Table, key: str) -> str | None:
    text = table.text(key)
    if text is not None and not _VARIABLE.fullmatch(text):
        raise table.wrong(key, "must be the name of a variable", hint="letters, digits, '_'")
    return text


def _check_certificate(table: Table, certificate: Path, key: Path | None) -> None:
    """Look at what is there now: when it is used, a server says no, and nothing says why.

    A file that is there and is no certificate was named by mistake. One that is not there, that may
    not be read, or that is no plain file may be another's affair, or be there tomorrow: it is in
    the way of what goes to its host, when that is asked, and of nothing else.
    """
    import ssl  # noqa: PLC0415 - it costs as much as all the rest of the settings

    def refuse() -> str:
        raise ValueError("the key is encrypted")

    try:
        if not all(path.is_file() for path in (certificate, key) if path is not None):
            return
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        what = f"{certificate}: no certificate in PEM with its key"
        raise table.wrong("client-cert", what, hint="the key may be in client-key") from error
    except ValueError as error:
        raise table.wrong("client-cert", f"cannot be used: {error}") from error
    except OSError:
        # Whoever asks that host is told.
        return
