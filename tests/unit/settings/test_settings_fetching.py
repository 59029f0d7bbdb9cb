"""Tables about fetching: what they say together, and what the values are that come of them."""

import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import asdict, fields

from cafs.model.login import HelperRule, HostLogin
from cafs.model.mapping import MapRule, mapped
from cafs.model.pacing import Pacing
from cafs.model.plugging import PluginSpec
from cafs.model.ref import ArchiveRef, BlobRef, DockerRef
from cafs.model.spec import Platform
from cafs.settings.loading import load_settings
from cafs.settings.packing import pack, unpack
from cafs.settings.values import Overrides, RetrySettings, Settings
from cafs.transport.retrying import RetryPolicy


class World:
    """A project, a home and a system file of one test's own."""

    def __init__(self, top: Path) -> None:
        self.project = top / "project" / "cafs.toml"
        self.home = top / "home"
        self.user = self.home / ".config" / "cafs" / "config.toml"
        self.system = top / "etc" / "config.toml"
        for file in (self.project, self.user, self.system):
            file.parent.mkdir(parents=True)

    def load(self, *, limit: str | None = None) -> Settings:
        return load_settings(
            self.project.parent,
            project=None,
            overrides=Overrides(limit=limit),
            environ={"HOME": str(self.home), "CAFS_SYSTEM_CONFIG": str(self.system)},
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Path(os.path.realpath(tmp_path)))


