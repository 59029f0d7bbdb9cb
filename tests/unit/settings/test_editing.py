"""Editing a cafs.toml: what is not meant stays, whatever way the file is written in."""

import tomllib
from pathlib import Path

import pytest

from cafs.errors import NotFoundError, SettingsError
from cafs.settings.editing import Facts, with_ref, without_added, without_refs

FILE = Path("/project/cafs.toml")
TEXT = """# top
[mount]
path = "cafs" # here

# about gcc
# and more
[ref.gcc]
from = "https://a.example/gcc.tar"
mirrors = [
  # nearer
  "https://b.example/gcc.tar",
]
[ref.gcc.by-platform."linux/amd64"] # odd, and said so elsewhere
x = 1

# apart

# about b
[ref.b]
from = "x"
# the end
"""
ADDED: Facts = {"from": "https://a.example/new", "strip": 1, "mirrors": ["https://b.example/new"]}


def test_a_ref_is_added_at_the_end_and_nothing_else_changes() -> None:
    text = with_ref(TEXT, "new.er", ADDED, file=FILE)
    assert text.startswith(TEXT)
    assert tomllib.loads(text)["ref"]["new.er"] == ADDED
    assert text[len(TEXT) :].splitlines()[:2] == ["", '[ref."new.er"]']


@pytest.mark.parametrize("text", ["", "\n", "# only this", 'ref.a.from = "x"', "[ref]\n"])
def test_a_ref_is_added_to_any_file(text: str) -> None:
    added = with_ref(text, "new", ADDED, file=FILE)
    assert tomllib.loads(added)["ref"]["new"] == ADDED
    assert added.startswith(text)


def test_what_has_to_be_quoted_is() -> None:
    facts = {"from": 'quo"ted\\ü'}
    assert tomllib.loads(with_ref("", "a", facts, file=FILE)) == {"ref": {"a": facts}}


def test_a_name_that_is_in_use_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"cafs.toml: ref.gcc: is there already"):
        with_ref(TEXT, "gcc", ADDED, file=FILE)


def test_a_ref_goes_with_the_comments_right_above_it_and_all_that_is_below() -> None:
    text = without_refs(TEXT, ["gcc"], file=FILE)
    before, _, after = TEXT.partition("# about gcc\n")
    assert text == before + after[after.index("# apart") :]


def test_several_refs_go_at_once() -> None:
    text = without_refs(TEXT, ["b", "gcc", "b"], file=FILE)
    assert tomllib.loads(text) == {"mount": {"path": "cafs"}}
    assert text.startswith('# top\n[mount]\npath = "cafs" # here\n')
    assert "# apart" in text


@pytest.mark.parametrize(
    "text",
    [
        'ref = {a = {from = "x"}, b = {from = "y"}}\n',
        'ref.a.from = "x" # a\nref.b.from = "y"\n',
        '[ref]\na = {from = "x"}\nb = {from = "y"}\n',
        '[ref]\na.from = "x"\nb.from = "y"\n',
        '[ref.a]\nfrom = """\n[ref.b]\n"""\n[ref.b]\nfrom = "y"\n',
        "[ ref . 'a' ]\nfrom = 'x'\n[mount]\npath = 'm'\n[ref.b]\nfrom = 'y'\n",
    ],
)
def test_a_ref_goes_from_any_file(text: str) -> None:
    wanted = tomllib.loads(text)
    del wanted["ref"]["a"]
    found = without_refs(text, ["a"], file=FILE)
    assert tomllib.loads(found) == wanted
    del wanted["ref"]
    assert tomllib.loads(without_refs(found, ["b"], file=FILE)) == wanted


def test_what_cannot_be_edited_is_said() -> None:
    with pytest.raises(SettingsError, match="written in a way that this cannot edit"):
        with_ref('ref = {a = {from = "x"}}\n', "b", ADDED, file=FILE)


def test_a_ref_that_is_not_there_is_said_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="no ref named 'gdc'") as refused:
        without_refs(TEXT, ["gdc"], file=FILE)
    assert "gcc" in refused.value.hint


@pytest.mark.parametrize("before", ["", TEXT, "# only this", 'ref.a.from = "x"'])
@pytest.mark.parametrize("first", ["one", "two"])
def test_what_was_added_is_taken_out_and_what_came_beside_it_stays(before: str, first: str) -> None:
    """Of two who add at once, and fail one after the other, nothing is left."""
    one = with_ref(before, "one", ADDED, file=FILE)
    two = with_ref(one, "two", ADDED, file=FILE)
    added = {"one": one[len(before) :], "two": two[len(one) :]}
    text = two
    for name in sorted(added, key=lambda each: each != first):
        found = without_added(text, name, ADDED, added[name], file=FILE)
        assert found is not None
        text = found
        assert name not in tomllib.loads(text).get("ref", {})
        assert all(each in text for each in before.splitlines())
    assert text.strip() == before.strip()


@pytest.mark.parametrize("text", ["", TEXT, TEXT + "\n\n", "[mount]\n", "# only this\n"])
def test_what_was_added_and_is_removed_leaves_the_file_as_it_was(text: str) -> None:
    added = with_ref(text, "new", ADDED, file=FILE)
    assert without_refs(added, ["new"], file=FILE) == text
    # Of two, the gap of the one that goes is the one that goes.
    both = with_ref(added, "other", ADDED, file=FILE)
    assert without_refs(both, ["other"], file=FILE) == added
    assert without_refs(both, ["new", "other"], file=FILE) == text


def test_what_was_added_and_changed_since_is_somebody_elses() -> None:
    text = with_ref("", "one", ADDED, file=FILE)
    for other in (text.replace("strip = 1", "strip = 2"), "", "ref = 1"):
        assert without_added(other, "one", ADDED, text, file=FILE) is None


def test_what_was_added_and_written_otherwise_since_is_found_by_what_it_says() -> None:
    text = with_ref(TEXT, "one", {"from": "x"}, file=FILE)
    other = text.replace('[ref.one]\nfrom = "x"', "# mine\n[ref.one] # new\nfrom = 'x'")
    found = without_added(other, "one", {"from": "x"}, text[len(TEXT) :], file=FILE)
    assert found == f"{TEXT}\n# mine\n"


@pytest.mark.parametrize("after", ["", '\n[ref.two]\nfrom = "y"\n'])
def test_comments_that_others_have_written_at_what_was_added_stay(after: str) -> None:
    text = with_ref("", "one", ADDED, file=FILE)
    *lines, last = text.splitlines(keepends=True)
    odd = "".join(["# above\n", *lines, "# inside\n", last, after])
    found = without_added(odd, "one", ADDED, text, file=FILE)
    assert found == f"# above\n# inside\n{after.lstrip()}"
    assert "above" not in without_refs(odd, ["one"], file=FILE)
