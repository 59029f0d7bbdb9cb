"""A process with an open store is killed: nothing recorded is lost, nothing wrong is served."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.store import Store, open_store

pytestmark = pytest.mark.crash
CHILD = Path(__file__).with_name("store_child.py")
STEPS = 200


def load_child() -> ModuleType:
    spec = importlib.util.spec_from_file_location("store_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


child = load_child()
KEY: StreamKey = child.KEY
SIZE: int = child.SIZE
PIECE: int = child.PIECE


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, CHILD, path, "first", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def copies(path: Path) -> Iterator[tuple[Path, str]]:
    """The store as the process left it, on this boot and on the next."""
    other = path.with_name(f"{path.name}-next")
    shutil.copytree(path, other, ignore=shutil.ignore_patterns("ballast", "lock.mdb"))
    yield path, "first"
    yield other, "next"


@pytest.mark.parametrize("pieces", [1, 17, 100])
def test_kill_9_loses_no_recorded_span(tmp_path: Path, pieces: int) -> None:
    process = start(tmp_path / "s", "write", str(pieces))
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(pieces)]
    kill(process)

    async def check() -> None:
        async with open_store(tmp_path / "s", boot_id="first") as store:
            stream = store.streams.find(KEY)
            assert stream is not None
            for offset in said:
                assert await stream.read(offset, PIECE) == child.content(offset, PIECE)
            await only_right_bytes(store)

    trio.run(check)


def test_a_power_cut_loses_only_what_was_not_checkpointed(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def before() -> None:
        async with open_store(path, boot_id="zeroth") as store:
            stream = await store.streams.open(KEY, SIZE)
            await stream.write(0, child.content(0, 3 * PIECE))

    async def after() -> None:
        async with open_store(path, boot_id="second") as store:
            stream = store.streams.find(KEY)
            assert stream is not None
            assert stream.present() == SpanSet([Span(0, 3 * PIECE)])
            await only_right_bytes(store)

    trio.run(before)
    process = start(path, "write", "5")
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    kill(process)
    trio.run(after)


@pytest.mark.parametrize("lines", [8, 30, 100, 255])
def test_a_power_cut_that_leaves_zeros_for_what_was_not_synced_serves_none(
    tmp_path: Path, lines: int
) -> None:
    """What no checkpoint has seen is zeros afterwards, in a file that has its whole length."""
    process = start(tmp_path / "s", "checkpoint", str(lines))
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(lines)]
    kill(process)
    last = max((at for at, line in enumerate(said) if line == "kept"), default=0)
    kept = [int(line) for line in said[:last] if line != "kept"]

    async def zeroed() -> SpanSet:
        """Lose what may be lost: on another boot nothing else is present."""
        shutil.copytree(tmp_path / "s", tmp_path / "look")
        async with open_store(tmp_path / "look", boot_id="second") as store:
            stream = store.streams.find(KEY)
            assert stream is not None
            synced = stream.present()
        for path in stream_files(tmp_path / "s"):
            with path.open("r+b") as file:
                for gap in synced.missing(Span(0, SIZE)):
                    file.seek(gap.start)
                    file.write(bytes(gap.length))
        return synced

    async def check(synced: SpanSet) -> None:
        async with open_store(tmp_path / "s", boot_id="second") as store:
            stream = store.streams.find(KEY)
            assert stream is not None
            assert stream.present() == synced
            for offset in range(0, SIZE, PIECE):
                data = await stream.read(offset, PIECE)
                assert data in {None, child.content(offset, PIECE)}
                assert data is not None or offset not in kept

    trio.run(check, trio.run(zeroed))


async def only_right_bytes(store: Store) -> None:
    """Whatever is present is what was written."""
    stream = store.streams.find(KEY)
    for span in () if stream is None else stream.present():
        assert stream is not None
        assert await stream.read(span.start, span.length) == child.content(span.start, span.length)


def stream_files(path: Path) -> list[Path]:
    return list(path.glob("streams/*/*"))


def sweep(tmp_path: Path, role: str, prepared: Path) -> Iterator[tuple[Path, list[str]]]:
    """Stores after a child died at the first step, the second, and so on, with what it said."""
    with forking() as forks:
        for number in range(1, STEPS):
            path = tmp_path / f"{role}-{number}"
            shutil.copytree(prepared, path, ignore=shutil.ignore_patterns("lock.mdb"))
            code, said = forked(forks, f"{path} first {role} {number}")
            assert code in {0, -9}, said
            yield path, said
            if code == 0:
                assert "done" in said
                assert number > 5
                return
    pytest.fail(f"{role} takes more than {STEPS} steps")


@contextmanager
def forking() -> Iterator[subprocess.Popen[str]]:
    """A child that has imported everything, and forks those that die."""
    with subprocess.Popen(
        [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def forked(forks: subprocess.Popen[str], line: str) -> tuple[int, list[str]]:
    """How a process ended, and the words that it said."""
    assert forks.stdin is not None
    assert forks.stdout is not None
    forks.stdin.write(f"{line}\n")
    forks.stdin.flush()
    said: list[str] = []
    while words := forks.stdout.readline().split():
        if words[0] == "exit":
            return int(words[1]), said
        said += words
    raise AssertionError(f"the child that forks has ended: {said}")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A store with a blob and a tree, as the children expect it."""
    path = tmp_path / "prepared"

    async def prepare() -> None:
        async with open_store(path, boot_id="first") as store:
            writer = await store.blobs.create()
            await writer.write(child.FORMER)
            await writer.commit(None, None)
            await trio.to_thread.run_sync(child.write_tree, store, b"old")

    trio.run(prepare)
    (path / "ballast").unlink()
    return path


