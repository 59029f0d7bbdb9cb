"""What ``cafs status`` shows to people."""

from pathlib import Path
from typing import TYPE_CHECKING

from cafs.cli.absent import told
from cafs.cli.mounts.looking import Seen, failures
from cafs.cli.saying import say

if TYPE_CHECKING:
    from cafs.control.keeper import KeeperStatus
    from cafs.reporting import MirrorStatus, RefStatus, Status


def show(seen: Seen) -> None:
    """Show what was seen of a mount, or of refs that are not mounted.

    Raises:
        MountError: the mount stopped answering meanwhile.
    """
    from cafs.cli.sizes import duration, part, size
    from cafs.reporting import uptime_s

    found = seen.status
    up = uptime_s(found) if found is not None else None
    if seen.mount_point is None:
        places = ", ".join(seen.elsewhere)
        say(f"not mounted; this project is on {places}" if places else "not mounted")
    elif found is None or up is None:
        say(f"mounted on {seen.mount_point}")
    else:
        say(f"mounted on {seen.mount_point} (worker pid {found.pid}) for {duration(up)}")
    if seen.keeper is not None:
        _show_keeper(seen.keeper)
    if found is None:
        return
    say(_room(found, absent=seen.absent))
    if found.hit_rate is not None:
        requests = found.counters["fetch.requests"]
        say(
            f"fetched {size(found.fetched)} in {requests} requests; "
            f"{found.hit_rate:.0%} of reads found their bytes in the store"
        )
    if found.found:
        say(f"found {size(found.found)} in other stores on this machine")
    _show_refs(found.refs)
    for note in found.notes:
        say(f"note {note}")
    _show_mirrors(found.mirrors)
    for line in failures(seen.mount_point) if seen.mount_point is not None else ():
        say(f"failed {line}")
    for fetch in found.inflight:
        where = f" from {fetch.url}" if fetch.url else ""
        done = part(fetch.received, fetch.stop - fetch.start)
        say(f"fetching {fetch.name}: {done}{where} ({fetch.priority})")


def _room(found: "Status", *, absent: bool) -> str:
    """How full the store is, or that there is none."""
    from cafs.cli.sizes import size

    if absent:
        return told(Path(found.store))
    room = found.room
    bound = "" if room.quota is None else f" of {size(room.quota)}"
    kept = ""
    if room.min_free > found.store_free:
        kept = f", less than the {size(room.min_free)} that are left to others"
    elif room.min_free:
        kept = f", of which {size(room.min_free)} are left to others"
    aside = f", {size(room.quarantine)} of it in quarantine" if room.quarantine else ""
    free = f"{size(found.store_free)} free{kept}"
    return f"store {found.store} has {size(room.used)}{bound}{aside}; {free}"


def _show_keeper(kept: "KeeperStatus") -> None:
    worker = f"worker pid {kept.worker}" if kept.worker else "no worker"
    say(
        f"keeper pid {kept.pid}: {kept.state}, {worker}, {kept.workers} started so far; "
        f"{kept.waiting} requests wait, {kept.relayed} were relayed, {kept.resent} sent again"
    )


def _show_refs(refs: "tuple[RefStatus, ...]") -> None:
    """One line a ref, in columns; nothing is wrapped or cut, so that a program may read it too."""
    from cafs.cli.sizes import size

    if not refs:
        return
    rows = [("ref", "local", "of", "state", "from")]
    rows += [
        (
            ref.name,
            "-" if ref.size is None and not ref.present else size(ref.present),
            "?" if ref.size is None else size(ref.size),
            ref.state,
            ref.ref,
        )
        for ref in refs
    ]
    name, local, of, state, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        say(f"{row[0]:{name}}  {row[1]:>{local}}  {row[2]:>{of}}  {row[3]:{state}}  {row[4]}")


def _show_mirrors(mirrors: "tuple[MirrorStatus, ...]") -> None:
    """One line a host, those that are not as they should be with the reason."""
    from cafs.cli.sizes import size

    for each in mirrors:
        facts = [f"{size(each.bytes)}"]
        if each.rate is not None:
            facts.append(f"{size(each.rate)}/s")
        if each.latency is not None:
            facts.append(f"answers in {1000 * each.latency:.0f} ms")
        why = f": {each.why}" if each.why else ""
        say(f"from {each.host.removesuffix(':')}: {', '.join(facts)}; {each.state}{why}")
