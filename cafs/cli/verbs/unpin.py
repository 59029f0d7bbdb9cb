"""``cafs unpin``: let what was pinned be removed again when room is needed."""

from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.locks.needing import of_refs
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.cli.mounts.kept import Kept
    from cafs.settings.values import Settings
    from cafs.store.store import Store


@click.command("unpin", short_help="Undo cafs pin.")
@click.argument("refs", metavar="REF|DIGEST...", nargs=-1, required=True)
@options.with_settings("config", "store", locked=of_refs)
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    loaded: "Settings",
    as_json: bool,
) -> int:
    """Let REFs, or blobs by their DIGESTs, be removed from the store again when room is needed.

    Nothing is removed by this: cafs gc and cafs rm do that. What cafs pin lists can be unpinned by
    the name that it has there.
    """
    from cafs.cli.completing import complete

    run_async(_unpin, loaded, complete(loaded, refs), as_json)
    return 0


async def _unpin(loaded: "Settings", words: tuple[str, ...], as_json: bool) -> None:
    from cafs.errors import NotFoundError
    from cafs.store.store import open_store

    async with open_store(loaded.store) as store:
        for word in words:
            name = await _end(store, loaded, word)
            if name is None:
                raise NotFoundError(f"{word}: not pinned", hint="cafs pin lists what is")
            if as_json:
                import msgspec

                say(msgspec.json.encode({"unpinned": name}))
            else:
                say(f"{name}: not pinned any more")


async def _end(store: "Store", loaded: "Settings", word: str) -> str | None:
    """End the pins that a word means; the name of what was pinned, None when nothing was.

    A ref that cafs.toml has no more is known by its name in the list, while only one has that.
    """
    from cafs.cli.mounts.kept import kept
    from cafs.errors import NotFoundError

    called = [pin for pin in store.pins.all() if pin.record.name == word]
    try:
        [meant] = kept(loaded, [word])
    except NotFoundError:
        if len(called) != 1:
            raise
    else:
        if await _ended(store, meant):
            return meant.name
    if len(called) != 1:
        return None
    return word if await store.pins.end(called[0]) else None


async def _ended(store: "Store", meant: "Kept") -> bool:
    from cafs.model.item import Item

    if meant.spec is not None:
        return await store.pins.unpin_ref(meant.spec.source)
    known = None if meant.digest is None else store.blobs.stat(meant.digest)
    return known is not None and await store.pins.unpin(Item.blob(known.digest))
