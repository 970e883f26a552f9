"""Slaves on which frames fail, and jobs whose frames fail: who is kept from whom, and what is stopped.

Rules of this file:
1. A frame that failed on a slave goes to another one first: `History.avoid`, not here.
2. After `avoid_after` failures of a job's frames on a slave, none of them ending well between, the job avoids
   that slave for `forgive_s`; then it may try again. A success there ends that at once.
3. A slave is sick once `sick_after` frames in a row failed on it, of two users at least. Those do not count
   that are no slave's fault: frames that failed on another one, too, and frames of jobs that fail elsewhere
   and have worked nowhere; or two bad jobs would take a whole farm.
4. A sick slave gets no new frames until somebody heals it, or its machine was started anew.
5. A job stops by itself after `max_failures` failed attempts since it last went on; what runs ends normally.
6. Memory that ran out is the frame's failure, and no sign that its slave is sick: what took it is not known.
7. Ends that are nobody's failure (lost, killed, stopped hard, requeued, superseded) count nowhere.
"""

from heapq import heappop, heappush
from typing import Final

from drqueue.master.core.attempt import Attempt
from drqueue.master.core.records import AttemptRecord
from drqueue.master.core.slave import Failure, Slave
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.roles import Who

#: Whom the audit names where the master did something of itself.
MYSELF: Final = Who(name="the master", role="admin")
_HOW_MOST: Final = 120
OOM: Final = "oom"


def ended(turn: Turn, attempt: Attempt, row: AttemptRecord) -> None:
    """An attempt is over, as its row says: what that means for its slave and its job."""
    if row.outcome == "done":
        _worked(turn.state, attempt)
    elif row.outcome == "failed":
        job = attempt.layer.job
        _avoid(turn, job, attempt.slave)
        if row.reason != OOM:
            _doubt(turn, attempt, row)
        _stop(turn, attempt, row)


def _worked(state: FarmState, attempt: Attempt) -> None:
    job, slave = attempt.layer.job, attempt.slave
    if slave.streak:
        slave.streak.clear()
    if job.failed_on:
        job.failed_on.pop(slave.id, None)
    if slave.id in job.avoids:
        _end_avoiding(state, job, slave.id)


# -- jobs and slaves ---------------------------------------------------------------------------------------


def _avoid(turn: Turn, job: Job, slave: Slave) -> None:
    failures = job.failed_on[slave.id] = job.failed_on.get(slave.id, 0) + 1
    if not turn.policy.avoid_after or failures < turn.policy.avoid_after:
        return
    del job.failed_on[slave.id]
    until = job.avoids[slave.id] = turn.now + turn.policy.forgive_s
    heappush(turn.state.forgives, (until, job.id, slave.id))
    for attempt in slave.ahead.values():
        if attempt.layer.job is job:
            turn.take_back(attempt)
    turn.state.changed_jobs.add(job.id)


def _end_avoiding(state: FarmState, job: Job, slave: int) -> None:
    del job.avoids[slave]
    job.note_waiting()
    state.changed_jobs.add(job.id)
    state.want_schedule = True


def forgive(turn: Turn) -> None:
    """Jobs may try slaves again that they have avoided long enough."""
    state = turn.state
    while state.forgives and state.forgives[0][0] <= turn.now:
        until, number, slave = heappop(state.forgives)
        job = state.jobs.get(number)
        if job is not None and job.avoids.get(slave) == until:
            _end_avoiding(state, job, slave)


def next_forgiven(state: FarmState) -> float | None:
    """When a job may next try a slave again, on the core's clock."""
    return state.forgives[0][0] if state.forgives else None


# -- sick slaves -------------------------------------------------------------------------------------------


def _doubt(turn: Turn, attempt: Attempt, row: AttemptRecord) -> None:
    """One more frame failed on the slave: is it sick?"""
    slave, most = attempt.slave, turn.policy.sick_after
    job = attempt.layer.job
    failure = Failure(job.id, attempt.layer.index, attempt.index, job.user)
    if not most or _is_its_own_fault(turn.state, attempt, failure) or slave.sick:
        return
    slave.streak.append(failure)
    found = [failure for failure in slave.streak if _may_be_its_fault(turn.state, slave, failure)][-most:]
    slave.streak[:] = found
    users = len({failure.user for failure in found})
    if len(found) < most or users < 2:
        return
    slave.sick = (
        f"{len(found)} frames of {users} users failed on it in a row, "
        f"the last of job {job.id}: {how_it_ended(row)}"
    )
    slave.streak.clear()
    for waiting in slave.ahead.values():
        turn.take_back(waiting)
    turn.state.rooms.grew(slave)
    _say(turn, slave, "sick, and gets no new frames", slave.sick)


