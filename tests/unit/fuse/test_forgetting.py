"""What a kernel is told to forget, and in which order."""

import os

import pyfuse3
import pytest

from cafs.fuse.forgetting import Forgetting, without
from cafs.fuse.interests import Interests


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


@pytest.mark.parametrize(
    ("read", "told"), [(4, [3, 5, 3, 4, 5]), (9, [3, 4, 5]), (None, [3, 4, 5])]
)
async def test_only_what_is_read_of_the_inodes_themselves_comes_last(
    monkeypatch: pytest.MonkeyPatch, read: int | None, told: list[int]
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(pyfuse3, "invalidate_inode", seen.append)
    listen, speak = os.pipe()
    try:
        interests = Interests(listen)
        if read is not None:
            interests.begin(("read", read, 0, 1))
        await Forgetting(interests).pages([range(3, 6)])
    finally:
        os.close(listen)
        os.close(speak)
    assert seen == told
