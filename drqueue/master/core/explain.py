"""Why a job or a frame waits, in words, from the very checks that place frames.

Rules of this file:
1. What holds back the whole job is told alone: its frames are not looked at further.
2. Of each layer: what it waits for, its frames that wait for others, and of the rest: limits that are
   reached, and the slaves, where none of them would take a frame (`shortage`).
3. Layers that ask the same are told of once, and only so many at all: an answer takes milliseconds.
"""

from collections.abc import Iterator
from itertools import chain, islice
from math import inf
from typing import Final

from drqueue.master.core.amounts import Ask, plain
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.depends import START_TIME, Progress, frame_waits, progress
from drqueue.master.core.holdback import Holdback
from drqueue.master.core.layer import Layer
from drqueue.master.core.leases import give_up_at
from drqueue.master.core.limits import Claim
from drqueue.master.core.reasons import listed, many, span
from drqueue.master.core.shortage import of_slaves
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.ranges import format_numbers
from drqueue.proto.views import Reason

#: Frame numbers looked at, and characters shown of them, where a sentence names frames.
_NUMBERS_MOST: Final = 1000
_NUMBERS_SHOWN: Final = 60
#: Different demands of one job that slaves are asked for, and frames looked at for one that may go anywhere.
_DEMANDS_MOST: Final = 4
_FRAMES_MOST: Final = 64
#: Why jobs go before another one, what counts most first.
_BELOW: Final = "below its project's guaranteed minimum"
_PRIOR: Final = "of higher priority"
_SHARE: Final = "by share"
_EARLIER: Final = "queued earlier"
_BEFORE: Final = (_BELOW, _PRIOR, _SHARE, _EARLIER)


def why(turn: Turn, job: Job, layer: Layer | None, index: int | None) -> list[Reason]:
    """Reasons, most telling first; [] where nothing waits, and nothing failed."""
    asked = [layer] if layer is not None else job.layers
    if index is not None and layer is not None and layer.state_of(index) != "WAITING":
        return _not_waiting(turn, layer, index)
    layers = [x for x in asked if x.waiting or x.held or x.delayed]
    if not layers:
        return list(_nothing_waits(turn, asked))
    waiting = 1 if index is not None else sum(_waiting(x) for x in layers)
    reasons = list(_of_job(turn, job, waiting))
    if reasons:
        return reasons
    several = len(job.layers) > 1
    told: set[object] = set()
    for one in layers:
        found = list(_of_layer(turn, one, index))
        free = _free_frame(one, index)
        key = (one.demand.key, one.spec.limits)
        if free is not None and not one.blocked and str(key) not in told and len(told) < _DEMANDS_MOST:
            told.add(str(key))
            where = f"layer {one.spec.name}: " if several and layer is None else ""
            count = 1 if index is not None else len(one.waiting)
            found += [_prefixed(where, reason) for reason in _of_place(turn, one, free, count)]
        reasons += found
    return reasons


def _waiting(layer: Layer) -> int:
    return len(layer.waiting) + len(layer.held) + len(layer.delayed)


def _prefixed(where: str, reason: Reason) -> Reason:
    if not where:
        return reason
    return Reason(
        code=reason.code,
        text=where + reason.text,
        count=reason.count,
        name=reason.name,
        until_at=reason.until_at,
    )


# -- frames that do not wait -------------------------------------------------------------------------------


def _nothing_waits(turn: Turn, layers: list[Layer]) -> Iterator[Reason]:
    away = [a for layer in layers for a in layer.live.values() if a.slave.link is None]
    if away:
        first = min(away, key=lambda a: (_given_up(turn, a) or float("inf"), a.key))
        yield Reason(
            code="unreachable",
            text=f"nothing waits, but {many(len(away), 'frame')} may run out of reach; "
            f"of frame {first.number}: {_unreachable(turn, first)}",
            count=len(away),
            name=first.slave.name,
            until_at=_given_up(turn, first) or 0.0,
        )
    failed = sum(len(layer.failed) for layer in layers)
    if failed:
        text = f"nothing waits, but {many(failed, 'frame')} failed with no retries left"
        yield Reason(code="failed", text=text + " (drqueue frames shows which)", count=failed)


def _not_waiting(turn: Turn, layer: Layer, index: int) -> list[Reason]:
    attempt = layer.live.get(index)
    if attempt is None and index in layer.failed:
        text = "it failed, and its retries are used up (see its log; frame requeue tries again)"
        return [Reason(code="failed", text=text, count=1)]
    if attempt is not None and attempt.waits and attempt.slave.link is not None:
        text = f"it was sent ahead to slave {attempt.slave.name}, and waits for a place there"
        return [Reason(code="turn", text=text, name=attempt.slave.name)]
    if attempt is None or attempt.slave.link is not None:
        return []
    return [
        Reason(
            code="unreachable",
            text=_unreachable(turn, attempt),
            count=1,
            name=attempt.slave.name,
            until_at=_given_up(turn, attempt) or 0.0,
        )
    ]


