"""What waits: layers that may have a frame dispatched, in lanes of those that ask the same of the farm.

Rules of this file:
1. A lane holds layers of one pool with the same needs that name the same limits: what holds one of them back
   (no slave has room, a limit is reached) mostly holds all of them back, and the lane is passed over at once.
2. In a lane: priority first, then the pool's policy (`fairness`), then whoever was served longest ago, then
the
   job's number and the layer's place in it. No two layers ever have the same key.
3. Within one scheduling pass keys only grow, for nothing ends in it. So heaps hold keys that may be too
small,
   and the one on top is looked at again before it counts. What is built for a pass bears its number.
4. A lane that was tried in vain rests until a slave that is able to run it has more room, a limit that it
waits
   for gives something back, or a layer enters it.
"""

from bisect import insort
from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import TYPE_CHECKING

from drqueue.master.core.demand import Demand, Demands, lacks
from drqueue.master.core.fairness import Party, Pool, Project, Sharing
from drqueue.master.core.limits import Counter, Limits
from drqueue.master.core.rooms import Rooms

if TYPE_CHECKING:
    from drqueue.master.core.layer import Layer

#: (when the job was last served, job, layer, the layer itself)
Entry = tuple[int, int, int, "Layer"]
Queue = list[Entry]
#: 0 below a guaranteed minimum, -priority, when the pool was last served, the pool, the project's load and
#: name, the user's load and name, when the job was last served, the job, the layer.
Key = tuple[int, int, int, str, float, str, float, str, int, int, int]
LaneKey = tuple[tuple[str, bytes], tuple[tuple[str, int], ...]]


class _User:
    """A user's layers in one level of a lane."""

    __slots__ = ("party", "queue")

    def __init__(self, party: Party) -> None:
        self.party = party
        self.queue: Queue = []


class _Project:
    """A project's users in one level of a lane, and their heap for one pass."""

    __slots__ = ("heap", "party", "stamp", "users")

    def __init__(self, party: Project) -> None:
        self.party = party
        self.users: dict[str, _User] = {}
        self.heap: list[tuple[float, str, _User]] = []
        self.stamp = -1


class _Level:
    """A lane's layers of one priority. `plain`: in the order of their numbers alone (fifo)."""

    __slots__ = ("heap", "plain", "projects", "stamp")

    def __init__(self) -> None:
        self.plain: Queue = []
        self.projects: dict[str, _Project] = {}
        self.heap: list[tuple[bool, float, str, _Project]] = []
        self.stamp = -1


class Clock:
    """The number of a scheduling pass, and its time."""

    __slots__ = ("half_life_s", "now", "number")

    def __init__(self, half_life_s: float) -> None:
        self.number = 0
        self.now = 0.0
        self.half_life_s = half_life_s

    def load(self, party: Party) -> float:
        """A party's load, now."""
        return party.load(self.now, self.half_life_s)


