"""Why a job or a frame waits, in words, from the very checks that place frames."""

from collections import Counter

from drqueue.master.core.layer import Layer
from drqueue.master.core.placement import why_not
from drqueue.master.core.state import FarmState, Job
from drqueue.proto.views import Reason

_SLAVES_SAY = {
    "unlinked": "not linked",
    "lost": "given up as lost",
    "disabled": "disabled",
    "pool": "not in pool {pool}",
    "os": "not running {os}",
    "blocked": "blocked for this job",
    "cores-never": "offering fewer than {cores} cores",
    "memory-never": "offering less than {memory} MB",
    "cores": "out of free cores",
    "memory": "out of free memory",
    "load": "too loaded",
    "max-per-slave": "at the job's limit of {per_slave} per slave",
}


def why(state: FarmState, job: Job, layer: Layer | None, index: int | None, now: float) -> list[Reason]:
    """Reasons, most telling first; [] where nothing waits, and nothing failed."""
    layers = [x for x in ((layer,) if layer is not None else job.layers) if x.waiting or x.delayed]
    if index is not None and layer is not None and layer.state_of(index) != "WAITING":
        attempt = layer.live.get(index)
        if attempt is None and index in layer.failed:
            text = "it failed, and its retries are used up (see its log; frame requeue tries again)"
            return [Reason(code="failed", text=text, count=1)]
        if attempt is None or attempt.slave.link is not None:
            return []
        return [
            Reason(
                code="unreachable",
                text=f"it may still run on slave {attempt.slave.name}, which cannot be reached: "
                "it goes elsewhere when that slave's lease ends, or when it is declared dead",
                count=1,
            )
        ]
    reasons: list[Reason] = []
    if not layers:
        failed = sum(len(x.failed) for x in ((layer,) if layer is not None else job.layers))
        if failed:
            text = (
                f"nothing waits, but {failed} frames failed with no retries left (drqueue frames shows which)"
            )
            reasons.append(Reason(code="failed", text=text, count=failed))
        return reasons
    waiting = sum(len(x.waiting) + len(x.delayed) for x in layers)
    if job.stopped:
        reasons.append(Reason(code="stopped", text="the job is stopped (drqueue continue)", count=waiting))
    if job.waits_for:
        code = "dependency" if job.waits_for.startswith("job ") else "not-before"
        reasons.append(Reason(code=code, text=f"it waits for {job.waits_for}", count=waiting))
    limit = job.spec.max_running
    if limit and job.live >= limit:
        reasons.append(
            Reason(code="max-running", text=f"the job runs {job.live} frames, its limit is {limit}")
        )
    for one in layers:
        if one.blocked:
            reasons.append(
                Reason(
                    code="dependency",
                    text=f"layer {one.spec.name} waits for layer {one.blocked}",
                    count=len(one.waiting),
                )
            )
        if one.delayed and (index is None or index in one.delayed):
            soonest = one.delayed[index] if index is not None else min(one.delayed.values())
            reasons.append(
                Reason(
                    code="back-off",
                    text=f"it failed, and is tried again in {max(0.0, soonest - now):.0f} s",
                    count=1 if index is not None else len(one.delayed),
                )
            )
        if one.dying:
            dying = one.waiting_for_dying()
            if index in dying if index is not None else len(dying) == len(one.waiting):
                count = 1 if index is not None else len(dying)
                text = "an earlier attempt at it is still being stopped"
                reasons.append(Reason(code="ending", text=text, count=count))
        if not reasons:
            reasons += _slaves(state, job, one)
    return reasons


def _slaves(state: FarmState, job: Job, layer: Layer) -> list[Reason]:
    slaves = list(state.slaves.values())
    if not slaves:
        return [Reason(code="no-slaves", text="no slave has ever linked to this master")]
    counts = Counter(why_not(slave, job, layer) for slave in slaves)
    if counts.pop(None, 0):
        before = sum(1 for other in state.hungry.values() if other.spec.priority > job.spec.priority)
        text = "nothing but its turn"
        return [Reason(code="turn", text=f"{text}: {before} jobs with higher priority wait", count=before)]
    spec = layer.spec
    words = {
        "pool": job.spec.pool,
        "os": " or ".join(spec.needs.os),
        "cores": spec.needs.cores,
        "memory": spec.needs.memory_mb,
        "per_slave": job.spec.max_per_slave,
    }
    total = len(slaves)
    return [
        Reason(
            code=str(code),
            text=f"{count} of {total} slaves {'is' if count == 1 else 'are'} "
            + _SLAVES_SAY[str(code)].format(**words),
            count=count,
        )
        for code, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    ]
