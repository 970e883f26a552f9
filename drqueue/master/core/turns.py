"""Whose turn it is, within one scheduling pass.

Rules of this file:
1. First come projects below their guaranteed minimum; then priority; then the pool that was served longest
   ago.
2. In a pool that is `fair`: the project with the least load (`fairness`), of its users the one with the
   least, of theirs the job that was served longest ago. In one that is `fifo`, and where all that is equal:
   the job's number, the layer's place in it. No two layers ever stand equal.
3. Within a pass nothing ends, so loads only grow, and only those of whom was served. A heap may hold one that
   is too small, and what is on top is looked at again before it counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

from drqueue.master.core.fairness import Pool, Project
from drqueue.master.core.lanes import Entry, Lane, Level, ProjectQueues, Queue, UserQueue

if TYPE_CHECKING:
    from drqueue.master.core.layer import Layer

#: A user's load and name, the first entry (empty: not looked at yet), the queue.
_UserTurn = tuple[float, str, Entry | tuple[()], UserQueue]
#: Whether it is not below its minimum; a project's load and name, its queues.
_ProjectTurn = tuple[bool, float, str, "_Queues"]
#: Whether no project is below its minimum, the negated priority, when the pool was last served, its name; the
#: layers that are served, in turn; the pool, and its tiers that are left, the highest priority last.
_PoolTurn = tuple[bool, int, int, str, Iterator["Layer"], Pool, list["_Tier"]]


class _Queues:
    """A project's queues in one tier; `heap` is made of `parts` when it is its turn for the first time."""

    __slots__ = ("heap", "parts", "project")

    def __init__(self, project: Project, parts: list[ProjectQueues]) -> None:
        self.project = project
        self.parts = parts
        self.heap: list[_UserTurn] | None = None

    def __lt__(self, other: "_Queues") -> bool:
        """Any order does: of two projects of one name, one was forgotten, and nobody waits in it."""
        return id(self) < id(other)


class _Tier:
    """All lanes of one pool that have layers of one priority; who is in them, by project, by load."""

    __slots__ = ("below", "heap", "lanes", "left")

    def __init__(self, below: int) -> None:
        #: The negated priority.
        self.below = below
        self.lanes: list[tuple[Lane, Level]] = []
        #: How many of them were not passed over yet.
        self.left = 0
        self.heap: list[_ProjectTurn] | None = None


