"""Profiles of ``~/.aws``: keys and region by name, as the cloud's own tools keep them."""

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cafs.errors import CredentialsError

_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
}
"""What is taken, and what obstore calls it."""


def profile(environ: Mapping[str, str]) -> dict[str, str]:
    """What the profile says that ``AWS_PROFILE`` names, else ``default``.

    Nothing when the variables have keys themselves and no profile is named. What a variable says
    (the region) is not looked for.

    Raises:
        CredentialsError: the named profile is in neither file, or a file cannot be read.
    """
    named = environ.get("AWS_PROFILE", "")
    if not named and "AWS_ACCESS_KEY_ID" in environ:
        return {}
    home = Path(environ.get("HOME", "/nonexistent"))
    places = [
        (environ.get("AWS_CONFIG_FILE") or home / ".aws" / "config", "profile "),
        (environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials", ""),
    ]
    name = named or "default"
    said: dict[str, str] = {}
    known = False
    for path, prefix in places:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (OSError, configparser.Error, UnicodeDecodeError) as error:
            # The parser's message would show the line.
            raise CredentialsError(f"{path}: cannot be read: {type(error).__name__}") from None
        for section in (name, f"{prefix}{name}"):
            if parser.has_section(section):
                known = True
                said |= dict(parser.items(section))
    if named and not known:
        raise CredentialsError(f"AWS_PROFILE is {named!r}, and there is no such profile")
    region_told = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return {
        option: said[key]
        for key, option in _KEYS.items()
        if key in said and not (option == "region" and region_told)
    }
