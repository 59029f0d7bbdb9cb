"""What a kernel is told to forget, and in which order."""

import pytest

from cafs.fuse.forgetting import without


@pytest.mark.parametrize(
    ("left_out", "left"),
    [
        (set[int](), [range(3, 9), range(20, 21)]),
        ({2, 9, 15, 22}, [range(3, 9), range(20, 21)]),
        ({5}, [range(3, 5), range(6, 9), range(20, 21)]),
        ({7, 5, 6}, [range(3, 5), range(8, 9), range(20, 21)]),
        ({3, 8, 20}, [range(4, 8)]),
        (set(range(30)), []),
    ],
)
def test_what_is_being_read_is_left_out_of_what_goes_first(
    left_out: set[int], left: list[range]
) -> None:
    assert without([range(3, 9), range(20, 21)], left_out) == left
