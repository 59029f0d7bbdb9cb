"""``cafs cat``: print a file of the mount without mounting."""

from typing import TYPE_CHECKING, Final

import click

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.saying import hush, write

if TYPE_CHECKING:
    from cafs.settings.values import Settings

_PIECE: Final = 1 << 20
"""Bytes read and written at once."""


@click.command("cat", short_help="Print a file without mounting.")
@click.argument("path")
@options.with_settings(*options.SOURCES, *options.HOSTS)
def command(*, loaded: "Settings", path: str) -> int:
    """Print the content of PATH, a file of the mount, without mounting.

    PATH is written as for cafs ls; a digest in it may be cut short. What is fetched stays in the
    store.
    """
    from cafs.cli.choosing import to_look_at
    from cafs.cli.completing import complete

    (path,) = complete(loaded, [path])
    hush()
    run_async(_print, to_look_at(loaded, path), path)
    return 0


async def _print(loaded: "Settings", path: str) -> None:
    import trio

    from cafs.assemble.system import open_system
    from cafs.cli.walking import follow, mount_path
    from cafs.errors import UsageError
    from cafs.model.member import Kind

    async with open_system(loaded, description="cat") as system:
        place = mount_path(path, (spec.name for spec in loaded.refs))
        node = await follow(system.filesystem, place)
        if node.kind is not Kind.FILE:
            raise UsageError(f"{path!r} is no file", hint=f"cafs ls {path}".rstrip())
        offset = 0
        while piece := await system.filesystem.read(node.inode, offset, _PIECE):
            await trio.to_thread.run_sync(write, piece)
            offset += len(piece)
