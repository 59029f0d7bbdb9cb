"""The behaviours that cafs took over are tested where the documents say."""

import re
from pathlib import Path

import pytest

from cafs import errors

ROOT = Path(__file__).parents[2]
BEHAVIOURS = (ROOT / "docs" / "behaviours.md").read_text()
BLOBS = (ROOT / "docs" / "blobs.md").read_text()
ROW = re.compile(r"^\| ([BR]-s?[0-9]+) \| (.+) \| (.+) \|$", re.MULTILINE)
THEIRS = {
    "ErrAccessDenied",
    "ErrBlobDigestUnsupported",
    "ErrBlobExists",
    "ErrBlobInvalidDigest",
    "ErrBlobInvalidLength",
    "ErrBlobMounted",
    "ErrBlobUnknown",
    "ErrBlobUploadUnknown",
    "ErrManifestBlobUnknown",
    "ErrManifestNameInvalid",
    "ErrManifestUnknown",
    "ErrManifestUnknownRevision",
    "ErrManifestUnverified",
    "ErrRepositoryNameInvalid",
    "ErrRepositoryUnknown",
    "ErrTagUnknown",
    "ErrUnsupported",
}
"""The errors that docker/distribution's blob service and manifest service declare."""


def all_tests() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("document", [BEHAVIOURS, BLOBS], ids=["behaviours", "blobs"])
def test_every_test_that_a_document_names_is_there(document: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", document))
    assert len(named) > 10
    assert named <= all_tests()


def test_every_behaviour_of_a_store_has_a_test_or_a_reason() -> None:
    rows = {row[0]: row[2] for row in ROW.findall(BEHAVIOURS)}
    of_distribution = {
        *(f"B-{number}" for number in range(1, 28)),
        *(f"B-s{number}" for number in range(1, 11)),
    }
    of_rkt = {f"R-{number}" for number in (2, 5, 6, 7, 8, 14, 23, 25, 26, 27, 36, 37)} | {"R-s5"}
    assert set(rows) == of_distribution | of_rkt
    assert not [name for name, here in rows.items() if len(here.strip()) < 10]


def test_a_test_with_the_number_of_a_behaviour_is_named_beside_it() -> None:
    """What a table leaves out, nobody finds: of each number that tests carry, some are named."""
    rows = {row[0]: row[2] for row in ROW.findall(BEHAVIOURS)}
    for name, here in rows.items():
        slug = name.lower().replace("-s", "_s").replace("-", "")
        carrying = {each for each in all_tests() if re.match(rf"test_{slug}[a-z]?_", each)}
        assert not carrying or carrying & set(re.findall(r"test_\w+", here)), name


def test_b6_every_error_has_its_family() -> None:
    rows = re.findall(r"^\| `(Err\w+)` \| (.+?) \| `(test_\w+)` \|$", BLOBS, re.MULTILINE)
    assert {row[0] for row in rows} == THEIRS
    for name, here, _ in rows:
        families = re.findall(r"`(\w+Error)`", here)
        assert families or here.startswith("no error"), name
        for family in families:
            assert issubclass(getattr(errors, family), errors.CafsError)
