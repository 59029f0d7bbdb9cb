"""The tables of the distribution strings, each compared by equality and by round trip."""

from pathlib import Path

import pytest

from cafs.errors import CafsError, InvalidReferenceError, UnsupportedError
from cafs.model.digest import digest_of
from cafs.model.ref import (
    AppcRef,
    ArchiveRef,
    BlobRef,
    DigestRef,
    DockerRef,
    archive_by_name,
    parse_ref,
    shown_canonical,
)

HEX = "a59906e33509d14c036c8678d687bd4eec81ed7c4b8ce907b888c607f6a1e0e6"
HUB = "registry-1.docker.io"

ARCHIVES = [
    (
        "file:///full/path/to/aci/file.aci",
        "cimd:aci-archive:v=0:file%3A%2F%2F%2Ffull%2Fpath%2Fto%2Faci%2Ffile.aci",
    ),
    ("https://example.com/app.aci", "cimd:aci-archive:v=0:https%3A%2F%2Fexample.com%2Fapp.aci"),
    (
        "https://test.com/filedef.aci?z=value1&a=value2",
        "cimd:aci-archive:v=0:https%3A%2F%2Ftest.com%2Ffiledef.aci%3Fz%3Dvalue1%26a%3Dvalue2",
    ),
]
APPC = [
    ("example.com/app01", "example.com/app01"),
    ("example.com/app01:v1.0.0", "example.com/app01?version=v1.0.0"),
    ("example.com/app01,version=v1.0.0", "example.com/app01?version=v1.0.0"),
    (
        "example.com/app01,version=v1.0.0,label01=?&*/",
        "example.com/app01?label01=%3F%26%2A%2F&version=v1.0.0",
    ),
    (
        "coreos.com/etcd:v3.0.3,os=linux,arch=amd64",
        "coreos.com/etcd?arch=amd64&os=linux&version=v3.0.3",
    ),
]
DOCKER = [
    ("busybox", f"{HUB}/library/busybox:latest", "busybox"),
    ("busybox:latest", f"{HUB}/library/busybox:latest", "busybox"),
    (f"{HUB}/library/busybox:latest", f"{HUB}/library/busybox:latest", "busybox"),
    ("docker.io/busybox", f"{HUB}/library/busybox:latest", "busybox"),
    ("index.docker.io/library/busybox", f"{HUB}/library/busybox:latest", "busybox"),
    ("busybox:1.0", f"{HUB}/library/busybox:1.0", "busybox:1.0"),
    ("repo/image", f"{HUB}/repo/image:latest", "repo/image"),
    ("repo/image:1.0", f"{HUB}/repo/image:1.0", "repo/image:1.0"),
    (f"busybox@sha256:{HEX}", f"{HUB}/library/busybox@sha256:{HEX}", f"busybox@sha256:{HEX}"),
    (f"busybox:1@sha256:{HEX}", f"{HUB}/library/busybox@sha256:{HEX}", f"busybox@sha256:{HEX}"),
    (
        "myregistry.example.com:4000/busybox",
        "myregistry.example.com:4000/busybox:latest",
        "myregistry.example.com:4000/busybox",
    ),
    ("myregistry.example.com:4000/a/b/c:x", "myregistry.example.com:4000/a/b/c:x", None),
    ("MyRegistry.Example.com/busybox", "myregistry.example.com/busybox:latest", None),
    ("localhost/busybox", "localhost/busybox:latest", "localhost/busybox"),
    ("localhost:5000/busybox:1", "localhost:5000/busybox:1", "localhost:5000/busybox:1"),
    ("registry:5000/app", "registry:5000/app:latest", "registry:5000/app"),
    ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app"),
    (f"{HUB}/foo.bar/app", f"{HUB}/foo.bar/app:latest", f"{HUB}/foo.bar/app"),
    ("library/a/b", f"{HUB}/library/a/b:latest", "library/a/b"),
    ("a__b/c--d.e_f", f"{HUB}/a__b/c--d.e_f:latest", "a__b/c--d.e_f"),
]


