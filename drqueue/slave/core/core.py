"""The slave's core: takes events, decides, says what to keep and what to do. PURE.

Rules: `now` is CLOCK_BOOTTIME in seconds and never goes back. News leave in the order in which they
happened, in one report at the end of a step, and only once the master knows what is held (Registered);
after every new link all exits that are not noted are told again. A slave obeys no older epoch and no two
masters of one, and leaves another farm's frames behind before it serves a new one.

Leases count from the latest moment at which this slave said something that its master is known to have
heard, so that they end before the master's own patience does, however long words take either way. Of a
master that does not say what it heard they count from when its words are read.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from msgspec import structs

from drqueue.outcome import Outcome
from drqueue.proto.link_messages import Beat, Exited, Held, LimitsNow, Message, Orders, Report, Started
from drqueue.proto.messages import Done, KillAttempts, Refusal, SetLimits
from drqueue.proto.model import KILLED, SlaveLimits
from drqueue.slave.core.effects import (
    Alive,
    AllEnded,
    Answer,
    Effect,
    KeepLog,
    SayHello,
    Send,
    Unlink,
)
from drqueue.slave.core.events import (
    Asked,
    AutoEnableDue,
    Event,
    Granted,
    Heard,
    LeaveAsked,
    Linked,
    OrdersCame,
    OutputsSeen,
    Ping,
    RegisteredAs,
    Unlinked,
    Verified,
)
from drqueue.slave.core.limits import changed_limits
from drqueue.slave.core.orders import Work
from drqueue.slave.core.processes import ForgetProcess, LaunchFailed, ProcessEnded, ProcessStarted
from drqueue.slave.core.records import FarmLeft, LimitsSet, MasterHeard, MasterSeen, Record
from drqueue.slave.core.state import Phase, State

#: News of so many attempts go into one packet: at the longest sentences well below its 256 kB.
REPORT_MAX = 100
#: While attempts are held, the time of the master's last word is kept this often.
HEARD_KEPT_S = 60.0


class Core:
    """One slave. `cores` is what it offers, `grace_s` the time between TERM and KILL."""

    def __init__(self, state: State, *, cores: int, grace_s: float = 10.0, clock_ticks: int = 100) -> None:
        self.state = state
        self._work = Work(state, cores=cores, grace_s=grace_s, clock_ticks=clock_ticks)
        self._limits_told = state.limits
        self._left_told = False
        self._resume = True
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            OrdersCame: self._orders_came,
            ProcessStarted: self._work.process_started,
            ProcessEnded: self._work.process_ended,
            LaunchFailed: self._work.launch_failed,
            OutputsSeen: lambda event: self._work.outputs_seen(event.key, event.before),
            Verified: lambda event: self._work.verified(event.key, event.problem),
            Heard: self._word_came,
            Linked: self._linked,
            Unlinked: self._unlinked,
            RegisteredAs: self._registered,
            Granted: self._granted,
            Asked: self._asked,
            AutoEnableDue: lambda event: self._auto_enable(),
            LeaveAsked: lambda event: self._leave(),
            Ping: lambda event: self._work.do.append(Alive()),
        }

    def step(self, events: Sequence[Event], now: float) -> Outcome[Record, Effect]:
        """Leases that ran out, then every event in order, then every deadline, then what has room."""
        work = self._work
        work.now, work.silent_s = now, now - self.state.heard_at
        work.save, work.do, work.started, work.exited = [], [], {}, []
        work.worried = False
        if self._resume:
            self._resume = False
            for attempt in self.state.held.values():
                work.resume(attempt)
        work.leases_passed()
        for event in events:
            self._handlers[type(event)](event)
        work.leases_passed()
        work.timers_passed()
        if self.state.fresh:
            work.starts_passed()
        if work.state.queued:
            work.start_queued()
        self._report()
        if work.worried and self.state.registered and self.state.confirms:
            self._send(Beat(echo=True, at=now))
        if self.state.leaving and not self._left_told and not self.state.in_use():
            self._left_told = True
            work.do.append(AllEnded())
        return Outcome(work.save, work.do)

    def next_wakeup(self) -> float | None:
        """When a deadline passes; None while there is none."""
        if self._resume:
            return -inf
        at = self._work.next_wakeup()
        return None if at == inf else at

    # -- the link --------------------------------------------------------------------------------

    def _linked(self, event: Linked) -> None:
        state, work = self.state, self._work
        state.link, state.linked, state.registered = event.link, False, False
        state.linked_at, state.confirms, state.orders = work.now, False, 0
        if state.strangers:
            text = "frames run here of which nothing is known any more: they are ended first"
            work.do.append(Unlink(event.link, text))
            return
        if state.farm and event.farm != state.farm:
            if not self._left_farm():
                text = "this is another farm: the frames of the former one are stopped first"
                work.do.append(Unlink(event.link, text))
                return
        elif event.epoch < state.epoch:
            text = (
                f"this master's epoch is {event.epoch}, but {state.epoch} was seen already: "
                "an older copy of the farm's database must not run frames"
            )
            work.do.append(Unlink(event.link, text))
            return
        elif event.epoch == state.epoch and event.life and state.life not in ("", event.life):
            text = (
                f"another master had epoch {event.epoch}, too: one of them runs on a copy of the other's "
                "state; stop that one, and restart the one that is to stay"
            )
            work.do.append(Unlink(event.link, text))
            return
        state.linked = True
        self._see_master(event.farm, event.epoch, event.life)
        if state.grant_s and not state.hello_at:
            state.hello_at = work.now
            self._keep_heard()
            work.leases_changed()
        self._limits_told = state.limits
        held = tuple([Held(key, attempt.phase is Phase.ENDED) for key, attempt in state.held.items()])
        work.do.append(SayHello(event.link, held))

    def _left_farm(self) -> bool:
        """Whether nothing of the former farm runs any more; if so, it is left behind."""
        state, work = self.state, self._work
        work.stop_all("stopped", "this slave went over to another farm")
        if state.alive():
            return False
        for key in state.held:
            work.do.append(ForgetProcess(key))
        state.held.clear()
        state.ended.clear()
        work.exited.clear()
        # What was saved in this step belongs to the spool that is set aside.
        work.save.append(FarmLeft(state.farm))
        state.farm, state.epoch, state.life = "", 0, ""
        return True

    def _see_master(self, farm: str, epoch: int, life: str) -> None:
        state = self.state
        if epoch == state.epoch:
            life = life or state.life
        if (farm, epoch, life) != (state.farm, state.epoch, state.life):
            state.farm, state.epoch, state.life = farm, epoch, life
            self._work.save.append(MasterSeen(farm, epoch, life))

    def _unlinked(self, event: Unlinked) -> None:
        if event.link == self.state.link:
            self.state.linked = self.state.registered = False

    def _registered(self, event: RegisteredAs) -> None:
        """All news that may have been lost with the former link, once more."""
        state, work = self.state, self._work
        if not state.linked:
            return
        state.registered, state.confirms = True, event.seen > 0
        # Read after a sleep, what came with it is old, too.
        work.silent_s = work.now - state.linked_at
        state.grant_s = state.hello_at = 0.0
        self._heard(event.seen, keep=True)
        work.leases_changed()
        state.slave_id, state.name = event.slave, event.name
        work.started = {
            key: Started(key, attempt.started_at, attempt.pid)
            for key, attempt in state.held.items()
            if attempt.recorded and attempt.phase is not Phase.ENDED
        }
        work.exited = [
            Exited(key, attempt.exit) for key, attempt in state.ended.items() if attempt.exit is not None
        ]

    def _granted(self, event: Granted) -> None:
        if not self.state.registered:
            # Of a master that was refused.
            return
        self.state.grant_s = event.lease_s
        self._heard(keep=True)
        self._work.leases_changed()

    def _word_came(self, event: Heard) -> None:
        if event.seen and self.state.linked and not self.state.registered:
            self._start_over("it was never told that this slave is registered")
        else:
            self._heard(event.seen)

    def _heard(self, seen: float = 0.0, *, keep: bool = False, holding: bool = False) -> None:
        """The master lives. `seen`: the latest word that came to it; `holding`: something is to be held."""
        state, work = self.state, self._work
        if not state.registered:
            return
        if not state.confirms:
            state.heard_at = work.now
        elif seen > state.heard_at:
            state.heard_at = min(seen, work.now)
            work.silent_s = work.now - state.heard_at
        due = (state.held or holding) and state.heard_at - state.heard_kept_at >= HEARD_KEPT_S
        if keep or due:
            self._keep_heard()

    def _keep_heard(self) -> None:
        state = self.state
        state.heard_kept_at = state.heard_at
        self._work.save.append(MasterHeard(state.heard_at, state.grant_s, state.hello_at))

    def _start_over(self, why: str) -> None:
        """Something was lost, repeated or overtaken on this link: on a new one all is told anew."""
        state = self.state
        self._work.do.append(Unlink(state.link, f"start over: {why}"))
        state.linked = state.registered = False

    def _orders_came(self, event: OrdersCame) -> None:
        orders: Orders = event.orders
        state, work = self.state, self._work
        if not state.linked or orders.epoch < state.epoch:
            return
        if not state.registered:
            self._start_over("orders came before this slave was registered")
            return
        if orders.nth:
            if orders.nth != state.orders + 1:
                self._start_over(f"orders {orders.nth} of this link came after {state.orders}")
                return
            state.orders = orders.nth
        self._see_master(state.farm, orders.epoch, "")
        self._heard(holding=bool(orders.run))
        for key in orders.noted:
            work.note(key)
        for order in orders.run:
            work.accept(order)
        for stop in orders.stop:
            attempt = state.held.get(stop.key)
            if attempt is None:
                work.deny(stop.key, "this slave does not run it")
            elif stop.unstarted and attempt.phase is not Phase.QUEUED:
                continue
            else:
                work.stop(attempt, "stopped", stop.why, stop.grace_s)

    def _report(self) -> None:
        state, work = self.state, self._work
        if not state.registered:
            return
        limits = state.limits
        if state.leaving:
            # Before the ends of its frames, which the master would start here again and again.
            limits = structs.replace(limits, enabled=False)
        if limits != self._limits_told:
            self._limits_told = limits
            self._send(LimitsNow(limits=limits))
        if not work.started and not work.exited:
            return
        started, exited = tuple(work.started.values()), tuple(work.exited)
        # No attempt is in both, so that parts may be taken from both alike.
        for at in range(0, max(len(started), len(exited)), REPORT_MAX):
            part = slice(at, at + REPORT_MAX)
            self._send(Report(started=started[part], exited=exited[part]))
        for item in exited:
            if item.exit.log_bytes:
                work.do.append(KeepLog(state.link, item.key))

    def _send(self, message: Message) -> None:
        self._work.do.append(Send(self.state.link, message))

    # -- requests, and what else happens ---------------------------------------------------------

    def _asked(self, event: Asked) -> None:
        request = event.request
        if isinstance(request, SetLimits):
            answer = self._set_limits(request)
        elif isinstance(request, KillAttempts):
            answer = self._kill(request, event.only_of)
        else:
            answer = Refusal(
                rq=request.rq, code="bad-request", text=f"a slave does not answer {type(request).__name__}"
            )
        self._work.do.append(Answer(event.asker, answer))

    def _set_limits(self, request: SetLimits) -> Done | Refusal:
        limits = changed_limits(self.state.limits, request.change)
        if isinstance(limits, str):
            return Refusal(rq=request.rq, code="bad-limits", text=limits)
        return Done(rq=request.rq, count=int(self._limit(limits)))

    def _kill(self, request: KillAttempts, only_of: str | None) -> Done | Refusal:
        state = self.state
        if request.job is None and not request.keys:
            return Refusal(rq=request.rq, code="bad-request", text="name a job, or the attempts to kill")
        if request.keys:
            wanted = [state.held[key] for key in request.keys if key in state.held]
        else:
            wanted = [attempt for key, attempt in state.held.items() if key.job == request.job]
        if only_of is not None:
            for attempt in wanted:
                submitter = attempt.order.submitter
                if submitter != only_of or not submitter:
                    text = (
                        f"job {attempt.key.job} was submitted by {submitter or 'somebody unknown'}: "
                        "only they or a supervisor may do that"
                    )
                    return Refusal(rq=request.rq, code="not-allowed", text=text)
        killed = [self._work.stop(attempt, KILLED, "it was killed at its slave") for attempt in wanted]
        return Done(rq=request.rq, count=sum(killed))

    def _limit(self, limits: SlaveLimits) -> bool:
        if limits == self.state.limits:
            return False
        self.state.limits = limits
        self._work.save.append(LimitsSet(limits))
        return True

    def _auto_enable(self) -> None:
        limits = self.state.limits
        if not limits.enabled:
            self._limit(
                SlaveLimits(
                    enabled=True,
                    max_cpus=limits.max_cpus,
                    max_load=limits.max_load,
                    pools=limits.pools,
                    autoenable=limits.autoenable,
                )
            )

    def _leave(self) -> None:
        self.state.leaving = True
        self._work.stop_all("shutdown", "this slave was shut down")
