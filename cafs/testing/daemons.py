"""Real servers for tests: nginx and docker-registry, with a configuration and a port of their own.

They run in the foreground as children, write only below the directory that they are given, and end
with their context.
"""

import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.testing.images import Layout

_START_S: Final = 60.0
_POLL_S: Final = 0.02
_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")
"""A server ends when the thread that started it does: a test run that is killed leaves none."""
_LOWEST_PORT: Final = 10_000
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The ports that the kernel gives to whoever asks for any, and to connections."""
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_NGINX: Final = """
daemon off;
{user}
worker_processes 1;
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format counted '$request_method $request_uri $status $body_bytes_sent "$http_range"';
    access_log {root}/access.log counted;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        root {root}/files;
    }}
}}
"""
_NGINX_LINE: Final = re.compile(r'(\S+) (\S+) (\d+) (\d+) "(.*)"')
_REGISTRY: Final = """
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {root}/storage}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_REGISTRY_LINE: Final = re.compile(r'.*?"(GET|HEAD|PUT|POST|PATCH|DELETE) (\S+) \S+" (\d+) (\d+)')


@dataclass(frozen=True, slots=True)
class Logged:
    """A request as a server's access log has it. ``range`` is ``-`` or empty without one."""

    method: str
    path: str
    status: int
    bytes_sent: int
    range: str = ""


def find_program(name: str) -> str | None:
    """A program's path, administrators' directories included."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)


def free_port() -> int:
    """A loopback port that nothing listens on now, and that the kernel gives to nobody.

    A server needs a while until it listens, and some connection would get the port meanwhile.
    """
    count = int(_EPHEMERAL.read_text().split()[0]) - _LOWEST_PORT
    while True:
        with closing(socket.socket()) as probe:
            # Where all ports are the kernel's to give, it gives one.
            port = _LOWEST_PORT + secrets.randbelow(count) if count > 0 else 0
            with suppress(OSError):  # it is in use
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])


class Daemon:
    """A server process that can be stopped and started again on the same port.

    Concurrency: one thread.
    """

    def __init__(self, root: Path, command: list[str], port: int) -> None:
        self.root = root
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections.

        Raises:
            RuntimeError: it ended, or does not listen after a minute; with what it wrote.
        """
        with (self.root / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*_WITH_US, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        limit = time.monotonic() + _START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise RuntimeError(f"{self._command[0]}: {self.output()}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None

    def output(self) -> str:
        """Whatever it wrote to stdout and stderr."""
        return (self.root / "output").read_text(errors="replace")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except ConnectionRefusedError:
            return False
        return True


class Nginx(Daemon):
    """Nginx that serves ``files`` with ranges and ETags."""

    def __init__(self, root: Path, program: str, port: int) -> None:
        super().__init__(root, [program, "-p", str(root), "-c", str(root / "conf")], port)
        self.files = root / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        user = "user root;" if os.geteuid() == 0 else ""
        (root / "conf").write_text(_NGINX.format(root=root, port=port, user=user))
        self._marks = 0

    def url(self, path: str) -> str:
        """The URL of a path, which begins with ``/``."""
        return f"http://127.0.0.1:{self.port}{path}"

    def requests(self) -> tuple[Logged, ...]:
        """Every request that ended so far.

        One worker writes the log in order, so a request of our own marks the end of what counts.
        """
        self._marks += 1
        mark = f"/.mark-{self._marks}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("HEAD", mark)
            connection.getresponse().read()
        limit = time.monotonic() + _START_S
        while time.monotonic() < limit:
            lines = (self.root / "access.log").read_text().splitlines()
            if any(f" {mark} " in line for line in lines):
                found = [_NGINX_LINE.fullmatch(line) for line in lines if " /.mark-" not in line]
                return tuple(_logged(match) for match in found if match is not None)
            time.sleep(_POLL_S)
        raise TimeoutError(f"nginx does not log {mark}")

    def bytes_sent(self, path: str) -> int:
        """Bytes of bodies sent for one path."""
        return sum(one.bytes_sent for one in self.requests() if one.path == path)


class Registry(Daemon):
    """A docker-registry with an empty store."""

    def __init__(self, root: Path, program: str, port: int) -> None:
        super().__init__(root, [program, "serve", str(root / "config.yml")], port)
        (root / "config.yml").write_text(_REGISTRY.format(root=root, port=port))
        self._marks = 0

    @property
    def host(self) -> str:
        """``host:port``, as it stands in a reference."""
        return f"127.0.0.1:{self.port}"

    def push(self, layout: Layout, name: str) -> str:
        """Push what a layout's tag names as ``name`` (``app:1``), every byte as it is.

        Returns:
            The reference, ``host:port/name``.

        Raises:
            RuntimeError: skopeo failed; with what it said.
        """
        reference = f"{self.host}/{name}"
        command = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--all"]
        command += ["--preserve-digests", layout.reference, f"docker://{reference}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return reference

    def requests(self) -> tuple[Logged, ...]:
        """Every request that ended so far.

        A request of our own marks the end of what counts: an answer is logged when it has been
        sent, which is a moment after it has come.
        """
        self._marks += 1
        mark = f"/v2/mark/tags/{self._marks}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("HEAD", mark)
            connection.getresponse().read()
        limit = time.monotonic() + _START_S
        while time.monotonic() < limit:
            lines = self.output().splitlines()
            if any(f" {mark} " in line for line in lines):
                found = map(_REGISTRY_LINE.match, lines)
                logged = (_logged(match) for match in found if match is not None)
                return tuple(one for one in logged if not one.path.startswith("/v2/mark/"))
            time.sleep(_POLL_S)
        raise TimeoutError(f"the registry does not log {mark}")


def _logged(match: re.Match[str]) -> Logged:
    method, path, status, count, *rest = match.groups()
    return Logged(method, path, int(status), int(count), *rest)


@contextmanager
def running_nginx(root: Path, program: str) -> Iterator[Nginx]:
    """Nginx below ``root``, stopped at the end."""
    nginx = Nginx(root, program, free_port())
    nginx.start()
    try:
        yield nginx
    finally:
        nginx.stop()


@contextmanager
def running_registry(root: Path, program: str) -> Iterator[Registry]:
    """A docker-registry below ``root``, stopped at the end."""
    registry = Registry(root, program, free_port())
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