@pytest.mark.parametrize(("url", "text"), ARCHIVES)
def test_r18_archive_table(url: str, text: str) -> None:
    ref = parse_ref(text)
    assert ref == ArchiveRef(url) == parse_ref(url)
    assert isinstance(ref, ArchiveRef)
    assert ref.url == url
    assert ref.cimd == text.replace("aci-archive", "archive")
    assert parse_ref(ref.cimd) == parse_ref(ref.canonical) == ref
    assert ref.friendly == url


def test_r18_query_order_does_not_matter_for_equality_and_is_kept_for_asking() -> None:
    one = parse_ref("https://test.com/filedef.aci?z=value1&a=value2")
    two = parse_ref("https://test.com/filedef.aci?a=value2&z=value1")
    assert one == two
    assert hash(one) == hash(two)
    assert one.canonical == two.canonical
    assert isinstance(one, ArchiveRef)
    assert one.url.endswith("?z=value1&a=value2")


def test_r18_values_of_one_key_keep_their_order() -> None:
    assert BlobRef("http://h/x?a=2&a=1") != BlobRef("http://h/x?a=1&a=2")


def test_an_archive_and_a_blob_at_one_url_are_two_refs() -> None:
    assert len({ArchiveRef("http://h/x"), BlobRef("http://h/x")}) == 2
    assert ArchiveRef("http://h/x") != "http://h/x"


@pytest.mark.parametrize(("app", "data"), APPC)
def test_r19_appc_table(app: str, data: str) -> None:
    ref = AppcRef.parse(app)
    assert ref.canonical == f"cimd:appc:v=0:{data}"
    assert parse_ref(ref.canonical) == parse_ref(f"appc:{app}") == ref
    assert parse_ref(ref.friendly) == ref


def test_r19_an_escaped_name_is_accepted_and_not_emitted() -> None:
    ref = parse_ref("cimd:appc:v=0:example.com%2Fapp01?version=v1.0.0")
    assert ref.canonical == "cimd:appc:v=0:example.com/app01?version=v1.0.0"


def test_r19_label_order_in_the_text_does_not_matter() -> None:
    one = parse_ref("cimd:appc:v=0:coreos.com/etcd?version=v3.0.3&os=linux&arch=amd64")
    assert one == AppcRef.parse("coreos.com/etcd:v3.0.3,arch=amd64,os=linux")


def test_r19_user_form_ranks_version_os_arch_then_the_rest() -> None:
    ref = AppcRef.parse("a.b/c,zeta=1,arch=x,alpha=2,os=y,version=3")
    assert ref.friendly == "appc:a.b/c:3,os=y,arch=x,alpha=2,zeta=1"
    assert ref.version == "3"
    assert AppcRef("a.b/c").version is None


@pytest.mark.parametrize(
    ("value", "escaped"),
    [("x,y=z", "x%2Cy%3Dz"), ("x:y", "x%3Ay"), (" x", "+x"), ("x\n", "x%0A"), ("\udcff", "%FF")],
)
def test_r19_a_label_value_that_no_app_string_can_say_round_trips(value: str, escaped: str) -> None:
    ref = AppcRef("a.b/c", (("flags", value),))
    assert ref.friendly == ref.canonical == f"cimd:appc:v=0:a.b/c?flags={escaped}"
    assert parse_ref(ref.friendly) == ref


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("a.b/c:1:2", "':' stands once, straight after the name"),
        ("a.b/c,os=linux:1", "':' stands once, straight after the name"),
        ("a.b/c:1,os=linux:1", "':' stands once, straight after the name"),
        ("a.b/c,os", "'os' is no label"),
        ("a.b/c,os=a,os=b", "'os' is given twice"),
        ("a.b/c:1,version=2", "'version' is given twice"),
        ("a.b/c:", "the version is empty"),
        ("A.b/c", "'A.b/c' is no AC identifier"),
        ("a.b//c", "no AC identifier"),
        ("a.b/c/", "no AC identifier"),
        ("-a", "no AC identifier"),
        ("a..b", "no AC identifier"),
        ("", "no AC identifier"),
        ("a\nb", "no AC identifier"),
        ("a,=1", "'' is no AC identifier"),
    ],
)
def test_r20_app_string_table(app: str, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says):
        parse_ref(f"appc:{app}")


