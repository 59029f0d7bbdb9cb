"""Where credentials are found: each place by itself, and their order."""

import base64
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from cafs.model.login import HelperRule, HostLogin
from cafs.testing.guarding import basic
from cafs.transport.credentials.credential import Credential, Finding, UnusableError
from cafs.transport.credentials.netrc_file import Entry, entries
from cafs.transport.credentials.variables import variable_for
from cafs.transport.urls import Origin
from tests.unit.transport.identities import Home

SITE = "https://example.com/a/file?signature=hush"
REGISTRY = "https://registry.example.com/v2/app/manifests/latest"
SECRET = "hush-hush-0815"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def shown(finding: Finding) -> str:
    """The Authorization that is shown."""
    assert finding.credential is not None, finding.looks
    return dict(finding.credential.lines).get("Authorization", "")


def why(finding: Finding) -> str:
    assert finding.credential is None
    return finding.told


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- settings


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_a_password_file_may_end_with_a_line(home: Home, end: str) -> None:
    file = home.path / "secret"
    file.write_bytes(SECRET.encode() + end.encode())
    login = HostLogin(host="example.com", username="me", password_file=file)
    assert shown(await home.credentials([login]).of(SITE)) == basic("me", SECRET)


async def test_variables_that_settings_name_are_read(home: Home) -> None:
    home.environ |= {"TOKEN": SECRET, "PASSWORD": "other"}
    token = HostLogin(host="*.example.com", token_env="TOKEN")
    password = HostLogin(host="example.com:8443", username="me", password_env="PASSWORD")
    credentials = home.credentials([token, password])
    assert shown(await credentials.of(REGISTRY)) == f"Bearer {SECRET}"
    assert shown(await credentials.of("https://example.com:8443/")) == basic("me", "other")
    assert "8443" not in why(await credentials.of("https://example.com/"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "empty"), (b"\xff", "UTF-8"), (b"two\nlines", "no token")],
)
async def test_a_token_file_that_is_none_is_named(
    home: Home, content: bytes | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = home.path / "secret"
    if content is not None:
        file.write_bytes(content)
    told = why(await home.credentials([HostLogin(host="example.com", token_file=file)]).of(SITE))
    assert str(file) in told
    assert reason in told
    assert str(file) in caplog.text


async def test_a_pipe_that_nobody_writes_to_is_not_waited_for(
    home: Home, autojump_clock: object
) -> None:
    file = home.path / "secret"
    os.mkfifo(file)
    told = why(await home.credentials([HostLogin(host="example.com", token_file=file)]).of(SITE))
    assert "within 10 s" in told
    with file.open("wb"):  # let the thread go
        pass


async def test_files_that_hang_take_no_threads_from_others(
    home: Home, autojump_clock: object
) -> None:
    file = home.path / "secret"
    os.mkfifo(file)
    logins = [HostLogin(host="*.example.com", token_file=file)]
    usual = trio.to_thread.current_default_thread_limiter()
    credentials = home.credentials(logins)
    held = []
    for number in range(20):
        told = why(await credentials.of(f"https://h{number}.example.com/x"))
        assert "within 10 s" in told
        held.append(threading.active_count())
    assert usual.borrowed_tokens == 0
    # trio keeps a thread or two for those to come, unless an earlier test left it some.
    assert held[-1] <= held[0] + 1
    with file.open("wb"):  # let the threads go
        pass


# -- helpers


async def test_a_helper_is_asked_for_the_url_without_its_query(home: Home) -> None:
    program = str(home.helper("helper", {"headers": {"Authorization": [f"Bearer {SECRET}"]}}))
    credentials = home.credentials(helpers=[HelperRule("*.example.com", (program, "-v"))])
    found = await credentials.of("https://a.example.com/b/c?signature=hush#d")
    assert shown(found) == f"Bearer {SECRET}"
    assert home.asked("helper") == ['get {"uri":"https://a.example.com/b/c"}']


async def test_a_helper_may_have_several_values_and_none(home: Home) -> None:
    answer = {"headers": {"X-A": ["1", "2"], "Authorization": "Basic eA=="}, "more": {"a": 1}}
    program = str(home.helper("helper", answer))
    rules = [HelperRule("example.com", (program,))]
    found = (await home.credentials(helpers=rules).of(SITE)).credential
    assert found is not None
    assert found.lines == (("X-A", "1"), ("X-A", "2"), ("Authorization", "Basic eA=="))
    home.answers("helper", {})
    assert "nothing for this host" in why(await home.credentials(helpers=rules).of(SITE))


@pytest.mark.parametrize(
    "answer",
    [
        f'{{"headers": {{"Authorization": ["Bearer {SECRET}"]}}',
        f'{{"headers": ["{SECRET}"]}}',
        f'{{"headers": {{"A": "{SECRET}"}}, "expires": "{SECRET}"}}',
        f'{{"headers": {{"A": "{SECRET}"}}, "expires": "2040-01-01T00:00:00"}}',
        f'{{"headers": {{"A": "{SECRET}\\r\\nB: c"}}}}',
        f'{{"headers": {{"A {SECRET}": "b"}}}}',
        '{"headers": {"Host": "elsewhere"}}',
        '{"headers": {"Range": "bytes=0-1"}}',
        '{"headers": {"transfer-encoding": "chunked"}}',
        "\udcff",
        '{"more": ' + "[" * 20_000,
    ],
)
async def test_an_answer_that_is_none_is_not_repeated(
    home: Home, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    program = home.program("helper", f"#!/bin/sh\ncat {home.path}/said\n")
    (home.path / "said").write_bytes(answer.encode(errors="surrogateescape"))
    found = await home.credentials(helpers=[HelperRule("example.com", (str(program),))]).of(SITE)
    assert "helper" in why(found)
    for text in (why(found), repr(found), caplog.text):
        assert SECRET not in text


async def test_a_helper_by_its_name_is_looked_for_in_path(home: Home) -> None:
    home.helper("my-helper", {"headers": {"Authorization": [f"Bearer {SECRET}"]}})
    credentials = home.credentials(helpers=[HelperRule("example.com", ("my-helper",))])
    assert shown(await credentials.of(SITE)) == f"Bearer {SECRET}"


# -- variables


def test_no_two_hosts_share_a_variable() -> None:
    hosts = ["a-b.com", "a.b.com", "a.b-com", "a--b.com", "10.0.0.1", "10.0.0.1:80", "a.b.com:8"]
    names = [variable_for(Origin.of(f"https://{host}/")) for host in hosts]
    assert names[:2] == ["CAFS_LOGIN_A__B_COM", "CAFS_LOGIN_A_B_COM"]
    assert names[-1] == "CAFS_LOGIN_A_B_COM_8"
    assert len(set(names)) == len(hosts)
    for none in ("[::1]", "a_b.com"):
        assert variable_for(Origin.of(f"https://{none}/")) is None


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("me:a:b c", basic("me", "a:b c")),
        (f"Bearer {SECRET}", f"Bearer {SECRET}"),
        (f"bearer  {SECRET} ", f"Bearer {SECRET}"),
    ],
)
async def test_a_variable_holds_a_login_or_a_token(home: Home, value: str, line: str) -> None:
    home.environ["CAFS_LOGIN_EXAMPLE_COM"] = value
    assert shown(await home.credentials().of(SITE)) == line


