"""Bars of refs, and of stages of them."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typing_extensions import override

from cafs.cli.locks.lock_checking import check
from cafs.cli.locks.lock_making import Order, bars, make
from cafs.cli.options import Flags
from cafs.cli.telling import board
from cafs.testing.archives import tar_bytes


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


def test_who_locks_and_who_checks_all_of_it_sees_what_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [each for each in os.environ if each.startswith(("XDG_", "CAFS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree.tgz").write_bytes(tar_bytes({"a": (0o644, b"alpha")}, compression="gz"))
    (tmp_path / "cafs.toml").write_text('[ref.tree]\nfrom = "file:tree.tgz"\n')
    flags = Flags(None, {"store": tmp_path / "store"})
    verbs: list[Callable[[], int]] = [
        lambda: make(flags, Order()),
        lambda: check(flags, (), (), full=True, quiet=False, as_json=False),
    ]
    for verb in verbs:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert verb() == 0
        assert "tree: indexing" in terminal.drawn()


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
