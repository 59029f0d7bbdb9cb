"""Eight processes on one store that is too small for them (longer: ``scripts/soak crowd``)."""

import pytest

from cafs.testing.crowd import crowd
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def test_nothing_is_wrong_and_the_quota_holds_but_for_what_is_in_flight(
    cafs: Cafs, origin: Origin
) -> None:
    outcome = crowd(cafs, origin, contents=40, seconds=3.0)
    assert outcome.reads > 0
    assert not outcome.wrong, str(outcome)
    assert not outcome.over, str(outcome)
    assert outcome.kept, str(outcome)
    assert outcome.verified, str(outcome)
    assert not [what for what in outcome.failed if what.startswith("read")], str(outcome)
