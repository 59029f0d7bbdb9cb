"""A process that keeps a mount, or many one after the other. ``mounting_child.py STORE ROLE …``.

``keep KEY [FD]``: opens the mount, lends its lease to the socket FD, sets as its settings what has
been spent so far, says in one JSON line what it shows and what the settings were, and stays until
it is killed. ``churn COUNT``: opens so many mounts, sweeping while each is
open, and says how many it found swept away under it; it dawdles wherever a lease is touched.
"""

import json
import random
import socket
import sys
import time
from pathlib import Path

import trio

from cafs.errors import NotFoundError
from cafs.model.resolved import Resolved, Shape
from cafs.store.disk.locking import flock
from cafs.store.holds import leases
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key


def say(word: object) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


async def keep(store: Store, key: str, lender: int | None) -> None:
    mount = await store.mounts.open(key, "kept")
    lease = store.mounts.lease(mount)
    if lender is not None and lease is not None:
        with socket.socket(fileno=lender) as channel:
            socket.send_fds(channel, [b"L"], [lease.fileno()])
    tree = await store.attachments.attach(mount, "ref/a/", count=1000, tree=7)
    shown = await store.attachments.attach(mount, ".cafs/status.json", content=b"{}", replace=True)
    before = store.attachments.find(mount, shown.first - 1)
    meaning = Resolved(
        ref=f"asked {mount}", shape=Shape.FILE, digest=None, parts=(), resolved_ns=shown.first
    )
    settled = await store.mounts.resolve(mount, "key", meaning)
    spent = await store.mounts.spend(mount, 10)
    settings = store.mounts.settings(mount)
    await store.mounts.set_settings(mount, b"%d" % spent)
    say(
        {
            "mount": mount,
            "took": lease is not None,
            "tree": tree.first,
            "snapshot": shown.first,
            "before": "" if before is None else before.path,
            "settled_ns": settled.resolved_ns,
            "spent": spent,
            "settings": None if settings is None else settings.decode(),
        }
    )
    await trio.sleep_forever()


def dawdle(descriptor: int, *, exclusive: bool, wait: bool) -> bool:
    time.sleep(random.random() / 500)
    held = flock(descriptor, exclusive=exclusive, wait=wait)
    time.sleep(random.random() / 500)
    return held


async def churn(store: Store, count: int) -> None:
    leases.flock = dawdle  # type: ignore[attr-defined] # what the module itself calls
    lost = 0
    for _ in range(count):
        mount = await store.mounts.open(new_key(), "short")
        await store.mounts.sweep()
        try:
            await store.attachments.attach(mount, "ref/a")
        except NotFoundError:
            lost += 1
        await store.mounts.remove(mount)
    say(lost)


async def main(path: Path, *words: str) -> None:
    role, *rest = words
    async with open_store(path, boot_id="first") as store:
        if role == "churn":
            await churn(store, int(rest[0]))
        else:
            await keep(store, rest[0], int(rest[1]) if len(rest) > 1 else None)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), *sys.argv[2:])
