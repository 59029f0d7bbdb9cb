"""The repository keeps its promises: what the README shows exists, every error has its codes."""

import errno
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cafs import errors
from cafs.cli.exits import BUG, exit_code
from cafs.cli.main import VERBS, cli
from cafs.fuse import errnos
from cafs.fuse.errnos import errno_of
from cafs.settings.loading import load_settings
from cafs.settings.values import Overrides

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def shown(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shown_commands() -> list[list[str]]:
    lines = [line for block in shown("sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line]


def every_error(
    kind: type[errors.CafsError] = errors.CafsError,
) -> Iterator[type[errors.CafsError]]:
    for child in kind.__subclasses__():
        yield child
        yield from every_error(child)


def test_the_readme_sets_up_with_two_commands() -> None:
    scripts = [line[0] for line in shown_commands() if line[0].startswith("scripts/")]
    assert scripts == ["scripts/demo", "scripts/test"]


def test_every_script_that_a_document_names_can_be_run() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        script for path in documents for script in re.findall(r"\bscripts/\w+", path.read_text())
    }
    assert named >= {"scripts/demo", "scripts/test"}
    assert not [script for script in named if not os.access(ROOT / script, os.X_OK)]


@pytest.mark.parametrize("line", [x for x in shown_commands() if x[0] == "cafs"], ids=" ".join)
def test_every_command_in_the_readme_parses(line: list[str]) -> None:
    group = click.Context(cli)
    verb, words = cli.get_command(group, line[1]), line[1:]
    while isinstance(verb, click.Group):
        verb, words = verb.get_command(group, words[1]), words[1:]
    assert verb is not None, line
    assert verb.make_context(words[0], words[1:], parent=group).params


def test_the_readme_project_is_valid(tmp_path: Path) -> None:
    (toml,) = shown("toml")
    (tmp_path / "cafs.toml").write_text(toml)
    loaded = load_settings(
        tmp_path, project=None, overrides=Overrides(), environ={"HOME": str(tmp_path)}
    )
    assert [spec.name for spec in loaded.refs] == ["base", "gcc", "model"]
    assert loaded.mount_point == tmp_path / "cafs"


def test_every_verb_is_in_the_readme() -> None:
    assert {line[1] for line in shown_commands() if line[0] == "cafs"} >= set(VERBS)


def test_links_in_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_error_has_an_exit_code_that_says_more_than_bug() -> None:
    kinds = list(every_error())
    assert len(kinds) > 15
    assert not [kind.__name__ for kind in kinds if exit_code(kind) in {0, BUG}]


def test_every_error_has_an_errno() -> None:
    for kind in every_error():
        assert errno_of(kind) in errno.errorcode, kind.__name__
    assert not [kind for kind in errnos.FAMILIES if kind not in set(every_error())]


def test_programs_can_tell_the_documented_failures_apart() -> None:
    """Timeouts, unreachable sources, offline, wrong content, a full disk: each its own errno."""
    kinds = (
        errors.NotFoundError,
        errors.CredentialsError,
        errors.DeadlineError,
        errors.UnreachableError,
        errors.OfflineError,
        errors.DigestMismatchError,
        errors.SourceChangedError,
        errors.StorageFullError,
        errors.BudgetError,
        errors.UnsupportedError,
    )
    assert len({errno_of(kind) for kind in kinds} | {errno.EIO}) == len(kinds) + 1
