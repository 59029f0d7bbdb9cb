"""Pinning by the command: what is kept, and how it is let go of."""

import json

from cafs.model.digest import digest_of
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.conftest import Cafs

MIB = 1 << 20


def test_a_ref_is_pinned_with_all_that_it_has_and_listed(cafs: Cafs, origin: Origin) -> None:
    model = origin.put("/model.bin", Generated(MIB, seed=1))
    packed = tar_bytes({"a/b": (0o644, b"beta" * 1000)}, compression="gz")
    cafs.project(
        f'[ref.model]\nfrom="{model}"\n[ref.tree]\nfrom="{origin.put("/t.tgz", packed)}"\n'
    )
    assert cafs.run("pin").stdout == "nothing is pinned\n"
    assert "0 B  model" in cafs.run("pin", "model").stdout
    cafs.run("prefetch")
    assert "1.0 MiB  model" in cafs.run("pin").stdout
    tree = json.loads(cafs.run("pin", "--json", "tree").stdout)
    assert (tree["name"], tree["kind"]) == ("tree", "ref")
    assert str(digest_of(packed)) in tree["items"]
    assert tree["bytes"] > len(packed) + 4000
    assert [json.loads(line)["name"] for line in cafs.run("pin", "--json").stdout.splitlines()] == [
        "model",
        "tree",
    ]
    assert cafs.run("unpin", "model").stdout == "model: not pinned any more\n"
    again = cafs.run("unpin", "model", check=False)
    assert (again.returncode, "cafs pin lists" in again.stderr) == (3, True)
    cafs.project("")
    assert json.loads(cafs.run("unpin", "--json", "tree").stdout) == {"unpinned": "tree"}
    assert cafs.run("pin").stdout == "nothing is pinned\n"


def test_a_blob_is_pinned_by_any_of_its_digests(cafs: Cafs, origin: Origin) -> None:
    data = Generated(MIB, seed=2).read(0, MIB)
    canonical, other = digest_of(data), digest_of(data, "sha512")
    missing = cafs.run("pin", str(canonical), check=False)
    assert (missing.returncode, "not in the store" in missing.stderr) == (3, True)
    url = origin.put("/x.bin", data)
    cafs.project(f'[ref.x]\nfrom="{url}"\nintegrity="{other.integrity}"\n')
    cafs.run("prefetch")
    pinned = json.loads(cafs.run("pin", "--json", str(other)).stdout)
    assert (pinned["kind"], pinned["items"]) == ("blob", [str(canonical)])
    cafs.run("unpin", str(canonical))
    assert cafs.run("pin").stdout == "nothing is pinned\n"


def test_what_is_no_name_is_told_with_the_names(cafs: Cafs, origin: Origin) -> None:
    cafs.project(f'[ref.model]\nfrom="{origin.put("/m", b"x")}"\n')
    for verb in ("pin", "unpin"):
        done = cafs.run(verb, "modle", check=False)
        assert done.returncode == 3
        assert "model" in done.stderr