def _is_its_own_fault(state: FarmState, attempt: Attempt, failure: Failure) -> bool:
    """Whether the frame failed on another slave, too: then that one is no more doubted for it, either."""
    past = attempt.layer.history.get(attempt.index)
    others = [number for number in past.avoid if number != attempt.slave.id] if past is not None else []
    for number in others:
        other = state.slaves.get(number)
        if other is not None:
            other.streak[:] = [one for one in other.streak if one != failure]
    return bool(others)


def _may_be_its_fault(state: FarmState, slave: Slave, failure: Failure) -> bool:
    """Whether the job works somewhere, or was not seen to fail elsewhere."""
    job = state.jobs.get(failure.job)
    if job is None:
        return True
    elsewhere = any(other != slave.id for other in (*job.failed_on, *job.avoids))
    return not elsewhere or any(layer.ended for layer in job.layers)


def heal(turn: Turn, slave: Slave, why: str = "") -> bool:
    """Frames are sent to it again, also those of jobs that avoid it. Whether it was sick.

    `why`: what the audit is told where nobody asked for it.
    """
    state = turn.state
    slave.streak.clear()
    for job in state.jobs.values():
        job.failed_on.pop(slave.id, None)
        if slave.id in job.avoids:
            _end_avoiding(state, job, slave.id)
    if not slave.sick:
        return False
    slave.sick = ""
    state.rooms.grew(slave)
    if why:
        _say(turn, slave, "healed", why)
    else:
        _changed(state, slave)
    return True


def _say(turn: Turn, slave: Slave, what: str, why: str) -> None:
    turn.did(MYSELF, f"slave {slave.name}: {what}", why)
    turn.warn(f"slave is {what}", slave=slave.name, because=why)
    _changed(turn.state, slave)


def _changed(state: FarmState, slave: Slave) -> None:
    state.save.append(slave.record())
    state.changed_slaves.add(slave.id)
    state.want_schedule = True


# -- jobs --------------------------------------------------------------------------------------------------


def _stop(turn: Turn, attempt: Attempt, row: AttemptRecord) -> None:
    """The job stops by itself where too much of it failed."""
    job, most = attempt.layer.job, attempt.layer.job.spec.max_failures
    if not most or job.failures < most or job.stopped or job.deleted or not job.unfinished:
        return
    many = f"{job.failures} attempt{'' if job.failures == 1 else 's'} failed, and max_failures is {most}"
    where = f"frame {attempt.number} on {attempt.slave.name}"
    job.stopped, job.stopped_for = True, f"{many}; the last: {where}: {how_it_ended(row)}"
    turn.state.save.append(job.record())
    turn.state.changed_jobs.add(job.id)
    for layer in job.layers:
        layer.look_open(turn.wall)
        for waiting in layer.live.values():
            if waiting.ahead:
                turn.take_back(waiting)
    job.note_waiting()
    turn.did(MYSELF, f"stop job {job.id} {job.spec.name!r}", job.stopped_for)
    turn.warn("job is stopped", job=job.id, because=job.stopped_for)


def goes_on(state: FarmState, job: Job) -> None:
    """Somebody lets it go on, or renders all of it again: its failures count from here on."""
    if job.failures or job.stopped_for:
        job.forgiven = sum(layer.failures for layer in job.layers)
        if not job.stopped:
            job.stopped_for = ""
        state.save.append(job.record())


def how_it_ended(row: AttemptRecord) -> str:
    """How an attempt failed, in a few words."""
    if row.text:
        return row.text if len(row.text) <= _HOW_MOST else row.text[: _HOW_MOST - 1] + "…"
    return row.reason or (f"signal {row.signal}" if row.signal is not None else f"exit {row.code}")
