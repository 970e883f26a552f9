"""What `drqueue doctor` sees from where it runs: own files, places of masters, ways to slaves.

Rules: nothing is raised for what is found broken, and one look never waits for another.
"""

import os
from collections.abc import Mapping, Sequence

import trio
from msgspec import Struct, structs

from drqueue import __version__, checkup
from drqueue.access import Access, AccessError, access_path, find_access, read_access
from drqueue.channel import LinkClosed
from drqueue.checkup import bad, ok, warn
from drqueue.client.async_client import AsyncClient
from drqueue.client.cli.common import START_ONE
from drqueue.client.entrance import ASK_FOR_A_LINE, of_logins, shortened
from drqueue.client.errors import DrQueueError, MasterUnreachable, NotAllowed
from drqueue.client.link import SOFTWARE, dial
from drqueue.dialling import open_unproven
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import HandshakeRejected
from drqueue.proto.messages import Examine
from drqueue.proto.roles import may_ask
from drqueue.proto.views import Finding, SlaveView
from drqueue.settings import Address, candidates
from drqueue.tls import PinMismatch

#: Seconds that a master, and a slave, have to answer.
MASTER_S = 5.0
SLAVE_S = 10.0
#: Slaves that are asked at once.
_AT_ONCE = 32
_ADMINS_ONLY = warn("examination", "only admins are told more", "ask one to run `drqueue doctor`")


class Place(Struct, frozen=True):
    """Somewhere a master may be. `opens`: one let us in. `answers`: one is there, at least."""

    finding: Finding
    opens: bool = False
    answers: bool = False


def own_files(env: Mapping[str, str]) -> tuple[list[Finding], list[Access]]:
    """What is to be said of the own way into farms, and the ways in, as far as they can be used."""
    path = access_path(env)
    found = checkup.private_file(
        "access", path, ok("access", "no login is kept here; on the master's own machine none is needed")
    )
    ways: list[Access] = []
    try:
        ways = read_access(path)
        if ways:
            logins = ", ".join(f"{way.name} at {way.address}" for way in ways[:3])
            found = ok("access", f"{shortened(path)} is private; it holds logins: {logins}")
    except AccessError as error:
        if found.state == "ok":
            found = bad("access", str(error), "move it away, and log in again: drqueue login LINE")
    return [ok("software", f"{SOFTWARE}, {os.uname().nodename}"), found], ways


async def places(named: str, env: Mapping[str, str], ways: Sequence[Access]) -> list[Place]:
    """Where a master is looked for, in that order, and what is there. Raises SettingsError.

    Without a login a port is tried only where nothing else lets us in.
    """
    wanted = await trio.to_thread.run_sync(candidates, named, env)
    sockets = [place for place in wanted if place.kind == "unix"]
    others = [place for place in wanted if place.kind != "unix"]
    if sockets and others:
        others = [*of_logins(ways, named=bool(named.strip())), *others]
    every = list(dict.fromkeys([*sockets, *others]))
    found: dict[Address, Place] = {}

    async def look(place: Address, strange: bool) -> None:
        found[place] = await (_stranger(place) if strange else _known(place, find_access(ways, place)))

    # Who comes without a login is a failure to the other side, and stands in its audit: no more of that than
    # is needed.
    for strange in (False, True):
        async with trio.open_nursery() as nursery:
            for place in every:
                if strange == (place.kind != "unix" and find_access(ways, place) is None):
                    nursery.start_soon(look, place, strange)
        if any(place.opens for place in found.values()):
            break
    return [found[place] for place in every if place in found]


async def _known(place: Address, way: Access | None) -> Place:
    """A place that can be entered, as far as is known here."""
    what = "master"
    try:
        with trio.fail_after(MASTER_S):
            link = await dial(
                place,
                pin=way.pin if way is not None else "",
                secret=way.secret if way is not None else "",
                timeout_s=MASTER_S,
            )
    except HandshakeRejected as error:
        advice = "upgrade the older side" if error.code == "version" else ""
        if error.code == "no-account":
            advice = ASK_FOR_A_LINE
        return Place(bad(what, f"{place} does not let us in: {error.text}", advice), answers=True)
    except PinMismatch:
        text = f"{place} shows another certificate than the one logged in with"
        advice = (
            "another farm is there now, or somebody sits in between: ask its admin before you log in anew"
        )
        return Place(bad(what, text, advice), answers=True)
    except PermissionError:
        text = f"{place} may not be opened by {checkup.user_name()}"
        advice = "become a member of the socket's group (drqueue), or ask for a login"
        return Place(bad(what, text, advice), answers=True)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return Place(warn(what, f"nobody listens at {place}"))
    except (OSError, LinkClosed, RemoteProtocolError, trio.TooSlowError) as error:
        why = getattr(error, "strerror", None) or str(error) or f"no answer in {MASTER_S:g} s"
        return Place(bad(what, f"{place}: {why}", "see whether it runs, and what is in between (firewall)"))
    welcome = link.welcome
    link.close()
    text = f"answers at {place}: farm {welcome.farm[:8]}, epoch {welcome.epoch}, {welcome.software}"
    if welcome.software != SOFTWARE:
        return Place(warn(what, text, f"this is drqueue {__version__}: run one version"), True, True)
    return Place(ok(what, text), True, True)


