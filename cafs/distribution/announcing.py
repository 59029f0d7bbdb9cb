"""Which table of contents a layer's annotations in the manifest announce."""

import logging
from collections.abc import Mapping
from typing import Final

from cafs.codec import estargz, zstd_chunked
from cafs.errors import UnsupportedError
from cafs.model.resolved import Contents

_LOG: Final = logging.getLogger("cafs.distribution")


def announced(annotations: Mapping[str, str], name: str) -> Contents | None:
    """The table of a layer; None where there is none that could be read, which is logged.

    A layer may have the annotations of both kinds: those who make zstd:chunked for containerd pin
    its table under the other's name too. So zstd:chunked comes first.
    """
    for announce in (zstd_chunked.announced, estargz.announced):
        try:
            contents = announce(annotations)
        except UnsupportedError as error:
            _LOG.warning("lazy.no: %s: %s", name, error.line)
            continue
        if contents is not None:
            return contents
    return None
