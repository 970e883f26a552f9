"""What waits: layers that may have a frame dispatched, in lanes of those that ask the same of the farm.

Rules of this file:
1. A lane holds layers of one pool with the same needs that name the same limits: what holds one of them back
   (no slave has room, a limit is reached) mostly holds all of them back, and the lane is passed over at once.
2. Whose turn it is among them, `turns` says. A layer that leaves its lane leaves a trace in a queue, which is
   met, and dropped, when it comes to the top.
3. A lane that was tried in vain rests until a slave that is able to run it has more room, a limit that it
   waits for gives something back, or a layer enters it.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING

from drqueue.master.core.demand import Demand, Demands, lacks
from drqueue.master.core.fairness import Party, Pool, Project, Sharing
from drqueue.master.core.limits import Counter, Limits
from drqueue.master.core.rooms import Rooms

if TYPE_CHECKING:
    from drqueue.master.core.layer import Layer
    from drqueue.master.core.slave import Slave

#: (when the job was last served, job, layer, the layer itself)
Entry = tuple[int, int, int, "Layer"]
Queue = list[Entry]
_free_cores = attrgetter("free_cores")
LaneKey = tuple[tuple[str, bytes], tuple[tuple[str, int], ...]]


class UserQueue:
    """A user's layers in one level of a lane."""

    __slots__ = ("lane", "of_project", "party", "queue")

    def __init__(self, lane: "Lane", of_project: "ProjectQueues", party: Party) -> None:
        self.lane = lane
        self.of_project = of_project
        self.party = party
        self.queue: Queue = []

    def __lt__(self, other: "UserQueue") -> bool:
        """Any fixed order does: of two with the same first entry, one has a mere trace of it."""
        return self.lane.number < other.lane.number

    def drop(self) -> None:
        """Nobody is in it any more."""
        of_project = self.of_project
        del of_project.user_queues[self.party.name]
        if not of_project.user_queues:
            del of_project.level.project_queues[of_project.party.name]


class ProjectQueues:
    """A project's users in one level of a lane."""

    __slots__ = ("level", "party", "user_queues")

    def __init__(self, level: "Level", party: Project) -> None:
        self.level = level
        self.party = party
        self.user_queues: dict[str, UserQueue] = {}


class Level:
    """A lane's layers of one priority: by project and user, or (fifo) in the order of their numbers alone."""

    __slots__ = ("plain", "project_queues")

    def __init__(self) -> None:
        self.plain: Queue = []
        self.project_queues: dict[str, ProjectQueues] = {}


class Lane:
    """Layers with the same demand and limits."""

    __slots__ = ("_aside", "counters", "demand", "key", "levels", "number", "over", "pool", "waiting")

    def __init__(self, key: LaneKey, number: int, demand: Demand, pool: Pool) -> None:
        self.key = key
        self.number = number
        self.demand = demand
        self.pool = pool
        self.waiting = 0
        #: The last pass in which nothing could be done for it any more.
        self.over = -1
        #: By negated priority.
        self.levels: dict[int, Level] = {}
        #: Limits that it waits for.
        self.counters: dict[Counter, None] = {}
        self._aside: list[Layer] = []

    def add(self, layer: "Layer") -> None:
        """A layer waits from now on; its parties are set."""
        self.waiting += 1
        self._insert(layer)

    def _insert(self, layer: "Layer") -> None:
        below = -layer.job.spec.priority
        level = self.levels.get(below)
        if level is None:
            level = self.levels[below] = Level()
        job = layer.job
        if self.pool.policy == "fifo":
            queue, served = level.plain, 0
        else:
            assert layer.parties is not None
            project, user = layer.parties
            of_project = level.project_queues.get(project.name)
            if of_project is None or of_project.party is not project:
                # An idle party is forgotten while its queues may stand here still, empty.
                of_project = level.project_queues[project.name] = ProjectQueues(level, project)
            user_queue = of_project.user_queues.get(user.name)
            if user_queue is None or user_queue.party is not user:
                user_queue = of_project.user_queues[user.name] = UserQueue(self, of_project, user)
            queue, served = user_queue.queue, job.served
        if layer.queue is not queue:
            layer.queue = queue
            heappush(queue, (served, job.id, layer.index, layer))

    def set_aside(self, layer: "Layer") -> None:
        """Nothing can be done for a layer, which stands on top of its queue, for the rest of this pass."""
        assert layer.queue is not None
        heappop(layer.queue)
        layer.queue = None
        self._aside.append(layer)

    def end_pass(self) -> None:
        """Layers that were set aside wait again; what nobody waits in is dropped."""
        for layer in self._aside:
            if layer.lane is self and layer.queue is None:
                self._insert(layer)
        self._aside.clear()
        for below, level in list(self.levels.items()):
            if not level.plain and not level.project_queues:
                del self.levels[below]