@pytest.fixture
def parted(certificate: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The certificate and the key in files of their own."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    head, mark, body = certificate.read_text().partition("-----BEGIN CERTIFICATE")
    key.write_text(head)
    cert.write_text(mark + body)
    return cert, key


def test_y23_the_map_is_sorted_and_its_targets_are_allowed_hosts(world: World) -> None:
    world.project.write_text('[ref.a]\nfrom = "https://example.com/gcc/13.tar"')
    world.user.write_text(
        """
        [map]
        "https://Example.com:443/gcc/" = ["https://mirror.example/gcc/", "file:m/"]
        "https://example.com" = "http://other.example:8000"
        """
    )
    settings = world.load()
    assert settings.mapping == (
        MapRule("https://example.com/", ("http://other.example:8000/",)),
        MapRule(
            "https://example.com/gcc/",
            ("https://mirror.example/gcc/", f"file://{world.user.parent}/m/"),
        ),
    )
    assert settings.allowed_hosts == {"example.com", "mirror.example", "other.example:8000"}
    (spec,) = settings.refs
    assert isinstance(spec.ref, ArchiveRef)
    assert spec.ref.url == "https://example.com/gcc/13.tar"
    assert mapped(spec.ref.url, settings.mapping)[0] == "https://mirror.example/gcc/13.tar"


def test_what_both_files_say_of_one_name_the_users_says_whole(world: World) -> None:
    world.system.write_text(
        """
        [map]
        "https://a.example/" = "https://system.example/"
        "https://b.example/" = "https://system.example/"
        [credentials."a.example"]
        username = "system"
        password-env = "SYSTEM"
        [credentials."b.example"]
        token-env = "SYSTEM"
        [helpers]
        "a.example" = "system"
        "b.example" = "system"
        [plugins.torrent]
        command = "/system"
        timeout = "1s"
        [plugins.sh]
        """
    )
    world.user.write_text(
        """
        [map]
        "https://a.example/" = "https://user.example/"
        [credentials."A.example"]
        netrc = false
        [helpers]
        "a.example" = "user"
        [plugins.torrent]
        """
    )
    settings = world.load()
    assert settings.mapping == (
        MapRule("https://a.example/", ("https://user.example/",)),
        MapRule("https://b.example/", ("https://system.example/",)),
    )
    assert settings.allowed_hosts == {"user.example", "system.example"}
    assert settings.logins == (
        HostLogin(host="a.example", netrc=False),
        HostLogin(host="b.example", token_env="SYSTEM"),
    )
    assert settings.helpers == (
        HelperRule("a.example", ("user",)),
        HelperRule("b.example", ("system",)),
    )
    assert settings.plugins == (
        PluginSpec("sh", ("cafs-transport-sh",)),
        PluginSpec("torrent", ("cafs-transport-torrent",), 30.0),
    )
    assert settings.schemes == {"sh", "torrent"}


def test_logins_name_where_secrets_are(
    world: World, certificate: Path, parted: tuple[Path, Path]
) -> None:
    cert, key = parted
    (world.home / "both.pem").write_bytes(certificate.read_bytes())
    world.user.write_text(
        f"""
        [credentials."*.example.com:8443"]
        username = "me"
        password-file = "~/.config/secret"
        client-cert = "~/both.pem"
        insecure = true
        [credentials."[::1]"]
        token-file = "/run/token"
        client-cert = "{cert}"
        client-key = "{key}"
        """
    )
    assert world.load().logins == (
        HostLogin(
            host="*.example.com:8443",
            username="me",
            password_file=world.home / ".config" / "secret",
            client_cert=world.home / "both.pem",
            insecure=True,
        ),
        HostLogin(host="[::1]", token_file=Path("/run/token"), client_cert=cert, client_key=key),
    )


def test_programs_are_absolute_below_home_or_names(world: World) -> None:
    world.user.write_text(
        """
        [helpers]
        "a.example" = "~/bin/helper"
        "*.b.example" = ["/opt/helper", "~/not-a-path", ""]
        "c.example" = "helper"
        [plugins.torrent]
        command = ["~/bin/torrent", "--quiet"]
        timeout = "250ms"
        [plugins.s3]
        command = "my-s3"
        """
    )
    settings = world.load()
    assert settings.helpers == (
        HelperRule("*.b.example", ("/opt/helper", "~/not-a-path", "")),
        HelperRule("a.example", (f"{world.home}/bin/helper",)),
        HelperRule("c.example", ("helper",)),
    )
    assert settings.plugins == (
        PluginSpec("s3", ("my-s3",)),
        PluginSpec("torrent", (f"{world.home}/bin/torrent", "--quiet"), 0.25),
    )


def test_numbers_are_taken_one_by_one_from_the_strongest_that_says_them(world: World) -> None:
    world.system.write_text(
        """
        [limits]
        connections = 1
        connections-per-host = 2
        prefetch-connections = 3
        prefetch-rate = "1MiB/s"
        connect = "5s"
        first-byte = "6s"
        stall = "7s"
        stall-floor = "500ms"
        [retry]
        retries = 0
        initial-delay = "1s"
        multiplier = 2
        max-delay = "1m"
        jitter = false
        fixed = true
        """
    )
    numbers = Pacing(
        connections=1,
        per_host=2,
        prefetch_connections=3,
        prefetch_rate=1 << 20,
        connect_s=5.0,
        first_byte_s=6.0,
        stall_s=7.0,
        stall_floor_s=0.5,
    )
    settings = world.load()
    assert settings.pacing == numbers
    assert all(
        getattr(Pacing(), each.name) != getattr(numbers, each.name) for each in fields(numbers)
    )
    assert settings.retry == RetrySettings(
        retries=0, initial_s=1.0, multiplier=2.0, cap_s=60.0, jitter=False, fixed=True
    )
    world.user.write_text(
        '[limits]\nconnections = 9\nprefetch-rate = "unlimited"\n[retry]\nretries = 8'
    )
    settings = world.load()
    assert (settings.pacing.connections, settings.pacing.per_host) == (9, 2)
    assert settings.pacing.prefetch_rate is None
    assert (settings.retry.retries, settings.retry.fixed) == (8, True)


def test_the_flag_for_the_rate_beats_the_files(world: World) -> None:
    assert world.load().pacing.prefetch_rate is None
    world.user.write_text('[limits]\nprefetch-rate = "2MB/s"')
    assert world.load().pacing.prefetch_rate == 2_000_000
    assert world.load(limit="50 KiB/s").pacing.prefetch_rate == 51200
    assert world.load(limit="unlimited").pacing.prefetch_rate is None


def test_y6_what_is_not_said_of_retries_is_as_a_retry_policy_has_it(world: World) -> None:
    assert RetryPolicy(**asdict(world.load().retry)) == RetryPolicy()


def test_a_ref_may_have_the_urls_of_s3_and_of_plugins_that_are_enabled(world: World) -> None:
    world.system.write_text("[plugins.torrent]")
    world.user.write_text('[map]\n"https://a.example/" = ["torrent:a/", "s3://bucket/a/"]')
    world.project.write_text(
        """
        [ref.a]
        from = "torrent:0123/x.tar"
        mirrors = ["s3://Bucket/key with space", "torrent:4567"]
        strip = 1
        [ref.b]
        from = "blob+s3://bucket/x.tar"
        [ref.c]
        from = "archive+torrent:x?y"
        """
    )
    settings = world.load()
    a, b, c = (spec.ref for spec in settings.refs)
    assert (a, b, c) == (
        ArchiveRef("torrent:0123/x.tar"),
        BlobRef("s3://bucket/x.tar"),
        ArchiveRef("torrent:x?y"),
    )
    assert settings.refs[0].mirrors == ("s3://Bucket/key%20with%20space", "torrent:4567")
    assert settings.allowed_hosts == frozenset(), "a bucket is no host"
    assert unpack(pack(settings)) == settings


CHOICES = """
[ref.tool]
by-platform."linux/x86_64" = {from = "https://h.example/x64.tar", integrity = "sha256:%s"}
by-platform."linux/arm64" = {from = "https://h.example/arm64.tar", strip = 0, mirrors = ["file:m"]}
by-platform."linux/arm/v6" = {from = "docker://h.example/arm"}
""" % ("0" * 64)


def chosen(world: World, platform: str) -> Settings:
    world.project.write_text(f'{CHOICES}\nstrip = 2\nsubdir = "a"\nplatform = "{platform}"')
    return world.load()


def test_y24_the_entry_of_the_platform_is_taken_whole(world: World) -> None:
    (spec,) = chosen(world, "linux/amd64").refs
    assert spec.ref == ArchiveRef("https://h.example/x64.tar")
    assert str(spec.integrity) == f"sha256:{'0' * 64}"
    assert (spec.strip, spec.subdir, spec.mirrors, spec.platform) == (2, "a", (), None)
    (spec,) = chosen(world, "linux/aarch64").refs
    assert spec.ref == ArchiveRef("https://h.example/arm64.tar")
    assert spec.integrity is None
    assert (spec.strip, spec.subdir) == (0, "a")
    assert spec.mirrors == (f"file://{world.project.parent}/m",)
    settings = chosen(world, "linux/arm")
    (spec,) = settings.refs
    assert spec.ref == DockerRef("h.example", "arm")
    assert spec.platform == Platform("linux", "arm")
    assert settings.allowed_hosts == {"h.example"}


def test_y24_the_machines_own_platform_is_the_default(world: World) -> None:
    own = subprocess.check_output(["uname", "-m"], text=True).strip()
    world.project.write_text(
        f"""
        [ref.tool.by-platform]
        "linux/sparc64" = {{from = "https://h.example/other"}}
        "linux/{own}" = {{from = "https://h.example/own"}}
        """
    )
    assert world.load().refs[0].ref == BlobRef("https://h.example/own")