def _given_up(turn: Turn, attempt: Attempt) -> float | None:
    until = give_up_at(turn.state, attempt, turn.policy.requeue_fast_s)
    return None if until is None else turn.state.wall(until)


def _unreachable(turn: Turn, attempt: Attempt) -> str:
    what = "an earlier attempt at it" if attempt.orphan else "it"
    then = "starts" if attempt.orphan else "goes elsewhere"
    text = f"{what} may still run on slave {attempt.slave.name}, which cannot be reached: it {then} "
    until = give_up_at(turn.state, attempt, turn.policy.requeue_fast_s)
    if until is None:
        return text + "only when that slave is declared dead, for its job says to hold on to it"
    ends = "that slave's lease ends"
    if attempt.row.on_unreachable == "requeue-fast":
        ends = "that slave was silent for long enough, by its job's requeue-fast"
    return text + f"when {ends}, in {span(until - turn.now)}, or when it is declared dead"


# -- what holds back a whole job ---------------------------------------------------------------------------


def _of_job(turn: Turn, job: Job, waiting: int) -> Iterator[Reason]:
    if job.stopped and job.stopped_for:
        text = f"the job stopped by itself: {job.stopped_for} (drqueue continue)"
        yield Reason(code="max-failures", text=text, count=waiting)
    elif job.stopped:
        yield Reason(code="stopped", text="the job is stopped (drqueue continue)", count=waiting)
    for one in progress(job.waits):
        if not one.met:
            yield _depends("it", one, waiting)
    if turn.state.holdback is not None and job.id in turn.state.holdback.dues:
        yield _restored(turn, turn.state.holdback, job, waiting)
    if job.spec.not_before > turn.wall:
        text = f"it waits for {START_TIME}, in {span(job.spec.not_before - turn.wall)}"
        yield Reason(code="not-before", text=text, count=waiting, until_at=job.spec.not_before)
    limit = job.spec.max_running
    if limit and job.live >= limit:
        text = f"the job runs {many(job.live, 'frame')}, its limit is {limit:,}"
        yield Reason(code="max-running", text=text, count=waiting)


def _restored(turn: Turn, held: Holdback, job: Job, waiting: int) -> Reason:
    """What may still run of a job of a backup, and when it goes on."""
    strangers = held.strangers.get(job.id, {})
    linked = sorted((key, slave.name) for key, slave in strangers.items() if slave.link is not None)
    until, name = held.until(job.id), ""
    text = "it came back with a backup, and "
    if linked:
        name = linked[0][1]
        more = " among others" if any(slave != name for _key, slave in linked) else ""
        verb = "is" if len(linked) == 1 else "are"
        text += (
            f"{many(len(linked), 'frame')} of it that began since {verb} being stopped on slave {name}{more}"
        )
    elif until == inf:
        text += (
            "frames of it that began since may still run out of reach, for it says to hold on to them: "
            "it goes on when an operator vouches that none does (drqueue farm resume)"
        )
    else:
        text += (
            "frames of it that began since may still run out of reach: it goes on when the last lease is "
            f"over, in {span(until - turn.now)}, or when an operator vouches that none does "
            "(drqueue farm resume)"
        )
    at = turn.state.wall(until) if until < inf else 0.0
    return Reason(code="restored", text=text, count=waiting, name=name, until_at=at)


def _depends(who: str, one: Progress, count: int) -> Reason:
    """A dependency that is not met: on what, and how far it is."""
    name = one.name
    if "/" in name or not name.startswith("job "):
        # It is one layer: what follows its name says how much of it.
        layer, rest = one.layers[0], name.rpartition("/")[2]
        of = f" of job {layer.job.id}" if "/" in name else ""
        name = f"layer {layer.spec.name}{of}{rest.removeprefix(layer.spec.name)}"
    over = sum(_pictures(x, x.done) for x in one.layers)
    if one.ended:
        over += sum(_pictures(x, x.failed) + _pictures(x, x.cancelled) for x in one.layers)
    total = sum(len(x.range) for x in one.layers)
    how = "over" if one.ended else "done"
    far = f"{over:,} of {many(total, 'frame')} {'is' if total == 1 else 'are'} {how}"
    text = f"{who} waits for {name}: {far}{'' if one.ended else _over_badly(one.layers)}"
    return Reason(code="dependency", text=text, count=count, name=one.name)


# -- what holds back frames of a layer ---------------------------------------------------------------------


