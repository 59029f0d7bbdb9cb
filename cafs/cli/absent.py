"""Where there is no store yet: verbs that only look say so, and make none."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cafs.model.spec import RefSpec
    from cafs.reporting import RefStatus, Status
    from cafs.settings.values import Settings


def is_absent(store: Path) -> bool:
    """Whether there is no store in a directory, nor a part of one."""
    return not any((store / name).exists() for name in ("VERSION", "index"))


def told(store: Path) -> str:
    """What a person is told."""
    return f"{store}: there is no store yet"


def free_bytes(store: Path) -> int:
    """Bytes that may be written where the store would be.

    Raises:
        OSError: the disk cannot be looked at.
    """
    place = next(each for each in (store, *store.parents) if each.exists())
    info = os.statvfs(place)
    return info.f_bavail * info.f_frsize


def status(settings: "Settings") -> "Status":
    """What is known of the named refs, of which nothing is here."""
    from cafs import __version__
    from cafs.metrics import Metrics
    from cafs.reporting import RoomStatus, Status

    quota, min_free = settings.bounds.quota, settings.bounds.min_free
    return Status(
        version=__version__,
        mount_point=None,
        view="/",
        pid=None,
        started_ns=None,
        store=str(settings.store),
        store_free=free_bytes(settings.store),
        room=RoomStatus(used=0, blobs=0, streams=0, quota=quota, min_free=min_free),
        fetched=0,
        found=0,
        hit_rate=None,
        refs=tuple(map(_ref, settings.refs)),
        inflight=(),
        mirrors=(),
        requests={},
        counters=Metrics().snapshot(),
        notes=settings.notes,
    )


def _ref(spec: "RefSpec") -> "RefStatus":
    from cafs.reporting import RefStatus

    parts = spec.locked.parts if spec.locked is not None else ()
    sizes = [part.size for part in parts if part.size is not None]
    digest = spec.locked.digest if spec.locked is not None else None
    return RefStatus(
        name=spec.name,
        ref=spec.ref.shown,
        state="unread",
        digest=None if digest is None else str(digest),
        size=sum(sizes) if parts and len(sizes) == len(parts) else None,
        present=0,
        sources=(),
        error=None,
    )
