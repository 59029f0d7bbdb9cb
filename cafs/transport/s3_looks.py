"""Where S3's credentials come from, told to people. obstore looks by itself: nothing here does."""

from collections.abc import Mapping
from typing import Final

from cafs.errors import CredentialsError
from cafs.transport.credentials.credential import Look
from cafs.transport.s3_profile import profile

_KEY: Final = "AWS_ACCESS_KEY_ID"
_UNSIGNED: Final = "AWS_SKIP_SIGNATURE"
_OTHERS: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_TRUE: Final = frozenset({"1", "true", "on", "yes", "y"})


def looks(environ: Mapping[str, str]) -> tuple[Look, ...]:
    """The places that are looked at, up to the one that has something; no secret is among them."""
    if environ.get(_UNSIGNED, "").lower() in _TRUE:
        return (Look(f"variable {_UNSIGNED}", "nothing is signed", found=True),)
    place = f"profile {environ.get('AWS_PROFILE') or 'default'}"
    try:
        has_key = "access_key_id" in profile(environ)
    except CredentialsError as error:
        # Nothing is asked then: the request fails with it.
        return (Look(place, error.what),)
    if has_key:
        return (Look(place, "key", found=True),)
    # Keys in variables come first, unless a profile is named.
    skipped = _KEY in environ and not environ.get("AWS_PROFILE")
    profiled = () if skipped else (Look(place, "no key"),)
    for name in (_KEY, *_OTHERS):
        if environ.get(name):
            what = "key" if name == _KEY else "temporary keys"
            return (*profiled, Look(f"variable {name}", what, found=True))
    missing = Look(f"variable {_KEY}", "not set")
    return (*profiled, missing, Look("this machine", "whatever its cloud gives it"))
