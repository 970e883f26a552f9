"""Frame by frame: which frames of a layer wait for which of another, or each for the one before it.

Rules of this file:
1. A layer's WAITING frames whose own dependencies are not met are in `Layer.held`, the others in
   `Layer.waiting`. Once a layer has a gate, only its `sort` moves frames between the two.
2. A link asks where frames stand each time, and remembers nothing of it. So whatever happened, sorting the
   frames that it may concern is enough.
3. Where two layers are cut alike, who waits for whom is a shift of positions; evenly spaced ranges are
   arithmetic; all else is looked up number by number.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import LayerDepend
from drqueue.proto.ranges import Chunks

if TYPE_CHECKING:
    from drqueue.master.core.layer import Layer

#: Positions start <= i < end.
Stretch = tuple[int, int]


class Link:
    """One frame by frame dependency: of the gate's layer, on `other`."""

    __slots__ = ("_shift", "depend", "ended", "gate", "other", "previous")

    def __init__(self, gate: "Gate", other: "Layer", depend: LayerDepend) -> None:
        self.gate = gate
        self.other = other
        self.depend = depend
        self.ended = depend.until == "ended"
        self.previous = depend.frames == "previous"
        self.fit()

    def fit(self) -> None:
        """Find out again how the two layers' frames lie to each other."""
        self._shift: int | None = -1
        if not self.previous:
            self._shift = shift(self.gate.layer.chunks, self.other.chunks, self.depend.offset)

    def met_sets(self) -> tuple[IntervalSet, ...]:
        """Where the other's frames are that nobody waits for any more."""
        other = self.other
        return (other.done, other.failed, other.cancelled) if self.ended else (other.done,)

    def waiters(self, start: int, end: int) -> list[Stretch]:
        """Positions of the gate's layer that wait for any of these of the other, met or not."""
        if self._shift is None:
            return spread(self.other.chunks, start, end, -self.depend.offset, self.gate.layer.chunks)
        low, high = max(0, start - self._shift), min(self.gate.layer.size, end - self._shift)
        return [(low, high)] if low < high else []

    def met(self, index: int) -> bool:
        """Whether nobody waits any more for the other's frame at this position."""
        return any(index in one for one in self.met_sets())

    def waits(self, index: int) -> bool:
        """Whether the frame at this position of the gate's layer still waits for something of the other."""
        if self._shift is not None:
            index += self._shift
            return 0 <= index < self.other.size and not self.met(index)
        # From the end: mostly frames are over in their order, so that one of the last is soon found.
        there, offset = self.other.chunks, self.depend.offset
        for number in reversed(self.gate.layer.chunks.members(index)):
            at = there.chunk_of(number + offset)
            if at is not None and not self.met(at):
                return True
        return False

    def unmet(self, index: int) -> list[Stretch]:
        """Positions of the other layer that the frame at this one still waits for."""
        there, offset = self.other.chunks, self.depend.offset
        if self._shift is not None:
            at = index + self._shift
            return [(at, at + 1)] if self.waits(index) else []
        found = {there.chunk_of(number + offset) for number in self.gate.layer.chunks.members(index)}
        return joined((at, at + 1) for at in found if at is not None and not self.met(at))

    def shut(self, start: int, end: int) -> list[Stretch]:
        """Positions of the gate's layer, of these, that still wait for something of the other."""
        if end - start == 1:
            return [(start, end)] if self.waits(start) else []
        low, high = self._reach(start, end)
        unmet = gaps(self.met_sets(), low, high)
        found = (piece for gap in unmet for piece in self.waiters(*gap))
        return [(max(start, low), min(end, high)) for low, high in found if low < end and high > start]

    def _reach(self, start: int, end: int) -> Stretch:
        """Between which positions of the other layer all lie that any of these wait for."""
        here, there = self.gate.layer.chunks, self.other.chunks
        if self._shift is not None:
            return max(0, start + self._shift), min(self.other.size, end + self._shift)
        if here.frames.single is None or there.frames.single is None:
            return 0, self.other.size
        ends = (here.members(start)[0], here.members(end - 1)[-1])
        return between(there, min(ends) + self.depend.offset, max(ends) + self.depend.offset) or (0, 0)

    def changed(self, start: int, end: int) -> None:
        """These of the other layer were met just now, or are met no more."""
        for low, high in self.waiters(start, end):
            if high - low == 1 and low in self.gate.layer.held:
                self.gate.release(low)
            else:
                self.gate.sort(low, high)


