"""``cafs worker``: what a keeper starts; it serves the requests that the keeper relays.

No person calls it. The keeper's command line has it, with everything that must not change while the
mount lives; the rest of the settings is read when somebody waits for the worker's word, and else
what it was for the worker before.
"""

import gc
import os
import signal
import stat
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Final

import click

from cafs.cli import options
from cafs.cli.exits import exit_code
from cafs.cli.failing import expected
from cafs.cli.mounts.heralding import Herald, is_awaited
from cafs.errors import CafsError, MountError, UsageError

_ALONE: Final = "this worker has no keeper"
_INSTEAD: Final = "a mount is begun by: cafs mount"


def _with_word(verb: Callable[..., int]) -> Callable[..., int]:
    """Give a verb ``herald``, and let the herald and the log say why it failed."""

    @wraps(verb)
    def wrapper(**values: object) -> int:
        # What is imported stays: to look through it for garbage takes a tenth of a worker's start.
        gc.disable()
        from cafs.cli.mounts import serving
        from cafs.fuse.channel import WORD_FD

        gc.freeze()
        gc.enable()
        _check_descriptors()
        serving.log_to_stderr()
        herald = Herald(WORD_FD)
        try:
            return verb(herald=herald, **values)
        except (CafsError, BaseExceptionGroup) as error:
            known = expected(error)
            if known is None:
                raise
            serving.log_failure(known)
            herald.lament(known)
            return exit_code(type(known))

    return wrapper


def _check_descriptors() -> None:
    """See whether a keeper has started us; later, what it gives would be what we have opened.

    Raises:
        MountError: it was somebody else.
    """
    from cafs.fuse.channel import CHANNEL_FD, REQUESTS_FD, WORD_FD

    try:
        os.fstat(WORD_FD)
        modes = [os.fstat(place).st_mode for place in (REQUESTS_FD, CHANNEL_FD)]
    except OSError as error:
        raise MountError(_ALONE, hint=_INSTEAD) from error
    if not all(map(stat.S_ISSOCK, modes)):
        raise MountError(_ALONE, hint=_INSTEAD)


def _key(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    from cafs.store.trees.mounts import is_key

    if not is_key(text):
        raise click.BadParameter("32 hexadecimal digits are wanted")
    return text


def _owner(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    if not (uid.isdecimal() and gid.isdecimal()):
        raise click.BadParameter("two numbers with a colon between are wanted")
    return int(uid), int(gid)


@click.command("worker", hidden=True)
@_with_word
@options.mount_point
@options.with_flags(*options.MOUNT)
@click.option("--key", required=True, callback=_key)
@click.option("--owner", metavar="UID:GID", required=True, callback=_owner)
def command(*, flags: options.Flags, key: str, owner: tuple[int, int], herald: Herald) -> int:
    """Serve the mount of a keeper: requests come by descriptor 3, the keeper's own words by 4.

    On descriptor 5 it says in one line that it is ready, or why it is not. When nobody waits for
    that, it goes on for a worker that has ended, with the settings of that one.
    """
    from cafs.cli.mounts import serving
    from cafs.cli.verbs.mount import target
    from cafs.fuse.channel import WORD_FD

    # Ctrl-C in a terminal is for the keeper, which ends the mount in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if is_awaited(WORD_FD):
        loaded = flags.load()
        kept = serving.KeptMount(
            mount_point=target(loaded), store=loaded.store, key=key, owner=owner
        )
        serving.serve_kept(kept, loaded, herald=herald)
    else:
        mount_point, store = _named(flags)
        kept = serving.KeptMount(mount_point=mount_point, store=store, key=key, owner=owner)
        serving.serve_kept(kept, None, herald=herald)
    return 0


def _named(flags: options.Flags) -> tuple[Path, Path]:
    """The mount point and the store, as the command line names them.

    Raises:
        UsageError: it does not; no keeper has made it.
    """
    if flags.mount_point is None or flags.store is None:
        raise UsageError("a worker that nobody waits for needs --store and a mount point")
    return flags.mount_point, flags.store
