"""Which frames may wait at slaves, and which are asked back because they may no more."""

from collections.abc import Iterable

from drqueue.master.core.layer import Layer
from drqueue.master.core.placement import is_blocked
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn


def may_wait_ahead(state: FarmState, layer: Layer) -> bool:
    """Whether frames of the layer are brief, and nothing but cores and memory holds them back."""
    job, asks = layer.job, layer.demand.asks
    if not layer.brief or len(asks) > 1 or asks[0].gpus or asks[0].disk_mb or asks[0].amounts:
        return False
    return not (job.spec.max_running or job.spec.max_per_slave or job.avoids or state.limits.of(layer))


def ask_back(turn: Turn, slaves: Iterable[Slave] | None = None, job: Job | None = None) -> None:
    """Ask slaves (all) for the frames (of one job) that would not be sent ahead to them any more."""
    state = turn.state
    for slave in list(state.with_ahead.values() if slaves is None else slaves):
        for attempt in slave.ahead.values():
            layer = attempt.layer
            if job is not None and layer.job is not job:
                continue
            fits = slave.open and slave.id in layer.demand.able and not is_blocked(slave, layer.job)
            if not fits or attempt.ask != layer.demand.asks[0] or not may_wait_ahead(state, layer):
                turn.take_back(attempt)
