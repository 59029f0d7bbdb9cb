"""Private sources as commands meet them: a real registry with passwords, mirrors that refuse."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cafs.testing.daemons import Daemon, Registry, free_port
from cafs.testing.faults import Status
from cafs.testing.guarding import RequireProof
from cafs.testing.objects import running_object_store
from cafs.testing.origin import Origin
from tests.conftest import Cafs, program

PASSWORD = "hush-hush-0815"
HTPASSWD = "me:$2b$04$CwnBlb9KJjmwo9irY/JDYugbWUIJXHb..1dMoQxT8e/7N7s3r0Lma\n"
HELPER = '#!/bin/sh\nread server\necho \'{{"Username": "me", "Secret": "{}"}}\'\n'


@pytest.fixture
def private(registry: Registry, busybox_image: str, tmp_path: Path) -> Iterator[str]:
    """The image of busybox in a registry that shows it to ``me`` alone: its ref."""
    root = tmp_path / "private"
    root.mkdir()
    port = free_port()
    (root / "users").write_text(HTPASSWD)
    (root / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: warn}}\n"
        f"storage:\n  filesystem: {{rootdirectory: {registry.root}/storage}}\n"
        f'http: {{addr: "127.0.0.1:{port}"}}\n'
        f"auth:\n  htpasswd: {{realm: test, path: {root}/users}}\n"
    )
    command = [program("docker-registry"), "serve", str(root / "config.yml")]
    daemon = Daemon(root, command, port)
    daemon.start()
    yield f"docker://127.0.0.1:{port}/{busybox_image}"
    daemon.stop()


def docker(cafs: Cafs, config: object) -> None:
    path = Path(cafs.environment["HOME"]) / ".docker" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))


def test_a_private_image_is_read_by_who_has_logged_in(cafs: Cafs, private: str) -> None:
    place = private.split("/")[2]
    cafs.project(f'[ref.box]\nfrom="{private}"\n')
    denied = cafs.run("ls", "box", check=False)
    assert denied.returncode == 6
    assert "wants credentials (basic)" in denied.stderr
    docker(cafs, {"auths": {place: {"auth": base64.b64encode(b"me:wrong").decode()}}})
    denied = cafs.run("auth", "test", "box", check=False)
    assert denied.returncode == 6
    assert f"{cafs.environment['HOME']}/.docker/config.json, auths" in denied.stdout
    login = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    docker(cafs, {"auths": {place: {"auth": login}}})
    assert "bin" in cafs.run("ls", "box").stdout.split()


def test_a_private_image_is_read_by_who_a_helper_of_docker_knows(cafs: Cafs, private: str) -> None:
    place = private.split("/")[2]
    helper = cafs.directory.parent / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(HELPER.format(PASSWORD))
    helper.chmod(0o755)
    cafs.environment["PATH"] = f"{helper.parent}:{cafs.environment['PATH']}"
    docker(cafs, {"credHelpers": {place: "test"}})
    cafs.project(f'[ref.box]\nfrom="{private}"\n')
    assert "bin" in cafs.run("ls", "box").stdout.split()
    done = cafs.run("auth", "test", "box")
    assert "credHelpers test: basic" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("code", [401, 403])
def test_a_source_that_refuses_leaves_the_word_to_the_next(
    cafs: Cafs, origin: Origin, code: int, *, pinned: bool
) -> None:
    content = b"content"
    first, second = origin.put("/first", content), origin.put("/second", content)
    third = origin.put("/third", content)
    origin.fault("/first", RequireProof(code=code))
    origin.fault("/second", Status(code=code))
    pin = f'integrity="sha256:{hashlib.sha256(content).hexdigest()}"\n' if pinned else ""
    cafs.project(f'[ref.a]\nfrom="blob+{first}"\nmirrors=["{second}", "{third}"]\n{pin}')
    assert cafs.run("cat", "a").stdout == "content"
    origin.fault("/third", Status(code=403))
    assert cafs.run("cat", "--store", cafs.directory / "other", "a", check=False).returncode == 6


def test_of_objects_it_is_told_where_the_keys_are_from_and_what_the_server_says(
    cafs: Cafs,
) -> None:
    with running_object_store() as objects:
        objects.put("bucket/file", b"content")
        cafs.environment.update(objects.environment)
        told = cafs.run("auth", "test", "s3://bucket/file").stdout.splitlines()
        assert told[1:] == ["  found   variable AWS_ACCESS_KEY_ID: key", "  answers yes"]
        for path, code in (("bucket/none", "NoSuchKey"), ("other/file", "NoSuchBucket")):
            done = cafs.run("auth", "test", f"s3://{path}", check=False)
            assert done.returncode == 3
            assert f"failed  GET s3://{path}: 404 Not Found ({code})" in done.stdout
        cafs.environment["AWS_SKIP_SIGNATURE"] = "true"
        done = cafs.run("auth", "test", "s3://bucket/file", check=False)
        assert done.returncode == 6
        assert "variable AWS_SKIP_SIGNATURE: nothing is signed" in done.stdout
        assert "refused GET s3://bucket/file: 403 Forbidden" in done.stdout
        cafs.environment["AWS_PROFILE"] = "nope"
        done = cafs.run("auth", "test", "s3://bucket/file", check=False)
        assert done.returncode == 6
        assert "refused AWS_PROFILE is 'nope'" in done.stdout


def test_an_image_that_is_missing_is_told_from_one_that_is_refused(
    cafs: Cafs, registry: Registry, busybox_image: str, private: str
) -> None:
    public = f"docker://{registry.host}"
    done = cafs.run("auth", "test", f"{public}/{busybox_image}")
    assert "showed  nothing: 200" in done.stdout
    done = cafs.run("auth", "test", f"{public}/nothing:1", check=False)
    assert done.returncode == 3
    assert "failed  GET http://" in done.stdout
    assert "404 Not Found" in done.stdout
    place = private.split("/")[2]
    docker(cafs, {"credHelpers": {place: "nowhere"}})
    done = cafs.run("auth", "test", private, check=False)
    assert done.returncode == 6
    assert "credHelpers nowhere: cannot be run: No such file" in done.stdout
