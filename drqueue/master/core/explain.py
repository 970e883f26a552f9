"""Why a job or a frame waits, in words, from the very checks that place frames."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from drqueue.master.core.layer import Attempt, Layer
from drqueue.master.core.leases import give_up_at
from drqueue.master.core.placement import why_not
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.ranges import format_numbers
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
#: Frame numbers looked at, and characters shown of them, where a sentence names frames.
_NUMBERS_MOST = 1000
_NUMBERS_SHOWN = 60


def why(turn: Turn, job: Job, layer: Layer | None, index: int | None) -> list[Reason]:
    """Reasons, most telling first; [] where nothing waits, and nothing failed."""
    state = turn.state
    asked = [layer] if layer is not None else job.layers
    if index is not None and layer is not None and layer.state_of(index) != "WAITING":
        return _not_waiting(turn, layer, index)
    layers = [x for x in asked if x.waiting or x.delayed]
    if not layers:
        failed = sum(len(x.failed) for x in asked)
        if not failed:
            return []
        text = f"nothing waits, but {_many(failed, 'frame')} failed with no retries left"
        text += " (drqueue frames shows which)"
        return [Reason(code="failed", text=text, count=failed)]
    reasons = list(_of_job(state, job, sum(len(x.waiting) + len(x.delayed) for x in layers)))
    for one in layers:
        reasons += _of_layer(turn, one, index)
        if not reasons:
            reasons += _slaves(state, job, one)
    return reasons


def _not_waiting(turn: Turn, layer: Layer, index: int) -> list[Reason]:
    attempt = layer.live.get(index)
    if attempt is None and index in layer.failed:
        text = "it failed, and its retries are used up (see its log; frame requeue tries again)"
        return [Reason(code="failed", text=text, count=1)]
    if attempt is not None and attempt.waits and attempt.slave.link is not None:
        text = f"it was sent ahead to slave {attempt.slave.name}, and waits for a place there"
        return [Reason(code="turn", text=text)]
    if attempt is None or attempt.slave.link is not None:
        return []
    return [Reason(code="unreachable", text=_unreachable(turn, attempt), count=1)]


def _unreachable(turn: Turn, attempt: Attempt) -> str:
    text = f"it may still run on slave {attempt.slave.name}, which cannot be reached: it goes elsewhere "
    until = give_up_at(turn.state, attempt, turn.policy.requeue_fast_s)
    if until is None:
        return text + "only when that slave is declared dead, for its job says to hold on to it"
    return text + f"when that slave's lease ends, in {_span(until - turn.now)}, or when it is declared dead"


def _of_job(state: FarmState, job: Job, waiting: int) -> Iterator[Reason]:
    if job.stopped:
        yield Reason(code="stopped", text="the job is stopped (drqueue continue)", count=waiting)
    if job.waits_for:
        parents = [state.jobs.get(d.job) for d in job.spec.depends if job.waits_for == f"job {d.job}"]
        over = [layer for parent in parents if parent is not None for layer in parent.layers]
        code = "dependency" if job.waits_for.startswith("job ") else "not-before"
        yield Reason(code=code, text=f"it waits for {job.waits_for}{_over_badly(over)}", count=waiting)
    limit = job.spec.max_running
    if limit and job.live >= limit:
        text = f"the job runs {_many(job.live, 'frame')}, its limit is {limit}"
        yield Reason(code="max-running", text=text)


def _of_layer(turn: Turn, layer: Layer, index: int | None) -> Iterator[Reason]:
    if layer.blocked:
        other = layer.job.layer_named(layer.blocked)
        yield Reason(
            code="dependency",
            text=f"layer {layer.spec.name} waits for layer {layer.blocked}"
            + _over_badly([other] if other is not None else []),
            count=len(layer.waiting),
        )
    if layer.delayed and (index is None or index in layer.delayed):
        soonest = layer.delayed[index] if index is not None else min(layer.delayed.values())
        yield Reason(
            code="back-off",
            text=f"it failed, and is tried again in {max(0.0, soonest - turn.now):.0f} s",
            count=1 if index is not None else len(layer.delayed),
        )
    if layer.dying:
        dying = layer.waiting_for_dying()
        if index in dying if index is not None else len(dying) == len(layer.waiting):
            count = 1 if index is not None else len(dying)
            yield Reason(code="ending", text="an earlier attempt at it is still being stopped", count=count)


def _over_badly(layers: list[Layer]) -> str:
    """What of those waited for will not be done by itself, as the end of a sentence."""
    parts: list[str] = []
    total = 0
    for words, which in (("failed", "failed"), ("was cancelled", "cancelled")):
        sets: list[tuple[Layer, IntervalSet]] = [(layer, getattr(layer, which)) for layer in layers]
        count = sum(layer.chunks.pictures(a, b) for layer, found in sets for a, b in found.intervals())
        if not count:
            continue
        total += count
        words = words if count == 1 else words.replace("was ", "were ")
        # Numbers of several layers together would say nothing.
        shown = f" ({_numbers(*sets[0])})" if len(sets) == 1 else ""
        parts.append(f"{_many(count, 'frame')} {words}{shown}")
    if not parts:
        return ""
    return f", of which {' and '.join(parts)}: requeue or finish {'it' if total == 1 else 'them'}"


def _numbers(layer: Layer, positions: IntervalSet) -> str:
    members = chain.from_iterable(layer.chunks.members(index) for index in positions)
    text = format_numbers(islice(members, _NUMBERS_MOST))
    return text if len(text) <= _NUMBERS_SHOWN else text[: _NUMBERS_SHOWN - 3] + "..."


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _span(seconds: float) -> str:
    """A time to wait in words, rounded up: `45 s`, `31 min`, `24 h`."""
    left = max(0, -int(-seconds // 1))
    for size, word in ((7200, "h"), (120, "min")):
        if left >= size:
            unit = 3600 if word == "h" else 60
            return f"{-(-left // unit)} {word}"
    return f"{left} s"


def _slaves(state: FarmState, job: Job, layer: Layer) -> list[Reason]:
    slaves = list(state.slaves.values())
    if not slaves:
        return [Reason(code="no-slaves", text="no slave has ever linked to this master")]
    counts = Counter(why_not(slave, job, layer) for slave in slaves)
    if counts.pop(None, 0):
        before = sum(1 for other in state.hungry.values() if other.spec.priority > job.spec.priority)
        text = "it waits for nothing but its turn"
        if before:
            text += f": {_many(before, 'job')} with higher priority {'waits' if before == 1 else 'wait'}"
        return [Reason(code="turn", text=text, count=before)]
    spec = layer.spec
    words = {
        "pool": job.spec.pool,
        "os": " or ".join(spec.needs.os),
        "cores": spec.needs.cores,
        "memory": max(spec.needs.memory_mb, spec.needs.machine_memory_mb),
        "per_slave": job.spec.max_per_slave,
    }
    total = _many(len(slaves), "slave")
    return [
        Reason(
            code=str(code),
            text=f"{count} of {total} {'is' if count == 1 else 'are'} "
            + _SLAVES_SAY[str(code)].format(**words),
            count=count,
        )
        for code, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    ]
