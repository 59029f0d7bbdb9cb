"""What a worker does about content that was handed out before it was checked.

It goes on checking what the worker before it has left unchecked, and has the kernel forget the
pages of what turned out to be wrong, and the names of what means something else now.
"""

import logging
from typing import TYPE_CHECKING, Final

from cafs.errors import CafsError
from cafs.fetch.content.provisional import ProvisionalContent
from cafs.fetch.interfaces import Patience, Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cafs.assemble.system import System
    from cafs.fuse.operations import CafsOperations
    from cafs.model.spec import RefSpec

_LOG: Final = logging.getLogger("cafs")


async def retract(system: "System", operations: "CafsOperations") -> None:
    """Have the kernel forget what was wrong, whenever that turns out; never returns.

    Cancellation: what is left is forgotten when the next worker begins.
    """
    async for exposure in system.fetcher.exposures.news():
        inodes = system.filesystem.showing(exposure.key)
        try:
            await operations.forgetting.pages(inodes)
        except OSError as error:
            _LOG.warning("serving.pages.kept error=%s: %s", error, exposure.name)
        else:
            _LOG.info("serving.pages.dropped count=%d: %s", sum(map(len, inodes)), exposure.name)


async def forget(operations: "CafsOperations", names: "Sequence[tuple[int, bytes]]") -> None:
    """Have the kernel look names up again that have another meaning than under the worker before.

    Cancellation: the kernel believes for a second what it has.
    """
    try:
        await operations.forgetting.names(names)
    except OSError as error:
        _LOG.warning("serving.names.kept error=%s", error)


async def follow_up(system: "System") -> None:
    """Go on checking what a worker before this one handed out unchecked.

    Cancellation: as when a worker ends.
    """
    for spec in system.settings.refs:
        if spec.verify == "provisional":
            try:
                await _follow_up(system, spec)
            except CafsError as error:
                _LOG.warning("serving.unchecked ref=%s: %s", spec.name, error.line)


async def _follow_up(system: "System", spec: "RefSpec") -> None:
    resolved = system.resolver.peek(spec)
    for number, part in enumerate(() if resolved is None else resolved.parts):
        if system.fetcher.exposures.of([part], spec.verify) is None:
            continue
        patience = Patience(spec.deadline_s, Priority.PREFETCH)
        content = await system.resolver.part(spec, number, patience)
        if isinstance(content, ProvisionalContent):
            content.follow()
