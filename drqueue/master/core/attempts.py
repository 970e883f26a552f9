"""What becomes of a frame when its attempt ends: the one place where retries are counted.

`requeued` counts failures and kills alike and alone decides: the one that finds it at the layer's
retries makes the frame FAILED. Lost slaves, hard stops and reruns are nobody's failure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from drqueue.master.core.attempt import Attempt, History
from drqueue.master.core.folding import got_rows
from drqueue.master.core.layer import Resting
from drqueue.master.core.records import AttemptRecord, Outcome
from drqueue.master.core.state import FarmState
from drqueue.proto.model import KILLED, NOBODYS, Exit
from drqueue.proto.rules import succeeded

#: Bytes kept of what a slave says of an end: pages of ended frames must fit a packet.
_TEXT_BYTES = 500
_REASON_MOST = 40
#: The wish to end an attempt because all of its layer runs again, which the layer itself counts.
RERUN = "rerun"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before a failed frame is tried again: `first`, doubled each time, at most `most`."""

    first_s: float = 5.0
    most_s: float = 300.0

    def after(self, failures: int) -> float:
        """The pause after that many failures."""
        return min(self.first_s * 2.0 ** min(failures - 1, 30), self.most_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the frame goes, what the history says of the attempt, how the next one is tried."""

    to: Resting
    outcome: Outcome
    counted: bool = False
    avoid: bool = False
    delayed: bool = False
    fresh: bool = False


#: What nearly all attempts come to.
_DONE: Final = Verdict("DONE", "done")


def judge(attempt: Attempt, result: Exit) -> Verdict:
    """Facts (how it ended) against wishes (what was asked meanwhile)."""
    well = succeeded(result, attempt.layer.spec.success_exit_codes)
    if attempt.stop in ("delete", "cancel"):
        return Verdict("DONE" if well else "CANCELLED", "done" if well else "cancelled")
    if attempt.again or attempt.stop == "requeue":
        return Verdict("WAITING", "requeued", fresh=True)
    if well:
        return _DONE
    if attempt.stop == "hard-stop":
        return Verdict("WAITING", "killed")
    out_of_tries = attempt.requeued >= attempt.layer.spec.retries
    if attempt.stop == "kill" or result.reason == KILLED:
        return Verdict("FAILED" if out_of_tries else "WAITING", "killed", counted=not out_of_tries)
    if result.reason in NOBODYS:
        return Verdict("WAITING", "lost")
    if out_of_tries:
        return Verdict("FAILED", "failed")
    return Verdict("WAITING", "failed", counted=True, avoid=True, delayed=True)


def end(state: FarmState, attempt: Attempt, result: Exit, now: float, backoff: Backoff) -> AttemptRecord:
    """The attempt is over: free its slave, settle its frame, write both down. The attempt's last row."""
    had_no_place = attempt.waits
    state.unbook(attempt)
    state.touched[attempt] = None
    layer, slave, index = attempt.layer, attempt.slave, attempt.index
    wall = state.wall(now)
    if attempt.orphan:
        layer.dying.pop(attempt.key, None)
        # Another attempt at the same numbers may start now.
        layer.job.note_waiting()
        return _close(state, attempt, result, "superseded", wall)
    verdict = judge(attempt, result)
    row = _close(state, attempt, result, verdict.outcome, wall)
    past = History(attempt.key.attempt, attempt.requeued, (), attempt.returned)
    if layer.history and not verdict.fresh and (before := layer.history.get(index)) is not None:
        past.avoid = before.avoid
    if verdict.outcome == "done":
        slave.frames_done += 1
    elif verdict.outcome == "failed":
        slave.frames_failed += 1
    if verdict is not _DONE:
        _remember(past, attempt, verdict)
    until = now + backoff.after(past.requeued) if verdict.delayed else 0.0
    kept = past if verdict.to in ("WAITING", "FAILED") or past.counts else None
    layer.release(attempt, verdict.to, kept, until)
    if verdict.to == "WAITING":
        # One that never had a place has waited all the time.
        since = attempt.row.eligible_at if had_no_place else state.wall(until) if until else wall
        layer.eligible_since(index, since)
    got_rows(layer, int(kept is None and verdict.to == "DONE"))
    layer.job.moved_at = wall
    state.save.append(layer.frame_record(index, verdict.to, past))
    return row


def _remember(past: History, attempt: Attempt, verdict: Verdict) -> None:
    """What the frame's past is now that it may be tried again."""
    if verdict.fresh:
        past.returned += past.requeued + (attempt.stop != RERUN)
        past.requeued = 0
    elif verdict.counted:
        past.requeued += 1
    elif verdict.to == "WAITING":
        past.returned += 1
    if verdict.avoid and attempt.slave.id not in past.avoid:
        past.avoid = (*past.avoid, attempt.slave.id)


def _close(state: FarmState, attempt: Attempt, result: Exit, outcome: Outcome, wall: float) -> AttemptRecord:
    row = structs.replace(
        attempt.row,
        stop=attempt.stop,
        again=attempt.again,
        orphan=attempt.orphan,
        started_at=result.started_at or attempt.started_at,
        ended_at=result.ended_at or wall,
        outcome=outcome,
        code=result.code,
        signal=result.signal,
        reason=result.reason[:_REASON_MOST],
        text=_clipped(result.text) if result.text else "",
        cpu_s=result.cpu_s,
        peak_mb=result.peak_mb,
        log_bytes=result.log_bytes,
    )
    attempt.layer.count(row)
    state.save.append(row)
    return row


def _clipped(text: str) -> str:
    return text.encode(errors="replace")[:_TEXT_BYTES].decode(errors="ignore")


def supersede(state: FarmState, attempt: Attempt, to: Resting, stop: str) -> None:
    """The frame no longer waits for this attempt, which still runs: stop it, ignore its report."""
    layer = attempt.layer
    past = History(attempt.key.attempt, 0)
    if to == "DONE":
        past.requeued, past.returned = attempt.requeued, attempt.returned
    layer.dying[attempt.key] = attempt.members
    layer.release(attempt, to, past if to in ("WAITING", "FAILED") or past.counts else None)
    attempt.orphan = True
    attempt.stop = stop
    attempt.asked_stop = False
    state.save.append(layer.frame_record(attempt.index, to, past))
    state.save.append(attempt.record())
    state.touched[attempt] = None
    # Its job runs one less: another may start.
    state.want_schedule = True


def ask_stop(state: FarmState, attempt: Attempt, stop: str, tell: Callable[[Attempt], None]) -> None:
    """Record a wish and say it to the slave; its report will fulfil it."""
    attempt.stop = stop
    state.save.append(attempt.record())
    state.touched[attempt] = None
    tell(attempt)
