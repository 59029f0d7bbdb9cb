"""add and remove: cafs.toml as a person would edit it, and the lock with it."""

import json
import tomllib

import pytest

from cafs.distribution.manifests import OCI_INDEX, OCI_MANIFEST
from cafs.distribution.platforms import own_platform
from cafs.model.digest import digest_of
from cafs.settings.lockfile import index_directory, read_lock
from cafs.testing import tabled
from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.archives import file as member, tar_bytes
from cafs.testing.origin import Origin
from tests.conftest import Cafs

TREE = tar_bytes({"top/a": (0o644, b"alpha" * 100)}, compression="gz")
TOML = """# what we need
[mount]
path = "cafs"   # beside us

# the compiler
[ref.gcc]
from = "{url}"  # not the newest
strip = 1

[defaults]
deadline = "5s"
"""


def toml(cafs: Cafs) -> dict[str, object]:
    return tomllib.loads((cafs.directory / "cafs.toml").read_text())


def lock(cafs: Cafs) -> dict[str, str]:
    found = read_lock(cafs.directory / "cafs.lock")
    return {} if found is None else {each.name: str(each.digest) for each in found.entries}


def test_the_first_ref_makes_the_files(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/t.tgz", TREE)
    told = cafs.run("add", "tree", url, "--strip", "1").stdout
    assert told.startswith(f"tree: locked {str(digest_of(TREE))[:19]}")
    assert told.endswith(f"tree: in {cafs.directory / 'cafs.toml'}, which is new\n")
    assert toml(cafs) == {"ref": {"tree": {"from": url, "strip": 1}}}
    assert lock(cafs) == {"tree": str(digest_of(TREE))}
    (index,) = index_directory(cafs.directory / "cafs.lock").glob("*.idx")
    assert digest_of(index.read_bytes()).hex == index.stem
    assert (index.parent / ".gitattributes").read_text() == "*.idx binary\n"


def test_everything_that_was_there_stays_as_it_was(cafs: Cafs, origin: Origin) -> None:
    before = TOML.format(url=origin.put("/gcc.tgz", TREE))
    file = cafs.project(before)
    tool = origin.put("/tool", b"tool")
    pin = str(digest_of(b"tool", "sha512"))
    mirror = origin.put("/mirror", b"tool")
    told = cafs.run("add", "tool", tool, "--integrity", pin, "--mirror", mirror).stdout
    assert len(told.splitlines()) == 1  # the file is where everybody looks
    text = file.read_text()
    assert text.startswith(before)
    assert text[len(before) :] == (
        f'\n[ref.tool]\nfrom = "{tool}"\nintegrity = "{pin}"\nmirrors = ["{mirror}"]\n'
    )
    assert lock(cafs) == {"tool": str(digest_of(b"tool"))}
    cafs.run("lock")
    assert set(lock(cafs)) == {"gcc", "tool"}
    told = cafs.run("remove", "gcc").stdout
    assert told == "gcc: no longer locked\n"
    assert "compiler" not in file.read_text()
    assert file.read_text().startswith('# what we need\n[mount]\npath = "cafs"   # beside us\n')
    assert set(lock(cafs)) == {"tool"}
    assert not index_directory(cafs.directory / "cafs.lock").exists()


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["gcc", "https://127.0.0.1/x"], 2, "ref.gcc: is there already"),
        (["new", "gopher://127.0.0.1/x"], 2, "gopher"),
        (["new", "https://127.0.0.1/x", "--integrity", "sha256:12"], 2, "ref.new.integrity"),
        (["new", "https://127.0.0.1/x", "--strip", "1"], 2, "ref.new.strip"),
        (["new", "https://127.0.0.1/x", "--platform", "linux"], 2, "--platform"),
        (["docker", "https://127.0.0.1/x"], 2, "ref.docker"),
        (["../new", "https://127.0.0.1/x"], 2, "no name for a ref"),
        (["new", "file:../outside"], 2, "outside the project"),
    ],
)
def test_what_the_settings_would_refuse_is_not_written(
    cafs: Cafs, words: list[str], code: int, what: str
) -> None:
    before = TOML.format(url="https://127.0.0.1/gcc.tar.gz")
    file = cafs.project(before)
    done = cafs.run("add", *words, check=False)
    assert (done.returncode, file.read_text()) == (code, before)
    assert what in done.stderr
    assert not (cafs.directory / "cafs.lock").exists()


def test_what_cannot_be_had_is_not_written(cafs: Cafs, origin: Origin) -> None:
    done = cafs.run("add", "gone", origin.url("/gone.tgz"), check=False)
    assert done.returncode == 3
    assert "gone" in done.stderr
    assert list(cafs.directory.iterdir()) == []
    pin = str(digest_of(b"other"))
    before = TOML.format(url="https://127.0.0.1/gcc.tar.gz")
    file = cafs.project(before)
    url = origin.put("/tool", b"tool")
    done = cafs.run("add", "tool", url, "--integrity", pin, check=False)
    assert (done.returncode, file.read_text(), lock(cafs)) == (4, before, {})


