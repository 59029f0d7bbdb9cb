"""What the scenarios of ``scripts/bench`` share: scratch space, an origin, archives and mounts."""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.testing import archives
from cafs.testing.archives import Compression, Item
from cafs.testing.command import Cafs, Mount
from cafs.testing.origin import Origin

_FILES: Final = 20_000
KEEPERLESS: Final = ("--no-keeper",)
_LINKS: Final = "links"
"""The directory of the symlinks, beside that of the files."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a bench works: a scratch directory, and an origin; ``files`` are in its tree.

    ``worlds`` makes the worlds, each below a directory.

    Concurrency: one thread.
    """

    scratch: Path
    origin: Origin
    files: int = _FILES
    worlds: Callable[[Path], Cafs] = Cafs

    def world(self, name: str = "world") -> Cafs:
        """A world with an empty store; the one of that name before is thrown away."""
        place = self.scratch / name
        if place.exists():
            shutil.rmtree(place)
        return self.worlds(place)

    @contextmanager
    def mount(self, ref: str, url: str, *arguments: str) -> Iterator[Mount]:
        """A mount with a ref from an empty store of its own, thrown away by the next one."""
        name = "-".join(["world", *(argument.strip("-") for argument in arguments)])
        with self.world(name).mount(toml(ref, url), *arguments) as mount:
            yield mount

    def tree(self) -> Path:
        """An archive of small files, at ``/tree.tar.gz`` of the origin too."""
        return self._archive("tree.tar.gz", archives.small_files(self.files))

    def linked_tree(self) -> tuple[Path, list[str], list[str]]:
        """The same with a symlink to each file: archive, paths of files, paths of links.

        The paths are from the archive's top on, in the order of the archive.
        """
        items = list(archives.small_files(self.files))
        items = [*items, *_links(items)]
        archive = self._archive("linked.tar.gz", items)
        files, links = (
            [item.path for item in items if item.kind == kind]
            for kind in (tarfile.REGTYPE, tarfile.SYMTYPE)
        )
        return archive, files, links

    def _archive(self, name: str, items: "Iterator[Item] | list[Item]") -> Path:
        path = self.scratch / name
        if not path.exists():
            archives.write_tar(path, items, Compression.GZIP)
            self.origin.put(f"/{name}", path)
        return path


def toml(ref: str, url: str) -> str:
    """A project that shows one URL."""
    return f'[ref.{ref}]\nfrom = "{url}"\n'


def _links(items: list[Item]) -> Iterator[Item]:
    """A directory of symlinks, to each file one, laid out like the files."""
    yield archives.directory(_LINKS)
    for item in items:
        below = item.path.partition("/")[2]
        if item.kind == tarfile.DIRTYPE:
            yield archives.directory(f"{_LINKS}/{below}")
        else:
            up = "../" * item.path.count("/")
            yield archives.symlink(f"{_LINKS}/{below}", f"{up}{item.path}")
