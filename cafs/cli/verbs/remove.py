"""``cafs remove``: take refs out of cafs.toml and cafs.lock."""

import click

from cafs.cli import options
from cafs.cli.verbs.lock import quiet


@click.command("remove", short_help="Take refs out of cafs.toml and cafs.lock.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.with_flags("config")
@quiet
@options.as_json
def command(*, names: tuple[str, ...], flags: options.Flags, quiet: bool, as_json: bool) -> int:
    """Take the refs with these NAMEs out of cafs.toml and cafs.lock, and remove their index files.

    The rest of cafs.toml stays as it is. Nothing leaves the store: cafs gc sees to that. A mount
    that is live shows them until cafs reload.

    With --json: one object a line, for each entry that leaves the lock.
    """
    from functools import partial

    from cafs.cli.locks.lock_files import Changes, project_refs, replace_entries
    from cafs.cli.locks.lock_telling import tell_gone
    from cafs.errors import SettingsError
    from cafs.settings.editing import without_refs
    from cafs.settings.lock_writing import alone, refuse_outside, write_whole
    from cafs.settings.lockfile import lock_file
    from cafs.settings.wishing import project_of

    loaded = flags.load(locked=False)
    file = project_of(loaded)
    refuse_outside(file, file.parent)
    with alone(file):
        try:
            before = file.read_text()
        except OSError as error:
            raise SettingsError(str(file), "", f"cannot be read: {error.strerror}") from error
        write_whole(file, without_refs(before, names, file=file).encode())
    for gone in replace_entries(lock_file(file), Changes(names=partial(project_refs, flags))):
        tell_gone(gone, as_json, quiet)
    return 0
