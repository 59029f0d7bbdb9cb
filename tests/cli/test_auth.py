"""``cafs auth test``: what was looked at, what was shown, what came of it, and no secret."""

import base64
import json
from pathlib import Path

import pytest

from cafs.testing.faults import Redirect, RequireBearer, Status
from cafs.testing.guarding import RequireProof, basic
from cafs.testing.origin import Origin
from tests.conftest import Cafs

SECRET = "hush-hush-0815"
HIDDEN = (SECRET, base64.b64encode(f"me:{SECRET}".encode()).decode())


@pytest.fixture
def guard(origin: Origin) -> RequireProof:
    """A file that is shown to ``me`` alone."""
    origin.put("/file", b"content")
    made = RequireProof().opens_to(basic("me", SECRET))
    origin.fault("/file", made)
    return made


def configure(cafs: Cafs, toml: str) -> None:
    path = Path(cafs.environment["XDG_CONFIG_HOME"]) / "cafs" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(toml)


def facts(cafs: Cafs, *arguments: str, code: int = 0) -> list[dict[str, object]]:
    """What it says for programs, once it has said the same to people."""
    told = cafs.run("auth", "test", *arguments, check=False)
    done = cafs.run("auth", "test", "--json", *arguments, check=False)
    for each in (told, done):
        assert each.returncode == code, each.stdout + each.stderr
        assert "Traceback" not in each.stderr
        for secret in HIDDEN:
            assert secret not in each.stdout + each.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_who_is_known_is_told_from_where(cafs: Cafs, origin: Origin, guard: RequireProof) -> None:
    file = cafs.directory.parent / "secret"
    file.write_text(SECRET)
    url = origin.url("/file")
    host = f"127.0.0.1:{origin.port}"
    configure(cafs, f'[credentials."{host}"]\nusername="me"\npassword-file="{file}"\n')
    cafs.project(f'[ref.file]\nfrom="{url}?signature={SECRET}"\n')
    (fact,) = facts(cafs, "file")
    place = f'settings [credentials."{host}"], {file}'
    assert fact == {
        "ref": "file",
        "url": f"{url}?…",
        "looked": [{"place": place, "what": "basic", "found": True}],
        "certificate": None,
        "tried": [{"showed": f"basic from {place}", "outcome": "206"}],
        "status": 206,
        "code": None,
        "error": None,
    }
    told = cafs.run("auth", "test", "file").stdout
    assert f"found   {place}: basic" in told
    assert "answers yes" in told
    assert origin.bytes_sent() <= 3, "a byte is enough"


def test_who_is_not_known_is_told_where_was_looked(
    cafs: Cafs, origin: Origin, guard: RequireProof
) -> None:
    (fact,) = facts(cafs, origin.url("/file"), code=6)
    looked = fact["looked"]
    assert isinstance(looked, list)
    places = [each["place"] for each in looked]
    home = cafs.environment["HOME"]
    assert places == [
        f"variable CAFS_LOGIN_127_0_0_1_{origin.port}",
        f"{home}/.docker/config.json",
        f"{home}/.netrc",
    ]
    assert not any(each["found"] for each in looked)
    assert fact["code"] == "credentials"
    assert "refused" in cafs.run("auth", "test", origin.url("/file"), check=False).stdout


def test_each_source_is_asked_and_one_refusal_decides(
    cafs: Cafs, origin: Origin, guard: RequireProof
) -> None:
    """``[map]`` and mirrors are sources too."""
    mirror = origin.put("/mirror/file", b"content")
    configure(cafs, f'[map]\n"{origin.url("/file")}" = ["{origin.url("/mapped")}"]\n')
    origin.put("/mapped", b"content")
    cafs.project(
        f'[ref.file]\nfrom="{origin.url("/file")}"\n'
        f'mirrors=["{mirror}", "{origin.url("/none")}", "{origin.url("/kept")}"]\n'
    )
    origin.put("/kept", b"")
    origin.fault("/kept", Status(code=403))
    found = facts(cafs, "file", code=6)
    assert [each["url"] for each in found] == list(
        map(origin.url, ("/mapped", "/mirror/file", "/none", "/kept"))
    )
    assert [each["code"] for each in found] == [None, None, "not-found", "credentials"]
    assert not origin.requests_for("/file")


