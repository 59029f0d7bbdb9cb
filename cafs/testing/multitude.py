"""The entries scenario of ``scripts/bench``: an archive of very many files, known by its index.

It is locked, then mounted with an empty store, and all of it is listed; then mounted again. What
memory the worker has that no file backs is looked at all the time. The files are empty: it is
about what is known of them.
"""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from cafs.testing import archives
from cafs.testing.archives import Compression, Item
from cafs.testing.benching import Site, toml
from cafs.testing.command import Mount
from cafs.testing.imaging import copy_lock, list_directory
from cafs.testing.measuring import Measured, anonymous, seconds

_BELOW: Final = 1000
"""Files in a directory."""
_LOOK_S: Final = 0.02
_REF: Final = "many"
_MIB: Final = 1 << 20


class Multitude:
    """The scenario; ``entries`` is how many files there are.

    Concurrency: one thread, and one that watches.
    """

    def __init__(self, site: Site, entries: int) -> None:
        self._site = site
        self._entries = entries

    def measure(self) -> Iterator[Measured]:
        """Lock it, mount it elsewhere, list it, and mount it again."""
        path = self._site.scratch / "many.tar.gz"
        archives.write_tar(path, _items(self._entries), Compression.GZIP)
        url = self._site.origin.put("/many.tar.gz", path)
        unpacked = self._site.scratch / "unpacked"
        unpacked.mkdir()
        tar_s = seconds(["tar", "-xzf", str(path)], unpacked)
        name = f"{self._entries:,} files"
        first = self._site.world("locking")
        large = self._site.scratch / "large"
        first.project(toml(_REF, url))
        began = time.perf_counter()
        first.run("lock", "--large", large, timeout_s=600)
        locked_s = time.perf_counter() - began
        files = [*large.glob("*"), *(first.directory / "cafs.lock.d").glob("*.idx")]
        size = sum(file.stat().st_size for file in files if file.suffix == ".idx")
        note = f"the index has {size / _MIB:.1f} MiB"
        yield Measured(f"{name}: lock, to tar -xz", locked_s, tar_s, note=note)
        world = self._site.world()
        copy_lock(first.directory, world.directory)
        for file in large.glob("*.idx"):
            shutil.copy(file, world.directory / "cafs.lock.d")
        project = toml(_REF, url)
        began = time.perf_counter()
        with world.mount(project) as mount, Watched(mount) as watched:
            list_directory(mount.ref(_REF))
            yield Measured(f"{name}: mount to the first ls", time.perf_counter() - began)
            ours = _listed(mount.ref(_REF), self._entries)
            reference = _listed(unpacked, self._entries)
        memory = f"worker: {watched.most / _MIB:.0f} MiB anonymous memory at most"
        yield Measured(f"{name}: ls -lR", ours, reference, note=memory)
        began = time.perf_counter()
        with world.mount() as mount, Watched(mount) as watched:
            list_directory(mount.ref(_REF))
            took_s = time.perf_counter() - began
            _listed(mount.ref(_REF), self._entries)
        memory = f"listed: {watched.most / _MIB:.0f} MiB anonymous memory at most"
        yield Measured(f"{name}: remounted, to ls", took_s, note=memory)


class Watched:
    """Looks at a mount's worker all the time; ``most`` is the most memory that it had.

    Concurrency: one thread uses it; it has one of its own.
    """

    def __init__(self, mount: Mount) -> None:
        self._pid = mount.worker
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.most = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.most = max(self.most, anonymous(self._pid))


def _items(entries: int) -> Iterator[Item]:
    for number in range(entries):
        if not number % _BELOW:
            yield archives.directory(f"many/{number // _BELOW:04}")
        yield archives.file(f"many/{number // _BELOW:04}/file-{number % _BELOW:03}")


def _listed(path: Path, entries: int) -> float:
    """List all of it; the seconds that it took.

    Raises:
        AssertionError: it does not have as many lines as there are files.
    """
    began = time.perf_counter()
    command = ["sh", "-c", 'ls -lR "$0" | grep -c "file-"', str(path)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if int(said) != entries:
        raise AssertionError(f"{said.strip()} files are listed, not {entries}")
    return time.perf_counter() - began