def test_killed_at_any_step_of_an_admission_the_store_serves_nothing_wrong(
    tmp_path: Path, prepared: Path
) -> None:
    data = child.content(0, PIECE)
    digest = digest_of(data)

    async def check(path: Path, boot: str, written: bool) -> None:
        async with open_store(path, boot_id=boot) as store:
            await only_right_bytes(store)
            if written and boot == "first":
                found = store.streams.find(KEY)
                assert found is not None
                assert await found.read(0, PIECE) == data
            if store.blobs.stat(digest) is not None:
                assert await store.blobs.read(digest, 0, PIECE) == data
            former = digest_of(child.FORMER)
            if store.blobs.stat(former) is not None:
                assert await store.blobs.read(former, 0, 100) == child.FORMER
            stream = await store.streams.open(KEY, PIECE)
            await stream.write(0, data)
            await store.blobs.admit(KEY, media_type="", claims=[digest], name="x")
            assert await store.blobs.read(digest, 0, PIECE) == data
            assert await stream.read(0, PIECE) == data
        async with open_store(path, boot_id=boot):
            assert stream_files(path) == []

    for path, said in sweep(tmp_path, "admit", prepared):
        for each, boot in copies(path):
            trio.run(check, each, boot, "written" in said)


def test_killed_at_any_step_of_taking_small_content_it_is_there_or_can_be_taken_again(
    tmp_path: Path, prepared: Path
) -> None:
    data = child.content(0, PIECE)

    async def check(path: Path, boot: str, done: bool) -> None:
        async with open_store(path, boot_id=boot) as store:
            for key, body in ((KEY, data), (child.OTHER, data[1:])):
                digest = digest_of(body)
                found = store.blobs.stat(digest)
                assert (found is None) == (store.streams.find(key) is None)
                assert found is not None or not done
                if found is None:
                    assert await store.blobs.take(
                        key, body, media_type="", claims=[digest], name="x"
                    )
                assert await store.blobs.read(digest, 0, PIECE) == body

    for path, said in sweep(tmp_path, "take", prepared):
        for each, boot in copies(path):
            trio.run(check, each, boot, "done" in said)


def test_killed_at_any_step_of_a_refusal_the_wrong_bytes_are_no_blob(
    tmp_path: Path, prepared: Path
) -> None:
    data = child.content(0, PIECE)
    digest = digest_of(data)
    wrong = digest_of(child.content(1, PIECE))

    async def check(path: Path, boot: str) -> None:
        async with open_store(path, boot_id=boot) as store:
            assert store.blobs.stat(digest) is None
            assert store.blobs.stat(wrong) is None
            stream = store.streams.find(KEY)
            if stream is not None:
                await stream.discard()
            stream = await store.streams.open(KEY, PIECE)
            await stream.write(0, data)
            admitted = await store.blobs.admit(KEY, media_type="", claims=[digest], name="x")
            assert admitted.digest == digest

    for path, _ in sweep(tmp_path, "refuse", prepared):
        for each, boot in copies(path):
            trio.run(check, each, boot)


