"""Whom the deletion of a job takes along: what still waited for it, whatever waited for that, and so on.

Only a wait for frames that are DONE is in vain once these are cancelled; where any end will do, that was one.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import structs

from drqueue.master.core.attempts import ask_stop
from drqueue.master.core.depends import Goal, recheck, take_spec, unwire
from drqueue.master.core.gates import Stretch
from drqueue.master.core.layer import Layer
from drqueue.master.core.records import FramesForget
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.model import JobSpec, LayerSpec


def waiting_for(state: FarmState, job: Job) -> list[Job]:
    """Jobs of which anything waits for this one now, by id: its deletion cancels that."""
    children = [state.jobs[number] for number in sorted(state.dependents.get(job.id, ()))]
    return [child for child in children if any(True for _ in _of(child, job))]


def leave(turn: Turn, job: Job) -> None:
    """A job is deleted: cancel what still waits for it, what waits for that, and so on; the rest goes on."""
    state = turn.state
    todo = deque([one for child in waiting_for(state, job) for one in _of(child, job)])
    while todo:
        layer, pieces = todo.popleft()
        gone = _cancel(turn, layer, pieces)
        if gone:
            state.unsettled.add(layer.job.id)
            todo.extend(_behind(state, layer, gone))
    for number in sorted(state.dependents.get(job.id, ())):
        child = state.jobs[number]
        take_spec(state, child, _without(child.spec, job.id))
        recheck(turn, child)
    unwire(state, job)


def _of(child: Job, parent: Job) -> Iterator[tuple[Layer, list[Stretch]]]:
    """What of a job waits for another: positions of its layers."""
    if any(wait.goal.job is parent and not wait.goal.reached() for wait in child.waits):
        yield from ((layer, [(0, layer.size)]) for layer in child.layers)
        return
    for layer in child.layers:
        if any(wait.goal.job is parent and not wait.goal.reached() for wait in layer.waits):
            yield layer, [(0, layer.size)]
            continue
        for link in layer.gate.links if layer.gate is not None else ():
            if link.other.job is parent and (pieces := link.shut(0, layer.size)):
                yield layer, pieces


def _behind(state: FarmState, layer: Layer, gone: list[Stretch]) -> Iterator[tuple[Layer, list[Stretch]]]:
    """What waits, in vain, for these positions of a layer, which were cancelled."""
    for goal in layer.job.goals.values():
        if goal.ended or layer not in goal.layers or _within_reach(goal):
            continue
        for child in [state.jobs[number] for number in sorted(goal.waiters)]:
            whole = any(wait.goal is goal for wait in child.waits)
            for one in child.layers:
                if whole or any(wait.goal is goal for wait in one.waits):
                    yield one, [(0, one.size)]
    for link in layer.watchers:
        if link.previous and not link.ended:
            # One waits for the other, up to the next that is done.
            ends = [(end, layer.done.next_from(end)) for _start, end in gone]
            yield layer, [(start, layer.size if end is None else end) for start, end in ends]
        elif not link.ended:
            yield link.gate.layer, [piece for start, end in gone for piece in link.waiters(start, end)]


def _within_reach(goal: Goal) -> bool:
    """Whether it is met, or might be by frames that wait or run."""
    coming = sum(
        len(layer.waiting) + len(layer.held) + len(layer.delayed)
        + sum(attempt.stop != "cancel" for attempt in layer.live.values())
        for layer in goal.layers
    )  # fmt: skip
    return goal.over + coming >= goal.wanted


def _cancel(turn: Turn, layer: Layer, pieces: list[Stretch]) -> list[Stretch]:
    """Frames that wait are cancelled, those that run stopped; which of the positions these are."""
    state, gone = turn.state, []
    for index in [i for i in layer.delayed if any(start <= i < end for start, end in pieces)]:
        layer.due(index)
    for start, end in pieces:
        for low, high in sorted((*layer.waiting.within(start, end), *layer.held.within(start, end))):
            layer.move(low, high, "WAITING", "CANCELLED")
            state.save.append(FramesForget(layer.job.id, layer.index, low, high))
            gone.append((low, high))
    if gone:
        layer.floor = max(layer.floor, layer.top)
        state.save.append(layer.record())
    for at, attempt in list(layer.live.items()):
        if attempt.stop != "cancel" and any(start <= at < end for start, end in pieces):
            ask_stop(state, attempt, "cancel", turn.stop)
            gone.append((at, at + 1))
    if gone:
        state.changed_jobs.add(layer.job.id)
    return gone


def _without(spec: JobSpec, number: int) -> JobSpec:
    """A spec that does not depend on that job."""

    def layer_without(layer: LayerSpec) -> LayerSpec:
        left = tuple([depend for depend in layer.depends if depend.job != number])
        return layer if left == layer.depends else structs.replace(layer, depends=left)

    depends = tuple([depend for depend in spec.depends if depend.job != number])
    return structs.replace(spec, depends=depends, layers=tuple([layer_without(x) for x in spec.layers]))
