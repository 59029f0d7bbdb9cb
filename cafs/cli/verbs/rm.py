"""``cafs rm``: remove refs or blobs from the store, now."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.locks.needing import of_refs
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.cli.mounts.kept import Kept
    from cafs.settings.values import Settings
    from cafs.store.space.dropping import Dropped
    from cafs.store.store import Store


@click.command("rm", short_help="Remove refs or blobs from the store.")
@click.argument("refs", metavar="REF|DIGEST...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also what other refs have.")
@options.with_settings("config", "store", locked=of_refs)
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    force: bool,
    loaded: "Settings",
    as_json: bool,
) -> int:
    """Remove from the store what only REFs have, or blobs by their DIGESTs.

    REFS are names from cafs.toml or refs written out. What other refs have too stays, unless
    --force is given; what is pinned (cafs unpin ends that), or in use now, stays in any case, and
    the exit code is 7. A mount goes on to show what was removed: what is read of it is fetched
    again.
    """
    from cafs.cli.completing import complete

    return run_async(_rm, loaded, complete(loaded, refs), force, as_json)


async def _rm(loaded: "Settings", words: tuple[str, ...], force: bool, as_json: bool) -> int:
    import trio

    from cafs.cli.mounts.kept import kept
    from cafs.store.store import open_store

    code = 0
    wanted = kept(loaded, words)
    async with open_store(loaded.store) as store:
        for each in wanted:
            _check(store, each)
        for each in wanted:
            dropped = await trio.to_thread.run_sync(_drop, store, each, force)
            _print(each, dropped, _showing(store, each), as_json=as_json)
            code = code or _complain(each, dropped)
    return code


def _check(store: "Store", wanted: "Kept") -> None:
    """Refuse what is pinned itself.

    Raises:
        StorageError: it is.
        NotFoundError: no such blob.
    """
    from cafs.cli.mounts.kept import blob_of
    from cafs.errors import StorageError
    from cafs.store.tables.records import hashed

    if wanted.spec is not None:
        pinned = store.pins.has_ref(hashed(wanted.spec.source))
    else:
        pinned = wanted.digest is not None and store.pins.pinned(blob_of(store, wanted.digest))
    if pinned:
        raise StorageError(f"{wanted.name}: pinned", hint=f"cafs unpin {wanted.name}")


def _drop(store: "Store", wanted: "Kept", force: bool) -> "Dropped":
    from cafs.cli.mounts.kept import blob_of, owner_of
    from cafs.errors import StorageError

    try:
        if wanted.spec is not None:
            return store.dropper.drop([owner_of(store, wanted.spec)], [], force=force)
        items = [] if wanted.digest is None else [blob_of(store, wanted.digest)]
        return store.dropper.drop([], items, force=force)
    except OSError as error:
        raise StorageError(f"{wanted.name}: cannot be removed: {error}") from error


def _complain(wanted: "Kept", dropped: "Dropped") -> int:
    """Say what could not be removed of what was asked for; the exit code."""
    from cafs.cli.failing import report
    from cafs.errors import StorageError, UsageError

    if dropped.busy:
        what = f"{wanted.name}: in use now; try again"
        return report(StorageError(what, hint="cafs inflight tells what is fetched"))
    if wanted.spec is None and dropped.shared:
        what = f"{wanted.name}: refs have it"
        return report(UsageError(what, hint=f"cafs rm --force {wanted.name}"))
    return 0


def _showing(store: "Store", wanted: "Kept") -> list[str]:
    """The mount points of live mounts in which a ref has been resolved."""
    from cafs.cli.mounts import live

    if wanted.spec is None:
        return []
    found: list[str] = []
    for each in live.all_mounts().mounts:
        number = store.mounts.number(each.key) if Path(each.store) == store.path else None
        if number is None or not each.alive:
            continue
        if store.mounts.resolved(number, wanted.spec.source) is not None:
            found.append(each.mount_point)
    return found


def _print(wanted: "Kept", dropped: "Dropped", mounts: list[str], *, as_json: bool) -> None:
    from cafs.cli.sizes import size

    if as_json:
        import msgspec

        facts = {
            "name": wanted.name,
            "freed": dropped.freed,
            "shared": dropped.shared,
            "pinned": dropped.pinned,
            "busy": dropped.busy,
            "mounts": mounts,
        }
        say(msgspec.json.encode(facts))
        return
    kept = {"other refs have": dropped.shared, "pinned": dropped.pinned, "in use": dropped.busy}
    left = [f"{size(count)} {why}" for why, count in kept.items() if count]
    say(f"{wanted.name}: {size(dropped.freed)} freed" + "".join(f"; {each}" for each in left))
    for place in mounts:
        say(f"{wanted.name}: {place} goes on to show it; what is read of it is fetched again")
