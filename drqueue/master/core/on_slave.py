"""What slaves bring about: linking, reporting, going silent.

The reconcile table, for each attempt when a slave says Hello:

| the master says              | the slave holds it | then                                         |
|------------------------------|--------------------|----------------------------------------------|
| live here                    | running            | keep                                         |
| live here, with a stop wish  | running            | say Stop again                               |
| live here                    | no                 | over: not this frame's fault                 |
| live elsewhere, or nothing   | running            | Stop("stale")                                |
| anything                     | ended, not noted   | its report follows: apply if current, note   |
"""

from heapq import heappop, heappush, heapreplace
from math import inf
from typing import cast

from msgspec import structs

from drqueue.master.core import holdback
from drqueue.master.core.ahead import ask_back
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.attempts import end
from drqueue.master.core.events import SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.master.core.leases import give_up_at
from drqueue.master.core.records import LogRecord, MetaRecord, SlaveForget, SlaveRecord
from drqueue.master.core.rights import current
from drqueue.master.core.slave import Slave
from drqueue.master.core.trouble import ended, heal
from drqueue.master.core.turn import Turn
from drqueue.proto.checks_needs import check_offers
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    Acted,
    Beat,
    Exited,
    Hello,
    LimitsNow,
    LogKept,
    Progressed,
    Registered,
    Report,
    SecretTaken,
    Started,
    Status,
)
from drqueue.proto.messages import SetLimits
from drqueue.proto.model import Exit, SlaveLimits
from drqueue.proto.roles import Role, Who
from drqueue.proto.rules import changed, needed

#: Slaves that a master knows; a farm of any size is far below.
SLAVES_MOST = 20_000
#: Cores that a slave is believed: far above what a machine has. Frames for all are placed in one step.
CORES_MOST = 4096
#: Exits of one link of which the logs may still come; a slave sends no more.
_LOGS_MOST = 2000
#: Seconds after which it is said how late a slave told of something.
_LATE_S = 60.0
#: Attempts of a frame by which another life on a copy of the rows may be ahead of this one. No slave's word
#: makes numbers grow beyond bounds.
_LIVES_APART = 1000


def on_linked(turn: Turn, event: SlaveLinked) -> None:
    """A slave says Hello: register it, then reconcile what it holds with what it should."""
    state, hello = turn.state, event.hello
    who = current(turn, event.who)
    if who is None or (who.account and who.role != "node"):
        text = "this is no node's account"
        if who is None:
            text = "this node's access was revoked: join again with a new line: drqueue-slave join LINE"
        turn.unlink(event.link, "revoked", text, retry=False)
        turn.noticed(event.who, f"link slave {hello.name}", "revoked", text)
        return
    problem = check_offers(hello.offers)
    if problem is not None:
        text = f"what slave {hello.name} offers cannot be so: {problem}"
        turn.unlink(event.link, "bad-offers", text, retry=False)
        turn.noticed(who, f"link slave {hello.name}", "bad-offers", text)
        return
    slave = state.identities.get(hello.identity)
    if slave is not None and not _may_be(slave, who, hello):
        _refuse_identity(turn, event, who, slave)
        return
    other = state.bound.get(who.account) if who.account else None
    if other is not None and other.link is not None:
        # Whatever else it says that it is: an account has one slave at a time.
        slave = other
    if slave is not None and slave.link is not None:
        # The first link is asked for a sign of life; the shell drops it if none comes.
        turn.tell(slave.link, Beat(echo=True))
        text = (
            f"slave {slave.name} (id {slave.id}) on {slave.machine.hostname} is linked already; "
            f"{hello.name} on {hello.machine.hostname} says it is the same one"
        )
        turn.unlink(event.link, "identity-in-use", text, retry=True)
        turn.noticed(who, f"link slave {hello.name}", "identity-in-use", text)
        return
    if slave is None and len(state.slaves) >= SLAVES_MOST:
        turn.unlink(
            event.link,
            "too-many-slaves",
            f"this master knows {len(state.slaves)} slaves, and takes no new one: "
            "forget some that are gone (drqueue slave forget)",
            retry=True,
        )
        return
    if slave is None:
        slave = state.add_slave(
            SlaveRecord(
                id=state.next_slave,
                identity=hello.identity,
                name=free_name(turn, hello.name),
                fingerprint=hello.fingerprint,
                machine=hello.machine,
                limits=hello.limits,
                cores=min(hello.cores, CORES_MOST),
                memory_mb=hello.memory_mb,
            )
        )
        what = f"slave {slave.name} is new, its number is {slave.id}"
        if who.account:
            # It may come by a new name on each link.
            turn.noticed(who, what, "done", source=f"node {who.name}")
        else:
            turn.did(who, what)
        state.next_slave += 1
        state.save.append(MetaRecord("next_slave", str(state.next_slave)))
    elif slave.name != hello.name and not _is_suffixed(slave.name, hello.name):
        slave.name = free_name(turn, hello.name)
    slave.fingerprint = hello.fingerprint
    if "" != slave.machine.boot_id != hello.machine.boot_id != "":
        heal(turn, slave, "its machine was started anew")
    slave.machine, slave.limits = hello.machine, hello.limits
    slave.cores, slave.memory_mb = min(hello.cores, CORES_MOST), hello.memory_mb
    slave.offers = hello.offers
    # A path is one of this machine's: clients here would go wherever a far node wants them.
    far = who.account and hello.control.startswith("unix:")
    slave.control = "" if far else hello.control
    if slave.wish is not None and changed(hello.limits, slave.wish) == hello.limits:
        slave.wish = None
    slave.link, slave.lost, slave.greeted = event.link, False, True
    slave.heard, slave.heard_at, slave.reports = turn.now, turn.wall, 0
    state.links[event.link] = slave
    state.silent.pop(slave.id, None)
    state.remeasure(slave)
    state.bind(slave, who.account)
    if other is not None and other is not slave and not other.live:
        forget(turn, other)
    state.changed_slaves.add(slave.id)
    turn.tell(
        event.link,
        Registered(
            slave=slave.id,
            name=slave.name,
            beat_s=turn.policy.beat_s,
            silence_s=turn.policy.silence_s,
            seen=hello.at,
        ),
    )
    turn.ticket_key(slave)
    if slave.wish is not None:
        turn.tell(event.link, SetLimits(rq=0, change=needed(hello.limits, slave.wish)))
    _reconcile(turn, slave, event)
    ask_back(turn, [slave])
    end_grant(turn)
    state.want_schedule = True


