"""Every refusal names the file, the key, and what is right instead."""

from pathlib import Path

import pytest

from cafs.errors import SettingsError
from cafs.settings.loading import load_settings
from cafs.settings.values import Overrides, Settings

HERE = "it belongs in ~/.config/cafs/config.toml or /etc/cafs/config.toml"
ELSEWHERE = HERE.replace("it belongs", "a ref to a file elsewhere belongs")
URL = 'from = "https://h.example/x.tar"'
BLOB = 'from = "https://h.example/x"'
IMAGE = 'from = "docker://debian"'


class World:
    """A project directory, a home and a system file of one test's own."""

    def __init__(self, top: Path) -> None:
        self.project = top / "project"
        self.project.mkdir()
        self.file = self.project / "cafs.toml"
        self.user = top / "home" / ".config" / "cafs" / "config.toml"
        self.user.parent.mkdir(parents=True)
        self.environ = {
            "HOME": str(top / "home"),
            "CAFS_SYSTEM_CONFIG": str(top / "system.toml"),
        }

    def load(
        self, overrides: Overrides | None = None, environ: dict[str, str] | None = None
    ) -> Settings:
        return load_settings(
            self.project,
            project=None,
            overrides=overrides or Overrides(),
            environ=self.environ | (environ or {}),
        )

    def refuse(
        self, overrides: Overrides | None = None, environ: dict[str, str] | None = None
    ) -> SettingsError:
        with pytest.raises(SettingsError) as caught:
            self.load(overrides, environ)
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


PROJECT_MAY_NOT = [
    ('[store]\npath = "/x"', "store.path"),
    ('[store]\nquota = "1GiB"', "store.quota"),
    ('[store]\nmin-free = "1GiB"', "store.min-free"),
    ('[store]\nlook-in = ["/x"]', "store.look-in"),
    ('[store]\nwhatever = "1GiB"', "store"),
    ('[map]\n"https://a/" = "https://b/"', "map"),
    ('[credentials]\nx = "y"', "credentials"),
    ('[helpers]\nx = "y"', "helpers"),
    ('plugins = ["x"]', "plugins"),
    ("[limits]\nmembers = 1", "limits"),
    ("[limits]\nconnections = 1", "limits.connections"),
    ("[retry]\nretries = 1", "retry.retries"),
    ('[plugins.torrent]\ncommand = "/evil"', "plugins"),
    ('[credentials."h.example"]\ntoken = "x"', "credentials"),
    ('[hosts]\nallow = ["evil.example"]', "hosts.allow"),
    ("[hosts]\ndynamic = true", "hosts.dynamic"),
    ("dynamic = true", "dynamic"),
    ('allowed-hosts = ["evil.example"]', "allowed-hosts"),
    ('[network]\nca-bundle = "/x"', "network.ca-bundle"),
    ('ca-bundle = "/x"', "ca-bundle"),
    ('[network]\nproxy = "http://evil.example"', "network.proxy"),
    ('proxy = "http://evil.example"', "proxy"),
    ("[network]\noffline = true", "network.offline"),
    ("[mount]\nallow-other = true", "mount.allow-other"),
    ("[mount]\npreserve-owner = true", "mount.preserve-owner"),
    ("[mount]\nsuid = true", "mount.suid"),
    ("[mount]\ndev = true", "mount.dev"),
]


@pytest.mark.parametrize(("text", "key"), PROJECT_MAY_NOT)
def test_what_a_project_may_not_say_says_where_it_belongs(
    world: World, text: str, key: str
) -> None:
    world.file.write_text(text)
    error = world.refuse()
    assert error.path == str(world.file)
    assert error.key == key
    assert error.line == f"{world.file}: {key}: a project file may not say this ({HERE})"


UNSUPPORTED = [
    ('[network]\nproxy = "http://p.example"', "network.proxy"),
]


@pytest.mark.parametrize(("text", "key"), UNSUPPORTED)
def test_what_nothing_reads_yet_is_refused_in_the_users_file_too(
    world: World, text: str, key: str
) -> None:
    world.user.write_text(text)
    error = world.refuse()
    assert error.path == str(world.user)
    assert error.key == key
    assert "not supported by this version" in error.what
    assert error.hint


