"""Secrets under a live mount: they open what they should, are renewed, and are found nowhere."""

import base64
import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import Redirect
from cafs.testing.guarding import RequireProof, basic
from cafs.testing.origin import Origin, running_origin
from tests.mount.kept_world import wait_for

pytestmark = pytest.mark.fuse

XATTRS = [f"user.cafs.{name}" for name in ("digest", "ref", "present", "trust", "error")]
LOUD = "import logging\nlogging.getLogger('cafs').setLevel(logging.DEBUG)\n"
STEMS = re.compile(b"hush-|" + base64.b64encode(b"hush-")[:6])
"""With one of these every form of a secret begins, or goes on: ``-`` fills no digit alone."""
HELPER = """#!{python} -IS
import json, sys
sys.stdin.read()
secret = open({file!r}).read()
sys.stdout.write(json.dumps({{"headers": {{"X-Key": [secret]}}}}))
"""


@dataclass(frozen=True, slots=True)
class Door:
    """A source that only some may read, and where the secret lies that opens it."""

    name: str
    origin: Origin
    guard: RequireProof
    place: Path
    text: str

    def lock(self, secret: str) -> None:
        """Let another secret open it, which nobody knows here."""
        match self.name:
            case "password" | "netrc" | "variable":
                self.guard.opens_to(basic("me", secret))
            case "token":
                self.guard.opens_to(f"Bearer {secret}")
            case "helper":
                self.guard.opens_to(secret)
            case _:
                self.guard.opens_to()

    def store(self, secret: str) -> None:
        """Put a secret where it is looked for."""
        self.place.write_text(self.text.format(secret))


