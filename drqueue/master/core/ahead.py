"""Frames that wait at slaves, after something changed that they were sent ahead by."""

from collections.abc import Iterable

from drqueue.master.core.placement import is_blocked
from drqueue.master.core.schedule import may_wait_ahead
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import Job
from drqueue.master.core.turn import Turn


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
