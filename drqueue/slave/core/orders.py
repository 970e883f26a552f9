"""The life of attempts on a slave: accept, start, stop, end, forget. PURE.

Rules: every change to an attempt goes through here; what must survive is appended to `save`, what is
then to be done to `do`, news for the master to `started` and `exited` (the core sends them at the end of
a step). A process that was told to end is told again until it is gone.
"""

import heapq
from math import inf

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Started
from drqueue.proto.model import NOBODYS, SCRATCH, Exit, RunOrder
from drqueue.proto.rules import succeeded
from drqueue.slave.core.amounts import milli
from drqueue.slave.core.effects import Effect, Prepare, RemoveScratch, Start, Verify
from drqueue.slave.core.processes import (
    KEEPER_DIED,
    LOG_LIMIT,
    OOM,
    PERHAPS_OOM,
    ForgetProcess,
    LaunchFailed,
    ProcessEnded,
    ProcessStarted,
    SignalTree,
)
from drqueue.slave.core.records import Accepted, Before, Ended, Noted, Prepared, Record, Running, StopAsked
from drqueue.slave.core.state import ALIVE, MAX_HELD, USING, Attempt, Phase, State

#: A process that survived KILL (the disk it waits for hangs) is killed again this often.
KILL_AGAIN_S = 5.0
#: A start is kept and told after this time: what is shorter costs one record and one report. Nothing hangs
#: on it meanwhile, for the keeper knows the process.
RECORDED_AFTER_S = 0.1
#: A frame whose lease is over gets no more time than this between TERM and KILL, for the master waits but two
#: minutes; and none where that was noticed late, after a suspend.
LEASE_GRACE_S = 30.0
LEASE_LATE_S = 60.0
#: When half of a lease is over the master is asked for a sign of life, again after so much of the lease.
ASK_AGAIN = 1 / 8
#: Sentences of an exit are cut to this many characters.
MAX_TEXT = 500
_MB = 1 << 20
_REASON_TEXTS = {
    KEEPER_DIED: "the keeper that watched it died, so how it ended is unknown",
    LOG_LIMIT: "its log reached the limit",
}


