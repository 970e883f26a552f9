"""What jobs and layers may wait for, in sentences. PURE."""

from collections.abc import Iterator, Sequence
from typing import Final

from drqueue.proto.checks_text import shown
from drqueue.proto.model import Depend, LayerDepend, LayerSpec

#: Of one layer.
MAX_LAYER_DEPENDS: Final = 100
#: What `each` may lie apart: frames have no numbers that are longer.
MAX_OFFSET: Final = 10**15


def depends_problems(depends: Sequence[Depend]) -> Iterator[str]:
    """What is wrong with the jobs that a job waits for; whether there are such jobs the master says."""
    for depend in depends:
        where = f"the dependency on job {depend.job}"
        if depend.frames != "percent" and depend.percent != 100:
            yield f'{where} has a percentage, but its frames are {depend.frames!r}, not "percent"'
        if len(depend.layer) > 127:
            yield f"{where}: no layer is called {shown(depend.layer)}"


def layer_depends_problems(layers: Sequence[LayerSpec]) -> Iterator[str]:
    """What is wrong with what the layers of a job wait for."""
    names = {layer.name for layer in layers}
    for layer in layers:
        for other in layer.after:
            if other not in names:
                yield f"layer {layer.name!r} comes after {shown(other)}, which is no layer of this job"
        if len(layer.depends) > MAX_LAYER_DEPENDS:
            yield (
                f"layer {layer.name!r} has {len(layer.depends)} dependencies, {MAX_LAYER_DEPENDS} are allowed"
            )
        for depend in layer.depends:
            yield from _depend_problems(layer, depend, names)
    cycle = layer_cycle(layers)
    if cycle:
        yield f"layers wait for each other in a circle: {' -> '.join(cycle)}"


def _depend_problems(layer: LayerSpec, depend: LayerDepend, names: set[str]) -> Iterator[str]:
    where = f"layer {layer.name!r}: a dependency"
    if depend.frames == "previous":
        if depend.job is not None or depend.layer not in ("", layer.name):
            yield f'{where} on "previous" frames is on the layer itself: it names no other one, and no job'
    elif depend.job is None and not depend.layer:
        yield f"{where} names neither a layer nor a job"
    elif depend.job is None and depend.layer not in names:
        yield f"{where} is on {shown(depend.layer)}, which is no layer of this job"
    elif depend.job is None and depend.layer == layer.name:
        yield f'{where} is on the layer itself: only "previous" frames may be waited for so'
    if len(depend.layer) > 127:
        yield f"{where}: no layer is called {shown(depend.layer)}"
    if depend.frames != "percent" and depend.percent != 100:
        yield f'{where} has a percentage, but its frames are {depend.frames!r}, not "percent"'
    if depend.frames != "each" and depend.offset:
        yield f'{where} has an offset, but its frames are {depend.frames!r}, not "each"'
    if abs(depend.offset) > MAX_OFFSET:
        yield f"{where}: an offset of {depend.offset} is more than any two frames lie apart"


def layer_cycle(layers: Sequence[LayerSpec]) -> list[str]:
    """Names of layers that wait for each other in a circle (first repeated at the end), or [].

    Frames that wait for the one before them in their own layer are none.
    """
    waits_for = {
        layer.name: (
            *layer.after,
            *(each.layer for each in layer.depends if each.job is None and each.frames != "previous"),
        )
        for layer in layers
    }
    over: set[str] = set()
    for start, first in waits_for.items():
        trail: list[str] = []
        stack = [(start, iter(first))]
        trail.append(start)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                trail.pop()
                over.add(name)
            elif following in trail:
                return [*trail[trail.index(following) :], following]
            elif following not in over and following in waits_for:
                stack.append((following, iter(waits_for[following])))
                trail.append(following)
    return []
