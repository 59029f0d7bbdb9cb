"""Errors about texts that are no refs repeat no secret that a URL may have in it."""

import pytest

from cafs.errors import InvalidReferenceError
from cafs.model.address import authority, normalised, quoted
from cafs.model.ref import parse_ref

SECRET = "hunter2"
URLS = [
    "https://me:hunter2@h/x",
    "https://me:hunter2@h:99999/x",
    "https://me:hunter2@[::/x",
    "https://me:hunter2@h/\x01",
    "https://h:0/x?sig=hunter2",
    "ftp://me:hunter2@h/x",
    "ftp://h/x?sig=hunter2",
    "s3://me:hunter2@bucket/x",
    "s3://bucket/?sig=hunter2",
    "file://me:hunter2@h/x",
    "file:/x?hunter2",
]
REFS = [
    *URLS,
    "htps://h/x?sig=hunter2",
    " https://me:hunter2@h/x",
    "archive+ftp://me:hunter2@h/x",
    "docker://me:hunter2@h/x",
    "cimd:blob:v=0:https%3A%2F%2Fme%3Ahunter2%40h%2Fx",
    "cimd:blb:v=0:https%3a%2f%2fme%3ahunter2%40h%2fx",
    "cimd:blb:v=0:https%3A%2F%2Fh%2Fx%3Fsig%3Dhunter2",
    "cimd:blob:v=0:https%3A%2F%2Fh%2Fx?sig=hunter2",
]


@pytest.mark.parametrize("text", URLS)
def test_a_wrong_url_is_shown_without_its_secrets(text: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        normalised(text)
    assert SECRET not in f"{caught.value.line} {caught.value!r}"


@pytest.mark.parametrize("text", REFS)
def test_a_wrong_ref_is_shown_without_its_secrets(text: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_ref(text)
    assert SECRET not in f"{caught.value.line} {caught.value!r}"


@pytest.mark.parametrize("text", ["me:hunter2@h.example", "hunter2@h", "hunter2@[::1]:80"])
def test_a_wrong_host_is_shown_without_its_secrets(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="a host has no '@'") as caught:
        authority(text)
    assert SECRET not in caught.value.line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "'plain'"),
        ("https://h/@scope/x", "'https://h/@scope/x'"),
        ("cimd:blob:v=0:https%3A%2F%2Fh%2Fx", "'cimd:blob:v=0:https%3A%2F%2Fh%2Fx'"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_what_is_no_secret_is_shown(text: str, shown: str) -> None:
    assert quoted(text) == shown
