"""What the tables about fetching may not say: the file and the key are named, secrets are not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cafs.errors import SettingsError
from cafs.settings.loading import load_settings
from cafs.settings.values import Overrides, Settings

SECRET = "hunter2-hunter2"
HOST = '[credentials."h.example"]\n'
MAP = "[map]\n"


class World:
    """A project and a user's file of one test's own."""

    def __init__(self, top: Path) -> None:
        self.project = top / "project" / "cafs.toml"
        self.user = top / "home" / ".config" / "cafs" / "config.toml"
        for file in (self.project, self.user):
            file.parent.mkdir(parents=True)
        self.environ = {"HOME": str(top / "home"), "CAFS_SYSTEM_CONFIG": str(top / "system.toml")}

    def accept(self) -> Settings:
        return load_settings(
            self.project.parent, project=None, overrides=Overrides(), environ=self.environ
        )

    def refuse(self, limit: str | None = None) -> SettingsError:
        with pytest.raises(SettingsError) as caught:
            load_settings(
                self.project.parent,
                project=None,
                overrides=Overrides(limit=limit),
                environ=self.environ,
            )
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


WRONG = [
    ("map = 1", "map", "must be a table"),
    (MAP + '"https://a/" = 1', "map.https://a/", "must be a string, or a list of strings"),
    (MAP + '"https://a/" = [1]', "map.https://a/", "1 must be a plain string"),
    (MAP + '"https://a/" = []', "map.https://a/", "at least one"),
    (MAP + '"https://a/" = ["b/"]', "map.https://a/", "scheme '' is not known"),
    (MAP + '"a.example/" = "https://b/"', "map.a.example/", "is not known"),
    (MAP + '"https://a/x" = "https://b/y/"', "map.https://a/x", "must both end with '/'"),
    (MAP + '"https://a/x/" = "https://b/y"', "map.https://a/x/", "must both end with '/'"),
    (MAP + '"https://a/?x" = "https://b/"', "map.https://a/?x", "ends before the query"),
    (MAP + '"https://a/" = "https://b/?u="', "map.https://a/", "ends before the query"),
    (MAP + '"https://a/" = "torrent:x/"', "map.https://a/", "scheme 'torrent' is not known"),
    (MAP + '"https://a/" = "https://b/"\n"https://A" = "https://c/"', "map.https://A", "twice"),
    ("credentials = 1", "credentials", "must be a table"),
    ('[credentials]\n"h.example" = 1', "credentials.h.example", "must be a table"),
    ('[credentials."h/x"]', "credentials.h/x", "is no host"),
    ('[credentials."*"]', "credentials.*", "is no host"),
    ('[credentials."a.*.example"]', "credentials.a.*.example", "is no host name"),
    ('[credentials."h.example"]\n[credentials."H.example"]', "credentials.H.example", "twice"),
    (HOST + 'user = "x"', "credentials.h.example.user", "unknown key"),
    (HOST + 'username = "x"', "credentials.h.example.username", "needs a password"),
    (
        HOST + 'username = "x"\ntoken-env = "T"',
        "credentials.h.example.username",
        "needs a password",
    ),
    (HOST + 'username = "a:b"\npassword-env = "P"', "credentials.h.example.username", "no ':'"),
    (HOST + 'password-env = "P"', "credentials.h.example.password-env", "needs a username"),
    (
        HOST + 'token-env = "T"\ntoken-file = "/t"',
        "credentials.h.example.token-env",
        "there is token-file already",
    ),
    (HOST + 'token-file = "t"', "credentials.h.example.token-file", "must be the absolute path"),
    (HOST + 'token-env = "a b"', "credentials.h.example.token-env", "must be the name of a var"),
    (HOST + 'insecure = "yes"', "credentials.h.example.insecure", "must be true or false"),
    (HOST + 'client-key = "/k"', "credentials.h.example.client-key", "needs a certificate"),
    (HOST + 'client-cert = "/etc/passwd"', "credentials.h.example.client-cert", "no certificate"),
    ("helpers = []", "helpers", "must be a table"),
    ('[helpers]\n"h.example" = []', "helpers.h.example", "must name a program"),
    ('[helpers]\n"h.example" = ""', "helpers.h.example", "must name a program"),
    ('[helpers]\n"h.example" = "bin/x"', "helpers.h.example", "must be an absolute path"),
    ('[helpers]\n"h.example" = 3', "helpers.h.example", "must be a string, or a list of strings"),
    ('[helpers]\n"h.example" = "x get"', "helpers.h.example", "a string is one program"),
    ('[helpers]\n"h.example" = "/none/x -v"', "helpers.h.example", "a string is one program"),
    ('[helpers]\n"https://h" = "x"', "helpers.https://h", "is no host"),
    ('plugins = ["x"]', "plugins", "must be a table"),
    ("[plugins]\ntorrent = true", "plugins.torrent", "must be a table"),
    ("[plugins.Torrent]", "plugins.Torrent", "is no scheme"),
    ('[plugins."a+b"]', "plugins.a+b", "is no scheme"),
    ("[plugins.https]", "plugins.https", "means something already"),
    ("[plugins.file]", "plugins.file", "means something already"),
    ("[plugins.docker]", "plugins.docker", "means something already"),
    ("[plugins.sha256]", "plugins.sha256", "means something already"),
    ("[plugins.oci]", "plugins.oci", "means something already"),
    ("[plugins.x]\ncomand = 1", "plugins.x.comand", "unknown key"),
    ("[plugins.x]\ncommand = []", "plugins.x.command", "must name a program"),
    ('[plugins.x]\ncommand = "a b"', "plugins.x.command", "a string is one program"),
    ('[plugins.x]\ntimeout = "0s"', "plugins.x.timeout", "in no time"),
    ('[plugins.x]\ntimeout = "25h"', "plugins.x.timeout", "25h is more than 24h"),
    ("[limits]\nmembers = 1", "limits.members", "unknown key"),
    ("[limits]\nconnections = 0", "limits.connections", "over no connection"),
    ("[limits]\nconnections = 1.5", "limits.connections", "whole number"),
    ("[limits]\nconnections = 513", "limits.connections", "513 is more than 512"),
    (
        "[limits]\nconnections-per-host = 100000000",
        "limits.connections-per-host",
        "100000000 is more than 256",
    ),
    ("[limits]\nprefetch-connections = 257", "limits.prefetch-connections", "more than 256"),
    ('[limits]\nstall = "1000h"', "limits.stall", "1000h is more than 24h"),
    ('[limits]\nprefetch-rate = "9999999TiB/s"', "limits.prefetch-rate", "more than can be"),
    ('[mount]\nbudget = "9999999TiB"', "mount.budget", "more than can be counted"),
    ('[defaults]\ndeadline = "999999h"', "defaults.deadline", "more than ten years"),
    ('[limits]\nconnect = "10"', "limits.connect", "is no duration"),
    ('[limits]\nprefetch-rate = "50MiB"', "limits.prefetch-rate", "is no rate"),
    ('[limits]\nprefetch-rate = "0B/s"', "limits.prefetch-rate", "nothing comes"),
    ("[limits]\nprefetch-rate = 5", "limits.prefetch-rate", "must be a string"),
    ("[retry]\nretries = -1", "retry.retries", "0 or more"),
    ("[retry]\nretries = 1001", "retry.retries", "1001 is more than 1000"),
    ('[retry]\nmax-delay = "25h"', "retry.max-delay", "25h is more than 24h"),
    ("[retry]\nmultiplier = 1e9", "retry.multiplier", "is more than 100"),
    ("[retry]\nmultiplier = 0.5", "retry.multiplier", "would shorten"),
    ("[retry]\nmultiplier = nan", "retry.multiplier", "must be a number"),
    ("[retry]\nmultiplier = true", "retry.multiplier", "must be a number"),
    ("[retry]\njitter = 1", "retry.jitter", "must be true or false"),
]


@pytest.mark.parametrize(("text", "key", "says"), WRONG)
def test_a_wrong_value_names_file_and_key(world: World, text: str, key: str, says: str) -> None:
    world.user.write_text(text)
    error = world.refuse()
    assert error.path == str(world.user)
    assert error.key == key
    assert says in error.what


@pytest.mark.parametrize(
    "text",
    [
        HOST + f'password = "{SECRET}"',
        HOST + f'username = "me"\ntoken = "{SECRET}"',
        HOST + f'Token = "{SECRET}"',
        HOST + f'api_key = "{SECRET}"',
        f'[credentials]\n"h.example" = "me:{SECRET}"',
        f'[credentials."me:{SECRET}@h.example"]',
        f'[helpers]\n"me:{SECRET}@h.example" = "x"',
        f'[map]\n"https://me:{SECRET}@h.example/" = "https://b/"',
        f'[map]\n"https://h.example/" = "https://me:{SECRET}@b.example/"',
    ],
)
def test_a_secret_in_a_file_is_refused_with_a_hint_and_not_repeated(
    world: World, text: str
) -> None:
    world.user.write_text(text)
    error = world.refuse()
    assert error.path == str(world.user)
    assert SECRET not in f"{error.line} {error.key} {error!r}"
    assert "netrc" in error.hint or "credentials" in error.hint


@pytest.mark.parametrize("word", ["password-file", "token-file", "token-env", "password-env"])
def test_what_stands_where_a_secrets_place_should_be_is_not_repeated(
    world: World, word: str
) -> None:
    world.user.write_text(f'{HOST}username = "me"\n{word} = "{SECRET}"')
    assert SECRET not in f"{world.refuse().line}"


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked_for_its_password(
    world: World, certificate: Path, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None
    key = tmp_path / "encrypted"
    command = [openssl, "ec", "-aes256", "-passout", "pass:x", "-in", str(certificate)]
    subprocess.run([*command, "-out", str(key)], check=True, capture_output=True)
    world.user.write_text(f'{HOST}client-cert = "{certificate}"\nclient-key = "{key}"')
    error = world.refuse()
    assert error.key == "credentials.h.example.client-cert"
    assert "the key is encrypted" in error.what


@pytest.mark.parametrize("place", ["none", "directory", "pipe", "certificate.pem"])
def test_a_certificate_that_is_not_to_be_had_is_in_the_way_of_its_host_alone(
    world: World, place: str, certificate: Path
) -> None:
    home = world.user.parent
    (home / "directory").mkdir()
    os.mkfifo(home / "pipe")
    (home / "certificate.pem").write_bytes(certificate.read_bytes())
    key = '\nclient-key = "/none"' if place == "certificate.pem" else ""
    world.user.write_text(f'{HOST}client-cert = "{home}/{place}"{key}')
    (login,) = world.accept().logins
    assert login.client_cert == home / place


def test_the_least_stall_is_not_longer_than_the_longest(world: World) -> None:
    world.user.write_text('[limits]\nstall = "1s"')
    error = world.refuse()
    assert error.line == (
        f"{world.user}: limits.stall: 1s is less than limits.stall-floor, 2s when nobody says"
        " another (say limits.stall-floor too)"
    )
    world.user.write_text('[limits]\nstall = "1s"\nstall-floor = "3s"')
    assert world.refuse().line == (
        f"{world.user}: limits.stall-floor: 3s is more than limits.stall, 1s"
    )


def test_a_stall_that_does_not_fit_what_another_file_says_names_both(world: World) -> None:
    system = Path(world.environ["CAFS_SYSTEM_CONFIG"])
    system.write_text('[limits]\nstall = "10s"')
    world.user.write_text('[limits]\nstall-floor = "15s"')
    assert world.refuse().line == (
        f"{world.user}: limits.stall-floor: 15s is more than limits.stall of {system}, 10s"
    )


@pytest.mark.parametrize("where", ['[helpers]\n"h.example" = ', "[plugins.x]\ncommand = "])
def test_a_program_may_have_a_blank_in_its_name_if_it_is_there(world: World, where: str) -> None:
    program = world.user.parent / "my program"
    world.user.write_text(f'{where}"{program}"')
    error = world.refuse()
    assert "a string is one program" in error.what
    assert error.hint == '["program", "argument"]'
    assert str(program) not in error.line, "its arguments may be secrets"
    program.touch()
    world.accept()
    program.unlink()
    world.user.write_text(f'{where}["{program}", "-v"]')
    world.accept()


def test_a_wrong_rate_names_the_flag(world: World) -> None:
    error = world.refuse(limit="fast")
    assert (error.path, error.key) == ("command line", "--limit")


@pytest.mark.parametrize(
    "text",
    [
        'from = "torrent:x"',
        'from = "blob+torrent:x"',
        'from = "cimd:blob:v=0:torrent%3Ax"',
        'from = "https://h.example/x"\nmirrors = ["torrent:x"]',
        'by-platform."linux/sparc64" = {from = "torrent:x"}',
    ],
)
def test_a_scheme_that_nothing_enables_says_how_to_enable_it(world: World, text: str) -> None:
    world.project.write_text(f"[ref.a]\n{text}")
    world.user.write_text("[plugins.other]")
    error = world.refuse()
    assert error.path == str(world.project)
    assert error.key.startswith("ref.a.")
    assert "[plugins.torrent] in ~/.config/cafs/config.toml" in error.hint


def test_a_project_does_not_enable_a_plugin_for_itself(world: World) -> None:
    world.project.write_text('[ref.a]\nfrom = "torrent:x"\n[plugins.torrent]')
    assert world.refuse().key == "plugins"


ENTRY = 'by-platform."linux/sparc64" = {from = "https://h.example/x.tar"}'
CHOICES = [
    (ENTRY, "by-platform", "there is nothing for linux/"),
    (f'{ENTRY}\nplatform = "linux/arm64"', "by-platform", "there is nothing for linux/arm64"),
    ("by-platform = {}", "by-platform", "there is nothing for linux/"),
    ('by-platform = "x"', "by-platform", "must be a table"),
    ('by-platform."linux/arm" = "x"', "by-platform.linux/arm", "must be a table"),
    ('by-platform.linux = {from = "docker:x"}', "by-platform.linux", "is no platform"),
    ('by-platform."linux/arm" = {}', "by-platform.linux/arm.from", "is missing"),
    (
        'by-platform."linux/arm" = {from = "docker:x", pull = "new"}',
        "by-platform.linux/arm.pull",
        "unknown key",
    ),
    (
        'by-platform."linux/arm" = {from = "https://h/x", strip = 1}',
        "by-platform.linux/arm.strip",
        "a single file has no paths",
    ),
    (
        'by-platform."linux/arm" = {from = "file:../x"}',
        "by-platform.linux/arm.from",
        "lies outside the project",
    ),
    (
        (
            'by-platform."linux/amd64" = {from = "docker:x"}\n'
            'by-platform."linux/x86_64" = {from = "docker:y"}'
        ),
        "by-platform.linux/x86_64",
        "linux/amd64 is there twice",
    ),
    (f'{ENTRY}\nfrom = "docker:x"', "from", "there is by-platform too"),
    (f'{ENTRY}\nintegrity = "sha256:{"0" * 64}"', "integrity", "there is by-platform too"),
    (f'{ENTRY}\nmirrors = ["https://m"]', "mirrors", "there is by-platform too"),
    (f'{ENTRY}\nplatform = "x"', "platform", "is no platform"),
]


@pytest.mark.parametrize(("text", "key", "says"), CHOICES)
def test_y24_every_choice_by_platform_is_checked(
    world: World, text: str, key: str, says: str
) -> None:
    world.project.write_text(f"[ref.tool]\n{text}")
    error = world.refuse()
    assert error.path == str(world.project)
    assert error.key == f"ref.tool.{key}"
    assert says in error.what


def test_y24_a_missing_platform_names_those_that_there_are(world: World) -> None:
    other = ENTRY.replace("sparc64", "riscv64")
    world.project.write_text(f"[ref.tool]\n{ENTRY}\n{other}")
    assert world.refuse().hint == "there is linux/riscv64, linux/sparc64"