@pytest.mark.parametrize(("text", "full", "short"), DOCKER)
def test_r21_docker_table(text: str, full: str, short: str | None) -> None:
    ref = DockerRef.parse(text)
    assert ref.canonical == f"cimd:docker:v=0:{full}"
    assert ref.short == (ref.short if short is None else short)
    for again in (
        ref.canonical,
        ref.friendly,
        f"docker:{text}",
        f"docker://{text}",
        f"cimd:docker:v=0:{text}",
        f"cimd:docker:0:{text}",
    ):
        assert parse_ref(again) == ref


def test_r21_equal_images_have_equal_text() -> None:
    texts = ["busybox", "busybox:latest", f"{HUB}/library/busybox:latest"]
    assert len({parse_ref(f"cimd:docker:v=0:{text}").canonical for text in texts}) == 1


def test_r21_digest_beats_tag() -> None:
    digest = digest_of(b"")
    ref = DockerRef("h.example", "a", "tag", digest)
    assert ref.tag is None
    assert ref.reference == str(digest)
    assert ref == DockerRef("h.example", "a", None, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "Busybox",
        "busybox:",
        "busybox:-x",
        "busybox:" + "x" * 129,
        "busybox:a:b",
        "busybox@",
        "busybox@sha256:abc",
        f"busybox@sha256:{HEX.upper()}",
        f"busybox@sha257:{HEX}",
        "a//b",
        "a/",
        "-a",
        "a-",
        "a...b",
        "a___b",
        "h.example:0/a",
        "h.example:65536/a",
        "h.example:port/a",
        "h_.example./a",
        "h..example/a",
        "[::1/a",
        "[zz]/a",
        "[zz:1]/a",
        "a/" + "b" * 256,
        "a?x=1",
        "a b",
        "ä",
        "a\nb",
    ],
)
def test_r21_what_no_registry_accepts_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_ref(f"docker://{text}")


def test_a_registry_needs_a_dot_a_port_or_to_be_localhost() -> None:
    with pytest.raises(InvalidReferenceError, match="'registry' is no registry"):
        DockerRef("registry", "app")


def test_r21_a_hostile_repository_name_is_refused_at_once() -> None:
    with pytest.raises(InvalidReferenceError):
        DockerRef.parse("a" * 60_000 + "!")


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.8.9.1:5000", "http://127.8.9.1:5000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost:80"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("[::2]:5000", "https://[::2]:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("localhost.example.com", "https://localhost.example.com"),
        ("127.0.0.1.example.com", "https://127.0.0.1.example.com"),
        ("[2001:0DB8::0001]:0443", "https://[2001:db8::1]:443"),
    ],
)
def test_only_a_registry_on_loopback_is_spoken_to_by_http(registry: str, url: str) -> None:
    assert DockerRef(registry, "app").base_url == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cimd:docker:v=0", "malformed"),
        ("cimd:docker", "malformed"),
        ("cimd:", "malformed"),
        ("cimd:docker:v=7:busybox", "version 7 of docker is not known"),
        ("cimd:docker:7:busybox", "version 7 of docker is not known"),
        ("cimd:docker:v=x:busybox", "'v=x' is no version"),
        ("cimd:docker:v=:busybox", "'v=' is no version"),
        ("cimd:docker:v=-1:busybox", "'v=-1' is no version"),
        ("cimd:docker:v=4294967296:busybox", "'v=4294967296' is no version"),
        ("cimd:docker:v=\u0660:busybox", "is no version"),
        ("cimd:dokcer:v=0:busybox", "there is no type 'dokcer'"),
        ("cimd:docker:v=0:busybox?x=1", "a query means nothing here"),
        ("cimd:docker:v=0:busybox#x", "a fragment means nothing here"),
        ("cimd:archive:v=0:ftp%3A%2F%2Fh%2Fx.tar", "scheme 'ftp' is not known"),
        ("cimd:archive:v=0:x.tar", "scheme '' is not known"),
        ("cimd:digest:v=0:sha256:00", "64 hex digits"),
        ("cimd:appc:v=0:a.b/c?version=1&version=2", "'version' is given twice"),
        ("cimd:appc:v=0:a.b/c:1?version=2", "'version' is given twice"),
        ("cimd:appc:v=0:a.b/c?novalue", "novalue"),
    ],
)
def test_r16_what_the_grammar_does_not_allow_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says):
        parse_ref(text)


