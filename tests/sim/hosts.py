"""Imaginary machines: what outlives a slave's daemon. Disk, keeper, processes, clocks, network.

A machine may sleep (its timers stand still, its boot clock goes on), lose its keeper, or be started anew:
then all processes are gone, the boot id is another, and the spool's tail may be missing.
"""

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave.core.processes import LaunchFailed, ProcessEnded
from tests.sim.folders import Folder
from tests.sim.keepers import PIPE_S, TICKS, Keeper, Process
from tests.sim.wires import Way

if TYPE_CHECKING:
    from tests.sim.books import Book
    from tests.sim.farm import Farm
    from tests.sim.slaves import Daemon

#: Sums of times are not exact.
A_TICK_S = 1e-7

__all__ = ["PIPE_S", "TICKS", "Host", "Keeper", "Process"]


class Host:
    """One machine with one slave on it."""

    def __init__(self, farm: "Farm", number: int) -> None:
        self.farm = farm
        self.name = f"s{number}"
        self.cores = farm.rng.choice((1, 2, 3, 4))
        # Within what a lease allows for: a clock that is off by up to 1 in 200.
        self.rate = farm.rng.uniform(0.995, 1.005)
        self.boot = 0
        self._booted = farm.now - farm.rng.uniform(10.0, 1000.0)
        self.asleep = False
        self.slept_s = 0.0
        self._asleep_since = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._pids = count(100)
        self.folder = Folder(f"id-{number}", f"machine-{number}")
        self.disk_full = False
        self.disk_s = 0.0
        # Running.
        self.keeper: Keeper | None = None
        self.processes: dict[AttemptKey, Process] = {}
        self.daemon: Daemon | None = None
        self.network = True
        self.gone = False
        self.up = Way(farm, lambda what: what())
        self.down = Way(farm, self.when_awake)
        self.wall_jump = 0.0
        #: Which of several masters it dials.
        self.dials = 0
        #: The book of the master that ordered each attempt.
        self.ordered_by: dict[AttemptKey, Book] = {}
        #: The book of the master that noted how it ended.
        self.noted_by: dict[AttemptKey, Book] = {}
        #: The book of the master that it took on last.
        self.obeys: Book | None = None
        # For the oracles: when, by its own clock, a master was last heard, and what that one granted.
        self.heard = self.boot_clock()
        self.granted_s = 0.0
        #: When it said Hello after a grant, until the answer: that master may know of no grant. 0: not so.
        self.hello_at = 0.0
        self.up_since = self.woke_at = 0.0
        #: Since when frames can be killed again, after a keeper that hung.
        self.keeper_well_at = 0.0
        #: How long it sleeps from the moment when an order is on its way to it; 0: not at all.
        self.sleeps_at_order = 0.0
        self.linked_at = 0.0

    @property
    def boot_id(self) -> str:
        """Another one after each start."""
        return f"{self.name}-boot-{self.boot}"

    def can_act(self) -> bool:
        """A daemon runs on it, and it is awake."""
        return self.daemon is not None and not self.asleep

    def is_well(self) -> bool:
        """It is linked, and nothing stands between the master's word and its processes."""
        farm, wire = self.farm, self.farm.wires.get(self.name)
        slow = farm.slow_disk or farm.slow_wires or self.disk_full or self.disk_s or self.is_disturbed()
        linked = self.daemon is not None and self.daemon.link.registered and wire is not None and wire.whole
        return linked and not slow and not self.asleep

    def is_disturbed(self) -> bool:
        """Something is wrong with its network or its keeper."""
        hung = self.keeper is not None and self.keeper.hung_at is not None
        return hung or self.up.is_disturbed() or self.down.is_disturbed()

    def boot_clock(self) -> float:
        """Seconds since boot by its own oscillator, sleep included."""
        return (self.farm.now - self._booted) * self.rate

    def wall(self) -> float:
        """Its wall clock, which somebody may have set."""
        return self.farm.true_wall() + self.wall_jump

    def lease_ends(self, lease_s: float) -> float:
        """When such a lease ends by what this machine heard, on its boot clock."""
        ends = self.heard + max(lease_s, self.granted_s)
        return min(ends, self.hello_at + lease_s) if self.hello_at else ends

    def hears(self, at: float, granted_s: float | None = None) -> None:
        """A word of a master's, which may grant longer leases."""
        self.heard = max(self.heard, at)
        if granted_s is not None:
            self.granted_s = granted_s

    def mono(self) -> float:
        """A clock that stands still while it sleeps."""
        now = self._asleep_since if self.asleep else self.farm.now
        return now - self.slept_s

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in so many seconds of this boot, sleep not counted."""
        boot, at = self.boot, self.mono() + seconds

        def due() -> None:
            if self.boot != boot:
                return
            if (left := at - self.mono()) <= A_TICK_S:
                self.when_awake(what)
            elif self.asleep:
                self._waiting.append(due)
            else:
                self.farm.after(left, due)

        self.farm.after(seconds, due)

    def when_awake(self, what: Callable[[], None]) -> None:
        """Call `what` now, or when it wakes."""
        if self.asleep:
            self._waiting.append(what)
        else:
            what()

    def sleep(self) -> None:
        """Everything on it stands still."""
        if not self.asleep:
            self.asleep, self._asleep_since = True, self.farm.now

    def fall_asleep(self, seconds: float) -> None:
        """For so long."""
        if not self.gone:
            self.farm.inject("sleep", self.name)
            self.sleep()
            self.farm.after(seconds, self.wake)

    def wake(self) -> None:
        """What was due meanwhile happens now, in order."""
        if not self.asleep:
            return
        self.asleep = False
        self.slept_s += self.farm.now - self._asleep_since
        self.up_since = self.woke_at = self.boot_clock()
        waiting, self._waiting = self._waiting, []
        for what in waiting:
            self.when_awake(what)

    # -- processes ------------------------------------------------------------------------------------

    def spawn(self, order: RunOrder) -> Process:
        """Start a command."""
        process = Process(self, order, next(self._pids))
        self.processes[process.key] = process
        self.farm.oracle.started(process)
        if process.will.seconds is not None:
            self.after(process.will.seconds, lambda: self._end(process, process.will.code, None))
        return process

    def signal(self, process: Process, *, kill: bool) -> None:
        """TERM or KILL: some mind neither the one nor, for a while, the other."""
        rng = self.farm.rng
        if not process.alive:
            return
        if kill:
            hangs = rng.uniform(1.0, 8.0) if rng.random() < 0.05 else 0.05
            if not process.killing:
                process.killing = True
                self.after(hangs, lambda: self._end(process, None, 9))
        elif not process.stubborn:
            code, signal = (0, None) if process.polite else (None, 15)
            self.after(rng.uniform(0.01, 3.0), lambda: self._end(process, code, signal))

    def _end(self, process: Process, code: int | None, signal: int | None) -> None:
        if not process.alive:
            return
        process.ended, process.code, process.signal = self.farm.now, code, signal
        self.processes.pop(process.key, None)
        self.farm.trace("ended", self.name, process.key, code, signal)
        if self.keeper is not None and self.keeper.alive and process.key in self.keeper.told:
            self.keeper.ended(process)
        elif self.daemon is not None:
            self.daemon.supervisor.orphan_ended(process)

    def lose_keeper(self, daemon: "Daemon | None" = None) -> None:
        """The keeper is killed: its frames go on, but how they end nobody can tell. `daemon` waits for it."""
        keeper = self.keeper
        if keeper is not None and keeper.alive:
            keeper.alive = False
            self.keeper = None
            self.keeper_well_at = self.boot_clock()
            daemon = daemon or keeper.daemon
            if daemon is not None:
                told = daemon
                self.after(PIPE_S, lambda: told.supervisor.lose(keeper))

    def keep_end(self, event: ProcessEnded | LaunchFailed) -> None:
        """The keeper writes down how a frame ended while no daemon is there to hear it."""
        if not self.disk_full:
            self.folder.ended[event.key] = event

    def start_keeper(self) -> Keeper:
        """A fresh one."""
        self.keeper = Keeper(self)
        return self.keeper

    # -- the daemon, and the machine itself -----------------------------------------------------------

    def start_daemon(self) -> None:
        """Start the slave's daemon, if it is not there and the machine is on."""
        from tests.sim.slaves import Daemon

        if self.daemon is None and not self.gone:
            self.up_since = self.boot_clock()
            self.daemon = Daemon(self)
            self.daemon.start()

    def kill_daemon(self) -> None:
        """kill -9 of the daemon alone."""
        if self.daemon is not None:
            daemon, self.daemon = self.daemon, None
            daemon.die()
            if self.keeper is not None and self.keeper.daemon is daemon:
                self.keeper.left_alone()

    def power_off(self) -> None:
        """All that runs is gone, and what the disk was not told to write for good may be."""
        self.asleep, self._waiting = False, []
        if self.daemon is not None:
            daemon, self.daemon = self.daemon, None
            daemon.die()
        self.boot += 1
        self.keeper_well_at = 0.0
        for process in self.processes.values():
            process.ended = self.farm.now
            self.farm.trace("powered off", self.name, process.key)
        self.processes.clear()
        self.keeper = None
        self.folder.lose_tail(self.farm.rng)
        self.folder.ended.clear()
        self._booted = self.farm.now

    def power_on(self) -> None:
        """Booted, with the daemon."""
        self._booted = self.farm.now - self.farm.rng.uniform(1.0, 20.0)
        self.heard = 0.0
        self.start_daemon()
