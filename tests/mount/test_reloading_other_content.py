"""A reload with settings that say something else of a name: nothing old is taken for it."""

import errno
import os
import time
from typing import BinaryIO

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from tests.mount.kept_world import wait_for

pytestmark = pytest.mark.fuse
TOP = '[mount]\npath="cafs"\n'
SIZE = 300_000
SOON_S = 3.0


def settings(tree: str, model: str) -> str:
    return f'{TOP}[ref.tree]\nfrom="{tree}"\n[ref.model]\nfrom="{model}"\n'


def bytes_or_stale(file: BinaryIO) -> bytes:
    try:
        return file.read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return b""


def test_a_name_shows_what_the_new_settings_say_and_nothing_of_the_old(
    cafs: Cafs, origin: Origin
) -> None:
    # Same names, same sizes, same times: only the bytes differ.
    old = origin.put("/1.tar", tar_bytes({"bin/cc": (0o755, b"1" * SIZE), "only": (0o644, b"1")}))
    new = origin.put("/2.tar", tar_bytes({"bin/cc": (0o755, b"2" * SIZE), "late": (0o644, b"2")}))
    models = [origin.put(f"/model{number}", b"%d" % number * SIZE) for number in (1, 2)]
    with cafs.mount(settings(old, models[0])) as mounted:
        tree, model = mounted.ref("tree"), mounted.ref("model")
        assert set(os.listdir(tree)) == {"bin", "only"}
        assert (tree / "bin/cc").read_bytes() == b"1" * SIZE
        assert model.read_bytes() == b"1" * SIZE
        with model.open("rb") as held:
            cafs.project(settings(new, models[1]))
            cafs.run("reload")
            reloaded = time.monotonic()
            # The kernel believes a name for a second; then all of it is the new one.
            wait_for((tree / "late").exists, SOON_S)
            assert set(os.listdir(tree)) == {"bin", "late"}
            assert (tree / "bin/cc").read_bytes() == b"2" * SIZE
            while (content := model.read_bytes()) != b"2" * SIZE:
                assert content == b"1" * SIZE
                assert time.monotonic() < reloaded + SOON_S
            # Who has the old one open gets what the kernel has of it, or an error.
            assert set(bytes_or_stale(held)) <= set(b"1")
