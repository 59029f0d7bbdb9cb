"""A Debian root file system with gcc, as an image in a real registry, packed in three ways.

- plain: one layer, a tar that gzip has packed as always.
- estargz: converted by the stargz snapshotter's ``ctr-remote``, against a containerd of our own.
- chunked: zstd:chunked, as skopeo writes it.

All of it lies in one directory and is made once: ``root.tar``, ``root.tar.gz``, and ``registry``,
the storage of docker-registry. What is there already is not made again. It takes debootstrap, which
asks a mirror of Debian, and root.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from typing_extensions import override

from cafs.testing.daemons import Daemon, Registry, find_program, running_registry

FORMS: Final = ("plain", "estargz", "chunked")
REPOSITORY: Final = "debian"
_PACKAGES: Final = "gcc,g++,make,python3,git,ca-certificates"
_HELLO: Final = '#include <stdio.h>\nint main(void){puts("hello");return 0;}\n'
SOURCE: Final = "root/hello.c"
"""The program to compile, in the image."""
_PIECE: Final = 1 << 20
_OCI: Final = "application/vnd.oci.image"
_CONTAINERD: Final = """\
version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{root}/socket"
"""
_PACKAGES_OF: Final = {
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "skopeo": "skopeo",
    "containerd": "containerd",
    "ctr": "containerd",
    "ctr-remote": "stargz-snapshotter",
}


class LackingError(Exception):
    """Something that making or using the image takes is not on this machine."""


@dataclass(frozen=True, slots=True)
class DebianImage:
    """The image in its directory; ``make`` sees to it that all of it is there."""

    directory: Path

    @property
    def tar(self) -> Path:
        """The root file system."""
        return self.directory / "root.tar"

    def make(self, forms: Sequence[str] = FORMS) -> None:
        """Make what is not there of these forms, of which plain is the first.

        Raises:
            LackingError: a program is missing, or this is not root; says what to install.
            subprocess.CalledProcessError: a step failed.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.tar.exists():
            self._bootstrap()
        missing = [form for form in forms if not self._tag(form).exists()]
        if missing:
            with self.registry() as registry:
                for form in missing:
                    {"plain": self._plain, "estargz": self._estargz, "chunked": self._chunked}[
                        form
                    ](registry)

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        """A registry that has the image, on a port of its own; what it logs is thrown away.

        Raises:
            LackingError: there is no docker-registry.
        """
        with tempfile.TemporaryDirectory(prefix="cafs-registry.") as place:
            root, storage = Path(place), self.directory / "registry"
            storage.mkdir(exist_ok=True)
            (root / "storage").symlink_to(storage)
            with running_registry(root, need("docker-registry")) as registry:
                yield registry

    def reference(self, registry: Registry, form: str) -> str:
        """What the image in one form is called, ``host:port/name:tag``."""
        return f"{registry.host}/{REPOSITORY}:{form}"

    def _tag(self, form: str) -> Path:
        below = f"docker/registry/v2/repositories/{REPOSITORY}/_manifests/tags/{form}"
        return self.directory / "registry" / below / "current" / "link"

    def _bootstrap(self) -> None:
        need_root()
        command = [need("debootstrap"), "--variant=minbase", f"--include={_PACKAGES}", "bookworm"]
        root = self.directory / "root"
        subprocess.run([*command, str(root)], check=True, stdout=subprocess.DEVNULL)
        (root / SOURCE).write_text(_HELLO)
        partial = self.tar.with_suffix(".partial")
        command = ["tar", "--sort=name", "--numeric-owner", "--xattrs", "-C", str(root)]
        subprocess.run([*command, "-cf", str(partial), "."], check=True)
        partial.rename(self.tar)
        shutil.rmtree(root)

    def _plain(self, registry: Registry) -> None:
        packed = self.directory / "root.tar.gz"
        if not packed.exists():
            partial = packed.with_suffix(".partial")
            with partial.open("wb") as out:
                subprocess.run([need("gzip"), "-nc", str(self.tar)], check=True, stdout=out)
            partial.rename(packed)
        with self._layout(packed, "tar+gzip") as layout:
            self._copy(layout, registry, "plain")

    def _chunked(self, registry: Registry) -> None:
        # What is compressed already, skopeo copies as it is.
        with self._layout(self.tar, "tar") as layout:
            self._copy(layout, registry, "chunked", "--dest-compress-format", "zstd:chunked")

    def _copy(self, source: str, registry: Registry, form: str, *options: str) -> None:
        command = [need("skopeo"), "copy", "--quiet", "--insecure-policy", *options]
        target = f"docker://{self.reference(registry, form)}"
        _run([*command, "--dest-tls-verify=false", source, target])

    def _estargz(self, registry: Registry) -> None:
        need_root()
        remote = need("ctr-remote")
        plain, target = (self.reference(registry, form) for form in ("plain", "estargz"))
        with _containerd() as address:
            ctr = [need("ctr"), "--address", address, "images"]
            _run([*ctr, "pull", "--plain-http", "--snapshotter", "native", plain])
            convert = [remote, "--address", address, "images", "convert", "--estargz", "--oci"]
            _run([*convert, plain, target])
            _run([*ctr, "push", "--plain-http", target])

    @contextmanager
    def _layout(self, layer: Path, kind: str) -> Iterator[str]:
        """An OCI layout with one image of one layer, as skopeo calls it."""
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="oci.") as place:
            blobs = Path(place) / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            name = _sha256(layer)
            (blobs / name).symlink_to(layer.absolute())
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(self.tar)}"]},
            }
            packed = {
                "mediaType": f"{_OCI}.layer.v1.{kind}",
                "digest": f"sha256:{name}",
                "size": layer.stat().st_size,
            }
            described = _blob(blobs, f"{_OCI}.config.v1+json", config)
            kinds = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json"}
            manifest = {**kinds, "config": described, "layers": [packed]}
            named = _blob(blobs, f"{_OCI}.manifest.v1+json", manifest)
            tag = {"annotations": {"org.opencontainers.image.ref.name": "root"}}
            index = {"schemaVersion": 2, "manifests": [{**named, **tag}]}
            (Path(place) / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
            (Path(place) / "index.json").write_text(json.dumps(index))
            yield f"oci:{place}:root"


def need(program: str) -> str:
    """A program's path.

    Raises:
        LackingError: it is not here; says which package of Debian has it.
    """
    found = find_program(program)
    if found is None:
        package = _PACKAGES_OF.get(program, program)
        raise LackingError(f"{program} is not here: apt-get install {package}")
    return found


def need_root() -> None:
    """Insist on being root.

    Raises:
        LackingError: this is somebody else.
    """
    if os.geteuid():
        raise LackingError("this takes root: debootstrap, containerd and chroot do")


class _Containerd(Daemon):
    """A containerd, which listens on a socket in its directory.

    Concurrency: one thread.
    """

    @override
    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return not probe.connect_ex(str(self.root / "socket"))


@contextmanager
def _containerd() -> Iterator[str]:
    """A containerd of our own; where its socket is."""
    # Not below the image's directory: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cafs-containerd.") as place:
        root = Path(place)
        (root / "config.toml").write_text(_CONTAINERD.format(root=root))
        daemon = _Containerd(root, [need("containerd"), "--config", str(root / "config.toml")], 0)
        daemon.start()
        try:
            yield str(root / "socket")
        finally:
            daemon.stop()


def _run(command: Sequence[str]) -> None:
    """Run a step; what it says is shown when it fails.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _blob(blobs: Path, media_type: str, content: object) -> dict[str, object]:
    data = json.dumps(content).encode()
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}
