"""The command: verbs loaded when they are called, and the one place where errors become exits."""

import importlib
import os
import sys
import traceback
from typing import Final

import click
from typing_extensions import override

from cafs import __version__
from cafs.cli.exits import BUG, EPILOG, INTERRUPTED, exit_code
from cafs.cli.failing import expected, interrupted
from cafs.errors import CafsError

VERBS: Final = ("mount", "unmount", "run", "prefetch", "resolve", "ls", "cat", "status")
"""In the order in which a person meets them. Each is a module here with a command ``command``."""


class VerbGroup(click.Group):
    """A group whose verbs are imported on use, so that ``--help`` costs no heavy import."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"cafs.cli.{cmd_name}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"cafs.cli.{cmd_name}.command is no command")
        return command


@click.group(
    cls=VerbGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="cafs", message="%(prog)s %(version)s")
def cli() -> None:
    """Mount refs and digests as paths.

    Container images, archives and files that live elsewhere appear as directories. Only the bytes
    that are read are fetched, verified, and kept, so that nothing is fetched twice.

    \b
    What to mount stands in cafs.toml, found from the working directory upwards:
        [mount]
        path = "cafs"
        [ref.toolchain]
        from = "https://example.com/toolchain.tar.gz"
    Then: cafs mount; ls cafs/ref/toolchain; cafs unmount
    """


def report(error: CafsError) -> int:
    """Print an expected failure for a person, and return its exit code."""
    styled = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    label = click.style("error", fg="red", bold=True) if styled else "error"
    hint, error.hint = error.hint, ""
    click.echo(f"{label}: {error.line}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return exit_code(type(error))


def main() -> None:
    """Run the command line and exit with the code of ``cafs.cli.exits``."""
    try:
        code = cli.main(prog_name="cafs", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output has gone (`cafs ls | head`); leave as a filter does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost boundary
        if interrupted(error):
            sys.exit(INTERRUPTED)
        known = expected(error)
        if known is not None:
            sys.exit(report(known))
        traceback.print_exc()
        click.echo("error: this is a bug in cafs; the traceback above tells where", err=True)
        sys.exit(BUG)
