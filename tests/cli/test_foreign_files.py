"""Files of the store that may not be read, or are none: what they were is had again."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from tests.forked import ForkedCafs, Forks, forking

SIZES = {"a": 100_000, "b": 300_000, "c": 500_000}


@pytest.fixture(scope="module")
def bound() -> Iterator[Forks]:
    """Runs verbs as a user whom the modes of files concern."""
    setpriv = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    with forking(setpriv if os.geteuid() == 0 else ()) as running:
        yield running


@pytest.fixture
def held(tmp_path: Path, bound: Forks) -> Cafs:
    return ForkedCafs(tmp_path / "world", bound)


@pytest.fixture
def bodies(held: Cafs, origin: Origin) -> dict[str, Generated]:
    """Three refs with pins that have been fetched; their contents."""
    made = {name: Generated(size, seed=size) for name, size in SIZES.items()}
    toml = ""
    for name, body in made.items():
        toml += f'[ref.{name}]\nfrom="{origin.put(f"/{name}", body)}"\n'
        toml += f'integrity="sha256:{body.sha256()}"\n'
    held.project(toml)
    held.run("prefetch", "-q")
    return made


def blob(cafs: Cafs, body: Generated) -> Path:
    [path] = cafs.store.glob(f"blobs/sha256/*/{body.sha256()}")
    return path


def close(path: Path) -> None:
    path.chmod(0)


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "theirs").touch()


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [close, as_directory, as_fifo])
def test_a_read_has_it_again(
    held: Cafs, bodies: dict[str, Generated], spoil: Callable[[Path], None]
) -> None:
    spoil(blob(held, bodies["b"]))
    assert held.run("cat", "b", timeout_s=60).stdout
    assert held.run("verify").stdout.endswith("nothing is wrong\n")
    assert blob(held, bodies["b"]).stat().st_size == SIZES["b"]


@pytest.mark.parametrize("spoil", [close, as_directory, as_fifo])
def test_verify_repairs_it_and_checks_the_rest(
    held: Cafs, bodies: dict[str, Generated], spoil: Callable[[Path], None]
) -> None:
    for name in ("a", "c"):
        spoil(blob(held, bodies[name]))
    (held.store / "blobs" / "sha256" / "00").mkdir(exist_ok=True)
    (held.store / "blobs" / "sha256" / "00" / "theirs").mkdir()
    done = held.run("verify", "--repair", timeout_s=60)
    assert "2 wrong, 2 healed" in done.stdout
    assert "theirs: lies among the blobs, and is no file: left alone" in done.stdout
    assert "in 3 items" in done.stdout
    assert held.run("prefetch", "-q", timeout_s=60).returncode == 0
    assert "nothing is wrong" in held.run("verify").stdout