class Lanes:
    """All lanes, and which of them are worth a try."""

    def __init__(self, demands: Demands, sharing: Sharing, limits: Limits) -> None:
        self._demands = demands
        self._sharing = sharing
        self._limits = limits
        self._numbers = count()
        #: Numbers of scheduling passes.
        self.passes = count()
        self.by_key: dict[LaneKey, Lane] = {}
        self.ready: dict[Lane, None] = {}
        self.resting: dict[Lane, None] = {}
        #: Lanes with brief layers.
        self.brief: dict[Lane, None] = {}

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
        project, user = self._sharing.parties(pool, job.spec.project, job.user, job.state.now)
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
            for counter in lane.counters:
                counter.lanes.pop(lane, None)

    def rest(self, lane: Lane, *, closed: bool = False) -> None:
        """It was tried in vain; `closed`: more room changes nothing."""
        lane.end_pass()
        if self.ready.pop(lane, 0) is None and not closed:
            self.resting[lane] = None

    def wait_for(self, layer: "Layer", counter: Counter) -> None:
        """The layer's lane is worth a try once the counter gives something back."""
        lane = layer.lane
        assert lane is not None
        counter.lanes[lane] = lane.counters[counter] = None

    def wake(self, rooms: Rooms) -> None:
        """Make ready what may have a chance since the last pass."""
        for counter in self._limits.freed:
            for lane in counter.lanes:
                del lane.counters[counter]
                self._ready(lane)
            counter.lanes.clear()
        self._limits.freed.clear()
        rooms.refresh()
        if self.resting:
            grown = rooms.grown.values()
            for slave in grown:
                if slave.place is None and not slave.open:
                    # What keeps away from others for as long as there was this one may go there now.
                    self.wake_lanes([lane for lane in self.resting if slave.id in lane.demand.able])
            some = sorted((s for s in grown if s.place is not None), key=_free_cores, reverse=True)
            self.wake_lanes([lane for lane in self.resting if _has_room(lane.demand, some)])
        rooms.grown.clear()

    def wake_lanes(self, lanes: Iterable[Lane]) -> None:
        """These are worth another try."""
        for lane in lanes:
            self._ready(lane)

    def _ready(self, lane: Lane) -> None:
        self.resting.pop(lane, None)
        self.ready[lane] = None

    def enter_anew(self, layers: Iterable["Layer"]) -> None:
        """What orders these layers has changed."""
        for layer in layers:
            if layer.lane is not None:
                self.leave(layer)
            self.refresh(layer)


def _has_room(demand: Demand, slaves: Iterable["Slave"]) -> bool:
    """Whether one of these slaves, the one with the most free cores first, has room for it."""
    able, asks, least = demand.able, demand.asks, demand.least_cores
    for slave in slaves:
        if slave.free_cores < least:
            return False
        if slave.id in able:
            for ask in asks:
                if lacks(slave, ask) is None:
                    return True
    return False
