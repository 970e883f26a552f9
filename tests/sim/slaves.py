"""The slave's daemon around the real core: its engine, journal, performer, link and supervisor, without IO.

It imitates `drqueue.slave`'s shells: records are kept before effects happen; while the disk is full only
signals go through; messages go out in one write per batch, and only on the link they were meant for.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drqueue.outcome import Outcome
from drqueue.proto.link_messages import (
    LogKept,
    Progressed,
    Report,
)
from drqueue.proto.messages import KillAttempts, SetLimits
from drqueue.proto.model import LogEnds
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
    LeaveAsked,
    OutputsSeen,
    Verified,
)
from drqueue.slave.core.invariants import check
from drqueue.slave.core.processes import ForgetProcess, SignalTree
from drqueue.slave.core.records import LimitsSet, MasterSeen, Record, from_plain, to_plain
from drqueue.slave.core.restore import known, restore, snapshot
from drqueue.slave.core.state import Phase
from tests.sim.keepers import TICKS
from tests.sim.links import SlaveLink
from tests.sim.moments import a_while
from tests.sim.supervisors import Supervisor

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
        folder = host.folder
        state = restore(
            [from_plain(to_plain(record)) for record in folder.spool],  # type: ignore[arg-type]
            boot_id=host.boot_id,
            now=host.boot_clock(),
            limits=folder.limits,
            farm=folder.farm,
            epoch=folder.epoch,
            life=folder.life,
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
        self.link = SlaveLink(self)

    def start(self) -> None:
        """Take up what is there; the engine runs once that is known."""
        self.farm.trace("slave starts", self.host.name, len(self.core.state.held))
        self.supervisor.find_keeper()

    def ready(self) -> None:
        """The supervisor knows what became of everything."""
        self._busy = False
        self._wake()
        self.link.dial()

    def die(self) -> None:
        """kill -9."""
        self.alive = False
        self.farm.trace("slave dies", self.host.name)
        self.link.die()

    def leave(self) -> None:
        """Told to end, frames and all."""
        self.put(LeaveAsked())

    def kill_job(self, job: int) -> None:
        """A client at the control port kills a job's frames here."""
        self.put(Asked(None, KillAttempts(rq=1, job=job)))

    def set_limits(self, change: SetLimits) -> None:
        """A client at the control port changes limits."""
        self.put(Asked(None, change))

    def tell_progress(self) -> None:
        """How far frames are: news that need no spool."""
        running = [a.key for a in self.core.state.held.values() if a.phase is Phase.RUNNING]
        if running:
            self.link.tell(Report(progressed=tuple(Progressed(key, 0.5) for key in running)))

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
        self._forget_ends()
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
        folder = self.host.folder
        for record in self._unwritten:
            if isinstance(record, MasterSeen):
                self.farm.oracle.master_seen(self.host, record)
                folder.farm, folder.epoch, folder.life = record.farm, record.epoch, record.life
            elif isinstance(record, LimitsSet):
                folder.limits = record.limits
            else:
                folder.spool.append(record)
        self._unwritten = []
        if len(folder.spool) > COMPACT_ABOVE + folder.safe:
            self._compact(snapshot(self.core.state, self.host.boot_id))

    def _forget_ends(self) -> None:
        """What a keeper left goes once all that it says is in the spool."""
        ended, held = self.host.folder.ended, self.core.state.held
        safe = all(key not in held or held[key].phase is Phase.ENDED for key in ended)
        if safe and not self._unwritten:
            ended.clear()

    def _compact(self, records: Sequence[Record]) -> None:
        self.host.folder.spool = list(records)
        self.host.folder.safe = len(records)

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
        self.link.flush()

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
                problem = "" if self.farm.oracle.output_there(self.host, order.key) else "missing"
                self.host.after(rng.uniform(0.01, 1.0), lambda: self.put(Verified(order.key, problem)))
            case Send(link, message):
                self.link.put(link, message)
            case SayHello(link, held):
                self.link.say_hello(link, held)
            case KeepLog(link, key):
                self.link.put(link, LogKept(key=key, ends=LogEnds(size=3, head=b"log")))
            case Unlink(link, text):
                self.link.unlink(link, text)
            case AllEnded():
                self.supervisor.shutdown()
                self.host.kill_daemon()
                self.farm.after(a_while(self.farm), self.host.start_daemon)
            case Answer() | Alive() | RemoveScratch():
                pass
