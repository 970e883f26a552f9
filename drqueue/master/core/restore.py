"""Records -> FarmState, through the same constructors that a running master uses.

Absent slaves get their full lease from the master's start on before their frames go elsewhere. After a
restore from a backup all of its jobs wait: see `holdback`.
"""

from heapq import heappush
from math import inf

from drqueue.master.core import dates, depends, holdback
from drqueue.master.core.amounts import Ask, milli
from drqueue.master.core.attempt import Attempt, History
from drqueue.master.core.folding import got_rows
from drqueue.master.core.layer import Layer
from drqueue.master.core.records import AttemptRecord, FrameRecord, Saved
from drqueue.master.core.state import FarmState, Job
from drqueue.proto.ids import FrameKey
from drqueue.proto.intervals import MAX_POSITION

#: More attempts than a frame has between two backups.
_LEAP = 1000
#: More rows of the audit than a farm has on the average between two starts of its master.
_AUDIT_LEAP = 10_000_000


def restore(
    state: FarmState,
    saved: Saved,
    now: float,
    wall: float,
    *,
    lease_s: float,
    granted_s: float | None = None,
) -> None:
    """Fill an empty state. ValueError where the rows contradict each other.

    `lease_s` is the farm's. `granted_s`: a backup was restored just now, after such a grant of a master's.
    """
    state.started, state.started_wall = now, wall
    state.wall_offset = wall - now
    state.gone_tokens.restore(saved.meta)
    state.granted_s = float(saved.meta.get("lease_grant", "0"))
    for account in saved.accounts:
        state.register.restore(account)
    for line in saved.lines:
        state.register.lines[line.token_hash] = line
    state.audit.last = saved.audited
    _restore_sharing(state, saved)
    if usage := saved.meta.get("usage"):
        state.sharing.recall(usage, now, wall)
    for slave_record in saved.slaves:
        if slave_record.account and slave_record.account not in state.register.accounts:
            raise ValueError(f"slave {slave_record.name} belongs to an account that is not known")
        state.add_slave(slave_record)
    for job_record in saved.jobs:
        state.add_job(job_record)
    state.next_job = max(int(saved.meta.get("next_job", "0")), max(state.jobs, default=-1) + 1)
    state.next_slave = max(int(saved.meta.get("next_slave", "0")), max(state.slaves, default=-1) + 1)
    for layer_record in saved.layers:
        job = state.jobs.get(layer_record.job)
        if job is not None:
            _layer(job, layer_record.layer).restore_bases(layer_record)
    for frame in saved.frames:
        job = state.jobs.get(frame.job)
        if job is None:
            continue
        layer = _layer(job, frame.layer)
        if frame.frame < layer.size:
            layer.restore(frame.frame, frame.state, _past(frame))
    for rows in saved.done:
        job = state.jobs.get(rows.job)
        if job is not None:
            layer = _layer(job, rows.layer)
            rows.positions.discard_range(layer.size, MAX_POSITION + 1)
            layer.restore_done(rows)
            got_rows(layer, len(rows.positions))
    for totals in saved.totals:
        job = state.jobs.get(totals.job)
        if job is not None and 0 <= totals.layer < len(job.layers):
            job.layers[totals.layer].restore_totals(totals)
    for job in state.jobs.values():
        # Old attempts are forgotten one day.
        job.forgiven = min(job.forgiven, sum(layer.failures for layer in job.layers))
        _restore_waits(state, job)
    for live in saved.live:
        if live.job in state.jobs:
            _restore_attempt(state, live)
    for slave in state.slaves.values():
        slave.heard = now
        if slave.live:
            state.silent[slave.id] = slave
            heappush(state.silent_dues, (-inf, slave.id))
    kept = saved.meta.get(dates.ROW, "")
    state.dates = dates.Dates(_known_date(state, kept, wall), now)
    if not kept:
        # At once: rows that a wrong clock has stamped would be believed at the next start.
        state.dates.kept_at = -inf
    holdback.begin(state, saved.meta.get(holdback.ROW, ""), lease_s, granted_s)
    for job in state.jobs.values():
        if not job.deleted:
            depends.wire(state, job)
            depends.derive(state, job, wall)
        job.note_waiting()
        state.unsettled.add(job.id)


