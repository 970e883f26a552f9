"""Run a slave whose time of day is off by what a file says: python shifted_day.py FILE MODULE [OPTIONS].

Nobody but root can set the clock, and the next full hour is a long time away. What the slave measures
otherwise, it measures by other clocks.
"""

import datetime
import runpy
import sys

_file = sys.argv[1]


class ShiftedDatetime(datetime.datetime):
    """`now` with the offset in seconds that the file holds."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "ShiftedDatetime":
        with open(_file, encoding="ascii") as file:
            return super().now(tz) + datetime.timedelta(seconds=float(file.read() or 0))


datetime.datetime = ShiftedDatetime  # type: ignore[misc]
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
