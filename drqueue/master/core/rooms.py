"""Where there is room: open slaves by what they have free, so that the tightest fit is found at once.

Rules of this file:
1. Best fit: of slaves that can take a frame, the one with the fewest free GPUs, then the fewest free cores,
   then the least free memory, then the lowest id. Big holes stay for big frames, and runs replay.
2. Slaves alike in pools, os and tags stand in one group; a group holds a sorted list of (free memory, id) for
   each (free GPUs, free cores) that occurs. A lookup and a change cost the same however many slaves there
   are, but for the moving of a few kB.
3. A slave's place is brought up to date before the next lookup: `shrank` and `grew` only note it.
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
Traits = tuple[tuple[str, ...], str, tuple[str, ...]]
#: Free GPUs and free cores (thousandths).
Level = tuple[int, int]
Place = tuple["Group", Level, tuple[int, int]]
Rank = tuple[int, int, int, int]


class Group:
    """Slaves with the same traits that have a free core, by what is free."""

    __slots__ = ("levels", "rooms", "traits")

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.levels: list[Level] = []
        self.rooms: dict[Level, list[tuple[int, int]]] = {}

    def add(self, level: Level, entry: tuple[int, int]) -> None:
        """A slave has so much free."""
        room = self.rooms.get(level)
        if room is None:
            self.rooms[level] = [entry]
            insort(self.levels, level)
        else:
            insort(room, entry)

    def remove(self, level: Level, entry: tuple[int, int]) -> None:
        """It has not any more."""
        room = self.rooms[level]
        del room[bisect_left(room, entry)]
        if not room:
            del self.rooms[level]
            del self.levels[bisect_left(self.levels, level)]


class Rooms:
    """All open slaves with a free core."""

    def __init__(self, slaves: dict[int, "Slave"]) -> None:
        self._slaves = slaves
        self._groups: dict[Traits, Group] = {}
        self._stale: dict[int, Slave] = {}
        #: Slaves that may have more room than at the last pass.
        self.grown: dict[int, Slave] = {}

    def shrank(self, slave: "Slave") -> None:
        """It has less room, or none at all."""
        self._stale[slave.id] = slave

    def grew(self, slave: "Slave") -> None:
        """It may have more room, or be another than it was."""
        self._stale[slave.id] = slave
        self.grown[slave.id] = slave

    def gone(self, slave: "Slave") -> None:
        """It is forgotten."""
        self._stale.pop(slave.id, None)
        self.grown.pop(slave.id, None)
        if slave.place is not None:
            slave.place[0].remove(slave.place[1], slave.place[2])
            slave.place = None

    def refresh(self) -> None:
        """Bring every place up to date."""
        for slave in self._stale.values():
            place = self.place_of(slave)
            if place != slave.place:
                if slave.place is not None:
                    slave.place[0].remove(slave.place[1], slave.place[2])
                slave.place = place
                if place is not None:
                    place[0].add(place[1], place[2])
        self._stale.clear()

    def place_of(self, slave: "Slave") -> Place | None:
        """Where a slave stands, None where it takes nothing."""
        free = slave.free_cores
        if free <= 0 or not slave.open:
            return None
        traits = slave.traits
        group = self._groups.get(traits)
        if group is None:
            group = self._groups[traits] = Group(traits)
        gpus = slave.gpu_bits & ~slave.used_gpus
        return (
            group,
            (gpus.bit_count(), free),
            (slave.memory_mb - slave.used_memory_mb, slave.id),
        )

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
            return min(fit, key=rank, default=None)
        best: Slave | None = None
        best_level: Level | None = None
        cores, least = ask.cores, (ask.gpus, ask.cores)
        for group in self._groups_of(demand):
            levels = group.levels
            if not levels:
                continue
            for at in range(bisect_left(levels, least), len(levels)):
                level = levels[at]
                if level[1] < cores:
                    continue
                if best_level is not None and level > best_level:
                    break
                slave = self._in_room(group.rooms[level], demand, ask, accept)
                if slave is not None:
                    if best is None or level != best_level or rank(slave) < rank(best):
                        best, best_level = slave, level
                    break
        return best

    def _groups_of(self, demand: Demand) -> list[Group]:
        """Groups of slaves that are able to run it."""
        known = demand.groups
        if known is None or known[0] != len(self._groups):
            traits = {slave.traits for slave in demand.able.values()}
            some = [group for key, group in self._groups.items() if key in traits]
            known = demand.groups = (len(self._groups), some)
        return known[1]

    def _in_room(
        self,
        room: list[tuple[int, int]],
        demand: Demand,
        ask: Ask,
        accept: Callable[["Slave"], bool] | None,
    ) -> "Slave | None":
        able, slaves = demand.able, self._slaves
        # What asks for no memory may have a slave that has less than it gave away.
        first = bisect_left(room, (ask.memory_mb, 0)) if ask.memory_mb else 0
        for at in range(first, len(room)):
            number = room[at][1]
            if number in able:
                slave = slaves[number]
                if lacks(slave, ask) is None and (accept is None or accept(slave)):
                    return slave
        return None


def rank(slave: "Slave") -> Rank:
    """Who comes first, of slaves that have a place."""
    assert slave.place is not None
    return *slave.place[1], *slave.place[2]
