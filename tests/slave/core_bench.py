"""A slave's core on the bench: hand it events, look at what it wants kept and done.

After every step the invariants are checked, and that a daemon which is killed right then would come back
with the same state from what was saved.
"""

from typing import TypeVar

from drqueue.outcome import Outcome
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Message, Orders, Report, Started, Stop
from drqueue.proto.model import RunOrder, SlaveLimits
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import Effect, Send
from drqueue.slave.core.events import Event, Linked, OrdersCame, RegisteredAs
from drqueue.slave.core.invariants import check
from drqueue.slave.core.orders import RECORDED_AFTER_S
from drqueue.slave.core.processes import ProcessEnded, ProcessStarted
from drqueue.slave.core.records import (
    Boot,
    FarmLeft,
    LimitsSet,
    MasterHeard,
    MasterSeen,
    Record,
    SpoolRecord,
    from_plain,
    to_plain,
)
from drqueue.slave.core.restore import restore, snapshot
from drqueue.slave.core.state import State

EffectT = TypeVar("EffectT", bound=Effect)
MessageT = TypeVar("MessageT", bound=Message)
BOOT = "boot-1"


def key(frame: int = 0, attempt: int = 1, job: int = 1) -> AttemptKey:
    """An attempt's key."""
    return AttemptKey(job, 0, frame, attempt)


def an_order(frame: int = 0, **fields: object) -> RunOrder:
    """An order for one frame of job 1."""
    return RunOrder(**{"key": key(frame), "start": frame, "argv": ("render",), **fields})  # type: ignore[arg-type]


def started(frame: int = 0, birth: int = 0) -> ProcessStarted:
    """The frame's process runs."""
    return ProcessStarted(key(frame), 100 + frame, birth, 5000.0)


def ended(
    frame: int = 0, code: int | None = 0, signal: int | None = None, reason: str = "", log_bytes: int = 0
) -> ProcessEnded:
    """The frame's process ended."""
    return ProcessEnded(key(frame), code, signal, 1.5, 2 << 20, 5000.0, 5002.0, log_bytes, reason)


def orders(
    *run: RunOrder, stop: tuple[Stop, ...] = (), noted: tuple[AttemptKey, ...] = (), epoch: int = 1
) -> OrdersCame:
    """Orders of the master."""
    return OrdersCame(Orders(epoch=epoch, run=run, stop=stop, noted=noted))


class Bench:
    """A core, its clock and its spool."""

    def __init__(self, cores: int = 4, state: State | None = None) -> None:
        self.state = state or State(SlaveLimits())
        self.core = Core(self.state, cores=cores, grace_s=10.0, clock_ticks=100)
        self.now = 1000.0
        self.kept: list[SpoolRecord] = [Boot(BOOT)]
        self.out: Outcome[Record, Effect] = Outcome([], [])
        self._links = 0

    def step(self, *events: Event, after_s: float = 0.0) -> Outcome[Record, Effect]:
        """Let time pass, then hand events in."""
        self.now += after_s
        self.out = self.core.step(events, self.now)
        for record in self.out.save:
            if isinstance(record, FarmLeft):
                self.kept = [Boot(BOOT)]
            elif not isinstance(record, MasterSeen | LimitsSet):
                self.kept.append(from_plain(to_plain(record)))
        self.check()
        return self.out

    def check(self) -> None:
        """Invariants, and what a restart would find."""
        check(self.state)
        again = self.restored(BOOT)
        assert _attempts(snapshot(again, BOOT)) == _attempts(snapshot(self.state, BOOT))
        Core(again, cores=4).step([], self.now)
        check(again)
        wake = self.core.next_wakeup()
        assert wake is None or wake > self.now, f"wants to be woken at {wake}, now is {self.now}"

    def restored(self, boot: str) -> State:
        """What a daemon started now would know."""
        return restore(
            self.kept,
            boot_id=boot,
            now=self.now,
            limits=self.state.limits,
            farm=self.state.farm,
            epoch=self.state.epoch,
            life=self.state.life,
        )

    def link(self, farm: str = "farm", epoch: int = 1, life: str = "") -> Outcome[Record, Effect]:
        """A new link, up to Hello."""
        self._links += 1
        return self.step(Linked(self._links, farm, epoch, life))

    def register(self, farm: str = "farm", epoch: int = 1) -> Outcome[Record, Effect]:
        """A new link on which the slave is registered."""
        self.link(farm, epoch)
        return self.step(RegisteredAs(3, "s"))

    def runs(self, *run: RunOrder) -> None:
        """Orders that were accepted and whose processes run."""
        self.step(orders(*run))
        now = self.now
        self.step(*[ProcessStarted(order.key, 100, 0, 5000.0) for order in run])
        self.step(after_s=RECORDED_AFTER_S)
        self.now = now

    def steps(self, *events: Event) -> None:
        """One step for each event."""
        for event in events:
            self.step(event)

    def done(self, kind: type[EffectT]) -> list[EffectT]:
        """The effects of one kind in the last step."""
        return [effect for effect in self.out.do if isinstance(effect, kind)]

    def sent(self, kind: type[MessageT]) -> list[MessageT]:
        """The messages of one kind sent in the last step."""
        return [effect.message for effect in self.done(Send) if isinstance(effect.message, kind)]

    def exits(self) -> list[Exited]:
        """The exits reported in the last step."""
        return [item for report in self.sent(Report) for item in report.exited]

    def starts(self) -> list[Started]:
        """The starts reported in the last step."""
        return [item for report in self.sent(Report) for item in report.started]


def _attempts(records: list[SpoolRecord]) -> list[SpoolRecord]:
    return [record for record in records if not isinstance(record, MasterHeard)]
