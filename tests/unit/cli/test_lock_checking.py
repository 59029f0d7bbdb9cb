"""lock --check: how much of what lies beside a lock is read for it."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cafs.cli.locks import lock_files
from cafs.cli.locks.lock_checking import _difference, _differences, check
from cafs.cli.options import Flags
from cafs.model.digest import digest_of
from cafs.model.ref import parse_ref
from cafs.settings.lock_writing import lock_text
from cafs.settings.lockfile import LARGE, Lock, LockedPart, LockEntry, index_file
from cafs.store.disk.plain_files import what_is_wrong

INDEX = b"index"
URL = "https://127.0.0.1/t.tgz"


@pytest.mark.parametrize("right", [True, False])
def test_an_index_that_several_entries_share_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], right: bool
) -> None:
    part = LockedPart(
        digest=digest_of(b"t"),
        size=1,
        media_type="x/y",
        index=digest_of(INDEX),
        index_size=len(INDEX),
    )
    facts = {"ref": parse_ref(URL).canonical, "digest": part.digest, "size": 1, "media_type": "x/y"}
    entries = [LockEntry(name=name, parts=(part,), **facts) for name in ("a", "b")]  # type: ignore[arg-type]
    lock = tmp_path / "cafs.lock"
    lock.write_text(lock_text(Lock(tuple(entries))))
    (tmp_path / "cafs.toml").write_text(f'[ref.a]\nfrom="{URL}"\n[ref.b]\nfrom="{URL}"\n')
    place = index_file(lock, digest_of(INDEX))
    place.parent.mkdir()
    place.write_bytes(INDEX if right else b"wrong")
    hashed: list[Path] = []

    def counted(path: Path, *arguments: object, **more: object) -> str:
        hashed.append(path)
        return what_is_wrong(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(lock_files, "what_is_wrong", counted)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code = check(Flags(None, {}), (), (), full=False, quiet=False, as_json=False)
    said = capfd.readouterr().out
    assert (code, said.count(str(place))) == ((0, 0) if right else (4, 2))
    assert hashed == [place]


def test_a_file_that_an_older_version_has_locked_says_how_it_gets_its_index(tmp_path: Path) -> None:
    old = LockedPart(digest=digest_of(b"t"), size=1, media_type="x/y")
    new = replace(old, index=digest_of(INDEX), index_size=len(INDEX))
    assert "cafs lock --upgrade" in _difference(tmp_path, old, new, {})
    assert not _difference(tmp_path, old, old, {})


def test_an_index_of_another_size_is_found_whatever_lies_beside_the_lock(tmp_path: Path) -> None:
    """What is told to be large need not lie there, and mounts would not take it."""
    new = LockedPart(
        digest=digest_of(b"t"), size=1, media_type="x/y", index=digest_of(INDEX), index_size=5
    )
    old = replace(new, index_size=LARGE + 1)
    assert _difference(tmp_path, old, new, {}) == f": its index has 5 bytes, and not {LARGE + 1}"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"size": 583}, "its manifest has 582 bytes, and not 583"),
        ({"parts": 1}, "has 2 layers, and not 1"),
        ({"parts": 0}, "has 2 layers, and not 0"),
        ({"digest": digest_of(b"other")}, f"is {digest_of(b'm')}, and not {digest_of(b'other')}"),
        ({}, None),
    ],
)
def test_how_an_image_differs_from_its_entry_is_told(
    tmp_path: Path, changed: dict[str, Any], told: str | None
) -> None:
    layers = tuple(
        LockedPart(digest=digest_of(each), size=1, media_type="x/y") for each in (b"1", b"2")
    )
    fresh = LockEntry(
        name="img",
        ref="docker://127.0.0.1/i",
        named=digest_of(b"named"),
        digest=digest_of(b"m"),
        size=582,
        media_type="x/y",
        parts=layers,
    )
    if "parts" in changed:
        changed = {"parts": layers[: changed["parts"]]}
    found = _differences(tmp_path / "cafs.lock", replace(fresh, **changed), fresh, {})
    assert [(each.what, each.code) for each in found] == ([(told, 4)] if told else [])
