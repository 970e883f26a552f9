"""Frame ranges as sequences, and their division into chunks.

Rules of this file:
* Parts that are evenly spaced and disjoint stay symbolic: memory and time are those of the parts. All else is
  expanded once into a packed array; what finds a number in it is made when first asked for.
* A number named twice counts where it came first; parts of which nothing new is left are dropped.
* A position is a place in the range's order, counted from 0.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, compress
from math import gcd
from typing import Final, final

from drqueue.proto.range_text import MAX_FRAMES, Part, RangeError, format_numbers, join_singles, read_parts

__all__ = ["MAX_EXPANDED", "MAX_FRAMES", "Chunks", "FrameRange", "RangeError", "format_numbers"]

MAX_EXPANDED: Final = 1_000_000  # frames of a range that is expanded: 0.2 s of a master that has others, too

_FEW_PARTS: Final = 64  # so few parts are smaller than an array of their numbers
_DENSE: Final = 16  # bytes of scratch memory per frame that finding duplicates may take
_SLACK: Final = 65_536
_PAIRS: Final = 4_096  # overlap tests; parts that need more are expanded instead
_FLIP = bytes((1, 0)) + bytes(254)


def _meet(one: range, two: range) -> bool:
    """Whether two evenly spaced runs share a number (Chinese remainder theorem); either may count down."""
    a, b = (run if run.step > 0 else run[::-1] for run in (one, two))
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    common = gcd(a.step, b.step)
    apart = b[0] - a[0]
    if low > high or apart % common:
        return False
    modulus = b.step // common
    hit = a[0] + a.step * (apart // common * pow(a.step // common, -1, modulus) % modulus)
    return low + (hit - low) % (a.step * modulus) <= high


class _Symbolic:
    """Evenly spaced disjoint runs, one after the other."""

    def __init__(self, runs: Sequence[range]) -> None:
        self.runs = runs
        *self.starts, self.total = accumulate(map(len, runs), initial=0)
        bounds = sorted((min(run[0], run[-1]), max(run[0], run[-1]), k) for k, run in enumerate(runs))
        self.lows = [low for low, _, _ in bounds]
        self.tops = list(accumulate((high for _, high, _ in bounds), max))
        self.order = [k for _, _, k in bounds]

    def reaching(self, number: int, rank: int) -> Iterator[int]:
        """Indices of the runs up to `rank` (in order of their lowest) that may reach up to `number`."""
        while rank >= 0 and self.tops[rank] >= number:
            yield self.order[rank]
            rank -= 1

    def overlaps(self) -> bool:
        """Whether a number is in two runs; also true where finding out would take too long."""
        tests = 0
        for rank, low in enumerate(self.lows):
            for k in self.reaching(low, rank - 1):
                tests += 1
                if tests > _PAIRS or _meet(self.runs[k], self.runs[self.order[rank]]):
                    return True
        return False

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.runs)

    def at(self, position: int) -> int:
        k = bisect_right(self.starts, position) - 1
        return self.runs[k][position - self.starts[k]]

    def find(self, number: int) -> int | None:
        for k in self.reaching(number, bisect_right(self.lows, number) - 1):
            if number in self.runs[k]:
                return self.starts[k] + self.runs[k].index(number)
        return None

    def bounds(self) -> tuple[int, int]:
        return self.lows[0], self.tops[-1]

    def cut(self, size: int) -> "_RunCuts":
        return _RunCuts(self, size)


class _Packed:
    """Numbers written out; `starts` are the positions at which parts begin, `signs` which way each counts."""

    def __init__(self, numbers: "array[int]", starts: Sequence[int], signs: Iterable[int]) -> None:
        self.numbers = numbers
        self.total = len(numbers)
        self.starts = array("I", starts)
        self.signs = array("b", signs)
        self.low, self.high = min(numbers), max(numbers)
        self._table: array[int] | None = (
            None  # positions: by number where they lie densely, else in number order
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def at(self, position: int) -> int:
        return self.numbers[position]

    def find(self, number: int) -> int | None:
        if not self.low <= number <= self.high:
            return None
        value = self.numbers.__getitem__
        if self.high - self.low < 4 * self.total + _SLACK:
            if self._table is None:
                self._table = array("i", (-1,)) * (self.high - self.low + 1)
                for position, each in enumerate(self.numbers):
                    self._table[each - self.low] = position
            position = self._table[number - self.low]
            return None if position < 0 else position
        if self._table is None:
            self._table = array("i", sorted(range(self.total), key=value))
        # The highest number is not below `number`, so there is always a place to look at.
        position = self._table[bisect_left(self._table, number, key=value)]
        return position if value(position) == number else None

    def bounds(self) -> tuple[int, int]:
        return self.low, self.high

    def cut(self, size: int) -> "_ListCuts":
        if size == 1:
            return _ListCuts(range(self.total))
        cuts, numbers = array("I"), self.numbers
        for start, stop, sign in zip(self.starts, [*self.starts[1:], self.total], self.signs, strict=True):
            at = start
            while at < stop:
                cuts.append(at)
                full, end = min(at + size, stop), at + 1
                step = numbers[end] - numbers[at] if end < full else 0
                while end < full and step * sign > 0 and numbers[end] - numbers[end - 1] == step:
                    end += 1
                at = end
        return _ListCuts(cuts)


class _RunCuts:
    """Chunks of symbolic runs: each run is divided from its start."""

    def __init__(self, frames: _Symbolic, size: int) -> None:
        self.starts, self.size = frames.starts, size
        *self.firsts, self.total = accumulate((-(-len(run) // size) for run in frames.runs), initial=0)

    def position_of(self, chunk: int) -> int:
        k = bisect_right(self.firsts, chunk) - 1
        return self.starts[k] + (chunk - self.firsts[k]) * self.size

    def chunk_at(self, position: int) -> int:
        k = bisect_right(self.starts, position) - 1
        return self.firsts[k] + (position - self.starts[k]) // self.size


class _ListCuts:
    """Chunks of written-out numbers: the position of each chunk's first member."""

    def __init__(self, cuts: Sequence[int]) -> None:
        self.cuts, self.total = cuts, len(cuts)

    def position_of(self, chunk: int) -> int:
        return self.cuts[chunk]

    def chunk_at(self, position: int) -> int:
        return bisect_right(self.cuts, position) - 1


