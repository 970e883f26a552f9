"""What jobs go through: submission, dependencies, finishing, the verbs, deletion."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator

from msgspec import structs

from drqueue.master.core.attempts import RERUN, ask_stop, supersede
from drqueue.master.core.effects import MailFinished
from drqueue.master.core.layer import ROWS_MOST, Attempt, History, Layer, Resting
from drqueue.master.core.records import FramesForget, JobForget, JobRecord, MetaRecord
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.ids import FrameKey
from drqueue.proto.model import Depend, JobSpec

#: More frames than this are requeued without keeping a row each for their attempt numbers.
_FEW = 1000


def submit(turn: Turn, token: str, spec: JobSpec, submitter: str) -> Job:
    """A new job; the spec was checked."""
    state = turn.state
    record = JobRecord(
        id=state.next_job,
        token=token,
        spec=spec,
        submitted_at=turn.wall,
        stopped=spec.stopped,
        submitter=submitter,
    )
    state.next_job += 1
    job = state.add_job(record)
    state.save += [record, MetaRecord("next_job", str(state.next_job))]
    recheck(turn, job)
    state.changed_jobs.add(job.id)
    state.want_schedule = True
    return job


# -- dependencies -------------------------------------------------------------------------------------


def dependency_met(state: FarmState, depend: Depend) -> bool:
    """Whether a job waits no more for another. One that is gone was met, or took its dependents along."""
    parent = state.jobs.get(depend.job)
    if parent is None:
        return True
    return not parent.unfinished if depend.until == "ended" else parent.all_done


def recheck(turn: Turn, job: Job) -> None:
    """Derive again what a job, and each of its layers, waits for."""
    state = turn.state
    waits = ""
    for depend in job.spec.depends:
        if not dependency_met(state, depend):
            waits = f"job {depend.job}"
            break
    if not waits and job.spec.not_before and job.spec.not_before > turn.wall:
        waits = "its start time"
    if waits == "its start time":
        state.timed.add(job.id)
    else:
        state.timed.discard(job.id)
    if waits != job.waits_for:
        job.waits_for = waits
        state.changed_jobs.add(job.id)
    for layer in job.layers:
        blocked = ""
        for name in layer.spec.after:
            other = job.layer_named(name)
            if other is not None and len(other.done) < other.size:
                blocked = name
                break
        layer.blocked = blocked
    state.want_schedule = True


def settle(turn: Turn, job: Job) -> None:
    """After frames of a job ended or came back: is it finished, and who waited for that?"""
    state = turn.state
    if job.deleted:
        if not job.live and not any(job.on_slave.values()):
            state.drop_job(job)
            state.save += [state.gone_tokens.add(job.id, job.token, job.submitter), JobForget(job.id)]
        return
    finished = not job.unfinished
    if finished != job.finished:
        job.finished = finished
        job.finished_at = turn.wall if finished else 0.0
        if finished and job.spec.mail_when_finished:
            turn.mail(_mail(job))
        state.save.append(job.record())
        state.changed_jobs.add(job.id)
    if finished and job.spec.delete_when_finished and job.all_done:
        delete(turn, job)
        return
    recheck(turn, job)
    for child in sorted(state.dependents.get(job.id, ())):
        recheck(turn, state.jobs[child])


def _mail(job: Job) -> MailFinished:
    ended = sum(layer.ended for layer in job.layers)
    units = sum(layer.size for layer in job.layers)
    frames = sum(len(layer.range) for layer in job.layers)
    failed = sum(
        layer.chunks.pictures(start, end)
        for layer in job.layers
        for positions in (layer.failed, layer.cancelled)
        for start, end in positions.intervals()
    )
    mean_s = sum(layer.wall_s for layer in job.layers) / ended if ended else 0.0
    return MailFinished(
        job=job.id,
        to=job.spec.email or job.spec.owner,
        name=job.spec.name,
        frames=frames,
        failed=failed,
        mean_s=mean_s * units / frames,
    )


# -- verbs on jobs --------------------------------------------------------------------------------------


def live_attempts(job: Job) -> list[Attempt]:
    """Attempts that frames of the job wait for."""
    return [attempt for layer in job.layers for attempt in layer.live.values()]


def stop(turn: Turn, job: Job, *, hard: bool) -> int:
    """No new frames; with `hard`, running ones are killed and WAITING again. How many those are.

    A finished job stays finished: frames that are requeued later run.
    """
    if job.finished:
        return 0
    _set_stopped(turn, job, True)
    for attempt in live_attempts(job):
        if attempt.ahead:
            turn.take_back(attempt)
    attempts = live_attempts(job) if hard else []
    for attempt in attempts:
        if not attempt.stop:
            ask_stop(turn.state, attempt, "hard-stop", turn.stop)
    return len(attempts)


def proceed(turn: Turn, job: Job) -> None:
    """Frames are handed out again."""
    _set_stopped(turn, job, False)
    recheck(turn, job)


def _set_stopped(turn: Turn, job: Job, stopped: bool) -> None:
    if job.stopped != stopped:
        job.stopped = stopped
        turn.state.save.append(job.record())
    turn.state.changed_jobs.add(job.id)
    turn.state.want_schedule = True


def rerun(turn: Turn, job: Job) -> int:
    """All frames again, with a fresh set of retries; running ones are killed first."""
    for attempt in live_attempts(job):
        attempt.again = True
        attempt.requeued, attempt.returned = 0, attempt.requeued + attempt.returned
        if attempt.returned:
            attempt.layer.history[attempt.index] = History(attempt.key.attempt, returned=attempt.returned)
        ask_stop(turn.state, attempt, RERUN if attempt.stop in ("", "cancel") else attempt.stop, turn.stop)
    for layer in job.layers:
        layer.floor = layer.top
        layer.reruns += 1
        came_back = {i: past.requeued + past.returned for i, past in layer.history.items() if past.counts}
        for state_name, positions in layer.sets():
            if state_name != "WAITING":
                for start, end in list(positions.intervals()):
                    layer.move(start, end, state_name, "WAITING")
        for index in list(layer.delayed):
            layer.due(index)
        layer.history.clear()
        layer.count_anew()
        turn.state.save += [FramesForget(job.id, layer.index, 0, layer.size), layer.record()]
        if len(came_back) <= ROWS_MOST:
            for index, times in came_back.items():
                layer.history[index] = past = History(layer.floor, returned=times)
                turn.state.save.append(layer.frame_record(index, "WAITING", past))
    turn.state.changed_jobs.add(job.id)
    job.moved_at = turn.wall
    settle(turn, job)
    return sum(layer.size for layer in job.layers)


def waiting_for(state: FarmState, job: Job) -> list[Job]:
    """Jobs that wait for this one now, by id: those that its deletion cancels."""
    return [
        state.jobs[child]
        for child in sorted(state.dependents.get(job.id, ()))
        if any(d.job == job.id and not dependency_met(state, d) for d in state.jobs[child].spec.depends)
    ]


def delete(turn: Turn, job: Job) -> int:
    """Gone from every list at once; what runs is stopped. Jobs that still waited for it are cancelled."""
    state = turn.state
    attempts = live_attempts(job)
    waiting_for_it = waiting_for(state, job)
    job.deleted = True
    state.save.append(job.record())
    for child in waiting_for_it:
        cancel(turn, child)
    for child_id in sorted(state.dependents.get(job.id, ())):
        _drop_dependency(turn, state.jobs[child_id], job.id)
    for attempt in attempts:
        ask_stop(state, attempt, "delete", turn.stop)
    state.changed_jobs.add(job.id)
    settle(turn, job)
    return len(attempts)


def _drop_dependency(turn: Turn, child: Job, parent: int) -> None:
    left = tuple(d for d in child.spec.depends if d.job != parent)
    child.take_spec(structs.replace(child.spec, depends=left))
    turn.state.dependents[parent].discard(child.id)
    turn.state.save.append(child.record())
    recheck(turn, child)


def cancel(turn: Turn, job: Job) -> None:
    """Its dependency is cancelled: so are its waiting frames, and the jobs that wait for it, and so on."""
    state = turn.state
    todo, seen = deque([job]), {job.id}
    while todo:
        one = todo.popleft()
        if one.deleted or one.all_done:
            continue
        _cancel_frames(turn, one)
        settle(turn, one)
        for child in sorted(state.dependents.get(one.id, set()) - seen):
            if any(d.job == one.id and d.until == "done" for d in state.jobs[child].spec.depends):
                seen.add(child)
                todo.append(state.jobs[child])


def _cancel_frames(turn: Turn, job: Job) -> None:
    state = turn.state
    for layer in job.layers:
        changed = False
        for index in list(layer.delayed):
            layer.due(index)
        for start, end in list(layer.waiting.intervals()):
            layer.move(start, end, "WAITING", "CANCELLED")
            state.save.append(FramesForget(job.id, layer.index, start, end))
            changed = True
        if changed:
            layer.floor = max(layer.floor, layer.top)
            state.save.append(layer.record())
    for attempt in live_attempts(job):
        ask_stop(state, attempt, "cancel", turn.stop)
    state.changed_jobs.add(job.id)


# -- verbs on frames --------------------------------------------------------------------------------------


def kill_frames(turn: Turn, layer: Layer, indexes: list[tuple[int, int]]) -> int:
    """Running ones are stopped and WAITING again (counted). How many run."""
    count = 0
    for attempt in _running_in(layer, indexes):
        count += 1
        if attempt.stop not in ("kill", "cancel"):
            ask_stop(turn.state, attempt, "kill", turn.stop)
    return count


def requeue_frames(turn: Turn, layer: Layer, indexes: list[tuple[int, int]], *, now: bool) -> int:
    """Ended ones are WAITING again with fresh retries; running ones go once more after this run."""
    count = 0
    for attempt in _running_in(layer, indexes):
        count += 1
        if now or attempt.stop == "cancel":
            attempt.again = True
            ask_stop(turn.state, attempt, "requeue", turn.stop)
        elif not attempt.again:
            attempt.again = True
            turn.state.save.append(attempt.record())
            turn.state.touch(attempt)
    for source in ("DONE", "FAILED", "CANCELLED"):
        count += _move_all(turn, layer, indexes, source, "WAITING")
    settle(turn, layer.job)
    return count


def finish_frames(turn: Turn, layer: Layer, indexes: list[tuple[int, int]], *, running: bool = False) -> int:
    """DONE at once; a running attempt is stopped and its report ignored. `running`: only such frames."""
    count = 0
    for attempt in _running_in(layer, indexes) if running else _live_in(layer, indexes):
        count += 1
        supersede(turn.state, attempt, "DONE", "finish")
        turn.stop(attempt)
    if not running:
        for index in [i for i in layer.delayed if _holds(indexes, i)]:
            layer.due(index)
        for source in ("WAITING", "FAILED"):
            count += _move_all(turn, layer, indexes, source, "DONE")
    settle(turn, layer.job)
    return count


def reset_requeued(turn: Turn, layer: Layer, indexes: list[tuple[int, int]]) -> int:
    """Their counts of having been requeued begin anew, and with them their retries. How many they are."""
    count = 0
    for start, end in indexes:
        for index in range(start, end):
            count += 1
            attempt, past = layer.live.get(index), layer.history.get(index)
            resting = layer.resting(index)
            if attempt is not None:
                attempt.requeued, attempt.returned = 0, -layer.reruns
                past = past or History(attempt.key.attempt)
            elif past is None:
                if not layer.reruns:
                    continue
                past = History(layer.floor if resting == "WAITING" else layer.top)
            past.requeued, past.returned = 0, -layer.reruns
            layer.history[index] = past
            layer.has_row(index)
            turn.state.save.append(layer.frame_record(index, resting, past))
            turn.state.changed_frames.add(FrameKey(layer.job.id, layer.index, index))
    turn.state.save.append(layer.record())
    return count


def _live_in(layer: Layer, indexes: list[tuple[int, int]]) -> list[Attempt]:
    found = [a for a in layer.live.values() if _holds(indexes, a.index)]
    return sorted(found, key=lambda attempt: attempt.index)


def _running_in(layer: Layer, indexes: list[tuple[int, int]]) -> list[Attempt]:
    """Without those that only wait at their slave: their frames are WAITING to whoever asks."""
    return [attempt for attempt in _live_in(layer, indexes) if not attempt.waits]


def _move_all(turn: Turn, layer: Layer, indexes: list[tuple[int, int]], source: Resting, to: Resting) -> int:
    """Move those of the positions that rest in `source`; rows only where they keep attempt numbers."""
    positions = dict(layer.sets())[source]
    if not positions:
        return 0
    pieces = list(_common(list(positions.intervals()), indexes))
    count = sum(end - start for start, end in pieces)
    if not count:
        return 0
    job = layer.job
    few = count <= _FEW
    pasts = {
        index: past
        for start, end in (pieces if few else ())
        for index in range(start, end)
        if (past := layer.history.get(index)) is not None
    }
    ran = source != "WAITING" or bool(layer.history)
    if ran and (not few or to != "WAITING"):
        layer.floor = max(layer.floor, layer.top)
    for start, end in pieces:
        layer.move(start, end, source, to)
        turn.state.save.append(FramesForget(job.id, layer.index, start, end))
    if few:
        _keep_pasts(turn, layer, pieces, pasts, to)
    turn.state.save.append(layer.record())
    turn.state.changed_jobs.add(job.id)
    job.moved_at = turn.wall
    if few:
        turn.state.changed_frames.update(
            (FrameKey(job.id, layer.index, i) for start, end in pieces for i in range(start, end))
        )
    turn.state.want_schedule = True
    return count


def _keep_pasts(
    turn: Turn, layer: Layer, pieces: list[tuple[int, int]], pasts: dict[int, History], to: Resting
) -> None:
    """Rows for frames that were moved: numbers of those that run again, counts of all that have some."""
    for start, end in pieces:
        for index in range(start, end):
            old = pasts.get(index)
            past = History(layer.top)
            if to == "WAITING":
                past.returned = 1 + (old.requeued + old.returned if old is not None else 0)
            elif old is not None and old.counts:
                past.requeued, past.returned = old.requeued, old.returned
            else:
                continue
            layer.history[index] = past
            layer.has_row(index)
            turn.state.save.append(layer.frame_record(index, to, past))


def _holds(indexes: list[tuple[int, int]], index: int) -> bool:
    """Whether one of these (start, end), in ascending order, holds the position."""
    at = bisect_right(indexes, index, key=lambda piece: piece[0]) - 1
    return at >= 0 and index < indexes[at][1]


def _common(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What two lists of (start, end), disjoint and in ascending order, have in common, in one pass."""
    i = j = 0
    while i < len(one) and j < len(two):
        start, end = max(one[i][0], two[j][0]), min(one[i][1], two[j][1])
        if start < end:
            yield start, end
        if one[i][1] < two[j][1]:
            i += 1
        else:
            j += 1
