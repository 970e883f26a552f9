"""Changing the frames of a live layer.

A frame of the new division keeps its state where all its numbers had that state before; a running one
goes on where a new frame has exactly its numbers, else it is stopped. Everything else is WAITING. What a
frame went through (failures, slaves to avoid, back-off) it keeps where it has the same numbers as before.
Attempt numbers start above all earlier ones, so that no two attempts ever share a name.
"""

from msgspec import structs

from drqueue.master.core import depends
from drqueue.master.core.attempt import Attempt, History
from drqueue.master.core.attempts import supersede
from drqueue.master.core.layer import ROWS_MOST, Layer, Resting
from drqueue.master.core.records import FrameRecord, FramesForget
from drqueue.master.core.turn import Turn
from drqueue.proto.ids import FrameKey
from drqueue.proto.ranges import Chunks, FrameRange


def rerange(turn: Turn, layer: Layer, frames: str, chunk: int) -> None:
    """Give the layer these frames; the range was checked."""
    state, job = turn.state, layer.job
    old: Chunks = layer.chunks
    old_size = layer.size
    resting: dict[Resting, set[int]] = {
        name: {number for index in positions for number in old.members(index)}
        for name, positions in layer.sets()
        if name != "WAITING"
    }
    new = Chunks(FrameRange.parse(frames), chunk)
    pasts = [(old.members(i), past, layer.delayed.get(i, 0.0)) for i, past in sorted(layer.history.items())]
    stays: list[tuple[Attempt, int]] = []
    for attempt in list(layer.live.values()):
        index = _same(new, old.members(attempt.index))
        if index is not None:
            stays.append((attempt, index))
        else:
            supersede(turn.state, attempt, "WAITING", "range")
            turn.stop(attempt)

    spec = structs.replace(layer.spec, frames=frames, chunk=chunk)
    specs = list(job.spec.layers)
    specs[layer.index] = spec
    job.spec = structs.replace(job.spec, layers=tuple(specs))
    layer.floor = layer.top
    layer.take_spec(spec)
    layer.live.clear()
    layer.clear_frames()
    # Nobody knows any more which of them waited since when.
    layer.eligible.at = turn.wall
    for attempt, index in stays:
        attempt.index = index
        attempt.frame_key = FrameKey(job.id, layer.index, index)
        layer.waiting.discard(index)
        layer.live[index] = attempt
    for name, numbers in resting.items():
        for index in sorted({i for i in map(new.chunk_of, numbers) if i is not None}):
            if index in layer.waiting and all(number in numbers for number in new.members(index)):
                layer.settle_at(index, name)
    rows: list[FrameRecord] = []
    for members, past, until in pasts:
        index = _same(new, members)
        if index is not None:
            layer.keep_history(index, past, until)
            rows.append(layer.frame_record(index, layer.resting(index), past))
    rows += _strangers_to_reruns(layer, old)
    state.save += [FramesForget(job.id, layer.index, 0, max(old_size, layer.size)), layer.record(), *rows]
    state.save.append(job.record())
    depends.relaid(layer)
    job.note_waiting()
    state.changed_jobs.add(job.id)
    state.unsettled.add(job.id)
    state.want_schedule = True


def _strangers_to_reruns(layer: Layer, old: Chunks) -> list[FrameRecord]:
    """Rows for frames that were not there when the layer was rerun: they did not come back with it.

    None in a layer of more frames than get rows at once.
    """
    if not layer.reruns or layer.size > ROWS_MOST:
        return []
    rows = []
    for index in range(layer.size):
        if index not in layer.history and _same(old, layer.chunks.members(index)) is None:
            past = History(layer.floor, returned=-layer.reruns)
            layer.keep_history(index, past, 0.0)
            rows.append(layer.frame_record(index, layer.resting(index), past))
    return rows


def _same(new: Chunks, members: range) -> int | None:
    """The position of the frame that has exactly these numbers, if there is one."""
    index = new.chunk_of(members[0])
    return index if index is not None and new.members(index) == members else None
