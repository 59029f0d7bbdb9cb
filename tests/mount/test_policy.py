"""What may be named by a project file, and by path."""

import os
from pathlib import Path

import pytest

from cafs.testing.faults import Redirect
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize(
    ("text", "key", "belongs"),
    [
        ('[store]\npath="/tmp/elsewhere"\n', "store", "config.toml"),
        ('[plugins]\nenable=["x"]\n', "plugins", "config.toml"),
        ('[credentials]\nhelper="steal"\n', "credentials", "config.toml"),
        ('[map]\n"a"="b"\n', "map", "config.toml"),
        ('[mount]\npath="/etc"\n', "mount.path", "command line"),
        ('[mount]\npath="../outside"\n', "mount.path", "command line"),
        ("[hosts]\ndynamic=true\n", "hosts", "config.toml"),
    ],
)
def test_a_project_file_may_only_name_content(
    cafs: Cafs, text: str, key: str, belongs: str
) -> None:
    cafs.project(text)
    done = cafs.run("mount", check=False)
    assert done.returncode == 2
    assert "cafs.toml" in done.stderr
    assert key in done.stderr
    assert belongs in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_nothing_names_is_refused_by_path(cafs: Cafs, origin: Origin) -> None:
    named = origin.put("/named.bin", b"named")
    origin.put("/other.bin", b"other")
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.named]\nfrom="{named}"\n') as mounted:
        ref = mounted.path / "ref"
        assert (ref / f"blob/http/127.0.0.1+{origin.port}/other.bin@").read_bytes() == b"other"
        with pytest.raises(PermissionError):
            (ref / f"blob/http/localhost+{origin.port}/other.bin@").read_bytes()
        with pytest.raises(PermissionError):
            os.listdir(ref / f"docker/localhost+{origin.port}/app@latest")
        assert not [
            one for one in origin.requests if str(one.header("host")).startswith("localhost")
        ]


def test_dynamic_allows_any_host_by_path(cafs: Cafs, origin: Origin) -> None:
    origin.put("/other.bin", b"other")
    with cafs.mount('[mount]\npath="cafs"\n', "--dynamic") as mounted:
        path = mounted.path / f"ref/blob/http/127.0.0.1+{origin.port}/other.bin@"
        assert path.read_bytes() == b"other"


def test_dynamic_and_allow_other_exclude_each_other(cafs: Cafs) -> None:
    cafs.project('[mount]\npath="cafs"\n')
    done = cafs.run("mount", "--dynamic", "--allow-other", check=False)
    assert done.returncode == 2
    assert "dynamic" in done.stderr


def test_file_urls_are_never_named_by_path(cafs: Cafs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with cafs.mount('[mount]\npath="cafs"\n', "--dynamic") as mounted:
        for scheme in ("file", "FILE"):
            for kind in ("blob", "archive"):
                path = mounted.path / f"ref/{kind}/{scheme}{tmp_path}/secret@"
                assert not path.exists()


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest", "http://10.0.0.1/x", "http://[fe80::1]/x"]
)
def test_a_redirect_to_a_private_address_is_refused(
    cafs: Cafs, origin: Origin, target: str
) -> None:
    url = origin.put("/data.bin", b"data")
    origin.fault("/data.bin", Redirect(target))
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.data]\nfrom="{url}"\n') as mounted:
        with pytest.raises(PermissionError):
            (mounted.path / "ref/data").read_bytes()
        assert "redirect" in mounted.log()
