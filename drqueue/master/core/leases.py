"""Leases: until when the master waits for a slave that it cannot reach (P4).

A slave's lease counts from the moment at which it said the last thing that this master told it to have heard;
the master's wait counts from when that, or anything later, came. So the slave's ends first, by the margin.
"""

from drqueue.master.core.attempt import Attempt
from drqueue.master.core.state import FarmState

#: The master waits this much longer than the slave's own lease: clocks go differently, and a slave may take
#: 30 s to notice that its lease is over and 30 s more to end a frame, whatever its own settings are.
LEASE_FACTOR = 1.01
LEASE_EXTRA_S = 120.0


def give_up_at(state: FarmState, attempt: Attempt, requeue_fast_s: float) -> float | None:
    """When an unreachable slave's attempt is given up, on the core's clock; None: never by itself."""
    slave = attempt.slave
    if state.closing and slave in state.closing.values():
        return None
    heard = max(slave.heard, state.started)
    match attempt.row.on_unreachable:
        case "hold":
            return None
        case "requeue-fast":
            return heard + requeue_fast_s
        case "lease":
            granted = attempt.row.lease_s
            lease = granted if slave.greeted else max(granted, state.granted_s)
            return heard + lease * LEASE_FACTOR + LEASE_EXTRA_S
