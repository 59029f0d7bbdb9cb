"""What requests by HTTP go through, put together: credentials, redirects, counting, connections.

Nothing imports it before the first of them: with all that it needs it is a tenth of what a worker
would load (:mod:`cafs.transport.later`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cafs.metrics import Metrics
from cafs.model.login import HostLogin
from cafs.model.pacing import Pacing
from cafs.transport.authenticating import Authenticating, Tried, nobody
from cafs.transport.credentials.keeping import Credentials
from cafs.transport.http import HttpLimits, HttpTransport, tls_context
from cafs.transport.interfaces import Transport
from cafs.transport.metering import Metering
from cafs.transport.proxies import Proxies
from cafs.transport.redirecting import Redirecting, RedirectPolicy


def web_transport(
    metrics: Metrics,
    *,
    pacing: Pacing,
    proxies: Proxies,
    ca_bundle: Path | None,
    logins: Sequence[HostLogin],
    credentials: Credentials,
    witness: Callable[[Tried], None] | None,
) -> Transport:
    """The transport for ``http:`` and ``https:``, from the outside in.

    Args:
        metrics: count requests and bytes.
        pacing: patience and numbers.
        proxies: which URLs go through a proxy.
        ca_bundle: what is trusted instead of the system's CAs.
        logins: of the settings; they name the certificates that are shown to hosts.
        credentials: what is known of who we are.
        witness: told of each request that may show it; None for nobody.
    """
    http = HttpTransport(
        limits=HttpLimits.of(pacing),
        proxies=proxies,
        tls=partial(tls_context, ca_bundle),
        logins=logins,
    )
    redirects = RedirectPolicy(proxied=lambda url: bool(proxies.proxy_for(url)))
    counted = Redirecting(Metering(http, metrics), redirects)
    return Authenticating(counted, redirects, credentials, witness or nobody)
