"""lock --check: how much of what lies beside a lock is read for it."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from cafs.cli.locks import lock_files
from cafs.cli.locks.lock_checking import _difference, check
from cafs.cli.options import Flags
from cafs.model.digest import digest_of
from cafs.model.ref import parse_ref
from cafs.settings.lock_writing import lock_text
from cafs.settings.lockfile import Lock, LockedPart, LockEntry, index_file
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