def _of_layer(turn: Turn, layer: Layer, index: int | None) -> Iterator[Reason]:
    count = 1 if index is not None else _waiting(layer)
    for one in progress(layer.waits):
        if not one.met:
            yield _depends(f"layer {layer.spec.name}", one, count)
    if layer.held and (index is None or index in layer.held):
        yield _held(layer, index if index is not None else layer.held.first(), index is not None)
    if layer.delayed and (index is None or index in layer.delayed):
        soonest = layer.delayed[index] if index is not None else min(layer.delayed.values())
        seconds = f"in {max(0.0, soonest - turn.now):.0f} s"
        count = 1 if index is not None else len(layer.delayed)
        text = f"it failed, and is tried again {seconds}"
        if index is None:
            which = f"of layer {layer.spec.name} " if len(layer.job.layers) > 1 else ""
            first = next(one for one, until in layer.delayed.items() if until == soonest)
            text = f"frame {layer.chunks.first(first)} {which}failed, and is tried again {seconds}"
            if count > 1:
                text = f"{many(count, 'frame')} {which}failed, and are tried again, the first {seconds}"
        yield Reason(code="back-off", text=text, count=count, until_at=turn.state.wall(soonest))
    if layer.dying:
        dying = layer.waiting_for_dying()
        if index in dying if index is not None else len(dying) == len(layer.waiting) > 0:
            yield _dying(turn, layer, 1 if index is not None else len(dying), index)


def _dying(turn: Turn, layer: Layer, count: int, index: int | None) -> Reason:
    """Frames that wait for the end of earlier attempts: of one of those out of reach, until when."""
    mine = range(layer.size) if index is None else (index,)
    keys = [
        key
        for key, numbers in layer.dying.items()
        if any(layer.chunks.chunk_of(number) in mine for number in numbers)
    ]
    away = [turn.state.attempts[key] for key in sorted(keys) if turn.state.attempts[key].slave.link is None]
    if not away:
        return Reason(code="ending", text="an earlier attempt at it is still being stopped", count=count)
    # A frame starts when all of them are over, the first frame of a layer when those of one are.
    pick = min if index is None else max
    one = pick(away, key=lambda attempt: _given_up(turn, attempt) or inf)
    text = _unreachable(turn, one)
    if index is None:
        text = f"of frame {one.number}: {text}"
    until = _given_up(turn, one) or 0.0
    return Reason(code="unreachable", text=text, count=count, name=one.slave.name, until_at=until)


def _held(layer: Layer, index: int, alone: bool) -> Reason:
    """Frames that wait for single others: which ones the frame at this position waits for."""
    parts, name = [], ""
    for other, pieces in frame_waits(layer, index):
        positions = IntervalSet(pieces)
        where = "" if other is layer else f" of layer {other.spec.name}"
        if other.job is not layer.job:
            where += f" of job {other.job.id}"
        name = name or other.spec.name
        what = "frame" if _pictures(other, positions) == 1 else "frames"
        lost = [(x, found) for x, found in (("failed", other.failed), ("was cancelled", other.cancelled))]
        bad = [x for x, found in lost if any(found.within(start, end) for start, end in pieces)]
        parts.append(f"{what} {_numbers(other, positions)}{where}{f', which {bad[0]}' if bad else ''}")
    waits = f"waits for {' and for '.join(parts)}"
    if alone:
        return Reason(code="dependency", text=f"it {waits}", count=1, name=name)
    first = layer.chunks.first(index)
    text = f"{many(len(layer.held), 'frame')} of layer {layer.spec.name} wait for single others: "
    return Reason(code="dependency", text=f"{text}frame {first} {waits}", count=len(layer.held), name=name)


def _over_badly(layers: tuple[Layer, ...]) -> str:
    """What of those waited for will not be done by itself, as the end of a sentence."""
    parts: list[str] = []
    total = 0
    for words, which in (("failed", "failed"), ("was cancelled", "cancelled")):
        sets: list[tuple[Layer, IntervalSet]] = [(layer, getattr(layer, which)) for layer in layers]
        count = sum(_pictures(layer, found) for layer, found in sets)
        if not count:
            continue
        total += count
        words = words if count == 1 else words.replace("was ", "were ")
        # Numbers of several layers together would say nothing.
        shown = f" ({_numbers(*sets[0])})" if len(sets) == 1 else ""
        parts.append(f"{many(count, 'frame')} {words}{shown}")
    if not parts:
        return ""
    return f"; {' and '.join(parts)}: requeue or finish {'it' if total == 1 else 'them'}"


def _pictures(layer: Layer, positions: IntervalSet) -> int:
    return sum(layer.chunks.pictures(start, end) for start, end in positions.intervals())


def _numbers(layer: Layer, positions: IntervalSet) -> str:
    members = chain.from_iterable(layer.chunks.members(index) for index in positions)
    text = format_numbers(islice(members, _NUMBERS_MOST))
    return text if len(text) <= _NUMBERS_SHOWN else text[: _NUMBERS_SHOWN - 3] + "..."


