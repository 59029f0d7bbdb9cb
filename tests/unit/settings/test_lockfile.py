"""cafs.lock: what is written is read again, what is forged is refused, and for whom it counts."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from cafs.errors import DeadlineError, SettingsError
from cafs.model.digest import EMPTY, digest_of
from cafs.model.ref import parse_ref
from cafs.model.resolved import Contents, Shape
from cafs.model.spec import Platform, RefSpec
from cafs.settings import lock_writing
from cafs.settings.heeding import entry_for, platform_of, ref_texts
from cafs.settings.loading import load_settings
from cafs.settings.lock_writing import alone, lock_text, write_whole
from cafs.settings.lockfile import Lock, LockedPart, LockEntry, read_lock
from cafs.settings.packing import pack, unpack
from cafs.settings.values import Overrides, Settings

URL = "https://example.com/tool.tar.gz"
REF = "cimd:archive:v=0:https%3A%2F%2Fexample.com%2Ftool.tar.gz"
IMAGE = "cimd:docker:v=0:example.com/base:1"
BLOB, INDEX, NAMED = digest_of(b"blob"), digest_of(b"index"), digest_of(b"named")
TOC = Contents(kind="zstd:chunked", digest=digest_of(b"toc"), start=7, length=8, size=9)
PART = LockedPart(
    digest=BLOB, size=4, media_type="application/gzip", index=INDEX, index_size=9, urls=(URL,)
)
TOOL = LockEntry(
    name="tool", ref=REF, digest=BLOB, size=4, media_type="application/gzip", parts=(PART,)
)
LAYERS = (
    replace(PART, contents=TOC, urls=()),
    replace(PART, index=None, index_size=None, digest=digest_of(b"2")),
)
BASE = LockEntry(
    name="base",
    platform="linux/amd64",
    ref=IMAGE,
    named=NAMED,
    digest=digest_of(b"manifest"),
    size=700,
    media_type="application/vnd.oci.image.manifest.v1+json",
    parts=LAYERS,
)
EVERY = Lock(
    (
        BASE,
        replace(BASE, platform="linux/arm/v7", parts=()),
        replace(TOOL, name="dotted.name"),
        replace(TOOL, query="0123456789abcdef", integrity=str(digest_of(b"blob", "sha512"))),
    )
)


class World:
    """A project with a lock."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.toml = top / "cafs.toml"
        self.file = top / "cafs.lock"
        self.environ = {"HOME": str(top / "home"), "CAFS_SYSTEM_CONFIG": str(top / "none")}

    def write(self, toml: str, *entries: LockEntry) -> None:
        self.toml.write_text(toml)
        self.file.write_text(lock_text(Lock(entries)))

    def load(self, *, locked: bool = True, pull: str | None = None) -> Settings:
        return load_settings(
            self.top,
            project=None,
            overrides=Overrides(pull=pull),
            environ=self.environ,
            locked=locked,
        )

    def ref(self, name: str) -> RefSpec:
        (spec,) = (each for each in self.load().refs if each.name == name)
        return spec


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Path(os.path.realpath(tmp_path)))


def toml(extra: str = "", url: str = URL) -> str:
    return f'[ref.tool]\nfrom = "{url}"\n{extra}'


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "cafs.lock"
    file.write_text(lock_text(EVERY))
    assert read_lock(file) == EVERY
    assert lock_text(Lock(EVERY.entries[::-1])) == lock_text(EVERY)
    assert EVERY.indexes() == {INDEX: 9}


def test_a_lock_is_made_for_diffs() -> None:
    """One table a ref, one fact a line, nothing of when or by whom."""
    places = "start = 7, length = 8, size = 9"
    assert lock_text(Lock((TOOL, replace(BASE, parts=LAYERS[:1])))).splitlines()[1:] == [
        "version = 1",
        "",
        '[ref.base.platform."linux/amd64"]',
        f'ref = "{IMAGE}"',
        f'named = "{NAMED}"',
        f'digest = "{BASE.digest}"',
        "size = 700",
        'media-type = "application/vnd.oci.image.manifest.v1+json"',
        "",
        '[[ref.base.platform."linux/amd64".layer]]',
        f'digest = "{BLOB}"',
        "size = 4",
        'media-type = "application/gzip"',
        f'index = "{INDEX}"',
        "index-size = 9",
        f'contents = {{kind = "zstd:chunked", digest = "{TOC.digest}", {places}}}',
        "",
        "[ref.tool]",
        f'ref = "{REF}"',
        f'digest = "{BLOB}"',
        "size = 4",
        'media-type = "application/gzip"',
        f'index = "{INDEX}"',
        "index-size = 9",
        f'urls = ["{URL}"]',
    ]


