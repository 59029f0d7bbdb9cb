"""One source of settings at a time: a file, the environment, or the flags."""

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from cafs.errors import CafsError, InvalidReferenceError, SettingsError
from cafs.model.address import SCHEMES, authority, file_path, normalised
from cafs.model.digest import EMPTY
from cafs.settings import units
from cafs.settings.document import Document
from cafs.settings.fetching import UNSAID, Fetching, fetching
from cafs.settings.naming import SILENT, Draft, Terms, drafts, terms
from cafs.settings.places import absolute, project_mount, settled
from cafs.settings.schema import MACHINE_FILES, Voice
from cafs.settings.values import INDEX_PLACES, Overrides, index_url

T = TypeVar("T")
ENVIRONMENT: Final = "environment"
COMMAND_LINE: Final = "command line"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What one source says, parsed; fields are those of ``Settings``, None where it is silent."""

    mount_point: Path | None = None
    view: str | None = None
    budget: units.Budget | None = None
    refs: tuple[Draft, ...] = ()
    terms: Terms = SILENT
    store: Path | None = None
    hosts: tuple[str, ...] = ()
    dynamic: bool | None = None
    allow_other: bool | None = None
    preserve_owner: bool | None = None
    suid: bool | None = None
    dev: bool | None = None
    offline: bool | None = None
    ca_bundle: Path | None = None
    look_in: tuple[Path, ...] | None = None
    quota: units.Budget | None = None
    min_free: int | None = None
    index_urls: tuple[str, ...] | None = None
    fetching: Fetching = UNSAID


def of_file(document: Document, environ: Mapping[str, str], schemes: Collection[str] = ()) -> Layer:
    """The layer of a settings file.

    Args:
        document: the file.
        environ: for ``~``.
        schemes: those of plugins that any file enables.

    Raises:
        SettingsError: a wrong value, naming file and key.
    """
    return Layer(
        mount_point=_mount_point(document, environ),
        view=document.parsed("mount.view", _view),
        budget=document.parsed("mount.budget", units.budget),
        refs=tuple(drafts(document, schemes)),
        terms=terms(document.below("defaults")),
        store=_absolute(document, "store.path", environ),
        hosts=_hosts(document.origin.name, "hosts.allow", document.texts("hosts.allow")),
        dynamic=document.flag("hosts.dynamic"),
        allow_other=document.flag("mount.allow-other"),
        preserve_owner=document.flag("mount.preserve-owner"),
        suid=document.flag("mount.suid"),
        dev=document.flag("mount.dev"),
        offline=document.flag("network.offline"),
        ca_bundle=_bundle(
            document.origin.name,
            "network.ca-bundle",
            _absolute(document, "network.ca-bundle", environ),
        ),
        look_in=_folders(document, "store.look-in", environ),
        quota=document.parsed("store.quota", units.quota),
        min_free=document.parsed("store.min-free", units.size),
        index_urls=_index_urls(document, schemes),
        fetching=fetching(document, environ, schemes),
    )


def of_environment(environ: Mapping[str, str], start: Path) -> Layer:
    """The layer of the ``CAFS_*`` variables; an empty one says nothing, paths start at ``start``.

    Raises:
        SettingsError: a wrong value, naming the variable.
    """

    def said(variable: str, parse: Callable[[str], T]) -> T | None:
        text = environ.get(variable, "")
        return _parsed(ENVIRONMENT, variable, text, parse) if text else None

    mount_point = said("CAFS_MOUNT_POINT", start.joinpath)
    return Layer(
        mount_point=settled(mount_point) if mount_point else None,
        view=said("CAFS_VIEW", _view),
        budget=said("CAFS_BUDGET", units.budget),
        terms=Terms(
            deadline_s=said("CAFS_DEADLINE", units.duration_s),
            on_error=said("CAFS_ON_ERROR", units.on_error),
            pull=said("CAFS_PULL", units.pull),
            verify=said("CAFS_VERIFY", units.verify),
        ),
        store=said("CAFS_STORE", start.joinpath),
        hosts=_hosts(
            ENVIRONMENT,
            "CAFS_ALLOW_HOSTS",
            tuple(filter(None, environ.get("CAFS_ALLOW_HOSTS", "").replace(",", " ").split())),
        ),
        dynamic=said("CAFS_DYNAMIC", units.switch),
        allow_other=said("CAFS_ALLOW_OTHER", units.switch),
        preserve_owner=said("CAFS_PRESERVE_OWNER", units.switch),
        suid=said("CAFS_SUID", units.switch),
        dev=said("CAFS_DEV", units.switch),
        offline=said("CAFS_OFFLINE", units.switch),
        ca_bundle=_bundle(ENVIRONMENT, "CAFS_CA_BUNDLE", said("CAFS_CA_BUNDLE", start.joinpath)),
        look_in=said("CAFS_LOOK_IN", partial(_search_path, start)),
        quota=said("CAFS_QUOTA", units.quota),
        min_free=said("CAFS_MIN_FREE", units.size),
    )


def of_flags(overrides: Overrides, start: Path) -> Layer:
    """The layer of the flags; paths start at ``start``.

    Raises:
        SettingsError: a wrong value, naming the flag.
    """

    def said(flag: str, text: str | None, parse: Callable[[str], T]) -> T | None:
        return None if text is None else _parsed(COMMAND_LINE, flag, text, parse)

    mount_point, store, ca_bundle = overrides.mount_point, overrides.store, overrides.ca_bundle
    limit = said("--limit", overrides.limit, units.rate)
    return Layer(
        mount_point=settled(start / mount_point) if mount_point is not None else None,
        view=said("--view", overrides.view, _view),
        budget=said("--budget", overrides.budget, units.budget),
        terms=Terms(
            deadline_s=said("--deadline", overrides.deadline, units.duration_s),
            on_error=said("--on-error", overrides.on_error, units.on_error),
            pull=said("--pull", overrides.pull, units.pull),
            verify=said("--verify", overrides.verify, units.verify),
        ),
        store=start / store if store is not None else None,
        hosts=_hosts(COMMAND_LINE, "--allow-host", overrides.allow_hosts),
        dynamic=overrides.dynamic,
        allow_other=overrides.allow_other,
        preserve_owner=overrides.preserve_owner,
        suid=overrides.suid,
        dev=overrides.dev,
        offline=overrides.offline,
        ca_bundle=_bundle(
            COMMAND_LINE, "--ca-bundle", start / ca_bundle if ca_bundle is not None else None
        ),
        look_in=tuple(start / folder for folder in overrides.look_in) or None,
        quota=said("--quota", overrides.quota, units.quota),
        min_free=said("--min-free", overrides.min_free, units.size),
        fetching=Fetching(pacing={} if limit is None else {"prefetch_rate": limit.limit}),
    )


def _parsed(source: str, key: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(source, key, str(error)) from error


def _view(text: str) -> str:
    return units.inner_path(text) or "/"


def _mount_point(document: Document, environ: Mapping[str, str]) -> Path | None:
    if document.origin.voice is Voice.MACHINE:
        path = _absolute(document, "mount.path", environ)
        return None if path is None else settled(path)
    text = document.text("mount.path")
    if text is None:
        return None
    return project_mount(document.origin.name, document.directory, text)


def _absolute(document: Document, key: str, environ: Mapping[str, str]) -> Path | None:
    """An absolute path, or one below the user's home that starts with ``~/``."""
    text = document.text(key)
    path = None if text is None else absolute(text, environ)
    if text is not None and path is None:
        raise document.wrong(key, f"{text!r} must be an absolute path", hint="/… or ~/…")
    return path


