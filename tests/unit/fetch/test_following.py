"""Following: who is followed, and how far."""

from cafs.fetch.content.following import FARTHEST, LARGEST, LEAST, Following
from cafs.model.span import Span

MIB = 1 << 20
PIECE = 256 << 10
SIZE = 1 << 30


def test_who_reads_on_is_followed_no_further_than_he_has_come() -> None:
    following, frontier = Following(), 0
    for offset in range(0, 100 * MIB, PIECE):
        ahead = following.advise(Span(offset, offset + PIECE), SIZE)
        if ahead is not None:
            assert ahead.start == max(frontier, offset + PIECE)
            assert ahead.length <= LARGEST
            frontier = ahead.stop
        reached = offset + PIECE
        assert frontier - reached <= min(reached, FARTHEST)
        if reached >= 4 * LEAST:
            assert frontier - reached >= min(reached, FARTHEST) // 4


def test_who_has_read_little_is_not_followed() -> None:
    following = Following()
    assert [following.advise(Span(at, at + PIECE), SIZE) for at in (0, PIECE, 2 * PIECE)] == [
        None,
        None,
        None,
    ]
    assert following.advise(Span(3 * PIECE, 4 * PIECE), SIZE) is not None


def test_who_leaves_out_much_of_what_he_comes_by_is_not_followed() -> None:
    """As the kernel reads a program that is mapped."""
    following = Following()
    for offset in range(0, 64 * MIB, 2 * PIECE):
        assert following.advise(Span(offset, offset + PIECE), SIZE) is None


def test_reads_that_come_out_of_order_are_those_of_one_reader() -> None:
    following, advised = Following(), 0
    for offset in range(0, 16 * MIB, 2 * PIECE):
        for start in (offset + PIECE, offset):
            ahead = following.advise(Span(start, start + PIECE), SIZE)
            advised += 0 if ahead is None else ahead.length
    assert advised >= 16 * MIB


def test_several_readers_of_one_content_are_told_apart() -> None:
    following, found = Following(), set()
    for step in range(32):
        for start in (0, 200 * MIB, 400 * MIB):
            offset = start + step * PIECE
            ahead = following.advise(Span(offset, offset + PIECE), SIZE)
            if ahead is not None:
                found.add(start)
                assert start < ahead.start < start + 32 * MIB
    assert found == {0, 200 * MIB, 400 * MIB}


def test_nothing_is_made_beyond_the_end_or_a_limit() -> None:
    following = Following()
    for offset in range(0, 8 * MIB, PIECE):
        ahead = following.advise(Span(offset, offset + PIECE), 8 * MIB)
        assert ahead is None or ahead.stop <= 8 * MIB
    following = Following()
    for offset in range(0, 32 * MIB, PIECE):
        ahead = following.advise(Span(offset, offset + PIECE), SIZE, limit=2 * MIB)
        assert ahead is None or ahead.stop - offset - PIECE <= 2 * MIB


def test_who_reads_the_same_again_and_again_has_come_no_further() -> None:
    following = Following()
    for _ in range(64):
        assert following.advise(Span(0, PIECE), SIZE) is None


def test_nobody_is_followed_beyond_a_file_that_he_began_in() -> None:
    following, file = Following(), Span(100 * MIB, 108 * MIB)
    told = [
        following.advise(Span(offset, offset + PIECE), SIZE, file=file)
        for offset in range(file.start, file.stop, PIECE)
    ]
    stops = [ahead.stop for ahead in told if ahead is not None]
    assert max(stops) == file.stop


def test_who_came_from_another_file_is_followed_into_the_next() -> None:
    following = Following()
    files = [Span(at, at + 2 * MIB) for at in range(0, 16 * MIB, 2 * MIB)]
    beyond = 0
    for file in files:
        for offset in range(file.start, file.stop, PIECE):
            ahead = following.advise(Span(offset, offset + PIECE), SIZE, file=file)
            beyond += ahead is not None and ahead.stop > file.stop
    assert beyond > 3
