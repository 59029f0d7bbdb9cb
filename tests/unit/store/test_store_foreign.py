"""Something else lies where a file of the store should: nobody waits for it, the rest goes on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.errors import NotFoundError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.health.checking import Found
from cafs.store.health.verifying import Adopted, Scope
from cafs.store.store import Store

pytestmark = pytest.mark.expects_log("store.foreign|store.(stream|blob).(damaged|missing)")

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)
DATA = os.urandom(300_000)


def directory(path: Path) -> None:
    path.mkdir()
    (path / "theirs").write_text("something")


def link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(DATA)
    path.symlink_to(target)


THINGS = [directory, link, os.mkfifo]


async def blob(store: Store, key: StreamKey, data: bytes) -> Digest:
    stream = await store.streams.open(key, len(data))
    await stream.write(0, data)
    return (await store.blobs.admit(key, media_type="a/b", name="x")).digest


def blob_path(store: Store, digest: Digest) -> Path:
    return store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


async def verified(store: Store) -> list[Found]:
    found: list[Found] = []
    await store.verifier.verify(Scope(), found=found.append, report=lambda _: None)
    return found


@pytest.mark.parametrize("put", THINGS)
async def test_in_the_place_of_a_blob_it_is_damage_of_that_blob_and_is_put_aside(
    store: Store, put: Callable[[Path], None]
) -> None:
    digest, good = await blob(store, KEY, DATA), await blob(store, OTHER, DATA[::-1])
    path = blob_path(store, digest)
    path.unlink()
    put(path)
    assert store.blobs.stat(digest) is None
    [found] = await verified(store)
    assert (found.item, found.what) == (Item.blob(digest), "what lies in its place is no file")
    assert path not in path.parent.iterdir()
    [aside] = (store.path / "quarantine").iterdir()
    assert aside.name.endswith(path.name)
    assert await store.blobs.read(good, 0, 10) == DATA[::-1][:10]


@pytest.mark.parametrize("put", THINGS)
@pytest.mark.parametrize("small", [False, True])
async def test_who_brings_the_blob_anew_puts_it_aside(
    store: Store, put: Callable[[Path], None], *, small: bool
) -> None:
    data = DATA[:1000] if small else DATA
    digest = await blob(store, KEY, data)
    path = blob_path(store, digest)
    path.unlink()
    put(path)
    with pytest.raises(NotFoundError):
        await store.blobs.read(digest, 0, 10)
    if small:
        taken = await store.blobs.take(OTHER, data, media_type="a/b", claims=[digest], name="x")
        assert taken is not None
    else:
        assert await blob(store, OTHER, data) == digest
    assert await store.blobs.read(digest, 0, len(data)) == data
    assert await verified(store) == []


@pytest.mark.parametrize("put", THINGS)
async def test_in_the_place_of_a_stream_its_bytes_are_absent_and_it_is_filled_again(
    store: Store, put: Callable[[Path], None]
) -> None:
    for check in (False, True):
        stream = await store.streams.open(KEY, len(DATA))
        await stream.write(0, DATA)
        [path] = store.path.glob(f"streams/*/{KEY}.*")
        path.unlink()
        put(path)
        if check:
            assert [each.item for each in await verified(store)] == [Item.stream(KEY)]
        assert await stream.read(0, 10) is None
        assert not stream.present()
        await stream.write(0, DATA)
        assert await stream.read(0, len(DATA)) == DATA
        await stream.discard()
        for left in path.parent.iterdir():
            left.unlink() if not left.is_dir() else left.rename(store.path / f"moved-{check}")


@pytest.mark.parametrize("put", THINGS)
async def test_beside_the_blobs_it_is_told_and_left_alone(
    store: Store, put: Callable[[Path], None]
) -> None:
    digest = await blob(store, KEY, DATA)
    path = blob_path(store, digest).with_name("not ours")
    put(path)
    path.with_name("target").unlink(missing_ok=True)
    assert await store.verifier.adopt() == Adopted(0, 0, (path,))
    assert await verified(store) == []
    assert path in path.parent.iterdir()
