"""``cafs pin``: say what is never to be removed from the store, or list it."""

from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.locks.needing import of_refs
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.settings.values import Settings
    from cafs.store.space.pinning import Pin
    from cafs.store.store import Store


@click.command("pin", short_help="Keep refs or blobs in the store, whatever room is needed.")
@click.argument("refs", metavar="[REF|DIGEST]...", nargs=-1)
@options.with_settings("config", "store", locked=of_refs)
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    loaded: "Settings",
    as_json: bool,
) -> int:
    """Keep REFs, or blobs by their DIGESTs, in the store; without any, list what is kept so.

    REFS are names from cafs.toml or refs written out. A ref is kept with all that the store has of
    what it meant last, also what comes later; nothing is fetched (cafs prefetch does that). What is
    pinned is neither evicted nor taken by cafs gc or cafs rm, until cafs unpin.
    """
    from cafs.cli.completing import complete

    run_async(_pin if refs else _list, loaded, complete(loaded, refs), as_json)
    return 0


async def _pin(loaded: "Settings", words: tuple[str, ...], as_json: bool) -> None:
    from cafs.cli.mounts.kept import blob_of, kept
    from cafs.store.store import open_store

    wanted = kept(loaded, words)
    async with open_store(loaded.store) as store:
        for each in wanted:
            if each.spec is not None:
                digests = [] if each.spec.integrity is None else [each.spec.integrity]
                await store.pins.pin_ref(each.spec.source, each.name, digests)
            elif each.digest is not None:
                await store.pins.pin(blob_of(store, each.digest), each.name)
        names = {each.name for each in wanted}
        made = [pin for pin in store.pins.all() if pin.record.name in names]
        for pin in made:
            _print(store, pin, as_json=as_json)


async def _list(loaded: "Settings", _words: tuple[str, ...], as_json: bool) -> None:
    from cafs.store.store import open_store

    async with open_store(loaded.store) as store:
        pins = store.pins.all()
        for pin in pins:
            _print(store, pin, as_json=as_json)
    if not pins and not as_json:
        say("nothing is pinned")


def _print(store: "Store", pin: "Pin", *, as_json: bool) -> None:
    from cafs.cli.sizes import size

    items = sorted(store.pins.of(pin))
    count = sum(store.belongings.present(item) for item in items)
    if as_json:
        import msgspec

        facts = {
            "name": pin.record.name,
            "kind": "ref" if pin.item is None else "blob",
            "since_ns": pin.record.since_ns,
            "items": [str(item) for item in items],
            "bytes": count,
        }
        say(msgspec.json.encode(facts))
        return
    say(f"{size(count):>10}  {pin.record.name}")
