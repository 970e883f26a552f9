"""Whose turn it is, within one scheduling pass.

Rules of this file:
1. First come projects below their guaranteed minimum; then priority; then the pool that was served longest
   ago.
2. In a pool that is `fair`: the project with the least load (`fairness`), of its users the one with the
   least, of theirs the job that was served longest ago. In one that is `fifo`, and where all that is equal:
   the job's number, the layer's place in it. No two layers ever stand equal.
3. Within a pass nothing ends, so loads only grow. A heap may hold one that is too small, and what is on top
   is looked at again before it counts. What was built for a pass bears its number, and is built anew in the
   next.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

from drqueue.master.core.fairness import Pool, Project
from drqueue.master.core.lanes import Entry, Lane, Level, ProjectQueues, Queue, UserQueue

if TYPE_CHECKING:
    from drqueue.master.core.layer import Layer


#: Whether no project is below its minimum, the negated priority, when it was last served, its name.
_PoolKey = tuple[bool, int, int, str]


class _Tier:
    """All lanes of one pool that have layers of one priority; who is in them, by project, by load."""

    __slots__ = ("below", "heap", "lanes", "left", "project_queues")

    def __init__(self, below: int) -> None:
        #: The negated priority.
        self.below = below
        self.lanes: list[tuple[Lane, Level]] = []
        #: How many of them were not passed over yet.
        self.left = 0
        self.project_queues: dict[str, list[tuple[Lane, Level, ProjectQueues]]] = {}
        self.heap: list[tuple[bool, float, str, Project]] | None = None


class Pick:
    """The layer whose turn it is, and where it stands."""

    __slots__ = ("_of_project", "_queue", "lane", "layer")

    def __init__(self, lane: Lane, entry: Entry, queue: Queue, of_project: ProjectQueues | None) -> None:
        self.lane = lane
        self.layer: Layer = entry[3]
        self._queue = queue
        self._of_project = of_project

    def pass_layer(self) -> None:
        """Nothing can be done for this layer in this pass."""
        self.lane.set_aside(self._queue)

    def pass_user(self) -> None:
        """... for this user, in this lane."""
        if self._of_project is None:
            self.pass_layer()
        else:
            heappop(self._of_project.heap)

    def pass_project(self, number: int) -> None:
        """... for this project, in this lane."""
        if self._of_project is None:
            self.pass_layer()
        else:
            self._of_project.over = number


class Turns:
    """One pass over some lanes: `next` says whose turn it is until nobody is left."""

    def __init__(self, lanes: Iterable[Lane], number: int) -> None:
        self.number = number
        self._tiers: dict[Lane, list[_Tier]] = {}
        #: By pool, the highest priority last.
        tiers: dict[Pool, list[_Tier]] = {}
        found: dict[tuple[Pool, int], _Tier] = {}
        for lane in lanes:
            for below, level in lane.levels.items():
                key = (lane.pool, below)
                tier = found.get(key)
                if tier is None:
                    tier = found[key] = _Tier(below)
                    tiers.setdefault(lane.pool, []).append(tier)
                tier.lanes.append((lane, level))
                tier.left += 1
                self._tiers.setdefault(lane, []).append(tier)
        self._pools: list[tuple[_PoolKey, Pool, list[_Tier]]] = []
        for pool, some in tiers.items():
            some.sort(key=lambda tier: -tier.below)
            self._pools.append((self._key(pool, some)[0], pool, some))
        heapify(self._pools)

    def next(self) -> Pick | None:
        """Whose turn it is; None when nothing can be done for anybody any more."""
        pools = self._pools
        while pools:
            before, pool, tiers = pools[0]
            if not tiers[-1].left:
                tiers.pop()
                if not tiers:
                    heappop(pools)
                continue
            key, tier = self._key(pool, tiers)
            if key != before:
                heapreplace(pools, (key, pool, tiers))
                continue
            short = not key[0]
            pick = self._plain(tier) if pool.policy == "fifo" else self._fair(tier, short=short)
            if pick is not None:
                return pick
            if short:
                # Those below their minimum can have nothing; the others have no turn before their own.
                continue
            tiers.remove(tier)
            if not tiers:
                heappop(pools)
        return None

    def pass_lane(self, lane: Lane) -> None:
        """Nothing can be done for a lane in this pass any more."""
        lane.over = self.number
        for tier in self._tiers[lane]:
            tier.left -= 1

    def _key(self, pool: Pool, tiers: list[_Tier]) -> tuple[_PoolKey, _Tier]:
        """Where a pool stands among others, and which of its tiers is to be served first."""
        if pool.guarantees and pool.policy == "fair" and any(p.below for p in pool.guarantees):
            for tier in reversed(tiers):
                heap = self._heap(tier)
                if heap and not self._top(heap)[0]:
                    return (False, tier.below, pool.turn, pool.name), tier
        tier = tiers[-1]
        return (True, tier.below, pool.turn, pool.name), tier

    def _heap(self, tier: _Tier) -> list[tuple[bool, float, str, Project]]:
        if tier.heap is None:
            project_queues = tier.project_queues
            for lane, level in tier.lanes:
                if lane.over == self.number:
                    continue
                for name, of_project in level.project_queues.items():
                    some = project_queues.get(name)
                    if some is None:
                        project_queues[name] = [(lane, level, of_project)]
                    else:
                        some.append((lane, level, of_project))
            projects = [some[0][2].party for some in project_queues.values()]
            tier.heap = [(not p.below, p.load, p.name, p) for p in projects]
            heapify(tier.heap)
        return tier.heap

    def _top(self, heap: list[tuple[bool, float, str, Project]]) -> tuple[bool, float, str, Project]:
        while True:
            above, load, name, project = heap[0]
            now = project.load
            if above is not project.below and now == load:
                return heap[0]
            heapreplace(heap, (not project.below, now, name, project))

    def _fair(self, tier: _Tier, *, short: bool) -> Pick | None:
        heap, number = self._heap(tier), self.number
        while heap:
            above, _, name, _ = self._top(heap)
            if short and above:
                return None
            best: tuple[float, str, int, int, int] | None = None
            where: tuple[Lane, Entry, UserQueue, ProjectQueues] | None = None
            for lane, level, of_project in tier.project_queues[name]:
                if lane.over == number or of_project.over == number:
                    continue
                found = self._of_queues(of_project)
                if found is None:
                    if not of_project.user_queues:
                        level.project_queues.pop(name, None)
                    continue
                load, user_queue, entry = found
                key = (load, user_queue.party.name, entry[0], entry[1], entry[2])
                if best is None or key < best:
                    best, where = key, (lane, entry, user_queue, of_project)
            if where is not None:
                lane, entry, user_queue, of_project = where
                return Pick(lane, entry, user_queue.queue, of_project)
            heappop(heap)
        return None

    def _of_queues(self, of_project: ProjectQueues) -> tuple[float, UserQueue, Entry] | None:
        heap = of_project.heap
        if of_project.stamp != self.number:
            of_project.stamp = self.number
            heap[:] = [
                (user_queue.party.load, name, user_queue)
                for name, user_queue in of_project.user_queues.items()
            ]
            heapify(heap)
        while heap:
            load, name, user_queue = heap[0]
            now = user_queue.party.load
            if now != load:
                heapreplace(heap, (now, name, user_queue))
                continue
            entry = _first(user_queue.queue, served=True)
            if entry is not None:
                return load, user_queue, entry
            heappop(heap)
            del of_project.user_queues[name]
        return None

    def _plain(self, tier: _Tier) -> Pick | None:
        best: tuple[Lane, Entry, Queue] | None = None
        for lane, level in tier.lanes:
            if lane.over != self.number:
                entry = _first(level.plain, served=False)
                if entry is not None and (best is None or entry[1:3] < best[1][1:3]):
                    best = lane, entry, level.plain
        return None if best is None else Pick(*best, None)


def _first(queue: Queue, *, served: bool) -> Entry | None:
    """What really stands on top: layers leave without a word, and are served meanwhile."""
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