@pytest.mark.parametrize("host", ["127.0.0.1:8871", "localhost:80", "files.example.com:8443"])
def test_a_url_without_its_scheme_is_told_what_it_lacks(host: str) -> None:
    with pytest.raises(InvalidReferenceError, match="has no scheme") as caught:
        parse_ref(f"{host}/model.bin?token=s3cret")
    assert f"'https://{host}/model.bin" in caught.value.hint
    assert f"'http://{host}/model.bin" in caught.value.hint
    assert "s3cret" not in caught.value.line


def test_an_unknown_type_or_scheme_names_the_nearest_one() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_ref("cimd:dokcer:v=0:busybox")
    assert caught.value.hint == "did you mean 'docker'?"
    with pytest.raises(InvalidReferenceError) as caught:
        parse_ref("htps://example.com/x")
    assert caught.value.hint.startswith("did you mean 'https'?")


@pytest.mark.parametrize(
    "text",
    [
        "oci-layout:dir:tag",
        "sbr:1234",
        "base64:name:aGk=",
        "cimd:oci-layout:v=0:x",
        "cimd:oci-image-layout:v=0:file:///x?ref=y",
    ],
)
def test_forms_without_a_handler_say_what_is_supported(text: str) -> None:
    with pytest.raises(UnsupportedError, match="refs are not supported") as caught:
        parse_ref(text)
    assert "archive, blob, docker" in caught.value.hint


@pytest.mark.parametrize("text", ["gcc", "./x.tar", "/x.tar", "", "x.tar.gz"])
def test_r22_nothing_is_guessed_from_a_bare_text(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="is no ref") as caught:
        parse_ref(text)
    assert "cafs.toml" in caught.value.hint


@pytest.mark.parametrize("text", ["some-image-name:v1.0.0", "ftp://h/x", "1:2", ":x"])
def test_r22_an_unknown_scheme_is_not_taken_for_a_name(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_ref(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/x.tar.gz", ArchiveRef("https://h/x.tar.gz")),
        ("HTTPS://H/x.tar.gz", ArchiveRef("https://h/x.tar.gz")),
        ("https://h/x.TGZ?sig=a.bin", ArchiveRef("https://h/x.TGZ?sig=a.bin")),
        ("https://h/x.bin?name=a.zip", BlobRef("https://h/x.bin?name=a.zip")),
        ("https://h/x%2Ezip", ArchiveRef("https://h/x.zip")),
        ("https://h/x.gz", BlobRef("https://h/x.gz")),
        ("https://h", BlobRef("https://h/")),
        ("archive+https://h/x", ArchiveRef("https://h/x")),
        ("blob+https://h/x.tar", BlobRef("https://h/x.tar")),
        ("blob+file:///x.tar", BlobRef("file:///x.tar")),
        ("file:///x.whl", ArchiveRef("file:///x.whl")),
        ("file://localhost/x.whl", ArchiveRef("file:///x.whl")),
        ("file:/x/y", BlobRef("file:///x/y")),
        (f"sha256:{HEX}", DigestRef(digest_of(b""))),
    ],
)
def test_short_forms(text: str, expected: ArchiveRef | BlobRef | DigestRef) -> None:
    ref = parse_ref(text)
    if isinstance(expected, DigestRef):
        assert ref.friendly == text
        assert ref.canonical == f"cimd:digest:v=0:{text}"
        assert parse_ref(ref.canonical) == ref
        return
    assert ref == expected
    assert type(ref) is type(expected)
    assert parse_ref(ref.friendly) == parse_ref(ref.canonical) == ref


