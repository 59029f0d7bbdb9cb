"""What the sources say together: precedence, defaults, and what paths mean."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.errors import SettingsError
from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.model.digest import Digest
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef
from cafs.model.spec import Platform, RefSpec
from cafs.settings import loading, schema
from cafs.settings.loading import load_settings
from cafs.settings.values import Overrides, Settings

HEX = "0" * 64


class Place:
    """Where one test's settings are."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.project = top / "project"
        self.file = self.project / "cafs.toml"
        self.user = top / "home" / ".config" / "cafs" / "config.toml"
        self.system = top / "etc" / "config.toml"
        for file in (self.file, self.user, self.system):
            file.parent.mkdir(parents=True)
        self.environ = {"HOME": str(top / "home"), "CAFS_SYSTEM_CONFIG": str(self.system)}

    def load(
        self,
        overrides: Overrides | None = None,
        *,
        start: Path | None = None,
        environ: dict[str, str] | None = None,
        **more: str,
    ) -> Settings:
        return load_settings(
            start or self.project,
            project=None,
            overrides=overrides or Overrides(),
            environ=self.environ | (environ or {}) | more,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(Path(os.path.realpath(tmp_path)))


def test_other_stores_are_named_by_the_user_and_what_is_said_aloud_replaces_it(
    place: Place,
) -> None:
    place.user.write_text('[store]\nlook-in = ["~/other", "/layout"]\n')
    place.system.write_text('[store]\nlook-in = ["/system"]\n')
    home = place.top / "home"
    assert place.load().look_in == (home / "other", Path("/layout"))
    assert place.load(CAFS_LOOK_IN="/a::b").look_in == (Path("/a"), place.project / "b")
    flags = Overrides(look_in=(Path("/x"), Path("y")))
    assert place.load(flags, CAFS_LOOK_IN="/a").look_in == (Path("/x"), place.project / "y")
    place.user.write_text("[store]\nlook-in = []\n")
    assert place.load().look_in == ()


def test_how_much_a_store_may_have_is_for_the_user_and_what_is_said_aloud(place: Place) -> None:
    assert place.load().bounds == UNBOUNDED
    place.user.write_text('[store]\nquota = "20GiB"\nmin-free = "500MB"\n')
    place.system.write_text('[store]\nquota = "1GiB"\n')
    assert place.load().bounds == Bounds(20 << 30, 500 * 10**6)
    assert place.load(CAFS_QUOTA="64MiB", CAFS_MIN_FREE="0").bounds == Bounds(64 << 20, 0)
    flags = Overrides(quota="unlimited", min_free="1GiB")
    assert place.load(flags, CAFS_QUOTA="64MiB").bounds == Bounds(None, 1 << 30)
    with pytest.raises(SettingsError, match=r"--quota: '0': what is fetched must be somewhere"):
        place.load(Overrides(quota="0"))


def test_the_defaults(place: Place) -> None:
    assert place.load() == Settings(
        project_file=None,
        mount_point=None,
        view="/",
        budget=None,
        refs=(),
        deadline_s=60.0,
        on_error="fail",
        pull="lock",
        store=place.top / "home" / ".cache" / "cafs" / "store",
        allowed_hosts=frozenset(),
        dynamic=False,
        allow_other=False,
        preserve_owner=False,
        suid=False,
        dev=False,
        offline=False,
        ca_bundle=None,
    )


def test_a_whole_project_file(place: Place) -> None:
    place.file.write_text(
        f"""
        [mount]
        path = "cafs"
        view = "/ref/gcc/"
        budget = "20GiB"
        [defaults]
        verify = "block"
        deadline = "5m"
        on-error = "fail"
        pull = "update"
        [ref.gcc]
        from = "https://example.com/gcc-13.tar.gz"
        integrity = "sha256:{HEX}"
        strip = 1
        subdir = "/usr/"
        mirrors = ["https://mirror.example.org:8443/gcc-13.tar.gz", "file:gcc.tar.gz"]
        on-error = "wait"
        [ref.base]
        from = "docker://registry.example.com/debian:bookworm"
        platform = "linux/arm/v7"
        deadline = "10s"
        pull = "new"
        [ref."a.b"]
        from = "sha256:{HEX}"
        """
    )
    settings = place.load()
    assert settings.project_file == place.file
    assert settings.mount_point == place.project / "cafs"
    assert settings.view == "ref/gcc"
    assert settings.budget == 20 * 1024**3
    assert (settings.deadline_s, settings.on_error, settings.pull) == (300.0, "fail", "update")
    assert settings.refs == (
        RefSpec(
            name="a.b",
            ref=DigestRef(Digest.parse(f"sha256:{HEX}")),
            deadline_s=300.0,
            pull="update",
        ),
        RefSpec(
            name="base",
            ref=DockerRef("registry.example.com", "debian", "bookworm"),
            platform=Platform("linux", "arm", "v7"),
            deadline_s=10.0,
            pull="new",
        ),
        RefSpec(
            name="gcc",
            ref=ArchiveRef("https://example.com/gcc-13.tar.gz"),
            integrity=Digest.parse(f"sha256:{HEX}"),
            strip=1,
            subdir="usr",
            mirrors=(
                "https://mirror.example.org:8443/gcc-13.tar.gz",
                f"file://{place.project}/gcc.tar.gz",
            ),
            deadline_s=None,
            pull="update",
        ),
    )
    assert settings.allowed_hosts == {
        "example.com",
        "mirror.example.org:8443",
        "registry.example.com",
    }


SOURCES = ("flag", "variable", "project", "user", "system")
VALUES = {
    "view": ("a", "b", "c", "d", "e"),
    "budget": ("1B", "2B", "3B", "4B", "5B"),
    "deadline": ("1s", "2s", "3s", "4s", "5s"),
    "pull": ("new", "update", "never", "lock", "new"),
    "verify": ("provisional", "block", "provisional", "block", "provisional"),
}
EXPECTED = {
    "view": ("a", "b", "c", "d", "e"),
    "budget": (1, 2, 3, 4, 5),
    "deadline": (1.0, 2.0, 3.0, 4.0, 5.0),
    "pull": VALUES["pull"],
    "verify": VALUES["verify"],
}
FLAGS = {
    "view": Overrides(view="a"),
    "budget": Overrides(budget="1B"),
    "deadline": Overrides(deadline="1s"),
    "pull": Overrides(pull="new"),
    "verify": Overrides(verify="provisional"),
}
TABLES = {
    "view": "mount",
    "budget": "mount",
    "deadline": "defaults",
    "pull": "defaults",
    "verify": "defaults",
}


@pytest.mark.parametrize("key", VALUES)
@pytest.mark.parametrize("strongest", range(len(SOURCES)))
def test_flags_beat_variables_beat_project_beats_user_beats_system(
    place: Place, key: str, strongest: int
) -> None:
    values = dict(zip(SOURCES, VALUES[key], strict=True))
    for source in SOURCES[:strongest]:
        del values[source]
    for source, file in (("project", place.file), ("user", place.user), ("system", place.system)):
        if source in values:
            file.write_text(f'[{TABLES[key]}]\n{key} = "{values[source]}"')
    environ = {f"CAFS_{key.upper()}": values["variable"]} if "variable" in values else {}
    settings = place.load(FLAGS[key] if "flag" in values else None, environ=environ)
    got = settings.deadline_s if key == "deadline" else getattr(settings, key)
    assert got == EXPECTED[key][strongest]


SWITCHES: dict[str, tuple[str, Callable[[bool], Overrides]]] = {
    "dynamic": ("hosts.dynamic", lambda on: Overrides(dynamic=on)),
    "allow_other": ("mount.allow-other", lambda on: Overrides(allow_other=on)),
    "preserve_owner": ("mount.preserve-owner", lambda on: Overrides(preserve_owner=on)),
    "suid": ("mount.suid", lambda on: Overrides(suid=on)),
    "dev": ("mount.dev", lambda on: Overrides(dev=on)),
    "offline": ("network.offline", lambda on: Overrides(offline=on)),
}


@pytest.mark.parametrize("field", SWITCHES)
def test_switches_from_every_source(place: Place, field: str) -> None:
    dotted, flags = SWITCHES[field]
    table, _, key = dotted.partition(".")
    variable = f"CAFS_{field.upper()}"
    place.system.write_text(f"[{table}]\n{key} = true")
    assert getattr(place.load(), field) is True
    place.user.write_text(f"[{table}]\n{key} = false")
    assert getattr(place.load(), field) is False
    assert getattr(place.load(environ={variable: "1"}), field) is True
    assert getattr(place.load(environ={variable: ""}), field) is False
    for flag, text in ((False, "1"), (True, "0")):
        assert getattr(place.load(flags(flag), environ={variable: text}), field) is flag


def test_the_terms_of_a_ref_come_after_flags_and_before_defaults(place: Place) -> None:
    place.file.write_text(
        """
        [defaults]
        deadline = "1s"
        [ref.plain]
        from = "https://h.example/x"
        [ref.own]
        from = "https://h.example/x"
        deadline = "2s"
        [ref.patient]
        from = "https://h.example/x"
        on-error = "wait"
        """
    )

    def deadlines(settings: Settings) -> dict[str, float | None]:
        return {spec.name: spec.deadline_s for spec in settings.refs}

    assert deadlines(place.load()) == {"plain": 1.0, "own": 2.0, "patient": None}
    assert deadlines(place.load(Overrides(deadline="9s"))) == {
        "plain": 9.0,
        "own": 9.0,
        "patient": None,
    }
    assert set(deadlines(place.load(Overrides(on_error="fail"))).values()) == {1.0, 2.0}
    assert set(deadlines(place.load(CAFS_ON_ERROR="wait")).values()) == {None}
    assert place.load(CAFS_ON_ERROR="wait").deadline_s is None


def test_waiting_beats_every_deadline(place: Place) -> None:
    place.user.write_text('[defaults]\non-error = "wait"')
    settings = place.load(Overrides(deadline="5s"))
    assert settings.on_error == "wait"
    assert settings.deadline_s is None


def test_a_ref_that_several_files_define_is_the_strongest_ones_whole(place: Place) -> None:
    place.system.write_text('[ref.a]\nfrom = "https://s.example/a"\n[ref.s]\nfrom = "docker:s"')
    place.user.write_text('[ref.a]\nfrom = "https://u.example/a"\nmirrors = ["https://m.example/"]')
    place.file.write_text('[ref.a]\nfrom = "https://p.example/a"')
    settings = place.load()
    assert [spec.name for spec in settings.refs] == ["a", "s"]
    assert settings.refs[0].ref == BlobRef("https://p.example/a")
    assert settings.refs[0].mirrors == ()
    assert settings.allowed_hosts == {"p.example", "registry-1.docker.io"}


def test_allowed_hosts_add_up(place: Place) -> None:
    place.system.write_text('[hosts]\nallow = ["s.example"]')
    place.user.write_text('[hosts]\nallow = ["U.example:8443", "[::1]:80"]')
    settings = place.load(
        Overrides(allow_hosts=("f.example",)), CAFS_ALLOW_HOSTS="v.example, w.example:81"
    )
    assert settings.allowed_hosts == {
        "s.example",
        "u.example:8443",
        "[::1]:80",
        "f.example",
        "v.example",
        "w.example:81",
    }


def test_a_budget_can_be_lifted(place: Place) -> None:
    place.file.write_text('[mount]\nbudget = "1GiB"')
    assert place.load().budget == 1024**3
    assert place.load(Overrides(budget="unlimited")).budget is None


def test_the_project_file_is_found_upwards(place: Place) -> None:
    place.file.write_text('[mount]\npath = "m"')
    deep = place.project / "a" / "b"
    deep.mkdir(parents=True)
    settings = place.load(start=deep)
    assert settings.project_file == place.file
    assert settings.mount_point == place.project / "m"
    (place.project / "a" / "cafs.toml").write_text("")
    assert place.load(start=deep).project_file == place.project / "a" / "cafs.toml"


def test_a_project_file_can_be_named(place: Place) -> None:
    place.file.write_text('[mount]\nview = "found"')
    (place.project / "other.toml").write_text('[mount]\nview = "other"')
    (place.project / "third.toml").write_text('[mount]\nview = "third"')
    assert place.load(CAFS_CONFIG="other.toml").view == "other"
    settings = load_settings(
        place.project,
        project=Path("third.toml"),
        overrides=Overrides(),
        environ=place.environ | {"CAFS_CONFIG": "other.toml"},
    )
    assert settings.view == "third"


def test_relative_paths_start_where_they_are_written(place: Place, certificate: Path) -> None:
    (place.top / "cwd").mkdir()
    (place.top / "cwd" / "ca.pem").write_bytes(certificate.read_bytes())
    settings = place.load(
        Overrides(mount_point=Path("m"), store=Path("s"), ca_bundle=Path("ca.pem")),
        start=place.top / "cwd",
    )
    assert settings.mount_point == place.top / "cwd" / "m"
    assert settings.store == place.top / "cwd" / "s"
    assert settings.ca_bundle == place.top / "cwd" / "ca.pem"
    settings = place.load(
        start=place.top / "cwd", CAFS_MOUNT_POINT="m2", CAFS_STORE="s2", CAFS_CA_BUNDLE="ca.pem"
    )
    assert settings.mount_point == place.top / "cwd" / "m2"
    assert settings.store == place.top / "cwd" / "s2"
    assert settings.ca_bundle == place.top / "cwd" / "ca.pem"


def test_the_users_file_names_places(place: Place, certificate: Path) -> None:
    (place.top / "home" / "ca.pem").write_bytes(certificate.read_bytes())
    place.user.write_text(
        f"""
        [mount]
        path = "~/m"
        [store]
        path = "{place.top}/store"
        [network]
        ca-bundle = "~/ca.pem"
        [ref.local]
        from = "file:data/x.tar"
        [ref.other]
        from = "file:///srv/y"
        """
    )
    settings = place.load()
    assert settings.mount_point == place.top / "home" / "m"
    assert settings.store == place.top / "store"
    assert settings.ca_bundle == place.top / "home" / "ca.pem"
    assert settings.refs[0].ref == ArchiveRef(f"file://{place.user.parent}/data/x.tar")
    assert settings.refs[1].ref == BlobRef("file:///srv/y")


def test_xdg_directories_are_used_when_absolute(place: Place) -> None:
    other = place.top / "xdg" / "cafs" / "config.toml"
    other.parent.mkdir(parents=True)
    other.write_text('[mount]\nview = "xdg"')
    xdg = str(place.top / "xdg")
    settings = place.load(XDG_CONFIG_HOME=xdg, XDG_CACHE_HOME=xdg)
    assert settings.view == "xdg"
    assert settings.store == place.top / "xdg" / "cafs" / "store"
    settings = place.load(XDG_CONFIG_HOME="xdg", XDG_CACHE_HOME="xdg", start=place.top)
    assert settings.view == "/"
    assert settings.store == place.top / "home" / ".cache" / "cafs" / "store"


def test_a_project_may_read_its_own_files_through_its_own_symlinks(place: Place) -> None:
    (place.project / "data").mkdir()
    (place.project / "link").symlink_to("data")
    place.file.write_text('[ref.a]\nfrom = "file:link/x.tar"\n[ref.b]\nfrom = "file:gone/y"')
    settings = place.load()
    assert settings.refs[0].ref == ArchiveRef(f"file://{place.project}/link/x.tar")
    assert settings.refs[1].ref == BlobRef(f"file://{place.project}/gone/y")


def test_a_project_may_lie_behind_a_symlink_itself(place: Place) -> None:
    place.file.write_text('[mount]\npath = "m"\n[ref.a]\nfrom = "file:x"')
    (place.top / "alias").symlink_to(place.project)
    settings = place.load(start=place.top / "alias")
    assert settings.mount_point == place.project / "m"
    assert settings.refs[0].ref == BlobRef(f"file://{place.top}/alias/x")


def test_a_mount_point_that_is_a_symlink_inside_the_project_is_followed(place: Place) -> None:
    (place.project / "real").mkdir()
    (place.project / "m").symlink_to("real")
    place.file.write_text('[mount]\npath = "m"')
    assert place.load().mount_point == place.project / "real"


def test_the_table_of_settings_names_every_key_that_a_file_may_have() -> None:
    for table, keys in schema._TABLES.items():
        for key, may in keys.items():
            listed = f"\n{table}.{key} " in str(loading.__doc__)
            assert listed == (may is not schema._May.NOBODY), f"{table}.{key}"


def test_a_ref_says_for_itself_when_it_is_checked(place: Place) -> None:
    place.file.write_text(
        """
        [defaults]
        verify = "provisional"
        [ref.large]
        from = "blob+https://example.com/large"
        [ref.small]
        from = "blob+https://example.com/small"
        verify = "block"
        """
    )
    settings = place.load(None)
    assert {spec.name: spec.verify for spec in settings.refs} == {
        "large": "provisional",
        "small": "block",
    }
    assert settings.ad_hoc(settings.refs[0].ref).verify == "provisional"
