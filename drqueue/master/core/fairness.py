"""Whose turn it is among jobs of one priority: shares of projects, and within them of users, pool by pool.

Rules of this file:
1. A party's load is (cores that it runs + cores that it ran on the average of late) / weight; who has least
   goes first. The average is an exponential one: after a half-life, half of what was is forgotten.
2. A project that runs fewer cores than its guaranteed minimum goes before all others, whatever their
   priority. Pools that share slaves take turns.
3. What is remembered is saved now and then, so that a restart forgets no more than a few minutes of it.
"""

from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from msgspec import json

from drqueue.master.core.amounts import THOUSAND, milli
from drqueue.proto.model import PoolPolicy, Share, Sharer

#: Below so many thousandths of a core nothing is remembered.
_NOTHING: Final = 10.0
#: How often within a half-life all loads are looked at.
_LOOKS: Final = 200


class Party:
    """A user or a project in one pool; cores in thousandths.

    `load` is as of the last change, or of the last time that all were looked at.
    """

    __slots__ = ("as_of", "below", "load", "memory", "minimum", "name", "running", "waiting", "weight")

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.weight = 1.0
        self.minimum = 0
        self.running = 0
        #: Whether it runs less than its guaranteed minimum.
        self.below = False
        #: Who has least of this goes first.
        self.load = 0.0
        #: Layers that wait in lanes.
        self.waiting = 0
        #: The average of what it ran, as of a time.
        self.memory = 0.0
        self.as_of = now

    def remembered(self, now: float, half_life_s: float) -> float:
        """The average of what it ran."""
        if now > self.as_of:
            self.remember(now, half_life_s)
        return self.memory

    def remember(self, now: float, half_life_s: float) -> None:
        """Bring the average up to date; `now`: later than it is of."""
        running, gone = self.running, 0.5 ** ((now - self.as_of) / half_life_s)
        self.memory = running + (self.memory - running) * gone
        self.as_of = now

    def recall(self, remembered: float, now: float) -> None:
        """So much was remembered of it."""
        self.memory, self.as_of = remembered, now
        self.load = (self.running + remembered) / self.weight

    @property
    def idle(self) -> bool:
        """Whether nothing is lost when it is forgotten."""
        return not self.running and not self.waiting and self.memory < _NOTHING


def change(parties: Iterable[Party], cores: int, now: float, half_life_s: float) -> None:
    """So many cores more, or fewer, run of each of these from now on."""
    for party in parties:
        if party.as_of < now:
            party.remember(now, half_life_s)
        party.running = running = party.running + cores
        party.load = (running + party.memory) / party.weight
        if party.minimum:
            party.below = running < party.minimum


class Project(Party):
    """A project in one pool, with its users."""

    __slots__ = ("users",)

    def __init__(self, name: str, now: float) -> None:
        super().__init__(name, now)
        self.users: dict[str, Party] = {}


class Pool:
    """One pool: its policy, and who shares it. `turn`: the farm's dispatch count when it was last served."""

    __slots__ = ("guarantees", "name", "policy", "projects", "running", "turn")

    def __init__(self, name: str, policy: PoolPolicy = "fair") -> None:
        self.name = name
        self.policy: PoolPolicy = policy
        self.turn = 0
        self.running = 0
        self.projects: dict[str, Project] = {}
        #: Its projects with a guaranteed minimum.
        self.guarantees: list[Project] = []


