"""One scheduling pass: which waiting frame goes next, and where.

Jobs by priority, highest first; among equals, turns: whoever was served longest ago. Within a job,
layers in their order and frames in the order of their range. A frame that failed on a slave goes to
another one first, for as long as there is another that could ever run it.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from drqueue.master.core.layer import Attempt, Layer
from drqueue.master.core.placement import Candidates, why_never
from drqueue.master.core.state import FarmState, Job, Slave
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder

#: How many frames that avoid every free slave are looked past, in one layer and pass.
_LOOK_PAST = 64


def schedule(state: FarmState, now: float, lease_s: float, run: Callable[[Slave, RunOrder], None]) -> None:
    """Bind waiting frames to free places until one of the two runs out."""
    free = [s for s in state.slaves.values() if s.link is not None and s.used_cores < s.cores_offered]
    if not free or not state.hungry:
        return
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
        for _ in range(_LOOK_PAST):
            if index is None:
                break
            if layer.dying and layer.is_dying(index):
                index = layer.waiting.next_from(index + 1)
                continue
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
    )
    layer.assign(attempt)
    state.book(attempt)
    state.served += 1
    job.served = state.served
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
    members = layer.chunks.members(attempt.index)
    single = layer.range.single
    start, end, step = single if single is not None else (layer.range.min, layer.range.max, 1)
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
        pool=job.spec.pool,
        layer_name=spec.name,
        range_start=start,
        range_end=end,
        range_step=step,
        block=spec.chunk,
    )