async def _stranger(place: Address) -> Place:
    """A port for which there is no login here: is somebody there?"""
    what = "master"
    try:
        with trio.fail_after(MASTER_S):
            channel, pin = await open_unproven(place, timeout_s=MASTER_S)
    except ConnectionRefusedError:
        return Place(warn(what, f"nobody listens at {place}"))
    except (OSError, trio.TooSlowError) as error:
        why = getattr(error, "strerror", None) or f"no answer in {MASTER_S:g} s"
        return Place(bad(what, f"{place}: {why}", "see whether it runs, and what is in between (firewall)"))
    channel.close()
    text = f"{place} answers (certificate {pin[:12]}…), but there is no login for it here"
    return Place(bad(what, text, ASK_FOR_A_LINE), answers=True)


def judged(found: Sequence[Place], named: bool) -> list[Finding]:
    """What the places amount to: where one lets us in, nothing that is wrong with the others is bad.

    `named`: somebody said where the master is, or logged in to it, so that none is missing here.
    """
    used = next((place for place in found if place.opens), None)
    if used is not None:
        return [_beside(place, place is used) for place in found]
    findings = [place.finding for place in found]
    if not any(place.answers for place in found):
        advice = "see whether it runs there" if named else START_ONE
        findings.append(bad("master", "none answers", advice))
    return findings


def _beside(place: Place, used: bool) -> Finding:
    """One of several places, one of which is good, and the first such is where commands go."""
    found = place.finding
    if used:
        return structs.replace(found, text=f"commands go here: {found.text}")
    if place.opens:
        return found
    return warn(found.what, found.text, found.advice) if place.answers else ok(found.what, found.text)


# -- what the farm says -------------------------------------------------------------------------------------


async def master_findings(farm: AsyncClient) -> tuple[list[Finding], bool]:
    """What the master says of itself, and whether slaves may be examined by whoever asks."""
    found: list[Finding] = []
    try:
        with trio.fail_after(SLAVE_S):
            you = await farm.whoami()
            found.append(
                ok("you are", f"{you.name}, {you.role}" + (f" (from {you.peer})" if you.peer else ""))
            )
            # What is refused stands in the audit.
            if not may_ask(you.role, Examine(rq=0)):
                return [*found, _ADMINS_ONLY], False
            found += await farm.examine()
    except trio.TooSlowError:
        found.append(no_answer("examination"))
    except NotAllowed:
        # The role was another a moment ago.
        return [*found, _ADMINS_ONLY], False
    return found, True


async def wanted_slaves(farm: AsyncClient, names: Sequence[str]) -> Sequence[SlaveView] | None:
    """The slaves of these names, or all; None where the master does not answer. Raises NotFound."""
    with trio.move_on_after(SLAVE_S):
        if not names:
            return await farm.slaves()
        return [await farm.slave(name) for name in dict.fromkeys(names)]
    return None


def no_answer(what: str, whose: str = "master") -> Finding:
    """What is found of somebody who is linked and silent."""
    return bad(what, f"no answer in {SLAVE_S:g} s", f"see the {whose}'s log")


async def slaves_findings(
    farm: AsyncClient, slaves: Sequence[SlaveView], may_examine: bool, now: float
) -> list[list[Finding]]:
    """The same for slaves, in their order, with how each is reached; all at once, some seconds each."""
    found: dict[int, list[Finding]] = {}
    room = trio.CapacityLimiter(_AT_ONCE)

    async def look(view: SlaveView) -> None:
        async with room:
            found[view.id] = [_linked(view, now)]
            if view.linked:
                found[view.id] += await _ask_slave(farm, view, may_examine)

    async with trio.open_nursery() as nursery:
        for view in slaves:
            nursery.start_soon(look, view)
    return [found[view.id] for view in slaves]


def _linked(view: SlaveView, now: float) -> Finding:
    if view.linked:
        return ok("to its master", "linked")
    heard = f"last heard {_ago(now - view.last_heard_at)} ago" if view.last_heard_at else "never heard"
    return bad(
        "to its master",
        f"{view.state}, {heard}",
        f"see drqueue-slave on {view.machine.hostname}; `drqueue slave forget {view.name}` if it is gone",
    )


async def _ask_slave(farm: AsyncClient, view: SlaveView, may_examine: bool) -> list[Finding]:
    found = []
    try:
        with trio.fail_after(SLAVE_S):
            found.append(_way(view, await farm.direct(view.name) is not None))
            if may_examine:
                found += await farm.examine(view.name)
    except trio.TooSlowError:
        found.append(no_answer("examination", "slave"))
    except MasterUnreachable:
        raise
    except DrQueueError as error:
        found.append(bad("examination", str(error), "see the slave's log"))
    return found


def _way(view: SlaveView, direct: bool) -> Finding:
    what = "from here"
    if direct:
        return ok(what, f"reached directly at {view.control}")
    if not view.control:
        return ok(what, "reached through the master: it has no port of its own")
    if view.control.startswith("unix:"):
        return ok(what, "reached through the master: its port is a socket of its own machine")
    return warn(
        what,
        f"reached through the master: {view.control} cannot be reached from here",
        "open that port to this machine, if logs and kills should go straight",
    )


def _ago(seconds: float) -> str:
    from drqueue.client.cli.output import duration

    return duration(max(0.0, seconds))
