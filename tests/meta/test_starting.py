"""What a command, and a worker, load before they have answered anybody.

All who read wait for a worker that takes the place of another, and nearly all of that time is the
loading of modules. What is in these lists is loaded when it is wanted.
"""

import hashlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from cafs.cli import verbs as cafs_verbs
from cafs.testing.archives import tar_bytes
from cafs.testing.origin import Origin
from tests.conftest import Cafs

_WEB = (
    *("httpcore", "h11", "certifi"),
    *("cafs.transport.http", "cafs.transport.authenticating", "cafs.transport.credentials"),
)
_RARE = (
    *("obstore", "rich", "tomlkit", "difflib", "configparser", "platformdirs", "statistics"),
    *("cafs.transport.plugins", "cafs.distribution.inspecting", "cafs.store.trees.index_export"),
)
_WORKERS = (
    *("trio", "lmdb", "pyfuse3", "isal", "zstandard", "ssl", "httpcore", "rich", "tomlkit"),
    *("cafs.assemble", "cafs.store", "cafs.transport", "cafs.fetch", "cafs.codec", "cafs.fuse"),
)

_READING = """
import os, sys
from pathlib import Path
import trio
from cafs.cli import main
from cafs.cli.mounts import serving
from cafs.cli.verbs import worker
from cafs.settings.loading import load_settings
from cafs.settings.values import Overrides

async def read():
    here = Path.cwd()
    settings = load_settings(here, project=None, overrides=Overrides(), environ=os.environ)
    async with serving.open_system(settings, description="reading") as system:
        await system.filesystem.settle()
        inode = 1
        for name in (b"ref", b"tree", b"tree"):
            inode = (await system.filesystem.lookup(inode, name)).inode
        assert await system.filesystem.list(inode, 0, 10)
    print(*sys.modules)

trio.run(read)
"""
"""What a worker does to answer the first ``ls`` below a ref."""
_MOUNTING = """
import os, sys
from pathlib import Path
from cafs.cli import main
from cafs.cli.mounts import background, claiming, launching
from cafs.cli.verbs import mount
from cafs.settings.loading import load_settings
from cafs.settings.values import Overrides

here = Path.cwd()
settings = load_settings(here, project=None, overrides=Overrides(), environ=os.environ)
place = mount.target(settings)
launch = launching.plan(settings, place, ())
with claiming.claimed(place):
    claiming.prepare(place, launch.store)
launch.command(1)
print(*sys.modules)
"""
"""What ``cafs mount`` does before it starts a keeper."""
_EACH_VERB = """
import importlib, os, pkgutil, sys
from cafs.cli import main, verbs
verbs.__path__.append(sys.argv[1])
for verb in pkgutil.iter_modules(verbs.__path__):
    child = os.fork()
    if not child:
        importlib.import_module(f"cafs.cli.verbs.{verb.name}")
        os._exit(0)
    print(verb.name, os.waitpid(child, 0)[1], flush=True)
"""
"""Loads each verb in a process that has loaded no other, and says which could be."""


def loaded(program: str, cafs: Cafs) -> set[str]:
    """The modules that a program of its own has loaded, which it prints last."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=cafs.directory,
        env=cafs.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def among(modules: set[str], names: Iterable[str]) -> set[str]:
    """Those of the names that have been loaded."""
    return modules.intersection(names)


def test_what_speaks_to_sources_is_loaded_with_the_first_request(
    cafs: Cafs, origin: Origin
) -> None:
    content = tar_bytes({"tree/hello": (0o644, b"hello\n")}, compression="gz")
    url = origin.put("/tree.tar.gz", content)
    pin = f"sha256:{hashlib.sha256(content).hexdigest()}"
    cafs.project(f'[mount]\npath="m"\n[ref.tree]\nfrom="{url}"\nintegrity="{pin}"\n')
    first = loaded(_READING, cafs)
    asked = len(origin.requests)
    assert asked > 0
    assert among(first, _WEB) == set(_WEB)
    again = loaded(_READING, cafs)
    assert len(origin.requests) == asked
    assert among(again, (*_WEB, *_RARE)) == set()


def test_the_command_that_mounts_loads_nothing_of_a_worker(cafs: Cafs) -> None:
    cafs.project('[mount]\npath="m"\n[ref.tree]\nfrom="https://one.test/tree.tar.gz"\n')
    modules = loaded(_MOUNTING, cafs)
    assert among(modules, _WORKERS) == set()


def test_each_verb_can_be_the_first_that_is_loaded(cafs: Cafs, tmp_path: Path) -> None:
    verbs = {verb.name for verb in pkgutil.iter_modules(cafs_verbs.__path__)}
    # Two that import each other: that works where the one is first, and not where the other is.
    (tmp_path / "a_planted.py").write_text("from cafs.cli.verbs.b_planted import MARK\n")
    (tmp_path / "b_planted.py").write_text("import cafs.cli.verbs.a_planted\nMARK = 1\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", _EACH_VERB, str(tmp_path)],
        env=cafs.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    codes = dict(line.split() for line in done.stdout.splitlines())
    assert codes.keys() == verbs | {"a_planted", "b_planted"}
    assert {verb for verb, code in codes.items() if code != "0"} == {"b_planted"}
