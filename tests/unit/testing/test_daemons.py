"""The real servers answer, count, and come back."""

import urllib.request
from pathlib import Path

import pytest

from cafs.testing.archives import Compression, file, opaque, whiteout
from cafs.testing.daemons import Daemon, Nginx, Registry, free_port
from cafs.testing.images import Image, Layer, write_layout


def get(url: str, **headers: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.status, answer.read()


def test_nginx_serves_ranges_and_counts_them(nginx: Nginx) -> None:
    (nginx.files / "x").write_bytes(bytes(range(256)))
    assert get(nginx.url("/x"), Range="bytes=2-4") == (206, b"\x02\x03\x04")
    assert get(nginx.url("/x"))[0] == 200
    ranges = [(one.status, one.range) for one in nginx.requests()]
    assert ranges == [(206, "bytes=2-4"), (200, "-")]
    assert nginx.bytes_sent("/x") == 3 + 256


def test_nginx_comes_back_on_its_port(nginx: Nginx) -> None:
    (nginx.files / "x").write_bytes(b"x")
    nginx.stop()
    with pytest.raises(OSError, match="refused"):
        get(nginx.url("/x"))
    nginx.start()
    assert get(nginx.url("/x")) == (200, b"x")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = Daemon(tmp_path, ["sh", "-c", "echo no luck; exit 1"], free_port())
    with pytest.raises(RuntimeError, match="no luck"):
        broken.start()


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_an_image_reaches_the_registry_byte_for_byte(
    registry: Registry, tmp_path: Path, compression: Compression
) -> None:
    layers = (
        Layer((file("a/b", "one"), file("c", "two")), compression),
        Layer((whiteout("c"), opaque("a")), compression),
    )
    images = [Image(layers), Image(layers, architecture="arm64", variant="v8")]
    layout = write_layout(tmp_path / "layout", images)
    name = f"exact{compression.name.lower()}"
    registry.push(layout, f"{name}:1")
    kept = {path.name for path in (layout.path / "blobs" / "sha256").iterdir()}
    for digest in sorted(kept):
        place = "manifests" if f"sha256:{digest}" == layout.digest else "blobs"
        url = f"http://{registry.host}/v2/{name}/{place}/sha256:{digest}"
        if place == "blobs" and _is_manifest(layout.path / "blobs" / "sha256" / digest):
            continue
        accept = "application/vnd.oci.image.index.v1+json"
        assert get(url, Accept=accept)[1] == (layout.path / "blobs/sha256" / digest).read_bytes()
    assert any(one.path.startswith(f"/v2/{name}/manifests/") for one in registry.requests())


def _is_manifest(path: Path) -> bool:
    return b'"layers"' in path.read_bytes()[:2000]


def test_a_pushed_busybox_is_there(registry: Registry, busybox_image: str) -> None:
    status, tags = get(f"http://{registry.host}/v2/{busybox_image}/tags/list")
    assert (status, b'"latest"' in tags) == (200, True)