async def test_a_variable_that_holds_neither_is_named_and_not_shown(home: Home) -> None:
    home.environ["CAFS_LOGIN_EXAMPLE_COM"] = SECRET
    told = why(await home.credentials().of(SITE))
    assert "CAFS_LOGIN_EXAMPLE_COM" in told
    assert SECRET not in told


# -- Docker


@pytest.mark.parametrize(
    ("key", "url", "found"),
    [
        ("registry.example.com", REGISTRY, True),
        ("https://registry.example.com", REGISTRY, True),
        ("https://registry.example.com/v1/", REGISTRY, True),
        ("https://registry.example.com/v2/", REGISTRY, True),
        ("registry.example.com:443", REGISTRY, True),
        ("registry.example.com:5000", REGISTRY, False),
        ("registry.example.com/app", REGISTRY, False),
        ("example.com", REGISTRY, False),
        ("https://index.docker.io/v1/", "https://registry-1.docker.io/v2/a/b/tags/list", True),
        ("docker.io", "https://registry-1.docker.io/v2/a/b/tags/list", True),
        ("example.com", SITE, True),
    ],
)
async def test_docker_names_a_registry_in_several_ways(
    home: Home, key: str, url: str, *, found: bool
) -> None:
    home.docker({"auths": {key: {"auth": encoded(f"me:{SECRET}")}}, "HttpHeaders": {"a": "b"}})
    finding = await home.credentials().of(url)
    assert (finding.credential is not None) == found
    if found:
        assert shown(finding) == basic("me", SECRET)


