"""What the master says about itself and its machine when an admin asks `drqueue doctor`.

Rules: the daemon hands over what only it knows; the machine is looked at here, in threads, for a few seconds
at most: a disk that hangs makes one bad finding and holds nobody up. Nothing is changed.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import trio

from drqueue import __version__, checkup
from drqueue.checkup import bad, listed, ok, warn
from drqueue.master.core.reasons import span
from drqueue.proto.views import Finding, HoldbackView, SlaveView
from drqueue.settings import MasterSettings

CERTIFICATE, KEY, ADMIN = "tls.crt", "tls.key", "admin.json"

#: Files whose reader could pass for the master, or for an admin.
_SECRETS = (KEY, ADMIN)
#: Descriptors that a master holds open itself, and those it wants free for links that come.
_OWN_FILES, _SPARE_FILES = 32, 256
#: A slave that was silent for longer is not only being restarted.
_RESTART_S = 60.0


async def examine(
    settings: MasterSettings,
    *,
    listening: Sequence[str],
    pin: str = "",
    certificate: str = "",
    key: str = "",
    alarm: str = "",
    slaves: Sequence[SlaveView] = (),
    software: Mapping[str, str] | None = None,
    pending: int = 0,
    lines: int = 0,
    revoked: Collection[str] = (),
    dialled: str = "",
    also: Sequence[str] = (),
    links: int = 0,
    links_most: int = 20_000,
    holdback: HoldbackView | None = None,
    doubt: str = "",
) -> tuple[Finding, ...]:
    """All findings, in the order in which they are told; takes some seconds at most.

    `listening` are the addresses it really listens at, as printed ("unix:PATH", "0.0.0.0:1234"). `pin` is of
    the certificate it shows ("": it has none); `certificate` and `key` are the PEM files' paths, by default
    those in the state directory. `alarm` is the database's. `software` says by name what linked slaves
    introduced themselves as. `pending` nodes wait to be approved, `lines` are good and unused; slaves called
    `revoked` lost their node's account. Lines name `dialled`, which was taken where `also` might have been;
    `links` are open now, of at most `links_most`. `holdback`: after a restore; `doubt`: of the wall clock.
    """
    folder = settings.state_dir
    looks: list[tuple[str, checkup.Look]] = []
    if pin:
        paths = (certificate or os.path.join(folder, CERTIFICATE), key or os.path.join(folder, KEY))
        looks.append(("certificate", partial(checkup.certificate_files, "certificate", *paths, pin)))
    needed = _OWN_FILES + _SPARE_FILES + max(links, len(slaves))
    looks += [
        ("clock", checkup.clock_set),
        ("state directory", partial(checkup.private_folder, "state directory", folder, _SECRETS)),
        ("disk", partial(checkup.disk_room, "disk", folder)),
        ("open files", partial(checkup.open_files, needed)),
    ]
    found = await trio.to_thread.run_sync(checkup.looked, looks)
    found += [_listening(settings, listening), _database(alarm), _links(links, links_most)]
    if doubt:
        found.append(warn("date", doubt, "set this machine's clock right, or wait"))
    if holdback is not None:
        found.append(_held_back(holdback, time.time()))
    if also:
        found.append(
            warn(
                "address",
                f"join lines name {dialled}; this machine has {listed(also, 3)}, too",
                "where nodes cannot reach the former: set `address` in the master's settings",
            )
        )
    found += [_versions(software or {}), _slaves(slaves, revoked, time.time())]
    if any(view.sick for view in slaves):
        found.append(_sick(slaves))
    if revoked:
        text = f"an admin revoked the access of {listed(sorted(revoked))}, which cannot link any more"
        advice = "`drqueue node add` and join them anew, or `drqueue slave forget NAME`"
        found.append(warn("revoked slaves", text, advice))
    if pending:
        text = f"{_count(pending, 'node')} wait{'s' if pending == 1 else ''} to be approved"
        found.append(warn("pending nodes", text, "see `drqueue node pending`; approve or reject"))
    if lines:
        where = "`drqueue node list --all` and `drqueue user list --all`"
        found.append(ok("open lines", f"{_count(lines, 'line')} can still be used: see {where}"))
    return tuple(found)


def _listening(settings: MasterSettings, listening: Sequence[str]) -> Finding:
    what = "listening"
    network = [address for address in listening if not address.startswith("unix:")]
    if settings.listen and not network:
        return bad(
            what,
            f"not on the network, though listen is {settings.listen}",
            "see the master's log, restart it",
        )
    if settings.socket_mode & 0o007 and any(address.startswith("unix:") for address in listening):
        return warn(
            what,
            f"every user of this machine may open its socket (mode {settings.socket_mode:03o})",
            "set socket_mode to 660, and put who may use the farm into its group",
        )
    if not network:
        return ok(what, "on this machine only (no `listen` is set)")
    return ok(what, f"at {', '.join(network)}, by TLS alone")


def _database(alarm: str) -> Finding:
    if alarm:
        return bad("database", alarm, "make room on its disk; the master goes on by itself")
    return ok("database", "takes what is written")


def _links(links: int, most: int) -> Finding:
    text = f"{links} open, {most} at most"
    if links > most * 0.9:
        return warn("links", text, "find out who opens so many: `drqueue audit`, ss -tn")
    return ok("links", text)


def _versions(software: Mapping[str, str]) -> Finding:
    own = f"drqueue {__version__}"
    others = [f"{name} ({version or 'unknown'})" for name, version in software.items() if version != own]
    if others:
        return warn(
            "software",
            f"this is {own}; others: {listed(others, 3)}",
            "run one version everywhere, master first",
        )
    return ok("software", f"{own}, as all linked slaves" if software else own)


def _slaves(slaves: Sequence[SlaveView], revoked: Collection[str], now: float) -> Finding:
    """Which slaves are away, of those that could link."""
    away = [
        view
        for view in slaves
        if not view.linked and now - view.last_heard_at >= _RESTART_S and view.name not in revoked
    ]
    linked = sum(view.linked for view in slaves)
    text = f"{linked} of {len(slaves)} linked"
    if away:
        return warn(
            "slaves",
            f"{text}; away: {listed([view.name for view in away])}",
            "start drqueue-slave there, or `drqueue slave forget NAME` where it is gone",
        )
    if not slaves:
        return warn("slaves", "there is none", "`drqueue node add`, and paste its line on a node")
    return ok("slaves", text)


def _held_back(view: HoldbackView, now: float) -> Finding:
    """Jobs of a backup that wait for the end of what began since."""
    count = view.jobs
    text = f"{_count(count, 'job')} of the backup {'is' if count == 1 else 'are'} held back"
    if view.until_at:
        text += f" for {span(view.until_at - now)} at most, until every lease is over"
    if view.for_operator:
        which = "" if view.for_operator == count else f", {view.for_operator} of them"
        text += f"{which} until an operator vouches"
    away = f" ({_count(view.slaves_away, 'slave')} not linked since)" if view.slaves_away else ""
    return warn(
        "held back",
        text + away,
        "wait; or, once no slave out of reach runs anything any more, `drqueue farm resume`",
    )


def _sick(slaves: Sequence[SlaveView]) -> Finding:
    """Which slaves get no frames, because too many failed there."""
    sick = [view for view in slaves if view.sick]
    text = f"{sick[0].name}: {sick[0].sick}"
    if len(sick) > 1:
        text = f"{listed([view.name for view in sick])}; of {text}"
    name = sick[0].name if len(sick) == 1 else "NAME"
    return warn("sick slaves", text, f"see why there, mend it, then `drqueue slave heal {name}`")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
