"""Which calls of a verb need cafs.lock."""

import pytest

from cafs.cli.locks.needing import of_refs

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("refs", "needed"),
    [
        ((), False),
        ((DIGEST, f"md5:{'0' * 32}", "sha256:01"), False),
        ((DIGEST, "model"), True),
        (("https://example.com/a",), True),
        (("md5",), True),
        ((DIGEST, "sha256"), True),
    ],
)
def test_refs_need_it_also_those_named_as_an_algorithm_and_digests_do_not(
    refs: tuple[str, ...], needed: bool
) -> None:
    assert of_refs(refs=refs) is needed
