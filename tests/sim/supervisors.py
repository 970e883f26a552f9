"""The supervisor of a simulated slave's daemon: what the keeper holds, what nobody holds any more."""

from typing import TYPE_CHECKING

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave.core.processes import KEEPER_DIED, ProcessEnded, ProcessEvent, ProcessStarted
from tests.sim.keepers import PIPE_S, Keeper, Process

if TYPE_CHECKING:
    from tests.sim.slaves import Daemon

#: How long a keeper may owe its greeting, and a word while frames are its.
GREETING_S = 15.0
PATIENCE_S = 70.0


class Supervisor:
    """Which attempts the keeper holds, which are orphans, which are still being looked for."""

    def __init__(self, daemon: "Daemon", lost: dict[AttemptKey, tuple[int, int] | None]) -> None:
        self._daemon = daemon
        self._host = daemon.host
        self._keeper: Keeper | None = None
        self._held: dict[AttemptKey, tuple[int, int] | None] = {}
        self._lost = lost
        self._late: dict[AttemptKey, bool] = {}
        self._orphans: dict[AttemptKey, Process] = {}
        self._out: list[tuple[str, AttemptKey, RunOrder | bool | None]] = []
        self._ready = False

    def find_keeper(self) -> None:
        """Attach to a living keeper; without one, look after what it left."""
        keeper = self._host.keeper
        if keeper is not None and keeper.alive:
            self._attach(keeper)
            return
        self._adopt_lost()
        self._be_ready()

    def _attach(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._host.after(PIPE_S, lambda: keeper.attach(self._daemon) if keeper.alive else self.lose(keeper))
        self._host.after(GREETING_S, lambda: self._watch(keeper))
        self.flush()

    def _watch(self, keeper: Keeper) -> None:
        """A keeper that hangs is killed, and its frames are watched without it."""
        if not self._daemon.alive or keeper is not self._keeper or not keeper.alive:
            return
        hung_at = keeper.hung_at
        if hung_at is not None and (not self._ready or self._held):
            patience = PATIENCE_S if self._ready else GREETING_S
            if self._host.mono() - hung_at >= patience:
                self._host.lose_keeper(self._daemon)
                return
        self._host.after(GREETING_S, lambda: self._watch(keeper))

    def _be_ready(self) -> None:
        if not self._ready:
            self._ready = True
            self._daemon.ready()
        self.flush()

    # -- what the core wants --------------------------------------------------------------------------

    def launch(self, order: RunOrder) -> None:
        """Start an attempt."""
        self._held[order.key] = None
        self._out.append(("launch", order.key, order))

    def signal_tree(self, key: AttemptKey, kill: bool) -> None:
        """TERM or KILL, wherever it is."""
        if key in self._orphans:
            self._host.signal(self._orphans[key], kill=kill)
        elif key in self._lost:
            self._late[key] = kill
        elif key in self._held:
            self._out.append(("signal", key, kill))

    def forget(self, key: AttemptKey) -> None:
        """Its end is noted."""
        if self._keeper is not None:
            self._out.append(("forget", key, None))

    def flush(self) -> None:
        """What was asked for goes to the keeper; one is started where there is none."""
        if not self._out or not self._ready:
            return
        if self._keeper is None:
            self._attach(self._host.start_keeper())
            return
        keeper = self._keeper
        words, self._out = self._out, []
        for word in words:
            self._host.after(PIPE_S, lambda word=word: keeper.hear(self._daemon, word))  # type: ignore[misc]

    def shutdown(self) -> None:
        """End all frames and the keeper."""
        for process in [*self._host.processes.values()]:
            self._host.signal(process, kill=True)
        if self._keeper is not None:
            self._keeper.alive = False

    # -- what the keeper says -------------------------------------------------------------------------

    def hear(self, keeper: Keeper, event: ProcessEvent | None) -> None:
        """News of the keeper's; None: that was all it held."""
        if not self._daemon.alive or keeper is not self._keeper or not keeper.alive:
            return
        if event is None:
            self._adopt_lost()
            self._be_ready()
            return
        self._lost.pop(event.key, None)
        if isinstance(event, ProcessStarted):
            self._held[event.key] = (event.pid, event.birth)
            self._daemon.put(event)
            if event.key in self._late:
                self.signal_tree(event.key, self._late.pop(event.key))
                self.flush()
        else:
            self._held.pop(event.key, None)
            self._daemon.put(event)

    def lose(self, keeper: Keeper) -> None:
        """The keeper is gone."""
        if self._daemon.alive and keeper is self._keeper:
            self._keeper = None
            self._out.clear()
            self._lost |= self._held
            self._held = {}
            self.find_keeper()

    def _adopt_lost(self) -> None:
        self._read_ends()
        lost, self._lost = self._lost, {}
        for key, where in lost.items():
            process = self._host.processes.get(key)
            if process is None or (where is not None and where != (process.pid, process.birth)):
                self._gone(key)
                continue
            if where is None:
                self._daemon.put(ProcessStarted(key, process.pid, process.birth, process.started_wall))
            self._orphans[key] = process
            if key in self._late:
                self.signal_tree(key, self._late.pop(key))

    def _read_ends(self) -> None:
        """What a keeper that is gone wrote down, while there was no daemon to tell."""
        ended = self._host.folder.ended
        for key in [key for key in self._lost if key in ended]:
            del self._lost[key]
            self._daemon.put(ended[key])

    def orphan_ended(self, process: Process) -> None:
        """Nobody's child any more ended."""
        if self._orphans.pop(process.key, None) is not None:
            self._gone(process.key)

    def _gone(self, key: AttemptKey) -> None:
        self._late.pop(key, None)
        self._daemon.put(ProcessEnded(key, None, None, 0.0, 0, 0.0, self._host.wall(), 0, KEEPER_DIED))
