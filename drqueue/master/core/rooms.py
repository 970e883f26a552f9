"""Where there is room: open slaves by what they have free, so that the tightest fit is found at once.

Rules of this file:
1. Best fit: of slaves that can take a frame, the one with the fewest free GPUs, then the fewest free cores,
   then the least free memory, then the lowest id. Big holes stay for big frames, and runs replay.
2. Slaves alike in pools, os and tags stand in one group, sorted so. A lookup and a change cost the same
   however many slaves there are, but for the moving of a few kB.
3. A slave's place is brought up to date before the next lookup: `grew` only notes it, since much of what
   runs on one slave may end at once.
4. A place says of cores, memory and the number of GPUs what `lacks` would. Where a frame asks for more than
   that, each slave that is met is judged.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from drqueue.master.core.amounts import Ask
from drqueue.master.core.demand import Demand, lacks

if TYPE_CHECKING:
    from drqueue.master.core.slave import Slave

#: Slaves that are looked at one by one rather than looked up.
_FEW: Final = 8
#: What asks for no memory may have a slave that has less than it gave away.
_ANY_MEMORY: Final = -(1 << 62)
Traits = tuple[tuple[str, ...], str, tuple[str, ...]]
#: Free GPUs, free cores (thousandths), free memory, id.
Rank = tuple[int, int, int, int]
#: Those with room of the slaves with the same traits.
Group = list[Rank]
Place = tuple[Group, Rank]


class Rooms:
    """All open slaves with a free core."""

    def __init__(self) -> None:
        self._groups: dict[Traits, Group] = {}
        self._stale: dict[int, Slave] = {}
        #: Slaves that may have more room than at the last pass.
        self.grown: dict[int, Slave] = {}

    def shrank(self, slave: "Slave") -> None:
        """It has less room, or none at all."""
        self._move(slave)

    def grew(self, slave: "Slave") -> None:
        """It may have more room, or be another than it was."""
        self._stale[slave.id] = slave
        self.grown[slave.id] = slave

    def gone(self, slave: "Slave") -> None:
        """It is forgotten."""
        self._stale.pop(slave.id, None)
        self.grown.pop(slave.id, None)
        if slave.place is not None:
            group, rank = slave.place
            del group[bisect_left(group, rank)]
            slave.place = None

    def refresh(self) -> None:
        """Bring every place up to date."""
        for slave in self._stale.values():
            self._move(slave)
        self._stale.clear()

    def _move(self, slave: "Slave") -> None:
        place, former = self.place_of(slave), slave.place
        if place != former:
            slave.place = place
            if former is not None:
                group, rank = former
                del group[bisect_left(group, rank)]
            if place is not None:
                insort(*place)

    def place_of(self, slave: "Slave") -> Place | None:
        """Where a slave stands, None where it takes nothing."""
        group = slave.group
        if group is None:
            group = slave.group = self._groups.setdefault(slave.traits, [])
        free = slave.free_cores
        if free <= 0 or not slave.open:
            return None
        gpus = (slave.gpu_bits & ~slave.used_gpus).bit_count()
        return group, (gpus, free, slave.memory_mb - slave.used_memory_mb, slave.id)

    def find(
        self, demand: Demand, ask: Ask, accept: Callable[["Slave"], bool] | None = None
    ) -> "Slave | None":
        """The tightest fit among the slaves that `accept` takes."""
        if self._stale:
            self.refresh()
        able = demand.able
        if len(able) <= _FEW:
            fit = [s for s in able.values() if s.place is not None and lacks(s, ask) is None]
            if accept is not None:
                fit = [s for s in fit if accept(s)]
            return min(fit, key=_rank, default=None)
        groups = demand.groups
        if groups is None:
            groups = demand.groups = _groups_of(able)
        cores, memory = ask.cores, ask.memory_mb or _ANY_MEMORY
        least = (ask.gpus, cores, memory)
        more = ask.gpu_memory_mb or ask.disk_mb or ask.amounts
        found: Slave | None = None
        best: Rank | None = None
        for group in groups:
            if not group:
                continue
            at = bisect_left(group, least)
            while at < len(group):
                rank = group[at]
                if best is not None and rank > best:
                    break
                if rank[1] < cores:
                    at = bisect_left(group, (rank[0], cores, memory), at)
                elif rank[2] < memory:
                    at = bisect_left(group, (rank[0], rank[1], memory), at)
                else:
                    slave = able.get(rank[3])
                    if (
                        slave is not None
                        and not (more and lacks(slave, ask))
                        and (accept is None or accept(slave))
                    ):
                        found, best = slave, rank
                        break
                    at += 1
        return found


def _groups_of(slaves: dict[int, "Slave"]) -> list[Group]:
    """The groups that these stand in, or would."""
    return list({slave.traits: slave.group for slave in slaves.values() if slave.group is not None}.values())


def _rank(slave: "Slave") -> Rank:
    """Who comes first, of slaves that have a place."""
    assert slave.place is not None
    return slave.place[1]
