import pytest
from hypothesis import given, settings, strategies as st

from cafs.transport.challenges import Challenge, parse_challenges

BEARER = Challenge(
    "bearer",
    (("realm", "https://auth.example/token"), ("service", "s"), ("scope", "repository:a/b:pull")),
)


@pytest.mark.parametrize(
    "text",
    [
        'Bearer realm="https://auth.example/token",service="s",scope="repository:a/b:pull"',
        'bearer  Realm="https://auth.example/token" , service = s,scope="repository:a/b:pull"',
    ],
)
def test_a_bearer_challenge_is_read(text: str) -> None:
    assert parse_challenges(text) == (BEARER,)


def test_several_challenges_are_told_apart() -> None:
    found = parse_challenges('Basic realm="a, b", Negotiate, Bearer realm="x\\"y"')
    assert [each.scheme for each in found] == ["basic", "negotiate", "bearer"]
    assert found[0].parameter("realm") == "a, b"
    assert found[2].parameter("realm") == 'x"y'
    assert found[1].parameter("realm") == ""


def test_a_parameter_without_a_scheme_is_dropped() -> None:
    assert parse_challenges('realm="x", Basic') == (Challenge("basic", ()),)


@given(st.text())
@settings(deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    for challenge in parse_challenges(text):
        assert challenge.scheme == challenge.scheme.lower()
