"""``cafs auth``: find out who we are to the sources, and why one refuses us."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from cafs.cli import options
from cafs.cli.interruptible import run_async
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.errors import CafsError
    from cafs.model.spec import RefSpec
    from cafs.settings.values import Settings
    from cafs.transport.authenticating import Tried
    from cafs.transport.credentials.credential import Look
    from cafs.transport.credentials.keeping import Credentials
    from cafs.transport.interfaces import Head, Request


@click.group("auth", short_help="Find out which credentials are used.")
def command() -> None:
    """Find out which credentials are used, and why a source refuses them.

    Where they are looked for, in this order: settings, credential helpers, variables, Docker's
    configuration, netrc. See docs/credentials.md.
    """


@command.command("test", short_help="Ask the sources of a ref.")
@click.argument("ref")
@options.with_settings(*options.SOURCES)
@options.as_json
def test(*, ref: str, loaded: "Settings", as_json: bool) -> int:
    """Ask each source of REF for its first byte, or its manifest.

    Says where credentials were looked for, what was shown and what came of it; never a secret. REF
    is a name from cafs.toml or a ref written out. The exit code is 6 when a source refuses.
    """
    from cafs.cli.completing import complete

    (ref,) = complete(loaded, [ref])
    return run_async(_test, loaded, ref, as_json)


class _Trial(msgspec.Struct, frozen=True):
    """What came of asking one source. ``certificate`` is the file of ours that it may see."""

    url: str
    looks: "tuple[Look, ...]"
    certificate: str
    tried: "tuple[Tried, ...]"
    head: "Head | None"
    error: "CafsError | None"


async def _test(loaded: "Settings", word: str, as_json: bool) -> int:
    from cafs.assemble.transports import credentials_of, open_transport
    from cafs.cli.choosing import chosen
    from cafs.errors import CafsError, NotFoundError, OfflineError
    from cafs.metrics import Metrics

    (spec,) = chosen(loaded, [word])
    name = spec.name or spec.ref.shown
    questions = _questions(loaded, spec)
    if loaded.offline:
        raise OfflineError(f"{name}: no source may be asked")
    if not questions:
        raise NotFoundError(f"{name}: has no source", hint="name mirrors for it in the settings")
    credentials = credentials_of(loaded)
    tried: list[Tried] = []
    failures: list[CafsError] = []
    async with open_transport(
        loaded, Metrics(), credentials=credentials, witness=tried.append
    ) as transport:
        for question in questions:
            tried.clear()
            head, error = None, None
            try:
                async with await transport.open(question) as response:
                    head = response.head
            except CafsError as failed:
                error = failed
                failures.append(failed)
            url = question.url
            looks = await _looks(loaded, credentials, url)
            trial = _Trial(url, looks, _certificate(loaded, url), tuple(tried), head, error)
            _print(name, trial, as_json=as_json)
    return _code(failures)


async def _looks(loaded: "Settings", credentials: "Credentials", url: str) -> "tuple[Look, ...]":
    """Where credentials for a URL are looked for; a plugin has its own, and a file needs none."""
    scheme = url.partition(":")[0]
    if scheme in {"http", "https"}:
        return (await credentials.of(url)).looks
    if scheme == "s3" and scheme not in loaded.schemes:
        from cafs.transport.s3_looks import looks

        return looks(os.environ)
    return ()


def _questions(loaded: "Settings", spec: "RefSpec") -> "list[Request]":
    """What the sources of a ref are asked, in the order in which they would be."""
    from cafs.distribution.manifests import ACCEPTED
    from cafs.distribution.registry import Repository
    from cafs.model.ref import ArchiveRef, BlobRef, DockerRef
    from cafs.model.span import Span
    from cafs.transport.interfaces import Request

    ref = spec.ref
    if isinstance(ref, DockerRef):
        bases = (ref.base_url, *(mirror.rstrip("/") for mirror in spec.mirrors))
        urls = [Repository(base, ref.repository, "").manifest_url(ref.reference) for base in bases]
        headers = (("Accept", ", ".join(ACCEPTED)),)
        asked = [Request(url, headers=headers) for url in _mapped(loaded, urls)]
    else:
        urls = [ref.url] if isinstance(ref, ArchiveRef | BlobRef) else []
        urls += spec.mirrors
        asked = [Request(url, Span(0, 1)) for url in _mapped(loaded, urls)]
    return asked


def _mapped(loaded: "Settings", urls: Sequence[str]) -> list[str]:
    from cafs.model.mapping import mapped

    return list(dict.fromkeys(each for url in urls for each in mapped(url, loaded.mapping)))


def _certificate(loaded: "Settings", url: str) -> str:
    from cafs.model.login import rule_for

    login = rule_for(url, [each for each in loaded.logins if each.client_cert])
    return str(login.client_cert) if login is not None and url.startswith("https:") else ""


def _code(failures: "list[CafsError]") -> int:
    """The exit code: of the first refusal, else of the first failure."""
    from cafs.cli.exits import exit_code
    from cafs.errors import AccessError

    refusals = [each for each in failures if isinstance(each, AccessError)]
    first = next(iter([*refusals, *failures]), None)
    return 0 if first is None else exit_code(type(first))


def _print(name: str, trial: _Trial, *, as_json: bool) -> None:
    from cafs.model.address import shown

    if as_json:
        import msgspec

        facts = {
            "ref": name,
            "url": shown(trial.url),
            "looked": [
                {"place": look.place, "what": look.what, "found": look.found}
                for look in trial.looks
            ],
            "certificate": trial.certificate or None,
            "tried": [{"showed": each.showed, "outcome": each.outcome} for each in trial.tried],
            "status": trial.head.status if trial.head else None,
            "code": trial.error.code if trial.error else None,
            "error": trial.error.line if trial.error else None,
        }
        say(msgspec.json.encode(facts))
        return
    say(f"{name}: {shown(trial.url)}")
    for look in trial.looks:
        say(f"  {'found' if look.found else 'looked':<7} {look.place}: {look.what}")
    if trial.url.startswith("file:"):
        say(f"  {'looked':<7} nowhere: a local file needs none")
    elif not trial.looks:
        say(f"  {'looked':<7} nowhere: a plugin has credentials of its own")
    if trial.certificate:
        say(f"  {'named':<7} certificate {trial.certificate}")
    for each in trial.tried:
        say(f"  {'showed':<7} {each.showed}: {each.outcome}")
    if trial.error is not None:
        refused = trial.error.code in {"access", "credentials", "policy"}
        say(f"  {'refused' if refused else 'failed':<7} {trial.error.line}")
    else:
        say(f"  {'answers':<7} yes")