class Sharing:
    """All pools, and what users and projects were given of them."""

    def __init__(self, half_life_s: float = 3600.0) -> None:
        self.half_life_s = half_life_s
        self.pools: dict[str, Pool] = {}
        self.policies: dict[str, PoolPolicy] = {}
        #: By (of, name, pool).
        self.given: dict[tuple[Sharer, str, str], Share] = {}
        #: When what is remembered was last saved.
        self.kept_at = -inf
        #: When all loads were last looked at, and how often that is done, in seconds.
        self._looked = 0.0
        self._every_s = half_life_s / _LOOKS

    def look(self, now: float) -> None:
        """Bring all loads up to date, if that is long ago: what was is forgotten bit by bit."""
        if now - self._looked >= self._every_s:
            self._looked = now
            for pool in self.pools.values():
                for project in pool.projects.values():
                    change((project, *project.users.values()), 0, now, self.half_life_s)

    def pool(self, name: str) -> Pool:
        """The pool of that name."""
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = Pool(name, self.policies.get(name, "fair"))
        return pool

    def set_policy(self, name: str, policy: PoolPolicy) -> None:
        """Say who comes first in a pool; lanes are the caller's."""
        self.policies[name] = policy
        if name in self.pools:
            self.pools[name].policy = policy

    def parties(self, pool: Pool, project: str, user: str, now: float) -> tuple[Project, Party]:
        """The two parties that a job belongs to in a pool."""
        one = pool.projects.get(project)
        if one is None:
            one = pool.projects[project] = Project(project, now)
            self._give("project", one, pool.name)
        other = one.users.get(user)
        if other is None:
            other = one.users[user] = Party(user, now)
            self._give("user", other, pool.name)
        return one, other

    def put(self, share: Share) -> None:
        """Give a share, in place of any before."""
        self.given[share.of, share.name, share.pool] = share
        self._give_all(share.of, share.name)

    def drop(self, of: Sharer, name: str, pool: str) -> None:
        """Forget a share."""
        del self.given[of, name, pool]
        self._give_all(of, name)

    def _give_all(self, of: Sharer, name: str) -> None:
        for pool in self.pools.values():
            for project in pool.projects.values():
                found = project if of == "project" and project.name == name else project.users.get(name)
                if found is not None and (of == "user" or found is project):
                    self._give(of, found, pool.name)

    def _give(self, of: Sharer, party: Party, pool: str) -> None:
        here = self.given.get((of, party.name, pool))
        share = here or self.given.get((of, party.name, ""))
        party.weight = 1.0 if share is None else float(share.weight)
        party.minimum = 0 if here is None else milli(here.minimum)
        party.below = False
        change((party,), 0, self._looked, self.half_life_s)
        if isinstance(party, Project):
            guarantees = self.pools[pool].guarantees
            if party.minimum and party not in guarantees:
                guarantees.append(party)
            elif not party.minimum and party in guarantees:
                guarantees.remove(party)

    def kept(self, now: float, wall: float) -> str:
        """What is remembered, as a text that `recall` takes."""
        rows = [
            (pool.name, project.name, user and user.name, round(found))
            for pool in self.pools.values()
            for project in pool.projects.values()
            for user in (None, *project.users.values())
            if (found := (user or project).remembered(now, self.half_life_s)) >= _NOTHING
        ]
        self.kept_at = now
        return json.encode((wall, rows)).decode()

    def recall(self, text: str, now: float, wall: float) -> None:
        """Remember what `kept` wrote at another time. ValueError where it is damaged."""
        then, rows = json.decode(text, type=tuple[float, list[tuple[str, str, str | None, float]]])
        gone = 0.5 ** (max(0.0, wall - then) / self.half_life_s)
        for pool_name, project_name, user_name, remembered in rows:
            project, user = self.parties(self.pool(pool_name), project_name, user_name or "", now)
            (project if user_name is None else user).recall(remembered * gone, now)
        self.kept_at = now

    def forget_idle(self, now: float) -> None:
        """Drop whoever has nothing, wants nothing and had nothing of late."""
        for pool in list(self.pools.values()):
            for project in list(pool.projects.values()):
                for user in list(project.users.values()):
                    user.remembered(now, self.half_life_s)
                    if user.idle:
                        del project.users[user.name]
                project.remembered(now, self.half_life_s)
                if project.idle and not project.users:
                    del pool.projects[project.name]
                    if project in pool.guarantees:
                        pool.guarantees.remove(project)
            if not pool.projects and not pool.running:
                del self.pools[pool.name]

    def all(self) -> Iterator[tuple[Pool, Project, Party]]:
        """Every user of every project of every pool."""
        for pool in self.pools.values():
            for project in pool.projects.values():
                for user in project.users.values():
                    yield pool, project, user


def cores(thousandths: float) -> float:
    """Thousandths of cores as cores."""
    return thousandths / THOUSAND
