"""``cafs ls``: list a directory of the mount without mounting."""

import stat
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.saying import hush, readable, say

if TYPE_CHECKING:
    from cafs.settings.values import Settings
    from cafs.vfs.attributes import Attributes

_BATCH: Final = 1_000
"""Names that are read at once."""


@click.command("ls", short_help="List a directory without mounting.")
@click.argument("path", default="/")
@click.option("-l", "--long", is_flag=True, help="Modes, sizes and times too.")
@options.with_settings(*options.SOURCES, *options.HOSTS)
@options.as_json
def command(
    *,
    path: str,
    long: bool,
    loaded: "Settings",
    as_json: bool,
) -> int:
    """List PATH, a directory or a file of the mount, without mounting.

    \b
    PATH is one of
        toolchain/bin                  below a ref of cafs.toml
        ref/toolchain/bin              as the mount shows it
        docker://localhost:5000/app    a ref, whose host is allowed by naming it here
        tree/sha256/1f3a/bin           a blob opened as an archive; digests may be cut short
    """
    from cafs.cli.choosing import to_look_at
    from cafs.cli.completing import complete

    (path,) = complete(loaded, [path])
    hush()
    run_async(_list, to_look_at(loaded, path), path, long, as_json)
    return 0


async def _list(loaded: "Settings", path: str, long: bool, as_json: bool) -> None:
    from cafs.assemble.system import open_system
    from cafs.cli.walking import follow, mount_path
    from cafs.model.member import Kind

    async with open_system(loaded, description="ls") as system:
        place = mount_path(path, (spec.name for spec in loaded.refs))
        node = await follow(system.filesystem, place)
        if node.kind is not Kind.DIRECTORY:
            _print(place.rsplit("/", 1)[-1], node, None, long=long, as_json=as_json)
            return
        after = 0
        while batch := await system.filesystem.list(node.inode, after, _BATCH):
            for each in batch:
                name = each.name.decode(errors="surrogateescape")
                target = None
                if (long or as_json) and each.attributes.kind is Kind.SYMLINK:
                    link = await system.filesystem.readlink(each.attributes.inode)
                    target = link.decode(errors="surrogateescape")
                _print(name, each.attributes, target, long=long, as_json=as_json)
            after = batch[-1].cookie


def _print(name: str, node: "Attributes", target: str | None, *, long: bool, as_json: bool) -> None:
    if as_json:
        import msgspec

        facts = {
            "name": readable(name),
            "kind": node.kind.name.lower(),
            "mode": node.mode,
            "size": node.size,
            "mtime_ns": node.mtime_ns,
            "target": None if target is None else readable(target),
        }
        say(msgspec.json.encode(facts))
        return
    if sys.stdout.isatty():
        # A name in an archive must not be able to give orders to the terminal.
        name, target = _harmless(name), target and _harmless(target)
    if long:
        mode = stat.filemode(_type_bits(node) | node.mode)
        arrow = "" if target is None else f" -> {target}"
        when = datetime.fromtimestamp(node.mtime_ns // 10**9, tz=UTC)
        say(f"{mode} {node.size:>12} {when:%Y-%m-%d %H:%M} {name}{arrow}")
    else:
        say(name)


def _harmless(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def _type_bits(node: "Attributes") -> int:
    from cafs.model.member import Kind

    return {
        Kind.DIRECTORY: stat.S_IFDIR,
        Kind.SYMLINK: stat.S_IFLNK,
        Kind.FIFO: stat.S_IFIFO,
        Kind.CHARACTER_DEVICE: stat.S_IFCHR,
        Kind.BLOCK_DEVICE: stat.S_IFBLK,
    }.get(node.kind, stat.S_IFREG)