def _folders(document: Document, key: str, environ: Mapping[str, str]) -> tuple[Path, ...] | None:
    """Several absolute paths, or such below the user's home; None when nothing is said."""
    if not document.has(key):
        return None
    found = [(text, absolute(text, environ)) for text in document.texts(key)]
    for text, path in found:
        if path is None:
            raise document.wrong(key, f"{text!r} must be an absolute path", hint="/… or ~/…")
    return tuple(path for _, path in found if path is not None)


def _index_urls(document: Document, schemes: Collection[str]) -> tuple[str, ...] | None:
    """URLs with a place for a digest in them; None when nothing is said."""
    if not document.has("lock.index-url"):
        return None
    key = "lock.index-url"
    urls = document.one_or_more(key)
    for text in urls:
        if not any(place in text for place in INDEX_PLACES):
            hint = "https://example.com/indexes/{hex}.idx"
            raise document.wrong(key, f"{text!r} has no {{digest}} or {{hex}} in it", hint=hint)
        try:
            url = normalised(index_url(text, EMPTY), schemes=(*SCHEMES, *schemes))
        except CafsError as error:
            raise document.wrong(key, error.what, hint=error.hint) from error
        path = file_path(url)
        if path is not None and document.origin.voice is Voice.PROJECT:
            what = f"{text!r} leads out of the project"
            raise document.wrong(key, what, hint=f"it belongs in {MACHINE_FILES}")
    return urls


def _search_path(start: Path, text: str) -> tuple[Path, ...]:
    """Paths with colons between them, as in PATH; empty ones mean nothing."""
    return tuple(start / each for each in text.split(os.pathsep) if each)


def _bundle(source: str, key: str, path: Path | None) -> Path | None:
    """Look at it now: nobody would be told of it when it is used."""
    if path is None:
        return None
    import ssl  # noqa: PLC0415 - it costs as much as all the rest of the settings

    try:
        ssl.create_default_context(cafile=path)
    except FileNotFoundError as error:
        raise SettingsError(source, key, f"{path}: there is no such file") from error
    except ssl.SSLError as error:
        raise SettingsError(source, key, f"{path}: it holds no certificates in PEM") from error
    except OSError as error:
        raise SettingsError(source, key, f"{path}: {error.strerror}") from error
    return path


def _hosts(source: str, key: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(authority(text) for text in texts)
    except InvalidReferenceError as error:
        raise SettingsError(
            source, key, error.what, hint=error.hint or '"example.com" or "example.com:8443"'
        ) from error
