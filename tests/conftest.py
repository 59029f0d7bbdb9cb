"""Fixtures that every test may use. What they start is real, on loopback, and stopped after.

The rules that keep tests true:

- No network but loopback; ports are free ones; nothing is shared with the machine's own services.
- Waiting is for a condition, with a limit; never for a time.
- The origin's bytes travel on the real clock: tests on an autojump clock do not use it.
- An unexpected warning in a log fails the test (``@pytest.mark.expects_log("pattern")`` allows).
- Two processes share the run (``scripts/test``), file by file: whatever else the machine does may
  be another test. What belongs to all of it (its caches, its table of mounts, its processes) is
  neither changed nor counted, but for one's own part of it.
- Where CI is set, a missing program or /dev/fuse is a failure; elsewhere the test is skipped.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cafs.testing.command import Cafs, start_programs_by_fork
from cafs.testing.daemons import (
    Nginx,
    Registry,
    find_program,
    running_nginx,
    running_registry,
)
from cafs.testing.images import Image, Layer, Layout, busybox_items, write_layout
from cafs.testing.origin import Origin, running_origin
from tests.forked import ForkedCafs, Forks, forking

__all__ = ["Cafs", "Layout", "Nginx", "Origin", "Registry"]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of this file, and let nobody be disturbed by what else runs."""
    start_programs_by_fork()  # so that the origin answers while a program starts
    # How long an example takes is the machine's matter.
    slow = [HealthCheck.too_slow]
    settings.register_profile("any", settings.default, deadline=None, suppress_health_check=slow)
    settings.load_profile("any")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        # Under nohup, or in the background of a script, programs would be started deaf to these.
        if signal.getsignal(number) is signal.SIG_IGN:
            plain = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, plain)
    config.addinivalue_line(
        "markers", "expects_log(pattern): warnings that match the pattern may be logged"
    )


def lacking(what: str) -> None:
    """Skip the test, or fail it where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing; scripts/setup installs it", pytrace=False)
    pytest.skip(f"{what} is missing")


def program(name: str) -> str:
    """The path of a program that tests need."""
    found = find_program(name)
    if found is None:
        lacking(name)
        raise AssertionError
    return found


@pytest.fixture(autouse=True)
def no_unexpected_warning(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail a test whose code logged a warning or worse that it did not announce."""
    yield
    marks = request.node.iter_markers("expects_log")
    patterns = [re.compile(mark.args[0]) for mark in marks]
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    bad = [
        record.getMessage()
        for record in records
        if record.levelno >= logging.WARNING
        and not any(pattern.search(record.getMessage()) for pattern in patterns)
    ]
    assert not bad, f"logged: {bad}"


@pytest.fixture
def origin() -> Iterator[Origin]:
    """An HTTP origin with faults, on a free port."""
    with running_origin() as running:
        yield running


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Debian's nginx; what lies in ``nginx.files`` is served."""
    with running_nginx(tmp_path / "nginx", program("nginx")) as running:
        yield running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's docker-registry, one for all tests: push under a name of the test's own."""
    program("skopeo")
    root = tmp_path_factory.mktemp("registry")
    with running_registry(root, program("docker-registry")) as running:
        yield running


@pytest.fixture(scope="session")
def busybox_layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An image of busybox and a script, in one gzip layer, as an OCI layout."""
    items = busybox_items(Path(program("busybox")))
    path = tmp_path_factory.mktemp("busybox") / "layout"
    return write_layout(path, [Image((Layer(items),))])


@pytest.fixture(scope="session")
def busybox_image(registry: Registry, busybox_layout: Layout) -> str:
    """The repository in ``registry`` that has the busybox image, tagged ``latest``."""
    registry.push(busybox_layout, "test/busybox:latest")
    return "test/busybox"


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs verbs in processes that need not import anything."""
    with forking() as running:
        yield running


@pytest.fixture
def cafs(tmp_path: Path, forks: Forks) -> Cafs:
    """The command, with a home, a store and a project of its own; it need not import anything."""
    return ForkedCafs(tmp_path / "cafs-world", forks)


@pytest.fixture
def started(tmp_path: Path) -> Cafs:
    """The command as ``cafs``, but started as people start it, for what starting has to do with."""
    return Cafs(tmp_path / "cafs-world")


@pytest.fixture
def nobody_enters() -> None:
    """Nothing, where nobody, the user, may run what the tests run: a clone in /root is closed."""
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable]
    if os.geteuid() == 0:
        done = subprocess.run(
            [*command, "-P", "-c", "import cafs"], cwd="/", capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("other users may not enter this clone, or the directory that it is in")


@pytest.fixture(scope="session")
def fuse() -> None:
    """Nothing, where a file system can be mounted."""
    program("fusermount3")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lacking("a /dev/fuse that this user may open")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1, ::1 and ``here.test``, in one file."""
    path = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:here.test"]
    out = ["-keyout", str(path / "key"), "-out", str(path / "cert")]
    command = [program("openssl"), *words.split(), *names, *out]
    subprocess.run(command, check=True, capture_output=True)
    (path / "both").write_bytes((path / "key").read_bytes() + (path / "cert").read_bytes())
    return path / "both"
