"""Mount paths: canonical ones, the usual spellings, and what can never be there."""

import pytest

from cafs.errors import InvalidReferenceError
from cafs.model.ref import BlobRef, Ref, parse_ref
from cafs.model.refpath import KINDS, Absent, Alias, Complete, Partial, Step, path_of, step

HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HUB = "registry-1.docker.io"


def walk(path: str) -> Step:
    return step(tuple(word.encode("utf-8", "surrogateescape") for word in path.split("/")))


CANONICAL = [
    ("docker://debian:12", f"docker/{HUB}/library/debian@12"),
    ("docker://debian", f"docker/{HUB}/library/debian@latest"),
    (f"docker://debian@sha256:{HEX}", f"docker/{HUB}/library/debian@sha256-{HEX}"),
    ("docker://127.0.0.1:5000/a/b:1", "docker/127.0.0.1+5000/a/b@1"),
    ("docker://registry:5000/app", "docker/registry+5000/app@latest"),
    ("docker://[::1]:5000/app", "docker/[%3A%3A1]+5000/app@latest"),
    ("docker://[::1]/app", "docker/[%3A%3A1]/app@latest"),
    (f"docker://h.example/a:sha256-{HEX}", f"docker/h.example/a@sha256%2D{HEX}"),
    (f"docker://h.example/a:sha256-{HEX}.sig", f"docker/h.example/a@sha256-{HEX}.sig"),
    ("appc:a.b/etcd:v3.0.3,arch=amd64,os=linux", "appc/a.b/etcd@v3.0.3,os=linux,arch=amd64"),
    ("appc:coreos.com/etcd", "appc/coreos.com/etcd@"),
    ("appc:coreos.com/etcd,os=linux", "appc/coreos.com/etcd@,os=linux"),
    ("cimd:appc:v=0:a.b/c?version=1@2:3/4", "appc/a.b/c@1%402%3A3%2F4"),
    ("cimd:appc:v=0:a/b?l/m=%2C%3D%00%FF", "appc/a/b@,l%2Fm=%2C%3D%00%FF"),
    ("https://h.example/dir/x.tar.gz", "archive/https/h.example/dir/x.tar.gz@"),
    ("http://h.example:8080/x.tar.gz", "archive/http/h.example+8080/x.tar.gz@"),
    ("https://h.example/", "blob/https/h.example/@"),
    ("https://h.example/dir/", "blob/https/h.example/dir/@"),
    ("https://h.example/x?a=b&c=/d?@:", "blob/https/h.example/x%3Fa=b&c=%2Fd%3F%40%3A@"),
    ("https://h.example/a%20b", "blob/https/h.example/a%2520b@"),
    ("https://h.example/u@v/w:x@", "blob/https/h.example/u%40v/w%3Ax%40@"),
    ("https://h.example/a+b", "blob/https/h.example/a+b@"),
    ("https://[::1]:8080/x", "blob/https/[%3A%3A1]+8080/x@"),
]


@pytest.mark.parametrize(("text", "path"), CANONICAL)
def test_the_canonical_path(text: str, path: str) -> None:
    ref = parse_ref(text)
    assert path_of(ref) == path
    assert walk(path) == Complete(ref)


@pytest.mark.parametrize(("text", "path"), CANONICAL)
def test_every_directory_on_the_way_is_partial(text: str, path: str) -> None:
    words = tuple(word.encode() for word in path.split("/"))
    for count in range(1, len(words)):
        assert step(words[:count]) == Partial(words[:count])


def test_the_top_holds_the_four_kinds() -> None:
    assert step(()) == Partial(())
    for kind in KINDS:
        assert walk(kind) == Partial((kind.encode(),))


