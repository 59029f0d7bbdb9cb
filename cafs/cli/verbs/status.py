"""``cafs status``: what is mounted, what is fetched, from where, and how its keeper is."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafs.cli import options
from cafs.cli.saying import aside, readable, say

if TYPE_CHECKING:
    from cafs.cli.mounts.live import LiveMount
    from cafs.cli.mounts.looking import Seen


@click.command("status", short_help="Say what is mounted, and what is fetched from where.")
@click.argument("named", metavar="[MOUNT_POINT]", required=False, type=options.MountPoint())
@options.with_flags(*options.SOURCES)
@options.as_json
def command(
    *,
    named: Path | None,
    flags: options.Flags,
    as_json: bool,
) -> int:
    """Say what is mounted, what is fetched, from where, and how often it was there already.

    Of a mount (MOUNT_POINT, or that of cafs.toml, or the only one that was made for it) its keeper
    and its worker answer, with the last failures; without one, what the store knows of the refs of
    cafs.toml is shown. Elsewhere all mounts of this user are listed.
    """
    import msgspec

    from cafs.cli.showing import show

    seen = _seen(named, flags)
    if seen is None:
        return _list_mounts(as_json=as_json)
    if as_json:
        say(msgspec.json.encode(_facts(seen)))
    else:
        show(seen)
    if seen.trouble is not None:
        raise seen.trouble
    return 0


def _seen(named: Path | None, flags: options.Flags) -> "Seen | None":
    """The mount, or the project, that is meant; where its settings cannot be read, its one mount.

    None where there is neither, as far as can be told.

    Raises:
        CafsError: as ``look``; or the settings cannot be read, and it has no mount, or several.
    """
    from cafs.cli.mounts.choosing import place_on_record
    from cafs.cli.mounts.looking import look, look_at
    from cafs.settings.broken import Broken

    if named is not None:
        return look_at(options.place_of(named))
    read = flags.attempt_project()
    if not isinstance(read, Broken):
        return look(read)
    if read.file is None and read.mount_point is None:
        aside(f"warning: the settings cannot be read: {read.why.line}")
        return None
    return look_at(place_on_record(read))


def _facts(seen: "Seen") -> dict[str, object]:
    """What ``--json`` prints: a status, and its keeper; what is not known is None."""
    import msgspec

    from cafs.reporting import Status

    facts: dict[str, object] = dict.fromkeys(Status.__struct_fields__)
    if seen.status is not None:
        facts = msgspec.to_builtins(seen.status)
    elif seen.live is not None:
        facts |= {"view": seen.live.view, "store": seen.live.store}
    if seen.mount_point is not None:
        facts["mount_point"] = str(seen.mount_point)
    for name in ("mount_point", "store"):
        if isinstance(facts[name], str):
            facts[name] = readable(str(facts[name]))
    return facts | {"keeper": seen.keeper, "elsewhere": seen.elsewhere}


def _list_mounts(*, as_json: bool) -> int:
    import msgspec

    from cafs.cli.mounts import live

    mounts, known = [], live.all_mounts()
    for trouble in known.troubles:
        aside(f"warning: not every mount is known: {trouble.line}")
    for mount in known.mounts:
        # What a crash has left behind is of no use once its mount has gone.
        if not mount.alive and live.mounted_type(Path(mount.mount_point)) != live.TYPE:
            live.remove(mount)
        else:
            mounts.append(mount)
    if as_json:
        say(msgspec.json.encode({"mounts": mounts}))
        return 0
    for mount in mounts:
        say(f"{mount.mount_point}  {_state(mount)}  store {mount.store}")
    if not mounts:
        say("nothing is mounted, and there is no cafs.toml here or above")
    return 0


def _state(mount: "LiveMount") -> str:
    from cafs.cli.mounts import live

    if not mount.alive:
        return f"its {mount.holder} (pid {mount.pid}) has died"
    if not live.is_uppermost(mount):
        return f"{mount.holder} pid {mount.pid}, detached, serves its last readers"
    return f"{mount.holder} pid {mount.pid}"