def test_without_a_lock_there_is_none(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "cafs.lock") is None


GOOD = lock_text(Lock((TOOL,)))
GOOD_IMAGE = lock_text(Lock((BASE,)))


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        ("", "version", "is missing"),
        (GOOD.replace("version = 1", "version = 2"), "version", "2 is not known"),
        (GOOD.replace("version = 1", 'version = "1"'), "version", "'1' is not known"),
        (GOOD + "later = 1\n", "ref.tool.later", "unknown key"),
        ("version = 1\nother = 1\n", "other", "unknown key"),
        ("version = 1\nref = 1\n", "ref", "must be a table"),
        ("version = 1\n[ref]\ntool = 1\n", "ref.tool", "must be a table"),
        ('version = 1\n[ref."../x"]\n', "ref.../x", "no name for a ref"),
        (GOOD.replace(str(BLOB), "sha256:00"), "ref.tool.digest", "64 hex digits"),
        (GOOD.replace(str(BLOB), f"md5:{'0' * 32}"), "ref.tool.digest", "no sha256"),
        (GOOD.replace(f'index = "{INDEX}"', "index = 1"), "ref.tool.index", "must be a string"),
        (GOOD.replace("size = 4", "size = -4"), "ref.tool.size", "0 or more"),
        (GOOD.replace("size = 4\n", ""), "ref.tool.size", "is missing"),
        (GOOD.replace("size = 4", "size = 0"), "ref.tool.size", "0 is not how many bytes have"),
        (GOOD.replace(str(BLOB), str(EMPTY)), "ref.tool.size", "4 is not how many bytes have"),
        (GOOD.replace("size = 4", f"size = {(1 << 40) + 1}"), "ref.tool.size", "is the most"),
        (GOOD.replace("size = 9", f"size = {2**63 - 1}"), "ref.tool.index-size", "is the most"),
        (GOOD_IMAGE.replace("size = 700", "size = 0"), "linux/amd64.size", "0 is not how many"),
        (GOOD_IMAGE.replace("size = 4", "size = 0"), "layer[0].size", "0 is not how many"),
        (GOOD.replace(f'ref = "{REF}"\n', ""), "ref.tool.ref", "is missing"),
        (GOOD.replace("urls = [", "urls = [1, "), "ref.tool.urls", "plain string"),
        (GOOD.replace("index-size = 9\n", ""), "ref.tool.index-size", "stands with index"),
        (GOOD + 'query = "x"\n', "ref.tool.query", "16 hex digits"),
        (GOOD + "layer = []\n", "ref.tool.layer", "an image has it"),
        (GOOD_IMAGE.replace("linux/amd64", "linux"), "platform.linux", "is no platform"),
        (GOOD_IMAGE.replace("kind =", "sort ="), "layer[0].contents.sort", "unknown key"),
        (GOOD_IMAGE.replace("layer]]", "layers]]"), "layers", "unknown key"),
        ("version = 1\n<<<<<<< ours\n", "", "line 2"),
        (f"version = 1{'0' * 5000}\n", "", "line 1: has a number that is too large"),
        (f"version = 0x1{'f' * 5000}\n", "version", "a number that is too large"),
        (f"version = [1, {{a = 0x1{'f' * 16}}}]\n", "version.a", "a number that is too large"),
    ],
)
def test_a_lock_that_is_not_ours_is_refused_with_file_and_key(
    tmp_path: Path, text: str, key: str, what: str
) -> None:
    file = tmp_path / "cafs.lock"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_lock(file)
    assert refused.value.line.count(str(file)) == 1
    assert key in refused.value.key
    assert what in refused.value.line


def test_a_lock_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "cafs.lock"
    with file.open("wb") as out:
        out.truncate((16 << 20) + 1)
    with pytest.raises(SettingsError, match="larger than"):
        read_lock(file)


def test_what_git_left_of_two_locks_is_said_to_be_a_conflict(tmp_path: Path) -> None:
    lock = tmp_path / "cafs.lock"
    lock.write_text("version = 1\n\n<<<<<<< HEAD\n[ref.a]\n=======\n[ref.b]\n>>>>>>> other\n")
    with pytest.raises(SettingsError, match=r"line 3: begins a merge conflict") as refused:
        read_lock(lock)
    assert "run cafs lock" in refused.value.hint


