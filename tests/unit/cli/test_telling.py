"""Bars of refs, and of stages of them."""

import io
import os
import pty
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typing_extensions import override

from cafs.cli.locks.lock_checking import check
from cafs.cli.locks.lock_making import Order, bars, make
from cafs.cli.options import Flags
from cafs.cli.telling import board
from cafs.cli.verbs.prefetch import command as prefetch
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


class Screen:
    """What is left to see of what was written to a terminal, line by line."""

    def __init__(self, written: str) -> None:
        self.lines = [""]
        row = 0
        for move, what, text in re.findall(r"\x1b\[([\d;?]*)([A-Za-z])|([^\x1b])", written):
            if what == "A":
                row -= int(move or 1)
            elif what == "K":
                self.lines[row] = ""
            elif text == "\n":
                row += 1
                self.lines += [""] * (row + 1 - len(self.lines))
            elif text and text != "\r":
                self.lines[row] += text


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Have standard error be a terminal; what was written to it, once the block has ended."""
    ours, theirs = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # Linux: EIO when the last writer has gone
            while piece := os.read(ours, 65536):
                written.append(piece)

    reading = threading.Thread(target=read)
    reading.start()
    try:
        with os.fdopen(theirs, "w") as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            yield written
    finally:
        reading.join()
        os.close(ours)


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


def at_home(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Be in a directory, with nothing of the machine's around, at a terminal."""
    for name in [each for each in os.environ if each.startswith(("XDG_", "CAFS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(place)


def test_who_locks_and_who_checks_all_of_it_sees_what_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_home(monkeypatch, tmp_path)
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


def test_why_one_failed_stays_on_the_terminal_when_the_bars_are_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_home(monkeypatch, tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    (tmp_path / "cafs.toml").write_text('[ref]\none.from="file:one"\ntwo.from="file:two"\n')
    store = tmp_path / "store"
    flags = Flags(None, {"store": store})
    verbs: list[Callable[[], int]] = [
        lambda: check(flags, (), (), full=True, quiet=False, as_json=False),
        lambda: make(flags, Order(upgrade=True)),
        lambda: prefetch.main(["--store", str(store)], standalone_mode=False),
    ]
    assert make(flags, Order(quiet=True)) == 0
    (tmp_path / "one").unlink()
    for verb in verbs:
        shutil.rmtree(store, ignore_errors=True)
        with terminal(monkeypatch) as written:
            assert verb() in {3, 5}  # not there, or not to be had as it is locked
        lines = Screen(b"".join(written).decode()).lines
        (why,) = [line for line in lines if str(tmp_path / "one") in line]
        assert why.startswith("error: ")
        assert any("2 of 2 refs" in line for line in lines)