class World:
    """Sources of every kind, a mount of them, and all secrets that there ever were."""

    def __init__(self, cafs: Cafs, stack: ExitStack) -> None:
        self.cafs = cafs
        self.root = cafs.directory.parent
        self.secrets: list[str] = []
        self.hidden = self.root / "hidden"
        self.hidden.mkdir()
        self.doors = {
            name: self._door(stack, name, place, text)
            for name, place, text in (
                ("password", self.hidden / "password", "{}"),
                ("token", self.hidden / "token", "{}\n"),
                ("helper", self.hidden / "key", "{}"),
                ("netrc", self.hidden / "netrc", "machine localhost login me password {}"),
                ("variable", self.hidden / "none", "{}"),
                ("identity", self.hidden / "config.json", ""),
            )
        }
        self.exchange = self.doors["identity"]
        self._configure()

    def _door(self, stack: ExitStack, name: str, place: Path, text: str) -> Door:
        origin = stack.enter_context(running_origin())
        guard = RequireProof(header="x-key" if name == "helper" else "authorization")
        if name == "identity":
            realm = origin.url("/token")
            guard = RequireProof(challenge=f'Bearer realm="{realm}",service="s",scope="x"')
            origin.serve("/token", self._token)
        for number in range(3):
            origin.put(f"/v2/x/blobs/{number}", b"%d" % number * 1000)
        origin.put("/v2/x/blobs/3", b"3")
        origin.fault("/v2/x/blobs/*", guard)
        return Door(name, origin, guard, place, text)

    def secret(self, name: str) -> str:
        """A new secret."""
        made = f"hush-{name}-{len(self.secrets):04}/+="
        self.secrets.append(made)
        return made

    def _token(self, ask: Ask) -> Answer:
        if quote_plus(self.identity) not in ask.body.decode():
            return text_answer(400, "{}")
        token = self.secret("access")
        self.exchange.guard.opens_to(f"Bearer {token}")
        return text_answer(200, json.dumps({"token": token, "expires_in": 1000}))

    def renew(self, name: str) -> None:
        """Let another secret open a door, and put it where it is looked for."""
        door, secret = self.doors[name], self.secret(name)
        door.lock(secret)
        if name == "identity":
            self.identity = secret
            auths = {f"127.0.0.1:{door.origin.port}": {"identitytoken": secret}}
            door.place.write_text(json.dumps({"auths": auths}))
        elif name == "variable":
            variable = f"CAFS_LOGIN_127_0_0_1_{door.origin.port}"
            self.cafs.environment[variable] = f"me:{secret}"
        else:
            door.store(secret)

    def _configure(self) -> None:
        for name in self.doors:
            self.renew(name)
        at = {name: f"127.0.0.1:{door.origin.port}" for name, door in self.doors.items()}
        program = self.root / "helper"
        file = str(self.hidden / "key")
        program.write_text(HELPER.format(python=sys.executable, file=file))
        program.chmod(0o755)
        settings = self.root / "config" / "cafs" / "config.toml"
        settings.parent.mkdir()
        settings.write_text(
            f'[credentials."{at["password"]}"]\nusername="me"\n'
            f'password-file="{self.hidden}/password"\n'
            f'[credentials."{at["token"]}"]\ntoken-file="{self.hidden}/token"\n'
            f'[helpers]\n"{at["helper"]}"="{program}"\n'
        )
        (self.root / "loud").mkdir()
        (self.root / "loud" / "sitecustomize.py").write_text(LOUD)
        self.cafs.environment |= {
            "NETRC": str(self.hidden / "netrc"),
            "DOCKER_CONFIG": str(self.hidden),
            "PYTHONPATH": str(self.root / "loud"),
        }

    def url(self, name: str, number: int) -> str:
        """The URL of one of a door's files."""
        url = self.doors[name].origin.url(f"/v2/x/blobs/{number}")
        return url.replace("127.0.0.1", "localhost") if name == "netrc" else url

    def project(self) -> str:
        """A ref for each file of each door, and one that is sent on to a signed URL."""
        tables = [
            f'[ref.{name}-{number}]\nfrom="blob+{self.url(name, number)}"\n'
            for name in self.doors
            for number in range(3)
        ]
        door, signature = self.doors["password"], self.secret("signature")
        there = self.doors["token"].origin.put("/signed", b"signed" * 100)
        target = f"{there}?X-Signature={quote_plus(signature)}"
        door.origin.fault("/v2/x/blobs/3", Redirect(target.replace("127.0.0.1", "localhost")))
        tables.append(f'[ref.signed]\nfrom="blob+{self.url("password", 3)}"\n')
        return '[mount]\npath="cafs"\n' + "".join(tables)

    def forms(self) -> list[bytes]:
        """Every secret in every form in which it travels."""
        spelled = [*self.secrets, *(basic("me", each).split()[1] for each in self.secrets)]
        spelled += [base64.b64encode(each.encode()).decode() for each in self.secrets]
        spelled += [quote_plus(each) for each in spelled]
        return sorted({each.encode() for each in spelled})

    def files(self) -> Iterator[Path]:
        """All that lies in the world, but for the places of the secrets and the mount."""
        mount = self.cafs.directory / "cafs"
        for top, names, files in os.walk(self.root):
            names[:] = [x for x in names if Path(top, x) not in {self.hidden, mount}]
            yield from (Path(top, x) for x in files)

    def check(self, *texts: str | bytes) -> None:
        """Fail if a secret is in one of the texts, or anywhere on disk."""
        found = [text if isinstance(text, bytes) else text.encode() for text in texts]
        regular = [path for path in self.files() if stat.S_ISREG(path.lstat().st_mode)]
        found += [path.read_bytes() for path in regular]
        forms = self.forms()
        assert all(STEMS.search(form) for form in forms)
        # Where there is no stem, there is none of the many forms.
        for content in filter(STEMS.search, found):
            for form in forms:
                at = content.find(form)
                assert at < 0, content[max(0, at - 300) : at + 300]


@pytest.fixture
def world(cafs: Cafs, fuse: None) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(cafs, stack)


def told(mount: Mount) -> list[bytes]:
    """All that a mount says of itself, in control files and extended attributes."""
    control = [path.read_bytes() for path in (mount.path / ".cafs").iterdir() if path.is_file()]
    found = list(control)
    for path in [mount.path, *(mount.path / "ref").iterdir()]:
        for name in {*XATTRS, *os.listxattr(path)}:
            try:
                found.append(os.getxattr(path, name))
            except OSError as error:
                assert error.errno in {errno.ENODATA, errno.EACCES}, (path, name)  # noqa: PT017
    return found