class Gate:
    """What the frames of one layer wait for, one by one."""

    __slots__ = ("layer", "links")

    def __init__(self, layer: "Layer") -> None:
        self.layer = layer
        self.links: list[Link] = []

    def shut(self, start: int, end: int) -> list[Stretch]:
        """Positions, of these, whose own dependencies are not all met."""
        if len(self.links) == 1:
            return joined(self.links[0].shut(start, end))
        return joined([piece for link in self.links for piece in link.shut(start, end)])

    def sort(self, start: int, end: int) -> None:
        """Put the WAITING ones of these positions where they belong."""
        layer = self.layer
        if end - start == 1 and start not in layer.held and start not in layer.waiting:
            return
        shut = self.shut(start, end)
        opening = without(layer.held.within(start, end), shut)
        closing = [piece for low, high in shut for piece in layer.waiting.within(low, high)]
        for low, high in closing:
            layer.waiting.discard_range(low, high)
            layer.held.add_range(low, high)
        for low, high in opening:
            layer.held.discard_range(low, high)
            layer.waiting.add_range(low, high)
            layer.order.came_back(low, high)
        if opening or closing:
            state = layer.job.state
            layer.eligible.all_since(opening, state.wall(state.now))
            state.changed_jobs.add(layer.job.id)
            state.want_schedule = True
            layer.job.note_waiting()

    def release(self, index: int) -> None:
        """As `sort`, for one that is held."""
        if any(link.waits(index) for link in self.links):
            return
        layer, job = self.layer, self.layer.job
        state = job.state
        first = not layer.waiting
        layer.held.discard(index)
        layer.waiting.add(index)
        layer.order.came_back(index)
        layer.eligible.since(index, state.wall(state.now))
        state.changed_jobs.add(job.id)
        state.want_schedule = True
        if first:
            job.note_waiting()
        else:
            state.lanes.refresh(layer)


def shift(one: Chunks, two: Chunks, offset: int) -> int | None:
    """What to add to a position of `one` for that of `two` with the numbers `offset` higher; None where that
    differs from frame to frame."""
    if not offset and one == two:
        return 0
    here, there = one.frames.single, two.frames.single
    if here is None or there is None or one.size != two.size or here[2] != there[2]:
        return None
    apart, rest = divmod(here[0] + offset - there[0], here[2] * one.size)
    return None if rest else apart


def spread(one: Chunks, start: int, end: int, offset: int, two: Chunks) -> list[Stretch]:
    """Positions of `two` that hold any number of these of `one`, plus `offset`."""
    first, count = one.position_of(start), one.pictures(start, end)
    frames = one.frames
    here, there = frames.single, two.frames.single
    if count > 1 and here is not None and there is not None:
        low, high = sorted((frames[first] + offset, frames[first + count - 1] + offset))
        if not there[2] % here[2] and not (there[0] - low) % here[2]:
            # All of the other's numbers between the two are meant.
            found = between(two, low, high)
            return [found] if found is not None else []
    numbers = (frames[at] + offset for at in range(first, first + count))
    positions = {at for at in map(two.chunk_of, numbers) if at is not None}
    return joined((at, at + 1) for at in positions)


def between(chunks: Chunks, low: int, high: int) -> Stretch | None:
    """The positions of an evenly spaced range that hold any of its numbers from `low` to `high`."""
    frames = chunks.frames
    assert frames.single is not None
    start, _end, step = frames.single
    low = max(low, frames.min)
    low += (start - low) % abs(step)
    high = min(high, frames.max)
    high -= (high - start) % abs(step)
    if low > high:
        return None
    ends = sorted(at for at in (chunks.chunk_of(low), chunks.chunk_of(high)) if at is not None)
    return ends[0], ends[-1] + 1


def gaps(sets: Sequence[IntervalSet], start: int, end: int) -> list[Stretch]:
    """What of start <= i < end is in none of the sets."""
    pieces = sets[0].within(start, end)
    if len(sets) > 1:
        pieces = sorted(piece for one in sets for piece in one.within(start, end))
    found = []
    at = start
    for low, high in pieces:
        if low > at:
            found.append((at, low))
        at = max(at, high)
    if at < end:
        found.append((at, end))
    return found


def joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same positions in ascending stretches that neither touch nor overlap."""
    found: list[Stretch] = []
    for low, high in sorted(stretches):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def without(pieces: list[Stretch], gone: list[Stretch]) -> list[Stretch]:
    """What of the pieces is in none of the others; both ascend."""
    if not pieces or not gone:
        return pieces
    left = IntervalSet(pieces)
    left.difference_update(IntervalSet(gone))
    return list(left.intervals())
