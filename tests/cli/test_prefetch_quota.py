"""``cafs prefetch`` into a store that may have only a little."""

from random import Random

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated, Literal
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

MIB = 1 << 20


def content_of(cafs: Cafs) -> int:
    """Bytes on the disk of blobs and streams."""
    files = [*cafs.store.glob("blobs/sha256/*/*"), *cafs.store.glob("streams/*/*")]
    return sum(path.stat().st_blocks * 512 for path in files)


@pytest.fixture
def refs(cafs: Cafs, origin: Origin) -> None:
    """``data`` of 8 MiB, ``pinned`` of 4, ``small`` of 2, and ``tool``, an archive of 2."""
    pinned = Generated(4 * MIB, seed=2)
    tool = tar_bytes({"bin/tool": (0o755, Random(3).randbytes(2 * MIB))}, compression="gz")
    urls = {
        "data": origin.put("/data", Generated(8 * MIB, seed=1)),
        "pinned": origin.put("/pinned", pinned),
        "small": origin.put("/small", Generated(2 * MIB, seed=4)),
        "tool": origin.put("/tool.tar.gz", Literal(tool)),
    }
    toml = "".join(f'[ref.{name}]\nfrom="{url}"\n' for name, url in urls.items())
    cafs.project(toml.replace('/pinned"\n', f'/pinned"\nintegrity="sha256:{pinned.sha256()}"\n'))


@pytest.mark.usefixtures("refs")
@pytest.mark.parametrize("names", [("data",), ("data", "pinned", "tool"), ("pinned", "small")])
def test_more_than_the_store_may_have_ends_with_7_and_is_not_brought(
    cafs: Cafs, names: tuple[str, ...]
) -> None:
    done = cafs.run("prefetch", "-q", "--quota", "5MiB", *names, check=False)
    assert done.returncode == 7, done.stderr
    assert "MiB more than it may, and nothing more may make way" in done.stderr
    assert "hint: raise store.quota" in done.stderr
    assert done.stderr.count("error") == 1
    assert content_of(cafs) <= 5 * MIB


@pytest.mark.usefixtures("refs")
def test_what_an_archive_decodes_to_counts_and_its_raw_bytes_make_way(cafs: Cafs) -> None:
    assert cafs.run("prefetch", "-q", "--quota", "5MiB", "tool", "small").returncode == 0
    done = cafs.run("prefetch", "-q", "--quota", "5MiB", "tool", "pinned", check=False)
    assert done.returncode == 7


@pytest.mark.usefixtures("refs")
def test_what_was_brought_before_makes_way_though_it_was_used_a_moment_ago(cafs: Cafs) -> None:
    for name in ("pinned", "small", "tool", "pinned"):
        assert cafs.run("prefetch", "-q", "--quota", "5MiB", name).returncode == 0
        assert content_of(cafs) <= 6.5 * MIB
