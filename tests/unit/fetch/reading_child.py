"""A process that reads: ``python reading_child.py STORE URL DIGEST SIZE WHAT``.

WHAT is ``pin`` (read a blob whole), ``range`` (read located content) or ``plant``. It says
``ready``, waits for a line, does it, and says what it received, and the sha256 or the tree's
number.
"""

import sys
from pathlib import Path

import trio

from cafs.fetch.interfaces import Content, Patience, Source
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.digest import Digest, Hasher
from cafs.model.resolved import Part
from cafs.model.validator import UNKNOWN_VERSION, Validator
from cafs.store.store import open_store
from cafs.transport.http import HttpTransport
from cafs.transport.metering import Metering

_PATIENCE = Patience(20.0)


async def hashed(content: Content) -> str:
    """The sha256 of the content as it is read."""
    hasher = Hasher()
    while data := await content.read(hasher.size, 256 << 10, _PATIENCE):
        hasher.update(data)
    return hasher.digest().hex


async def main(store_path: str, url: str, digest: str, size: str, what: str) -> None:
    """Do it."""
    metrics = Metrics()
    transport = Metering(HttpTransport(), metrics)
    part = Part(
        media_type="x/y",
        size=int(size),
        digest=None if what == "range" else Digest.parse(digest),
        urls=(url,),
        validator=Validator(etag=digest) if what == "range" else UNKNOWN_VERSION,
    )
    async with open_store(Path(store_path)) as store, open_fetcher(store, metrics) as fetcher:
        content = await fetcher.content(part, [Source(transport, url)], name=url)
        print("ready", flush=True)  # noqa: T201 - it talks to the test
        await trio.to_thread.run_sync(sys.stdin.readline)
        if what == "plant":
            record = await fetcher.plant(content, name=url, media_type="", patience=_PATIENCE)
            found = str(record.number)
        else:
            found = await hashed(content)
        print(metrics["fetch.bytes"], found, flush=True)  # noqa: T201
    await transport.aclose()


if __name__ == "__main__":
    store_, url_, digest_, size_, what_ = sys.argv[1:]
    trio.run(main, store_, url_, digest_, size_, what_)