UNKNOWN = [
    ("[mont]\n", "mont", "did you mean 'mount'?"),
    ("[defualts]\n", "defualts", "did you mean 'defaults'?"),
    ("[refs.x]\n", "refs", "did you mean 'ref'?"),
    ('budget = "1GiB"', "budget", "did you mean 'mount.budget'?"),
    ("xyzzy = 1", "xyzzy", "known: defaults, lock, mount, ref"),
    ('[mount]\npaht = "x"', "mount.paht", "did you mean 'path'?"),
    ("[mount]\nallow-others = true", "mount.allow-others", "known: budget, path, view"),
    ('[defaults]\non_error = "fail"', "defaults.on_error", "did you mean 'on-error'?"),
    ('[ref.gcc]\nform = "x"', "ref.gcc.form", "did you mean 'from'?"),
    ('[ref.gcc]\nintegrty = "x"', "ref.gcc.integrty", "did you mean 'integrity'?"),
    ('[ref.gcc.sub]\nfrom = "x"', "ref.gcc.sub", "did you mean 'subdir'?"),
]


@pytest.mark.parametrize(("text", "key", "hint"), UNKNOWN)
def test_an_unknown_key_names_the_nearest_valid_one(
    world: World, text: str, key: str, hint: str
) -> None:
    world.file.write_text(text)
    error = world.refuse()
    assert error.line == f"{world.file}: {key}: unknown key ({hint})"


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("dynamic = true", "dynamic", "hosts.dynamic"),
        ("offline = true", "offline", "network.offline"),
        ('ca-bundle = "/x"', "ca-bundle", "network.ca-bundle"),
        ('[stoer]\npath = "/x"', "stoer", "did you mean 'store'?"),
        ("[mount]\nallow-others = true", "mount.allow-others", "did you mean 'allow-other'?"),
    ],
)
def test_the_users_file_is_told_its_own_nearest_keys(
    world: World, text: str, key: str, hint: str
) -> None:
    world.user.write_text(text)
    error = world.refuse()
    assert error.line == f"{world.user}: {key}: unknown key ({hint})"


WRONG = [
    ("mount = 1", "mount", "must be a table"),
    ("[[mount]]", "mount", "must be a table"),
    ("ref = 1", "ref", "must be a table"),
    ("[ref]\ngcc = 1", "ref.gcc", "must be a table"),
    ("[mount]\npath = 1", "mount.path", "must be a string"),
    ("[mount]\nbudget = 1000", "mount.budget", "must be a string"),
    ('[mount]\nbudget = "20G"', "mount.budget", "is no size"),
    ('[mount]\nview = "a/../b"', "mount.view", "'..'"),
    ('[mount]\nview = "a\\u0000b"', "mount.view", "control characters"),
    ('[defaults]\nverify = "none"', "defaults.verify", "'none' is not known"),
    ('[defaults]\ndeadline = "60"', "defaults.deadline", "is no duration"),
    ("[defaults]\ndeadline = 60", "defaults.deadline", "must be a string"),
    ('[defaults]\non-error = "stay"', "defaults.on-error", "'stay' is not known"),
    ('[defaults]\npull = "always"', "defaults.pull", "'always' is not known"),
    (f'[ref.gcc]\n{URL}\nverify = "later"', "ref.gcc.verify", "'later' is not known"),
    ("[ref.gcc]", "ref.gcc.from", "is missing"),
    ("[ref.gcc]\nfrom = 1", "ref.gcc.from", "must be a string"),
    ('[ref.gcc]\nfrom = "gcc"', "ref.gcc.from", "is no ref"),
    ('[ref.gcc]\nfrom = "file:."', "ref.gcc.from", "names no file"),
    ('[ref.gcc]\nfrom = "sbr:1"', "ref.gcc.from", "sbr refs are not supported"),
    ('[ref.gcc]\nfrom = "https://u:p@h.example/x"', "ref.gcc.from", "credentials do not belong"),
    (f'[ref.gcc]\n{URL}\nintegrity = "sha256:00"', "ref.gcc.integrity", "64 hex digits"),
    (f'[ref.gcc]\n{URL}\nintegrity = "xyz"', "ref.gcc.integrity", "is no integrity string"),
    (f"[ref.gcc]\n{URL}\nstrip = -1", "ref.gcc.strip", "0 or more"),
    (f"[ref.gcc]\n{URL}\nstrip = true", "ref.gcc.strip", "whole number"),
    (f'[ref.gcc]\n{URL}\nstrip = "1"', "ref.gcc.strip", "whole number"),
    (f'[ref.gcc]\n{URL}\nsubdir = "../x"', "ref.gcc.subdir", "'..'"),
    (f'[ref.gcc]\n{URL}\nmirrors = "https://m"', "ref.gcc.mirrors", "must be a list of strings"),
    (f"[ref.gcc]\n{URL}\nmirrors = [1]", "ref.gcc.mirrors", "must be a plain string"),
    (f'[ref.gcc]\n{URL}\nmirrors = ["ftp://m"]', "ref.gcc.mirrors", "scheme 'ftp' is not known"),
    (f'[ref.gcc]\n{URL}\nplatform = "linux/amd64"', "ref.gcc.platform", "platforms are for images"),
    (f'[ref.gcc]\n{URL}\ndeadline = "x"', "ref.gcc.deadline", "is no duration"),
    (f'[ref.gcc]\n{URL}\non-error = "x"', "ref.gcc.on-error", "is not known"),
    (f'[ref.gcc]\n{URL}\npull = "x"', "ref.gcc.pull", "is not known"),
    (f"[ref.gcc]\n{BLOB}\nstrip = 1", "ref.gcc.strip", "a single file has no paths"),
    (f'[ref.gcc]\n{BLOB}\nsubdir = "a"', "ref.gcc.subdir", "a single file has no directories"),
    (f'[ref.gcc]\n{IMAGE}\nmirrors = ["https://m"]', "ref.gcc.mirrors", "mirrors are for refs"),
    (f'[ref.gcc]\n{IMAGE}\nplatform = "linux"', "ref.gcc.platform", "is no platform"),
    (f"[ref.docker]\n{URL}", "ref.docker", "refs that are named by path"),
    (f"[ref.blob]\n{URL}", "ref.blob", "refs that are named by path"),
    (f"[ref.archive]\n{URL}", "ref.archive", "refs that are named by path"),
    (f"[ref.appc]\n{URL}", "ref.appc", "refs that are named by path"),
    (f'[ref.".x"]\n{URL}', "ref..x", "no name for a ref"),
    (f'[ref."a/b"]\n{URL}', "ref.a/b", "no name for a ref"),
    (f'[ref.""]\n{URL}', "ref.", "no name for a ref"),
    (f'[ref."a\\n"]\n{URL}', "ref.a\n", "no name for a ref"),
    (f'[ref."{"x" * 256}"]\n{URL}', "ref." + "x" * 256, "no name for a ref"),
    (
        f'[ref.a]\nfrom = "sha256:{"0" * 64}"\nintegrity = "sha256:{"1" * 64}"',
        "ref.a.integrity",
        "is another digest",
    ),
]