# -- places ------------------------------------------------------------------------------------------------


def _free_frame(layer: Layer, index: int | None) -> int | None:
    """A frame that waits for a place: this one, or the one of the layer that is most easily placed."""
    if index is not None:
        return index if index in layer.waiting and not (layer.dying and layer.is_dying(index)) else None
    found = None
    for one in islice(layer.waiting, _FRAMES_MOST):
        if layer.dying and layer.is_dying(one):
            continue
        past = layer.history.get(one)
        if past is None or not past.avoid:
            return one
        found = one if found is None else found
    return found


def _of_place(turn: Turn, layer: Layer, index: int, count: int) -> Iterator[Reason]:
    """Limits that are reached, and slaves, where none would take the frame; `count` wait like it."""
    state = turn.state
    asks = layer.demand.asks
    claims = state.limits.of(layer)
    left = [ask for ask in asks if all(_leaves(claim, ask) for claim in claims)]
    for claim in claims:
        if not all(_leaves(claim, ask) for ask in asks) and not left:
            yield _of_limit(claim, asks[0], count)
    before, text = _before(state, layer.job)
    found = of_slaves(state, layer, index, left or asks, f"; {text}" if before else "")
    if found is not None:
        yield from found
    elif left:
        said = "it waits for nothing but its turn" + (f": {text}" if before else "")
        yield Reason(code="turn", text=said, count=before)


def _leaves(claim: Claim, ask: Ask) -> bool:
    """Whether a limit has so much left, on some machine."""
    counter = claim.counter
    if counter.scope == "slaves" and counter.machines:
        return True
    return counter.has(counter.units(ask, claim.each))


def _of_limit(claim: Claim, ask: Ask, count: int) -> Reason:
    counter = claim.counter
    name = counter.name
    if counter.amount is None:
        text = f"limit {name} was never set: frames wait until it is"
        return Reason(code="limit-unset", text=text, count=count, name=name)
    used, most, units = plain(counter.used), plain(counter.amount), counter.units(ask, claim.each)
    what = {"cores": " cores", "slaves": " machines"}.get(counter.scope, "")
    if name.startswith("burst:"):
        project, _, pool = name.removeprefix("burst:").rpartition("@")
        who, they, run = (
            (f"project {project}", "it", "runs") if project else ("jobs without a project", "they", "run")
        )
        text = f"{who} {run} {used} of the {most} cores that {they} may have of pool {pool}"
        code, name = "burst", project
    else:
        code = "limit" if claim.of == "lane" else f"limit-{claim.of}"
        text = f"limit {name} {used}/{most}{what}"
    if not counter.amount:
        text += ": it is closed until somebody raises it"
    elif units > counter.amount:
        text += f", and one attempt takes {plain(units)}: it never runs"
    elif counter.used < counter.amount:
        text += f", and one attempt takes {plain(units)}"
    return Reason(code=code, text=text, count=count, name=name)


def _before(state: FarmState, job: Job) -> tuple[int, str]:
    """How many jobs with waiting frames go before it, and that in words."""
    own = _standing(state, job)
    groups: dict[str, list[Job]] = {}
    for other in state.hungry.values():
        if other is job or not other.open or not any(x.waiting and not x.blocked for x in other.layers):
            continue
        theirs = _standing(state, other)
        if theirs[0] < own[0]:
            groups.setdefault(_BELOW, []).append(other)
        elif theirs[0] == own[0] and theirs[1] < own[1]:
            groups.setdefault(_PRIOR, []).append(other)
        elif theirs[:2] == own[:2] and other.spec.pool == job.spec.pool and theirs[2:] < own[2:]:
            fair = state.sharing.policies.get(job.spec.pool, "fair") == "fair"
            groups.setdefault(_SHARE if fair else _EARLIER, []).append(other)
    parts = []
    for words, jobs in sorted(groups.items(), key=lambda group: _BEFORE.index(group[0])):
        frames = sum(len(x.waiting) for one in jobs for x in one.layers if not x.blocked)
        parts.append(f"{many(len(jobs), 'job')} {words} ({many(frames, 'frame')})")
    total = sum(map(len, groups.values()))
    return total, f"{listed(parts)} {'goes' if total == 1 else 'go'} before it"


def _standing(state: FarmState, job: Job) -> tuple[bool, int, float, float, int, int]:
    """Where a job stands among others: the lowest goes first."""
    below, load, user_load = False, 0.0, 0.0
    served, pool = job.served, state.sharing.pools.get(job.spec.pool)
    if pool is not None and pool.policy == "fifo":
        served = 0
    elif pool is not None and (project := pool.projects.get(job.spec.project)) is not None:
        below = project.below
        load = project.load
        user = project.users.get(job.user)
        user_load = user.load if user is not None else 0.0
    return not below, -job.spec.priority, load, user_load, served, job.id