def test_relative_files_start_from_the_base() -> None:
    assert parse_ref("file:sdk/x.tar", base=Path("/pro ject")) == ArchiveRef(
        "file:///pro%20ject/sdk/x.tar"
    )
    assert parse_ref("file:../x.tar", base=Path("/a/b")) == ArchiveRef("file:///a/x.tar")
    assert parse_ref("archive+file:x", base=Path("/a")) == ArchiveRef("file:///a/x")
    with pytest.raises(InvalidReferenceError, match="relative to"):
        parse_ref("file:x.tar")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://user:secret@h/x", "credentials do not belong in a ref"),
        ("https://token@h/x", "credentials do not belong in a ref"),
        ("https:///x", "is no URL"),
        ("https://h:x/y", "is no URL"),
        ("https://[::1/y", "is no URL"),
        ("https://h\n/y", "control characters"),
        ("https://h/\x00", "control characters"),
        ("https://bücher.example/x", "is no URL"),
        ("https://h/x ", "white space around it"),
        ("\thttps://h/x", "white space around it"),
        ("file://host/x", "'host' is read as a host"),
        ("file:///", "names no file"),
        ("file:", "names no file"),
        ("file:///a%00b", "names no file"),
        ("file:///a?b", "a file has no query"),
    ],
)
def test_urls_that_no_ref_may_hold(text: str, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says):
        parse_ref(text)


@pytest.mark.parametrize(
    ("text", "short", "canonical"),
    [
        (
            "archive+https://example.com/x?sig=hunter2",
            "archive+https://example.com/x?…",
            "cimd:archive:v=0:https%3A%2F%2Fexample.com%2Fx?…",
        ),
        (
            "https://example.com/x.bin",
            "https://example.com/x.bin",
            "cimd:blob:v=0:https%3A%2F%2Fexample.com%2Fx.bin",
        ),
        (
            "docker://example.com/app:1",
            "docker://example.com/app:1",
            "cimd:docker:v=0:example.com/app:1",
        ),
    ],
)
def test_what_is_shown_of_a_ref_has_no_query(text: str, short: str, canonical: str) -> None:
    ref = parse_ref(text)
    assert (ref.shown, shown_canonical(ref)) == (short, canonical)


def test_what_is_shown_of_a_ref_with_a_query_is_no_other_ref() -> None:
    with pytest.raises(CafsError):
        parse_ref(shown_canonical(parse_ref("https://example.com/x?sig=hunter2")))


def test_a_refused_url_does_not_repeat_the_secret() -> None:
    with pytest.raises(CafsError) as caught:
        parse_ref("https://user:hunter2@example.com/x.tar")
    assert "hunter2" not in caught.value.line
    assert "example.com/x.tar" in caught.value.line


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("HTTP://Example.COM:80/x", "http://example.com/x"),
        ("https://h:443", "https://h/"),
        ("https://h:80/", "https://h:80/"),
        ("https://h:08443/", "https://h:8443/"),
        ("https://h/a/./b/../c", "https://h/a/c"),
        ("https://h/../../x", "https://h/x"),
        ("https://h/%2E%2e/x", "https://h/x"),
        ("https://h/a/..", "https://h/"),
        ("https://h/a/.", "https://h/a/"),
        ("https://h/x#part", "https://h/x"),
        ("https://h/%7euser/%c3%a4", "https://h/~user/%C3%A4"),
        ("https://h/ä b", "https://h/%C3%A4%20b"),
        ("https://h/100%", "https://h/100%25"),
        ("https://h/x?q=a b", "https://h/x?q=a%20b"),
        ("https://h/x?", "https://h/x"),
        ("https://[0:0::1]:443/x", "https://[::1]/x"),
    ],
)
def test_urls_have_one_normal_form(url: str, same: str) -> None:
    assert BlobRef(url).url == same
    assert BlobRef(same).url == same


def test_what_is_not_equivalent_stays_apart() -> None:
    urls = ["http://h/a+b", "http://h/a%2Bb", "http://h/a%2Fb", "http://h/a/b", "https://h/a/b"]
    assert len({BlobRef(url) for url in urls}) == len(urls)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://h/x", "h"),
        ("https://h:443/x", "h"),
        ("http://h:8080/x.tar", "h:8080"),
        ("http://[::1]:8080/x", "[::1]:8080"),
        ("file:///x", None),
        ("docker://debian", HUB),
        ("docker://localhost:5000/x", "localhost:5000"),
        ("appc:example.com/app", "example.com"),
        (f"sha256:{HEX}", None),
    ],
)
def test_the_host_that_is_contacted(text: str, host: str | None) -> None:
    assert parse_ref(text).host == host


