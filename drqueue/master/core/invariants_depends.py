"""What must always hold of dependencies: all of it reckoned again from specs and states, frame by frame."""

from fractions import Fraction

from drqueue.master.core.depends import parents
from drqueue.master.core.layer import Layer
from drqueue.master.core.state import FarmState, Job
from drqueue.proto.model import Depend, LayerDepend


def check_depends(state: FarmState) -> None:
    """AssertionError, with a sentence, on the first thing that does not hold."""
    index: dict[int, set[int]] = {}
    for job in state.jobs.values():
        for layer in job.layers:
            _check_held(state, job, layer)
        if job.deleted:
            assert not job.goals, f"job {job.id} is deleted, and is waited for"
            assert not job.waits, f"job {job.id} is deleted, and waits"
            continue
        for number in parents(job.spec):
            index.setdefault(number, set()).add(job.id)
        named = [depend for depend in job.spec.depends if not _met(state, job, depend)]
        waits = job.waits_for if job.waits_for.startswith("job ") else ""
        assert bool(named) == bool(waits), f"job {job.id} waits for {waits!r}, really for {named}"
        assert all(goal.waiters for goal in job.goals.values()), f"job {job.id}: a goal that nobody has"
        for layer in job.layers:
            whole = [LayerDepend(layer=name) for name in layer.spec.after]
            whole += [d for d in layer.spec.depends if d.frames not in ("each", "previous")]
            unmet = [depend for depend in whole if not _met(state, job, depend)]
            assert bool(unmet) == bool(layer.blocked), (
                f"job {job.id} layer {layer.spec.name} is blocked by {layer.blocked!r}, really by {unmet}"
            )
    kept = {number: children for number, children in state.dependents.items() if children}
    assert kept == index, f"who depends on whom is {index}, not {kept}"


def _parent(state: FarmState, job: Job, depend: Depend | LayerDepend) -> Job | None:
    parent = job if depend.job is None else state.jobs.get(depend.job)
    return None if parent is None or parent.deleted else parent


def _over(layer: Layer, index: int, until: str) -> bool:
    return layer.state_of(index) in (("DONE", "FAILED", "CANCELLED") if until == "ended" else ("DONE",))


def _met(state: FarmState, job: Job, depend: Depend | LayerDepend) -> bool:
    parent = _parent(state, job, depend)
    if parent is None:
        return True
    layers = parent.layers
    if depend.layer or isinstance(depend, LayerDepend):
        layers = [layer for layer in layers if layer.spec.name == depend.layer] or layers[:1]
    over = [_over(layer, index, depend.until) for layer in layers for index in range(layer.size)]
    if depend.frames == "any":
        return any(over)
    if depend.frames == "percent":
        return sum(over) * 100 >= len(over) * Fraction(str(depend.percent))
    return all(over)


def _check_held(state: FarmState, job: Job, layer: Layer) -> None:
    free = set(range(layer.size)) - set(layer.live) - set(layer.delayed)
    waiting = {index for index in free if layer.state_of(index) == "WAITING"}
    held = set()
    for index in waiting if not job.deleted else ():
        if any(not _frame_met(state, job, layer, index, depend) for depend in layer.spec.depends):
            held.add(index)
    assert held == set(layer.held), (
        f"job {job.id} layer {layer.spec.name}: {sorted(layer.held)} are held, really {sorted(held)}"
    )


def _frame_met(state: FarmState, job: Job, layer: Layer, index: int, depend: LayerDepend) -> bool:
    if depend.frames == "previous":
        return index == 0 or _over(layer, index - 1, depend.until)
    parent = _parent(state, job, depend)
    if parent is None or depend.frames != "each":
        return True
    others = [one for one in parent.layers if one.spec.name == depend.layer] or parent.layers[:1]
    wanted = {number + depend.offset for number in layer.chunks.members(index)}
    chunks = others[0].chunks
    return all(
        _over(others[0], at, depend.until) for at in range(others[0].size) if wanted & set(chunks.members(at))
    )
