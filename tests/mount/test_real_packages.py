"""A wheel and an npm tarball as their registries have them, under the registries' own pins."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from tests.conftest import lacking

pytestmark = pytest.mark.fuse

ROOT = Path(__file__).parents[2]
PACKAGES = dict(
    line.split()[:2]
    for line in (ROOT / "tests" / "packages.txt").read_text().splitlines()
    if not line.startswith("#")
)
"""Integrity as the registry tells it, by file."""


def package(name: str) -> Path:
    path = ROOT / "build" / "packages" / name
    if not path.exists():
        lacking(str(path))
    return path


def extracted(archive: Path, to: Path) -> Path:
    """What the format's own tool makes of an archive."""
    to.mkdir()
    command: list[str | Path] = ["tar", "-xzpf", archive, "-C", to]
    if archive.suffix == ".whl":
        command = ["unzip", "-q", archive, "-d", to]
    subprocess.run(command, check=True, env={**os.environ, "TZ": "UTC"})
    return to


def listed(root: Path) -> dict[str, tuple[object, ...]]:
    """All files below a directory: mode, time, and content."""
    return {
        str(path.relative_to(root)): (
            stat.filemode(found.st_mode),
            int(found.st_mtime),
            path.read_bytes() if stat.S_ISREG(found.st_mode) else None,
        )
        for path in sorted(root.rglob("*"))
        for found in (path.lstat(),)
        if not stat.S_ISDIR(found.st_mode)
    }


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_is_what_its_tool_extracts_and_its_pin_has_checked_it(
    fuse: None, cafs: Cafs, origin: Origin, tmp_path: Path, name: str
) -> None:
    archive = package(name)
    url = origin.put(f"/{name}", archive.read_bytes())
    toml = f'[ref.package]\nfrom = "{url}"\nintegrity = "{PACKAGES[name]}"\n'
    with cafs.mount(toml) as mounted:
        tree = mounted.ref("package")
        expected = listed(extracted(archive, tmp_path / "extracted"))
        assert len(expected) > 10
        assert listed(tree) == expected
        trusts = {os.getxattr(tree / path, "user.cafs.trust") for path in expected}
        assert trusts == {b"verified"}
    # Once, but for a byte by which ranges are tried.
    assert origin.bytes_sent(f"/{name}") <= archive.stat().st_size + 1


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_of_another_integrity_is_not_shown(
    fuse: None, cafs: Cafs, origin: Origin, name: str
) -> None:
    (other,) = set(PACKAGES) - {name}
    url = origin.put(f"/{name}", package(name).read_bytes())
    cafs.expect_log("digest-mismatch|expected sha")
    toml = f'[ref.package]\nfrom = "{url}"\nintegrity = "{PACKAGES[other]}"\n'
    with cafs.mount(toml) as mounted:
        with pytest.raises(OSError) as caught:
            os.listdir(mounted.ref("package"))
        assert caught.value.errno == errno.EBADMSG


def test_a_wheel_is_imported_from_its_mount(fuse: None, cafs: Cafs, origin: Origin) -> None:
    name = next(name for name in PACKAGES if name.endswith(".whl"))
    url = origin.put(f"/{name}", package(name).read_bytes())
    toml = f'[ref.package]\nfrom = "{url}"\nintegrity = "{PACKAGES[name]}"\n'
    with cafs.mount(toml) as mounted:
        tree = mounted.ref("package")
        told = subprocess.check_output(
            ["/usr/bin/python3", "-B", "-c", "import click; print(click.__file__)"],
            env={"PYTHONPATH": str(tree)},
        )
        assert told == f"{tree}/click/__init__.py\n".encode()
