"""Which date it is, as far as something may be dropped for its age.

Rules of this file:
1. The wall clock is believed as long as it goes with the core's own clock, give or take a day: a clock that
   was set wrong by years makes nothing old.
2. One that is further ahead is believed once it has been so for a day. Until then the date goes on from where
   it was believed last. One that was set back is believed at once: then things are only younger.
"""

from typing import Final

from drqueue.master.core.reasons import span

#: Seconds that the wall clock may be ahead, and for which it must be so to be believed.
DAY_S: Final = 86400.0
#: The named value that says which date was believed last, and how often it is kept, in seconds.
ROW: Final = "date"
KEEP_S: Final = 600.0


class Dates:
    """What is known of the date. Times are the core's clock, offsets that of the wall clock to it."""

    __slots__ = ("_ahead", "_line", "_line_at", "_offset", "_warned_at", "kept_at")

    def __init__(self, known: float, now: float) -> None:
        """`known`: a time that the wall clock is believed to have reached."""
        self._offset = self._line = known - now
        self._line_at = now
        #: A wall clock that is not believed: its offset, and since when.
        self._ahead: tuple[float, float] | None = None
        self._warned_at: float | None = None
        self.kept_at = now

    def today(self, now: float) -> float:
        """The date that is believed, in seconds since 1970."""
        return self._offset + now

    def read(self, wall: float, now: float) -> bool:
        """The wall clock was read; whether somebody should hear that it is not believed."""
        offset = wall - now
        if offset < self._line:
            self._line, self._line_at = offset, now
        if offset - self._line <= DAY_S:
            self._ahead, self._offset = None, offset
            if now - self._line_at >= DAY_S:
                # So it cannot go by a day again and again.
                self._line, self._line_at = offset, now
            return False
        if self._ahead is None or abs(offset - self._ahead[0]) > DAY_S:
            self._ahead = offset, now
        elif now - self._ahead[1] >= DAY_S:
            self._offset = self._line = offset
            self._line_at, self._ahead = now, None
            return False
        if self._warned_at is not None and now - self._warned_at < DAY_S:
            return False
        self._warned_at = now
        return True

    def doubt(self, now: float) -> str:
        """A sentence where the wall clock is not believed, else empty."""
        if self._ahead is None:
            return ""
        offset, since = self._ahead
        return (
            f"the wall clock is {span(offset - self._offset)} ahead of where this master last saw it: "
            f"nothing gets older by that for {span(since + DAY_S - now)}, in case it is wrong"
        )