class Work:
    """The attempts of one slave, and what one step wants to come of them."""

    def __init__(self, state: State, *, cores: int, grace_s: float, clock_ticks: int) -> None:
        self.state = state
        self.save: list[Record] = []
        self.do: list[Effect] = []
        self.started: dict[AttemptKey, Started] = {}
        self.exited: list[Exited] = []
        self.now = 0.0
        #: How long the master had not been heard when this step's events came.
        self.silent_s = 0.0
        #: Half of some lease is over.
        self.worried = False
        self._milli = milli(cores)
        self._grace_s = grace_s
        self._clock_ticks = clock_ticks
        self._timers: list[tuple[float, AttemptKey]] = []
        self._lease_check_at = inf

    # -- orders ----------------------------------------------------------------------------------

    def accept(self, order: RunOrder) -> None:
        """Take an order on; one that is held already is not news."""
        state = self.state
        if order.key in state.held:
            return
        if state.leaving or len(state.held) >= MAX_HELD:
            self.deny(order.key, "this slave is shutting down" if state.leaving else "this slave is full")
            return
        if self.silent_s >= order.lease_s:
            # Read after a sleep: the master sent it before, and may have given it up by now.
            self.deny(order.key, "the order came too late: its lease was over")
            return
        attempt = Attempt.of(order)
        state.held[order.key] = state.queued[order.key] = attempt
        self.save.append(Accepted(order))
        self._expect_lease_end(attempt)

    def deny(self, key: AttemptKey, text: str) -> None:
        """Tell the master that an attempt does not run here: proof, as it comes from this very boot."""
        self.exited.append(Exited(key, Exit(reason="lost", text=text)))

    def start_queued(self) -> None:
        """Start what waits, in order, as far as there is room; the first always fits an empty slave.

        One that waits for its GPUs lets others pass, but none that would take those GPUs.
        """
        state = self.state
        starting: list[Attempt] = []
        promised: set[int] = set()
        for attempt in state.queued.values():
            if state.milli_used and state.milli_used + attempt.milli > self._milli:
                break
            gpus = attempt.order.gpus
            if gpus and not (promised.isdisjoint(gpus) and state.gpus_used.keys().isdisjoint(gpus)):
                promised.update(gpus)
                continue
            state.take(attempt)
            starting.append(attempt)
        for attempt in starting:
            del state.queued[attempt.key]
            if attempt.order.outputs:
                attempt.move(Phase.PREPARING)
                self.do.append(Prepare(attempt.order))
            else:
                attempt.move(Phase.LAUNCHING)
                self.do.append(Start(attempt.order))

    def stop(self, attempt: Attempt, reason: str, text: str, grace_s: float | None = None) -> bool:
        """End an attempt; False where that is under way already, or it is over."""
        if attempt.phase is Phase.ENDED or attempt.stop_reason:
            return False
        text = text[:MAX_TEXT]
        if attempt.phase not in ALIVE:
            self._end(attempt, Exit(reason=reason, text=text, started_at=attempt.started_at))
            return True
        grace = self._grace_s if grace_s is None else max(0.0, grace_s)
        attempt.stop_reason, attempt.stop_text, attempt.grace_s = reason, text, grace
        self.save.append(StopAsked(attempt.key, reason, text, grace))
        self._terminate(attempt)
        return True

    def stop_all(self, reason: str, text: str) -> None:
        """End everything."""
        for attempt in list(self.state.held.values()):
            self.stop(attempt, reason, text)

    def note(self, key: AttemptKey) -> None:
        """The master has this exit on disk: forget the attempt. Others are left alone."""
        attempt = self.state.ended.pop(key, None)
        if attempt is None:
            return
        del self.state.held[key]
        self.save.append(Noted(key))
        self.do.append(ForgetProcess(key))
        if attempt.order.cwd == SCRATCH:
            self.do.append(RemoveScratch(key))

    # -- what came of it -------------------------------------------------------------------------

    def outputs_seen(self, key: AttemptKey, before: Before) -> None:
        """The outputs were looked at before the start: start."""
        attempt = self.state.held.get(key)
        if attempt is None or attempt.phase is not Phase.PREPARING:
            return
        attempt.before = before
        self.save.append(Prepared(key, before))
        attempt.move(Phase.LAUNCHING)
        self.do.append(Start(attempt.order))

    def process_started(self, event: ProcessStarted) -> None:
        """The command runs; also told again for one that is known to."""
        attempt = self.state.held.get(event.key)
        if attempt is None:
            # Nobody ordered it here: a spool that was set aside or damaged. It must not run on unseen.
            self.state.strangers.add(event.key)
            self.do.append(SignalTree(event.key, kill=True))
            return
        if attempt.phase is not Phase.LAUNCHING:
            return
        attempt.move(Phase.RUNNING)
        attempt.pid, attempt.birth, attempt.started_at = event.pid, event.birth, event.at
        self.state.fresh[event.key] = self.now + RECORDED_AFTER_S
        self.watch(attempt)
        if attempt.stop_reason:
            self._terminate(attempt)

    def starts_passed(self) -> None:
        """Keep and tell the starts of what still runs after a moment."""
        fresh = self.state.fresh
        while fresh:
            key, due = next(iter(fresh.items()))
            if due > self.now:
                return
            del fresh[key]
            attempt = self.state.held[key]
            attempt.recorded = True
            self.save.append(Running(key, attempt.pid, attempt.birth, attempt.started_at))
            self.started[key] = Started(key, attempt.started_at, attempt.pid)

    def watch(self, attempt: Attempt) -> None:
        """Mind a running attempt's time limit, counted from its birth."""
        attempt.since = min(self.now, attempt.birth / self._clock_ticks) if attempt.birth else self.now
        if attempt.order.timeout_s:
            self._arm(attempt.since + attempt.order.timeout_s, attempt.key)

    def launch_failed(self, event: LaunchFailed) -> None:
        """The command never ran."""
        self.state.strangers.discard(event.key)
        attempt = self.state.held.get(event.key)
        if attempt is None:
            self.do.append(ForgetProcess(event.key))
        elif attempt.phase in USING:
            self._end(attempt, Exit(reason=event.reason, text=event.text[:MAX_TEXT]))

    def process_ended(self, event: ProcessEnded) -> None:
        """The command and all that it started are gone."""
        self.state.strangers.discard(event.key)
        attempt = self.state.held.get(event.key)
        if attempt is None:
            self.do.append(ForgetProcess(event.key))
            return
        if attempt.phase not in ALIVE:
            return
        reason, text = event.reason, ""
        if attempt.stop_reason:
            reason, text = attempt.stop_reason, attempt.stop_text
        elif reason in (OOM, PERHAPS_OOM) and _took_it_well(event, attempt.order):
            reason = ""
        elif reason == PERHAPS_OOM:
            reason, text = "", "killed, perhaps as memory ran out"
        elif reason == OOM:
            text = f"memory ran out, and the kernel killed it (its peak: {event.peak_bytes / _MB:.0f} MB)"
        elif reason:
            text = _REASON_TEXTS.get(reason, "")
        started_at = event.started_at or attempt.started_at
        exit_ = Exit(
            code=event.code,
            signal=event.signal,
            reason=reason,
            text=text,
            # What the keeper says of a clock that was set meanwhile may be less.
            started_at=max(0.0, started_at),
            ended_at=max(0.0, event.ended_at),
            cpu_s=max(0.0, event.cpu_s),
            peak_mb=event.peak_bytes / _MB,
            log_bytes=event.log_bytes,
        )
        if attempt.order.outputs and succeeded(exit_, attempt.order.success_exit_codes):
            self._free(attempt)
            self.state.fresh.pop(event.key, None)
            attempt.exit = exit_
            attempt.move(Phase.VERIFYING)
            self.do.append(Verify(attempt.order, attempt.before))
        else:
            self._end(attempt, exit_)

    def verified(self, key: AttemptKey, problem: str) -> None:
        """The outputs were looked at after the end."""
        attempt = self.state.held.get(key)
        if attempt is None or attempt.phase is not Phase.VERIFYING or attempt.exit is None:
            return
        exit_ = attempt.exit
        if problem:
            exit_ = _replaced(exit_, "missing-output", problem[:MAX_TEXT])
        self._end(attempt, exit_)

    # -- time ------------------------------------------------------------------------------------

    def next_wakeup(self) -> float:
        """The next moment at which a deadline may pass; `inf` for none."""
        at = self._lease_check_at
        if self._timers:
            at = min(at, self._timers[0][0])
        for due in self.state.fresh.values():
            return min(at, due)
        return at

    def timers_passed(self) -> None:
        """Time limits that ran out, and graces."""
        while self._timers and self._timers[0][0] <= self.now:
            key = heapq.heappop(self._timers)[1]
            attempt = self.state.held.get(key)
            if attempt is None or attempt.phase not in ALIVE:
                continue
            if attempt.stop_reason:
                if attempt.kill_at <= self.now:
                    self.do.append(SignalTree(key, kill=True))
                    self._arm_kill(attempt, KILL_AGAIN_S)
            elif attempt.order.timeout_s and attempt.since + attempt.order.timeout_s <= self.now:
                self.stop(
                    attempt, "timeout", f"it ran longer than its limit of {attempt.order.timeout_s:g} s"
                )

    def leases_passed(self) -> None:
        """Attempts whose lease ran out. Asked before anything that a batch brings, for a batch that was
        read after a suspend may hold the word of a master that gave them up hours ago."""
        if self.now < self._lease_check_at:
            return
        self._lease_check_at = inf
        for attempt in list(self.state.held.values()):
            end = self._lease_end(attempt)
            if end <= self.now:
                self._lapse(attempt, late=self.now - end > LEASE_LATE_S)
            elif end < inf:
                due = self._half_of(end)
                if due <= self.now:
                    self.worried = True
                    due = min(end, self.now + (end - self.state.heard_at) * ASK_AGAIN)
                self._lease_check_at = min(self._lease_check_at, due)

    def _lapse(self, attempt: Attempt, *, late: bool) -> None:
        """Its lease is over: it ends, and soon, whatever else it was told before."""
        attempt.lapsed = True
        grace = 0.0 if late else LEASE_GRACE_S
        if not attempt.stop_reason:
            text = f"the master was not heard for {self.now - self.state.heard_at:.0f} s"
            self.stop(attempt, "lease", text, min(grace, self._grace_s))
        elif attempt.kill_at > self.now + grace:
            self._arm_kill(attempt, grace)

    def leases_changed(self) -> None:
        """Leases may end earlier than they would have: they are to be looked at anew in this step."""
        self._lease_check_at = -inf

    def resume(self, attempt: Attempt) -> None:
        """Take up an attempt that was restored: its deadlines, and a stop that was under way."""
        self._expect_lease_end(attempt)
        if attempt.phase is Phase.PREPARING:
            self.do.append(Prepare(attempt.order))
        elif attempt.phase is Phase.RUNNING:
            self.watch(attempt)
        if attempt.phase in ALIVE and attempt.stop_reason:
            self._terminate(attempt)

    def _expect_lease_end(self, attempt: Attempt) -> None:
        due = self._half_of(self._lease_end(attempt))
        if due < self._lease_check_at:
            self._lease_check_at = due

    def _half_of(self, end: float) -> float:
        """When half of the lease that ends then is over."""
        return (self.state.heard_at + end) / 2

    def _lease_end(self, attempt: Attempt) -> float:
        order, phase, state = attempt.order, attempt.phase, self.state
        if order.on_unreachable == "hold" or attempt.lapsed:
            return inf
        # An attempt whose process is gone has nothing that could run twice.
        if phase is Phase.ENDED or phase is Phase.VERIFYING:
            return inf
        end = state.heard_at + max(state.grant_s, order.lease_s)
        return min(end, state.hello_at + order.lease_s) if state.hello_at else end

    def _terminate(self, attempt: Attempt) -> None:
        self.do.append(SignalTree(attempt.key, kill=False))
        self._arm_kill(attempt, attempt.grace_s)

    def _arm_kill(self, attempt: Attempt, after_s: float) -> None:
        attempt.kill_at = self.now + after_s
        self._arm(attempt.kill_at, attempt.key)

    def _arm(self, at: float, key: AttemptKey) -> None:
        heapq.heappush(self._timers, (at, key))

    # -- ends ------------------------------------------------------------------------------------

    def _free(self, attempt: Attempt) -> None:
        if attempt.phase in USING:
            self.state.give_back(attempt)

    def _end(self, attempt: Attempt, exit_: Exit) -> None:
        state, key, phase = self.state, attempt.key, attempt.phase
        if phase in USING:
            state.give_back(attempt)
        elif phase is Phase.QUEUED:
            del state.queued[key]
        state.fresh.pop(key, None)
        self.started.pop(key, None)
        attempt.move(Phase.ENDED)
        attempt.exit = exit_
        attempt.kill_at = inf
        state.ended[key] = attempt
        if succeeded(exit_, attempt.order.success_exit_codes):
            state.done += 1
        elif exit_.reason not in NOBODYS:
            state.failed += 1
        self.save.append(Ended(key, exit_))
        self.exited.append(Exited(key, exit_))


def _replaced(exit_: Exit, reason: str, text: str) -> Exit:
    return Exit(
        code=exit_.code,
        signal=exit_.signal,
        reason=reason,
        text=text,
        started_at=exit_.started_at,
        ended_at=exit_.ended_at,
        cpu_s=exit_.cpu_s,
        peak_mb=exit_.peak_mb,
        log_bytes=exit_.log_bytes,
    )


def _took_it_well(event: ProcessEnded, order: RunOrder) -> bool:
    """Whether but a child of the command was killed: it ended by itself, with a code that means success."""
    return succeeded(Exit(code=event.code, signal=event.signal), order.success_exit_codes)
