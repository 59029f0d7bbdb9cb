"""Which hosts may be named by path: those that settings name, or any where that is allowed.

Named refs are not asked about: whoever wrote the settings allowed them.
"""

from urllib.parse import urlsplit

import msgspec

from cafs.errors import PolicyError
from cafs.model.ref import DigestRef, Ref


class HostPolicy(msgspec.Struct, frozen=True):
    """What a path may make the mount ask for.

    ``hosts`` are ``host`` or ``host:port``, as ``Ref.host`` spells them; a host without a port
    stands for the default port only, since another port is another service. ``dynamic`` allows
    every host.
    """

    hosts: frozenset[str]
    dynamic: bool = False

    def check(self, ref: Ref) -> None:
        """Allow a ref that was named by path.

        A digest names no place; whatever answers for it is checked against it.

        Raises:
            PolicyError: a local file, or a host that nothing names; the hint says what to do.
        """
        if isinstance(ref, DigestRef):
            return
        if ref.host is None:
            raise PolicyError(
                f"{ref.shown}: local files may not be named by path",
                hint="give it a name in cafs.toml or in ~/.config/cafs/config.toml",
            )
        if not self.allows(ref.host):
            raise PolicyError(
                f"{ref.shown}: the host {ref.host} is not named in the settings",
                hint="give the ref a name in cafs.toml, allow the host in "
                "~/.config/cafs/config.toml, or mount with --dynamic",
            )

    def allows(self, host: str) -> bool:
        """Whether a host may be contacted because of what a path, or a manifest, says."""
        return self.dynamic or host in self.hosts

    def allows_url(self, url: str) -> bool:
        """Whether an http(s) URL that came with content may be contacted."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        plain = parts.scheme in {"http", "https"} and parts.username is None
        return plain and self.allows(parts.netloc.lower())
