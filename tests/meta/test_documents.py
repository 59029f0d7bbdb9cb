"""The documents for users are complete: every setting, every field, every place is in them."""

import re
from pathlib import Path

import click
import msgspec
import pytest

from cafs.cli.main import VERBS, cli
from cafs.cli.mounts.live import LiveMount
from cafs.control.fetches import Fetching, FetchStatus
from cafs.control.keeper import KeeperStatus
from cafs.errors import SettingsError
from cafs.fetch.interfaces import Priority
from cafs.reporting import MirrorStatus, RefStatus, Status
from cafs.settings import layers, schema
from cafs.settings.loading import load_settings
from cafs.settings.schema import Origin, Voice
from cafs.settings.values import Overrides
from cafs.vfs.failures import Failure

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS = (DOCS / "settings.md").read_text()
JSON = (DOCS / "json.md").read_text()
QUOTED = set(re.findall(r"`([^`]+)`", JSON))


def rows() -> dict[str, list[str]]:
    """The table of keys: its cells by key."""
    cells = [line.strip("|").split("|") for line in SETTINGS.splitlines()]
    return {
        row[0].strip().strip("`"): [cell.strip() for cell in row[1:]]
        for row in cells
        if len(row) == 6 and "`" in row[0]
    }


def every_key() -> list[str]:
    return [f"{name}.{key}" for name, keys in schema._TABLES.items() for key in keys]


def allowed(key: str, voice: Voice) -> bool:
    name, _, word = key.partition(".")
    try:
        schema.check({name: {word: None}}, Origin("file", voice))
    except SettingsError:
        return False
    return True


@pytest.mark.parametrize("key", every_key())
def test_every_setting_is_in_the_reference_with_who_may_say_it(key: str) -> None:
    if not allowed(key, Voice.MACHINE):
        assert f"`{key}`" in SETTINGS
        assert key not in rows()
        return
    assert rows()[key][0] == ("P" if allowed(key, Voice.PROJECT) else "")


def test_every_key_of_a_ref_is_in_the_reference() -> None:
    named = set(re.findall(r"`([a-z-]+)`", SETTINGS))
    assert set(schema._REF) <= named


def test_every_table_with_names_for_keys_is_in_the_reference_with_its_keys() -> None:
    named = set(re.findall(r"`([a-z-]+)`", SETTINGS))
    for name, words in schema._NAMED.items():
        assert f"[{name}" in SETTINGS
        assert set(words or ()) <= named
    assert set(schema._BY_PLATFORM) <= named


def test_the_reference_names_no_setting_that_is_none() -> None:
    assert set(rows()) <= set(every_key())


def test_every_variable_is_in_the_reference() -> None:
    package = Path(layers.__file__).parents[1]
    read = {
        name
        for path in (package / "settings").glob("*.py")
        for name in re.findall(r"\bCAFS_[A-Z_]+\b", path.read_text())
    }
    named = set(re.findall(r"\bCAFS_[A-Z_]+\b", SETTINGS))
    assert read == named - {"CAFS_MOUNT", "CAFS_KEEPER"}


def test_every_flag_for_a_setting_is_in_the_reference() -> None:
    context = click.Context(cli)
    commands = [cli.get_command(context, verb) for verb in ("mount", "prefetch")]
    flags = {
        flag
        for command in commands
        if command is not None
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for flag in parameter.opts
    }
    others = {"--foreground", "--json", "--no-keeper", "--user", "--quiet", "-q"}
    assert flags - others == set(re.findall(r"`(--[a-z-]+)`", SETTINGS))


def test_defaults_in_the_reference_are_the_defaults(tmp_path: Path) -> None:
    """Saying every default aloud changes nothing."""
    lines = [
        f"{key} = {cells[3].strip('`')}"
        for key, cells in rows().items()
        if re.fullmatch(r"`[^$`]+`", cells[3])
    ]
    assert len(lines) > 10
    file = tmp_path / "cafs" / "config.toml"
    file.parent.mkdir()
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

    def loaded() -> object:
        return load_settings(tmp_path, project=None, overrides=Overrides(), environ=environ)

    silent = loaded()
    file.write_text("\n".join(lines))
    assert loaded() == silent


@pytest.mark.parametrize(
    "kind", [Status, RefStatus, MirrorStatus, Fetching, FetchStatus, LiveMount, KeeperStatus]
)
def test_every_field_that_programs_get_is_documented(kind: type[msgspec.Struct]) -> None:
    assert set(kind.__struct_fields__) <= QUOTED


def test_every_field_of_a_failure_and_every_priority_is_documented() -> None:
    assert set(Failure.__dataclass_fields__) <= QUOTED
    assert {each.name.lower() for each in Priority} <= QUOTED


def test_every_verb_with_json_is_documented() -> None:
    context = click.Context(cli)
    for verb in VERBS:
        command = cli.get_command(context, verb)
        assert command is not None
        has_json = any("--json" in parameter.opts for parameter in command.params)
        assert has_json == (verb in QUOTED), verb