async def test_docker_keeps_logins_and_tokens(home: Home) -> None:
    def entry(**fields: str) -> None:
        home.docker({"auths": {"registry.example.com": fields}})

    entry(username="me", password=SECRET)
    assert shown(await home.credentials().of(REGISTRY)) == basic("me", SECRET)
    entry(registrytoken=SECRET)
    assert shown(await home.credentials().of(REGISTRY)) == f"Bearer {SECRET}"
    entry(auth=encoded("00000000-0000:"), identitytoken=SECRET)
    found = (await home.credentials().of(REGISTRY)).credential
    assert found is not None
    assert (found.refresh, found.lines, found.kind) == (SECRET, (), "identity token")
    entry()
    assert "nothing for this host" in why(await home.credentials().of(REGISTRY))


@pytest.mark.parametrize(
    "text",
    [
        f'{{"auths": {{"registry.example.com": {{"auth": "{SECRET}!"}}}}}}',
        f'{{"auths": {{"registry.example.com": {{"auth": "{encoded(SECRET)}"}}}}}}',
        f'{{"auths": ["{SECRET}"]}}',
        f"{SECRET}",
        '{"credHelpers": {"registry.example.com": "../../bin/sh"}}',
        '{"auths": {}, "more": ' + "[" * 20_000,
    ],
)
async def test_a_docker_configuration_that_is_none_is_named_and_not_shown(
    home: Home, text: str
) -> None:
    home.docker({})
    (home.path / ".docker/config.json").write_text(text)
    finding = await home.credentials().of(REGISTRY)
    assert ".docker/config.json" in why(finding)
    assert SECRET not in repr(finding)


async def test_docker_helpers_are_asked_before_the_file(home: Home) -> None:
    home.docker(
        {
            "auths": {"registry.example.com": {"auth": encoded("file:x")}, "a.com": {}},
            "credHelpers": {"registry.example.com": "one"},
            "credsStore": "all",
        }
    )
    one = f"docker-credential-{'one'}"
    home.helper(one, {"ServerURL": "", "Username": "one", "Secret": SECRET})
    home.helper("docker-credential-all", {"Username": "<token>", "Secret": SECRET})
    assert shown(await home.credentials().of(REGISTRY)) == basic("one", SECRET)
    assert home.asked(one) == ["get registry.example.com"]
    assert not home.asked("docker-credential-all")
    missing = "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n"
    home.program(one, missing)
    found = (await home.credentials().of(REGISTRY)).credential
    assert found is not None
    assert found.refresh == SECRET
    home.program("docker-credential-all", missing)
    assert shown(await home.credentials().of(REGISTRY)) == basic("file", "x")


async def test_the_store_of_all_is_asked_for_registries_alone(home: Home) -> None:
    home.docker({"credsStore": "all"})
    home.helper("docker-credential-all", {"Username": "me", "Secret": SECRET})
    assert "nothing" in why(await home.credentials().of(SITE))
    assert not home.asked("docker-credential-all")
    assert shown(await home.credentials().of("https://docker.io/v2/a/b/tags/l")) == basic(
        "me", SECRET
    )
    assert home.asked("docker-credential-all") == ["get https://index.docker.io/v1/"]


async def test_a_docker_helper_that_fails_is_told_by_its_exit_code_alone(home: Home) -> None:
    home.docker({"credsStore": "all"})
    home.program("docker-credential-all", f"#!/bin/sh\necho {SECRET}\necho {SECRET} >&2\nexit 7\n")
    told = why(await home.credentials().of(REGISTRY))
    assert "exit code 7" in told
    assert SECRET not in told


async def test_docker_config_names_another_directory(home: Home) -> None:
    (home.path / "elsewhere").mkdir()
    home.secret('{"auths": {"example.com": {"auth": "YTpi"}}}', "elsewhere/config.json")
    home.environ["DOCKER_CONFIG"] = str(home.path / "elsewhere")
    assert shown(await home.credentials().of(SITE)) == basic("a", "b")


# -- netrc


def test_netrc_is_read_as_curl_reads_it() -> None:
    text = """
    # machine commented.example login a password b
    machine one.example login a password b
    machine two.example
        login "a b" account x
        password "q\\"uo te" strange words
    macdef init
      machine inside.example login a password b

    MACHINE ignored
    machine one.example login second password second
    default login d password d
    machine #three password p#q login #l
    machine empty.example
    """
    assert entries(text) == {
        "one.example": Entry("a", "b"),
        "two.example": Entry("a b", 'q"uo te'),
        "#three": Entry("#l", "p#q"),
        "empty.example": Entry("", ""),
    }


async def test_netrc_is_for_all_ports_and_default_for_nobody(home: Home) -> None:
    home.netrc(f"machine example.com login me password {SECRET}\ndefault login d password d")
    credentials = home.credentials()
    for url in (SITE, "https://example.com:8443/", "https://EXAMPLE.com/"):
        assert shown(await credentials.of(url)) == basic("me", SECRET)
    assert "nothing for this host" in why(await credentials.of("https://other.example/"))


