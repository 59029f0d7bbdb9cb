"""``cafs cancel``: end what is being fetched, for everybody who waits for it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import aside, say

if TYPE_CHECKING:
    from cafs.cli.mounts.reaching import Heard


@click.command("cancel", short_help="End fetches, for everybody who waits for them.")
@click.argument("words", metavar="ID... | --all [MOUNT_POINT]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="End all of them, or all of one mount.")
@options.as_json
def command(*, words: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """End the fetches of a content, by an ID that cafs inflight shows.

    Who reads it gets the error ECANCELED, also where on-error is "wait"; a prefetch reports it and
    goes on with the next. What has been fetched stays, and who asks again later fetches the rest.
    --all where nothing is fetched says so, and is no error.
    """
    import msgspec

    from cafs.cli.mounts.reaching import listen_to
    from cafs.errors import NotFoundError, UsageError

    if everything and len(words) > 1:
        raise UsageError("--all takes one mount point at most")
    if not everything and not words:
        raise UsageError("what is to be ended?", hint="cafs inflight lists it; or --all")
    heard = listen_to(options.place_of(Path(words[0])) if everything and words else None)
    for word in (None,) if everything else words:
        names = _end(heard, word)
        for name in names:
            say(msgspec.json.encode({"cancelled": name}) if as_json else f"cancelled {name}")
        if not names and not everything and not heard.troubles:
            raise NotFoundError(f"no fetch {word} is under way", hint="cafs inflight lists them")
        if not names and everything and not heard.troubles:
            aside("nothing is being fetched")
    for trouble in heard.troubles:
        raise trouble
    return 0


def _end(heard: "Heard", word: str | None) -> list[str]:
    """End fetches wherever they are; the names of what was ended. Who does not answer is noted."""
    from cafs.control import fetches
    from cafs.errors import MountError

    names: list[str] = []
    for path in heard.fetching:
        try:
            names += fetches.cancel(path, word)
        except MountError as error:
            heard.troubles.append(error)
    return names