def _may_be(slave: Slave, who: Who, hello: Hello) -> bool:
    """Whether this link may speak for a slave: it is of the slave's account, or the same machine's, and
    none or this machine's own socket was what either came by."""
    if slave.account == who.account:
        return True
    same = bool(hello.fingerprint) and slave.fingerprint == hello.fingerprint
    return same and not (slave.account and who.account)


def _refuse_identity(turn: Turn, event: SlaveLinked, who: Who, slave: Slave) -> None:
    text = (
        f"slave {slave.name} (id {slave.id}) belongs to another node, or was on another machine: "
        "revoke that node, or forget that slave, if it is gone"
    )
    turn.unlink(event.link, "not-yours", text, retry=False)
    turn.noticed(who, f"link slave {event.hello.name} as slave {slave.name}", "not-yours", text)


def _reconcile(turn: Turn, slave: Slave, event: SlaveLinked) -> None:
    running = {held.key for held in event.held if not held.ended}
    ended = {held.key for held in event.held if held.ended}
    for attempt in list(slave.live.values()):
        attempt.asked_stop = attempt.taken_back = False
        if attempt.key in running:
            if attempt.stop:
                turn.stop(attempt)
        elif attempt.key not in ended:
            _over(
                turn,
                attempt,
                Exit(reason="lost", text=f"slave {slave.name} came back without it"),
            )
    for key in sorted(running):
        known = slave.live.get(key)
        if known is None:
            turn.stop_stale(event.link, key)
    for key in running | ended:
        if key not in slave.live:
            _never_give(turn, key)
    holdback.linked(turn, slave, running)


def _never_give(turn: Turn, key: AttemptKey) -> None:
    """A name that this master has not given out, but another life on a copy of its rows: nor does it ever.

    Else the end of what that one started would be taken for the end of what this one starts.
    """
    job = turn.state.jobs.get(key.job)
    if job is not None and key.layer < len(job.layers):
        layer, given = job.layers[key.layer], job.layers[key.layer].top
        if key.frame < layer.size and layer.state_of(key.frame) in ("WAITING", "ASSIGNED", "RUNNING"):
            # Other frames' attempts may have gone further than this one's.
            given = layer.next_attempt(key.frame) - 1
        if given < key.attempt <= layer.top + _LIVES_APART:
            layer.floor = max(layer.floor, key.attempt)
            layer.top = max(layer.top, key.attempt)
            turn.state.save.append(layer.record())


def _is_suffixed(name: str, wanted: str) -> bool:
    """Whether a slave that wants one name goes by it with a suffix, because it was taken."""
    head, _, number = name.rpartition("-")
    return head == wanted and number.isdecimal()


def free_name(turn: Turn, wanted: str) -> str:
    """The name, or, where another slave has it, the name with the lowest free suffix from -2."""
    taken = {slave.name for slave in turn.state.slaves.values()}
    if wanted not in taken:
        return wanted
    number = 2
    while f"{wanted}-{number}" in taken:
        number += 1
    return f"{wanted}-{number}"


