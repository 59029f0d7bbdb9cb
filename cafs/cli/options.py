"""The flags that stand for settings, and the settings that they amount to with all other sources.

A verb says which flags it takes; it is called with ``loaded``, the finished settings. One that may
need none of the other sources is called with the flags.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from typing_extensions import override

from cafs.cli.locks.needing import always

if TYPE_CHECKING:
    from cafs.settings.broken import Broken
    from cafs.settings.loading import Project
    from cafs.settings.values import Overrides, Settings

_PATH: Final = partial(click.Path, path_type=Path)
_FLAGS: Final[dict[str, click.Option]] = {
    option.name or "": option
    for option in (
        click.Option(
            ["--config"],
            type=_PATH(dir_okay=False),
            help="Project file.  [default: cafs.toml here or above]",
        ),
        click.Option(
            ["--store"],
            type=_PATH(file_okay=False),
            help="Directory of the local store.  [default: cafs/store in the user's cache]",
        ),
        click.Option(
            ["--look-in"],
            type=_PATH(file_okay=False),
            multiple=True,
            help="Look in this store or OCI layout before anything is fetched.",
        ),
        click.Option(["--quota"], metavar="SIZE", help="Let the store have at most this much."),
        click.Option(["--min-free"], metavar="SIZE", help="Leave this much of its disk free."),
        click.Option(["--offline"], is_flag=True, help="Use what is local; ask no source."),
        click.Option(
            ["--deadline"],
            metavar="TIME",
            help="How long a read may go without progress, as '60s'.  [default: 60s]",
        ),
        click.Option(
            ["--pull"],
            metavar="POLICY",
            help="Ask what mutable refs mean: lock, new, update or never.  [default: lock]",
        ),
        click.Option(
            ["--verify"],
            metavar="WHEN",
            help="Check what is pinned before it is read (block), or behind it (provisional)."
            "  [default: block]",
        ),
        click.Option(["--ca-bundle"], type=_PATH(dir_okay=False), help="Certificates to trust."),
        click.Option(["--dynamic"], is_flag=True, help="Allow refs to any host by path."),
        click.Option(
            ["--allow-host", "allow_hosts"],
            multiple=True,
            metavar="HOST[:PORT]",
            help="Allow refs to this host by path.",
        ),
        click.Option(["--view"], metavar="PATH", help="Show this at the root, as 'ref/gcc'."),
        click.Option(["--budget"], metavar="SIZE", help="Fetch at most this much, as '20GiB'."),
        click.Option(
            ["--on-error"],
            metavar="WHAT",
            help="At the deadline: fail, or wait as long as the reader lives.  [default: fail]",
        ),
        click.Option(["--limit"], metavar="RATE", help="Prefetch at most so fast, as '50MiB/s'."),
        click.Option(["--allow-other"], is_flag=True, help="Let other users read the mount."),
        click.Option(["--preserve-owner"], is_flag=True, help="Keep the archives' owners."),
        click.Option(["--suid"], is_flag=True, help="Keep setuid and setgid bits."),
        click.Option(["--dev"], is_flag=True, help="Show device nodes."),
    )
}
SOURCES: Final = ("config", "store", "look_in", "offline", "deadline", "pull", "ca_bundle")
"""Flags of every verb that may fetch."""
ROOM: Final = ("quota", "min_free")
"""Flags of verbs that fill the store, or empty it."""
HOSTS: Final = ("dynamic", "allow_hosts")
"""Flags of verbs that take refs by path."""
MOUNT: Final = (
    *SOURCES,
    *ROOM,
    *HOSTS,
    "view",
    "budget",
    "on_error",
    "verify",
    "allow_other",
    "preserve_owner",
    "suid",
    "dev",
)
"""Flags of verbs that mount."""


class MountPoint(click.ParamType[Path]):
    """A path that is not looked at: who serves what is mounted there may not answer, or be us.

    (``click.Path`` asks for the path's attributes, whatever is wanted of it.)
    """

    name = "path"

    @override
    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        return Path(value)


as_json = click.option("--json", "as_json", is_flag=True, help="Print facts for programs.")
mount_point = click.argument("mount_point", required=False, type=MountPoint())


def with_settings(
    *names: str, locked: Callable[..., bool] = always
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a verb these flags, and ``loaded`` instead of them and of ``mount_point``.

    ``locked`` says, of what the verb is called with, whether that needs cafs.lock.

    Raises (when the verb is called):
        SettingsError: a file, a variable or a flag is wrong; it names which, and the key.
    """

    def decorate(verb: Callable[..., int]) -> Callable[..., int]:
        @with_flags(*names)
        @wraps(verb)
        def wrapper(*, flags: Flags, **values: object) -> int:
            return verb(loaded=flags.load(locked=locked(**values)), **values)

        return wrapper

    return decorate


def with_flags(*names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a verb these flags, and ``flags`` instead of them and of ``mount_point``."""

    def decorate(verb: Callable[..., int]) -> Callable[..., int]:
        @wraps(verb)
        def wrapper(**values: object) -> int:
            given = {name: values.pop(name) for name in names}
            place = values.pop("mount_point", None)
            mount_point = place if isinstance(place, Path) else None
            return verb(flags=Flags(mount_point, given), **values)

        parameters: list[click.Parameter] = [_FLAGS[name] for name in reversed(names)]
        wrapper.__dict__.setdefault("__click_params__", []).extend(parameters)
        return wrapper

    return decorate


@dataclass(frozen=True, slots=True)
class Flags:
    """What a command line says: the mount point, None without one, and flags by their names."""

    mount_point: Path | None
    values: Mapping[str, object]

    @property
    def store(self) -> Path | None:
        """What ``--store`` says, None when it was not given."""
        return self._path("store")

    def place(self) -> Path:
        """The mount point that is given, and no settings are read; else that of the settings.

        Where they name none, or are wrong, it is that of the project's only mount.

        Raises:
            SettingsError, UsageError: none is given, and nothing else tells it.
        """
        from cafs.cli.mounts.choosing import place_of_mount, place_on_record
        from cafs.settings.broken import Broken

        if self.mount_point is not None:
            return place_of(self.mount_point)
        read = self.attempt_project()
        return place_on_record(read) if isinstance(read, Broken) else place_of_mount(read.settings)

    def load(self, *, locked: bool = True) -> "Settings":
        """The settings that these flags amount to with all other sources, as they are now.

        ``locked`` says whether cafs.lock counts.

        Raises:
            SettingsError: a file, a variable or a flag is wrong; it names which, and the key.
            UsageError: the working directory has been removed.
        """
        import os

        from cafs.settings.loading import load_settings

        return load_settings(
            working_directory(),
            project=self._path("config"),
            overrides=self._overrides(),
            environ=os.environ,
            locked=locked,
        )

    def load_project(self) -> "Project":
        """The settings without cafs.lock, and the tables of the project's refs, of one reading.

        Raises:
            SettingsError, UsageError: as ``load``.
        """
        import os

        from cafs.settings.loading import load_project

        return load_project(
            working_directory(),
            project=self._path("config"),
            overrides=self._overrides(),
            environ=os.environ,
        )

    def attempt_project(self) -> "Project | Broken":
        """As ``load_project``; what is wrong with the settings is not raised.

        Raises:
            UsageError: as ``load``.
        """
        import os

        from cafs.settings.broken import attempt_project

        return attempt_project(
            working_directory(),
            project=self._path("config"),
            overrides=self._overrides(),
            environ=os.environ,
        )

    def _overrides(self) -> "Overrides":
        from cafs.settings.values import Overrides

        # A flag that was not given says nothing, so that the other sources are heard.
        said = {name: each for name, each in self.values.items() if each not in (None, False, ())}
        said.pop("config", None)
        return Overrides(
            mount_point=self.mount_point,
            **said,  # type: ignore[arg-type]  # click has made each of them what the field is
        )

    def _path(self, name: str) -> Path | None:
        value = self.values.get(name)
        return value if isinstance(value, Path) else None


def place_of(mount_point: Path) -> Path:
    """A mount point as it was typed, made absolute; what is mounted there is not asked.

    Raises:
        UsageError: it is relative, and the working directory has been removed.
    """
    from cafs.settings.places import settled

    absolute = mount_point.is_absolute()
    return settled(mount_point if absolute else working_directory() / mount_point)


def working_directory() -> Path:
    """Where we are.

    Raises:
        UsageError: it has been removed.
    """
    from cafs.errors import UsageError

    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the working directory has been removed") from error


def as_arguments(context: click.Context) -> list[str]:
    """The flags that stand for settings, as they were given, for a worker's command line."""
    arguments: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name not in _FLAGS or value in (None, False, ()):
            continue
        flag = parameter.opts[0]
        if value is True:
            arguments.append(flag)
        else:
            several = value if isinstance(value, tuple) else (value,)
            arguments += [f"{flag}={each}" for each in several]
    return arguments
