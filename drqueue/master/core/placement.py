"""Which slave a frame may run on, and which it runs on.

`why_not` is the only judge of fitness: dispatch wants None from it, and `explain` prints what it
says, so the two can never disagree. Every choice ends in a unique key, so that runs replay.
"""

from heapq import heapify, heappop, heappush

from drqueue.master.core.layer import History, Layer
from drqueue.master.core.state import Job, Slave


def why_never(slave: Slave, job: Job, layer: Layer) -> str | None:
    """A code for why this slave could not run the layer even if it were free, or None."""
    needs = layer.spec.needs
    if slave.link is None:
        return "lost" if slave.lost else "unlinked"
    if not slave.limits.enabled:
        return "disabled"
    if job.spec.pool not in slave.limits.pools:
        return "pool"
    if needs.os and slave.machine.os.casefold() not in map(str.casefold, needs.os):
        return "os"
    if job.blocked_slaves and (
        slave.name in job.blocked_slaves or slave.machine.hostname in job.blocked_slaves
    ):
        return "blocked"
    if needs.cores > slave.cores_offered:
        return "cores-never"
    if max(needs.memory_mb, needs.machine_memory_mb) > slave.memory_mb:
        return "memory-never"
    return None


def foreign_cores(slave: Slave) -> int:
    """Cores that are left to whoever else loads the machine: one for each whole `max_load` of its load beyond
    its own frames' share; all of them where `max_load` is 0.
    """
    most = slave.limits.max_load
    if most is None:
        return 0
    if most == 0:
        return slave.cores_offered
    return min(slave.cores_offered, int(max(0.0, slave.load.load1 - slave.own_load) / most))


def why_not(slave: Slave, job: Job, layer: Layer) -> str | None:
    """A code for why this slave cannot take a frame of the layer now, or None: it can."""
    never = why_never(slave, job, layer)
    if never is not None:
        return never
    needs = layer.spec.needs
    if slave.used_cores + needs.cores > slave.cores_offered:
        return "cores"
    if needs.memory_mb and slave.used_memory_mb + needs.memory_mb > slave.memory_mb:
        return "memory"
    if slave.used_cores + needs.cores > slave.cores_offered - foreign_cores(slave):
        return "load"
    per_slave = job.spec.max_per_slave
    if per_slave and job.on_slave.get(slave.id, 0) >= per_slave:
        return "max-per-slave"
    return None


def _rank(slave: Slave) -> tuple[float, int]:
    """The emptiest slave first, so that a farm is used evenly."""
    return (slave.used_cores / max(1, slave.cores_offered), slave.id)


class Candidates:
    """Slaves that can take frames of one layer, best first, within one scheduling pass.

    Only placements happen during a pass, so a slave that does not fit once never fits again in it.
    """

    def __init__(self, slaves: list[Slave], job: Job, layer: Layer) -> None:
        self._job = job
        self._layer = layer
        self._heap = [(_rank(s), s.id, s) for s in slaves if why_not(s, job, layer) is None]
        heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def take(self, past: History | None) -> Slave | None:
        """The best slave for a frame with this history; one that it failed on only if `take_any`."""
        avoid = past.avoid if past is not None else ()
        aside: list[tuple[tuple[float, int], int, Slave]] = []
        found: Slave | None = None
        while self._heap:
            rank, key, slave = heappop(self._heap)
            if why_not(slave, self._job, self._layer) is not None:
                continue
            now = _rank(slave)
            if now != rank:
                heappush(self._heap, (now, key, slave))
                continue
            if slave.id in avoid:
                aside.append((rank, key, slave))
                continue
            found = slave
            aside.append((rank, key, slave))
            break
        for item in aside:
            heappush(self._heap, item)
        return found

    def take_any(self) -> Slave | None:
        """The best slave, also one that the frame failed on."""
        return self.take(None)