def on_unlinked(turn: Turn, event: SlaveUnlinked) -> None:
    """A link ended. Nothing else does: only a report or the lease's end ends an attempt."""
    heard = min(event.heard, turn.now)
    slave = turn.state.closing.pop(event.link, None)
    if slave is not None:
        slave.heard = max(slave.heard, heard)
        if slave.id in turn.state.silent:
            heappush(turn.state.silent_dues, (_next_due(turn, slave), slave.id))
    slave = turn.state.links.pop(event.link, None)
    if slave is None:
        return
    slave.heard = heard
    _unlinked(turn, slave)


def cut_off(turn: Turn, slave: Slave, code: str, text: str, *, retry: bool = False) -> None:
    """Cut a slave's link, if it has one: what comes over it counts no longer."""
    if slave.link is not None:
        turn.unlink(slave.link, code, text, retry=retry)
        turn.state.closing[slave.link] = turn.state.links.pop(slave.link)
        _unlinked(turn, slave)


def _unlinked(turn: Turn, slave: Slave) -> None:
    slave.link = None
    if slave.heard < slave.told_end_at + turn.policy.silence_s:
        # Perhaps it never heard that.
        slave.ends_tickets = True
    slave.may_keep.clear()
    holdback.unlinked(turn, slave)
    slave.heard_at = turn.state.wall(slave.heard)
    turn.state.silent[slave.id] = slave
    heappush(turn.state.silent_dues, (_next_due(turn, slave), slave.id))
    turn.state.rooms.grew(slave)
    turn.state.want_schedule = True
    turn.state.save.append(slave.record())
    turn.state.changed_slaves.add(slave.id)


def on_said(turn: Turn, event: SlaveSaid) -> None:
    """A slave's message."""
    slave = turn.state.links.get(event.link)
    if slave is None and event.link in turn.state.closing:
        return
    if slave is None:
        # Unknown peer: start over, it says Hello with all it holds.
        turn.unlink(event.link, "say-hello", "say Hello again", retry=True)
        return
    slave.heard, slave.heard_at = turn.now, turn.wall
    match event.message:
        case Report() as report:
            if report.nth:
                if report.nth != slave.reports + 1:
                    text = f"start over: report {report.nth} of this link came after {slave.reports}"
                    cut_off(turn, slave, "start-over", text, retry=True)
                    return
                slave.reports = report.nth
            for started in report.started:
                _started(turn, slave, started)
            for exited in report.exited:
                _exited(turn, slave, event.link, exited)
            for progressed in report.progressed:
                _progressed(turn, slave, progressed)
        case Status(load=load):
            if slave.loaded(load, turn.now):
                turn.state.rooms.grew(slave)
                turn.state.want_schedule = True
            turn.state.changed_slaves.add(slave.id)
        case LimitsNow(limits=limits):
            _limits(turn, slave, limits)
        case LogKept(key=key, ends=ends):
            # A node's word counts for its own attempts alone, once.
            if key in slave.may_keep:
                del slave.may_keep[key]
                if key.job in turn.state.jobs:
                    turn.state.save.append(LogRecord(key, ends))
        case Acted() as acted:
            _acted(turn, slave, acted)
        case SecretTaken(secret_hash=secret_hash):
            _secret_taken(turn, slave, secret_hash)


def _acted(turn: Turn, slave: Slave, acted: Acted) -> None:
    """What a slave says was done or refused at its own port: the audit says that it is the slave's word."""
    peer = f"slave {slave.name} says: {acted.peer}"
    said_by = Who(name=acted.who, role=cast(Role, acted.role), peer=peer)
    late = turn.wall - acted.at
    text = f"{late:.0f} s before this was written" if late >= _LATE_S else ""
    what = f"slave {slave.name}: {acted.what}"
    # Of their own: nobody hides what they did there behind a flood of what they were refused.
    source = f"slave {slave.name}" + (" did" if acted.outcome == "done" else "")
    turn.noticed(said_by, what, acted.outcome, text, source=source)


def _secret_taken(turn: Turn, slave: Slave, secret_hash: str) -> None:
    """A node's new secret: good from when it is shown, at once, and the old one no longer.

    Until then it is the only one: whoever got hold of the old one shall not put theirs in its place.
    """
    register = turn.state.register
    account = register.accounts.get(slave.account)
    if account is None or secret_hash in (account.secret_hash, account.next_hash):
        return
    who = Who(name=account.name, role=account.role, account=account.id, peer=account.peer)
    if register.with_hash(secret_hash) is not None:
        turn.noticed(who, f"node {account.name}: new secret", "bad-secret", "another account has this secret")
        return
    if account.next_hash:
        turn.noticed(
            who, f"node {account.name}: new secret", "bad-secret", "another was told, and not shown yet"
        )
        return
    register.put(structs.replace(account, next_hash=secret_hash), turn.state.save)
    turn.noticed(who, f"node {account.name}: new secret", "done")
    cut_off(turn, slave, "new-secret", "link again, and show the new secret", retry=True)


