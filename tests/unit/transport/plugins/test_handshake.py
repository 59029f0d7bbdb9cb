"""Which versions of the protocol go together: rule (b) of D-14, as a matrix."""

import logging
import re

import pytest
import trio
from trio.testing import MockClock

from cafs.errors import CafsError, RefusedError, UnreachableError
from cafs.transport.plugins.handshake import Outcome, Version, compared
from tests.unit.transport.plugins.plugin_world import (
    answered,
    asking,
    logged,
    open_plugin,
    read,
    spec,
)

GO, WARN, REFUSE = Outcome.GO, Outcome.WARN, Outcome.REFUSE
MATRIX = [
    ((1, 0), (1, 0), GO),
    ((1, 0), (1, 1), WARN),
    ((1, 0), (1, 9), WARN),
    ((1, 0), (0, 9), REFUSE),
    ((1, 0), (2, 0), REFUSE),
    ((1, 2), (1, 2), GO),
    ((1, 2), (1, 3), WARN),
    ((1, 2), (1, 1), REFUSE),
    ((1, 2), (1, 0), REFUSE),
    ((1, 2), (0, 2), REFUSE),
    ((1, 2), (2, 2), REFUSE),
    ((1, 2), (2, 3), REFUSE),
    ((0, 1), (0, 1), GO),
    ((0, 1), (0, 2), WARN),
    ((0, 1), (1, 1), REFUSE),
]


@pytest.mark.parametrize(("ours", "theirs", "outcome"), MATRIX)
def test_d14_rule_b(ours: tuple[int, int], theirs: tuple[int, int], outcome: Outcome) -> None:
    verdict = compared(Version(*ours), Version(*theirs))
    assert verdict.outcome is outcome
    assert bool(verdict.reason) is (outcome is not GO)
    if verdict.reason:
        assert str(Version(*ours)) in verdict.reason
        assert str(Version(*theirs)) in verdict.reason


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ([1, 0], "1.0"),
        ("1.0", "1.0"),
        ([2, 13, 5], "2.13"),
        ([1], "1.0"),
        ("1", "1.0"),
        ("1.x", "1.0"),
        ("x.2", "0.2"),
        (["1", "2"], "1.2"),
        ([True, 1.5], "0.0"),
        ([-1, None], "0.0"),
        ({}, "0.0"),
        (None, "0.0"),
        ("", "0.0"),
    ],
)
def test_d13_what_is_no_number_is_0(said: object, version: str) -> None:
    assert str(Version.parse(said)) == version


@pytest.mark.parametrize("version", ["[1, 0]", '"1.0"', '[1, 0, "beta"]'])
async def test_an_equal_version_goes_without_a_word(version: str) -> None:
    async with open_plugin(spec("--version", version)) as plugin:
        assert len(await read(plugin, "x:bytes/10")) == 10


@pytest.mark.expects_log("newer")
async def test_a_newer_minor_version_goes_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_plugin(spec("--version", "[1, 7]")) as plugin:
        assert len(await read(plugin, "x:bytes/10")) == 10
        await read(plugin, "x:bytes/10")
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "speaks version 1.7" in warnings[0].getMessage()


@pytest.mark.parametrize("version", ["[0, 9]", "[2, 0]", '"x"', "null"])
async def test_another_major_version_is_refused_with_the_reason(version: str) -> None:
    async with open_plugin(spec("--version", version)) as plugin:
        with pytest.raises(RefusedError, match="another major version is another protocol"):
            await read(plugin, "x:bytes/10")


async def test_a_plugin_for_other_schemes_is_refused() -> None:
    async with open_plugin(spec("--schemes", "y,z")) as plugin:
        with pytest.raises(RefusedError, match="answers for y, z, not for x"):
            await read(plugin, "x:bytes/10")


GREETINGS = [
    ("hello", RefusedError, "'hello' came instead of a greeting"),
    ("{}", RefusedError, "instead of a greeting"),
    ('{"plugin":{"name":"x","version":[1,0]}}', RefusedError, "schemes"),
    ('{"id":1,"done":{}}', RefusedError, "instead of a greeting"),
]


@pytest.mark.parametrize(("greeting", "family", "says"), GREETINGS)
async def test_what_is_no_greeting_is_refused(
    greeting: str, family: type[CafsError], says: str
) -> None:
    async with open_plugin(spec("--greeting", greeting)) as plugin:
        with pytest.raises(family, match=says):
            await read(plugin, "x:bytes/10")


async def test_a_plugin_that_does_not_greet_is_given_up(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    async with open_plugin(spec("--mute")) as plugin, trio.open_nursery() as nursery:
        errors = asking(nursery, plugin, "x:bytes/10")
        await logged(caplog, "meditating")
        mock_clock.jump(20.1)
        await answered(errors)
        assert isinstance(errors[0], UnreachableError)
        assert re.search(r"did not greet within 20 s.*meditating", errors[0].what)


async def test_a_plugin_that_ends_instead_of_greeting_tells_why() -> None:
    async with open_plugin(spec("--die")) as plugin:
        with pytest.raises(UnreachableError, match=r"exit code 1.*no licence"):
            await read(plugin, "x:bytes/10")
