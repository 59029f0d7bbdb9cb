"""Mending: a store whose directory is removed while it is in use gets its directories again.

``rm -rf`` of a cache is nothing that a build should die of. The records of a process that has the
store open live on in files without names; what they say is there is looked for, not found, and
fetched again: it only needs somewhere to go. Who opens the store afterwards begins with new records
and knows nothing of the others; their files have random names, or those of what they hold.
"""

import logging
from typing import Final

import trio

from cafs.store.disk.layout import Layout

_EVERY_S: Final = 1.0
"""Between two looks: for so long, what is new cannot be stored."""
_LOG: Final = logging.getLogger("cafs.store")


async def keep_whole(layout: Layout) -> None:
    """Make the store's directories again whenever they are gone, until cancelled.

    A failure is tried again at the next look; it is logged once.
    """
    failing = False
    while True:
        await trio.sleep(_EVERY_S)
        try:
            mended = await trio.to_thread.run_sync(layout.mend)
        except OSError as error:
            if not failing:
                _LOG.warning("store.folders.lost path=%s error=%s", layout.root, error)
            failing = True
            continue
        failing = False
        if mended:
            _LOG.warning("store.folders.mended path=%s", layout.root)
