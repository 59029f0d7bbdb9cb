"""``cafs verify``: what it finds, what it heals, what it says, and how it ends."""

import json
import random
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from tests.cli.test_output import on_a_terminal

MIB = 1 << 20
PIECE = 64 << 10
LETTERS = range(ord(" "), ord("~"))
FILES = {
    f"f{number}": (0o644, bytes(random.Random(number).choices(LETTERS, k=30_000)))
    for number in range(20)
}
PAGE = 4096


def flip(path: Path, offset: int) -> None:
    path.chmod(0o600)
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 16]))


def store_of(cafs: Cafs) -> Path:
    [version] = cafs.directory.parent.rglob("VERSION")
    return version.parent


def by_size(cafs: Cafs) -> list[Path]:
    found = store_of(cafs).glob("blobs/sha256/*/*")
    return sorted(found, key=lambda path: path.stat().st_size)


def spoil_pages(cafs: Cafs) -> None:
    """A byte of each page of the index but the first two is another."""
    path = store_of(cafs) / "index" / "data.mdb"
    for offset in range(2 * PAGE, path.stat().st_size, PAGE):
        flip(path, offset)


def verdicts(output: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in output.splitlines()]
    return [line for line in lines if "item" in line]


@pytest.fixture
def model(cafs: Cafs, origin: Origin) -> Generated:
    """A file of 3 MiB that has been fetched."""
    body = Generated(3 * MIB, seed=1)
    cafs.project(f'[ref.model]\nfrom="{origin.put("/model.bin", body)}"\n')
    cafs.run("prefetch")
    return body


def test_a_store_in_which_nothing_is_wrong_is_0(cafs: Cafs, model: Generated) -> None:
    done = cafs.run("verify")
    assert done.stdout == "3.0 MiB in 1 item verified: nothing is wrong\n"
    assert cafs.run("verify", "--quiet").stdout == ""
    last = json.loads(cafs.run("verify", "--json").stdout.splitlines()[-1])
    assert last == {
        "checked": 3 * MIB,
        "items": 1,
        "healed": 0,
        "damaged": 0,
        "seed": None,
        "done": True,
    }


def test_without_a_store_nothing_is_made(cafs: Cafs) -> None:
    cafs.project("")
    assert "no store" in cafs.run("verify").stdout
    last = json.loads(cafs.run("verify", "--json").stdout)
    assert (last["checked"], last["damaged"], last["done"]) == (0, 0, True)
    assert cafs.run("verify", "--quiet").stdout == ""
    assert not list(cafs.directory.parent.rglob("VERSION"))


def test_a_flip_is_4_and_is_fetched_again_when_it_is_read(
    cafs: Cafs, model: Generated, origin: Origin
) -> None:
    flip(by_size(cafs)[0], MIB + 5)
    done = cafs.run("verify", check=False)
    assert done.returncode == 4
    assert "damaged" in done.stdout
    assert "--repair" in done.stdout
    before = origin.bytes_sent()
    assert cafs.run("prefetch").returncode == 0
    assert origin.bytes_sent() - before <= PIECE + 1
    assert cafs.run("verify", "model").stdout.startswith("3.0 MiB in 1 item ")


def test_repair_fetches_the_piece_and_nothing_else(
    cafs: Cafs, model: Generated, origin: Origin
) -> None:
    blob = by_size(cafs)[0]
    flip(blob, 0)
    flip(blob, 3 * MIB - 1)
    before = origin.bytes_sent()
    [verdict] = verdicts(cafs.run("verify", "--repair", "--json").stdout)
    assert verdict["item"] == f"sha256:{blob.name}"
    assert (verdict["state"], verdict["lost"]) == ("healed", 2 * PIECE)
    assert origin.bytes_sent() - before == 2 * PIECE
    assert cafs.run("verify").returncode == 0
    assert blob.stat().st_size == 3 * MIB


