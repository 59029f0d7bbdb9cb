"""What every request goes through."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from cafs.metrics import Metrics
from cafs.settings.values import Settings
from cafs.transport.choosing import Choosing
from cafs.transport.file import FileTransport
from cafs.transport.interfaces import Transport
from cafs.transport.later import Later
from cafs.transport.metering import Metering
from cafs.transport.proxies import Proxies
from cafs.transport.s3 import S3Transport

if TYPE_CHECKING:
    from cafs.transport.authenticating import Tried
    from cafs.transport.credentials.keeping import Credentials
    from cafs.transport.plugins.transport import PluginTransport


def credentials_of(settings: Settings) -> "Credentials":
    """What is known of who we are; nothing is read before somebody asks."""
    from cafs.transport.credentials.opening import open_credentials  # noqa: PLC0415 - as below

    return open_credentials(settings.logins, settings.helpers, os.environ)


@asynccontextmanager
async def open_transport(
    settings: Settings,
    metrics: Metrics,
    *,
    credentials: "Credentials | None" = None,
    witness: "Callable[[Tried], None] | None" = None,
) -> AsyncIterator[Transport]:
    """What every request goes through, from the outside in: credentials, redirects, counting.

    ``credentials`` are what is known of who we are, None for what the settings amount to;
    ``witness`` is told of each request that may show it.

    Content is fetched by it as it is, since a flight knows where a broken body stopped; questions
    are asked with retries around it.
    """
    proxies = Proxies.from_environment(os.environ)  # what is wrong with them is said at once

    def load_web() -> Callable[[], Transport]:
        from cafs.transport.web import web_transport  # noqa: PLC0415 - with the first request

        return partial(
            web_transport,
            metrics,
            pacing=settings.pacing,
            proxies=proxies,
            ca_bundle=settings.ca_bundle,
            logins=settings.logins,
            credentials=credentials or credentials_of(settings),
            witness=witness,
        )

    web = Later(load_web)
    files = Metering(FileTransport(settings.pacing), metrics)
    objects = Metering(S3Transport(os.environ, settings.pacing), metrics)
    async with _plugins(settings) as plugins:
        others = {scheme: Metering(plugin, metrics) for scheme, plugin in plugins.items()}
        # A plugin for s3 stands before what is built in: the user has enabled it.
        chosen = Choosing({"http": web, "https": web, "file": files, "s3": objects, **others})
        try:
            yield chosen
        finally:
            with trio.CancelScope(shield=True):
                await chosen.aclose()


@asynccontextmanager
async def _plugins(settings: Settings) -> "AsyncIterator[Mapping[str, PluginTransport]]":
    """The transports of plugins, by scheme, of those who use any."""
    if not settings.plugins:
        yield {}
        return
    from cafs.transport.plugins.transport import open_plugins  # noqa: PLC0415 - few use any

    async with open_plugins(settings.plugins) as plugins:
        yield plugins
