"""Why a slave may not have a frame: for what places frames and what explains their waiting.

The numbers are judged in `demand`; here stand the reasons that have to do with the very job and frame.
"""

from collections.abc import Callable, Collection, Iterable

from drqueue.master.core.amounts import Ask
from drqueue.master.core.demand import lacks
from drqueue.master.core.layer import Layer
from drqueue.master.core.limits import Counter
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState, Job


def why_closed(slave: Slave) -> str | None:
    """A code for why nothing is sent to this slave, or None."""
    if slave.link is None:
        return "lost" if slave.lost else "unlinked"
    if not slave.limits.enabled:
        return "autoenable" if slave.limits.autoenable else "disabled"
    return "sick" if slave.sick else None


def is_blocked(slave: Slave, job: Job) -> bool:
    """Whether the job names this slave, or its machine, as one not to use."""
    blocked = job.blocked_slaves
    return bool(blocked) and (slave.name in blocked or slave.machine.hostname in blocked)


def why_never(slave: Slave, layer: Layer) -> str | None:
    """A code for why this slave could not run the layer even if nothing ran on it, or None."""
    closed = why_closed(slave)
    if closed is not None:
        return closed
    demand = layer.demand
    if slave.id in demand.able:
        return "blocked" if is_blocked(slave, layer.job) else None
    unfit = demand.unfit(slave)
    if unfit is not None:
        return unfit
    return "blocked" if is_blocked(slave, layer.job) else demand.never(slave)


def why_not(
    state: FarmState,
    slave: Slave,
    layer: Layer,
    index: int | None = None,
    *,
    avoid: Collection[int] | None = None,
    asks: Iterable[Ask] | None = None,
) -> str | None:
    """A code for why this slave cannot take a frame of the layer (this one) now, or None: it can.

    `avoid` and `asks`: what is known already of whom it avoids, and which of its amounts limits leave it.
    """
    never = why_never(slave, layer)
    if never is not None:
        return never
    if slave.id in (avoided(layer, index) if avoid is None else avoid):
        return "avoided"
    first: str | None = None
    for ask in layer.demand.asks if asks is None else asks:
        short = lacks(slave, ask)
        if short is None:
            break
        first = first or short
    else:
        return first
    if not has_place(slave, layer.job):
        return "max-per-slave"
    if not has_seats(state, slave, layer):
        return "seat"
    return None


def has_place(slave: Slave, job: Job) -> bool:
    """Whether the job may have one more frame on this slave."""
    most = job.spec.max_per_slave
    return not most or slave.count_of(job.id) < most


def has_seats(state: FarmState, slave: Slave, layer: Layer) -> bool:
    """Whether limits that count machines let the layer onto this slave's, where they let it onto some."""
    for claim in state.limits.of(layer):
        counter = claim.counter
        if counter.scope == "slaves" and counter.machines and not counter.has(0, slave.machine_name):
            return False
    return True


def avoided(layer: Layer, index: int | None) -> Collection[int]:
    """Slaves that the layer's frames, or this one, keep away from; none where there are no others."""
    job = layer.job
    past = layer.history.get(index) if index is not None and layer.history else None
    avoid: Collection[int] = past.avoid if past is not None else ()
    if job.avoids:
        avoid = {*avoid, *job.avoids}
    if avoid and not _elsewhere(layer, avoid):
        return ()
    return avoid


def _elsewhere(layer: Layer, avoid: Collection[int]) -> bool:
    """Whether a slave that is not avoided could run the layer once it is free."""
    able, job = layer.demand.able, layer.job
    return any(s.open and s.id not in avoid and not is_blocked(s, job) for s in able.values())


def seats_only(state: FarmState, layer: Layer) -> list[Counter]:
    """Limits that count machines and hold back all of the layer's lane alike."""
    return [
        claim.counter
        for claim in state.limits.of(layer)
        if claim.counter.scope == "slaves" and claim.of in ("lane", "pool")
    ]


def acceptor_of_seats(seats: Collection[Counter]) -> Callable[[Slave], bool] | None:
    """Slaves on machines that these limits let a frame onto; None where there are none of them."""
    if not seats:
        return None
    return lambda slave: all(counter.has(0, slave.machine_name) for counter in seats)


def acceptor(job: Job, avoid: Collection[int], seats: Collection[Counter]) -> Callable[[Slave], bool]:
    """What else a slave must be for a frame of the job, beside able and free; `seats`: limits that count
    machines."""

    def accept(slave: Slave) -> bool:
        return (
            slave.id not in avoid
            and not is_blocked(slave, job)
            and has_place(slave, job)
            and all(counter.has(0, slave.machine_name) for counter in seats)
        )

    return accept
