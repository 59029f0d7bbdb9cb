"""Where the keys of S3 come from, as it is told."""

from pathlib import Path

import pytest

from cafs.transport.s3_looks import looks

KEYS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hunter2"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = hunter2\n"
        "[empty]\nregion = us-east-1\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "places"),
    [
        (KEYS, [("variable AWS_ACCESS_KEY_ID", True)]),
        ({}, [("profile default", True)]),
        (KEYS | {"AWS_PROFILE": "default"}, [("profile default", True)]),
        (
            KEYS | {"AWS_PROFILE": "empty"},
            [("profile empty", False), ("variable AWS_ACCESS_KEY_ID", True)],
        ),
        (KEYS | {"AWS_PROFILE": "none"}, [("profile none", False)]),
        (
            {"AWS_PROFILE": "empty", "AWS_WEB_IDENTITY_TOKEN_FILE": "/x"},
            [("profile empty", False), ("variable AWS_WEB_IDENTITY_TOKEN_FILE", True)],
        ),
        (
            {"AWS_PROFILE": "empty"},
            [
                ("profile empty", False),
                ("variable AWS_ACCESS_KEY_ID", False),
                ("this machine", False),
            ],
        ),
        (KEYS | {"AWS_SKIP_SIGNATURE": "true"}, [("variable AWS_SKIP_SIGNATURE", True)]),
        (KEYS | {"AWS_SKIP_SIGNATURE": "false"}, [("variable AWS_ACCESS_KEY_ID", True)]),
    ],
)
def test_the_place_that_has_something_ends_the_search(
    home: Path, environ: dict[str, str], places: list[tuple[str, bool]]
) -> None:
    found = looks({"HOME": str(home), **environ})
    assert [(each.place, each.found) for each in found] == places
    assert "hunter2" not in repr(found)
