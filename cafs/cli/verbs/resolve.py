"""``cafs resolve``: say what refs mean now."""

from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.failing import expected, report
from cafs.cli.interruptible import run_async
from cafs.cli.saying import say
from cafs.errors import BudgetError, CafsError, StorageError

if TYPE_CHECKING:
    from cafs.model.resolved import Resolved
    from cafs.model.spec import RefSpec
    from cafs.settings.values import Settings


@click.command("resolve", short_help="Say what refs mean now.")
@click.argument("refs", nargs=-1)
@options.with_settings(*options.SOURCES)
@options.as_json
def command(
    *,
    refs: tuple[str, ...],
    loaded: "Settings",
    as_json: bool,
) -> int:
    """Say what each of REFS means now: digest, size, and where its bytes come from.

    REFS are names from cafs.toml (all of them when none is given) or refs written out. Mutable ones
    are asked for again, unless they are locked (--pull update asks); a mount that is live keeps
    what it has. The exit code is that of the first that fails.
    """
    from cafs.cli.completing import complete

    return run_async(_resolve, loaded, complete(loaded, refs), as_json)


async def _resolve(loaded: "Settings", words: tuple[str, ...], as_json: bool) -> int:
    """Ask for one after the other; one that fails does not keep the others from being told.

    Returns:
        The exit code of the first failure, 0 without one.
    """
    from cafs.assemble.system import open_system
    from cafs.cli.choosing import chosen
    from cafs.fetch.interfaces import Patience

    specs = chosen(loaded, words)
    codes: list[int] = []
    async with open_system(loaded, description="resolve") as system:
        for spec in specs:
            try:
                resolved = await system.resolver.resolve(spec, Patience(spec.deadline_s))
            except (StorageError, BudgetError):
                raise  # the next one would fail likewise
            except (CafsError, BaseExceptionGroup) as error:
                known = expected(error)
                if known is None:
                    raise
                codes.append(report(known, of=spec.name or spec.ref.shown))
            else:
                _print(spec, resolved, as_json=as_json)
    return next(iter(codes), 0)


def _print(spec: "RefSpec", resolved: "Resolved", *, as_json: bool) -> None:
    from cafs.cli.sizes import size
    from cafs.model.address import shown
    from cafs.model.ref import shown_canonical

    if as_json:
        import msgspec

        facts = {
            "name": spec.name,
            "ref": shown_canonical(spec.ref),
            "shape": resolved.shape.value,
            "digest": str(resolved.digest) if resolved.digest else None,
            "parts": [
                {
                    "mediaType": part.media_type,
                    "size": part.size,
                    "digest": str(part.digest) if part.digest else None,
                    "urls": [shown(url) for url in part.urls],
                }
                for part in resolved.parts
            ],
        }
        say(msgspec.json.encode(facts))
        return
    say(f"{spec.name or spec.ref.shown}: {resolved.shape.value} {shown_canonical(spec.ref)}")
    say(f"  digest {resolved.digest or 'not known until it has been read whole'}")
    for part in resolved.parts:
        told = size(part.size) if part.size is not None else "size not told"
        source = shown(next(iter(part.urls), "in the store"))
        say(f"  {told:>10}  {part.digest or part.validator.text or '-'}  {source}")
