"""Who keeps a mount busy: processes with something open in it, and mounts inside it.

And who keeps one that is gone from here: other mount namespaces, which have copies of their own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cafs.cli.mounts import live

_SHOWN: Final = 8
"""As many are named as a person looks at."""


def who_keeps(mount_point: Path) -> str:
    """Who keeps it busy, for people; empty when nobody is found, as in other users' processes."""
    prefix = os.fsencode(mount_point)
    inside = [
        f"a {kind} mount on {os.fsdecode(place)}"
        for place, kind, _ in live.mounts()
        if _below(place, prefix) and place != prefix
    ]
    found = [*inside, *_processes(prefix)]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ", ".join([*found[:_SHOWN], *more])


def stands_in(mount_point: Path) -> bool:
    """Whether this process has its working directory there."""
    return _leads_below(Path("/proc/self/cwd"), os.fsencode(mount_point))


def who_has_it_elsewhere(mount_point: Path) -> str:
    """One process of each other mount namespace with a cafs there, for people; empty for none."""
    place = os.fsencode(mount_point)
    seen, found = {Path("/proc/self/ns/mnt").readlink()}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespace = (process / "ns/mnt").readlink()
            if namespace in seen:
                continue
            seen.add(namespace)
            mounts = live.mounts_of((process / "mountinfo").read_bytes())
            if any((each.place, each.kind) == (place, live.TYPE) for each in mounts):
                found.append(f"{process.name} ({(process / 'comm').read_text().strip()})")
        except OSError:
            continue  # gone, or another user's
    return ", ".join(found)


def _processes(prefix: bytes) -> Iterator[str]:
    """Other processes with a directory, root, program, mapped or open file below it."""
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if any(_leads_below(link, prefix) for link in _links(process)) or _maps(
                process, prefix
            ):
                yield f"{process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # gone, or another user's


def _links(process: Path) -> Iterator[Path]:
    yield from (process / name for name in ("cwd", "root", "exe"))
    yield from (process / "fd").iterdir()


def _leads_below(link: Path, prefix: bytes) -> bool:
    try:
        return _below(os.fsencode(link.readlink()), prefix)
    except OSError:
        return False


def _maps(process: Path, prefix: bytes) -> bool:
    """Source: proc(5), /proc/pid/maps: the path is the sixth field, after blanks."""
    lines = (process / "maps").read_bytes().splitlines()
    return any(_below(line.split(maxsplit=5)[-1], prefix) for line in lines if b"/" in line)


def _below(path: bytes, prefix: bytes) -> bool:
    return path == prefix or path.startswith(prefix + b"/")
