"""The runner of the command notices what it must notice."""

import sys
from pathlib import Path

import pytest

from cafs.testing.command import Cafs

STUB = """
import json, os, subprocess, sys
ended = subprocess.Popen(["true"])
ended.wait()
log = os.path.join(os.environ["XDG_STATE_HOME"], "log")
if sys.argv[1] == "mount":
    toml = open("cafs.toml").read()
    open(log, "w").write(toml.split("says ")[1].rstrip("'\\n") if "says " in toml else "INFO fine")
    print(json.dumps({"mount_point": os.path.abspath("cafs"), "pid": ended.pid, "log": log}))
elif sys.argv[1] == "env":
    print(json.dumps(dict(os.environ)))
else:
    sys.exit("no such verb")
"""


@pytest.fixture
def stub(tmp_path: Path) -> Cafs:
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    return Cafs(tmp_path / "world", (sys.executable, str(script)))


def test_a_failure_raises_with_what_was_said_unless_asked_not_to(stub: Cafs) -> None:
    with pytest.raises(AssertionError, match="exit 1\nno such verb"):
        stub.run("nothing")
    assert stub.run("nothing", check=False).returncode == 1


def test_the_process_knows_nothing_of_the_users_own_world(
    stub: Cafs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAFS_STORE", "/somewhere")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    said = stub.run("env").stdout
    assert "/somewhere" not in said
    assert "proxy.example" not in said
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        assert f'"{name}": "{tmp_path}/world/' in said


def test_a_mount_writes_the_project_and_gives_the_log(stub: Cafs) -> None:
    with stub.mount('[ref.x]\nfrom = "y"\n') as mount:
        assert mount.path == stub.directory / "cafs"
        assert mount.ref("x") == stub.directory / "cafs" / "ref" / "x"
        assert mount.log() == "INFO fine"
        assert not mount.is_mounted()
    assert (stub.directory / "cafs.toml").read_text().startswith('[mount]\npath = "cafs"\n')


@pytest.mark.parametrize("line", ["WARNING store odd", "Traceback (most recent call last):"])
def test_what_the_worker_should_not_have_logged_fails(
    stub: Cafs, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="the worker logged"), stub.mount(f"# says {line}"):
        pass
    assert line in capsys.readouterr().err
    stub.expect_log("store odd|Traceback")
    with stub.mount():
        pass


def test_the_log_is_shown_when_the_test_fails(
    stub: Cafs, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError), stub.mount("# says INFO how it came"):
        raise KeyError
    assert "INFO how it came" in capsys.readouterr().err