def spoken(cafs: Cafs, *arguments: str) -> str:
    done = cafs.run(*arguments, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_secrets_open_what_they_should_and_are_found_nowhere(world: World) -> None:
    cafs = world.cafs
    cafs.expect_log("DEBUG|INFO")
    with cafs.mount(world.project()) as mount:
        ref = mount.path / "ref"
        for name in world.doors:
            assert (ref / f"{name}-0").read_bytes() == b"0" * 1000, name
        assert (ref / "signed").read_bytes() == b"signed" * 100
        world.check(*told(mount), mount.log())
        renewable = [name for name in world.doors if name != "variable"]
        for name in renewable:
            world.renew(name)
            assert (ref / f"{name}-1").read_bytes() == b"1" * 1000, f"{name} is not renewed"
        for name, door in world.doors.items():
            door.lock(world.secret("unknown"))
            if name == "identity":
                world.identity = world.secret("unknown")
            with pytest.raises(PermissionError):
                (ref / f"{name}-2").read_bytes()
        log = mount.log()
        assert "DEBUG cafs.transport" in log
        status = spoken(cafs, "status"), spoken(cafs, "status", "--json")
        assert "refuses" in status[1] + log
        errors = (mount.path / ".cafs" / "errors.json").read_text()
        assert "credentials" in errors
        refused = [f"{name}-2" for name in world.doors]
        commands: list[tuple[str, ...]] = [("auth", "test", each) for each in refused]
        commands += [("auth", "test", "--json", "password-0"), ("prefetch", *refused)]
        commands += [("resolve", "--json", *refused), ("cat", "helper-2")]
        others = [spoken(cafs, *words) for words in commands]
        assert "refused" in "".join(others)
        world.check(*told(mount), log, *status, *others)
        former = mount.worker
        os.kill(former, signal.SIGKILL)
        wait_for(lambda: mount.worker not in {0, former})
        cafs.expect_log("was killed by signal 9")
        for name in renewable:
            world.renew(name)
            assert (ref / f"{name}-2").read_bytes() == b"2" * 1000, f"{name} after a restart"
        world.check(*told(mount), mount.log())
    world.check()


@pytest.mark.slow
def test_a_helper_in_the_mount_that_needs_it_holds_up_nobody_else(
    cafs: Cafs, origin: Origin, fuse: None
) -> None:
    """PATH leads through the mount: who starts the helper must be able to answer for it.

    Its directory cannot be shown before it has answered, so in the end it is given up.
    """
    path = cafs.directory / "cafs" / "ref" / "tools" / "bin"
    cafs.environment["PATH"] = f"{path}:{cafs.environment['PATH']}"
    settings = cafs.directory.parent / "config" / "cafs" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(f'[helpers]\n"127.0.0.1:{origin.port}" = "my-helper"\n')
    tree = origin.put("/tools.tar", tar_bytes({"bin/my-helper": (0o755, b"#!/bin/sh\n")}))
    origin.fault("/tools.tar", RequireProof())
    with running_origin() as other:
        refs = [f'[ref.other-{x}]\nfrom="{other.put(f"/{x}", b"o" * 9)}"\n' for x in range(20)]
        with cafs.mount(f'[ref.tools]\nfrom="{tree}"\n' + "".join(refs)) as mount:
            began = time.monotonic()
            command = ["cat", str(mount.path / "ref/tools/any")]
            reader = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            for number in range(20):
                assert (mount.path / f"ref/other-{number}").read_bytes() == b"o" * 9
            assert reader.poll() is None
            assert time.monotonic() - began < 8, "the helper's time is 10 s"
            _, said = reader.communicate(timeout=60)
            assert "Permission denied" in said
            errors = (mount.path / ".cafs/errors.json").read_text()
            assert "helper my-helper: no answer within 10 s" in errors


def test_a_check_like_this_finds_a_secret(world: World) -> None:
    (world.root / "leak").write_text(f"x {basic('me', world.secrets[0])} y")
    with pytest.raises(AssertionError, match="bWU6"):
        world.check()