async def test_settings_may_keep_netrc_out_of_it(home: Home) -> None:
    home.netrc("machine example.com login me password p")
    login = HostLogin(host="example.com", netrc=False)
    assert "as settings say" in why(await home.credentials([login]).of(SITE))


async def test_netrc_is_where_its_variable_says(home: Home) -> None:
    home.environ["NETRC"] = str(home.secret("machine example.com login a password b", "other"))
    assert shown(await home.credentials().of(SITE)) == basic("a", "b")


async def test_a_password_that_is_not_utf_8_is_shown_as_it_is(home: Home) -> None:
    home.netrc("").write_bytes(b"machine example.com login me password caf\xe9")
    assert shown(await home.credentials().of(SITE)) == "Basic bWU6Y2Fm6Q=="


async def test_a_machine_without_a_password_is_named(home: Home) -> None:
    home.netrc("machine example.com login me")
    assert "no password" in why(await home.credentials().of(SITE))


# -- their order


async def test_the_first_place_that_has_something_decides(home: Home) -> None:
    home.netrc("machine example.com login netrc password p")
    assert shown(await home.credentials().of(SITE)) == basic("netrc", "p")
    home.docker({"auths": {"example.com": {"auth": encoded("docker:p")}}})
    assert shown(await home.credentials().of(SITE)) == basic("docker", "p")
    home.environ["CAFS_LOGIN_EXAMPLE_COM"] = "variable:p"
    assert shown(await home.credentials().of(SITE)) == basic("variable", "p")
    program = str(home.helper("helper", {"headers": {"Authorization": ["Basic aGVscGVy"]}}))
    helpers = [HelperRule("example.com", (program,))]
    assert shown(await home.credentials(helpers=helpers).of(SITE)) == "Basic aGVscGVy"
    login = HostLogin(host="example.com", username="said", password_file=home.secret("p"))
    found = await home.credentials([login], helpers).of(SITE)
    assert shown(found) == basic("said", "p")
    assert [look.found for look in found.looks] == [True]


async def test_a_place_that_fails_is_passed_over_and_told(home: Home) -> None:
    home.netrc("machine example.com login netrc password p")
    home.docker([])
    helpers = [HelperRule("example.com", ("/nowhere/helper",))]
    found = await home.credentials(helpers=helpers).of(SITE)
    assert shown(found) == basic("netrc", "p")
    assert "helper /nowhere/helper: cannot be run: No such file" in found.told
    assert "not a Docker configuration" in found.told


@pytest.mark.parametrize(
    ("url", "permitted"),
    [
        ("https://example.com/", True),
        ("http://example.com/", False),
        ("http://localhost:5000/", True),
        ("http://127.0.0.1:5000/", True),
        ("http://[::1]:5000/", True),
        ("http://127.0.0.1.example.com/", False),
        ("http://localhost.example.com/", False),
        ("http://insecure.example.com/", True),
        ("http://insecure.example.com:8080/", False),
    ],
)
async def test_credentials_go_by_https_or_to_this_machine(
    home: Home, url: str, *, permitted: bool
) -> None:
    program = str(home.helper("helper", {"headers": {"X-Key": ["k"]}}))
    hosts = ("*.example.com", "example.com", "localhost:5000", "127.0.0.1:5000", "[::1]:5000")
    helpers = [HelperRule(host, (program,)) for host in hosts]
    insecure = HostLogin(host="insecure.example.com", insecure=True)
    found = await home.credentials([insecure], helpers).of(url)
    assert (found.credential is not None) == permitted
    if not permitted:
        assert "plain http" in found.told
        assert not home.asked("helper"), "nobody is asked for what may not be shown"


# -- values


def test_no_repr_shows_a_secret() -> None:
    for credential in (
        Credential.basic("me", SECRET, "here"),
        Credential.bearer(SECRET, "here"),
        Credential.identity(SECRET, "here"),
        Credential.headers([("A", SECRET)], "here", None),
    ):
        assert SECRET not in repr(credential)
        assert encoded(f"me:{SECRET}") not in repr(credential)
        assert "here" in repr(credential)


@pytest.mark.parametrize(
    "make",
    [
        partial(Credential.basic, "m:e", SECRET, "here"),
        partial(Credential.bearer, f"{SECRET}\n", "here"),
        partial(Credential.bearer, "", "here"),
        partial(Credential.identity, f"a {SECRET}", "here"),
    ],
)
def test_a_credential_that_no_request_can_have_is_refused(make: Callable[[], Credential]) -> None:
    with pytest.raises(UnusableError, match="here") as caught:
        make()
    assert SECRET not in repr(caught.value)