class Lane:
    """Layers with the same demand and limits."""

    __slots__ = ("_aside", "_levels", "_order", "at", "demand", "key", "number", "pool", "top", "waiting")

    def __init__(self, key: LaneKey, number: int, demand: Demand, pool: Pool) -> None:
        self.key = key
        self.number = number
        self.demand = demand
        self.pool = pool
        self.waiting = 0
        #: The layer that is next, and where it stands; set by `head`.
        self.top: Layer | None = None
        self.at: tuple[_Level, _Project | None, Queue] | None = None
        self._levels: dict[int, _Level] = {}
        #: Negated priorities, ascending.
        self._order: list[int] = []
        self._aside: list[Layer] = []

    @property
    def first(self) -> int:
        """The highest priority in it, negated."""
        return self._order[0]

    def add(self, layer: "Layer") -> None:
        """A layer waits from now on; its parties are set."""
        self.waiting += 1
        self._insert(layer)

    def _insert(self, layer: "Layer") -> None:
        below = -layer.job.spec.priority
        level = self._levels.get(below)
        if level is None:
            level = self._levels[below] = _Level()
            insort(self._order, below)
        job = layer.job
        if self.pool.policy == "fifo":
            queue, served = level.plain, 0
        else:
            assert layer.parties is not None
            whose, user = layer.parties
            project = level.projects.get(whose.name)
            if project is None:
                project = level.projects[whose.name] = _Project(whose)
            mine = project.users.get(user.name)
            if mine is None:
                mine = project.users[user.name] = _User(user)
            queue, served = mine.queue, job.served
        if layer.queue is not queue:
            layer.queue = queue
            heappush(queue, (served, job.id, layer.index, layer))

    def head(self, clock: Clock) -> Key | None:
        """The key of the layer that is next in this pass (which is `top` then), None where there is none."""
        best: Key | None = None
        for below in list(self._order):
            level = self._levels[below]
            found = self._of_level(below, level, clock)
            if found is None:
                if not level.plain and not level.projects:
                    del self._levels[below]
                    self._order.remove(below)
                continue
            key, layer, at = found
            if best is None or key < best:
                best, self.top, self.at = key, layer, at
            if not self.pool.guarantees:
                break
        return best

    def _of_level(
        self, below: int, level: _Level, clock: Clock
    ) -> tuple[Key, "Layer", tuple[_Level, _Project | None, Queue]] | None:
        pool = self.pool
        if level.plain:
            entry = _first(level.plain, served=False)
            if entry is not None:
                key: Key = (1, below, pool.turn, pool.name, 0.0, "", 0.0, "", 0, entry[1], entry[2])
                return key, entry[3], (level, None, level.plain)
        heap = level.heap
        if level.stamp != clock.number:
            level.stamp = clock.number
            heap[:] = [
                (not p.party.below, clock.load(p.party), name, p) for name, p in level.projects.items()
            ]
            heapify(heap)
        while heap:
            above, load, name, project = heap[0]
            party = project.party
            now = (not party.below, clock.load(party))
            if now != (above, load):
                heapreplace(heap, (*now, name, project))
                continue
            found = _of_project(project, clock)
            if found is None:
                heappop(heap)
                if not project.users:
                    del level.projects[name]
                continue
            user_load, user, entry = found
            key = (
                *(int(above), below, pool.turn, pool.name, load, name),
                *(user_load, user.party.name, *entry[:3]),
            )
            return key, entry[3], (level, project, user.queue)
        return None

    # -- passing over what `head` found, for the rest of this pass ----------------------------------------

    def pass_layer(self) -> None:
        """The layer on top can go nowhere."""
        assert self.at is not None
        layer = heappop(self.at[2])[3]
        layer.queue = None
        self._aside.append(layer)

    def pass_user(self) -> None:
        """The user of the layer on top is at a limit."""
        assert self.at is not None
        if self.at[1] is None:
            self.pass_layer()
        else:
            heappop(self.at[1].heap)

    def pass_project(self) -> None:
        """The project of the layer on top is at a limit."""
        assert self.at is not None
        if self.at[1] is None:
            self.pass_layer()
        else:
            heappop(self.at[0].heap)

    def end_pass(self) -> None:
        """Layers that were passed over wait again."""
        for layer in self._aside:
            if layer.lane is self and layer.queue is None:
                self._insert(layer)
        self._aside.clear()


def _first(queue: Queue, *, served: bool) -> Entry | None:
    """What really stands on top: layers leave without a trace, and are served meanwhile."""
    while queue:
        entry = queue[0]
        layer = entry[3]
        if layer.queue is not queue or layer.lane is None:
            heappop(queue)
            if layer.queue is queue:
                layer.queue = None
        elif served and entry[0] != layer.job.served:
            heapreplace(queue, (layer.job.served, *entry[1:]))
        else:
            return entry
    return None


