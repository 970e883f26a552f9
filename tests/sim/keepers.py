"""Frames' processes on imaginary machines, and their parent, the keeper.

A keeper may be killed, and then nobody can tell how its frames end; or hang: what is asked of it does not
happen and nothing is told, until it goes on or somebody loses patience and kills it.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave.core.processes import LaunchFailed, ProcessEnded, ProcessEvent, ProcessStarted

if TYPE_CHECKING:
    from tests.sim.hosts import Host
    from tests.sim.slaves import Daemon

#: Between daemon and keeper, each way.
PIPE_S = 0.002
KEEPER_LINGERS_S = 60.0
TICKS = 100

Word = tuple[str, AttemptKey, RunOrder | bool | None]


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
        self.started_wall = host.wall()
        self.ended: float | None = None
        self.code: int | None = None
        self.signal: int | None = None
        #: Which master's order it runs, by the book of that one; see `tests.sim.books`.
        self.book = host.ordered_by.get(order.key)
        self.will = host.farm.fate(order)
        self.stubborn = rng.random() < 0.2
        self.polite = rng.random() < 0.1
        self.killing = False

    @property
    def alive(self) -> bool:
        """It runs."""
        return self.ended is None

    @property
    def numbers(self) -> set[int]:
        """The frame numbers that it renders."""
        order = self.order
        return {order.start + order.step * i for i in range(order.count)}


class Keeper:
    """The parent of all frames of one host: remembers how each ended until that is forgotten."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.alive = True
        self.told: dict[AttemptKey, ProcessEvent] = {}
        self.daemon: Daemon | None = None
        self.idle_since = host.farm.now
        #: When it began to hang, None while it does not.
        self.hung_at: float | None = None
        self._undone: deque[Callable[[], None]] = deque()

    def attach(self, daemon: "Daemon") -> None:
        """A daemon comes: it is told all that is held, then that this was all."""
        self._do(lambda: self._attach(daemon))

    def _attach(self, daemon: "Daemon") -> None:
        if not daemon.alive:
            return
        self.daemon = daemon
        for event in self.told.values():
            self._tell(event)
        self._tell(None)

    def hear(self, daemon: "Daemon", word: Word) -> None:
        """An order of the daemon that is attached; another one's goes unheard."""
        self._do(lambda: self._obey(daemon, word))

    def _obey(self, daemon: "Daemon", word: Word) -> None:
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
            ended_at=self.host.wall(),
            log_bytes=10,
            reason="",
        )
        self._do(lambda: self._reap(event))

    def _reap(self, event: ProcessEnded) -> None:
        self.told[event.key] = event
        self.idle_since = self.host.farm.now
        if self.daemon is None:
            self.host.keep_end(event)
            self.host.after(KEEPER_LINGERS_S, self._linger)
        self._tell(event)

    def left_alone(self) -> None:
        """Without frames and daemon it ends after a while, results or not."""
        self.daemon = None
        self.idle_since = self.host.farm.now
        self._do(self._keep_all)
        self.host.after(KEEPER_LINGERS_S, self._linger)

    def _keep_all(self) -> None:
        if self.daemon is None:
            for event in self.told.values():
                if not isinstance(event, ProcessStarted):
                    self.host.keep_end(event)

    def _linger(self) -> None:
        idle = self.daemon is None and not self.host.processes and self.hung_at is None
        if self.alive and idle and self.host.farm.now >= self.idle_since + KEEPER_LINGERS_S:
            self.alive = False

    def _tell(self, event: ProcessEvent | None) -> None:
        daemon = self.daemon
        if daemon is not None:
            self.host.after(PIPE_S, lambda: daemon.supervisor.hear(self, event))

    # -- hanging --------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Stopped, or asleep in the kernel: nothing that it should do happens."""
        if self.alive and self.hung_at is None:
            self.hung_at = self.host.mono()

    def go_on(self) -> None:
        """What waited is done now."""
        if self.hung_at is not None:
            self.host.keeper_well_at = self.host.boot_clock()
        self.hung_at = None
        undone, self._undone = self._undone, deque()
        for what in undone:
            self._do(what)

    def _do(self, what: Callable[[], None]) -> None:
        if self.alive:
            if self.hung_at is None:
                what()
            else:
                self._undone.append(what)
