"""References: the latest meaning of a ref, and those before (R-6)."""

from dataclasses import replace

from cafs.model.digest import digest_of
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.validator import Validator
from cafs.store.store import Store
from cafs.store.tables.references import KEPT

PART = Part(
    media_type="a/b",
    size=5,
    digest=digest_of(b"part", "sha512"),
    urls=("https://example.com/x", "https://mirror.example.org/x"),
    validator=Validator(etag='"e"', last_modified="then", dated=True, size=5, mtime_ns=-1),
    ranges=False,
)
MEANING = Resolved(
    ref="cimd:blob:v=0:x", shape=Shape.TREE, digest=digest_of(b"x"), parts=(PART,), resolved_ns=1
)


async def test_what_is_recorded_is_the_latest(store: Store) -> None:
    assert store.references.latest("key") is None
    await store.references.record("key", MEANING)
    assert store.references.latest("key") == MEANING
    other = replace(MEANING, digest=None, parts=(), resolved_ns=2)
    await store.references.record("key", other)
    assert store.references.latest("key") == other
    assert store.references.history("key") == [MEANING, other]


async def test_keys_do_not_mix(store: Store) -> None:
    await store.references.record("key", MEANING)
    assert store.references.latest("other\nkey" * 100) is None
    assert store.references.history("kex") == []


async def test_the_same_meaning_again_only_moves_its_time(store: Store) -> None:
    await store.references.record("key", MEANING)
    later = replace(MEANING, resolved_ns=99)
    await store.references.record("key", later)
    assert store.references.history("key") == [later]


async def test_history_is_bounded(store: Store) -> None:
    for number in range(KEPT + 10):
        await store.references.record("key", replace(MEANING, ref=str(number)))
    kept = [each.ref for each in store.references.history("key")]
    assert kept == [str(number) for number in range(10, KEPT + 10)]
