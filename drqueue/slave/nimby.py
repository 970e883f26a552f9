"""Autoenable: a disabled slave offers itself again at a time of day ("render on me from 21:00").

Pure: the caller brings the local time and keeps the mark from one call to the next. Rules: at most
once for each date, and never because the clock went backwards; a time of day that a jump forwards
leaps over has passed too; nobody who disables a slave after that time finds it enabled the same day.
"""

from datetime import date, datetime, time, timedelta
from typing import NamedTuple

_DAY = timedelta(days=1)


class Mark(NamedTuple):
    """What is remembered: naive local time up to which all is dealt with; the last date that had its turn.

    A start, and every change of the time of day, begin with `Mark(now)`.
    """

    until: datetime
    passed: date | None = None


def parse_time_of_day(text: str) -> time:
    """Read "H:MM" or "HH:MM"; raises ValueError with a sentence."""
    hour, colon, minute = text.partition(":")
    numbers = [part for part in (hour, minute) if part.isascii() and part.isdigit() and len(part) <= 2]
    if colon and len(numbers) == 2 and int(hour) < 24 and int(minute) < 60:
        return time(int(hour), int(minute))
    raise ValueError(f"{text!r:.80} is no time of day; write HH:MM, as 21:00")


def autoenable(at: str | None, enabled: bool, mark: Mark, now: datetime) -> tuple[bool, Mark]:
    """Whether the slave becomes enabled now, and the mark for the next call.

    `at` is the time of day or None, `now` local time without zone. Raises ValueError for a bad `at`.
    """
    if now <= mark.until:
        # Set back by hours: wait until the clock is past the mark. Set back by more (it had been
        # wrong before): wait for a day, not for years.
        return False, Mark(min(mark.until, now + _DAY), mark.passed)
    if at is None:
        return False, Mark(now, mark.passed)
    moment = datetime.combine(now.date(), parse_time_of_day(at))
    if moment > now:
        moment -= _DAY
    if not mark.until < moment or moment.date() == mark.passed:
        return False, Mark(now, mark.passed)
    return not enabled, Mark(now, moment.date())