ALIASES = [
    ("docker/host:5000/a", "", Absent()),
    ("docker/host.example:5000", "host.example+5000", None),
    ("docker/localhost:5000", "localhost+5000", None),
    ("docker/localhost:5000/repo:tag", "repo@tag", None),
    ("docker/Host.Example", "host.example", None),
    ("docker/[::1]:5000", "[%3A%3A1]+5000", None),
    ("docker/docker.io", HUB, None),
    ("docker/index.docker.io", HUB, None),
    ("docker/library", f"{HUB}/library", None),
    ("docker/debian", f"{HUB}/debian", None),
    ("docker/debian:12", f"{HUB}/library/debian@12", None),
    ("docker/debian@12", f"{HUB}/library/debian@12", None),
    (f"docker/debian@sha256:{HEX}", f"{HUB}/library/debian@sha256-{HEX}", None),
    ("docker/library/debian:12", "debian@12", None),
    ("docker/bitnami/redis@7", "", Complete(parse_ref("docker://bitnami/redis:7"))),
    ("docker/docker.io/debian:12", "library/debian@12", None),
    (f"docker/{HUB}/debian@12", "library/debian@12", None),
    ("docker/h+5000/app:tag", "app@tag", None),
    ("docker/h+5000/app@", "app@latest", None),
    (f"docker/h+5000/app@sha256:{HEX}", f"app@sha256-{HEX}", None),
    (f"docker/h+5000/app:1@sha256:{HEX}", f"app@sha256-{HEX}", None),
    (f"docker/h+5000/app:1@sha256-{HEX}", f"app@sha256-{HEX}", None),
    ("docker/h+5000/a%2Db", "a-b", None),
    ("docker/h+5000/app@v%31", "app@v1", None),
    ("docker/h+05000", "h+5000", None),
    ("appc/a.b/c:1", "c@1", None),
    ("appc/a.b/c:1,os=x", "c@1,os=x", None),
    ("appc/a.b/c,os=x,version=2", "c@2,os=x", None),
    ("appc/a.b/c@1,arch=y,os=x", "c@1,os=x,arch=y", None),
    ("appc/a.b/c@1,os=x:y", "c@1,os=x%3Ay", None),
    ("archive/https:", "https", None),
    ("archive/HTTPS", "https", None),
    ("archive/https/H.example", "h.example", None),
    ("archive/https/h.example:443", "h.example", None),
    ("archive/https/h.example:8443", "h.example+8443", None),
    ("archive/http/h.example:443", "h.example+443", None),
    ("blob/https/h.example@", "h.example/@", None),
    ("blob/https/h.example/a b", "a%2520b", None),
    ("blob/https/h.example/a b@", "a%2520b@", None),
    ("blob/https/h.example/ä", "%25C3%25A4", None),
    ("blob/https/h.example/x?q=1@", "x%3Fq=1@", None),
    ("blob/https/h.example/u@v", "u%40v", None),
    ("blob/https/h.example/u@v@", "u%40v@", None),
    ("blob/https/h.example/a:b@", "a%3Ab@", None),
    ("blob/https/h.example/a#b", "a%2523b", None),
    ("blob/https/h.example/a#b@", "a%2523b@", None),
    ("blob/https/h.example/a%2Fb@", "a/b@", None),
    ("blob/https/h.example/a/b%2F..%2Fc@", "c@", None),
    ("blob/https/h.example/a/b%3Fc@", "", Complete(parse_ref("https://h.example/a/b?c"))),
    ("blob/https/h.example/\udcff", "%25FF", None),
    ("blob/https/h.example/100%@", "100%2525@", None),
]


@pytest.mark.parametrize(("path", "target", "instead"), ALIASES)
def test_the_usual_spellings_lead_to_the_canonical_path(
    path: str, target: str, instead: Step | None
) -> None:
    assert walk(path) == (instead or Alias(target))


def test_an_alias_leads_to_what_it_says() -> None:
    assert walk("docker/localhost:5000/library/x@1") == Complete(
        parse_ref("docker://localhost:5000/library/x:1")
    )
    assert walk("docker/library/debian@12") == Complete(parse_ref("docker://debian:12"))
    assert walk("archive/https:/H.example/x.tar@") == Complete(parse_ref("https://h.example/x.tar"))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "gcc",
        "Docker",
        "digest",
        "docker/-",
        "docker/Debian",
        "docker/a b",
        "docker/a+b",
        "docker/a.b+0",
        "docker/a.b+70000",
        "docker/..",
        "docker/\udcff",
        "docker/h+5000/A",
        "docker/h+5000/app@-x",
        "docker/h+5000/app@a:b",
        "docker/h+5000/app:1@2",
        "docker/h+5000/app:",
        "docker/h+5000/@1",
        "docker/h+5000/app@1/etc",
        "docker/h+5000/app:1/etc",
        "docker/h+5000/" + "/".join(["a" * 90] * 3) + "@1",
        "appc/A",
        "appc/a b",
        "appc/a@1,os",
        "appc/a@1,os=x,os=y",
        "appc/a:1,version=2",
        "appc/a@1/x",
        "archive/file",
        "archive/file/etc/passwd@",
        "blob/ftp",
        "blob/https/user@h.example",
        "blob/https/a b",
        "blob/https/..",
        "blob/https/h.example/a?b",
        "blob/https/h.example/a%2Fb",
        "blob/https/h.example/%2E%2E",
        "blob/https/h.example/a%2F%2Fb@",
        "blob/https/h.example/x@/y",
        "blob/https/h.example/a/b%2F..%2Fc@/y",
        "blob/https/h.example/" + " " * 60,
        "blob/https/h.example/" + " " * 60 + "@",
    ],
)
def test_what_can_never_be_there(path: str) -> None:
    assert walk(path) == Absent()


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        (parse_ref("https://h.example/" + "x" * 255), "longer than 255 bytes"),
        (parse_ref("https://h.example/x?" + "a/" * 85), "longer than 255 bytes"),
        (parse_ref("docker://h.example/" + "a" * 150 + ":" + "b" * 128), "longer than 255 bytes"),
        (parse_ref("https://h.example/a//b"), "empty"),
        (parse_ref("file:///etc/passwd"), "files are not read by path"),
        (parse_ref(f"sha256:{HEX}"), "has no path below ref/"),
    ],
)
def test_what_does_not_fit_needs_a_name(ref: Ref, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says) as caught:
        path_of(ref)
    assert caught.value.hint


def test_a_component_of_exactly_255_bytes_fits() -> None:
    ref = parse_ref("https://h.example/" + "x" * 254)
    assert walk(path_of(ref)) == Complete(ref)


@pytest.mark.parametrize("url", ["s3://bucket/key", "torrent:0123/x", "x://host/path"])
def test_what_is_not_http_has_no_path(url: str) -> None:
    with pytest.raises(InvalidReferenceError, match="not read by path"):
        path_of(BlobRef(url))
    assert isinstance(step((b"blob", url.partition(":")[0].encode())), Absent)
