"""Ref specs: a ref with everything the settings say about it."""

from dataclasses import dataclass, field
from typing import Literal

import msgspec
from typing_extensions import override

from cafs.model.digest import Digest
from cafs.model.ref import Ref
from cafs.model.resolved import Resolved

Pull = Literal["lock", "new", "update", "never"]
"""When a mutable ref is asked for again (R-24): ``new`` takes what the store has; ``update``
revalidates; ``never`` asks nobody; ``lock`` takes what is locked, the rest as ``update``. Of these
``never`` takes what is locked too."""


Verify = Literal["block", "provisional"]
"""When bytes reach a reader: ``block``: after they were checked; ``provisional``: as they arrive,
and the whole is checked behind them."""


class Platform(msgspec.Struct, frozen=True):
    """What an image must run on, in the words of the OCI image index ("linux", "amd64", "v7")."""

    os: str
    architecture: str
    variant: str = ""

    @override
    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RefSpec:
    """A ref, and how it is to be read.

    ``name`` is the name in cafs.toml, empty for one that was named by path. ``integrity`` is the
    pin. ``strip`` leading path components are removed, then ``subdir`` is the root. ``mirrors`` are
    other URLs of the same content. ``platform`` None is the machine's own. ``deadline_s`` bounds
    time without progress; None means: as long as the reader lives. ``locked`` is what cafs.lock
    says that it means, where ``pull`` obeys it.

    From these follow ``source``, the text under which it is kept what the spec resolved to: it has
    nothing of what is shown of that, since all refs of a mount to one tag have one version; and
    ``key``, the text under which it is kept what the spec shows: everything that matters.
    """

    name: str
    ref: Ref
    integrity: Digest | None = None
    strip: int = 0
    subdir: str = ""
    mirrors: tuple[str, ...] = ()
    platform: Platform | None = None
    deadline_s: float | None = 60.0
    pull: Pull = "lock"
    verify: Verify = "block"
    locked: Resolved | None = None
    source: str = field(init=False, repr=False, compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, and not for every request: to spell a URL costs more than to find its bytes.
        source = [self.ref.canonical, str(self.integrity or ""), str(self.platform or "")]
        if self.locked is not None:
            source += [f"locked {self.locked.digest}"]
            source += [f"{part.digest} {part.index}" for part in self.locked.parts]
        object.__setattr__(self, "source", "\n".join(source))
        shown = [self.source, str(self.strip), self.subdir]
        if self.verify != "block":
            shown.append(self.verify)
        object.__setattr__(self, "key", "\n".join(shown))
