"""Makers of container images, as OCI layouts on disk that ``skopeo copy oci:DIR:TAG`` can push.

Source: the OCI image specification 1.0 (image-layout, index, manifest, config).
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.testing import archives
from cafs.testing.archives import Compression, Item

_OCI: Final = "application/vnd.oci.image"
_LAYER_TYPES: Final = {
    Compression.NONE: f"{_OCI}.layer.v1.tar",
    Compression.GZIP: f"{_OCI}.layer.v1.tar+gzip",
    Compression.ZSTD: f"{_OCI}.layer.v1.tar+zstd",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its items in order, whiteouts among them, and how its tar is compressed."""

    items: tuple[Item, ...]
    compression: Compression = Compression.GZIP


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform, lowest layer first."""

    layers: tuple[Layer, ...]
    architecture: str = "amd64"
    system: str = "linux"
    variant: str = ""
    environment: tuple[str, ...] = ("PATH=/bin",)
    command: tuple[str, ...] = ("/bin/sh",)


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI layout on disk; ``digest`` (``sha256:<hex>``) is that of what the tag names."""

    path: Path
    tag: str
    digest: str

    @property
    def reference(self) -> str:
        """What skopeo calls it."""
        return f"oci:{self.path}:{self.tag}"


Json = Mapping[str, object]


def write_layout(path: Path, images: Sequence[Image], tag: str = "latest") -> Layout:
    """Write a layout whose tag names the one image, or an index of several."""
    (path / "blobs" / "sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    manifests = [_manifest(path, image) for image in images]
    if len(manifests) == 1:
        named = manifests[0]
    else:
        listed = [
            {**manifest, "platform": _platform(image)}
            for manifest, image in zip(manifests, images, strict=True)
        ]
        named = _document(path, f"{_OCI}.index.v1+json", {"manifests": listed})
    annotated = {**named, "annotations": {"org.opencontainers.image.ref.name": tag}}
    index = {"schemaVersion": 2, "manifests": [annotated]}
    (path / "index.json").write_text(json.dumps(index))
    return Layout(path, tag, str(named["digest"]))


def _platform(image: Image) -> Json:
    variant = {"variant": image.variant} if image.variant else {}
    return {"architecture": image.architecture, "os": image.system, **variant}


def _manifest(path: Path, image: Image) -> Json:
    layers, plain = [], []
    for layer in image.layers:
        content = archives.tar(layer.items)
        plain.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        packed = archives.compress(content, layer.compression)
        layers.append(_blob(path, _LAYER_TYPES[layer.compression], packed))
    config = {
        **_platform(image),
        "config": {"Env": image.environment, "Cmd": image.command},
        "rootfs": {"type": "layers", "diff_ids": plain},
    }
    described = _blob(path, f"{_OCI}.config.v1+json", json.dumps(config).encode())
    return _document(path, f"{_OCI}.manifest.v1+json", {"config": described, "layers": layers})


def _document(path: Path, media_type: str, content: Json) -> Json:
    document = {"schemaVersion": 2, "mediaType": media_type, **content}
    return _blob(path, media_type, json.dumps(document).encode())


def _blob(path: Path, media_type: str, content: bytes) -> Json:
    name = hashlib.sha256(content).hexdigest()
    (path / "blobs" / "sha256" / name).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}


def busybox_items(program: Path) -> tuple[Item, ...]:
    """A root file system around a static busybox: its applets as links, and ``/bin/hello``.

    Run the script by the image's own shell: ``ROOT/bin/busybox sh ROOT/bin/hello``.
    """
    listed = subprocess.run([program, "--list"], capture_output=True, check=True, text=True)
    applets = [name for name in listed.stdout.split() if name != "busybox"]
    return (
        archives.directory("bin"),
        archives.Item("bin/busybox", program.read_bytes(), mode=0o755),
        *(archives.symlink(f"bin/{name}", "busybox") for name in applets),
        archives.script("bin/hello", "#!/bin/sh\necho hello from the image\n"),
        archives.directory("etc"),
        archives.file("etc/os-release", "ID=busybox\n"),
        archives.directory("tmp", 0o1777),
    )


def find_busybox() -> Path | None:
    """The machine's busybox, when it has one (Debian's busybox-static)."""
    found = shutil.which("busybox")
    return Path(found) if found else None