class Turns:
    """One pass over some lanes: whose turn it is, until nobody is left."""

    def __init__(self, lanes: Iterable[Lane], number: int) -> None:
        self._number = number
        #: The queues among which the last turn was found, where projects and users share them.
        self._users: list[_UserTurn] | None = None
        self._tiers: dict[Pool, dict[int, _Tier]] = {}
        for lane in lanes:
            tiers = self._tiers.get(lane.pool)
            if tiers is None:
                tiers = self._tiers[lane.pool] = {}
            for below, level in lane.levels.items():
                tier = tiers.get(below)
                if tier is None:
                    tier = tiers[below] = _Tier(below)
                tier.lanes.append((lane, level))
        self._pools: list[_PoolTurn] = []
        for pool, tiers in self._tiers.items():
            for tier in tiers.values():
                tier.left = len(tier.lanes)
            turn = self._turn(pool, [tiers[below] for below in sorted(tiers, reverse=True)])
            if turn is not None:
                self._pools.append(turn)
        heapify(self._pools)

    def __iter__(self) -> Iterator["Layer"]:
        """The layer whose turn it is, until nothing can be done for anybody any more.

        Whoever is told dispatches a frame of it, or says whom to pass over.
        """
        pools = self._pools
        try:
            while pools:
                above, below, served, name, layers, pool, tiers = pools[0]
                for layer in layers:
                    yield layer
                    # Of all pools only this one was served since it was put where it stands.
                    if pool.turn != served and len(pools) > 1:
                        heapreplace(pools, (above, below, pool.turn, name, layers, pool, tiers))
                        break
                else:
                    if above:
                        tiers.pop()
                    turn = self._turn(pool, tiers)
                    if turn is None:
                        heappop(pools)
                    else:
                        heapreplace(pools, turn)
        finally:
            # What stands there refers to these turns: nothing is left for the collector of cycles.
            pools.clear()

    def pass_layer(self, layer: "Layer") -> None:
        """Nothing can be done in this pass for the layer whose turn it is."""
        assert layer.lane is not None
        layer.lane.set_aside(layer)

    def pass_user(self, layer: "Layer") -> None:
        """... for its user, in its lane."""
        if self._users is None:
            self.pass_layer(layer)
        else:
            heappop(self._users)

    def pass_project(self, layer: "Layer") -> None:
        """... for its project, in its lane."""
        users = self._users
        if users is None:
            self.pass_layer(layer)
        else:
            over = users[0][3].of_project
            users[:] = [turn for turn in users if turn[3].of_project is not over]
            heapify(users)

    def pass_lane(self, lane: Lane) -> None:
        """... for a lane."""
        lane.over = self._number
        tiers = self._tiers[lane.pool]
        for below in lane.levels:
            tiers[below].left -= 1

    def _turn(self, pool: Pool, tiers: list[_Tier]) -> _PoolTurn | None:
        """Where a pool stands among others, and which of its tiers is to be served; None: nobody is left."""
        while tiers and not tiers[-1].left:
            tiers.pop()
        if not tiers:
            return None
        tier, above = tiers[-1], True
        if pool.policy == "fifo":
            layers = self._in_order(tier)
        else:
            if any(project.below for project in pool.guarantees):
                for one in reversed(tiers):
                    if one.left and self._has_short(one):
                        tier, above = one, False
                        break
            layers = self._by_load(tier, above)
        return above, tier.below, pool.turn, pool.name, layers, pool, tiers

    def _has_short(self, tier: _Tier) -> bool:
        """Whether one is below its minimum, of the projects that can have something."""
        return any(turn[-1].project.below for turn in self._heap(tier))

    def _heap(self, tier: _Tier) -> list[_ProjectTurn]:
        if tier.heap is None:
            found: defaultdict[Project, list[ProjectQueues]] = defaultdict(list)
            for lane, level in tier.lanes:
                if lane.over != self._number:
                    for of_project in level.project_queues.values():
                        found[of_project.party].append(of_project)
            tier.heap = [
                (not project.below, project.load, project.name, _Queues(project, parts))
                for project, parts in found.items()
            ]
            heapify(tier.heap)
        return tier.heap

    def _by_load(self, tier: _Tier, above: bool) -> Iterator["Layer"]:
        """The layers of a tier in turn; `above`: of projects that are not below their minimum, too."""
        heap, number = self._heap(tier), self._number
        while heap:
            is_above, load, name, queues = heap[0]
            project = queues.project
            if project.load != load:
                # Who is no longer below the minimum has another load, too.
                heapreplace(heap, (not project.below, project.load, name, queues))
                continue
            if is_above and not above:
                return
            users = queues.heap
            if users is None:
                users = queues.heap = _users(queues.parts)
            while users:
                load_of_user, user, entry, queue = users[0]
                now = queue.party.load
                if now != load_of_user:
                    heapreplace(users, (now, user, entry, queue))
                    continue
                if queue.lane.over == number:
                    if not tier.left:
                        return
                    heappop(users)
                    continue
                first = _first(queue.queue, True)
                if first is None:
                    heappop(users)
                    queue.drop()
                    continue
                if first is not entry:
                    turn = (now, user, first, queue)
                    heapreplace(users, turn)
                    if users[0] is not turn:
                        continue
                self._users = users
                yield first[3]
                if project.load != load:
                    break
            else:
                heappop(heap)

    def _in_order(self, tier: _Tier) -> Iterator["Layer"]:
        """The layers of a tier in the order of their numbers."""
        while tier.left:
            best: Entry | None = None
            for lane, level in tier.lanes:
                if lane.over != self._number:
                    entry = _first(level.plain, False)
                    if entry is not None and (best is None or entry[1:3] < best[1:3]):
                        best = entry
            if best is None:
                return
            self._users = None
            yield best[3]


def _users(parts: list[ProjectQueues]) -> list[_UserTurn]:
    found: list[_UserTurn] = [
        (queue.party.load, queue.party.name, (), queue)
        for of_project in parts
        for queue in of_project.user_queues.values()
    ]
    heapify(found)
    return found


def _first(queue: Queue, served: bool) -> Entry | None:
    """What really stands on top: layers leave without a word, and are `served` meanwhile."""
    while queue:
        entry = queue[0]
        layer = entry[3]
        if layer.queue is not queue or layer.lane is None:
            heappop(queue)
            if layer.queue is queue:
                layer.queue = None
        elif served and entry[0] != layer.job.served:
            entry = (layer.job.served, entry[1], entry[2], layer)
            heapreplace(queue, entry)
            if queue[0] is entry:
                return entry
        else:
            return entry
    return None
