"""The cold scenario of ``scripts/bench``: everything begins with an empty store."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.testing.benching import KEEPERLESS, Site
from cafs.testing.bodies import Generated
from cafs.testing.measuring import Measured, alternating, seconds

_SOME: Final = "tree/000/007/077.c"
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to do with a ref from an empty store, and what curl does instead.

    ``run`` gets the ref's place in the mount and gives the seconds that it took; ``reference`` is
    arguments for curl, or the tar that it is piped into; ``needed`` is bytes, None when no
    number would be fair. ``keeperless`` is whether it is done without a keeper too.
    """

    name: str
    ref: str
    url: str
    run: Callable[[Path], float]
    reference: tuple[str, ...]
    needed: int | None
    keeperless: bool = False


class Cold:
    """The scenario; ``blob`` is the size of the one large file.

    Concurrency: one thread.
    """

    def __init__(self, site: Site, rounds: int, blob: int) -> None:
        self._site = site
        self._rounds = rounds
        self._blob = blob

    def measure(self) -> Iterator[Measured]:
        """Do every errand."""
        origin = self._site.origin
        blob, size = origin.put("/blob", Generated(self._blob)), f"{self._blob // _MIB} MiB"
        archive = self._site.tree()
        tree, packed = origin.url(f"/{archive.name}"), archive.stat().st_size
        one, everything = ("tar", "-xzO", _SOME), ("tar", "-xz")
        yield self._against(
            Errand(f"first byte of {size}", "data", blob, _head, ("-r", "0-0"), None)
        )
        yield self._against(Errand(f"{size}, whole", "data", blob, _whole, (), self._blob, True))
        yield self._against(
            Errand(f"one of {self._site.files:,} files", "tree", tree, _one, one, packed)
        )
        yield self._against(
            Errand(f"all of {self._site.files:,} files", "tree", tree, _copy, everything, packed)
        )

    def _against(self, errand: Errand) -> Measured:
        """Our time from an empty store beside that of curl, and what the origin sent us."""
        origin = self._site.origin
        costs: list[tuple[int, int]] = []

        def ours(*arguments: str) -> float:
            origin.forget()
            with self._site.mount(errand.ref, errand.url, *arguments) as mount:
                spent = errand.run(mount.ref(errand.ref))
                origin.settle()
                costs.append((origin.bytes_sent(), len(origin.requests)))
            return spent

        sides: tuple[Callable[[], float], ...] = (
            ours,
            lambda: self._curl(errand.url, errand.reference),
            lambda: ours(*KEEPERLESS),
        )
        sides = sides if errand.keeperless else sides[:2]
        times = alternating(lambda side: sides[side](), self._rounds, len(sides))
        sent, requests = costs[-1]
        return Measured(
            errand.name,
            times[0],
            times[1],
            times[2] if errand.keeperless else None,
            sent=sent,
            needed=errand.needed,
            requests=requests,
        )

    def _curl(self, url: str, arguments: Sequence[str]) -> float:
        """Curl with these arguments, or piped into the command that they are."""
        if "tar" not in arguments:
            return seconds(["curl", "-sfo", "/dev/null", *arguments, url])
        with tempfile.TemporaryDirectory(dir=self._site.scratch) as out:
            pipe = f'curl -sf "$0" | {" ".join(arguments)} >/dev/null'
            return seconds(["sh", "-c", pipe, url], Path(out))


def _head(path: Path) -> float:
    return seconds(["head", "-c", "1", str(path)])


def _whole(path: Path) -> float:
    return seconds(["cat", str(path)])


def _one(path: Path) -> float:
    return _whole(path / _SOME)


def _copy(path: Path) -> float:
    # To a pipe: GNU tar does not read what it writes to /dev/null.
    return seconds(["sh", "-c", 'tar -cf - -C "$0" . | cat >/dev/null', str(path)])