def test_repair_has_again_what_was_removed_and_what_was_decoded(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/tree.tar.gz", tar_bytes(FILES, compression="gz"))
    zipped = origin.put("/other.bin", Generated(100_000, seed=4))
    cafs.project(f'[ref.tree]\nfrom="{url}"\n[ref.other]\nfrom="{zipped}"\n')
    cafs.run("prefetch")
    small, _ = by_size(cafs)
    small.unlink()
    [decoded] = [
        path for path in store_of(cafs).glob("streams/*/*") if path.stat().st_size > 100_000
    ]
    flip(decoded, 70_000)
    states = [each["state"] for each in verdicts(cafs.run("verify", "--repair", "--json").stdout)]
    assert states == ["healed", "healed"]
    assert small.stat().st_size == 100_000
    target = cafs.directory / "f7"
    with target.open("wb") as out:
        process = cafs.popen("cat", "--offline", "tree/f7")
        out.write(process.communicate()[0].encode(errors="surrogateescape"))
    assert target.read_bytes() == FILES["f7"][1]
    assert cafs.run("verify").returncode == 0


def test_what_nobody_can_give_again_says_why(cafs: Cafs, model: Generated, origin: Origin) -> None:
    flip(by_size(cafs)[0], 5)
    origin.remove("/model.bin")
    done = cafs.run("verify", "--repair", "--json", check=False)
    assert done.returncode == 4
    [verdict] = verdicts(done.stdout)
    assert verdict["state"] == "damaged"
    assert "404" in str(verdict["why"])


def test_what_the_settings_do_not_name_any_more_is_remembered(
    cafs: Cafs, model: Generated, origin: Origin
) -> None:
    flip(by_size(cafs)[0], 5)
    cafs.project("")
    [verdict] = verdicts(cafs.run("verify", "--repair", "--json").stdout)
    assert verdict["state"] == "healed"


def test_a_damaged_index_is_made_anew_from_the_blobs(cafs: Cafs, model: Generated) -> None:
    spoil_pages(cafs)
    done = cafs.run("verify")
    assert "made anew from the blobs" in done.stdout
    assert cafs.run("verify").stdout == "3.0 MiB in 1 item verified: nothing is wrong\n"
    assert list(store_of(cafs).glob("quarantine/index-*"))


@pytest.mark.fuse
@pytest.mark.usefixtures("fuse")
def test_a_damaged_index_in_use_says_what_to_unmount(cafs: Cafs, model: Generated) -> None:
    cafs.expect_log("store|broken|damaged|INVALID|MDB")
    with cafs.mount(None, cafs.directory / "mnt") as mount:
        spoil_pages(cafs)
        done = cafs.run("verify", check=False)
        assert done.returncode == 4
        assert f"cafs unmount {mount.path}" in done.stdout
    assert cafs.run("verify").returncode == 0


@pytest.mark.fuse
@pytest.mark.usefixtures("fuse")
def test_a_live_mount_heals_what_a_verification_has_taken_out(
    cafs: Cafs, model: Generated, origin: Origin
) -> None:
    cafs.expect_log("store.*damaged")
    with cafs.mount(None, cafs.directory / "mnt") as mount:
        assert cafs.run("verify").returncode == 0
        flip(by_size(cafs)[0], MIB)
        assert cafs.run("verify", check=False).returncode == 4
        with mount.ref("model").open("rb") as file:
            assert file.read() == model.read(0, 3 * MIB)
        assert cafs.run("verify").returncode == 0


def test_a_sample_says_its_seed_and_can_be_taken_again(cafs: Cafs, origin: Origin) -> None:
    lines = [
        f'[ref.f{number}]\nfrom="{origin.put(f"/{number}.bin", Generated(50_000, seed=number))}"\n'
        for number in range(12)
    ]
    cafs.project("".join(lines))
    cafs.run("prefetch")
    first = json.loads(cafs.run("verify", "--sample", "30", "--json").stdout.splitlines()[-1])
    again = cafs.run("verify", "--sample", "30", "--seed", str(first["seed"]), "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == first
    other = cafs.run("verify", "--sample", "30", "--seed", str(first["seed"] + 1)).stdout
    assert f"--seed {first['seed'] + 1}" in other


def test_digests_may_be_cut_short_and_unknown_ones_are_3(cafs: Cafs, model: Generated) -> None:
    name = by_size(cafs)[0].name
    assert "in 1 item" in cafs.run("verify", f"sha256:{name[:6]}").stdout
    assert cafs.run("verify", f"sha256:{name}").returncode == 0
    for word in ("sha256:" + "ab" * 32, "nothing"):
        assert cafs.run("verify", word, check=False).returncode == 3
    for words in (("--seed", "3"), *(("--sample", wrong) for wrong in ("0", "101", "nan"))):
        assert cafs.run("verify", *words, check=False).returncode == 2


def test_files_without_records_are_looked_at(cafs: Cafs, model: Generated) -> None:
    blob = by_size(cafs)[0]
    stray = blob.parent / (blob.name[:2] + "00" * 31)
    stray.write_bytes(b"no blob")
    done = cafs.run("verify")
    assert "quarantine" in done.stdout
    assert not stray.exists()


def test_a_terminal_gets_a_bar_and_the_line_at_the_end(cafs: Cafs, model: Generated) -> None:
    shown = on_a_terminal(cafs, "verify", TERM="xterm")
    assert "bytes" in shown
    assert "3.0 MiB in 1 item verified: nothing is wrong" in shown
