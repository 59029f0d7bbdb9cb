"""Choosing: the transport for a URL, by its scheme."""

from collections.abc import Mapping

from typing_extensions import override

from cafs.errors import UnsupportedError
from cafs.model.address import SCHEME, enabling, shown
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.urls import scheme_of


class Choosing(Transport):
    """Hands each request to the transport of its scheme.

    Args:
        transports: by scheme, lower-case ("https"). One transport may stand for several.
    """

    def __init__(self, transports: Mapping[str, Transport]) -> None:
        self._transports = dict(transports)

    @override
    async def open(self, request: Request) -> Response:
        """Ask the transport of the URL's scheme.

        Raises:
            UnsupportedError: there is none (Y-2); all else as that transport.
        """
        scheme = scheme_of(request.url)
        transport = self._transports.get(scheme)
        if transport is None:
            hint = f"there are {', '.join(sorted(self._transports))}"
            if SCHEME.fullmatch(scheme):
                hint += f"; {enabling(scheme)}"
            raise UnsupportedError(
                f"{shown(request.url)}: no transport for {scheme or 'no scheme'!r}", hint=hint
            )
        return await transport.open(request)

    @override
    async def aclose(self) -> None:
        for transport in {id(each): each for each in self._transports.values()}.values():
            await transport.aclose()
