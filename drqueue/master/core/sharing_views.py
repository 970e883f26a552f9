"""Limits, shares and pools as clients see them: pages of views, made from the state.

Rules: a list shows what was set, and beside that what nobody set but jobs name, and whoever has frames. Jobs
that are stopped, or wait for others, have waiting frames, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from msgspec import Struct, msgpack

from drqueue.master.core.amounts import plain
from drqueue.master.core.layer import Layer
from drqueue.master.core.limits import BY_ITSELF
from drqueue.master.core.state import FarmState, Job
from drqueue.proto.model import Share, Sharer
from drqueue.proto.sharing_messages import Limits, ListLimits, ListPools, ListShares, Pools, Shares
from drqueue.proto.views import LimitView, PoolView, ShareView

V = TypeVar("V", bound=Struct)

#: Bytes of a page's views, and machines that one of them names.
_PAGE_BYTES: Final = 224 * 1024
_MACHINES_MOST: Final = 200
#: What shares put beside the limits that people set.
_OF_SHARES: Final = "burst:"


def unfinished(state: FarmState) -> Iterator[Job]:
    """Jobs that have frames to render."""
    return (job for job in state.jobs.values() if not job.deleted and not job.finished)


def waiting(layer: Layer) -> int:
    """Frames of a layer that wait for whatever it may be."""
    return layer.unfinished - len(layer.live)


def naming_jobs(state: FarmState, name: str) -> list[Job]:
    """Jobs with waiting frames that name a limit, by id."""
    found = [
        job
        for job in unfinished(state)
        if any(name in layer.spec.limits and waiting(layer) for layer in job.layers)
    ]
    return sorted(found, key=lambda job: job.id)


def pool_known(state: FarmState, name: str) -> bool:
    """Whether a slave or a job is in that pool."""
    return any(name in slave.limits.pools for slave in state.slaves.values()) or any(
        job.spec.pool == name for job in state.jobs.values()
    )


def party_known(state: FarmState, kind: str, name: str) -> bool:
    """Whether there is a job of that user or project, or an account of that user."""
    if kind == "user":
        return any(job.user == name for job in state.jobs.values()) or bool(
            state.register.named("user", name)
        )
    return any(job.spec.project == name for job in state.jobs.values())


# -- limits -----------------------------------------------------------------------------------------------


def page_of_limits(state: FarmState, request: ListLimits) -> Limits:
    """Limits by name; those that count by themselves come last."""
    found, following = _page(_limit_views(state), request.cursor, request.limit)
    return Limits(rq=request.rq, limits=tuple(found), next=following)


def _limit_views(state: FarmState) -> list[LimitView]:
    limits = state.limits
    wanted: dict[str, int] = {}
    for job in unfinished(state):
        for name in _limits_of(state, job):
            wanted[name] = wanted.get(name, 0) + 1
    names = {*limits.set_to, *wanted, *(name for name, c in limits.counters.items() if c.used)}
    views = []
    for name in sorted(names, key=lambda name: (":" in name, name)):
        if name.startswith(_OF_SHARES):
            continue
        counter, limit = limits.counters.get(name), limits.set_to.get(name)
        rule = limit or limits.set_to.get(f"{name.partition(':')[0]}:*")
        if rule is None and ":" in name:
            # What is left of one that was dropped: it holds back nobody.
            continue
        views.append(
            LimitView(
                name=name,
                amount=None if rule is None else rule.amount,
                scope="attempts" if rule is None else rule.scope,
                used=0 if counter is None else plain(counter.used),
                waiting_jobs=wanted.get(name, 0),
                held_by=() if counter is None else _hosts(state, counter.machines),
            )
        )
    return views


def _hosts(state: FarmState, machines: Iterable[str]) -> tuple[str, ...]:
    """What people call machines that hold seats: counters know them by their fingerprints."""
    held = set(machines)
    if not held:
        return ()
    names = {s.machine_name: s.machine.hostname or s.name for s in state.slaves.values()}
    return tuple(sorted(names.get(machine, machine) for machine in held)[:_MACHINES_MOST])


def _limits_of(state: FarmState, job: Job) -> set[str]:
    """Names of limits that a job's waiting frames ask for."""
    found = {name for layer in job.layers if waiting(layer) for name in layer.spec.limits}
    if any(waiting(layer) for layer in job.layers):
        set_to = state.limits.set_to
        for kind, name in zip(BY_ITSELF, (job.user, job.spec.project, job.spec.pool), strict=True):
            if f"{kind}:{name}" in set_to or f"{kind}:*" in set_to:
                found.add(f"{kind}:{name}")
    return found