def _started(turn: Turn, slave: Slave, started: Started) -> None:
    attempt = slave.live.get(started.key)
    if attempt is None or attempt.running:
        return
    attempt.running = True
    attempt.started_at = started.at
    attempt.pid = started.pid
    turn.state.touched[attempt] = None


def _exited(turn: Turn, slave: Slave, link: int, exited: Exited) -> None:
    key, may_keep = exited.key, slave.may_keep
    attempt = slave.live.get(key)
    if attempt is not None:
        _over(turn, attempt, exited.exit)
        may_keep[key] = None
        if len(may_keep) > _LOGS_MOST:
            del may_keep[next(iter(may_keep))]
    holdback.ended(turn, key)
    turn.noted(link, key)


def _progressed(turn: Turn, slave: Slave, news: Progressed) -> None:
    attempt = slave.live.get(news.key)
    if attempt is not None:
        attempt.progress = min(1.0, max(0.0, news.done))
        attempt.said = news.activity[:200]
        turn.state.touched[attempt] = None


def _limits(turn: Turn, slave: Slave, limits: SlaveLimits) -> None:
    slave.limits = limits
    turn.state.remeasure(slave)
    ask_back(turn, [slave])
    if slave.wish is not None and changed(limits, slave.wish) == limits:
        slave.wish = None
    turn.state.save.append(slave.record())
    turn.state.changed_slaves.add(slave.id)
    turn.state.want_schedule = True


def _over(turn: Turn, attempt: Attempt, result: Exit) -> None:
    ended(turn, attempt, end(turn.state, attempt, result, turn.now, turn.policy.backoff))


# -- silence -------------------------------------------------------------------------------------------


def pass_deadlines(turn: Turn) -> None:
    """Give up attempts whose lease is over."""
    state = turn.state
    while (due := next_deadline(turn)) is not None and due <= turn.now:
        slave = state.slaves[heappop(state.silent_dues)[1]]
        for attempt in list(slave.live.values()):
            due = give_up_at(state, attempt, turn.policy.requeue_fast_s)
            if due is not None and due <= turn.now:
                slave.lost = True
                state.changed_slaves.add(slave.id)
                _over(turn, attempt, Exit(reason="lost", text=f"slave {slave.name} was silent too long"))
                end_grant(turn)
        heappush(state.silent_dues, (_next_due(turn, slave), slave.id))


def _next_due(turn: Turn, slave: Slave) -> float:
    """When the first of a silent slave's attempts is given up."""
    fast = turn.policy.requeue_fast_s
    dues = [give_up_at(turn.state, attempt, fast) for attempt in slave.live.values()]
    return min((due for due in dues if due is not None), default=inf)


def end_grant(turn: Turn) -> None:
    """A grant binds no later life of the master than that in which the last who relied on it is heard of."""
    state = turn.state
    if (
        state.granted_s
        and not state.stopping
        and not any(slave.live and not slave.greeted for slave in state.slaves.values())
    ):
        state.granted_s = 0.0
        state.save.append(MetaRecord("lease_grant", "0"))


def next_deadline(turn: Turn) -> float | None:
    """The earliest lease end of an unreachable slave."""
    dues, silent = turn.state.silent_dues, turn.state.silent
    while dues:
        # Slaves come back, and frames end, without a word to this heap.
        due, number = dues[0]
        slave = silent.get(number)
        if slave is not None and not slave.live:
            del silent[number]
        now_due = inf if slave is None else _next_due(turn, slave)
        if now_due == inf:
            heappop(dues)
        elif now_due != due:
            heapreplace(dues, (now_due, number))
        else:
            return due
    return None


def declare_dead(turn: Turn, slave: Slave) -> int:
    """An operator vouches that the slave runs nothing: its attempts are over. How many there were."""
    attempts = list(slave.live.values())
    for attempt in attempts:
        _over(turn, attempt, Exit(reason="lost", text=f"slave {slave.name} was declared dead"))
    end_grant(turn)
    slave.lost = True
    turn.state.changed_slaves.add(slave.id)
    return len(attempts)


def forget(turn: Turn, slave: Slave) -> None:
    """Drop a slave that is gone and holds nothing."""
    turn.state.drop_slave(slave)
    turn.state.save.append(SlaveForget(slave.id))
    turn.state.changed_slaves.add(slave.id)
