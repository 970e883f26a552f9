"""The slave's daemon around the real core: its engine, journal, performer, link and supervisor, without IO.

It imitates `drqueue.slave`'s shells: records are kept before effects happen; while the disk is full only
signals go through; messages go out in one write per batch, and only on the link they were meant for.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drqueue.outcome import Outcome
from drqueue.proto.handshake import Dialler, HandshakeRejected
from drqueue.proto.link_messages import (
    Beat,
    Grant,
    Held,
    Hello,
    HelloMore,
    LogKept,
    Message,
    Orders,
    Progressed,
    Registered,
    Rejected,
    Report,
)
from drqueue.proto.messages import KillAttempts, Request, SetLimits
from drqueue.proto.model import LogEnds, MachineInfo
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import (
    Alive,
    AllEnded,
    Answer,
    Effect,
    KeepLog,
    Prepare,
    RemoveScratch,
    SayHello,
    Send,
    Start,
    Unlink,
    Verify,
)
from drqueue.slave.core.events import (
    Asked,
    Event,
    Granted,
    Heard,
    LeaveAsked,
    Linked,
    OrdersCame,
    OutputsSeen,
    RegisteredAs,
    Unlinked,
    Verified,
)
from drqueue.slave.core.invariants import check
from drqueue.slave.core.processes import ForgetProcess, SignalTree
from drqueue.slave.core.records import LimitsSet, MasterSeen, Record, from_plain, to_plain
from drqueue.slave.core.restore import known, restore, snapshot
from drqueue.slave.core.state import Phase
from tests.sim import faults
from tests.sim.hosts import TICKS
from tests.sim.supervisors import Supervisor
from tests.sim.wires import End

if TYPE_CHECKING:
    from tests.sim.hosts import Host

HELD_PART = 3  # small, so that Hello comes in parts here, too
NAP_S = 30.0
COMPACT_ABOVE = 120
GRACE_S = 10.0


class Daemon:
    """One life of a slave's daemon."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.farm = host.farm
        self.alive = True
        self.crash_at = ""
        state = restore(
            [from_plain(to_plain(record)) for record in host.spool],  # type: ignore[arg-type]
            boot_id=host.boot_id,
            now=host.boot_clock(),
            limits=host.limits,
            farm=host.seen_farm,
            epoch=host.seen_epoch,
        )
        self._compact(snapshot(state, host.boot_id))
        self.core = Core(state, cores=host.cores, grace_s=GRACE_S, clock_ticks=TICKS)
        self.supervisor = Supervisor(self, known(state))
        self._inbox: list[Event] = []
        self._busy = True  # until the supervisor knows what became of everything
        self._stepping = False
        self._timer = 0
        self._unwritten: list[Record] = []
        self._held_back: deque[Effect] = deque()
        self._link = 0
        self._end: End | None = None
        self._out: list[Message] = []
        self.registered = self._plain = False
        self._backoff_s = 0.2
        self._beat_s, self._silence_s = 10.0, 30.0
        self._beat_at = self._received = 0.0

    def start(self) -> None:
        """Take up what is there; the engine runs once that is known."""
        self.farm.trace("slave starts", self.host.name, len(self.core.state.held))
        self.supervisor.find_keeper()

    def ready(self) -> None:
        """The supervisor knows what became of everything."""
        self._busy = False
        self._wake()
        self._dial()

    def die(self) -> None:
        """kill -9."""
        self.alive = False
        self.farm.trace("slave dies", self.host.name)
        if self._end is not None:
            self._end.close()

    def leave(self) -> None:
        """Told to end, frames and all."""
        self.put(LeaveAsked())

    def kill_job(self, job: int) -> None:
        """A client at the control port kills a job's frames here."""
        self.put(Asked(None, KillAttempts(rq=1, job=job)))

    def set_limits(self, change: SetLimits) -> None:
        """A client at the control port changes limits."""
        self.put(Asked(None, change))

    # -- the engine -----------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Something happened."""
        if self.alive:
            self._inbox.append(event)
            self._wake()

    def _wake(self) -> None:
        if not self._busy and not self._stepping:
            self._stepping = True
            self.host.after(0.0, self._step)

    def woke(self) -> None:
        """The machine slept: the engine looks at the boot clock within one nap."""
        self._arm()

    def _arm(self) -> None:
        wake = self.core.next_wakeup()
        if wake is None:
            return
        self._timer += 1
        timer = self._timer
        nap = max(0.0, wake - self.host.boot_clock()) / self.host.rate
        # A hair late: the division must not make it early.
        self.host.after(min(nap + 1e-6, NAP_S), lambda: self._wake() if timer == self._timer else None)

    def _step(self) -> None:
        self._stepping = False
        if not self.alive or self._busy:
            return
        events, self._inbox = self._inbox, []
        now = self.host.boot_clock()
        outcome = self.core.step(events, now)
        self.farm.steps += 1
        self.farm.trace("slave", self.host.name, events, outcome.save, outcome.do)
        check(self.core.state)
        self.farm.oracle.slave_saved(self.host, outcome.save)
        wake = self.core.next_wakeup()
        assert wake is None or wake > now, "a deadline that passed was not met"
        if outcome.save and self.crash_at == "before commit":
            self.host.kill_daemon()
            return
        slow = self.host.disk_s
        if any(isinstance(record, MasterSeen | LimitsSet) for record in outcome.save):
            slow += 0.01
        if slow and outcome.save:
            self._busy = True
            self.host.after(slow, lambda: self._commit(outcome))
        else:
            self._commit(outcome)

    def _commit(self, outcome: Outcome[Record, Effect]) -> None:
        if not self.alive:
            return
        self._unwritten += outcome.save
        if not self.host.disk_full:
            self._write()
        if outcome.save and self.crash_at == "after commit":
            self.host.kill_daemon()
            return
        self._busy = False
        for effect in outcome.do:
            self._perform(effect)
            if self.crash_at == "mid effects":
                self.host.kill_daemon()
            if self.host.daemon is not self:
                return
        self._flush()
        if self._inbox:
            self._wake()
        self._arm()

    # -- the journal ----------------------------------------------------------------------------------

    def _write(self) -> None:
        host = self.host
        for record in self._unwritten:
            if isinstance(record, MasterSeen):
                host.seen_farm, host.seen_epoch = record.farm, record.epoch
            elif isinstance(record, LimitsSet):
                host.limits = record.limits
            else:
                host.spool.append(record)
        self._unwritten = []
        if len(host.spool) > COMPACT_ABOVE + host.safe:
            self._compact(snapshot(self.core.state, host.boot_id))

    def _compact(self, records: Sequence[Record]) -> None:
        self.host.spool = list(records)
        self.host.safe = len(records)

    def disk_has_room(self) -> None:
        """What waited is written, and then told."""
        if self.alive:
            self._write()
            self._flush()

    # -- the performer --------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if (self._held_back or self._unwritten) and not isinstance(effect, SignalTree | Alive | AllEnded):
            self._held_back.append(effect)
        else:
            self._do(effect)

    def _flush(self) -> None:
        if self._held_back and not self._unwritten:
            held_back, self._held_back = self._held_back, deque()
            for effect in held_back:
                self._do(effect)
        self.supervisor.flush()
        if self._out:
            out, self._out = self._out, []
            if self._end is not None:
                self._end.send(out)

    def _do(self, effect: Effect) -> None:
        rng = self.farm.rng
        match effect:
            case Start(order):
                self.supervisor.launch(order)
            case SignalTree(key, kill):
                self.supervisor.signal_tree(key, kill)
            case ForgetProcess(key):
                self.supervisor.forget(key)
            case Prepare(order):
                self.host.after(rng.uniform(0.01, 1.0), lambda: self.put(OutputsSeen(order.key, {})))
            case Verify(order, _before):
                problem = "" if self.farm.oracle.output_there(order.key) else "missing"
                self.host.after(rng.uniform(0.01, 1.0), lambda: self.put(Verified(order.key, problem)))
            case Send(link, message):
                if link == self._number:
                    self._out.append(message)
            case SayHello(link, held):
                self._say_hello(link, held)
            case KeepLog(link, key):
                if link == self._number:
                    self._out.append(LogKept(key=key, ends=LogEnds(size=3, head=b"log")))
            case Unlink(link, text):
                if link == self._number and self._end is not None:
                    self._drop(text)
            case AllEnded():
                self.supervisor.shutdown()
                self.host.kill_daemon()
                self.farm.after(faults.a_while(self.farm), self.host.start_daemon)
            case Answer() | Alive() | RemoveScratch():
                pass

    # -- the link -------------------------------------------------------------------------------------

    @property
    def _number(self) -> int:
        return self._link if self._end is not None else 0

    def _say_hello(self, link: int, held: tuple[Held, ...]) -> None:
        if link != self._number:
            return
        parts = [held[at : at + HELD_PART] for at in range(0, len(held), HELD_PART)] or [()]
        self._out.append(
            Hello(
                identity=self.host.identity,
                name=self.host.name,
                machine=MachineInfo(hostname=self.host.name, os="linux", boot_id=self.host.boot_id),
                limits=self.core.state.limits,
                cores=self.host.cores,
                memory_mb=4096,
                held=parts[0],
                more=len(parts) > 1,
            )
        )
        for at, part in enumerate(parts[1:], start=2):
            self._out.append(HelloMore(held=part, more=at < len(parts)))

    def _dial(self) -> None:
        if not self.alive or self._end is not None:
            return
        end = self.farm.connect(self.host)
        if end is None:
            self._dial_later(0.0)
            return
        dialler = Dialler("slave", "sim", self.host.name)

        def closed() -> None:
            if self.alive and self._end is None:
                self._dial_later(0.0)

        def answered(message: Message) -> None:
            if not self.alive:
                return
            try:
                welcome = dialler.answered(message)
            except HandshakeRejected as no:
                end.close()
                self._dial_later(0.0 if no.retry else 60.0)
                return
            end.established()
            self._link += 1
            self._end = end
            self._out.clear()
            end.on_message = self._heard
            end.on_read = self._read
            end.on_closed = lambda: self._lost(end)
            self._beat_s, self._silence_s = 10.0, 30.0
            self._received = self.host.mono()
            self._beat_at = self._received + self._beat_s
            self.host.heard, self.host.granted_s = self.host.boot_clock(), 0.0
            self.put(Linked(self._link, welcome.farm, welcome.epoch, welcome.life))
            self._watch(end)

        end.on_message, end.on_closed = answered, closed
        end.send([dialler.hi])

        def too_long() -> None:
            if self.alive and end.open and self._end is not end:
                end.close()
                closed()

        self.host.after(10.0, too_long)

    def _dial_later(self, pause_s: float) -> None:
        pause = max(pause_s, self._backoff_s) * (0.5 + self.farm.rng.random())
        self._backoff_s = min(2 * self._backoff_s, 10.0)
        self.host.after(pause, self._dial)

    def _heard(self, message: Message) -> None:
        self._received = self.host.mono()
        self.host.heard = self.host.boot_clock()
        match message:
            case Orders():
                self.put(OrdersCame(message))
                return
            case Registered(slave=slave, name=name):
                self._beat_s, self._silence_s = message.beat_s, message.silence_s
                self.registered = True
                self.host.linked_at = self.farm.now
                self._backoff_s = 0.2
                self.put(RegisteredAs(slave, name))
                return
            case Grant(lease_s=lease_s):
                self.host.granted_s = lease_s
                self.put(Granted(lease_s))
                return
            case Rejected(retry=retry):
                self._drop("rejected", 0.0 if retry else 60.0)
                return
            case Beat(echo=True):
                assert self._end is not None
                self._end.send([Beat()])
            case SetLimits() | KillAttempts():
                self.put(Asked(None, message))
            case Request() | Beat():
                pass
            case _:
                raise AssertionError(f"a master does not say {message}")
        self._plain = True

    def _read(self) -> None:
        if self._plain:
            self._plain = False
            self.put(Heard())

    def _watch(self, end: End) -> None:
        if not self.alive or self._end is not end:
            return
        now = self.host.mono()
        if now >= self._received + self._silence_s - 1e-6:
            self._drop("the master was silent")
            return
        if now >= self._beat_at - 1e-6:
            end.send([Beat()])
            self._beat_at = now + self._beat_s
        due = min(self._beat_at, self._received + self._silence_s)
        self.host.after(max(due - now, 0.0) + 1e-6, lambda: self._watch(end))

    def _lost(self, end: End) -> None:
        if self.alive and self._end is end:
            self._drop("the link is gone")

    def _drop(self, why: str, pause_s: float = 0.0) -> None:
        end, self._end = self._end, None
        assert end is not None
        end.close()
        self.registered = False
        self.farm.trace("slave unlinks", self.host.name, why)
        self.put(Unlinked(self._link))
        self._dial_later(pause_s)

    def tell_progress(self) -> None:
        """How far frames are: news that need no spool."""
        running = [a.key for a in self.core.state.held.values() if a.phase is Phase.RUNNING]
        if self.registered and self._end is not None and running:
            self._end.send([Report(progressed=tuple(Progressed(key, 0.5) for key in running))])
