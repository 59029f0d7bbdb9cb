"""Options that several verbs share, and the settings that they amount to."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from cafs.settings.values import Settings

F = TypeVar("F", bound=Callable[..., object])

config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Project file.  [default: cafs.toml here or above]",
)
store = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the local store.  [default: cafs/store in the user's cache directory]",
)
offline = click.option("--offline", is_flag=True, help="Use what is local; ask no source.")
dynamic = click.option(
    "--dynamic", is_flag=True, help="Allow refs to any host by path, not just to configured ones."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print facts for programs.")


def common(function: F) -> F:
    """``--config``, ``--store`` and ``--offline``."""
    return config(store(offline(function)))


def settings(
    *,
    config_file: Path | None,
    store_path: Path | None,
    offline_only: bool,
    mount_point: Path | None = None,
    view: str | None = None,
    any_host: bool = False,
    allow_other: bool = False,
    preserve_owner: bool = False,
    suid: bool = False,
    dev: bool = False,
) -> "Settings":
    """Load what the files, the environment and these flags say together.

    Raises:
        SettingsError: any of them is wrong; it names the file and the key.
    """
    import os

    from cafs.settings.loading import load_settings
    from cafs.settings.values import Overrides

    return load_settings(
        Path.cwd(),
        project=config_file,
        overrides=Overrides(
            mount_point=mount_point,
            view=view,
            store=store_path,
            offline=offline_only or None,
            dynamic=any_host or None,
            allow_other=allow_other or None,
            preserve_owner=preserve_owner or None,
            suid=suid or None,
            dev=dev or None,
        ),
        environ=os.environ,
    )