def test_of_several_platforms_all_are_written_or_none(cafs: Cafs, origin: Origin) -> None:
    layer = tabled.zstd_chunked([member("a", "alpha")])
    own = str(own_platform())
    manifest = tabled.manifest([layer])
    offers = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": str(digest_of(each)),
            "size": len(each),
            "platform": dict(zip(("os", "architecture"), name.split("/"), strict=True)),
        }
        for name, each in ((own, manifest), ("linux/s390x", b"gone"))
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": offers}).encode()
    origin.put("/v2/app/manifests/latest", index, content_type=OCI_INDEX)
    at = f"/v2/app/manifests/{digest_of(manifest)}"
    origin.put(at, manifest, content_type=OCI_MANIFEST)
    origin.put(f"/v2/app/blobs/{digest_of(layer.data)}", layer.data)
    ref = f"docker://127.0.0.1:{origin.port}/app"
    words = ["add", "base", ref, "--platform", own, "--platform", "linux/s390x"]
    done = cafs.run(*words, check=False)
    assert done.returncode == 3
    assert f"base ({own})" not in done.stdout + done.stderr
    assert list(cafs.directory.iterdir()) == []
    cafs.run("add", "base", ref)
    assert set(lock(cafs)) == {"base"}


def test_without_a_lock_nobody_is_asked(cafs: Cafs, origin: Origin) -> None:
    cafs.run("add", "tree", origin.url("/t.tgz"), "--no-lock")
    assert toml(cafs) == {"ref": {"tree": {"from": origin.url("/t.tgz")}}}
    assert not (cafs.directory / "cafs.lock").exists()
    assert origin.requests == ()


def test_a_file_is_named_from_where_one_is(cafs: Cafs) -> None:
    project, file = cafs.directory, cafs.project("")
    cafs.directory = project / "sub"
    cafs.directory.mkdir()
    (cafs.directory / "t.tgz").write_bytes(TREE)
    told = cafs.run("add", "tree", "file:t.tgz").stdout
    assert told.endswith(f"tree: in {file}\n")
    assert cafs.run("add", "--quiet", "again", "file:t.tgz").stdout == ""
    cafs.run("remove", "again")
    assert tomllib.loads(file.read_text()) == {"ref": {"tree": {"from": "file:sub/t.tgz"}}}
    text = (project / "cafs.lock").read_text()
    assert 'ref = "archive+file:sub/t.tgz"' in text
    assert str(project) not in text


def test_a_ref_that_is_not_there_cannot_be_removed(cafs: Cafs) -> None:
    before = TOML.format(url="https://127.0.0.1/gcc.tar.gz")
    file = cafs.project(before)
    done = cafs.run("remove", "gcc", "gdb", check=False)
    assert (done.returncode, file.read_text()) == (3, before)
    assert "gdb" in done.stderr


def test_programs_are_told_in_json(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/tool", b"tool")
    (told,) = map(json.loads, cafs.run("add", "tool", url, "--json").stdout.splitlines())
    assert told == {
        "name": "tool",
        "platform": None,
        "state": "locked",
        "digest": str(digest_of(b"tool")),
        "was": None,
        "size": 4,
        "indexes": [],
        "why": None,
    }
    (gone,) = map(json.loads, cafs.run("remove", "tool", "--json").stdout.splitlines())
    assert (gone["state"], gone["digest"], gone["was"]) == ("removed", None, told["digest"])


@pytest.mark.parametrize("before", [None, "# ours\n"])
def test_what_fails_beside_another_writer_takes_back_its_own_ref_alone(
    cafs: Cafs, origin: Origin, before: str | None
) -> None:
    """While the source is asked, somebody else adds a ref."""
    file = cafs.directory / "cafs.toml"
    if before is not None:
        file.write_text(before)
    other = '\n[ref.other]\nfrom = "https://127.0.0.1/other"\n'

    def gone(_: Ask) -> Answer:
        if "other" not in file.read_text():
            file.write_text(file.read_text() + other)
        return text_answer(404, "gone")

    url = origin.serve("/gone", gone)
    assert cafs.run("add", "gone", url, check=False).returncode == 3
    assert file.read_text() == (before or "") + other


@pytest.mark.parametrize("becomes", ["[[ref]]", "other bytes", "directory"])
def test_what_cannot_be_taken_back_is_said_beside_why(
    cafs: Cafs, origin: Origin, becomes: str
) -> None:
    file = cafs.directory / "cafs.toml"

    def gone(_: Ask) -> Answer:
        if becomes == "[[ref]]":
            file.write_text(file.read_text().replace("[ref.", "[[ref."))
        elif becomes == "other bytes":
            file.write_bytes(b"# \xff\n")
        else:
            file.unlink(missing_ok=True)
            file.mkdir(exist_ok=True)
        return text_answer(404, "gone")

    done = cafs.run("add", "gone", origin.serve("/gone", gone), check=False)
    assert done.returncode == 3
    assert "404" in done.stderr
    assert f"warning: ref.gone was not taken out again: {file}" in done.stderr
