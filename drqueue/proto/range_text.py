"""The grammar of frame ranges, as users write them.

Rules of this file:
* A range is a list of parts in the order written: `A`, `A-B`, `A-BxN` (every Nth), `A-ByN` (those that xN
  leaves out), `A-B:N` (every Nth, then every N-1th of the rest, ... down to 1). `A..B` is `A-B`; A > B counts
  down, and N may then be negative, which changes nothing. Commas, blanks or both stand between parts.
* Size is checked on the written parts, duplicates included, before anything is expanded.
* Single numbers that follow each other make one part where they are evenly spaced: three or more of them, or
  two neighbours. `1,2,3,9` is `1-3,9`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

MAX_FRAMES: Final = 10_000_000
MAX_DIGITS: Final = 15  # numbers stay exact in JSON and far inside 64 bits
MAX_PASSES: Final = 200_000  # of all `:` parts together; each pass costs about a microsecond

_PART = re.compile(r"(-?[0-9]+)(?:(?:-|\.\.)(-?[0-9]+)(?:([xy:])(-?[0-9]+))?)?")
_BETWEEN = re.compile(r"\s*,\s*|\s+", re.ASCII)


class RangeError(ValueError):
    """A frame range that cannot be used; its text is one sentence for the user."""


class Part(NamedTuple):
    """One written part; `step` is positive whichever way it counts."""

    first: int
    last: int
    kind: str
    step: int

    @property
    def sign(self) -> int:
        return 1 if self.last >= self.first else -1

    @property
    def span(self) -> int:
        return abs(self.last - self.first)

    @property
    def every(self) -> range:
        """The numbers of `xN`."""
        return range(self.first, self.last + self.sign, self.step * self.sign)

    @property
    def reached(self) -> int:
        """The last number of `xN`, which may stop short of the written end; else the written end."""
        return self.every[-1] if self.kind == "x" and self.step > 1 else self.last

    @property
    def size(self) -> int:
        every = self.span // self.step + 1
        if self.kind == "x":
            return every
        return self.span + 1 - (every if self.kind == "y" else 0)

    @property
    def passes(self) -> int:
        return min(self.step, self.span // 2) if self.kind == ":" else 0

    def pieces(self) -> Iterator[range]:
        """Evenly spaced stretches in order, which may repeat numbers; of `yN` the whole A-B."""
        if self.kind == "x":
            yield self.every
            return
        sign, stop = self.sign, self.last + self.sign
        if self.kind == "y":
            yield range(self.first, stop, sign)
            return
        reach = min(self.step, self.span)
        half = self.span // 2
        if reach > half:
            # Such a wide pass holds two numbers, of which only the second is new: one stretch for them all.
            yield range(self.first, stop, sign * reach)
            yield range(self.first + sign * (reach - 1), self.first + sign * half, -sign)
            reach = half
        for step in range(reach, 0, -1):
            yield range(self.first, stop, sign * step)

    def numbers(self) -> Iterator[int]:
        """The part's numbers in order, which `:N` may repeat."""
        for piece in self.pieces():
            if self.kind == "y":
                yield from (number for at, number in enumerate(piece) if at % self.step)
            else:
                yield from piece

    def write(self, last: int) -> str:
        """The part as text, with `last` in place of the end that was written."""
        if self.first == self.last:
            return str(self.first)
        tail = "" if self.step == 1 and self.kind == "x" else f"{self.kind}{self.step}"
        return f"{self.first}-{last}{tail}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _number(digits: str, part: str) -> int:
    if len(digits) <= MAX_DIGITS:
        return int(digits)
    # Checked before int(), which refuses very long texts in words of its own.
    if len(digits.lstrip("-0")) > MAX_DIGITS:
        raise RangeError(f"a number in {_shown(part)} has more than {MAX_DIGITS} digits")
    return int(digits.lstrip("-0") or "0") * (-1 if digits[0] == "-" else 1)


def _read_part(text: str) -> Part:
    match = _PART.fullmatch(text)
    if match is None:
        what = f"{_shown(text)} is no frame range" if text else "a comma has no frame range beside it"
        raise RangeError(f"{what}: write for example 1-10, 1-10x2 or 1,5,7-9")
    first = _number(match[1], text)
    if match[2] is None:
        return Part(first, first, "x", 1)
    last = _number(match[2], text)
    step = 1 if match[4] is None else _number(match[4], text)
    if step == 0:
        raise RangeError(f"the step of {_shown(text)} is 0")
    if step < 0 and last >= first:
        raise RangeError(f"the step of {_shown(text)} is negative, but the range does not count down")
    part = Part(first, last, match[3] or "x", abs(step))
    if part.size == 0:
        raise RangeError(f"{_shown(text)} names no frame")
    if part.kind != "y":
        if part.span == 0 or (part.kind == "x" and part.step > part.span):
            return Part(first, first, "x", 1)
        if part.step == 1:
            return part._replace(kind="x")
    return part


def written(text: str) -> tuple[int, int, int] | None:
    """Start, end and signed step of a text that is one part `A`, `A-B` or `A-BxN`, as it was written.

    Unlike the range itself, which ends where its last frame is: `1-10x20` is the frame 1. None for any other
    text; raises RangeError.
    """
    match = _PART.fullmatch(text.strip())
    if match is None or (match[3] or "x") != "x" or match[2] is None:
        return None
    first, last = _number(match[1], text), _number(match[2], text)
    step = abs(_number(match[4] or "1", text))
    return (first, last, step) if last >= first else (first, last, -step)


def read_parts(text: str) -> list[Part]:
    """The parts as written; raises RangeError, also where they are too many frames or too much work."""
    if not text.strip():
        raise RangeError("the frame range is empty")
    parts: list[Part] = []
    total = passes = 0
    for word in _BETWEEN.split(text.strip()):
        part = _read_part(word)
        parts.append(part)
        if part.first == part.last:
            total += 1
        else:
            total += part.size
            passes += part.passes
        if total > MAX_FRAMES:
            raise RangeError(
                f"{_shown(word)} makes it {total:,} frames, but a range has at most {MAX_FRAMES:,}"
            )
        if passes > MAX_PASSES:
            raise RangeError(
                f"{_shown(word)} is interleaved too widely: at most {MAX_PASSES:,} passes a range"
            )
    return parts


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Distinct numbers as evenly spaced stretches of three or more, pairs of neighbours, and single ones."""
    at = 0
    while at < len(numbers):
        first, end = numbers[at], at + 1
        step = numbers[end] - first if end < len(numbers) else 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        if end - at == 2 and abs(step) != 1:
            end = at + 1
        yield range(first, first + step * (end - at), step)
        at = end


def _run_part(run: range) -> Part:
    return Part(run[0], run[-1], "x", abs(run.step) if len(run) > 1 else 1)


def join_singles(parts: Iterable[Part]) -> list[Part]:
    """The parts, with single numbers that follow each other joined where they are evenly spaced."""
    joined: list[Part] = []
    for alone, group in groupby(parts, lambda part: part.first == part.last):
        if alone:
            joined += map(_run_part, _runs(list(dict.fromkeys(part.first for part in group))))
        else:
            joined += group
    return joined


def format_numbers(numbers: Iterable[int]) -> str:
    """Numbers, in any order, as short ascending range text (`1-10,12,20-30x2`); empty for none."""
    return ",".join(part.write(part.last) for part in map(_run_part, _runs(sorted(set(numbers)))))
