"""A slave as it shows itself to clients. PURE."""

from drqueue.proto.model import FrameStateName, MachineLoad
from drqueue.proto.views import FrameView, SlaveView
from drqueue.slave.core.amounts import total
from drqueue.slave.core.state import ALIVE, USING, Attempt, Phase, State
from drqueue.slave.offer import Offer


def slave_view(
    state: State,
    *,
    name: str,
    offer: Offer,
    load: MachineLoad,
    control: str,
    last_heard_at: float,
    trouble: str = "",
) -> SlaveView:
    """The slave and what runs on it; frames in the order in which they were accepted.

    `trouble` is why it can start none.
    """
    busy = [attempt for attempt in state.held.values() if attempt.phase in USING]
    held = [attempt for attempt in state.held.values() if attempt.phase is not Phase.ENDED]
    if trouble:
        word = "sick"
    elif not state.limits.enabled:
        word = "disabled"
    elif busy:
        word = "busy"
    else:
        word = "idle" if state.registered else "unlinked"
    return SlaveView(
        id=state.slave_id if state.slave_id is not None else 0,
        name=state.name or name,
        state=word,
        linked=state.registered,
        cores=offer.cores,
        memory_mb=offer.memory_mb,
        cores_used=state.cores_used,
        memory_used_mb=sum(attempt.order.memory_mb for attempt in busy),
        limits=state.limits,
        machine=offer.machine,
        load=load,
        control=control,
        last_heard_at=last_heard_at,
        running=tuple([_frame(attempt, state.name or name) for attempt in held[:SHOWN_MAX]]),
        frames_done=state.done,
        frames_failed=state.failed,
        offers=offer.offers,
        sick=trouble,
        gpus_used=tuple(sorted(state.gpus_used)),
        disk_used_mb=sum(attempt.order.disk_mb for attempt in busy),
        amounts_used=total(attempt.order.amounts for attempt in busy),
    )


#: Frames in one view: at their largest they fit into a packet.
SHOWN_MAX = 500


_STATES: dict[Phase, FrameStateName] = {
    Phase.QUEUED: "WAITING",
    Phase.RUNNING: "RUNNING",
    Phase.VERIFYING: "RUNNING",
}


def _frame(attempt: Attempt, slave: str) -> FrameView:
    order = attempt.order
    return FrameView(
        job=order.key.job,
        layer=order.key.layer,
        layer_name=order.layer_name,
        index=order.key.frame,
        number=order.start,
        last=order.start + order.step * (order.count - 1),
        count=order.count,
        state=_STATES.get(attempt.phase, "ASSIGNED"),
        attempt=order.key.attempt,
        slave=slave,
        started_at=attempt.started_at,
        stop=attempt.stop_reason,
        slot=order.slot,
        pid=attempt.pid if attempt.phase in ALIVE else 0,
        gpus=order.gpus,
    )
