"""A frame goes to a slave: an attempt is made, booked and written down, and the slave is told what to run."""

from collections.abc import Callable

from msgspec import structs

from drqueue.master.core.amounts import Ask, plain
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.layer import Layer
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder

Run = Callable[[Slave, RunOrder], None]


def dispatch(
    state: FarmState,
    layer: Layer,
    index: int,
    slave: Slave,
    ask: Ask,
    now: float,
    lease_s: float,
    run: Run,
    *,
    ahead: bool = False,
) -> None:
    job = layer.job
    past = layer.history.get(index) if layer.history else None
    wall = state.wall(now)
    assert layer.lane is not None
    pool = layer.lane.pool
    attempt = Attempt(
        AttemptKey(job.id, layer.index, index, layer.next_attempt(index)),
        layer,
        index,
        slave,
        ask=ask,
        gpus=tuple(sorted(slave.free_gpus_with(ask.gpu_memory_mb)[: ask.gpus])) if ask.gpus else (),
        lease_s=job.spec.lease_s or lease_s,
        on_unreachable=job.spec.on_unreachable,
        assigned_at=wall,
        requeued=past.requeued if past is not None else 0,
        returned=past.returned if past is not None else 0,
    )
    attempt.ahead = ahead
    if not ahead:
        # Whoever only waits may be forgotten until it takes a place.
        attempt.pool, attempt.parties = pool, layer.parties
    attempt.eligible_at = layer.eligible.take(index, wall)
    state.waits.note(pool.name, wall - attempt.eligible_at)
    state.served += 1
    job.served = state.served
    layer.assign(attempt)
    state.book(attempt)
    pool.turn = state.served
    job.moved_at = wall
    if not job.started_at:
        job.started_at = wall
        state.save.append(job.record())
    state.save.append(attempt.record())
    state.touch(attempt)
    run(slave, order(attempt))


def order(attempt: Attempt) -> RunOrder:
    """All that the slave needs to run this attempt."""
    layer, ask, members = attempt.layer, attempt.ask, attempt.members
    if layer.order_blank is None:
        layer.order_blank = _blank(layer)
    # A copy takes a fraction of the time of making it from all its fields.
    made = structs.replace(
        layer.order_blank,
        key=attempt.key,
        start=members[0],
        step=members[1] - members[0] if len(members) > 1 else 1,
        count=len(members),
        cores=attempt.cores,
        memory_mb=ask.memory_mb,
        lease_s=attempt.lease_s,
        on_unreachable=attempt.on_unreachable,
        slot=attempt.slot,
    )
    if ask.gpus or ask.disk_mb or ask.amounts:
        amounts = {name: plain(amount) for name, amount in ask.amounts}
        made = structs.replace(made, gpus=attempt.gpus, disk_mb=ask.disk_mb, amounts=amounts)
    return made


def _blank(layer: Layer) -> RunOrder:
    """What all orders of a layer have in common."""
    job, spec = layer.job, layer.spec
    start, end, step = layer.told
    return RunOrder(
        key=AttemptKey(job.id, layer.index, 0, 0),
        start=start,
        argv=spec.argv,
        shell=spec.shell,
        cwd=spec.cwd,
        env=layer.env,
        outputs=spec.outputs,
        progress=spec.progress,
        timeout_s=spec.timeout_s,
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
        success_exit_codes=spec.success_exit_codes,
    )
