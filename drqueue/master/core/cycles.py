"""Whom a job would wait for: nobody that does not exist, and nobody that waits for it.

Frames wait for frames, but rings are looked for among whole layers: a layer waits for those that it names,
and for whatever its job waits for; a job is over when all its layers are.
"""

from collections.abc import Callable, Iterator

from drqueue.master.core.state import FarmState
from drqueue.proto.model import Depend, JobSpec, LayerDepend

#: A job, and one of its layers, or one of these two.
Node = tuple[int, int]
_BEGIN = -2
_WHOLE = -1


def dangling(state: FarmState, spec: JobSpec) -> tuple[str, str] | None:
    """A code and a sentence on the first job, or layer of another job, that a job depends on in vain."""
    named: list[Depend | LayerDepend] = [*spec.depends, *(d for layer in spec.layers for d in layer.depends)]
    for depend in named:
        if depend.job is None:
            continue
        parent = state.jobs.get(depend.job)
        if parent is None or parent.deleted:
            return "no-such-job", f"it depends on job {depend.job}, which does not exist"
        if depend.layer and parent.layer_named(depend.layer) is None:
            names = ", ".join(layer.spec.name for layer in parent.layers)
            text = f"it depends on layer {depend.layer!r} of job {depend.job}, which has only {names}"
            return "no-such-layer", text
    return None


def cycle(state: FarmState, number: int, spec: JobSpec) -> str | None:
    """A sentence on who would wait for each other, were this the spec of the job of that number."""

    def spec_of(job: int) -> JobSpec | None:
        if job == number:
            return spec
        found = state.jobs.get(job)
        return None if found is None or found.deleted else found.spec

    ring = _ring((number, _WHOLE), lambda node: _waits_for(node, spec_of))
    if not ring:
        return None
    own = next((at for at, (job, layer) in enumerate(ring) if job == number and layer >= 0), 0)
    names = _names([*ring[own:], *ring[:own]], spec_of)
    if len(names) == 2 and names[0] == names[1]:
        what = f"layer {names[0].partition('/')[2]}" if "/" in names[0] else f"job {number}"
        return f"{what} would wait for itself"
    return f"these would wait for each other: {' -> '.join(names)}"


def _waits_for(node: Node, spec_of: Callable[[int], JobSpec | None]) -> Iterator[Node]:
    job, layer = node
    spec = spec_of(job)
    if spec is None:
        return
    if layer == _WHOLE:
        yield from ((job, index) for index in range(len(spec.layers)))
    elif layer == _BEGIN:
        for depend in spec.depends:
            yield depend.job, _index(spec_of(depend.job), depend.layer) if depend.layer else _WHOLE
    else:
        if spec.depends:
            yield job, _BEGIN
        for name in spec.layers[layer].after:
            yield job, _index(spec, name)
        for each in spec.layers[layer].depends:
            if each.frames != "previous":
                other = job if each.job is None else each.job
                yield other, _index(spec_of(other), each.layer)


def _index(spec: JobSpec | None, name: str) -> int:
    """Where the layer of that name stands; the first one for "", and where there is none."""
    names = [layer.name for layer in spec.layers] if spec is not None else []
    return names.index(name) if name in names else 0


def _ring(start: Node, waits_for: Callable[[Node], Iterator[Node]]) -> list[Node]:
    """Nodes of which each waits for the next, and the last for the first; [] where there is no such ring."""
    over: set[Node] = set()
    trail: dict[Node, Iterator[Node]] = {start: waits_for(start)}
    while trail:
        node, rest = next(reversed(trail.items()))
        following = next(rest, None)
        if following is None:
            del trail[node]
            over.add(node)
        elif following in trail:
            path = list(trail)
            return path[path.index(following) :]
        elif following not in over:
            trail[following] = waits_for(following)
    return []


def _names(ring: list[Node], spec_of: Callable[[int], JobSpec | None]) -> list[str]:
    """What people are told of a ring, its first name once more at its end: `12/render`, or `13` for a job."""
    names = []
    for at, (job, layer) in enumerate(ring):
        if layer < 0:
            continue
        spec = spec_of(job)
        whole = ring[at - 1] == (job, _WHOLE) and ring[(at + 1) % len(ring)] == (job, _BEGIN)
        names.append(str(job) if whole or spec is None else f"{job}/{spec.layers[layer].name}")
    return [*names, names[0]]
