"""Commands that need no mount, and what they print."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cafs.cli.main import VERBS
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.conftest import Cafs

MIB = 1 << 20


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom cafs.cli.main import cli\n"
        "try: cli.main(['--help'], prog_name='cafs')\nexcept SystemExit: pass\n"
        "heavy = {'trio','httpcore','lmdb','pyfuse3','rich','zstandard'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    for verb in VERBS:
        assert f"  {verb} " in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(started: Cafs, verb: str) -> None:
    done = started.run(verb, "--help")
    assert done.stdout.startswith("Usage: cafs ")
    assert verb in done.stdout


def test_wrong_usage_is_2_and_one_line(cafs: Cafs) -> None:
    for arguments in (("no-such-verb",), ("mount", "--no-such-flag"), ("cat",)):
        done = cafs.run(*arguments, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_resolve_says_what_a_ref_means(cafs: Cafs, origin: Origin) -> None:
    body = Generated(MIB, seed=1)
    url = origin.put("/model.bin", body)
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    facts = json.loads(cafs.run("resolve", "--json").stdout)
    assert facts["name"] == "model"
    assert facts["shape"] == "file"
    assert facts["parts"][0]["size"] == MIB
    assert facts["parts"][0]["urls"] == [url]
    assert origin.bytes_sent() <= 1
    assert "1.0 MiB" in cafs.run("resolve", "model").stdout
    missing = cafs.run("resolve", "nothing", check=False)
    assert missing.returncode == 3
    assert "model" in missing.stderr


def test_prefetch_fetches_whole_and_says_so(cafs: Cafs, origin: Origin) -> None:
    body = Generated(3 * MIB, seed=2)
    url = origin.put("/model.bin", body)
    tree = origin.put("/tree.tar.gz", tar_bytes({"a/b": (0o644, b"beta")}, compression="gz"))
    cafs.project(f'[ref.model]\nfrom="{url}"\n[ref.tree]\nfrom="{tree}"\n')
    lines = [json.loads(line) for line in cafs.run("prefetch", "--json").stdout.splitlines()]
    model = [line for line in lines if line["ref"] == "model"]
    all_of_it = {"ref": "model", "downloaded": 3 * MIB, "total": 3 * MIB}
    assert model[-1] == {**all_of_it, "done": True, "error": None}
    assert [line["downloaded"] for line in model] == sorted(line["downloaded"] for line in model)
    sent = origin.bytes_sent()
    assert sent <= 3 * MIB + 1 + 1 + len(origin.expected("/tree.tar.gz"))
    assert cafs.run("cat", "--offline", "tree/a/b").stdout == "beta"
    done = cafs.run("prefetch", "--offline")
    assert "3.0 MiB of 3.0 MiB" in done.stdout
    assert origin.bytes_sent() == sent


def test_one_ref_that_fails_keeps_no_other_from_coming_and_programs_are_told_which_it_was(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", b"model")
    gone = origin.url("/gone.bin")
    cafs.project(f'[ref.gone]\nfrom="{gone}"\n[ref.model]\nfrom="{url}"\n')
    done = cafs.run("prefetch", "--json", check=False)
    assert done.returncode == 3
    last = {line["ref"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert (last["model"]["done"], last["model"]["error"]) == (True, None)
    assert not last["gone"]["done"]
    assert f"error: gone: {last['gone']['error']}" in done.stderr
    done = cafs.run("resolve", "--json", check=False)
    assert done.returncode == 3
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["model"]
    assert done.stderr.startswith("error: gone: ")


def test_ls_and_cat_work_without_a_mount(cafs: Cafs, origin: Origin) -> None:
    archive = tar_bytes(
        {"bin/tool": (0o755, b"#!/bin/sh\n"), "words": (0o644, b"one two\n")}, compression="xz"
    )
    pin = hashlib.sha256(archive).hexdigest()
    url = origin.put("/tool.tar.xz", archive)
    cafs.project(f'[ref.tool]\nfrom="{url}"\nintegrity="sha256:{pin}"\n')
    assert cafs.run("ls", "tool").stdout.split() == ["bin", "words"]
    assert cafs.run("ls", "ref/tool/bin").stdout.split() == ["tool"]
    assert "-rwxr-xr-x" in cafs.run("ls", "-l", "tool/bin").stdout
    facts = [json.loads(line) for line in cafs.run("ls", "--json", "tool").stdout.splitlines()]
    assert [fact["kind"] for fact in facts] == ["directory", "file"]
    assert cafs.run("cat", "tool/words").stdout == "one two\n"
    assert cafs.run("cat", f"digest/sha256/{pin}", check=False).returncode == 0
    for arguments, code in (
        (("cat", "tool/missing"), 3),
        (("cat", "tool/bin"), 2),
        (("ls", "tool/words/below"), 3),
        (("ls", "tool/missing"), 3),
        (("cat", "tool/bin/missing"), 3),
        (("ls", "nothing/here"), 3),
    ):
        done = cafs.run(*arguments, check=False)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("error: ")


def test_ls_takes_a_ref_written_out(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/a.tar", tar_bytes({"only": (0o644, b"")}))
    cafs.project("")
    assert cafs.run("ls", url).stdout.split() == ["only"]


def test_status_without_a_mount_says_what_is_known(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(MIB, seed=3))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    before = json.loads(cafs.run("status", "--json").stdout)
    assert before["mount_point"] is None
    assert before["refs"][0]["state"] == "unread"
    assert not origin.requests
    cafs.run("prefetch", "-q")
    after = json.loads(cafs.run("status", "--json").stdout)
    assert after["refs"][0]["present"] == after["refs"][0]["size"] == MIB
    assert "model" in cafs.run("status").stdout


def test_offline_and_not_local_is_5(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", b"model")
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    done = cafs.run("cat", "--offline", "ref/model", check=False)
    assert done.returncode == 5
    assert not origin.requests


def test_settings_errors_name_file_key_and_nearest(cafs: Cafs) -> None:
    cafs.project('[ref.model]\nform="https://example.com/x"\n')
    done = cafs.run("status", check=False)
    assert done.returncode == 2
    for word in ("cafs.toml", "ref.model.form", "from"):
        assert word in done.stderr


def test_a_dead_source_is_told_with_its_reason(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", b"model")
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    origin.stop()
    done = cafs.run("cat", "--deadline", "1s", "ref/model", check=False)
    origin.start()
    assert done.returncode == 5
    assert "model" in done.stderr
    assert "no connection" in done.stderr


def test_prefetch_into_another_store_is_no_matter_of_a_live_mount(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/model.bin", Generated(MIB, seed=4))
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.model]\nfrom="{url}"\n'):
        other = cafs.directory / "other-store"
        done = cafs.run("prefetch", "--store", other)
        assert "1.0 MiB of 1.0 MiB" in done.stdout
    known = json.loads(cafs.run("status", "--json", "--store", other).stdout)
    assert known["refs"][0]["present"] == MIB


@pytest.mark.parametrize("trouble", ["open", "damaged", "no place"])
def test_a_prefetch_needs_no_directory_of_mounts(cafs: Cafs, origin: Origin, trouble: str) -> None:
    url = origin.put("/model.bin", b"model")
    cafs.project(f'[mount]\npath="cafs"\n[ref.model]\nfrom="{url}"\n')
    runtime = Path(cafs.environment["XDG_RUNTIME_DIR"]) / "cafs"
    if trouble == "no place":
        cafs.environment["XDG_RUNTIME_DIR"] = "/proc/nope"
    else:
        runtime.mkdir(mode=0o700, parents=True)
        place = hashlib.sha256(bytes(cafs.directory / "cafs")).hexdigest()[:16]
        (runtime / f"{place}-12345678.json").write_text("{")
        runtime.chmod(0o755 if trouble == "open" else 0o700)
    done = cafs.run("prefetch")
    assert done.stdout == "model: 5 B of 5 B local\n"
    told = [line.split()[:2] for line in done.stderr.splitlines()]
    assert told == ([] if trouble == "damaged" else [["warning:", "control.fetches.unheard"]])
