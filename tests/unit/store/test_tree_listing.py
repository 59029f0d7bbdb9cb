"""Listings of a tree that is being written: what waits and what was written, as one."""

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from cafs.model.member import ROOT, Entry, Kind
from cafs.store.trees import tree_writing
from tests.planted import tree_writer

NAMES = [bytes([letter]) for letter in b"abcdefghij"]
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "unbind", "flush", "list"]), st.sampled_from(NAMES)),
    max_size=40,
)


def entry(name: bytes, kind: Kind = Kind.FILE) -> Entry:
    return Entry(name=name, parent=ROOT, kind=kind, mode=0o755)


@given(steps=STEPS)
@settings(max_examples=50, deadline=None)
def test_a_listing_is_what_the_changes_made_so_far_give(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bytes]]
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        tree_writer(tmp_path_factory.mktemp("store")) as writer,
    ):
        patch.setattr(tree_writing, "BATCH", 3)  # pages, and flushes in between
        writer.add(entry(b"", Kind.DIRECTORY))
        model: dict[bytes, int] = {}
        for step, name in steps:
            if step == "add":
                model[name] = writer.add(entry(name))
            elif step == "unbind":
                writer.unbind(ROOT, name)
                model.pop(name, None)
            elif step == "flush":
                writer.flush()
            else:
                assert list(writer.children(ROOT)) == sorted(model.items())
        assert list(writer.children(ROOT)) == sorted(model.items())


def test_a_listing_does_not_write_what_waits(tmp_path: Path) -> None:
    with tree_writer(tmp_path) as writer:
        writer.add(entry(b"", Kind.DIRECTORY))
        writer.add(entry(b"a"))
        before = writer._tables.index._environment.info()["last_txnid"]
        assert list(writer.children(ROOT)) == [(b"a", 1)]
        assert writer._tables.index._environment.info()["last_txnid"] == before


def test_what_is_listed_may_be_taken_away_while_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_writing, "BATCH", 3)
    with tree_writer(tmp_path) as writer:
        writer.add(entry(b"", Kind.DIRECTORY))
        for name in NAMES:
            writer.add(entry(name))
        seen = []
        for name, _ in writer.children(ROOT):
            seen.append(name)
            writer.unbind(ROOT, name)
        assert seen == NAMES
        assert list(writer.children(ROOT)) == []
