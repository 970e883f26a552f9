"""How long frames waited for a place: from when they might have been dispatched until they were.

All times are of the wall clock, for people; none is negative, and none is later than the dispatch.
"""

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Final

from drqueue.proto.views import Waits

#: Waits kept of a pool, and pools of which some are kept: beyond, the oldest go.
WAITS_MOST: Final = 1000
POOLS_MOST: Final = 1000
#: Frames that came back together of which each one's time is kept, and beyond that stretches of a layer.
FRAMES_MOST: Final = 1000
STRETCHES_MOST: Final = 64


class Eligible:
    """Since when the frames of a layer might have been dispatched, had there been a place.

    That is since the layer opened (submitted, start time, what it waits for, continue); of frames that came
    back, or were released one by one, since then. Frames that just wait cost nothing.
    """

    __slots__ = ("_frames", "_open", "_stretches", "at")

    def __init__(self) -> None:
        self.at = 0.0
        self._open = False
        self._frames: dict[int, float] = {}
        self._stretches: list[tuple[int, int, float]] = []

    def look(self, is_open: bool, wall: float) -> None:
        """Whether the layer is open now."""
        if is_open and not self._open:
            self.at = wall
        self._open = is_open

    def open_since(self, wall: float) -> None:
        """The layer was open before this master started, if it is open now."""
        self.at = wall
        self._open = True

    def since(self, index: int, wall: float) -> None:
        """The frame at a position came back, or was released, at this time, which may lie ahead."""
        self._frames[index] = wall

    def all_since(self, pieces: Sequence[tuple[int, int]], wall: float) -> None:
        """As `since`, for all positions of these (start, end), in ascending order."""
        if sum(end - start for start, end in pieces) <= FRAMES_MOST:
            self._frames.update((index, wall) for start, end in pieces for index in range(start, end))
            return
        if len(pieces) > STRETCHES_MOST:
            # Then what waits between them seems to have waited no longer than they.
            pieces = [(pieces[0][0], pieces[-1][1])]
        self._stretches += [(start, end, wall) for start, end in pieces]
        del self._stretches[:-STRETCHES_MOST]

    def take(self, index: int, wall: float) -> float:
        """Since when the frame at this position, which is dispatched now, might have been."""
        when = self.at
        if self._frames:
            when = max(when, self._frames.pop(index, 0.0))
        for start, end, again in self._stretches:
            if start <= index < end:
                when = max(when, again)
        return min(when, wall)

    def clear(self) -> None:
        """The layer's frames are others from now on; since when it is open stays."""
        self._frames.clear()
        self._stretches.clear()


class Waited:
    """The latest waits in one pool, in seconds."""

    __slots__ = ("latest",)

    def __init__(self) -> None:
        self.latest: deque[float] = deque(maxlen=WAITS_MOST)

    def view(self) -> Waits:
        """The waits that half, 90% and 99% of them did not exceed, and the longest."""
        found = sorted(self.latest)
        if not found:
            return Waits()
        half, most, nearly = (found[ceil(len(found) * part / 100) - 1] for part in (50, 90, 99))
        return Waits(count=len(found), p50_s=half, p90_s=most, p99_s=nearly, most_s=found[-1])


class PoolWaits(dict[str, Waited]):
    """The latest waits of all pools in which frames were dispatched, by the pool's name."""

    def note(self, pool: str, seconds: float) -> None:
        """A frame of that pool was dispatched after so long. A clock that was set back makes no wait
        negative."""
        waited = self.get(pool)
        if waited is None:
            if len(self) >= POOLS_MOST:
                del self[next(iter(self))]
            waited = self[pool] = Waited()
        waited.latest.append(max(0.0, seconds))

    def view(self, pool: str) -> Waits:
        """The waits of a pool; all 0 where nothing was dispatched in it."""
        waited = self.get(pool)
        return Waits() if waited is None else waited.view()
