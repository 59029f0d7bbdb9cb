"""What tests of credentials share: a home with secrets in it, programs that know some, a client."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cafs.model.login import HelperRule, HostLogin
from cafs.transport.authenticating import Authenticating, Tried
from cafs.transport.credentials.keeping import Credentials
from cafs.transport.credentials.opening import open_credentials
from cafs.transport.credentials.running import Runner
from cafs.transport.http import HttpTransport
from cafs.transport.interfaces import Request, Transport
from cafs.transport.redirecting import Redirecting, RedirectPolicy

HELPER = """#!{python} -IS
import json, sys
from pathlib import Path
here = Path({answers!r})
with here.with_suffix(".asked").open("a") as asked:
    asked.write(sys.argv[-1] + " " + sys.stdin.read() + "\\n")
sys.stdout.write(here.read_text())
"""


class Home:
    """A home directory and an environment that lead to secrets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.programs = path / "bin"
        self.programs.mkdir(parents=True)
        self.environ = {"HOME": str(path), "PATH": f"{self.programs}:/usr/bin:/bin"}

    def secret(self, text: str, name: str = "secret") -> Path:
        """Write a file; its path."""
        file = self.path / name
        file.write_text(text)
        return file

    def program(self, name: str, script: str) -> Path:
        """Write a program; its path."""
        file = self.programs / name
        file.write_text(script)
        file.chmod(0o755)
        return file

    def helper(self, name: str, answer: object) -> Path:
        """A program that answers with this, until ``answers`` says otherwise."""
        self.answers(name, answer)
        script = HELPER.format(python=sys.executable, answers=str(self.path / f"{name}.json"))
        return self.program(name, script)

    def answers(self, name: str, answer: object) -> None:
        """Let a helper answer with this from now on."""
        (self.path / f"{name}.json").write_text(json.dumps(answer))

    def asked(self, name: str) -> list[str]:
        """What a helper was asked: its last argument, and what it read."""
        file = self.path / f"{name}.asked"
        return file.read_text().splitlines() if file.exists() else []

    def netrc(self, text: str) -> Path:
        """Write the netrc file; its path."""
        return self.secret(text, ".netrc")

    def docker(self, config: object) -> Path:
        """Write Docker's configuration; its path."""
        (self.path / ".docker").mkdir(exist_ok=True)
        return self.secret(json.dumps(config), ".docker/config.json")

    def credentials(
        self,
        logins: Sequence[HostLogin] = (),
        helpers: Sequence[HelperRule] = (),
        patience_s: float = 10.0,
    ) -> Credentials:
        """What all this amounts to."""
        runner = Runner(self.environ, patience_s)
        return open_credentials(logins, helpers, self.environ, runner)


@asynccontextmanager
async def authenticating(
    credentials: Credentials | None = None, tried: list[Tried] | None = None
) -> AsyncIterator[Transport]:
    """A transport as it is wired, with these credentials; what it tries is added to the list."""
    policy = RedirectPolicy()
    witness = ([] if tried is None else tried).append
    inner = Redirecting(HttpTransport(), policy)
    transport = Authenticating(inner, policy, credentials, witness)
    try:
        yield transport
    finally:
        await transport.aclose()


async def read(transport: Transport, url: str) -> bytes:
    """Ask, and read the body."""
    pieces = []
    async with await transport.open(Request(url)) as response:
        while piece := await response.receive():
            pieces.append(piece)
    return b"".join(pieces)
