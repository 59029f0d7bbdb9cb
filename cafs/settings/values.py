"""What settings are, once everything has been read: frozen, checked, complete."""

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import msgspec

from cafs.model.bounds import Bounds
from cafs.model.digest import Digest
from cafs.model.login import HelperRule, HostLogin
from cafs.model.mapping import MapRule
from cafs.model.pacing import USUAL, Pacing
from cafs.model.plugging import PluginSpec
from cafs.model.ref import Ref
from cafs.model.spec import Pull, RefSpec, Verify

OnError = Literal["fail", "wait"]
"""At the deadline: fail the read, or retry as long as the reader lives."""


OBEYING: Final[frozenset[Pull]] = frozenset({"lock", "never"})
"""Policies that take what is locked: ``never`` too, since that asks nobody."""
INDEX_PLACES: Final = ("{digest}", "{hex}")
"""What stands for an index in a URL: its digest, ``sha256:<hex>``, or the digits alone."""


def index_url(text: str, digest: Digest) -> str:
    """Where an index is, as ``lock.index-url`` says it."""
    return text.replace("{digest}", str(digest)).replace("{hex}", digest.hex)


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often a request is made again and how long to wait before; fields of a retry policy.

    ``retries`` come after the first attempt. ``initial_s`` is the first delay, ``multiplier`` how
    each next one grows, ``cap_s`` the longest; ``fixed`` keeps them all at the first. ``jitter``
    adds up to half.
    """

    retries: int = 9
    initial_s: float = 0.25
    multiplier: float = 2.3
    cap_s: float = 30.0
    jitter: bool = True
    fixed: bool = False


USUAL_RETRIES: Final = RetrySettings()
"""What is done when nothing else is said."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, with where it came from forgotten.

    ``project_file`` is the cafs.toml that was read, None without one. ``mount_point`` is absolute,
    None when nothing names one. ``view`` is the path inside the mount that is shown at its root:
    ``/``, or one without slashes at its ends. ``budget`` bounds the bytes fetched per mount, None
    is no bound. ``refs`` are sorted by name, names unique.

    ``deadline_s``, ``on_error``, ``pull`` and ``verify`` are for refs that are named by path; named
    ones carry their own. ``deadline_s`` bounds time without progress and is None exactly when
    ``on_error`` is "wait". ``store`` is absolute. ``allowed_hosts`` are the authorities (``host``
    or ``host:port``) that may be named by path: those of refs, of mirrors, those that URLs are
    mapped to, and those that the user's or the system's settings allow. ``look_in`` are absolute
    paths of other stores and OCI layouts. ``quota`` bounds the bytes in the store, None is no
    bound, and ``min_free`` of its disk are left to others. ``ca_bundle`` is an absolute path, None
    for the system's certificates.

    ``lock_file`` is the cafs.lock that was read, None without one; ``index_urls`` are where its
    large index files can be had, with ``{digest}`` or ``{hex}`` in them. ``notes`` are lines that
    tell what in it does not count.

    ``mapping``, ``logins``, ``helpers`` and ``plugins`` are sorted by prefix, host or scheme, which
    are unique. No secret is among them: files and variables are named, and read by who needs them.
    """

    project_file: Path | None
    mount_point: Path | None
    view: str
    budget: int | None
    refs: tuple[RefSpec, ...]
    deadline_s: float | None
    on_error: OnError
    pull: Pull
    store: Path
    allowed_hosts: frozenset[str]
    dynamic: bool
    allow_other: bool
    preserve_owner: bool
    suid: bool
    dev: bool
    offline: bool
    ca_bundle: Path | None
    look_in: tuple[Path, ...] = ()
    quota: int | None = None
    min_free: int = 0
    mapping: tuple[MapRule, ...] = ()
    logins: tuple[HostLogin, ...] = ()
    helpers: tuple[HelperRule, ...] = ()
    plugins: tuple[PluginSpec, ...] = ()
    pacing: Pacing = USUAL
    retry: RetrySettings = USUAL_RETRIES
    lock_file: Path | None = None
    verify: Verify = "block"
    index_urls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bounds(self) -> Bounds:
        """How much the store may have, as far as this process adds to it."""
        return Bounds(self.quota, self.min_free)

    @property
    def schemes(self) -> frozenset[str]:
        """The schemes of URLs for which a plugin is enabled."""
        return frozenset(plugin.scheme for plugin in self.plugins)

    def ad_hoc(self, ref: Ref) -> RefSpec:
        """The spec of a ref that was named by path, or written out.

        What is locked of it under a name holds for it too: in a mount a tag means one thing.
        """
        spec = RefSpec(
            name="", ref=ref, deadline_s=self.deadline_s, pull=self.pull, verify=self.verify
        )
        for each in self.refs if self.pull in OBEYING else ():
            plain = each.integrity is None and each.platform is None
            if each.locked is not None and plain and each.ref == ref:
                return replace(spec, locked=each.locked)
        return spec


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """What flags say; None is not said. Texts as they were typed ("20GiB", "5m").

    Relative paths start from the working directory. ``allow_hosts`` are added to what is allowed.
    ``look_in`` replaces what the settings say. ``limit`` is the rate of prefetches ("50MiB/s").
    """

    mount_point: Path | None = None
    view: str | None = None
    budget: str | None = None
    deadline: str | None = None
    on_error: str | None = None
    pull: str | None = None
    verify: str | None = None
    store: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    dynamic: bool | None = None
    allow_other: bool | None = None
    preserve_owner: bool | None = None
    suid: bool | None = None
    dev: bool | None = None
    offline: bool | None = None
    ca_bundle: Path | None = None
    look_in: tuple[Path, ...] = ()
    quota: str | None = None
    min_free: str | None = None
    limit: str | None = None
