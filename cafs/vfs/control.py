"""The control files below ``.cafs``: facts about the mount, as files.

Each lookup of a name makes a snapshot, so a reader's size and bytes agree.
"""

from collections.abc import Callable
from typing import Final

from cafs.vfs.failures import Failures

README: Final = b"""\
This is a cafs mount: refs and digests as paths, fetched when they are read.

  ref/NAME        a ref of cafs.toml
  ref/docker/...  ref/archive/...  ref/blob/...
                  refs spelled out as paths; '@' ends a ref
  digest/ALG/HEX  a blob's bytes
  tree/ALG/HEX    the same blob, opened as an archive
  .cafs/          this directory: found by name, never listed

  status.json     refs, counters, what the mount is
  inflight.json   fetches under way
  errors.json     the last failures, newest first
  version         the version of cafs

Why does a path not work? getfattr -n user.cafs.error PATH (Debian: attr),
or errors.json, or cafs status. The log of the mount is named by cafs mount.
"""


class ControlFiles:
    """The names below ``.cafs``, and what they say now.

    Args:
        version: the version of cafs.
        status: makes the content of ``status.json``; called at each lookup, in the trio thread.
        inflight: makes that of ``inflight.json``, likewise.
        failures: what ``errors.json`` tells.
    """

    def __init__(
        self,
        *,
        version: str,
        status: Callable[[], bytes],
        inflight: Callable[[], bytes],
        failures: Failures,
    ) -> None:
        self._content: dict[str, Callable[[], bytes]] = {
            "README": lambda: README,
            "errors.json": failures.as_json,
            "inflight.json": inflight,
            "status.json": status,
            "version": lambda: version.encode() + b"\n",
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(self._content)

    def content(self, name: str) -> bytes | None:
        """What a file says now; None when there is no such file."""
        make = self._content.get(name)
        return make() if make is not None else None