@pytest.mark.parametrize(("text", "key", "says"), WRONG)
def test_a_wrong_value_names_file_and_key(world: World, text: str, key: str, says: str) -> None:
    world.file.write_text(text)
    error = world.refuse()
    assert error.path == str(world.file)
    assert error.key == key
    assert says in error.what


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ('[store]\npath = "relative"', "store.path", "must be an absolute path"),
        ('[store]\nlook-in = ["/x", "y"]', "store.look-in", "must be an absolute path"),
        ('[store]\nlook-in = "/x"', "store.look-in", "must be a list of strings"),
        ('[mount]\npath = "relative"', "mount.path", "must be an absolute path"),
        ("[mount]\nsuid = 1", "mount.suid", "must be true or false"),
        ('[hosts]\ndynamic = "yes"', "hosts.dynamic", "must be true or false"),
        ('[hosts]\nallow = ["https://h.example"]', "hosts.allow", "is no host"),
        ('[hosts]\nallow = "h.example"', "hosts.allow", "must be a list of strings"),
        ('[network]\nca-bundle = "/nowhere/ca.pem"', "network.ca-bundle", "there is no such file"),
    ],
)
def test_a_wrong_value_in_the_users_file(world: World, text: str, key: str, says: str) -> None:
    world.user.write_text(text)
    error = world.refuse()
    assert error.path == str(world.user)
    assert error.key == key
    assert says in error.what


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"[mount]\npath =\n", "line 2, column 7"),
        (b'[mount]\nview = "/"\nview = "/"\n', "line 3"),
        (b'[mount]\n\n\npath = "x', "line 4"),
        (b"[mount]\n# \xff\n", "line 2: is not UTF-8"),
        (b"x = " + b"[" * 50_000, "nested too deeply"),
        (b"#" * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_what_is_no_toml_names_file_and_line(world: World, text: bytes, place: str) -> None:
    world.file.write_bytes(text)
    error = world.refuse()
    assert error.path == str(world.file)
    assert place in error.line


@pytest.mark.parametrize("path", ["", ".", "./", "/abs", "..", "a/../..", "~/x"])
def test_a_project_mounts_below_itself_only(world: World, path: str) -> None:
    world.file.write_text(f'[mount]\npath = "{path}"')
    error = world.refuse()
    assert (error.path, error.key) == (str(world.file), "mount.path")
    assert "no path below this file" in error.what
    assert "command line" in error.hint


@pytest.mark.parametrize("path", ["link", "link/below", "inside/link", "twice"])
def test_a_project_does_not_mount_through_a_symlink_that_leaves_it(world: World, path: str) -> None:
    (world.project / "inside").mkdir()
    (world.project / "link").symlink_to("..")
    (world.project / "inside" / "link").symlink_to("/tmp")  # noqa: S108 - nothing is written there
    (world.project / "twice").symlink_to("link")
    world.file.write_text(f'[mount]\npath = "{path}"')
    error = world.refuse()
    assert error.key == "mount.path"
    assert "leads out of the project" in error.what


@pytest.mark.parametrize(
    "text",
    [
        'from = "file:///etc/passwd"',
        'from = "file:../secret"',
        'from = "file:link/secret"',
        'from = "file:sub/%2E%2E/%2E%2E/secret"',
        'from = "blob+file:///etc/passwd"',
        'from = "cimd:blob:v=0:file%3A%2F%2F%2Fetc%2Fpasswd"',
        'from = "https://h.example/x"\nmirrors = ["file:///etc/passwd"]',
    ],
)
def test_a_project_reads_files_below_itself_only(world: World, text: str) -> None:
    (world.project / "link").symlink_to("..")
    world.file.write_text(f"[ref.secret]\n{text}")
    error = world.refuse()
    assert error.path == str(world.file)
    assert error.key.startswith("ref.secret.")
    assert error.hint == ELSEWHERE


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("CAFS_BUDGET", "much", "is no size"),
        ("CAFS_DEADLINE", "soon", "is no duration"),
        ("CAFS_ON_ERROR", "x", "is not known"),
        ("CAFS_PULL", "x", "is not known"),
        ("CAFS_VERIFY", "x", "is not known"),
        ("CAFS_VIEW", "a/..", "'..'"),
        ("CAFS_OFFLINE", "maybe", "neither true nor false"),
        ("CAFS_ALLOW_HOSTS", "a.example, https://x", "is no host"),
        ("CAFS_CA_BUNDLE", "nowhere.pem", "there is no such file"),
        ("CAFS_CA_BUNDLE", "/dev/null", "it holds no certificates"),
        ("CAFS_CA_BUNDLE", "/", "Is a directory"),
    ],
)
def test_a_wrong_variable_is_named(world: World, variable: str, text: str, says: str) -> None:
    error = world.refuse(environ={variable: text})
    assert (error.path, error.key) == ("environment", variable)
    assert says in error.what


