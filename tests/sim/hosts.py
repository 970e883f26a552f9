"""Imaginary machines: what outlives a slave's daemon. Disk, keeper, processes, the clock since boot.

A machine may sleep (what is due meanwhile happens when it wakes; its boot clock goes on), lose its keeper, or
be started anew: then all processes are gone, the boot id is another, and the spool's tail may be missing.
"""

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder, SlaveLimits
from drqueue.slave.core.processes import LaunchFailed, ProcessEnded, ProcessEvent, ProcessStarted
from drqueue.slave.core.records import Record

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.slaves import Daemon

#: Between daemon and keeper, each way.
PIPE_S = 0.002
KEEPER_LINGERS_S = 60.0
TICKS = 100


class Process:
    """A frame's process tree: how it will end, and how it did."""

    def __init__(self, host: "Host", order: RunOrder, pid: int) -> None:
        rng = host.farm.rng
        self.host = host
        self.key = order.key
        self.order = order
        self.pid = pid
        self.boot = host.boot
        self.birth = int(host.boot_clock() * TICKS)
        self.started = host.farm.now
        self.started_wall = host.farm.wall()
        self.ended: float | None = None
        self.code: int | None = None
        self.signal: int | None = None
        self.will = host.farm.fate(order)
        self.stubborn = rng.random() < 0.2
        self.polite = rng.random() < 0.1
        self.killing = False

    @property
    def alive(self) -> bool:
        """It runs."""
        return self.ended is None


class Keeper:
    """The parent of all frames of one host: remembers how each ended until that is forgotten."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.alive = True
        self.told: dict[AttemptKey, ProcessEvent] = {}
        self.daemon: Daemon | None = None
        self.idle_since = host.farm.now

    def attach(self, daemon: "Daemon") -> None:
        """A daemon comes: it is told all that is held, then that this was all."""
        self.daemon = daemon
        for event in self.told.values():
            self._tell(event)
        self._tell(None)

    def hear(self, daemon: "Daemon", word: tuple[str, AttemptKey, RunOrder | bool | None]) -> None:
        """An order of the daemon that is attached; another one's goes unheard."""
        if not self.alive or daemon is not self.daemon:
            return
        what, key, rest = word
        if what == "launch":
            assert isinstance(rest, RunOrder)
            self._launch(rest)
        elif what == "signal":
            process = self.host.processes.get(key)
            if process is not None:
                self.host.signal(process, kill=bool(rest))
        elif not isinstance(self.told.get(key), ProcessStarted):
            self.told.pop(key, None)

    def _launch(self, order: RunOrder) -> None:
        known = self.told.get(order.key)
        if known is None:
            if self.host.farm.rng.random() < 0.02:
                known = LaunchFailed(order.key, "no-cwd", "the working directory does not exist")
            else:
                process = self.host.spawn(order)
                known = ProcessStarted(order.key, process.pid, process.birth, process.started_wall)
            self.told[order.key] = known
        self._tell(known)

    def ended(self, process: Process) -> None:
        """A process it is the parent of is gone."""
        event = ProcessEnded(
            process.key,
            process.code,
            process.signal,
            cpu_s=1.0,
            peak_bytes=1 << 20,
            started_at=process.started_wall,
            ended_at=self.host.farm.wall(),
            log_bytes=10,
            reason="",
        )
        self.told[process.key] = event
        self.idle_since = self.host.farm.now
        self._tell(event)

    def left_alone(self) -> None:
        """Without frames and daemon it ends after a while, results or not."""
        self.daemon = None
        self.idle_since = self.host.farm.now
        self.host.after(KEEPER_LINGERS_S, self._linger)

    def _linger(self) -> None:
        idle = self.daemon is None and not self.host.processes
        if self.alive and idle and self.host.farm.now >= self.idle_since + KEEPER_LINGERS_S:
            self.alive = False

    def _tell(self, event: ProcessEvent | None) -> None:
        daemon = self.daemon
        if daemon is not None:
            self.host.after(PIPE_S, lambda: daemon.supervisor.hear(self, event))


class Host:
    """One machine with one slave on it."""

    def __init__(self, farm: "Farm", number: int) -> None:
        self.farm = farm
        self.name = f"s{number}"
        self.identity = f"id-{number}"
        self.cores = farm.rng.choice((1, 2, 3))
        # Within what a lease allows for: a clock that is off by up to 1 in 200.
        self.rate = farm.rng.uniform(0.995, 1.005)
        self.boot = 0
        self._booted = farm.now - farm.rng.uniform(10.0, 1000.0)
        self.asleep = False
        self.slept_s = 0.0
        self._asleep_since = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._pids = count(100)
        # On disk.
        self.spool: list[Record] = []
        self.safe = 0
        self.limits = SlaveLimits()
        self.seen_farm = ""
        self.seen_epoch = 0
        self.disk_full = False
        self.disk_s = 0.0
        # Running.
        self.keeper: Keeper | None = None
        self.processes: dict[AttemptKey, Process] = {}
        self.daemon: Daemon | None = None
        self.network = True
        self.gone = False
        # For the oracles: when, by its own clock, a master was last heard, and what that one granted.
        self.heard = self.boot_clock()
        self.granted_s = 0.0
        self.up_since = self.woke_at = 0.0
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
        slow = farm.slow_disk or farm.slow_wires or self.disk_full or self.disk_s
        linked = self.daemon is not None and self.daemon.registered and wire is not None and wire.whole
        return linked and not slow and not self.asleep

    def boot_clock(self) -> float:
        """Seconds since boot by its own oscillator, sleep included."""
        return (self.farm.now - self._booted) * self.rate

    def mono(self) -> float:
        """A clock that stands still while it sleeps."""
        now = self._asleep_since if self.asleep else self.farm.now
        return now - self.slept_s

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in so many seconds of this boot, or when it wakes."""
        boot = self.boot

        def due() -> None:
            if self.boot == boot:
                self.when_awake(what)

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
        if self.daemon is not None:
            self.daemon.woke()

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

    def lose_keeper(self) -> None:
        """The keeper is killed: its frames go on, but how they end nobody can tell."""
        keeper = self.keeper
        if keeper is not None and keeper.alive:
            keeper.alive = False
            self.keeper = None
            if keeper.daemon is not None:
                daemon = keeper.daemon
                self.after(PIPE_S, lambda: daemon.supervisor.lose(keeper))

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
        for process in self.processes.values():
            process.ended = self.farm.now
            self.farm.trace("powered off", self.name, process.key)
        self.processes.clear()
        self.keeper = None
        unsafe = len(self.spool) - self.safe
        if unsafe > 0:
            del self.spool[self.safe + self.farm.rng.randint(0, unsafe) :]
        self._booted = self.farm.now

    def power_on(self) -> None:
        """Booted, with the daemon."""
        self._booted = self.farm.now - self.farm.rng.uniform(1.0, 20.0)
        self.heard = 0.0
        self.start_daemon()
