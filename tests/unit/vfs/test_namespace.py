"""What paths of the mount mean."""

import pytest

from cafs.errors import UsageError
from cafs.model.digest import Digest, digest_of
from cafs.model.ref import ArchiveRef, BlobRef, DockerRef
from cafs.vfs import namespace as ns

NAMES = ("gcc", "docker.io", "data")
SHA = digest_of(b"x")


def split(text: str) -> ns.Path:
    return tuple(text.split("/")) if text else ()


@pytest.mark.parametrize(
    ("path", "node"),
    [
        ("", ns.Root()),
        ("ref", ns.RefRoot()),
        ("ref/gcc", ns.NamedRef("gcc")),
        ("ref/docker.io", ns.NamedRef("docker.io")),
        ("ref/docker", ns.AdHocDirectory()),
        ("ref/archive/https", ns.AdHocDirectory()),
        ("ref/docker/h.example+5000/app@v1", ns.AdHocRef(DockerRef("h.example:5000", "app", "v1"))),
        ("ref/archive/https/a.example/x/y.tar@", ns.AdHocRef(ArchiveRef("https://a.example/x/y.tar"))),
        ("ref/blob/http/a.example/x.bin@", ns.AdHocRef(BlobRef("http://a.example/x.bin"))),
        ("ref/docker/127.0.0.1:5000", ns.Alias("127.0.0.1+5000")),
        ("digest", ns.DigestRoot()),
        ("digest/sha256", ns.DigestAlgorithm("sha256")),
        ("digest/md5", ns.DigestAlgorithm("md5")),
        (f"digest/sha256/{SHA.hex}", ns.DigestBlob(SHA)),
        (f"digest/md5/{'0' * 32}", ns.DigestBlob(Digest("md5", bytes(16)))),
        ("tree", ns.TreeRoot()),
        ("tree/sha256", ns.TreeAlgorithm("sha256")),
        (f"tree/sha256/{SHA.hex}", ns.TreeBlob(SHA)),
        (".cafs", ns.Control()),
        (".cafs/status.json", ns.ControlFile("status.json")),
    ],
)  # fmt: skip
def test_a_path_says_what_it_is(path: str, node: ns.Node) -> None:
    assert ns.node_at(split(path), NAMES) == node


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "Ref",
        "ref/nothing",
        "ref/gcc/usr",
        "ref/file",
        "ref/archive/file",
        "digest/sha3",
        "digest/sha256/00",
        f"digest/sha256/{SHA.hex.upper()}",
        f"digest/sha256/{SHA.hex}/x",
        f"digest/sha512/{SHA.hex}",
        f"tree/sha256/{SHA.hex}x",
        ".cafs/status.json/x",
    ],
)
def test_other_paths_mean_nothing(path: str) -> None:
    assert ns.node_at(split(path), NAMES) is None


@pytest.mark.parametrize("view", ["/", "", ".", "//"])
def test_the_default_view_is_everything(view: str) -> None:
    assert ns.view_at(view, NAMES) == ns.View((), ns.Root(), ())


@pytest.mark.parametrize(
    ("view", "path", "inside"),
    [
        ("ref", "ref", ()),
        ("/ref/", "ref", ()),
        ("ref/gcc", "ref/gcc", ()),
        ("ref/gcc/usr/lib", "ref/gcc", (b"usr", b"lib")),
        ("ref/gcc/.cafs", "ref/gcc", (b".cafs",)),
        ("tree", "tree", ()),
        (f"tree/sha256/{SHA.hex}/a", f"tree/sha256/{SHA.hex}", (b"a",)),
        ("ref/docker/127.0.0.1:5000/app:v1/etc", "ref/docker/127.0.0.1+5000/app@v1", (b"etc",)),
    ],
)
def test_a_view_is_a_node_and_a_path_inside_it(
    view: str, path: str, inside: tuple[bytes, ...]
) -> None:
    found = ns.view_at(view, NAMES)
    assert (found.path, found.inside) == (split(path), inside)
    assert found.node == ns.node_at(split(path), NAMES)


@pytest.mark.parametrize("view", ["nothing", "ref/nothing", ".cafs", f"digest/sha256/{SHA.hex}"])
def test_a_view_of_nothing_names_what_there_is(view: str) -> None:
    with pytest.raises(UsageError, match="no directory") as caught:
        ns.view_at(view, NAMES)
    assert "gcc" in caught.value.hint
