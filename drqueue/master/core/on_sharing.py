"""What admins set: limits, shares, pools. A mistake is an answer: Refused, which `on_client` answers.

Rules: nothing that runs is touched by a change; what goes beyond a new limit goes down as frames end. What
hardly can be meant (a user, a project or a pool that nobody has heard of) is done, and said.
"""

from difflib import get_close_matches
from typing import Final

from drqueue.master.core.ahead import ask_back
from drqueue.master.core.amounts import milli, plain
from drqueue.master.core.limits import BY_ITSELF, Counter
from drqueue.master.core.records import (
    LimitForget,
    LimitRecord,
    PoolForget,
    PoolRecord,
    ShareForget,
    ShareRecord,
)
from drqueue.master.core.rights import Refused
from drqueue.master.core.sharing_views import naming_jobs, party_known, pool_known, pool_of
from drqueue.master.core.turn import Turn
from drqueue.proto.messages import Done
from drqueue.proto.model import Limit, Share
from drqueue.proto.sharing_checks import check_limit, check_pool, check_share
from drqueue.proto.sharing_messages import DropLimit, DropShare, PutLimit, PutPool, PutShare

#: Limits, and shares, that are kept at most.
LIMITS_MOST: Final = 10_000
#: Names and jobs that a sentence lists.
_TOLD: Final = 5

Change = PutLimit | DropLimit | PutShare | DropShare | PutPool


def change_sharing(turn: Turn, request: Change) -> Done:
    """Do it; what is worth saying stands in the answer."""
    notes = _change(turn, request)
    ask_back(turn)
    turn.state.want_schedule = True
    return Done(rq=request.rq, count=1, note="; ".join(note for note in notes if note))


def _change(turn: Turn, request: Change) -> list[str]:
    match request:
        case PutLimit():
            return _put_limit(turn, request)
        case DropLimit():
            return _drop_limit(turn, request)
        case PutShare():
            return _put_share(turn, request.share)
        case DropShare():
            return _drop_share(turn, request)
        case PutPool():
            return _put_pool(turn, request)


# -- limits -----------------------------------------------------------------------------------------------


def _put_limit(turn: Turn, request: PutLimit) -> list[str]:
    state = turn.state
    limits = state.limits
    former = limits.set_to.get(request.name)
    if former is None and request.amount is None:
        raise Refused("bad-limit", f"limit {_short(request.name)} is a new one: say how much of it there is")
    amount = request.amount if request.amount is not None or former is None else former.amount
    scope = request.scope or (former.scope if former is not None else "attempts")
    assert amount is not None
    limit = Limit(name=request.name, amount=amount, scope=scope)
    problem = check_limit(limit)
    if problem is not None:
        raise Refused("bad-limit", problem)
    if former is None and len(limits.set_to) >= LIMITS_MOST:
        raise Refused("too-many", f"this farm has {LIMITS_MOST:,} limits already: drop some")
    limits.put(limit, state.attempts.values())
    state.save.append(LimitRecord(limit))
    return [_unknown_party(turn, limit.name), *_above(turn, limit.name)]


def _unknown_party(turn: Turn, name: str) -> str:
    """What is to be said of a limit of somebody who has not been heard of."""
    kind, colon, rest = name.partition(":")
    if not colon or rest == "*":
        return ""
    if kind == "pool":
        return "" if pool_known(turn.state, rest) else f"no slave and no job is in pool {rest} so far"
    known = party_known(turn.state, kind, rest)
    return "" if known else f"no {kind} {rest!r} has jobs so far"


def _above(turn: Turn, name: str) -> list[str]:
    """What is to be said of counters that stand above their amount now."""
    kind, _, rest = name.partition(":")
    counters = turn.state.limits.counters
    if rest == "*" and kind in BY_ITSELF:
        found = [c for n, c in sorted(counters.items()) if n.startswith(f"{kind}:") and n not in _own(turn)]
    else:
        found = [counters[name]] if name in counters else []
    over = [c for c in found if c.amount is not None and c.used > c.amount]
    if not over:
        return []
    if rest != "*":
        return [f"{in_use(over[0])}: it goes down as frames end"]
    names = _listed([counter.name for counter in over])
    return [f"above it now: {names}; that goes down as frames end"]


def _own(turn: Turn) -> set[str]:
    return set(turn.state.limits.set_to)


def in_use(counter: Counter) -> str:
    """`20 of 10 are in use`."""
    used = plain(counter.used)
    return f"{used} of {plain(counter.amount or 0)} {'is' if used == 1 else 'are'} in use"


