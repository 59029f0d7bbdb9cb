"""What settings say about fetching reaches those who fetch."""

import time

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.faults import HangBeforeHead, Status
from cafs.testing.origin import Origin
from tests.conftest import Cafs


def user_file(cafs: Cafs, toml: str) -> None:
    file = cafs.directory.parent / "config" / "cafs" / "config.toml"
    file.parent.mkdir()
    file.write_text(toml)


@pytest.mark.parametrize("retries", [0, 2])
def test_y6_so_many_retries_are_made_as_settings_say(
    cafs: Cafs, origin: Origin, retries: int
) -> None:
    url = origin.put("/x", Generated(4096, seed=1))
    origin.fault("/x", Status())
    user_file(cafs, f'[retry]\nretries = {retries}\ninitial-delay = "1ms"\nfixed = true')
    done = cafs.run("prefetch", url, check=False)
    assert done.returncode == 5
    assert len(origin.requests_for("/x")) == retries + 1


def test_an_answer_that_does_not_begin_is_given_up_when_settings_say(
    cafs: Cafs, origin: Origin
) -> None:
    url = origin.put("/x", Generated(4096, seed=1))
    origin.fault("/x", HangBeforeHead())
    user_file(cafs, '[limits]\nfirst-byte = "100ms"\n[retry]\nretries = 0')
    began = time.monotonic()
    done = cafs.run("prefetch", url, check=False)
    assert done.returncode == 5
    assert time.monotonic() - began < 20, "the default is 30 s"


def test_a_scheme_that_nothing_enables_is_a_usage_error_with_the_way_out(cafs: Cafs) -> None:
    for verb in ("prefetch", "resolve", "cat"):
        done = cafs.run(verb, "torrent:0123", check=False)
        assert done.returncode == 2
        assert "[plugins.torrent] in ~/.config/cafs/config.toml" in done.stderr


def test_what_only_a_plugin_can_read_has_no_path_of_its_own(cafs: Cafs) -> None:
    user_file(cafs, "[plugins.torrent]")
    for url in ("torrent:0123", "s3://bucket/key"):
        done = cafs.run("cat", url, check=False)
        assert done.returncode == 2
        assert "give it a name in cafs.toml" in done.stderr


def test_a_rate_that_is_none_names_the_flag(cafs: Cafs) -> None:
    done = cafs.run("prefetch", "--limit=fast", "docker:x", check=False)
    assert done.returncode == 2
    assert "--limit" in done.stderr
    assert "50MiB/s" in done.stderr
