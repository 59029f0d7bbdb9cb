"""An S3 server: moto in server mode, a process of its own on loopback."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.testing.daemons import free_port

_START_S: Final = 120.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running server that has a bucket named ``bucket``; ``url`` is its endpoint."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client to it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_REGION": "us-east-1",
        }

    def put(self, path: str, body: bytes = b"", media_type: str = "x/y") -> None:
        """Make a new object (``bucket/key``), or a bucket."""
        request = urllib.request.Request(  # noqa: S310 - its own URL
            f"{self.url}/{path}", data=body, headers={"Content-Type": media_type}, method="PUT"
        )
        urllib.request.urlopen(request).close()  # noqa: S310 - likewise


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """A server, for as long as the block lasts.

    Raises:
        TimeoutError: it did not start.
    """
    port = free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as moto:
        try:
            until = time.monotonic() + _START_S
            while not _reachable(port):
                if moto.poll() is not None or time.monotonic() > until:
                    raise TimeoutError(f"{program} did not start")
                time.sleep(_POLL_S)
            store = ObjectStore(f"http://127.0.0.1:{port}")
            store.put("bucket")
            yield store
        finally:
            moto.terminate()


def _reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
