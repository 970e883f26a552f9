"""Sets of positions that cost memory per stretch, not per member.

Rules of this file:
* Stretches [start, end) are kept sorted, never empty and never touching, in two parallel lists; those before
  `_head` are dead. Taking from the low end, putting back there and adding at the high end cost amortised
  constant time; elsewhere a change costs a binary search and a list insertion.
* Members are 0 to MAX_POSITION. Adding others is a bug and raises; asking for or discarding them is fine.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, final

MAX_POSITION: Final = 2**53 - 1
_MAX_VARINT: Final = 8  # bytes: 7 bits each, enough for MAX_POSITION


def _gaps(intervals: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What lies between the intervals, before the first and after the last."""
    free = 0
    for start, end in intervals:
        if start > free:
            yield free, start
        free = end
    yield free, MAX_POSITION + 1


@final
class IntervalSet:
    """A mutable set of non-negative ints, made for long stretches of neighbours."""

    __slots__ = ("_count", "_ends", "_head", "_starts")
    __hash__ = None  # type: ignore[assignment]  # mutable, as `set` is

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        """Hold all of the half-open `intervals`, in whatever order; raises ValueError as `add_range` does."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._head = 0
        self._count = 0
        for start, end in intervals:
            self.add_range(start, end)

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def __contains__(self, member: int) -> bool:
        at = bisect_right(self._starts, member, self._head) - 1
        return at >= self._head and member < self._ends[at]

    def __iter__(self) -> Iterator[int]:
        for start, end in self.intervals():
            yield from range(start, end)

    def __reversed__(self) -> Iterator[int]:
        for at in range(len(self._starts) - 1, self._head - 1, -1):
            yield from range(self._ends[at] - 1, self._starts[at] - 1, -1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return (
            self._count == other._count
            and self._starts[self._head :] == other._starts[other._head :]
            and self._ends[self._head :] == other._ends[other._head :]
        )

    def __repr__(self) -> str:
        return f"IntervalSet({list(self.intervals())})"

    def intervals(self) -> Iterator[tuple[int, int]]:
        """The stretches [start, end), ascending; the set must not be changed meanwhile."""
        for at in range(self._head, len(self._starts)):
            yield self._starts[at], self._ends[at]

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of the stretches lies within start .. end-1, ascending."""
        low = bisect_right(self._ends, start, self._head)
        high = bisect_left(self._starts, end, low)
        found = list(zip(self._starts[low:high], self._ends[low:high], strict=True))
        if not found or start >= end:
            return []
        found[0] = (max(start, found[0][0]), found[0][1])
        found[-1] = (found[-1][0], min(end, found[-1][1]))
        return found

    @property
    def stretches(self) -> int:
        """How many stretches it holds."""
        return len(self._starts) - self._head

    def copy(self) -> "IntervalSet":
        """An independent set with the same members."""
        twin = IntervalSet()
        twin._starts, twin._ends = self._starts[self._head :], self._ends[self._head :]
        twin._count = self._count
        return twin

    def first(self) -> int:
        """The lowest member; raises ValueError where there is none."""
        if not self._count:
            raise ValueError("the set is empty")
        return self._starts[self._head]

    def last(self) -> int:
        """The highest member; raises ValueError where there is none."""
        if not self._count:
            raise ValueError("the set is empty")
        return self._ends[-1] - 1

    def next_from(self, member: int) -> int | None:
        """The lowest member that is not below `member`; None where there is none."""
        at = bisect_right(self._ends, member, self._head)
        return max(member, self._starts[at]) if at < len(self._ends) else None

    def pop_first(self) -> int:
        """Take out the lowest member and return it; raises ValueError where there is none."""
        member = self.first()
        head = self._head
        if self._ends[head] - member > 1:
            self._starts[head] = member + 1
            self._count -= 1
        else:
            self._replace(head, head + 1, [], [], -1)
        return member

    def add(self, member: int) -> None:
        """Put `member` in; raises ValueError where it is out of bounds."""
        ends = self._ends
        if ends and ends[-1] == member < MAX_POSITION:
            # What ends in order makes the last stretch longer.
            ends[-1] = member + 1
            self._count += 1
        else:
            self.add_range(member, member + 1)

    def add_range(self, start: int, end: int) -> None:
        """Put start .. end-1 in (none where end <= start); raises ValueError where they are out of bounds."""
        if start >= end:
            return
        if start < 0 or end > MAX_POSITION + 1:
            raise ValueError(f"positions {start} to {end - 1} are not within 0 to {MAX_POSITION}")
        low = bisect_left(self._ends, start, self._head)
        high = bisect_right(self._starts, end, self._head)
        held = 0
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
            held = sum(self._ends[low:high]) - sum(self._starts[low:high])
        self._replace(low, high, [start], [end], end - start - held)

    def discard(self, member: int) -> None:
        """Take `member` out, if it is in."""
        head = self._head
        if self._count and self._starts[head] == member and self._ends[head] - member > 1:
            # What begins in order makes the first stretch shorter.
            self._starts[head] = member + 1
            self._count -= 1
        else:
            self.discard_range(member, member + 1)

    def discard_range(self, start: int, end: int) -> None:
        """Take out whatever is in of start .. end-1."""
        low = bisect_right(self._ends, start, self._head)
        high = bisect_left(self._starts, end, self._head)
        if low >= high or start >= end:
            return
        held = sum(self._ends[low:high]) - sum(self._starts[low:high])
        starts, ends = [], []
        kept = 0
        if self._starts[low] < start:
            starts.append(self._starts[low])
            ends.append(start)
            kept += start - self._starts[low]
        if self._ends[high - 1] > end:
            starts.append(end)
            ends.append(self._ends[high - 1])
            kept += self._ends[high - 1] - end
        self._replace(low, high, starts, ends, kept - held)

    def update(self, other: "IntervalSet") -> None:
        """Put in all members of `other`; linear in the stretches of both."""
        starts: list[int] = []
        ends: list[int] = []
        # Two sorted runs: the sort merges them in linear time.
        for start, end in sorted([*self.intervals(), *other.intervals()]):
            if ends and start <= ends[-1]:
                ends[-1] = max(ends[-1], end)
            else:
                starts.append(start)
                ends.append(end)
        self._set(starts, ends)

    def intersection_update(self, other: "IntervalSet") -> None:
        """Keep only members of `other`; linear in the stretches of both."""
        self._keep(other.intervals())

    def difference_update(self, other: "IntervalSet") -> None:
        """Take out all members of `other`; linear in the stretches of both."""
        self._keep(_gaps(other.intervals()))

    def pack(self) -> bytes:
        """The set as bytes, equal for equal sets: varints, by turns what is out and what is in."""
        packed = bytearray()
        free = -1
        for start, end in self.intervals():
            for value in (start - free - 1, end - start - 1):
                while value > 127:
                    packed.append(value & 127 | 128)
                    value >>= 7
                packed.append(value)
            free = end
        return bytes(packed)

    @classmethod
    def unpack(cls, packed: bytes) -> "IntervalSet":
        """Read what `pack` wrote; raises ValueError on anything else; memory follows the input's length."""
        edges: list[int] = []
        edge = -1
        value = shift = 0
        for byte in packed:
            value |= (byte & 127) << shift
            if byte > 127:
                shift += 7
                if shift >= 7 * _MAX_VARINT:
                    raise ValueError("packed positions: a number is too long")
                continue
            if shift and not byte:
                raise ValueError("packed positions: a number is written with needless zeros")
            edge += value + 1
            edges.append(edge)
            value = shift = 0
        if shift or len(edges) % 2:
            raise ValueError("packed positions: the end is missing")
        if edge > MAX_POSITION + 1:
            raise ValueError("packed positions: a position is too high")
        unpacked = cls()
        unpacked._set(edges[::2], edges[1::2])
        return unpacked

    def _set(self, starts: list[int], ends: list[int]) -> None:
        self._starts, self._ends, self._head = starts, ends, 0
        self._count = sum(ends) - sum(starts)

    def _keep(self, wanted: Iterator[tuple[int, int]]) -> None:
        """Intersect with ascending disjoint intervals."""
        starts: list[int] = []
        ends: list[int] = []
        at = self._head
        for low, high in wanted:
            while at < len(self._ends) and self._ends[at] <= low:
                at += 1
            while at < len(self._ends) and self._starts[at] < high:
                starts.append(max(low, self._starts[at]))
                ends.append(min(high, self._ends[at]))
                if self._ends[at] > high:
                    break  # the rest of this stretch may be in the next interval
                at += 1
        self._set(starts, ends)

    def _replace(self, low: int, high: int, starts: list[int], ends: list[int], change: int) -> None:
        """Put new stretches in place of those at low .. high-1; at the head nothing behind them is moved."""
        self._count += change
        if low == self._head < len(self._starts):
            low = self._head = high - len(starts)
            if low < 0:
                room = len(self._starts) // 2 + 8
                self._starts[:0] = self._ends[:0] = [0] * room
                low, high, self._head = low + room, high + room, low + room
        self._starts[low:high] = starts
        self._ends[low:high] = ends
        live = len(self._starts) - self._head
        if not live or self._head > live + 32:
            del self._starts[: self._head], self._ends[: self._head]
            self._head = 0
