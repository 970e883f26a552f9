"""What a restarted master must know again, as one value."""

from typing import Any

from drqueue.master.core.state import FarmState


def picture(state: FarmState) -> dict[str, Any]:
    """All that a restart must not change, by name. What only a slave can say (RUNNING) counts as live."""
    frames = {}
    for job in state.jobs.values():
        for layer in job.layers:
            for index in range(layer.size):
                name, past = layer.state_of(index), layer.history.get(index)
                attempt = layer.live.get(index)
                frames[job.id, layer.index, index] = (
                    "live" if attempt else name,
                    attempt.requeued if attempt else past.requeued if past else 0,
                    past.avoid if past else (),
                    layer.reruns + (attempt.returned if attempt else past.returned if past else 0),
                )
    sums = {
        (job.id, layer.index): (layer.ended, round(layer.wall_s, 6), round(layer.cpu_s, 6))
        for job in state.jobs.values()
        for layer in job.layers
    }
    return {
        "frames": frames,
        "sums": sums,
        "jobs": {
            j.id: (
                *(j.spec, j.token, j.submitter, j.stopped, j.deleted, j.finished, j.waits_for),
                *(j.live, j.user, j.failures, j.stopped_for),
            )
            for j in state.jobs.values()
        },
        "attempts": {
            key: (
                a.number,
                a.slave.id,
                a.stop,
                a.again,
                a.orphan,
                a.cores,
                a.memory_mb,
                a.row.lease_s,
                a.slot,
            )
            for key, a in state.attempts.items()
        },
        "slaves": {
            s.id: (s.name, s.identity, s.account, s.limits, s.wish, s.sick, sorted(s.live))
            for s in state.slaves.values()
        },
        "ways in": (
            state.register.accounts,
            state.register.pending,
            state.register.lines,
            state.register.by_hash,
        ),
        "what was counted": (
            state.next_job,
            state.next_slave,
            state.audit.last,
            {token: number for token, number in state.tokens.items() if number in state.jobs},
        ),
    }
