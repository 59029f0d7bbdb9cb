"""The command: verbs loaded when they are called, and the one place where errors become exits."""

import importlib
import sys
import traceback
from typing import Final

import click
from typing_extensions import override

from cafs import __version__
from cafs.cli.exits import BUG, EPILOG, INTERRUPTED, USAGE
from cafs.cli.failing import expected, interrupted, lament, reader_gone, report
from cafs.cli.saying import keep_places
from cafs.model.nearest import nearest_hint

VERBS: Final = (
    "mount",
    "unmount",
    "run",
    "add",
    "remove",
    "lock",
    "prefetch",
    "resolve",
    "inspect",
    "ls",
    "cat",
    "du",
    "gc",
    "rm",
    "pin",
    "unpin",
    "verify",
    "status",
    "inflight",
    "cancel",
    "reload",
    "auth",
)
"""In the order in which a person meets them. Each is a module of ``verbs``, with a ``command``."""
_HIDDEN: Final = ("worker",)
"""Verbs that no person calls; they are loaded likewise, and not listed."""


class VerbGroup(click.Group):
    """A group whose verbs are imported on use, so that ``--help`` costs no heavy import."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in (*VERBS, *_HIDDEN):
            return None
        module = importlib.import_module(f"cafs.cli.verbs.{cmd_name}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"cafs.cli.verbs.{cmd_name}.command is no command")
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in (*VERBS, *_HIDDEN) and not word.startswith("-"):
            ctx.fail(f"there is no verb {word!r}; {nearest_hint(word, VERBS)}")
        return super().resolve_command(ctx, args)


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


def _misused(error: click.ClickException) -> None:
    """Say what is wrong with the command line in the form of every other failure."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    lament(error.format_message(), f"see {context.command_path if context else 'cafs'} --help")


def main() -> None:
    """Run the command line and exit with the code of ``cafs.cli.exits``."""
    keep_places()
    try:
        code = cli.main(prog_name="cafs", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(USAGE)
    except click.ClickException as error:
        _misused(error)
        sys.exit(USAGE)
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost boundary
        sys.exit(_unfinished(error))


def _unfinished(error: BaseException) -> int:
    """The exit code of a command that did not end by itself, after saying why."""
    if reader_gone(error):
        return 0
    if interrupted(error):
        return INTERRUPTED
    known = expected(error)
    if known is not None:
        return report(known)
    traceback.print_exception(error)
    click.echo("error: this is a bug in cafs; the traceback above tells where", err=True)
    return BUG
