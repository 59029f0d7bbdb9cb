"""Sources: the places that one content can be had from, and which of them is asked next.

What is known of their hosts is shared by all content (``rating``); what is known here is about this
content alone: who does not have it, and who has something else under its name.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

import trio
from typing_extensions import override

from cafs.errors import AccessError, CafsError, SizeMismatchError
from cafs.fetch.interfaces import Source
from cafs.fetch.sources.rating import USUAL_LENGTH, Ratings

_REFUSED_S: Final = (30.0, 600.0)
"""How long a source that refused comes after the others: at first, and at most."""


def place_of(url: str) -> str:
    """What ratings and limits call the place of a URL: its authority, else its scheme."""
    parts = urlsplit(url)
    if parts.scheme in {"http", "https"}:
        return parts.netloc
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


class Sources:
    """The sources of one content, known by number; the numbers stay.

    ``only`` is the one that may be asked while it is found out whose bytes were wrong, else None.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self, sources: Iterable[Source], ratings: Ratings) -> None:
        self._sources: list[Source] = []
        self._hosts: list[str] = []
        self._ratings = ratings
        self._condemned: set[int] = set()
        self._aside: set[int] = set()
        self._doubted: set[int] = set()
        self._refused: dict[int, tuple[float, int]] = {}
        self.only: int | None = None
        self.add(sources)

    def add(self, sources: Iterable[Source]) -> None:
        """Use these too, after those that are known already."""
        known = {source.url for source in self._sources}
        for source in sources:
            if source.url not in known:
                known.add(source.url)
                self._sources.append(source)
                self._hosts.append(place_of(source.url))

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, number: int) -> Source:
        return self._sources[number]

    def host(self, number: int) -> str:
        """The source's host, as ratings call it."""
        return self._hosts[number]

    def number(self, url: str) -> int:
        """The number of the source with that URL; that of the first without one."""
        urls = [source.url for source in self._sources]
        return urls.index(url) if url in urls else 0

    def usable(self) -> list[int]:
        """Those whose bytes are not known to be wrong; all, when there are no others."""
        kept = [number for number in range(len(self)) if number not in self._condemned]
        return kept or list(range(len(self)))

    def order(self, length: int) -> list[int]:
        """Those that may be asked for ``length`` bytes now, best first; not empty."""
        return self._ordered(self.usable(), length) if self.only is None else [self.only]

    def suspects(self) -> list[int]:
        """Those whose bytes may be right, as far as is known, best first; perhaps none."""
        kept = [number for number in self.usable() if number not in self._condemned]
        return self._ordered(kept, USUAL_LENGTH)

    def _ordered(self, numbers: list[int], length: int) -> list[int]:
        now = trio.current_time()
        ranks = self._ratings.order([self._hosts[number] for number in numbers], length, now)
        ordered = [numbers[rank] for rank in ranks]
        return sorted(
            ordered, key=lambda one: (one in self._doubted, self._refused_until(one) > now)
        )

    def worth_leaving(
        self, number: int, others: Sequence[int], rest: int, rate: float, anew: int
    ) -> bool:
        """Whether the rest of a source's body would come much sooner from one of the others.

        ``anew`` is what another has to send for it: the same, or all, where it must begin again.
        """
        hosts = [self._hosts[other] for other in others if other != number]
        return self._ratings.worth_leaving(
            self._hosts[number], hosts, rest, rate, trio.current_time(), anew=anew
        )

    def refuse(self, number: int, error: CafsError) -> None:
        """Note that a source does not give this content: others are asked first for a while."""
        least, most = _REFUSED_S
        count = self._refused.get(number, (0.0, 0))[1]
        until = trio.current_time() + min(most, least * 2.0**count)
        self._refused[number] = (until, min(count + 1, 30))
        if isinstance(error, AccessError | SizeMismatchError):
            self._ratings.refused(self._hosts[number], error.line)

    def accept(self, number: int) -> None:
        """Note that a source gave what it was asked for."""
        self._refused.pop(number, None)
        self._ratings.succeeded(self._hosts[number])

    def doubt(self, numbers: Iterable[int]) -> bool:
        """Note that bytes of some were wrong, or of one of them: the others are asked first.

        Returns:
            whether there are others. When there are none, all are as good as before.
        """
        self._doubted.update(numbers)
        if self._doubted.issuperset(self.usable()):
            self._doubted.clear()
            return False
        return True

    def condemn(self, number: int, why: str) -> None:
        """Leave a source out, for its bytes of this content are wrong."""
        self._condemned.add(number)
        self._ratings.wrong(self._hosts[number], why, trio.current_time())

    def condemned(self, number: int) -> bool:
        """Whether its bytes are known to be wrong."""
        return number in self._condemned

    def pardon(self) -> None:
        """Let all be asked again, one at a time: none was right, so it may not be their fault."""
        self._condemned.clear()
        self.isolate(self.suspects()[0] if len(self) > 1 else None)

    def isolate(self, number: int | None) -> None:
        """Let only one source be asked from now on; None for all."""
        self.only = number
        self._aside.clear()

    def step_aside(self, number: int) -> bool:
        """Let another be the only one, since this one gives nothing; whether there is another."""
        if self.only is None:
            return False
        if self.only != number:
            return True  # another flight has done that
        self._aside.add(number)
        left = [each for each in self.usable() if each not in self._aside]
        if left:
            self.only = left[0]
        return bool(left)

    def _refused_until(self, number: int) -> float:
        return self._refused.get(number, (0.0, 0))[0]

    @override
    def __repr__(self) -> str:
        return f"<Sources {', '.join(self._hosts)}; only {self.only}; wrong {self._condemned}>"
