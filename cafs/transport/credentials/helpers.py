"""Credential helpers: programs that know the credentials of a host, as Bazel asks them.

``PROGRAM get`` reads ``{"uri": URL}`` and answers ``{"headers": {NAME: [VALUE, …]}, "expires":
TIME}``, the time as in RFC 3339 and left out where nobody knows. No headers: none are needed.

Source: the credential-helper specification of EngFlow; the Bazel proposal of 2022-06-07.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from typing_extensions import override

from cafs.model.login import HelperRule, rule_for
from cafs.transport.credentials.credential import Credential, Finding, Look, UnusableError
from cafs.transport.credentials.interfaces import Asked, Keyring
from cafs.transport.credentials.running import Runner


class _Answer(msgspec.Struct):
    headers: dict[str, list[str] | str] = {}
    expires: str = ""


class Helpers(Keyring):
    """What the programs of ``[helpers]`` say.

    Args:
        rules: of the settings.
        runner: runs the programs.
    """

    def __init__(self, rules: Sequence[HelperRule], runner: Runner) -> None:
        self._rules = tuple(rules)
        self._runner = runner

    @override
    async def look(self, asked: Asked) -> Finding:
        rule = rule_for(asked.url, self._rules)
        if rule is None:
            return Finding(None, ())
        place = f"helper {rule.command[0]}"
        question = msgspec.json.encode({"uri": asked.url})
        spoken = await self._runner.run((*rule.command, "get"), question, place)
        if spoken.code:
            raise UnusableError(place, f"failed with exit code {spoken.code}")
        found = _parsed(spoken.output, place)
        if not found.lines:
            return Finding(None, (Look(place, "nothing for this host"),))
        return Finding(found, (Look(place, found.kind, found=True),))


def _parsed(output: bytes, place: str) -> Credential:
    # The answer is a secret, and so is what a parser says of it.
    try:
        answer = msgspec.json.decode(output, type=_Answer)
        expires_s = _time_s(answer.expires)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise UnusableError(place, "its answer cannot be read") from None
    lines = [
        (name, value)
        for name, values in answer.headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return Credential.headers(lines, place, expires_s)


def _time_s(text: str) -> float | None:
    """Seconds since the epoch.

    Raises:
        ValueError: not a time with its zone.
    """
    if not text:
        return None
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(text)
    return time.timestamp()