def _pack_dense(parts: Sequence[Part], low: int, high: int) -> tuple["array[int]", list[int]]:
    """The numbers, each once, and where each part starts; takes a byte for each number in low..high."""
    seen, numbers, starts = bytearray(high - low + 1), array("q"), []
    for part in parts:
        starts.append(len(numbers))
        for piece in part.pieces():
            stop = piece.start - low + len(piece) * piece.step
            where = slice(piece.start - low, stop if stop >= 0 else None, piece.step)
            taken = seen[where]
            fresh = taken.translate(_FLIP)
            after = bytearray(b"\1") * len(piece)
            if part.kind == "y":
                after[:: part.step] = taken[:: part.step]
                fresh[:: part.step] = bytes(len(fresh[:: part.step]))
            numbers.extend(compress(piece, fresh))
            seen[where] = after
    return numbers, starts


def _pack_sparse(parts: Sequence[Part]) -> tuple["array[int]", list[int]]:
    """As `_pack_dense`; takes about a hundred bytes for each frame, however far apart they are."""
    numbers: dict[int, None] = {}
    starts = []
    for part in parts:
        starts.append(len(numbers))
        numbers.update(dict.fromkeys(part.numbers()))
    return array("q", numbers), starts


def _arrange(parts: Iterable[Part]) -> tuple[list[Part], _Symbolic | _Packed]:
    """The canonical parts and the sequence they stand for."""
    parts = join_singles(parts)
    written = sum(part.size for part in parts)
    few = len(parts) <= _FEW_PARTS or written >= 32 * len(parts)
    if few and all(part.kind == "x" for part in parts):
        symbolic = _Symbolic([part.every for part in parts])
        if not symbolic.overlaps():
            return parts, symbolic
    if written > MAX_EXPANDED:
        raise RangeError(
            f"a range with parts that overlap, or of yN or :N, has at most {MAX_EXPANDED:,} frames,"
            f" not {written:,}"
        )
    low = min(min(part.first, part.last) for part in parts)
    high = max(max(part.first, part.last) for part in parts)
    dense = high - low < _DENSE * written + _SLACK
    numbers, starts = _pack_dense(parts, low, high) if dense else _pack_sparse(parts)
    ends = [*starts[1:], len(numbers)]
    kept = [part for part, start, end in zip(parts, starts, ends, strict=True) if start < end]
    if len(kept) < len(parts):
        return _arrange(kept)
    return parts, _Packed(numbers, starts, (part.sign for part in parts))


