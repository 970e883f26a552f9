"""Run a daemon whose wall clock is off by what a file says: python jumping_clock.py FILE MODULE [OPTIONS].

Nobody but root can set the clock, and everybody on the machine would suffer. So the daemon's own `time.time`
is set instead; what counts boots and elapsed time is left alone, as it is by a clock that is set.
"""

import runpy
import sys
import time

_true_time = time.time
_file = sys.argv[1]


def jumping_time() -> float:
    """The time, with the offset that the file holds now."""
    with open(_file, encoding="ascii") as file:
        return _true_time() + float(file.read() or 0)


time.time = jumping_time
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