def test_killed_at_any_step_of_planting_the_tree_is_the_old_one_or_the_new(
    tmp_path: Path, prepared: Path
) -> None:
    seen: set[bytes] = set()

    async def check(path: Path, boot: str) -> None:
        async with open_store(path, boot_id=boot) as store:
            found = store.trees.find(child.TREE)
            assert found is not None
            names = [entry.name for _, entry in store.trees.children(found.number, 0, None, 9)]
            word = names[0][:3]
            assert names == [word + b"%d" % number for number in range(3)]
            seen.add(word)
            with trio.fail_after(60):
                while store.trees.unpublished():  # noqa: ASYNC110 - gone in the background
                    await trio.sleep(0.001)
            index = store.trees._index
            with index.read() as snapshot:
                entries = list(snapshot.scan(index.table("entries"), b"", b"\xff" * 20))
            assert len(entries) == found.count

    for path, _ in sweep(tmp_path, "plant", prepared):
        for each, boot in copies(path):
            trio.run(check, each, boot)
    assert seen == {b"old", b"new"}


class Other:
    """Another process that uses the store."""

    def __init__(self, path: Path) -> None:
        self._process = start(path, "answer")

    def ask(self, verb: str, start: int = 0, stop: int = 0) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{verb} {start} {stop}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        kill(self._process)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    process = Other(tmp_path / "s")
    yield process
    process.kill()


async def test_two_processes_see_each_others_spans(tmp_path: Path, other: Other) -> None:
    async with open_store(tmp_path / "s", boot_id="first") as store:
        stream = await store.streams.open(KEY, SIZE)
        assert other.ask("write", 0, 100) == "written"
        assert await stream.read(0, 100) == child.content(0, 100)
        await stream.write(100, child.content(100, 100))
        assert other.ask("read", 0, 200) == "True"
        assert other.ask("read", 0, 201) == "absent"
        await store.checkpoint()
        assert other.ask("read", 0, 200) == "True"
        await stream.discard()
        assert other.ask("read", 0, 1) == "absent"
        assert other.ask("write", 5, 10) == "written"
        assert await stream.read(5, 5) == child.content(5, 5)


async def test_locks_exclude_between_processes_and_go_with_them(
    tmp_path: Path, other: Other
) -> None:
    async with open_store(tmp_path / "s", boot_id="first") as store:
        stream = await store.streams.open(KEY, SIZE)
        lock = stream.try_lock(Span(0, 100))
        assert lock is not None
        assert other.ask("lock", 50, 150) == "busy"
        assert other.ask("lock", 100, 200) == "locked"
        assert stream.try_lock(Span(150, 160)) is None
        lock.release()
        assert other.ask("lock", 0, 100) == "locked"
        assert stream.try_lock(Span(0, 1)) is None
        other.kill()
        again = stream.try_lock(Span(0, 200))
        assert again is not None
        again.release()


async def test_what_one_process_admits_the_other_reads(tmp_path: Path, other: Other) -> None:
    async with open_store(tmp_path / "s", boot_id="first") as store:
        stream = await store.streams.open(KEY, SIZE)
        data = child.content(0, SIZE)
        await stream.write(0, data)
        assert await stream.read(5, 5) == data[5:10]
        assert other.ask("admit") == str(digest_of(data))
        assert stream.digest() == digest_of(data)
        assert await stream.read(5, 5) == data[5:10]
        await stream.write(0, b"late")
        assert await stream.read(0, 5) == data[:5]
        assert store.blobs.stat(digest_of(data)) is not None


async def test_a_store_outlives_a_killed_neighbour(tmp_path: Path, other: Other) -> None:
    async with open_store(tmp_path / "s", boot_id="first") as store:
        assert other.ask("write", 0, 100) == "written"
        other.kill()
        stream = await store.streams.open(KEY, SIZE)
        assert await stream.read(0, 100) == child.content(0, 100)
        await stream.write(100, child.content(100, 100))
        await store.checkpoint()
        assert stream.present() == SpanSet([Span(0, 200)])