def test_a_source_that_does_not_answer_has_its_own_exit_code(cafs: Cafs, origin: Origin) -> None:
    url = origin.url("/none")
    (fact,) = facts(cafs, url, code=3)
    assert fact["status"] is None
    origin.stop()
    (fact,) = facts(cafs, url, code=5)
    assert fact["code"] == "unreachable"


def test_an_image_is_asked_for_by_its_manifest(cafs: Cafs, origin: Origin) -> None:
    origin.put("/v2/app/manifests/1", b"{}")
    origin.fault("/v2/*", RequireBearer(scope="repository:app:pull"))
    (fact,) = facts(cafs, f"docker://127.0.0.1:{origin.port}/app:1")
    tried = fact["tried"]
    assert isinstance(tried, list)
    assert [each["showed"] for each in tried] == [
        "nothing",
        f"token of {origin.url('/token')} for nobody in particular",
    ]
    assert tried[1]["outcome"] == "200"
    asked = origin.requests_for("/v2/app/manifests/1")[-1].header("accept") or ""
    assert "application/vnd.oci.image.manifest.v1+json" in asked


def test_what_a_redirect_refuses_is_told_as_such(
    cafs: Cafs, origin: Origin, guard: RequireProof
) -> None:
    there = origin.put("/there", b"").replace("127.0.0.1", "localhost")
    origin.fault("/there", RequireProof())
    origin.fault("/file", Redirect(there))
    cafs.environment[f"CAFS_LOGIN_127_0_0_1_{origin.port}"] = f"me:{SECRET}"
    (fact,) = facts(cafs, origin.url("/file"), code=6)
    assert "no credentials are shown to localhost" in str(fact["error"])
    assert origin.requests_for("/there")[-1].header("authorization") is None


def test_nobody_is_asked_offline(cafs: Cafs, origin: Origin) -> None:
    done = cafs.run("auth", "test", "--offline", origin.url("/file"), check=False)
    assert done.returncode == 5
    assert not origin.requests


def test_a_local_file_needs_no_credentials(cafs: Cafs) -> None:
    file = cafs.directory / "file"
    file.write_bytes(b"content")
    (fact,) = facts(cafs, f"file:{file}")
    assert fact["looked"] == fact["tried"] == []
    assert fact["code"] is None
    told = cafs.run("auth", "test", f"file:{file}").stdout.splitlines()
    assert told[1:] == ["  looked  nowhere: a local file needs none", "  answers yes"]
    (fact,) = facts(cafs, f"file:{file}-none", code=3)
    assert "No such file" in str(fact["error"])


def test_a_certificate_that_is_missing_fails_its_host_alone(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/file", b"content")
    certificate = cafs.directory / "missing.pem"
    configure(cafs, f'[credentials."localhost:1"]\nclient-cert="{certificate}"\n')
    facts(cafs, url)
    assert cafs.run("cat", f"blob+{url}").stdout == "content"
    (fact,) = facts(cafs, "https://localhost:1/x", code=6)
    assert fact["certificate"] == str(certificate)
    place = 'settings [credentials."localhost:1"]'
    assert fact["error"] == f"{place}: {certificate}: No such file or directory"


def test_content_that_only_a_digest_names_has_no_source(cafs: Cafs) -> None:
    done = cafs.run("auth", "test", f"sha256:{'0' * 64}", check=False)
    assert done.returncode == 3
    assert "no source" in done.stderr


def test_wrong_usage_names_the_help(cafs: Cafs) -> None:
    done = cafs.run("auth", "tset", check=False)
    assert done.returncode == 2
    assert "cafs auth --help" in done.stderr
    assert "test" in cafs.run("auth", "--help").stdout
