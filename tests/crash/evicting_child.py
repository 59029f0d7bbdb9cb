"""A process that makes room in a store: until it dies at a chosen step, or for some seconds.

Usage: ``evicting_child.py STORE BOOT ROLE NUMBER``. It prints a line when it begins, and one when
it has done.
"""

import sys
from functools import partial
from pathlib import Path

import trio

from cafs.store.disk import files
from cafs.store.space import choosing, removing
from cafs.store.store import Store, open_store
from cafs.store.tables import uses
from tests.crash.store_child import Deadly, say

ALL = 1 << 40


async def die(store: Store, number: int) -> None:
    """Let go of everything, in parts and as wholes, and die at a step on the way."""
    vars(choosing)["LARGE"] = 1 << 20  # so that ranges go of a small one
    deadly = Deadly(number)
    deadly.lurk()
    vars(removing)["punch"] = partial(deadly, files.punch)  # another step
    await store.evictor.make_room(5 << 20)
    vars(choosing)["LARGE"] = 1 << 40
    await store.evictor.make_room(ALL)
    say("done")


async def go_on(store: Store, seconds: int) -> None:
    """Let go of everything that nobody holds, over and over."""
    vars(choosing)["LARGE"] = 1 << 20
    vars(uses)["JUST_S"] = 0.0
    say("begun")
    freed = 0
    with trio.move_on_after(seconds):
        while True:
            freed += await store.evictor.make_room(ALL)
    say(freed)


ROLES = {"die": die, "go-on": go_on}


async def main(path: str, boot: str, role: str, number: str) -> None:
    async with open_store(Path(path), checkpoint_s=1e6, boot_id=boot) as store:
        await ROLES[role](store, int(number))


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
