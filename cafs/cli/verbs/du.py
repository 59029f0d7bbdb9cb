"""``cafs du``: how much of the store each ref has."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.absent import free_bytes, is_absent, told
from cafs.cli.interruptible import run_async
from cafs.cli.saying import aside, say

if TYPE_CHECKING:
    from cafs.settings.values import Settings
    from cafs.store.space.measuring import Measurement, Owner
    from cafs.store.space.room import RoomUsage
    from cafs.store.store import Store


@click.command("du", short_help="Say how much of the store each ref has.")
@click.argument("refs", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All refs that the store knows.")
@options.with_flags("config", "store")
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    everything: bool,
    flags: options.Flags,
    as_json: bool,
) -> int:
    """Say how many bytes the store has for each of REFS: in all, and those that no other ref has.

    REFS are names from cafs.toml (all of them when none is given) or refs written out. Of an
    archive or an image that is its bytes and what they decode to. What is shared is counted once in
    the total, which is what the quota is held against.
    """
    from cafs.cli.completing import complete

    loaded = _loaded(flags, refs)
    if is_absent(loaded.store):
        return _nothing(loaded, refs, as_json=as_json)
    return run_async(_du, loaded, complete(loaded, refs), everything, as_json)


def _loaded(flags: options.Flags, words: tuple[str, ...]) -> "Settings":
    """The settings; where nothing is named, and cafs.lock is wrong, without refs.

    What the project's refs mean is not known then, but what the store has is; why they are not
    named is told on standard error.

    Raises:
        SettingsError: they are wrong, or cafs.lock is, and a ref is named.
    """
    from msgspec.structs import replace

    from cafs.cli.locks.needing import of_refs
    from cafs.settings.broken import Broken, attempt_lock

    if words:
        return flags.load(locked=of_refs(refs=words))
    read = flags.load_project()
    loaded = attempt_lock(read)
    if not isinstance(loaded, Broken):
        return loaded
    aside(f"warning: refs are listed by what the store knows of them: {loaded.why.line}")
    return replace(read.settings, refs=())


def _nothing(loaded: "Settings", words: tuple[str, ...], *, as_json: bool) -> int:
    """Tell that there is no store, and make none."""
    from cafs.cli.choosing import chosen

    specs = chosen(loaded, words) if words or loaded.refs else ()
    if not as_json:
        say(told(loaded.store))
        return 0
    import msgspec

    for spec in specs:
        name = spec.name or spec.ref.shown
        nothing = dict.fromkeys(("bytes", "shared", "unique"), 0)
        say(msgspec.json.encode({"name": name, "digest": None, "meant_ns": None, **nothing}))
    facts = dict.fromkeys(("total", "listed", "other", "quarantine"), 0)
    known = {"quota": loaded.bounds.quota, "free": free_bytes(loaded.store)}
    say(msgspec.json.encode(facts | known))
    return 0


async def _du(loaded: "Settings", words: tuple[str, ...], everything: bool, as_json: bool) -> int:
    import trio

    from cafs.store.store import open_store

    async with open_store(loaded.store, bounds=loaded.bounds) as store:
        found, usage = await trio.to_thread.run_sync(_measured, store, loaded, words, everything)
    _print(found, usage, as_json=as_json)
    return 0


def _measured(
    store: "Store", loaded: "Settings", words: tuple[str, ...], everything: bool
) -> "tuple[Measurement, RoomUsage]":
    from dataclasses import replace

    from cafs.cli.choosing import chosen
    from cafs.cli.mounts.kept import owner_of

    owners: list[Owner] = []
    if words or loaded.refs:
        owners = [owner_of(store, spec) for spec in chosen(loaded, words)]
    if everything or not owners:
        named = {owner.source for owner in owners}
        others = [each for each in store.measurer.known() if each.source not in named]
        owners += sorted(
            (replace(each, name=_name(each)) for each in others), key=lambda each: each.name
        )
    return store.measurer.measure(owners), store.room.usage()


def _name(owner: "Owner") -> str:
    from cafs.store.space.belonging import shown

    return "" if owner.resolved is None else shown(owner.resolved)


def _meant(owner: "Owner") -> dict[str, object]:
    """What a ref meant last, and when that was found, for programs."""
    known = owner.resolved
    digest = None if known is None or known.digest is None else str(known.digest)
    return {"digest": digest, "meant_ns": None if known is None else known.resolved_ns or None}


def _title(owner: "Owner", *, alone: bool) -> str:
    """The name of a ref; with what it meant, and when, where it is not alone with that name."""
    from cafs.store.space.belonging import apart
    from cafs.store.space.findings import when

    if alone or owner.resolved is None:
        return owner.name
    since = when(owner.resolved.resolved_ns)
    return f"{owner.name} ({apart(owner.resolved)}, of {since})"


def _print(found: "Measurement", usage: "RoomUsage", *, as_json: bool) -> None:
    from cafs.cli.sizes import size

    if as_json:
        import msgspec

        for each in found.refs:
            facts: dict[str, object] = {
                "name": each.owner.name,
                **_meant(each.owner),
                "bytes": each.total,
                "shared": each.shared,
                "unique": each.unique,
            }
            say(msgspec.json.encode(facts))
        facts = {"total": found.total, "listed": found.listed, "other": found.other}
        facts |= {"quarantine": usage.quarantine, "quota": usage.quota, "free": usage.free}
        say(msgspec.json.encode(facts))
        return
    often = Counter(each.owner.name for each in found.refs)
    rows = [("ref", "bytes", "shared", "unique")]
    rows += [
        (
            _title(each.owner, alone=often[each.owner.name] == 1),
            size(each.total),
            size(each.shared),
            size(each.unique),
        )
        for each in found.refs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        say("  ".join([f"{row[0]:{widths[0]}}", *padded]))
    bound = "" if usage.quota is None else f" of {size(usage.quota)}"
    say(f"in the store: {size(found.total)}{bound}; of no ref above: {size(found.other)}")
    if usage.quarantine:
        say(f"in quarantine, of that: {size(usage.quarantine)}; cafs gc removes it after a week")