@pytest.mark.parametrize(
    ("overrides", "flag"),
    [
        (Overrides(budget="much"), "--budget"),
        (Overrides(deadline="0s"), "--deadline"),
        (Overrides(on_error="x"), "--on-error"),
        (Overrides(pull="x"), "--pull"),
        (Overrides(verify="x"), "--verify"),
        (Overrides(view=".."), "--view"),
        (Overrides(allow_hosts=("a b",)), "--allow-host"),
        (Overrides(ca_bundle=Path("nowhere.pem")), "--ca-bundle"),
    ],
)
def test_a_wrong_flag_is_named(world: World, overrides: Overrides, flag: str) -> None:
    error = world.refuse(overrides)
    assert (error.path, error.key) == ("command line", flag)


@pytest.mark.parametrize(
    ("number", "key", "says"),
    [
        (f"1{'0' * 5000}", "", "line 3: has a number that is too large"),
        (f"0x{'f' * 5000}", "ref.x.strip", "is a number that is too large"),
        ("-9223372036854775809", "ref.x.strip", "is a number that is too large"),
        (f"[1, 0o{'7' * 5000}]", "ref.x.strip", "is a number that is too large"),
    ],
    ids=["digits", "hexadecimal", "negative", "list"],
)
def test_a_number_that_nobody_can_count_to_is_refused(
    world: World, number: str, key: str, says: str
) -> None:
    world.file.write_text(f"[ref.x]\n{URL}\nstrip = {number}\n")
    error = world.refuse()
    assert (error.path, error.key) == (str(world.file), key)
    assert says in error.what
    assert len(error.line) < 500


def test_a_shared_mount_is_not_dynamic(world: World) -> None:
    error = world.refuse(Overrides(dynamic=True, allow_other=True))
    assert "fetches only from hosts that are configured" in error.what


def test_a_project_file_that_was_named_must_exist(world: World) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        load_settings(
            world.project,
            project=Path("other.toml"),
            overrides=Overrides(),
            environ=world.environ,
        )
    error = world.refuse(environ={"CAFS_CONFIG": "other.toml"})
    assert error.path == str(world.project / "other.toml")


def test_a_file_that_cannot_be_read_is_an_error_and_not_an_absent_one(world: World) -> None:
    world.user.mkdir()
    error = world.refuse()
    assert error.path == str(world.user)
    assert "cannot be read" in error.what
