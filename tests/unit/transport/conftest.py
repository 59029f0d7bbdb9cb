"""What the transport's tests share: a certificate for this machine."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import program


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
