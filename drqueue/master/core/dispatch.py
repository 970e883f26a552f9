"""A frame goes to a slave: an attempt is made, booked and written down, and the slave is told what to run."""

from collections.abc import Callable

from msgspec import structs

from drqueue.master.core.amounts import Ask, plain
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.layer import Layer
from drqueue.master.core.records import AttemptRecord
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState
from drqueue.proto.ids import AttemptKey, FrameKey
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
    """Bind the waiting frame at this position to the slave, where it takes `ask`; `ahead`: once it can."""
    job, lane = layer.job, layer.lane
    assert lane is not None
    wall = state.wall(now)
    members = layer.chunks.members(index)
    key = AttemptKey(job.id, layer.index, index, layer.next_attempt(index))
    attempt = Attempt(key, layer, index, slave, ask, members, FrameKey(job.id, layer.index, index))
    if ask.gpus:
        attempt.gpus = tuple(sorted(slave.free_gpus_with(ask.gpu_memory_mb)[: ask.gpus]))
    if layer.history and (past := layer.history.get(index)) is not None:
        attempt.requeued, attempt.returned = past.requeued, past.returned
    if ahead:
        # Whoever only waits may be forgotten until it takes a place.
        attempt.ahead = True
    else:
        attempt.pool, attempt.parties = lane.pool, layer.parties
    eligible_at = layer.eligible.take(index, wall)
    state.waits.note(lane.pool.name, wall - eligible_at)
    state.served += 1
    job.served = lane.pool.turn = state.served
    layer.assign(attempt)
    state.book(attempt)
    job.moved_at = wall
    if not job.started_at:
        job.started_at = wall
        state.save.append(job.record())
    row, order = layer.blanks.get(ask) or _make_blanks(layer, ask, lease_s)
    # A copy takes a fraction of the time of making it from all its fields.
    row = structs.replace(
        row,
        frame=index,
        attempt=key.attempt,
        number=members[0],
        slave=slave.id,
        slave_name=slave.name,
        assigned_at=wall,
        slot=attempt.slot,
        eligible_at=eligible_at,
    )
    order = structs.replace(order, key=key, start=members[0], slot=attempt.slot)
    if len(members) > 1:
        row = structs.replace(row, step=members.step, count=len(members))
        order = structs.replace(order, step=members.step, count=len(members))
    if attempt.held:
        row = structs.replace(row, limits={counter.name: count for counter, count in attempt.held})
    if attempt.gpus:
        row = structs.replace(row, gpus=attempt.gpus)
        order = structs.replace(order, gpus=attempt.gpus)
    attempt.row = row
    state.save.append(row)
    state.touched[attempt] = None
    run(slave, order)


def _make_blanks(layer: Layer, ask: Ask, lease_s: float) -> tuple[AttemptRecord, RunOrder]:
    """What all rows and orders of a layer that take the same have in common."""
    job, spec = layer.job, layer.spec
    start, end, step = layer.told
    cores, amounts = plain(ask.cores), {name: plain(amount) for name, amount in ask.amounts}
    lease_s = job.spec.lease_s or lease_s
    row = AttemptRecord(
        job=job.id,
        layer=layer.index,
        frame=0,
        attempt=0,
        number=0,
        slave=0,
        slave_name="",
        assigned_at=0.0,
        cores=cores,
        memory_mb=ask.memory_mb,
        disk_mb=ask.disk_mb,
        amounts=amounts,
        lease_s=lease_s,
        on_unreachable=job.spec.on_unreachable,
    )
    order = RunOrder(
        key=AttemptKey(job.id, layer.index, 0, 0),
        start=start,
        cores=cores,
        memory_mb=ask.memory_mb,
        disk_mb=ask.disk_mb,
        amounts=amounts,
        lease_s=lease_s,
        on_unreachable=job.spec.on_unreachable,
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
    layer.blanks[ask] = row, order
    return row, order