def _of_project(project: _Project, clock: Clock) -> tuple[float, _User, Entry] | None:
    heap = project.heap
    if project.stamp != clock.number:
        project.stamp = clock.number
        heap[:] = [(clock.load(u.party), name, u) for name, u in project.users.items()]
        heapify(heap)
    while heap:
        load, name, user = heap[0]
        now = clock.load(user.party)
        if now != load:
            heapreplace(heap, (now, name, user))
            continue
        entry = _first(user.queue, served=True)
        if entry is not None:
            return load, user, entry
        heappop(heap)
        del project.users[name]
    return None


class Lanes:
    """All lanes, and which of them are worth a try."""

    def __init__(self, demands: Demands, sharing: Sharing, limits: Limits) -> None:
        self._demands = demands
        self._sharing = sharing
        self._limits = limits
        self._numbers = count()
        self.by_key: dict[LaneKey, Lane] = {}
        self.ready: dict[Lane, None] = {}
        self.resting: dict[Lane, None] = {}
        #: Lanes with brief layers.
        self.brief: dict[Lane, None] = {}
        self.clock = Clock(sharing.half_life_s)

    def refresh(self, layer: "Layer") -> None:
        """A layer waits, or waits no more, or is worth another try."""
        if layer.waiting and not layer.blocked and layer.job.open:
            if layer.lane is None:
                self._enter(layer)
            else:
                self._ready(layer.lane)
        elif layer.lane is not None:
            self.leave(layer)

    def _enter(self, layer: "Layer") -> None:
        job, spec = layer.job, layer.spec
        pool = self._sharing.pool(job.spec.pool)
        demand = layer.demand
        key = (demand.key, tuple(sorted(spec.limits.items())))
        lane = self.by_key.get(key)
        if lane is None:
            lane = self.by_key[key] = Lane(key, next(self._numbers), demand, pool)
        project, user = self._sharing.parties(pool, job.spec.project, job.user)
        project.waiting += 1
        user.waiting += 1
        layer.parties = (project, user)
        layer.lane = lane
        lane.add(layer)
        self._ready(lane)
        if layer.brief:
            self.brief[lane] = None

    def note_brief(self, layer: "Layer") -> None:
        """The layer's frames are known to be brief."""
        if layer.lane is not None:
            self.brief[layer.lane] = None

    def leave(self, layer: "Layer") -> None:
        """A layer waits no more, or will wait elsewhere."""
        lane, parties = layer.lane, layer.parties
        assert lane is not None
        assert parties is not None
        for party in parties:
            party.waiting -= 1
        layer.lane = layer.parties = None
        lane.waiting -= 1
        if not lane.waiting:
            layer.queue = None
            del self.by_key[lane.key]
            self.ready.pop(lane, None)
            self.resting.pop(lane, None)
            self.brief.pop(lane, None)
            for counter in self._limits.counters.values():
                counter.lanes.pop(lane, None)

    def rest(self, lane: Lane, *, closed: bool = False) -> None:
        """It was tried in vain; `closed`: more room changes nothing."""
        lane.end_pass()
        if self.ready.pop(lane, 0) is None and not closed:
            self.resting[lane] = None

    def wait_for(self, lane: Lane, counter: Counter) -> None:
        """It is worth a try once the counter gives something back."""
        counter.lanes[lane] = None

    def wake(self, rooms: Rooms) -> None:
        """Make ready what may have a chance since the last pass."""
        for counter in self._limits.freed:
            for lane in counter.lanes:
                self._ready(lane)
            counter.lanes.clear()
        self._limits.freed.clear()
        rooms.refresh()
        if self.resting:
            for slave in rooms.grown.values():
                if slave.place is None:
                    continue
                number = slave.id
                for lane in [
                    lane
                    for lane in self.resting
                    if number in lane.demand.able
                    and any(lacks(slave, ask) is None for ask in lane.demand.asks)
                ]:
                    self._ready(lane)
        rooms.grown.clear()

    def _ready(self, lane: Lane) -> None:
        self.resting.pop(lane, None)
        self.ready[lane] = None

    def enter_anew(self, layers: Iterable["Layer"]) -> None:
        """What orders these layers has changed."""
        for layer in layers:
            if layer.lane is not None:
                self.leave(layer)
            self.refresh(layer)
