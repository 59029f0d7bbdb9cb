"""What ``cafs lock``, ``cafs add`` and ``cafs remove`` say of entries of a lock."""

from typing import TYPE_CHECKING

from cafs.cli.saying import aside, say
from cafs.cli.sizes import size
from cafs.errors import DigestMismatchError

if TYPE_CHECKING:
    from cafs.errors import CafsError
    from cafs.model.spec import RefSpec
    from cafs.settings.lockfile import LockEntry


def title(entry: "LockEntry") -> str:
    """What people call an entry."""
    return f"{entry.name} ({entry.platform})" if entry.platform else entry.name


def tell(entry: "LockEntry", before: "LockEntry | None", as_json: bool, quiet: bool) -> None:
    """Say that a ref is locked, and whether that is new."""
    state = "locked" if before is None else "unchanged" if before == entry else "changed"
    if as_json:
        _facts(entry, state, None if before is None else str(before.digest))
    elif not quiet:
        index = f", index {size(sum(entry.indexes.values()))}" if entry.indexes else ""
        total = size(sum(part.size for part in entry.parts))
        was = f", was {before.digest.short}" if before is not None and state == "changed" else ""
        say(f"{title(entry)}: {state} {entry.digest.short} ({total}{index}{was})")


def tell_gone(entry: "LockEntry", as_json: bool, quiet: bool) -> None:
    """Say that a ref has left the lock."""
    if as_json:
        _facts(entry, "removed", str(entry.digest))
    elif not quiet:
        say(f"{title(entry)}: no longer locked")


def tell_failed(name: str, platform: str, before: "LockEntry | None", why: str) -> None:
    """Say to a program that there is no new entry; people are told why in another form."""
    import msgspec

    facts: dict[str, object] = {
        "name": name,
        "platform": platform or None,
        "state": "failed",
        "digest": None,
        "was": None if before is None else str(before.digest),
        "size": None,
        "indexes": [],
        "why": why,
    }
    say(msgspec.json.encode(facts))


def hinted(error: "CafsError", spec: "RefSpec") -> "CafsError":
    """A failure to lock a ref, with what to do where the settings themselves say what it must be.

    Asking again gives the same then.
    """
    if isinstance(error, DigestMismatchError) and error.expected == spec.integrity:
        error.hint = f"ref.{spec.name}.integrity says so in cafs.toml: change it there, if other "
        error.hint += "content is meant"
    return error


def warn(line: str) -> None:
    """Say something that stops nothing, on standard error."""
    aside(f"warning: {line}")


def _facts(entry: "LockEntry", state: str, was: str | None) -> None:
    import msgspec

    facts = {
        "name": entry.name,
        "platform": entry.platform or None,
        "state": state,
        "digest": None if state == "removed" else str(entry.digest),
        "was": was,
        "size": sum(part.size for part in entry.parts),
        "indexes": [str(part.index) for part in entry.parts if part.index is not None],
        "why": None,
    }
    say(msgspec.json.encode(facts))