def test_a_lock_that_was_cut_is_to_be_restored(tmp_path: Path) -> None:
    lock = tmp_path / "cafs.lock"
    lock.write_text(lock_text(EVERY)[:-5])
    with pytest.raises(SettingsError, match=r"line \d+: ") as refused:
        read_lock(lock)
    assert refused.value.hint == "restore it, or remove it and run cafs lock"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("version = 1\n", ""),
        GOOD.replace("size = 4", "sise = 4"),
        GOOD.replace("size = 4", "size = -4"),
        GOOD.replace(f'index = "{INDEX}"', "index = 1"),
        GOOD.replace(str(BLOB), "sha256:00"),
        GOOD + "ref = 1\n",
        GOOD_IMAGE.replace("linux/amd64", "linux"),
        GOOD_IMAGE.replace("kind =", "sort ="),
        f"version = 1{'0' * 5000}\n",
        "version = 1\n[refs]\n",
        "version = 1\nref = 1\n",
        f"version = 1\n#{'x' * (16 << 20)}",
    ],
    ids=lambda text: text[-20:],
)
def test_what_to_do_about_a_damaged_lock_is_the_same_for_any_damage(
    tmp_path: Path, text: str
) -> None:
    lock = tmp_path / "cafs.lock"
    lock.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_lock(lock)
    assert refused.value.hint == "restore it, or remove it and run cafs lock"


def test_a_lock_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "cafs.lock"
    os.mkfifo(lock)
    with pytest.raises(SettingsError, match="is no file"):
        read_lock(lock)


def test_a_ref_is_what_its_entry_says(world: World) -> None:
    world.write(toml('mirrors = ["https://mirror.example.org/t"]\n'), TOOL)
    locked = world.ref("tool").locked
    assert locked is not None
    assert (locked.ref, locked.shape, locked.digest) == (REF, Shape.TREE, BLOB)
    (part,) = locked.parts
    assert (part.digest, part.size, part.index) == (BLOB, 4, INDEX)
    assert part.urls == (URL, "https://mirror.example.org/t")
    settings = world.load()
    assert (settings.lock_file, settings.notes) == (world.file, ())
    assert unpack(pack(settings)) == settings


def test_whom_to_ask_is_said_by_the_settings_and_not_by_the_lock(world: World) -> None:
    evil = replace(PART, urls=("https://evil.example/x",))
    image = replace(BASE, platform="", parts=(evil,))
    world.write(
        f'{toml()}[ref.base]\nfrom = "docker://example.com/base:1"\n',
        replace(TOOL, parts=(evil,)),
        image,
    )
    tool, base = world.ref("tool").locked, world.ref("base").locked
    assert tool is not None
    assert base is not None
    assert tool.parts[0].urls == (URL,)
    assert base.parts[0].urls == (f"https://example.com/v2/base/blobs/{BLOB}",)


@pytest.mark.parametrize("pull", ["new", "update"])
def test_policies_that_ask_take_no_notice_of_the_lock(world: World, pull: str) -> None:
    world.write(toml(), TOOL)
    (spec,) = world.load(pull=pull).refs
    assert spec.locked is None
    (spec,) = world.load(pull="never").refs
    assert spec.locked is not None
    (spec,) = world.load(locked=False).refs
    assert spec.locked is None


@pytest.mark.parametrize(
    "changed",
    [
        toml(url=URL + "?v=2"),
        toml(url="https://example.com/other.tar.gz"),
        toml(f'integrity = "{digest_of(b"other")}"\n'),
    ],
)
def test_an_entry_for_other_settings_is_left_alone_and_said_so(world: World, changed: str) -> None:
    world.write(changed, TOOL)
    settings = world.load()
    assert settings.refs[0].locked is None
    assert settings.notes == ("cafs.lock is older than the settings of tool: run cafs lock tool",)


@pytest.mark.parametrize(
    ("count", "refs", "words"),
    [
        (2, "t0 and t1", "cafs lock t0 t1"),
        (5, "t0, t1, t2, t3 and t4", "cafs lock t0 t1 t2 t3 t4"),
        (7, "t0, t1, t2, t3, t4 and 2 more", "cafs lock"),
    ],
)
def test_many_refs_that_are_not_locked_for_one_reason_are_one_line(
    world: World, count: int, refs: str, words: str
) -> None:
    names = [f"t{number}" for number in range(count)]
    other = URL + "?v=2"
    world.write(
        "".join(f'[ref.{name}]\nfrom = "{other}"\n' for name in names)
        + '[ref.base]\nfrom = "docker://example.com/base:1"\nplatform = "linux/s390x"\n',
        *(replace(TOOL, name=name) for name in names),
        BASE,
    )
    assert sorted(world.load().notes) == [
        "cafs.lock has no linux/s390x of base: run cafs lock --platform linux/s390x base",
        f"cafs.lock is older than the settings of {refs}: run {words}",
    ]