def _drop_limit(turn: Turn, request: DropLimit) -> list[str]:
    state, name = turn.state, request.name
    if name not in state.limits.set_to or name.startswith("burst:"):
        raise _no_such_limit(turn, name)
    state.limits.drop(name, state.attempts.values())
    state.save.append(LimitForget(name))
    kind, colon, rest = name.partition(":")
    if colon:
        rule = state.limits.set_to.get(f"{kind}:*")
        return [f"{kind}:* holds for {rest} now: {rule.amount:g}"] if rule is not None else []
    jobs = [str(job.id) for job in naming_jobs(state, name)]
    if not jobs:
        return []
    if len(jobs) == 1:
        return [f"job {jobs[0]} names it: its frames wait until it is set again"]
    return [f"jobs {_listed(jobs)} name it: their frames wait until it is set again"]


def _no_such_limit(turn: Turn, name: str) -> Refused:
    names = [other for other in turn.state.limits.set_to if not other.startswith("burst:")]
    near = get_close_matches(name, names, n=3)
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    if not names:
        hint = ", nor any other"
    return Refused("no-such-limit", f"no limit {_short(name)} was set{hint}")


# -- shares -----------------------------------------------------------------------------------------------


def _put_share(turn: Turn, share: Share) -> list[str]:
    state = turn.state
    problem = check_share(share)
    if problem is not None:
        raise Refused("bad-share", problem)
    given = state.sharing.given
    if (share.of, share.name, share.pool) not in given and len(given) >= LIMITS_MOST:
        raise Refused("too-many", f"this farm has {LIMITS_MOST:,} shares already: drop some")
    state.sharing.put(share)
    state.save.append(ShareRecord(share))
    notes = []
    if share.pool and not pool_known(state, share.pool):
        notes.append(f"no slave and no job is in pool {share.pool} so far")
    if not party_known(state, share.of, share.name):
        notes.append(f"no {share.of} {share.name!r} has jobs so far")
    if share.of == "project" and share.pool:
        state.limits.burst(share.name, share.pool, share.burst, state.attempts.values())
        notes += _promised(turn, share)
        counter = state.limits.counters.get(f"burst:{share.name}@{share.pool}")
        if counter is not None and counter.amount is not None and counter.used > counter.amount:
            notes.append(f"it has {plain(counter.used)} cores now: that goes down as frames end")
    return notes


def _promised(turn: Turn, share: Share) -> list[str]:
    """What is to be said where more is guaranteed than there is."""
    if not share.minimum:
        return []
    pool = pool_of(turn.state, share.pool)
    if pool.policy == "fifo":
        return [f"pool {share.pool} is fifo: the minimum counts once it is fair"]
    promised = sum(
        milli(each.minimum) for each in turn.state.sharing.given.values() if each.pool == share.pool
    )
    if promised <= milli(pool.cores):
        return []
    return [f"{plain(promised)} cores of {share.pool} are guaranteed, its slaves offer {pool.cores:g} now"]


def _drop_share(turn: Turn, request: DropShare) -> list[str]:
    state = turn.state
    if (request.of, request.name, request.pool) not in state.sharing.given:
        pools = [pool for of, name, pool in state.sharing.given if (of, name) == (request.of, request.name)]
        where = f"pool {request.pool}" if request.pool else "all pools together"
        hint = f" (but of {_listed(sorted(pool or 'all pools' for pool in pools))})" if pools else ""
        text = f"{request.of} {_short(request.name)} was given nothing of {where}{hint}"
        raise Refused("no-such-share", text)
    state.sharing.drop(request.of, request.name, request.pool)
    state.save.append(ShareForget(request.of, request.name, request.pool))
    if request.of == "project" and request.pool:
        state.limits.burst(request.name, request.pool, None, state.attempts.values())
    return []


# -- pools ------------------------------------------------------------------------------------------------


def _put_pool(turn: Turn, request: PutPool) -> list[str]:
    state, name = turn.state, request.name
    problem = check_pool(name)
    if problem is not None:
        raise Refused("bad-pool", problem)
    usual = request.policy == "fair"
    policies = state.sharing.policies
    if not usual and name not in policies and len(policies) >= LIMITS_MOST:
        raise Refused("too-many", f"{LIMITS_MOST:,} pools have a policy of their own already")
    state.sharing.set_policy(name, request.policy)
    if usual:
        del policies[name]
    state.save.append(PoolForget(name) if usual else PoolRecord(name, request.policy))
    state.lanes.enter_anew(
        layer for job in state.jobs.values() if job.spec.pool == name for layer in job.layers
    )
    return [] if pool_known(state, name) else [f"no slave and no job is in pool {name} so far"]


def _listed(names: list[str]) -> str:
    more = len(names) - _TOLD
    return ", ".join(names[:_TOLD]) + (f" and {more} more" if more > 0 else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
