"""In which order the waiting frames of a layer go. PURE.

Rules of this file:
* What waits is the layer's to know: an order is told of nothing but what waits *again*, and is asked with
  what waits now. It never takes anything out.
* Forward and reverse keep nothing. The others walk their sequence once: a place that was passed is looked at
  again only when its frame came back. Each question costs amortised O(log n), whatever lies between.
* Nothing is spent per frame up front; of a list of frames, which `order_text` bounds, nothing but its places.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final, final

from drqueue.proto.intervals import IntervalSet
from drqueue.proto.order_text import ORDERS
from drqueue.proto.ranges import Chunks, FrameRange

#: Of a chunk with more members than this its place in a list is kept when met, not looked up for all of them.
_LOOKED_UP: Final = 64
#: When more than so many come back at once, the walk begins anew.
_MANY: Final = 1000


@final
class FrameOrder:
    """The order of a layer's chunks: those with frames of `next`, then as `order` says (see `order_text`)."""

    __slots__ = ("_lists", "_reverse", "_walks")

    def __init__(self, chunks: Chunks, order: str = "forward", next: str = "") -> None:
        """Raises RangeError where a text is no frame range."""
        lists = [text for text in (next, "" if order in ORDERS else order) if text]
        self._lists: list[_List] = [_List(chunks, text) for text in lists]
        self._walks: list[_Walk] = [*self._lists]
        if order == "coarse":
            self._walks.append(_Coarse(len(chunks)))
        self._reverse = order == "reverse"

    def first(self, waiting: IntervalSet) -> int | None:
        """The position that goes first of those waiting; None where there is none."""
        if not waiting:
            return None
        for walk in self._walks:
            found = walk.first(waiting)
            if found is not None:
                return found
        return waiting.last() if self._reverse else waiting.first()

    def each(self, waiting: IntervalSet) -> Iterator[int]:
        """All waiting positions in order; neither they nor the order may change meanwhile."""
        told: set[int] = set()
        for walk in self._walks:
            for position in walk.each(waiting):
                if position not in told:
                    told.add(position)
                    yield position
        for position in reversed(waiting) if self._reverse else waiting:
            if position not in told:
                yield position

    def came_back(self, start: int, end: int | None = None) -> None:
        """A position is waiting that was not before, or (`end`) some of start <= position < end are."""
        end = start + 1 if end is None else end
        for walk in self._walks:
            if end - start > _MANY:
                walk.restart()
            else:
                for position in range(start, end):
                    walk.came_back(position)


class _Walk(ABC):
    """A sequence of positions, walked along once; places (ranks) in it are counted from 0."""

    __slots__ = ("_again", "_back", "_rank")

    def __init__(self) -> None:
        #: All before it was passed; what came back since waits in a heap.
        self._rank = 0
        self._back: list[int] = []
        self._again: set[int] = set()

    @abstractmethod
    def at(self, rank: int) -> int | None:
        """The position at that place; None where the layer has no such frame."""

    @abstractmethod
    def rank_of(self, position: int) -> int | None:
        """The first place of a position among those that were passed; None where it has none."""

    @abstractmethod
    def seek(self, waiting: IntervalSet, rank: int) -> tuple[int, int | None]:
        """The first place from `rank` on at which a waiting position stands, and that; the end and None."""

    def first(self, waiting: IntervalSet) -> int | None:
        while self._back:
            position = self.at(self._back[0])
            if position is not None and position in waiting:
                return position
            self._again.discard(heappop(self._back))
        self._rank, found = self.seek(waiting, self._rank)
        return found

    def each(self, waiting: IntervalSet) -> Iterator[int]:
        for rank in sorted(self._back):
            position = self.at(rank)
            if position is not None and position in waiting:
                yield position
        rank, found = self.seek(waiting, self._rank)
        while found is not None:
            yield found
            rank, found = self.seek(waiting, rank + 1)

    def came_back(self, position: int) -> None:
        rank = self.rank_of(position)
        if rank is not None and rank < self._rank and rank not in self._again:
            self._again.add(rank)
            heappush(self._back, rank)

    def restart(self) -> None:
        self._rank = 0
        self._back.clear()
        self._again.clear()


@final
class _List(_Walk):
    """The chunks of a list of frames, each at the place of the first of its frames."""

    __slots__ = ("_chunks", "_frames", "_met")

    def __init__(self, chunks: Chunks, text: str) -> None:
        super().__init__()
        self._chunks = chunks
        self._frames = FrameRange.parse(text)
        #: Of large chunks: where they were met first.
        self._met: dict[int, int] = {}

    def at(self, rank: int) -> int | None:
        return self._chunks.chunk_of(self._frames[rank])

    def rank_of(self, position: int) -> int | None:
        if self._chunks.size > _LOOKED_UP:
            return self._met.get(position)
        places = map(self._frames.position, self._chunks.members(position))
        return min((place for place in places if place is not None), default=None)

    def seek(self, waiting: IntervalSet, rank: int) -> tuple[int, int | None]:
        large = self._chunks.size > _LOOKED_UP
        while rank < len(self._frames):
            position = self.at(rank)
            if position is not None:
                if large:
                    self._met.setdefault(position, rank)
                if position in waiting:
                    return rank, position
            rank += 1
        return rank, None


@final
class _Coarse(_Walk):
    """0, the last one, then odd multiples of falling powers of two: each pass halves the gaps of the last."""

    __slots__ = ("_last", "_starts", "_top")

    def __init__(self, size: int) -> None:
        super().__init__()
        self._last = size - 1
        #: The highest power of two, as its exponent, and the places at which the passes begin, and end.
        self._top = max(self._last - 1, 0).bit_length() - 1
        self._starts = [min(size, 2)]
        for exponent in range(self._top, -1, -1):
            inside = ((self._last - 1 >> exponent) + 1) // 2
            self._starts.append(self._starts[-1] + inside)

    def at(self, rank: int) -> int | None:
        if rank < 2:
            return self._last * rank
        which = bisect_right(self._starts, rank) - 1
        return (2 * (rank - self._starts[which]) + 1) << (self._top - which)

    def rank_of(self, position: int) -> int | None:
        if position in (0, self._last):
            return 1 if position else 0
        exponent = (position & -position).bit_length() - 1
        return self._starts[self._top - exponent] + (position >> (exponent + 1))

    def seek(self, waiting: IntervalSet, rank: int) -> tuple[int, int | None]:
        while rank < min(2, self._starts[0]):
            position = self._last * rank
            if position in waiting:
                return rank, position
            rank += 1
        which = bisect_right(self._starts, rank) - 1
        while which < len(self._starts) - 1:
            exponent = self._top - which
            position = (2 * (rank - self._starts[which]) + 1) << exponent
            # Nothing before the next waiting position needs a look.
            found = waiting.next_from(position)
            while found is not None and found < self._last:
                if found == position:
                    return rank, found
                rest = (found - (1 << exponent) + (2 << exponent) - 1) >> (exponent + 1)
                position = (2 * rest + 1) << exponent
                rank = self._starts[which] + rest
                found = waiting.next_from(position)
            which += 1
            rank = self._starts[which]
        return rank, None
