"""One scheduling pass: which waiting frame goes next, and where.

Jobs by priority, highest first; among equals, turns: whoever was served longest ago. Within a job,
layers in their order and frames in the order of their range. A frame that failed on a slave goes to
another one first, for as long as there is another that could ever run it.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from drqueue.master.core.layer import Attempt, Layer
from drqueue.master.core.placement import Candidates, foreign_cores, why_never, why_not
from drqueue.master.core.state import FarmState, Job, Slave
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder

#: How many frames that avoid every free slave are looked past, in one layer and pass.
_LOOK_PAST = 64
#: How many frames of brief layers wait at a slave beyond its places, and never more than it has places.
AHEAD_MOST = 8


def schedule(
    state: FarmState,
    now: float,
    lease_s: float,
    run: Callable[[Slave, RunOrder], None],
    take_back: Callable[[Attempt], None],
) -> None:
    """Bind waiting frames to free places until one of the two runs out; then send brief ones ahead."""
    free = [s for s in state.slaves.values() if s.link is not None and s.used_cores < s.cores_offered]
    if free:
        _fill(state, free, now, lease_s, run)
        _take_back(state, free, take_back)
    if state.hungry:
        _send_ahead(state, now, lease_s, run)


def _fill(
    state: FarmState,
    free: list[Slave],
    now: float,
    lease_s: float,
    run: Callable[[Slave, RunOrder], None],
) -> None:
    queue = [(-job.spec.priority, job.served, job.id, job) for job in state.hungry.values()]
    heapify(queue)
    candidates: dict[tuple[int, int], Candidates] = {}
    while queue:
        _priority, _served, _id, job = heappop(queue)
        placed = _place_one(state, job, free, candidates)
        if placed is None:
            continue
        layer, index, slave = placed
        _dispatch(state, layer, index, slave, now, lease_s, run)
        if job.hungry:
            heappush(queue, (-job.spec.priority, job.served, job.id, job))


def _send_ahead(state: FarmState, now: float, lease_s: float, run: Callable[[Slave, RunOrder], None]) -> None:
    """A few frames of brief layers wait at slaves that are full, so that none idles for a round trip.

    Only of jobs of the highest priority that waits, only frames without a history, and not where a
    limit counts them: a frame that waits ahead must never be missed elsewhere for long.
    """
    most = max(job.spec.priority for job in state.hungry.values())
    jobs = [
        job
        for job in state.hungry.values()
        if job.spec.priority == most and not job.spec.max_running and not job.spec.max_per_slave
    ]
    layers = [layer for job in jobs for layer in state.runnable_layers(job) if layer.brief]
    if not layers:
        return
    layers.sort(key=lambda layer: (layer.job.served, layer.job.id, layer.index))
    for slave in state.slaves.values():
        room = min(AHEAD_MOST, slave.cores_offered) - len(slave.ahead)
        if slave.link is None or room <= 0 or slave.used_cores < slave.cores_offered:
            continue
        for layer in layers:
            if why_never(slave, layer.job, layer) is not None or foreign_cores(slave):
                continue
            while room > 0 and layer.waiting:
                index = layer.waiting.first()
                if index in layer.history or (layer.dying and layer.is_dying(index)):
                    break
                _dispatch(state, layer, index, slave, now, lease_s, run, ahead=True)
                room -= 1


def _take_back(state: FarmState, free: list[Slave], take_back: Callable[[Attempt], None]) -> None:
    """Where places are free and nothing waits for them, frames that wait ahead at full slaves may come."""
    room = sum(s.cores_offered - s.used_cores for s in free)
    for slave in state.slaves.values():
        for attempt in reversed(list(slave.ahead.values())):
            if room <= 0:
                return
            job, layer = attempt.layer.job, attempt.layer
            if any(s is not slave and why_not(s, job, layer) is None for s in free):
                take_back(attempt)
                room -= attempt.cores


def _place_one(
    state: FarmState, job: Job, free: list[Slave], candidates: dict[tuple[int, int], Candidates]
) -> tuple[Layer, int, Slave] | None:
    for layer in state.runnable_layers(job):
        key = (job.id, layer.index)
        able = candidates.get(key)
        if able is None:
            able = candidates[key] = Candidates(free, job, layer)
        if not able:
            continue
        index: int | None = layer.waiting.first()
        looked = 0
        while index is not None and looked < _LOOK_PAST:
            if layer.dying and layer.is_dying(index):
                index = layer.waiting.next_from(index + 1)
                continue
            looked += 1
            past = layer.history.get(index)
            slave = able.take(past)
            if slave is None and past is not None and not _elsewhere(state, job, layer, past.avoid):
                slave = able.take_any()
            if slave is not None:
                return layer, index, slave
            if not able:
                break
            index = layer.waiting.next_from(index + 1)
    return None


def _elsewhere(state: FarmState, job: Job, layer: Layer, avoid: tuple[int, ...]) -> bool:
    """Whether a slave that the frame has not failed on could run it once it is free."""
    return any(s.id not in avoid and why_never(s, job, layer) is None for s in state.slaves.values())


def _dispatch(
    state: FarmState,
    layer: Layer,
    index: int,
    slave: Slave,
    now: float,
    lease_s: float,
    run: Callable[[Slave, RunOrder], None],
    *,
    ahead: bool = False,
) -> None:
    job, spec = layer.job, layer.spec
    past = layer.history.get(index)
    attempt = Attempt(
        AttemptKey(job.id, layer.index, index, layer.next_attempt(index)),
        layer,
        index,
        slave,
        cores=spec.needs.cores,
        memory_mb=spec.needs.memory_mb,
        lease_s=job.spec.lease_s or lease_s,
        on_unreachable=job.spec.on_unreachable,
        assigned_at=state.wall(now),
        requeued=past.requeued if past is not None else 0,
        returned=past.returned if past is not None else 0,
    )
    attempt.ahead = ahead
    layer.assign(attempt)
    state.book(attempt)
    state.served += 1
    job.served = state.served
    job.moved_at = attempt.assigned_at
    if not job.started_at:
        job.started_at = attempt.assigned_at
        state.save.append(job.record())
    state.save.append(attempt.record())
    state.touch(attempt)
    run(slave, order(attempt))


def order(attempt: Attempt) -> RunOrder:
    """All that the slave needs to run this attempt."""
    layer = attempt.layer
    job, spec = layer.job, layer.spec
    members = attempt.members
    start, end, step = layer.told
    return RunOrder(
        key=attempt.key,
        start=members[0],
        step=members[1] - members[0] if len(members) > 1 else 1,
        count=len(members),
        argv=spec.argv,
        shell=spec.shell,
        cwd=spec.cwd,
        env=layer.env,
        outputs=spec.outputs,
        progress=spec.progress,
        timeout_s=spec.timeout_s,
        cores=attempt.cores,
        memory_mb=attempt.memory_mb,
        lease_s=attempt.lease_s,
        on_unreachable=attempt.on_unreachable,
        job_name=job.spec.name,
        owner=job.spec.owner,
        submitter=job.submitter,
        pool=job.spec.pool,
        layer_name=spec.name,
        range_start=start,
        range_end=end,
        range_step=step,
        block=spec.chunk,
        pad=spec.pad,
        slot=attempt.slot,
        success_exit_codes=spec.success_exit_codes,
    )