@final
class FrameRange:
    """An immutable, never empty sequence of distinct frame numbers in the order they are to be rendered.

    Two are equal when their parts name the same numbers in the same order: `1-9x2` equals `1-10x2`, but not
    `1-5x2,7-9x2`, whose chunks differ.
    """

    __slots__ = ("_frames", "_key", "max", "min", "single", "text")

    text: Final[str]  # canonical and short; parses back to an equal range
    single: Final[tuple[int, int, int] | None]  # (start, end as written, signed step) of a range of one part
    min: Final[int]
    max: Final[int]

    def __init__(self, text: str) -> None:
        """Read `text`; raises RangeError."""
        parts, self._frames = _arrange(read_parts(text))
        self.text = ",".join([part.write(part.last) for part in parts])
        self._key = ",".join([part.write(part.reached) for part in parts])
        self.min, self.max = self._frames.bounds()
        only = parts[0]
        one_run = len(parts) == 1 and only.kind == "x"
        self.single = (only.first, only.last, only.step * only.sign) if one_run else None

    @classmethod
    def parse(cls, text: str) -> "FrameRange":
        """Read what a user wrote; raises RangeError."""
        return cls(text)

    @property
    def symbolic(self) -> bool:
        """Whether no memory is spent per frame."""
        return isinstance(self._frames, _Symbolic)

    def __len__(self) -> int:
        return self._frames.total

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self._frames.total:
            raise IndexError(f"position {position} of a range of {self._frames.total} frames")
        return self._frames.at(position)

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames)

    def position(self, number: int) -> int | None:
        """Where the frame `number` stands; None where it is not in the range."""
        return self._frames.find(number)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self._frames.find(number) is not None

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, FrameRange) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"FrameRange({self.text!r})"


@final
class Chunks:
    """A range cut into chunks: at most `size` consecutive members, evenly spaced, never across parts.

    Each part is cut from its start. Where its numbers are unevenly spaced (`yN`, `:N`, duplicates dropped) a
    chunk takes, from the left, as many as are evenly spaced and run the part's way.
    """

    __slots__ = ("_cuts", "frames", "size")

    frames: Final[FrameRange]
    size: Final[int]

    def __init__(self, frames: FrameRange, size: int) -> None:
        """Cut `frames`; raises ValueError where `size` is below 1."""
        if size < 1:
            raise ValueError(f"a chunk has at least 1 frame, not {size}")
        self.frames, self.size = frames, size
        self._cuts = frames._frames.cut(size)

    def __len__(self) -> int:
        return self._cuts.total

    def position_of(self, chunk: int) -> int:
        """The position, in the range, of the chunk's first member; raises IndexError."""
        if not 0 <= chunk < self._cuts.total:
            raise IndexError(f"chunk {chunk} of {self._cuts.total}")
        return self._cuts.position_of(chunk)

    def pictures(self, start: int, end: int) -> int:
        """How many frame numbers the chunks start <= i < end hold together; raises IndexError."""
        if start >= end:
            return 0
        stop = len(self.frames) if end == self._cuts.total else self.position_of(end)
        return stop - self.position_of(start)

    def first(self, chunk: int) -> int:
        """The number of the chunk's first member; raises IndexError."""
        return self.frames[self.position_of(chunk)]

    def members(self, chunk: int) -> range:
        """The chunk's frame numbers in order; raises IndexError."""
        if self.size == 1 and chunk >= 0:
            first = self.frames[chunk]
            return range(first, first + 1)
        start = self.position_of(chunk)
        stop = self._cuts.position_of(chunk + 1) if chunk + 1 < self._cuts.total else len(self.frames)
        first = self.frames[start]
        step = self.frames[start + 1] - first if stop - start > 1 else 1
        return range(first, first + step * (stop - start), step)

    def chunk_of(self, number: int) -> int | None:
        """The chunk that holds the frame `number`; None where it is not in the range."""
        position = self.frames.position(number)
        return None if position is None else self._cuts.chunk_at(position)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Chunks):
            return NotImplemented
        return (self.size, self.frames) == (other.size, other.frames)

    def __hash__(self) -> int:
        return hash((self.size, self.frames))

    def __repr__(self) -> str:
        return f"Chunks({self.frames!r}, {self.size})"
