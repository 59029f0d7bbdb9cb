"""The bench's scenarios, on a small scale: what they show holds, and what they mount ends."""

import re
from pathlib import Path

import pytest

from cafs.testing.benching import Site
from cafs.testing.command import Cafs
from cafs.testing.cooling import Cold
from cafs.testing.hoarding import Hoard
from cafs.testing.multitude import Multitude
from cafs.testing.origin import Origin
from cafs.testing.warming import Warm

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

BLOB = 3 << 20


@pytest.fixture
def site(cafs: Cafs, tmp_path: Path, origin: Origin) -> Site:
    return Site(tmp_path, origin, files=800, worlds=cafs.beside)


def test_each_file_of_a_linked_tree_has_one_link_that_leads_to_it(site: Site) -> None:
    archive, files, links = site.linked_tree()
    assert archive.is_file()
    assert (len(files), len(links)) == (800, 800)
    for name, link in zip(files, links, strict=True):
        assert link == name.replace("tree/", "links/", 1)


def test_warm_passes_ask_nobody(site: Site) -> None:
    rows = list(Warm(site, 1).measure())
    assert len(rows) > 5
    for row in rows:
        assert None not in (row.ours_s, row.reference_s, row.without_s)
        # ls(1) asks once a run for a label, which the keeper answers.
        answered = int(row.name == "ls -lR")
        counted = re.match(rf"relayed 0, answered {answered}, worker (\d+)", row.note)
        assert counted is not None, row.note
        # To be told its counters asks the worker a few things, once a second has passed.
        assert int(counted[1]) < 10, row.note


def test_a_cold_blob_is_fetched_once_with_a_keeper_and_without(site: Site) -> None:
    rows = {row.name: row for row in Cold(site, 1, BLOB).measure()}
    whole = rows["3 MiB, whole"]
    assert None not in (whole.ours_s, whole.reference_s, whole.without_s)
    assert whole.sent is not None
    assert BLOB <= whole.sent <= BLOB + 1


def test_half_of_a_hoard_goes_and_each_process_tells_its_memory(site: Site) -> None:
    rows = {row.name: row.note for row in Hoard(site, 1100).measure()}
    removed = re.match(r"(\S+) removed", rows["cafs gc of half"])
    assert removed is not None
    # Those that were under way when the first half had come may be of either half.
    assert 550 <= int(removed[1].replace(",", "")) <= 550 + 512
    for name, note in rows.items():
        if name != "1,100 blobs, never synced":
            told = re.search(r"(\d+) MiB anonymous memory", note)
            assert told is not None, name
            assert 5 < int(told[1]) < 200


def test_an_archive_of_many_files_is_listed_by_its_index(site: Site) -> None:
    rows = {row.name: row for row in Multitude(site, 300).measure()}
    assert "the index has" in rows["300 files: lock, to tar -xz"].note
    assert re.search(r"worker: [1-9]\d* MiB", rows["300 files: ls -lR"].note)
    assert rows["300 files: remounted, to ls"].ours_s
