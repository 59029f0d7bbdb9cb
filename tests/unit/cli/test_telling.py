"""Bars of refs, and of stages of them."""

import io
import sys

import pytest
from typing_extensions import override

from cafs.cli.locks.lock_making import bars
from cafs.cli.telling import board


class Terminal(io.StringIO):
    """Takes what is drawn."""

    @override
    def isatty(self) -> bool:
        return True

    def drawn(self) -> str:
        """What was drawn since it was asked last."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def test_what_is_read_has_a_bar_of_its_own_from_when_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with board(2, quiet=False, as_json=False) as reports:
        with bars(reports, "one") as told:
            told.fetched(1 << 20, 1 << 20)
        assert "indexing" not in terminal.drawn()
        with bars(reports, "two") as told:
            told.fetched(1 << 20, 1 << 20)
            told.read(0, 3 << 20)
            told.read(2 << 20, 3 << 20)
    last = terminal.drawn()
    assert "two: indexing" in last
    assert "2.0/3.0 MiB" in last
    # What is read again is no ref, and no byte that was fetched.
    assert "2 of 2 refs" in last
    assert "2.0/2.0 MiB" in last


@pytest.mark.parametrize("as_json", [True, False])
def test_where_there_are_no_bars_nothing_is_said_of_stages(
    capfd: pytest.CaptureFixture[str], as_json: bool
) -> None:
    with board(1, quiet=False, as_json=as_json) as reports, bars(reports, "one") as told:
        told.fetched(1, 1)
        told.read(1, 7)
    said = capfd.readouterr().out
    assert "one" in said
    assert "indexing" not in said