def test_what_is_shown_of_a_ref_does_not_matter_to_its_entry(world: World) -> None:
    world.write(toml('strip = 1\nsubdir = "bin"\n'), TOOL)
    assert world.ref("tool").locked is not None
    assert world.load().notes == ()


def test_a_ref_of_the_users_own_file_is_not_what_the_lock_is_about(world: World) -> None:
    user = world.top / "home/.config/cafs/config.toml"
    user.parent.mkdir(parents=True)
    user.write_text(toml())
    world.write("", TOOL)
    settings = world.load()
    assert (settings.refs[0].locked, settings.notes) == (None, ())


def test_a_digest_that_contradicts_the_settings_is_an_error(world: World) -> None:
    pin = digest_of(b"pinned")
    world.write(toml(f'integrity = "{pin}"\n'), replace(TOOL, integrity=str(pin)))
    with pytest.raises(SettingsError) as refused:
        world.load()
    assert (refused.value.path, refused.value.key) == (str(world.file), "ref.tool.digest")
    assert str(pin) in refused.value.line
    assert str(BLOB) in refused.value.line


@pytest.mark.parametrize("algorithm", ["md5", "sha512"])
def test_a_lock_does_not_say_that_nothing_is_what_has_a_pin(world: World, algorithm: str) -> None:
    part = replace(PART, digest=EMPTY, size=0, index=None, index_size=None)
    entry = replace(TOOL, digest=EMPTY, size=0, parts=(part,))
    pins = [str(digest_of(data, algorithm)) for data in (b"blob", b"")]
    world.write(toml(f'integrity = "{pins[0]}"'), replace(entry, integrity=pins[0]))
    with pytest.raises(SettingsError, match="is not what tool must be"):
        world.load()
    world.write(toml(f'integrity = "{pins[1]}"'), replace(entry, integrity=pins[1]))
    assert world.load().refs[0].locked is not None


@pytest.mark.parametrize("entry", [BASE, replace(BASE, platform="")])
def test_an_image_that_contradicts_its_pin_is_an_error(world: World, entry: LockEntry) -> None:
    pin = digest_of(b"other")
    spec = f'[ref.base]\nfrom = "docker://example.com/base@{pin}"\nplatform = "linux/amd64"\n'
    spec = spec if entry.platform else spec.replace('platform = "linux/amd64"\n', "")
    ref = f"cimd:docker:v=0:example.com/base@{pin}"
    world.write(spec, replace(entry, ref=ref))
    with pytest.raises(SettingsError) as refused:
        world.load()
    assert refused.value.key == f"{entry.key}.named"


def test_an_archive_is_no_image(world: World) -> None:
    world.write(toml(), replace(BASE, name="tool", platform="", ref=REF))
    with pytest.raises(SettingsError, match="this is no image"):
        world.load()


def image(platform: Platform | None) -> RefSpec:
    return RefSpec(name="base", ref=parse_ref("docker://example.com/base:1"), platform=platform)


def test_an_image_is_locked_for_each_platform(tmp_path: Path) -> None:
    amd, arm = BASE, replace(BASE, platform="linux/arm64")
    wanted = Platform("linux", "aarch64")
    assert entry_for(image(wanted), (amd, arm), tmp_path) == arm
    assert entry_for(image(Platform("linux", "s390x")), (amd, arm), tmp_path) is None
    own = replace(BASE, platform=platform_of(image(None)))
    assert entry_for(image(None), (own, arm), tmp_path) == own


def test_an_image_for_every_machine_is_not_the_one_for_a_platform(tmp_path: Path) -> None:
    alone_ = replace(BASE, platform="")
    assert entry_for(image(None), (alone_,), tmp_path) == alone_
    assert entry_for(image(Platform("linux", "arm64")), (alone_,), tmp_path) is None


def test_a_platform_that_is_not_locked_is_said(world: World) -> None:
    world.write(
        '[ref.base]\nfrom = "docker://example.com/base:1"\nplatform = "linux/s390x"\n', BASE
    )
    assert world.load().notes == (
        "cafs.lock has no linux/s390x of base: run cafs lock --platform linux/s390x base",
    )


