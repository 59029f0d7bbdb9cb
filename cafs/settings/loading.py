"""All sources of settings as one value.

What several sources say, the first of these decides:

1. flags
2. ``CAFS_*`` variables
3. the project's cafs.toml: ``--config``, else ``CAFS_CONFIG``, else the nearest one upwards
4. the user's ``$XDG_CONFIG_HOME/cafs/config.toml`` (``~/.config/cafs/config.toml``)
5. the system's ``/etc/cafs/config.toml`` (``CAFS_SYSTEM_CONFIG`` names another)

What a ref's own table says comes after flags and variables, and before every ``[defaults]``. A ref
that several files define is the first one's, whole; what it is on each platform is one such table.
Allowed hosts add up. ``on-error = "wait"``
beats every deadline. A project file may not say everything (``schema``).

======================  =======================  ======================  ===============
key                     variable                 flag                    default
======================  =======================  ======================  ===============
mount.path              CAFS_MOUNT_POINT         mount point             none
mount.view              CAFS_VIEW                --view                  "/"
mount.budget            CAFS_BUDGET              --budget                "unlimited"
mount.allow-other       CAFS_ALLOW_OTHER         --allow-other           false
mount.preserve-owner    CAFS_PRESERVE_OWNER      --preserve-owner        false
mount.suid              CAFS_SUID                --suid                  false
mount.dev               CAFS_DEV                 --dev                   false
defaults.verify         CAFS_VERIFY              --verify                "block"
defaults.deadline       CAFS_DEADLINE            --deadline              "60s"
defaults.on-error       CAFS_ON_ERROR            --on-error              "fail"
defaults.pull           CAFS_PULL                --pull                  "lock"
store.path              CAFS_STORE               --store                 user's cache
store.look-in           CAFS_LOOK_IN             --look-in               []
store.quota             CAFS_QUOTA               --quota                 "unlimited"
store.min-free          CAFS_MIN_FREE            --min-free              "0"
hosts.allow             CAFS_ALLOW_HOSTS         --allow-host            []
hosts.dynamic           CAFS_DYNAMIC             --dynamic               false
network.offline         CAFS_OFFLINE             --offline               false
network.ca-bundle       CAFS_CA_BUNDLE           --ca-bundle             the system's
limits.connections                                                       64
limits.connections-per-host                                              8
limits.prefetch-connections                                              32
limits.prefetch-rate                             --limit                 "unlimited"
limits.connect                                                           "10s"
limits.first-byte                                                        "30s"
limits.stall                                                             "20s"
limits.stall-floor                                                       "2s"
retry.retries                                                            9
retry.initial-delay                                                      "250ms"
retry.multiplier                                                         2.3
retry.max-delay                                                          "30s"
retry.jitter                                                             true
retry.fixed                                                              false
lock.index-url                                                           []
======================  =======================  ======================  ===============

Tables whose keys are names are in the user's and the system's file only: ``map`` (URL prefixes),
``credentials`` and ``helpers`` (hosts), ``plugins`` (schemes). What both say of one name, the
user's file says.

Proxies are taken from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, and from nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from cafs.errors import SettingsError
from cafs.model.address import host_of
from cafs.model.mapping import MapRule
from cafs.model.pacing import USUAL, Pacing
from cafs.model.spec import Pull, RefSpec, Verify
from cafs.settings import document, layers, places
from cafs.settings.document import Document
from cafs.settings.fetching import Fetching, plugins
from cafs.settings.layers import Layer
from cafs.settings.naming import Draft, Terms
from cafs.settings.schema import Voice
from cafs.settings.units import Budget
from cafs.settings.values import USUAL_RETRIES, OnError, Overrides, Settings

T = TypeVar("T")
_DEADLINE_S: Final = 60.0


class Project(msgspec.Struct, frozen=True):
    """The settings without cafs.lock, and the refs of the project's file as its tables say them.

    Both are of one reading: each draft's ref is among those of the settings.
    """

    settings: Settings
    drafts: tuple[Draft, ...]


def load_settings(
    start: Path,
    *,
    project: Path | None,
    overrides: Overrides,
    environ: Mapping[str, str],
    locked: bool = True,
) -> Settings:
    """Read every source and merge them.

    Args:
        start: the working directory: the search for cafs.toml begins here, and relative paths of
            flags and variables start here.
        project: the project file, None to search for one.
        overrides: what the flags say.
        environ: the environment; nothing else is taken from the process's own.
        locked: whether cafs.lock counts; where it does not, it is not even read.

    Raises:
        SettingsError: any source is wrong; it names the source and the key.
    """
    read = load_project(start, project=project, overrides=overrides, environ=environ)
    return with_lock(read) if locked else read.settings


def load_project(
    start: Path, *, project: Path | None, overrides: Overrides, environ: Mapping[str, str]
) -> Project:
    """Read every source but cafs.lock; else as ``load_settings``."""
    start = start.absolute()
    file = project_file(start, project, environ)
    documents = [
        _file(file, Voice.PROJECT, must_exist=True),
        _file(places.user_file(environ), Voice.MACHINE),
        _file(places.system_file(environ), Voice.MACHINE),
    ]
    # Which URLs there may be depends on what all of the files enable.
    schemes = {name for each in documents if each for name in plugins(each, environ)}
    files = [layers.of_file(each, environ, schemes) for each in documents if each]
    said = [layers.of_flags(overrides, start), layers.of_environment(environ, start)]
    merged = _merged(said, files, project_file=file, store=places.default_store(environ))
    return Project(merged, () if file is None else files[0].refs)


def project_file(start: Path, stated: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The project's file: the one that is stated, or ``CAFS_CONFIG``, or is found; read or not."""
    stated = stated or (Path(environ["CAFS_CONFIG"]) if environ.get("CAFS_CONFIG") else None)
    return places.find_project(start) if stated is None else start / stated


