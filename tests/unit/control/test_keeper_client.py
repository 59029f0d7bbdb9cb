"""The keeper from outside: how it is found, called and asked, whatever it answers."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cafs.control import keeper
from cafs.errors import MountError

STATUS = {
    "pid": 1,
    "state": "serving",
    "worker": 2,
    "workers": 3,
    "waiting": 4,
    "relayed": 5,
    "answered": 6,
    "resent": 7,
    "interrupted": 8,
    "notices": 9,
    "notices_dropped": 10,
}


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


class Asked:
    """What a keeper was asked, with what came along."""

    def __init__(self) -> None:
        self.words = b""
        self.descriptors: list[int] = []


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[Asked]:
    """A keeper that takes one command, and gives this answer; an empty one is none."""
    asked = Asked()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                asked.words, asked.descriptors, *_ = socket.recv_fds(client, 64, 4)
                if answer:
                    client.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            thread.join(60)
            for descriptor in asked.descriptors:
                os.close(descriptor)


def test_the_environment_names_the_program_first(tmp_path: Path) -> None:
    named = program(tmp_path / "mine")
    assert keeper.find_program({"CAFS_KEEPER": str(named)}) == named


def test_a_named_program_that_cannot_be_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="no-keeper-here"):
        keeper.find_program({"CAFS_KEEPER": str(tmp_path / "no-keeper-here")})


def test_the_path_is_searched_last_and_its_absence_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere" / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path / "nowhere"))
    found = program(tmp_path / "bin" / keeper.PROGRAM)
    assert keeper.find_program({"PATH": str(found.parent)}) == found
    with pytest.raises(MountError, match="not installed") as caught:
        keeper.find_program({"PATH": str(tmp_path)})
    assert "--no-keeper" in caught.value.hint


def test_a_program_beside_python_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = program(tmp_path / "venv" / keeper.PROGRAM)
    monkeypatch.setattr("sys.executable", str(found.parent / "python"))
    assert keeper.find_program({"PATH": ""}) == found


def test_mount_options_are_read_only_and_strict_unless_more_is_asked() -> None:
    assert str(keeper.MountOptions()) == "fsname=cafs,ro,default_permissions"
    everything = keeper.MountOptions(allow_other=True, suid=True, dev=True)
    assert str(everything) == "fsname=cafs,ro,default_permissions,allow_other,suid,dev"


@pytest.mark.parametrize("user", [None, "someone"])
def test_the_command_line_keeps_keeper_and_worker_apart(user: str | None) -> None:
    words = keeper.command(
        Path("/bin/cafs-keeper"),
        Path("/mnt"),
        ["python", "--worker", "--", "/mnt"],
        options=keeper.MountOptions(),
        user=user,
        control=Path("/run/x.sock"),
        live=Path("/run/x.json"),
        word=7,
    )
    ours = words[: words.index("--")]
    assert words[len(ours) + 1 :] == ["python", "--worker", "--", "/mnt"]
    assert ours[-1] == "/mnt"
    pairs = dict(zip(ours[1:-1:2], ours[2:-1:2], strict=True))
    expected = {
        "--options": "fsname=cafs,ro,default_permissions",
        "--control": "/run/x.sock",
        "--live": "/run/x.json",
        "--word": "7",
        "--read-ahead": "256",
    }
    assert pairs == expected | ({"--user": user} if user else {})


def test_status_is_what_the_keeper_says(tmp_path: Path) -> None:
    with answering(tmp_path / "s", json.dumps(STATUS).encode()) as asked:
        told = keeper.status(str(tmp_path / "s"))
    assert asked.words == b"status"
    assert (told.worker, told.notices_dropped) == (2, 10)


def test_a_newer_keeper_may_say_more(tmp_path: Path) -> None:
    with answering(tmp_path / "s", json.dumps(STATUS | {"mood": "fine"}).encode()):
        assert keeper.status(str(tmp_path / "s")).state == "serving"


def test_reload_sends_the_descriptor_for_the_word_along(tmp_path: Path) -> None:
    listen, speak = os.pipe()
    with answering(tmp_path / "s", b'{"ok":true,"worker":77}') as asked:
        done = keeper.reload(str(tmp_path / "s"), speak)
        os.close(speak)
    assert asked.words == b"reload"
    assert len(asked.descriptors) == 1
    assert (done.ok, done.worker) == (True, 77)
    # The keeper's copy was the last one.
    assert os.read(listen, 1) == b""
    os.close(listen)


def test_a_refused_reload_says_why(tmp_path: Path) -> None:
    with answering(tmp_path / "s", b'{"ok":false,"why":"exited with code 2"}'):
        done = keeper.reload(str(tmp_path / "s"), 0)
    assert (done.ok, done.why) == (False, "exited with code 2")


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"", "hung up"), (b"hello", "other things"), (b"{}", "other things")],
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes, words: str) -> None:
    with answering(tmp_path / "s", answer), pytest.raises(MountError, match=words):
        keeper.status(str(tmp_path / "s"))


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="no keeper listens"):
        keeper.status(str(tmp_path / "s"))


def test_a_keeper_that_is_stopped_is_an_error_and_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_STATUS_S", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen(0)
        for _ in range(3):  # also when nobody takes the connections any more
            with pytest.raises(MountError, match="does not answer"):
                keeper.status(str(tmp_path / "s"))
