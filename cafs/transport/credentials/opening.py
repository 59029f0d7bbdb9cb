"""All places of credentials in their order: settings, helpers, variables, Docker, netrc."""

from collections.abc import Mapping, Sequence

from cafs.model.login import HelperRule, HostLogin
from cafs.transport.credentials.docker_config import DockerConfig
from cafs.transport.credentials.helpers import Helpers
from cafs.transport.credentials.keeping import Credentials
from cafs.transport.credentials.netrc_file import Netrc
from cafs.transport.credentials.running import Runner
from cafs.transport.credentials.stated import Stated
from cafs.transport.credentials.variables import Variables


def open_credentials(
    logins: Sequence[HostLogin],
    helpers: Sequence[HelperRule],
    environ: Mapping[str, str],
    runner: Runner | None = None,
) -> Credentials:
    """What is known of who we are; nothing is read before somebody asks.

    Args:
        logins: what settings say.
        helpers: the programs that settings name.
        environ: the environment; helpers get it as it is.
        runner: runs the programs; None makes one.
    """
    runner = runner or Runner(environ)
    keyrings = (
        Stated(logins, environ),
        Helpers(helpers, runner),
        Variables(environ),
        DockerConfig(runner, environ),
        Netrc(logins, environ),
    )
    return Credentials(keyrings, logins)
