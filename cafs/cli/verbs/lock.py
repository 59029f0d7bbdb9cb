"""``cafs lock``: write down which bytes the refs of cafs.toml mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options

if TYPE_CHECKING:
    from cafs.model.spec import Platform

FLAGS: Final = ("config", "store", "look_in", "offline", "deadline", "ca_bundle", *options.ROOM)
"""Flags of the verbs that lock."""
large = click.option(
    "--large",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write index files above 4 MiB there, to be put where lock.index-url says.",
)
platforms = click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="OS/ARCH",
    help="Lock images for this platform too, as 'linux/arm64'.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")


@click.command("lock", short_help="Write down which bytes the refs mean; check that; compare.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.with_flags(*FLAGS)
@click.option("--upgrade", is_flag=True, help="Ask again what is locked already.")
@click.option("--check", is_flag=True, help="Only say whether cafs.lock matches cafs.toml.")
@click.option(
    "--full",
    is_flag=True,
    help="With --check: compare the bytes too; fetches what the store lacks.",
)
@click.option(
    "--diff",
    nargs=2,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OLD NEW",
    help="Say what differs between two lock files, down to single files.",
)
@platforms
@large
@quiet
@options.as_json
def command(
    *,
    names: tuple[str, ...],
    flags: options.Flags,
    upgrade: bool,
    check: bool,
    full: bool,
    diff: tuple[Path, Path] | None,
    platforms: tuple[str, ...],
    large: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Write down in cafs.lock which bytes the refs of cafs.toml mean: all, or those with NAMEs.

    What is not locked yet, or was locked for other settings, is asked for and read whole, once, so
    that everybody else can read it lazily and checked from the first byte. What is locked stays as
    it is, unless --upgrade is given. Refs that have gone from cafs.toml leave the lock. Commit
    cafs.toml, cafs.lock and cafs.lock.d together.

    \b
    cafs lock                      lock what is not locked
    cafs lock --upgrade base       see what the tag means now
    cafs lock --check              0: the lock matches; 2: it does not; asks nobody
    cafs lock --check --full       compare the bytes too; 4: they are others
    git show HEAD:cafs.lock >old.lock; cafs lock --diff old.lock cafs.lock

    With --full nobody is asked for what the store has. To see whether the sources still have it,
    give --store an empty directory.

    With --json: one object a line, for each entry.
    """
    from cafs.errors import UsageError

    if full and not check:
        raise UsageError("--full goes with --check", hint="cafs lock --check --full")
    if diff is not None:
        if names or upgrade or check or platforms or large:
            raise UsageError("--diff compares two files, and takes nothing else")
        from cafs.cli.locks.lock_diff import show

        return show(flags.load(locked=False), *diff, as_json=as_json)
    wanted = parsed_platforms(platforms)
    if check:
        if upgrade or large:
            other = "--upgrade" if upgrade else "--large"
            raise UsageError(
                f"--check and {other} exclude each other: --check changes nothing",
                hint="leave one of them out",
            )
        from cafs.cli.locks.lock_checking import check as run_check

        return run_check(flags, names, wanted, full=full, quiet=quiet, as_json=as_json)
    from cafs.cli.locks.lock_making import Order, make

    order = Order(
        names=names, platforms=wanted, upgrade=upgrade, large=large, quiet=quiet, as_json=as_json
    )
    return make(flags, order)


def parsed_platforms(texts: tuple[str, ...]) -> "tuple[Platform, ...]":
    """The platforms that were named.

    Raises:
        UsageError: one of them is none.
    """
    from cafs.errors import UsageError
    from cafs.settings import units

    try:
        return tuple(units.platform(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from error
