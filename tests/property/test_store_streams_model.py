"""Streams against a model: a bytearray, and a set of the offsets that are present."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hypothesis import given, settings, strategies as st

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.store import Store, open_store

KEY = StreamKey("ab" * 32)
SIZE = 64
Step = tuple[Literal["write", "read", "discard", "checkpoint", "reopen", "admit"], int, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "write", "read", "read", "discard", "checkpoint", "reopen", "admit"]
        ),
        st.integers(0, SIZE),
        st.integers(0, SIZE),
    ),
    max_size=25,
)


@dataclass
class Model:
    """What the stream must be."""

    data: bytearray = field(default_factory=lambda: bytearray(SIZE))
    present: set[int] = field(default_factory=set)
    admitted: bool = False
    written: int = 0

    def write(self, start: int, stop: int) -> bytes:
        self.written += 1
        new = bytes((self.written * 37 + at) % 255 + 1 for at in range(start, stop))
        for at in set(range(start, stop)) - self.present:
            self.data[at] = new[at - start]
            self.present.add(at)
        return new

    def read(self, start: int, stop: int) -> bytes | None:
        return bytes(self.data[start:stop]) if set(range(start, stop)) <= self.present else None

    def spans(self) -> SpanSet:
        return SpanSet(Span(at, at + 1) for at in self.present)


async def step(store: Store, model: Model, action: str, start: int, stop: int) -> None:
    stream = await store.streams.open(KEY, SIZE)
    if action == "write":
        await stream.write(start, model.write(start, stop))
    elif action == "read":
        assert await stream.read(start, stop - start) == model.read(start, stop)
    elif action == "discard" and not model.admitted:
        await stream.discard()
        model.present.clear()
    elif action == "checkpoint":
        await store.checkpoint()
    elif action == "admit" and len(model.present) == SIZE:
        descriptor = await store.blobs.admit(KEY, media_type="", name="model")
        assert descriptor.digest == digest_of(bytes(model.data))
        model.admitted = True
    assert stream.present() == model.spans()


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, whole=st.booleans())
async def test_a_stream_behaves_like_a_bytearray_with_holes(steps: list[Step], whole: bool) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        sessions: list[list[Step]] = [[("write", 0, SIZE)] if whole else []]
        for each in steps:
            if each[0] == "reopen":
                sessions.append([])
            sessions[-1].append(each)
        for session in sessions:
            async with open_store(path) as store:
                for action, one, two in session:
                    await step(store, model, action, min(one, two), max(one, two))
