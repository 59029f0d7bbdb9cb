"""``cafs add``: name content in cafs.toml, and lock it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from cafs.cli import options
from cafs.cli.verbs.lock import FLAGS, large, parsed_platforms, platforms, quiet

if TYPE_CHECKING:
    from cafs.settings.editing import Facts


@click.command("add", short_help="Name content in cafs.toml, and lock it.")
@click.argument("name")
@click.argument("source", metavar="FROM")
@options.with_flags(*FLAGS)
@click.option("--integrity", metavar="DIGEST", help="What the content must be, as 'sha256:…'.")
@click.option("--strip", type=click.IntRange(min=0), help="Leading path components to remove.")
@click.option("--subdir", metavar="PATH", help="The directory inside that is to be its root.")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="Another URL of the same.")
@platforms
@click.option("--no-lock", is_flag=True, help="Write cafs.toml only; nothing is fetched.")
@large
@quiet
@options.as_json
def command(
    *,
    name: str,
    source: str,
    flags: options.Flags,
    integrity: str | None,
    strip: int | None,
    subdir: str | None,
    mirrors: tuple[str, ...],
    platforms: tuple[str, ...],
    no_lock: bool,
    large: Path | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Write [ref.NAME] with this FROM into cafs.toml, and lock it: all of it is read once.

    FROM is a ref written out: docker://…, https://…, file:PATH. cafs.toml is the nearest one here
    or above; without one it is made here. When the content cannot be had, nothing is written. With
    one --platform an image is that of this platform everywhere; with several it is locked for each,
    and every machine takes its own.

    \b
    cafs add gcc https://example.com/gcc-13.tar.gz --strip 1
    cafs add base docker://registry.example.com/debian:bookworm
    cafs add tool https://example.com/tool --integrity sha256:…

    With --json: what cafs lock prints for the ref.
    """
    from cafs.cli.interruptible import in_order
    from cafs.cli.locks.lock_making import Order, make

    wanted = parsed_platforms(platforms)
    alone = wanted[0] if len(wanted) == 1 else None
    file = _project_file(flags)
    facts: dict[str, str | int | list[str]] = {"from": _from(source, file.parent)}
    facts |= {} if integrity is None else {"integrity": integrity}
    facts |= {} if strip is None else {"strip": strip}
    facts |= {} if subdir is None else {"subdir": subdir}
    facts |= {"mirrors": list(mirrors)} if mirrors else {}
    facts |= {} if alone is None else {"platform": str(alone)}
    order = Order(
        names=(name,),
        platforms=() if alone is not None else wanted,
        large=large,
        quiet=quiet,
        as_json=as_json,
        together=True,
    )
    with in_order():
        before, after = _write(flags, file, name, facts)
        locked = no_lock
        try:
            code = 0 if no_lock else make(flags, order)
            locked = code == 0
        finally:
            if not locked:
                _take_back(file, name, facts, before, after)
    if locked and not quiet and not as_json:
        _tell_where(file, name, new=before is None)
    return code


def _tell_where(file: Path, name: str, *, new: bool) -> None:
    """Say which file has the ref now, where it is not the one that is before everybody's eyes."""
    from cafs.cli.saying import say

    if new:
        say(f"{name}: in {file}, which is new")
    elif file.parent != options.working_directory():
        say(f"{name}: in {file}")


def _project_file(flags: options.Flags) -> Path:
    """The project's file, which may not be there yet."""
    from cafs.settings.places import PROJECT_FILE, find_project

    here = options.working_directory()
    said = flags.values.get("config") or os.environ.get("CAFS_CONFIG")
    if said:
        return here / str(said)
    return find_project(here) or here / PROJECT_FILE


def _from(source: str, project: Path) -> str:
    """What is written into the file: a relative path is relative to that, and not to where we are.

    What is no ref stays as it is: the settings say why.
    """
    scheme, _, rest = source.partition(":")
    here = options.working_directory()
    if scheme.rpartition("+")[2] != "file" or rest.startswith("/") or here == project:
        return source
    return f"{scheme}:{quote(os.path.relpath(here / rest, project), safe='/%')}"


def _write(flags: options.Flags, file: Path, name: str, facts: "Facts") -> tuple[str | None, str]:
    """Write the ref into the file; what was there, None for nothing, and what is there now.

    Raises:
        SettingsError: the name is in use, or something that is said of the ref is wrong.
    """
    from cafs.settings.editing import with_ref
    from cafs.settings.lock_writing import alone, refuse_outside, write_whole

    refuse_outside(file, file.parent)
    schemes = _schemes(flags, file)
    with alone(file):
        before = file.read_text() if file.exists() else None
        after = with_ref(before or "", name, facts, file=file)
        _check(after, file, schemes)
        write_whole(file, after.encode())
    return before, after


def _schemes(flags: options.Flags, file: Path) -> frozenset[str]:
    """Those of plugins, which the settings as they are enable; a wrong file is told of now."""
    if file.exists():
        return flags.load(locked=False).schemes
    values = {name: each for name, each in flags.values.items() if name != "config"}
    return options.Flags(None, values).load(locked=False).schemes


def _check(text: str, file: Path, schemes: frozenset[str]) -> None:
    """Refuse what the settings would refuse, before it is written."""
    import tomllib

    from cafs.settings.document import Document
    from cafs.settings.naming import drafts
    from cafs.settings.schema import Origin, Voice

    origin = Origin(str(file), Voice.PROJECT)
    drafts(Document(tomllib.loads(text), origin=origin, directory=file.parent), schemes)


def _take_back(file: Path, name: str, facts: "Facts", before: str | None, after: str) -> None:
    """Undo it; what others have written there since stays, and where we cannot, it is said so."""
    from cafs.cli.locks.lock_telling import warn
    from cafs.errors import CafsError
    from cafs.settings.lock_writing import alone

    try:
        with alone(file):
            _restore(file, name, facts, before, after)
    except CafsError as error:
        why = error.line
    except OSError as error:
        why = f"{error.filename or file}: {error.strerror}"
    except UnicodeDecodeError:
        why = f"{file} is no UTF-8 any more"
    else:
        return
    # Why it is undone is more than that it is not: this must not be told instead.
    warn(f"ref.{name} was not taken out again: {why}")


def _restore(file: Path, name: str, facts: "Facts", before: str | None, after: str) -> None:
    """A ref that somebody has changed since is theirs. A file in which nothing is left goes."""
    from cafs.settings.editing import without_added
    from cafs.settings.lock_writing import write_whole

    if not file.exists():
        return
    text, old = file.read_text(), before or ""
    rest: str | None = old
    if text != after:
        rest = without_added(text, name, facts, after[len(old) :], file=file)
    if rest is None:
        return
    if not rest.strip() and (before is None or before.strip()):
        file.unlink()
    else:
        write_whole(file, rest.encode())
