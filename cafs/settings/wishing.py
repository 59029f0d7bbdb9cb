"""What a lock should have: one entry for each ref of the project's file, and platform of that."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from cafs.distribution.platforms import normalised
from cafs.errors import NotFoundError, UsageError
from cafs.model.nearest import nearest_hint
from cafs.model.ref import DockerRef
from cafs.model.spec import Platform, RefSpec
from cafs.settings import units
from cafs.settings.heeding import made_for, platform_of
from cafs.settings.loading import Project
from cafs.settings.lockfile import Lock, LockEntry
from cafs.settings.values import Settings


class Wish(msgspec.Struct, frozen=True):
    """One entry that should be there.

    ``spec`` is the ref as it must be asked for now, whatever is locked. ``platform`` is what the
    entry is for, empty where there is nothing to tell apart. ``anywhere`` says that it may turn out
    to be for every platform: an image that is alone.
    """

    spec: RefSpec
    platform: str = ""
    anywhere: bool = False

    @property
    def title(self) -> str:
        """What people call it."""
        several = self.platform and not self.anywhere
        return f"{self.spec.name} ({self.platform})" if several else self.spec.name

    def entry(self, lock: Lock, base: Path) -> LockEntry | None:
        """The entry of a lock, in the directory ``base``, that was made for this wish."""
        fitting = {"", self.platform} if self.anywhere else {self.platform}
        entries = [each for each in lock.of(self.spec.name) if each.platform in fitting]
        return next((each for each in entries if made_for(self.spec, each, base)), None)


def wishes(project: Project, lock: Lock, platforms: Sequence[Platform]) -> list[Wish]:
    """The wishes of a project, by name.

    Images that name no platform are wished for this machine's, for those that they are locked for,
    and for ``platforms``; a ref with ``by-platform`` for each that it names.

    Raises:
        UsageError: there is no project file.
    """
    project_of(project.settings)
    specs = {spec.name: spec for spec in project.settings.refs}
    found: list[Wish] = []
    for draft in project.drafts:
        usual = specs[draft.spec.name]
        asked = _asked(draft.spec, usual)
        if draft.choices:
            found += [_choice(platform, _asked(spec, usual)) for platform, spec in draft.choices]
        elif not isinstance(asked.ref, DockerRef):
            found.append(Wish(asked))
        elif asked.platform is not None:
            found.append(Wish(asked, platform_of(asked)))
        else:
            before = [each.platform for each in lock.of(asked.name) if each.platform]
            found += _image(asked, [*platforms, *map(units.platform, before)])
    return sorted(found, key=lambda each: (each.spec.name, each.platform))


def named(found: Sequence[Wish], names: Iterable[str]) -> list[Wish]:
    """The wishes of some refs; all for none.

    Raises:
        NotFoundError: the project has no such ref.
    """
    known = {each.spec.name for each in found}
    wanted = set(names)
    for name in sorted(wanted - known):
        hint = nearest_hint(name, sorted(known)) if known else ""
        raise NotFoundError(f"the project has no ref named {name!r}", hint=hint)
    return [each for each in found if each.spec.name in wanted or not wanted]


def unheard(found: Iterable[Wish], platforms: Iterable[Platform]) -> list[tuple[str, str]]:
    """Refs, and platforms that they are not wished for although somebody named those.

    Their settings name others. What is the same everywhere is wished for all.
    """
    own: dict[str, set[str]] = {}
    for wish in found:
        if wish.platform:
            known = str(normalised(units.platform(wish.platform)))
            own.setdefault(wish.spec.name, set()).add(known)
    asked = list(dict.fromkeys(str(normalised(each)) for each in platforms))
    return [(name, each) for name, there in own.items() for each in asked if each not in there]


def project_of(loaded: Settings) -> Path:
    """The project's file.

    Raises:
        UsageError: there is none.
    """
    if loaded.project_file is None:
        raise UsageError("there is no cafs.toml here or above", hint="cafs add NAME FROM makes one")
    return loaded.project_file


def _asked(spec: RefSpec, usual: RefSpec) -> RefSpec:
    return replace(spec, deadline_s=usual.deadline_s, pull="update", locked=None)


def _choice(platform: Platform, spec: RefSpec) -> Wish:
    if isinstance(spec.ref, DockerRef) and spec.platform is None:
        spec = replace(spec, platform=platform)
    return Wish(spec, str(platform))


def _image(spec: RefSpec, platforms: Sequence[Platform]) -> list[Wish]:
    own = Wish(spec, platform_of(spec), anywhere=True)
    others = {str(normalised(each)): each for each in platforms}
    others.pop(own.platform, None)
    return [own, *(Wish(replace(spec, platform=each), text) for text, each in others.items())]