def with_lock(read: Project) -> Settings:
    """The settings with what is locked of the project's refs.

    Raises:
        SettingsError: cafs.lock cannot be read, or contradicts the settings.
    """
    merged = read.settings
    if merged.project_file is None:
        return merged
    from cafs.settings.lockfile import lock_file, read_lock  # noqa: PLC0415 - where there is one

    file = lock_file(merged.project_file)
    lock = read_lock(file)
    if lock is None:
        return merged
    from cafs.distribution.policy import HostPolicy  # noqa: PLC0415
    from cafs.settings.heeding import heed  # noqa: PLC0415

    names = frozenset(draft.spec.name for draft in read.drafts)
    policy = HostPolicy(merged.allowed_hosts, merged.dynamic)
    heeded = heed(merged.refs, lock, file, names=names, allowed=policy.allows_url)
    return msgspec.structs.replace(merged, refs=heeded.specs, lock_file=file, notes=heeded.notes)


def _file(path: Path | None, voice: Voice, *, must_exist: bool = False) -> Document | None:
    if path is None:
        return None
    read = document.read(path, voice)
    if read is None and must_exist:
        raise SettingsError(str(path), "", "there is no such file")
    return read


def _merged(
    said: Sequence[Layer], files: Sequence[Layer], *, project_file: Path | None, store: Path
) -> Settings:
    """One value from the layers that are said aloud and those of files, each strongest first."""
    every = (*said, *files)
    refs = _refs(said, files)
    deadline_s, on_error, pull, verify = _agreed(each.terms for each in every)
    mapping = _united(each.fetching.mapping for each in every)
    merged = Settings(
        project_file=project_file,
        mount_point=_first((each.mount_point for each in every), None),
        view=_first((each.view for each in every), "/"),
        budget=_first((each.budget for each in every), Budget(None)).limit,
        refs=refs,
        deadline_s=deadline_s,
        on_error=on_error,
        pull=pull,
        verify=verify,
        store=_first((each.store for each in every), store),
        allowed_hosts=_hosts(refs, mapping) | {host for each in every for host in each.hosts},
        dynamic=_first((each.dynamic for each in every), False),
        allow_other=_first((each.allow_other for each in every), False),
        preserve_owner=_first((each.preserve_owner for each in every), False),
        suid=_first((each.suid for each in every), False),
        dev=_first((each.dev for each in every), False),
        offline=_first((each.offline for each in every), False),
        ca_bundle=_first((each.ca_bundle for each in every), None),
        look_in=_first((each.look_in for each in every), ()),
        quota=_first((each.quota for each in every), Budget(None)).limit,
        min_free=_first((each.min_free for each in every), 0),
        index_urls=_first((each.index_urls for each in every), ()),
        mapping=mapping,
        logins=_united(each.fetching.logins for each in every),
        helpers=_united(each.fetching.helpers for each in every),
        plugins=_united(each.fetching.plugins for each in every),
        pacing=_pacing(every),
        retry=msgspec.structs.replace(
            USUAL_RETRIES, **_said(each.fetching.retry for each in every)
        ),
    )
    if merged.dynamic and merged.allow_other:
        raise SettingsError(
            "settings",
            "hosts.dynamic",
            "a mount that others may read fetches only from hosts that are configured",
            hint="leave out --dynamic or --allow-other, or allow the hosts by name",
        )
    return merged