def _known_date(state: FarmState, kept: str, wall: float) -> float:
    """A time that the wall clock reached; where nobody kept one, the latest that a row tells of."""
    if kept:
        return float(kept)
    told = [job.moved_at for job in state.jobs.values()]
    told += [slave.heard_at for slave in state.slaves.values() if slave.heard_at]
    return max(told, default=wall)


def _layer(job: Job, number: int) -> Layer:
    if not 0 <= number < len(job.layers):
        raise ValueError(f"a row names layer {number}, which job {job.id} has not")
    return job.layers[number]


def _restore_waits(state: FarmState, job: Job) -> None:
    """Since when frames wait, as far as the rows say; those that have been tried, since now."""
    parents = [state.jobs.get(depend.job) for depend in job.spec.depends]
    over = max((parent.finished_at for parent in parents if parent is not None), default=0.0)
    for layer in job.layers:
        if not layer.spec.after and not layer.spec.depends:
            layer.eligible.open_since(max(job.submitted_at, job.spec.not_before, over))
        for index in layer.history:
            layer.eligible_since(index, state.started_wall)


def _restore_sharing(state: FarmState, saved: Saved) -> None:
    for pool in saved.pools:
        state.sharing.set_policy(pool.name, pool.policy)
    for row in saved.shares:
        share = row.share
        state.sharing.put(share)
        if share.of == "project" and share.burst is not None:
            state.limits.burst(share.name, share.pool, share.burst, ())
    for limit in saved.limits:
        state.limits.put(limit.limit, ())


def _past(frame: FrameRecord) -> History:
    return History(frame.attempt, frame.requeued, frame.avoid, frame.returned)


def _restore_attempt(state: FarmState, live: AttemptRecord) -> None:
    layer = _layer(state.jobs[live.job], live.layer)
    index = layer.chunks.chunk_of(live.number)
    slave = state.slaves.get(live.slave)
    if slave is None:
        raise ValueError(f"attempt {live.key} runs on slave {live.slave}, which is not known")
    past = layer.history.get(index) if index is not None else None
    ask = Ask(
        milli(live.cores),
        live.memory_mb,
        len(live.gpus),
        disk_mb=live.disk_mb,
        amounts=tuple((name, milli(amount)) for name, amount in sorted(live.amounts.items())),
    )
    members = range(live.number, live.number + live.step * live.count, live.step)
    position = index if index is not None else 0
    frame_key = FrameKey(live.job, live.layer, position)
    attempt = Attempt(live.key, layer, position, slave, ask, members, frame_key)
    attempt.gpus, attempt.slot, attempt.row = live.gpus, live.slot, live
    if past is not None:
        attempt.requeued, attempt.returned = past.requeued, past.returned
    attempt.stop, attempt.again = live.stop, live.again
    attempt.started_at = live.started_at
    attempt.running = live.started_at > 0
    attempt.orphan = live.orphan or index is None
    layer.top = max(layer.top, live.attempt)
    state.book(attempt)
    # Its layer may name others by now.
    state.limits.take_again(attempt, live.limits)
    if attempt.orphan:
        layer.dying[attempt.key] = attempt.members
    else:
        layer.restore_live(attempt)


def leap(state: FarmState, epoch: int) -> None:
    """After a restore from a backup: number attempts far above any that a later master may have given out.

    A slave may hold, or still report, such an attempt; it must not be taken for one of ours. Rows of the
    audit get numbers that none had before, either.
    """
    state.audit.last = max(state.audit.last, epoch * _AUDIT_LEAP)
    for job in state.jobs.values():
        for layer in job.layers:
            layer.floor = layer.top = layer.top + _LEAP
            state.save.append(layer.record())
