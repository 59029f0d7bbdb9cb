"""Settings as bytes: what comes out is what went in, and nothing else is looked at."""

from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from cafs.errors import MalformedError
from cafs.model.digest import digest_of
from cafs.model.login import HelperRule, HostLogin
from cafs.model.mapping import MapRule
from cafs.model.pacing import Pacing
from cafs.model.plugging import PluginSpec
from cafs.model.ref import parse_ref
from cafs.model.resolved import Contents, Part, Resolved, Shape
from cafs.model.spec import Platform, RefSpec
from cafs.settings.packing import pack, unpack
from cafs.settings.values import RetrySettings, Settings

PLAIN = Settings(
    project_file=None,
    mount_point=None,
    view="/",
    budget=None,
    refs=(),
    deadline_s=60.0,
    on_error="fail",
    pull="lock",
    store=Path("/store"),
    allowed_hosts=frozenset(),
    dynamic=False,
    allow_other=False,
    preserve_owner=False,
    suid=False,
    dev=False,
    offline=False,
    ca_bundle=None,
)
LOCKED = Resolved(
    ref="cimd:archive:v=0:x",
    shape=Shape.TREE,
    digest=digest_of(b"x"),
    parts=(
        Part(
            media_type="application/gzip",
            size=1,
            digest=digest_of(b"x"),
            urls=("https://a.example/x",),
            index=digest_of(b"index"),
            index_size=9,
            contents=Contents(kind="estargz", digest=digest_of(b"toc"), start=1, length=2, size=3),
        ),
    ),
    resolved_ns=0,
    named=digest_of(b"named"),
)
FULL = Settings(
    project_file=Path("/home/ü/cafs.toml"),
    mount_point=Path("/mnt/\udcff"),
    view="ref/größe",
    budget=1 << 40,
    refs=(
        RefSpec(
            name="full",
            ref=parse_ref("https://example.com/x.tar?b=2&a=1"),
            integrity=digest_of(b"x", "sha512"),
            strip=2,
            subdir="größe",
            mirrors=("https://a.example/x", "file:///x%FF"),
            platform=Platform("linux", "arm", "v7"),
            deadline_s=None,
            pull="never",
            verify="provisional",
            locked=LOCKED,
        ),
    ),
    deadline_s=0.25,
    on_error="wait",
    pull="update",
    verify="provisional",
    store=Path("/s\udc80"),
    allowed_hosts=frozenset({"example.com", "[::1]:80"}),
    dynamic=True,
    allow_other=True,
    preserve_owner=True,
    suid=True,
    dev=True,
    offline=True,
    ca_bundle=Path("/ca.pem"),
    look_in=(Path("/other/ü"), Path("/layout/\udcff")),
    quota=20 << 30,
    min_free=1 << 30,
    mapping=(MapRule("https://a.example/", ("https://b.example/a/", "file:///m/")),),
    logins=(
        HostLogin(
            host="*.example.com:8443",
            username="mé",
            password_file=Path("/p\udcff"),
            client_cert=Path("/c"),
            client_key=Path("/k"),
            insecure=True,
            netrc=False,
        ),
        HostLogin(host="a.example", token_file=Path("/t")),
        HostLogin(host="b.example", token_env="T"),
        HostLogin(host="c.example", username="u", password_env="P"),
    ),
    helpers=(HelperRule("*.example.com", ("/h", "--x")),),
    plugins=(PluginSpec("torrent", ("cafs-transport-torrent", "-v"), 5.0),),
    pacing=Pacing(
        connections=1,
        per_host=2,
        prefetch_connections=3,
        prefetch_rate=4,
        connect_s=5.0,
        first_byte_s=6.0,
        stall_s=7.0,
        stall_floor_s=0.5,
    ),
    retry=RetrySettings(
        retries=0, initial_s=1.0, multiplier=1.5, cap_s=2.0, jitter=False, fixed=True
    ),
    lock_file=Path("/home/\udcff/cafs.lock"),
    index_urls=("https://a.example/{hex}",),
    notes=("x: ü",),
)
REFS = [
    "docker://debian",
    "docker://[::1]:5000/a/b:tag",
    f"docker://example.com/a@{digest_of(b'x')}",
    "https://example.com/%FF?q=%20+&b=1&a=2",
    "archive+https://example.com/x",
    "blob+file:///x/y.tar",
    "appc:example.com/a:1.0,os=linux,arch=a%20b",
    "cimd:appc:v=0:example.com/a?x=%FF%2C",
    str(digest_of(b"x", "md5")),
]


@pytest.mark.parametrize("settings", [PLAIN, FULL], ids=["plain", "full"])
def test_settings_come_out_as_they_went_in(settings: Settings) -> None:
    assert unpack(pack(settings)) == settings


def test_no_field_of_the_full_settings_is_as_in_the_plain_ones() -> None:
    for each in msgspec.structs.fields(Settings):
        assert getattr(FULL, each.name) != getattr(PLAIN, each.name), each.name
    plain = RefSpec(name="", ref=parse_ref("docker://x"))
    for of_ref in fields(RefSpec):
        assert getattr(FULL.refs[0], of_ref.name) != getattr(plain, of_ref.name), of_ref.name


@pytest.mark.parametrize("text", REFS)
def test_every_kind_of_ref_comes_out_as_it_went_in(text: str) -> None:
    spec = RefSpec(name="a", ref=parse_ref(text))
    (found,) = unpack(pack(msgspec.structs.replace(PLAIN, refs=(spec,)))).refs
    assert (found, type(found.ref), str(found.ref)) == (spec, type(spec.ref), str(spec.ref))


def test_the_same_settings_have_the_same_bytes() -> None:
    hosts = [f"host{number}" for number in range(100)]
    one = msgspec.structs.replace(PLAIN, allowed_hosts=frozenset(hosts))
    other = msgspec.structs.replace(PLAIN, allowed_hosts=frozenset(reversed(hosts)))
    assert pack(one) == pack(other) == pack(unpack(pack(one)))


def test_what_is_no_settings_is_refused() -> None:
    packed = msgspec.msgpack.decode(pack(FULL))
    lacking = {name: value for name, value in packed.items() if name != "pull"}
    wrong = packed | {"refs": [packed["refs"][0] | {"ref": "no ref"}]}
    others: list[object] = [lacking, wrong, packed | {"dynamic": 1}, []]
    for each in others:
        with pytest.raises(MalformedError, match="settings"):
            unpack(msgspec.msgpack.encode(each))
    for raw in (b"", b"\xc1", pack(FULL)[:-1]):
        with pytest.raises(MalformedError, match="settings"):
            unpack(raw)


def test_settings_of_before_there_were_tables_about_fetching_say_nothing_of_it() -> None:
    packed = msgspec.msgpack.decode(pack(PLAIN))
    for name in ("mapping", "logins", "helpers", "plugins", "pacing", "retry"):
        del packed[name]
    assert unpack(msgspec.msgpack.encode(packed)) == PLAIN


def test_what_a_later_version_adds_is_passed_over() -> None:
    packed = msgspec.msgpack.decode(pack(FULL)) | {"later": 1}
    assert unpack(msgspec.msgpack.encode(packed)) == FULL