def _refs(said: Sequence[Layer], files: Sequence[Layer]) -> tuple[RefSpec, ...]:
    """Every ref, sorted by name, with its defaults filled in."""
    named = {draft.spec.name: draft for each in reversed(files) for draft in each.refs}
    specs: list[RefSpec] = []
    for _, draft in sorted(named.items()):
        aloud = [each.terms for each in said]
        every = [*aloud, draft.terms, *(each.terms for each in files)]
        deadline_s, _, pull, verify = _agreed(every)
        specs.append(replace(draft.spec, deadline_s=deadline_s, pull=pull, verify=verify))
    return tuple(specs)


def _agreed(order: Iterable[Terms]) -> tuple[float | None, OnError, Pull, Verify]:
    """The deadline, what happens at it, when to ask and when to check; strongest terms first."""
    every = list(order)
    fail: OnError = "fail"
    lock: Pull = "lock"
    block: Verify = "block"
    on_error = _first((each.on_error for each in every), fail)
    deadline_s = _first((each.deadline_s for each in every), _DEADLINE_S)
    pull = _first((each.pull for each in every), lock)
    verify = _first((each.verify for each in every), block)
    return (None if on_error == "wait" else deadline_s), on_error, pull, verify


def _united(tables: Iterable[Mapping[str, T]]) -> tuple[T, ...]:
    """The rules of all, sorted by what they are for; the first that is said of each."""
    return tuple(rule for _, rule in sorted(_said(tables).items()))


def _said(tables: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """All that is said, strongest first."""
    return {key: value for each in reversed(list(tables)) for key, value in each.items()}


def _pacing(every: Iterable[Layer]) -> Pacing:
    tables = [each.fetching for each in every]
    pacing = msgspec.structs.replace(USUAL, **_said(each.pacing for each in tables))
    if pacing.stall_floor_s > pacing.stall_s:
        raise _stalls(tables, pacing)
    return pacing


def _stalls(tables: Sequence[Fetching], pacing: Pacing) -> SettingsError:
    """The error for a floor above its ceiling, told of the floor if anybody said that."""
    floor, ceiling = (
        next((each.source for each in tables if field in each.pacing), "")
        for field in ("stall_floor_s", "stall_s")
    )
    least, most = f"{pacing.stall_floor_s:g}s", f"{pacing.stall_s:g}s"
    if not floor:
        what = f"{most} is less than limits.stall-floor, {least} when nobody says another"
        return SettingsError(ceiling, "limits.stall", what, hint="say limits.stall-floor too")
    whose = "" if ceiling in {"", floor} else f" of {ceiling}"
    return SettingsError(
        floor, "limits.stall-floor", f"{least} is more than limits.stall{whose}, {most}"
    )


def _hosts(refs: Iterable[RefSpec], mapping: Iterable[MapRule]) -> frozenset[str]:
    """The hosts that refs and their mirrors name, and those that are asked instead."""
    hosts = {spec.ref.host for spec in refs}
    hosts |= {host_of(mirror) for spec in refs for mirror in spec.mirrors}
    hosts |= {host_of(target) for rule in mapping for target in rule.targets}
    return frozenset(host for host in hosts if host is not None)


def _first(values: Iterable[T | None], default: T) -> T:
    """The first that is said, else the default."""
    return next((value for value in values if value is not None), default)
