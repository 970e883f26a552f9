"""What jobs go through: submission, finishing, the verbs, deletion."""

from bisect import bisect_right
from collections.abc import Iterator

from drqueue.master.core import cancelling, depends
from drqueue.master.core.attempt import Attempt, History
from drqueue.master.core.attempts import RERUN, ask_stop, supersede
from drqueue.master.core.dates import DAY_S
from drqueue.master.core.effects import MailFinished
from drqueue.master.core.layer import ROWS_MOST, Layer, Resting
from drqueue.master.core.records import FramesForget, JobForget, JobRecord, MetaRecord
from drqueue.master.core.state import Job
from drqueue.master.core.trouble import goes_on
from drqueue.master.core.turn import Turn
from drqueue.proto.ids import FrameKey
from drqueue.proto.model import JobSpec

#: Jobs that a farm may have that are not finished.
JOBS_MOST = 100_000
#: More frames than this are requeued without keeping a row each for their attempt numbers.
_FEW = 1000


def submit(turn: Turn, token: str, spec: JobSpec, submitter: str, user: str) -> Job:
    """A new job, within the shares and limits of `user`; the spec was checked."""
    state = turn.state
    record = JobRecord(
        id=state.next_job,
        token=token,
        spec=spec,
        submitted_at=turn.wall,
        stopped=spec.stopped,
        submitter=submitter,
        user=user,
    )
    state.next_job += 1
    job = state.add_job(record)
    state.save += [record, MetaRecord("next_job", str(state.next_job))]
    depends.wire(state, job)
    depends.recheck(turn, job)
    state.changed_jobs.add(job.id)
    state.want_schedule = True
    return job


def settle(turn: Turn, job: Job) -> None:
    """After frames of a job ended or came back: is it finished, and who waited for that?"""
    state = turn.state
    if job.deleted:
        if not job.live and not any(layer.dying for layer in job.layers):
            state.drop_job(job)
            state.save += [state.gone_tokens.add(job.id, job.token, job.submitter), JobForget(job.id)]
        return
    finished = not job.unfinished
    if finished != job.finished:
        job.finished = finished
        job.finished_at = turn.wall if finished else 0.0
        (state.unfinished.discard if finished else state.unfinished.add)(job.id)
        if finished and job.spec.mail_when_finished:
            turn.mail(_mail(job))
        state.save.append(job.record())
        state.changed_jobs.add(job.id)
    if finished and job.spec.delete_when_finished and job.all_done:
        delete(turn, job)
        return
    if job.goals:
        depends.look(turn, job)


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
    goes_on(turn.state, job)
    depends.recheck(turn, job)


def _set_stopped(turn: Turn, job: Job, stopped: bool) -> None:
    if job.stopped != stopped:
        job.stopped = stopped
        for layer in job.layers:
            layer.look_open(turn.wall)
        job.note_waiting()
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
        layer.eligible.clear()
        layer.eligible.at = turn.wall
        layer.count_anew()
        turn.state.save += [FramesForget(job.id, layer.index, 0, layer.size), layer.record()]
        if len(came_back) <= ROWS_MOST:
            for index, times in came_back.items():
                layer.history[index] = past = History(layer.floor, returned=times)
                turn.state.save.append(layer.frame_record(index, "WAITING", past))
    goes_on(turn.state, job)
    turn.state.changed_jobs.add(job.id)
    turn.state.want_schedule = True
    job.moved_at = turn.wall
    settle(turn, job)
    depends.came_back(turn, job)
    return sum(layer.size for layer in job.layers)


def old(turn: Turn, keep_s: float) -> list[Job]:
    """Jobs that finished more than `keep_s` seconds ago, by the date that is believed.

    A clock in the past may have stamped a job: it is no older than its submission, which is no earlier than
    that of those before it. After a start the date may lag behind their stamps a little.
    """
    today = turn.state.dates.today(turn.now)
    found, since = [], 0.0
    for job in turn.state.jobs.values():
        if job.submitted_at <= today + DAY_S:
            since = max(since, job.submitted_at)
        if job.finished and not job.deleted and 0 < max(job.finished_at, since) < today - keep_s:
            found.append(job)
    return found


def delete(turn: Turn, job: Job) -> int:
    """Gone from every list at once; what runs is stopped. Jobs that still waited for it are cancelled."""
    state = turn.state
    attempts = live_attempts(job)
    job.deleted = True
    state.unfinished.discard(job.id)
    job.note_waiting()
    state.save.append(job.record())
    cancelling.leave(turn, job)
    for attempt in attempts:
        ask_stop(state, attempt, "delete", turn.stop)
    state.changed_jobs.add(job.id)
    settle(turn, job)
    return len(attempts)


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
            turn.state.touched[attempt] = None
    for source in ("DONE", "FAILED", "CANCELLED"):
        count += _move_all(turn, layer, indexes, source, "WAITING")
    settle(turn, layer.job)
    depends.came_back(turn, layer.job)
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
    found = layer.all_waiting() if source == "WAITING" else list(dict(layer.sets())[source].intervals())
    pieces = list(common(found, indexes))
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
    if to == "WAITING":
        layer.eligible.all_since(pieces, turn.wall)
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


def common(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
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