# -- shares -----------------------------------------------------------------------------------------------


class _Sum:
    """What a user or a project has in one pool, or in several; cores in thousandths."""

    __slots__ = ("cores", "remembered", "waiting")

    def __init__(self) -> None:
        self.cores = 0
        self.remembered = 0.0
        self.waiting = 0


def page_of_shares(state: FarmState, request: ListShares, now: float) -> Shares:
    """Projects, then users, by name and pool."""
    found, following = _page(_share_views(state, now), request.cursor, request.limit)
    return Shares(rq=request.rq, shares=tuple(found), next=following)


def _share_views(state: FarmState, now: float) -> list[ShareView]:
    sharing = state.sharing
    sums: dict[tuple[Sharer, str, str], _Sum] = {}

    def of(kind: Sharer, name: str, pool: str) -> Iterator[_Sum]:
        """Where it counts: in its pool, and where it was given something of all pools, there."""
        yield sums.setdefault((kind, name, pool), _Sum())
        if (kind, name, "") in sharing.given and (kind, name, pool) not in sharing.given:
            yield sums.setdefault((kind, name, ""), _Sum())

    for pool in sharing.pools.values():
        for project in pool.projects.values():
            parties = [("project", project), *(("user", user) for user in project.users.values())]
            for kind, party in parties:
                remembered = party.remembered(now, sharing.half_life_s)
                if party.running or remembered >= 1:
                    for total in of(_sharer(kind), party.name, pool.name):
                        total.cores += party.running
                        total.remembered += remembered
    for job in unfinished(state):
        count = sum(map(waiting, job.layers))
        if count:
            for kind, name in (("project", job.spec.project), ("user", job.user)):
                for total in of(_sharer(kind), name, job.spec.pool):
                    total.waiting += count
    for key in sharing.given:
        sums.setdefault(key, _Sum())
    return [
        ShareView(
            of=kind,
            name=name,
            pool=where,
            share=_share(state, kind, name, where),
            cores=plain(total.cores),
            remembered=round(total.remembered / 1000, 3),
            waiting=total.waiting,
        )
        for (kind, name, where), total in sorted(sums.items())
    ]


def _sharer(kind: str) -> Sharer:
    return "user" if kind == "user" else "project"


def _share(state: FarmState, of: Sharer, name: str, pool: str) -> Share | None:
    given = state.sharing.given
    return given.get((of, name, pool)) or given.get((of, name, ""))


# -- pools ------------------------------------------------------------------------------------------------


def page_of_pools(state: FarmState, request: ListPools) -> Pools:
    """Pools by name."""
    found, following = _page(_pool_views(state), request.cursor, request.limit)
    return Pools(rq=request.rq, pools=tuple(found), next=following)


def pool_of(state: FarmState, name: str) -> PoolView:
    """One pool, whether there is anything in it or not."""
    found = {view.name: view for view in _pool_views(state)}
    return found.get(name) or PoolView(name=name, policy="fair")


def _pool_views(state: FarmState) -> list[PoolView]:
    slaves: dict[str, list[int]] = {}
    for slave in state.slaves.values():
        for name in slave.limits.pools:
            counts = slaves.setdefault(name, [0, 0])
            if slave.link is not None and slave.limits.enabled:
                counts[0] += 1
                counts[1] += slave.cores_offered
    jobs: dict[str, list[int]] = {}
    for job in unfinished(state):
        counts = jobs.setdefault(job.spec.pool, [0, 0, 0])
        counts[0] += 1
        counts[1] += sum(map(waiting, job.layers))
        counts[2] += job.live
    pools, policies = state.sharing.pools, state.sharing.policies
    running = {name for name, pool in pools.items() if pool.running}
    views = []
    for name in sorted({*slaves, *jobs, *running, *policies}):
        linked, cores = slaves.get(name, (0, 0))
        count, waits, runs = jobs.get(name, (0, 0, 0))
        views.append(
            PoolView(
                name=name,
                policy=policies.get(name, "fair"),
                slaves=linked,
                cores=cores,
                cores_used=plain(pools[name].running) if name in pools else 0,
                jobs=count,
                waiting=waits,
                running=runs,
                waits=state.waits.view(name),
            )
        )
    return views


def _page(views: Sequence[V], cursor: int, limit: int) -> tuple[list[V], int | None]:
    """Views from a place in the list on, as many as fit, and where the next page begins."""
    found: list[V] = []
    room = _PAGE_BYTES
    for number, view in enumerate(views[cursor:], cursor):
        room -= len(msgpack.encode(view))
        if len(found) == limit or (found and room < 0):
            return found, number
        found.append(view)
    return found, None