def test_a_query_is_not_written_down_and_still_counts(tmp_path: Path) -> None:
    texts = [ref_texts(parse_ref(f"{URL}?token={each}"), tmp_path) for each in ("secret", "other")]
    assert "secret" not in str(texts)
    assert texts[0] != texts[1]
    assert ref_texts(parse_ref(f"{URL}?b=1&a=2"), tmp_path) == ref_texts(
        parse_ref(f"{URL}?a=2&b=1"), tmp_path
    )


def test_a_file_of_the_project_is_the_same_in_every_clone(tmp_path: Path) -> None:
    clones = [tmp_path / "one", tmp_path / "other"]
    texts = {ref_texts(parse_ref("file:data/größe.tar", base=each), each) for each in clones}
    assert texts == {("archive+file:data/gr%C3%B6%C3%9Fe.tar", "")}


def test_a_files_own_pin_is_what_its_bytes_are_held_against(world: World) -> None:
    """A lock says which sha256 a sha512 is; of bytes that are read whole nobody need believe it."""
    pin = digest_of(b"blob", "sha512")
    url = "https://example.com/blob"
    text = f'[ref.tool]\nfrom = "{url}"\nintegrity = "{pin}"\n'
    ref = "cimd:blob:v=0:https%3A%2F%2Fexample.com%2Fblob"
    bare = replace(PART, index=None, index_size=None)
    world.write(text, replace(TOOL, ref=ref, integrity=str(pin), parts=(bare,)))
    locked = world.ref("tool").locked
    assert locked is not None
    assert locked.parts[0].digest == pin
    weak = digest_of(b"blob", "md5")
    world.write(
        text.replace(str(pin), str(weak)),
        replace(TOOL, ref=ref, integrity=str(weak), parts=(bare,)),
    )
    locked = world.ref("tool").locked
    assert locked is not None
    assert locked.parts[0].digest == BLOB


def test_a_changed_entry_is_another_meaning(world: World) -> None:
    """A live mount that is reloaded moves on: what it remembers is kept under what was locked."""
    world.write(toml(), TOOL)
    before = world.ref("tool")
    other = replace(PART, index=digest_of(b"another index"))
    world.write(toml(), replace(TOOL, parts=(other,)))
    assert world.ref("tool").source != before.source
    assert world.ref("tool").key != before.key


def test_index_urls_have_a_place_for_the_digest(world: World) -> None:
    world.toml.write_text('[lock]\nindex-url = "https://example.com/{hex}"\n')
    assert world.load().index_urls == ("https://example.com/{hex}",)
    for text, what in (
        ("https://example.com/x", "has no {digest}"),
        ("file:///tmp/{hex}", "leads out of the project"),
        ("gopher://x/{hex}", "is not known"),
        ("https://me:pw@example.com/{hex}", "credentials"),
    ):
        world.toml.write_text(f'[lock]\nindex-url = ["{text}"]\n')
        with pytest.raises(SettingsError) as refused:
            world.load()
        assert refused.value.key == "lock.index-url"
        assert what in refused.value.line
        assert "pw" not in refused.value.line


@pytest.fixture
def slow_neighbour(tmp_path: Path) -> Iterator[None]:
    """Somebody else who is writing in this directory."""
    inside, leave = threading.Event(), threading.Event()

    def write() -> None:
        with alone(tmp_path / "cafs.lock"):
            inside.set()
            assert leave.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(60)
    yield
    leave.set()
    thread.join()


def test_two_do_not_write_at_once(
    tmp_path: Path, slow_neighbour: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_writing, "_WAIT_S", 0.05)
    with pytest.raises(DeadlineError, match="somebody else"), alone(tmp_path / "cafs.lock"):
        pass


def test_a_file_is_written_whole_with_its_mode_and_through_its_symlink(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "cafs.lock"
    link.symlink_to("real")
    write_whole(link, b"new")
    assert link.is_symlink()
    assert (real.read_bytes(), real.stat().st_mode & 0o777) == (b"new", 0o640)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cafs.lock", "real"]


def test_a_ref_that_is_named_by_path_too_means_the_same(world: World) -> None:
    world.write(toml(), TOOL)
    settings = world.load()
    (spec,) = settings.refs
    found = settings.ad_hoc(parse_ref(URL))
    assert (found.name, found.locked, found.source) == ("", spec.locked, spec.source)
    assert settings.ad_hoc(parse_ref(f"{URL}?x=1")).locked is None
    assert world.load(pull="update").ad_hoc(parse_ref(URL)).locked is None
    world.write(toml('pull = "update"\n'), TOOL)
    assert world.load().ad_hoc(parse_ref(URL)).locked is None
