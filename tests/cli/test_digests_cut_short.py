"""R-23: a digest may be cut short on the command line, as long as one alone begins so."""

import hashlib
import json
from collections import defaultdict

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.origin import Origin
from tests.conftest import Cafs

MANY = [b"content %d" % number for number in range(40)]


def sha(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data).hexdigest()


def alone(data: bytes, algorithm: str = "sha256") -> str:
    """The shortest beginning that no other has."""
    mine = sha(data, algorithm)
    others = [sha(each, algorithm) for each in MANY if each != data]
    length = 2
    while any(each.startswith(mine[:length]) for each in others):
        length += 1
    return mine[:length]


@pytest.fixture
def filled(cafs: Cafs, origin: Origin) -> Cafs:
    """A store that has many blobs, of which each is also known by its sha512."""
    refs = ""
    for number, data in enumerate(MANY):
        url = origin.put(f"/{number}", data)
        refs += f'[ref.r{number}]\nfrom="blob+{url}"\nintegrity="sha512:{sha(data, "sha512")}"\n'
    cafs.project(refs)
    cafs.run("prefetch")
    return cafs


def test_r23_a_unique_beginning_is_enough_for_every_verb(filled: Cafs) -> None:
    data = MANY[7]
    for algorithm in ("sha256", "sha512"):
        short = alone(data, algorithm)
        assert filled.run("cat", f"{algorithm}:{short}").stdout == data.decode()
        listed = json.loads(filled.run("ls", "--json", f"/digest/{algorithm}/{short}").stdout)
        assert (listed["name"], listed["size"]) == (sha(data, algorithm), len(data))
    resolved = json.loads(filled.run("resolve", "--json", f"sha256:{alone(data)}").stdout)
    assert resolved["digest"] == f"sha256:{sha(data)}"
    assert "no source" in filled.run("auth", "test", f"sha256:{alone(data)}", check=False).stderr
    for verb in ("prefetch", "pin", "unpin"):
        assert filled.run(verb, f"sha256:{alone(data)}").returncode == 0


def test_r23_too_short_ambiguous_none_and_no_hex_are_told_apart(filled: Cafs) -> None:
    begun = defaultdict(list)
    for data in MANY:
        begun[sha(data)[:2]].append(sha(data))
    several = sorted(next(each for each in begun.values() if len(each) > 1))
    absent = next(f"{number:02x}" for number in range(256) if f"{number:02x}" not in begun)
    for text, code, says in (
        ("sha256:", 2, "too short"),
        (f"sha256:{several[0][:1]}", 2, "too short"),
        (f"sha256:{several[0][:2]}", 2, "ambiguous"),
        (f"digest/sha256/{several[0][:2]}", 2, "ambiguous"),
        (f"sha256:{absent}", 3, "no digest in the store begins with"),
        (f"md5:{sha(MANY[0], 'md5')[:8]}", 3, "no digest in the store begins with"),
        ("sha256:xyz", 2, "not lower-case hex"),
        (f"sha256:{several[0]}00", 2, "64 hex digits"),
    ):
        done = filled.run("cat", text, check=False)
        assert (done.returncode, says in done.stderr) == (code, True), (text, done.stderr)
    hint = filled.run("cat", f"sha256:{several[0][:2]}", check=False).stderr
    assert all(f"sha256:{each}" in hint for each in several)


def test_a_tree_is_looked_into_by_the_beginning_of_its_digest(cafs: Cafs, origin: Origin) -> None:
    data = tar_bytes({"bin/cc": (0o755, b"compiler")})
    url = origin.put("/tree.tar", data)
    cafs.project(f'[ref.tools]\nfrom="{url}"\nintegrity="sha256:{sha(data)}"\n')
    cafs.run("prefetch")
    assert cafs.run("ls", f"tree/sha256/{sha(data)[:6]}/bin").stdout == "cc\n"
    assert cafs.run("cat", f"tree/sha256/{sha(data)[:5]}/bin/cc").stdout == "compiler"


def test_a_whole_digest_is_left_alone_though_the_store_lacks_it(cafs: Cafs) -> None:
    done = cafs.run("cat", f"sha256:{'0' * 64}", check=False)
    assert done.returncode == 3
    assert "begins" not in done.stderr


def test_the_listing_of_digest_tells_what_the_store_has(filled: Cafs) -> None:
    assert filled.run("ls", "digest/").stdout == "sha256\n"
    listed = filled.run("ls", "digest/sha256").stdout.split()
    assert listed == sorted(sha(each) for each in MANY)


def test_r23_a_member_of_an_archive_is_printed_by_the_beginning_of_its_digest(
    cafs: Cafs, origin: Origin
) -> None:
    data = tar_bytes({"bin/cc": (0o755, b"compiler"), "lib/x": (0o644, b"library")})
    url = origin.put("/tree.tar", data)
    cafs.project(f'[ref.tools]\nfrom="{url}"\n')
    cafs.run("prefetch")
    origin.stop()
    assert cafs.run("cat", f"sha256:{sha(b'compiler')[:8]}").stdout == "compiler"
    facts = json.loads(cafs.run("ls", "--json", f"digest/sha256/{sha(b'library')}").stdout)
    assert (facts["kind"], facts["size"]) == ("file", 7)
    refused = cafs.run("pin", f"sha256:{sha(b'compiler')[:8]}", check=False)
    assert refused.returncode == 3
    assert "inside an archive" in refused.stderr