@pytest.mark.parametrize(
    "name", ["a.tar", "A.TAR.GZ", "a.tgz", "a.b.tar.zst", "a-1.0.whl", "a.aci"]
)
def test_names_of_archives(name: str) -> None:
    assert archive_by_name(name)


@pytest.mark.parametrize("name", ["", "tar", ".tar", "a.gz", "a.zst", "a.tar.sig", "a.zip.part"])
def test_names_of_other_files(name: str) -> None:
    assert not archive_by_name(name)


@pytest.mark.parametrize("text", ["docker:debian", "appc:a.b/c", "http://h/x", f"sha256:{HEX}"])
def test_a_ref_prints_as_people_write_it(text: str) -> None:
    assert str(parse_ref(text)) == parse_ref(text).friendly


PLUGIN_URLS = [
    "torrent:0123abcd/a.bin?x.pe=127.0.0.1:1",
    "torrent:?xt=urn:btih:0123",
    "x-y.2://h/a%2Fb",
    "cmd:echo%20hi",
]


@pytest.mark.parametrize("url", PLUGIN_URLS)
def test_a_url_of_an_enabled_plugin_is_a_ref(url: str) -> None:
    scheme = url.partition(":")[0]
    ref = parse_ref(url, schemes={scheme})
    assert ref == BlobRef(url) == parse_ref(ref.friendly, schemes=None)
    assert isinstance(ref, BlobRef)
    assert (ref.url, ref.scheme, ref.host) == (url, scheme, None)
    assert parse_ref(ref.cimd, schemes={scheme}) == ref
    assert parse_ref(f"archive+{url}", schemes={scheme}) == ArchiveRef(url)
    for text in (url, f"blob+{url}", ref.cimd):
        with pytest.raises(InvalidReferenceError) as caught:
            parse_ref(text)
        assert f"[plugins.{scheme}]" in caught.value.hint


@pytest.mark.parametrize("text", ["torrent:", "torrent:a b\n", "tor+rent:x", "1x:y", "torrent://"])
def test_what_names_nothing_is_no_url_of_a_plugin(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_ref(text, schemes=None)


def test_s3_needs_no_enabling() -> None:
    assert parse_ref("s3://bucket/dir/a b.tar.gz") == ArchiveRef("s3://bucket/dir/a%20b.tar.gz")
    assert parse_ref("blob+s3://bucket/a.tar") == BlobRef("S3://bucket/a.tar")
    assert BlobRef("s3://bucket/x").host is None


@pytest.mark.parametrize(
    "text", ["s3:x", "s3://b/k", "s3://bucket", "s3://bucket/", "s3://bu/k?v=1"]
)
def test_what_is_no_object_of_s3_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_ref(text)


def test_the_url_of_a_plugin_holds_no_credentials() -> None:
    with pytest.raises(InvalidReferenceError, match="do not belong") as caught:
        parse_ref("torrent://me:hunter2@host/x", schemes=None)
    assert "hunter2" not in caught.value.line


@pytest.mark.parametrize("text", ["blob+t:x", "archive+torrent:x", "blob+h:x"])
def test_a_plugins_scheme_behind_blob_is_a_plugin_to_enable_and_nothing_else(text: str) -> None:
    scheme = text.partition("+")[2].partition(":")[0]
    with pytest.raises(InvalidReferenceError) as caught:
        parse_ref(text)
    assert caught.value.hint.startswith(f"[plugins.{scheme}] in ")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("blob+htps://h/x", "did you mean 'blob+https'?; [plugins.htps] in "),
        ("blob+torent:x", "did you mean 'blob+torrent'?; [plugins.torent] in "),
        ("archive+docker://h/x", "what starts with 'docker:' has no 'archive+' before it"),
    ],
)
def test_a_slip_behind_blob_is_told_before_plugins_are(text: str, hint: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_ref(text, schemes=("torrent",))
    assert caught.value.hint.startswith(hint)


def test_a_slip_before_a_scheme_that_is_known_names_no_plugin() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_ref("bolb+https://h/x")
    assert caught.value.hint == "did you mean 'blob+https'?"
