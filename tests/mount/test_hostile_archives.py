"""Archives that mean harm never escape, never crash, and say what is wrong."""

import errno
import io
import os
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of (name, type, link target); files say "content"."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = target
            info.size = 7 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"content"))
    return out.getvalue()


def lying_size() -> bytes:
    whole = bytearray(archive(("liar", tarfile.REGTYPE, "")))
    whole[124:136] = b"77777777777\0"
    whole[148:156] = b"        "
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    return bytes(whole)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "parent": (lambda: archive(("a/../../escape", tarfile.REGTYPE, "")), "escape"),
    "loop": (
        lambda: archive(
            ("loop", tarfile.SYMTYPE, "loop2"),
            ("loop2", tarfile.SYMTYPE, "loop"),
            ("loop/inside", tarfile.REGTYPE, ""),
        ),
        "loop/inside",
    ),
    "hard link": (lambda: archive(("thief", tarfile.LNKTYPE, "../etc/passwd")), "thief"),
    "truncated": (lambda: archive(("whole", tarfile.REGTYPE, ""))[:700], "whole"),
    "size": (lying_size, "liar"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_the_member_is_named(cafs: Cafs, origin: Origin, name: str) -> None:
    make, member = HOSTILE[name]
    url = origin.put("/hostile.tar", make())
    fine = origin.put("/fine.tar.gz", tar_bytes({"a": (0o644, b"alpha")}, compression="gz"))
    toml = f'[mount]\npath="cafs"\n[ref.hostile]\nfrom="{url}"\n[ref.fine]\nfrom="{fine}"\n'
    with cafs.mount(toml) as mounted:
        with pytest.raises(OSError) as caught:
            os.listdir(mounted.path / "ref/hostile")
        assert caught.value.errno == errno.EBADMSG
        assert member in os.getxattr(mounted.path / "ref/hostile", "user.cafs.error").decode()
        assert (mounted.path / "ref/fine/a").read_bytes() == b"alpha"


def test_absolute_names_and_links_stay_inside(cafs: Cafs, origin: Origin) -> None:
    url = origin.put(
        "/absolute.tar",
        archive(
            ("/etc/passwd", tarfile.REGTYPE, ""),
            ("evil", tarfile.SYMTYPE, "/etc"),
            ("evil/shadow", tarfile.REGTYPE, ""),
        ),
    )
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.tree]\nfrom="{url}"\n') as mounted:
        tree = mounted.path / "ref/tree"
        assert (tree / "etc/passwd").read_bytes() == b"content"
        assert os.readlink(tree / "evil") == "/etc"
        assert (tree / "etc/shadow").read_bytes() == b"content"


def test_a_symlink_loop_is_the_kernels_to_refuse(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/loop.tar", archive(("a", tarfile.SYMTYPE, "b"), ("b", tarfile.SYMTYPE, "a")))
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.tree]\nfrom="{url}"\n') as mounted:
        with pytest.raises(OSError) as caught:
            (mounted.path / "ref/tree/a").read_bytes()
        assert caught.value.errno == errno.ELOOP


def test_bytes_that_contradict_the_name_are_ebadmsg(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/page.tar.gz", b"<html>not found, but 200</html>" * 100)
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.tree]\nfrom="{url}"\n') as mounted:
        with pytest.raises(OSError) as caught:
            os.listdir(mounted.path / "ref/tree")
        assert caught.value.errno == errno.EBADMSG


def test_a_zip_member_that_is_damaged_is_ebadmsg_and_the_others_are_read(
    cafs: Cafs, origin: Origin
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("good", b"fine" * 1000)
        packed.writestr("bad", b"BROKEN" * 1000)
    broken = out.getvalue().replace(b"BROKEN", b"BrOKEN", 1)
    url = origin.put("/damaged.zip", broken)
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.tree]\nfrom="{url}"\n') as mounted:
        assert (mounted.path / "ref/tree/good").read_bytes() == b"fine" * 1000
        with pytest.raises(OSError) as caught:
            (mounted.path / "ref/tree/bad").read_bytes()
        assert caught.value.errno == errno.EBADMSG
        assert "bad" in os.getxattr(mounted.path / "ref/tree/bad", "user.cafs.error").decode()
