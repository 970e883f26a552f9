"""Whether two states of a farm are the same, as far as a restart may not change it."""

from drqueue.master.core.attempt import Attempt
from drqueue.master.core.layer import Layer
from drqueue.master.core.state import FarmState
from tests.sim.books import Violation


def same(live: FarmState, fresh: FarmState) -> None:
    """Raise Violation where a master that started now would know something else than this one does."""
    if live.jobs.keys() != fresh.jobs.keys() or live.slaves.keys() != fresh.slaves.keys():
        raise Violation(f"jobs or slaves differ on disk: {sorted(live.jobs)}, {sorted(fresh.jobs)}")
    if vars(live.gone_tokens) != vars(fresh.gone_tokens):
        raise Violation("the tokens of jobs that are gone differ on disk")
    if (live.next_job, live.next_slave) != (fresh.next_job, fresh.next_slave):
        raise Violation("the next job or slave number differs on disk")
    for number, job in live.jobs.items():
        other = fresh.jobs[number]
        if job.record() != other.record():
            raise Violation(f"job {number} differs on disk: {job.record()}, {other.record()}")
        for layer, again in zip(job.layers, other.layers, strict=True):
            for index in range(layer.size):
                if (a := _frame(layer, index)) != (b := _frame(again, index)):
                    raise Violation(f"frame {number}/{layer.index}/{index}: {a} lives, {b} on disk")
    for key, attempt in live.attempts.items():
        kept = fresh.attempts.get(key)
        if kept is None or _attempt(attempt) != _attempt(kept):
            raise Violation(f"attempt {key}: {_attempt(attempt)} lives, {kept and _attempt(kept)} on disk")
    if len(live.attempts) != len(fresh.attempts):
        raise Violation("there are more attempts on disk")


def _frame(layer: Layer, index: int) -> tuple[str, int, int, tuple[int, ...]]:
    state = layer.state_of(index)
    past = layer.history.get(index)
    kept = past if state in ("WAITING", "FAILED") else None
    return (
        "LIVE" if state in ("ASSIGNED", "RUNNING") else state,
        layer.next_attempt(index) if state != "DONE" else 0,
        kept.requeued if kept else 0,
        kept.avoid if kept else (),
    )


def _attempt(attempt: Attempt) -> tuple[str, bool, bool, int, int, int]:
    # What an orphan's frame was does not matter any more; a frame that goes again begins to count anew.
    index = attempt.index if not attempt.orphan else 0
    requeued = attempt.requeued if not attempt.orphan and not attempt.again else 0
    return attempt.stop, attempt.again, attempt.orphan, attempt.slave.id, index, requeued
