"""Run a daemon, and the keeper that it starts, by a wall clock that is wrong by what a file says (seconds).

    python wrong_clock.py FILE MODULE [OPTIONS]

Nobody but root can set the clock, and everybody on the machine would suffer. So the functions that read it
are replaced; what counts elapsed time is left alone, as it is by a clock that is set.
Rules: the standard library alone, for the keeper knows no other.
"""

import os
import runpy
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

HERE = os.path.abspath(__file__)
KEEPER = "/slave/keeper.py"

_true_time = time.time
_true_clock = time.clock_gettime
_true_clock_ns = time.clock_gettime_ns
_true_spawn = os.posix_spawn


def wrong_by() -> float:
    """By how much it is wrong now."""
    with open(_file, encoding="ascii") as file:
        return float(file.read())


def wrong_time() -> float:
    return _true_time() + wrong_by()


def wrong_time_ns() -> int:
    return int(wrong_time() * 1e9)


def wrong_clock(which: int) -> float:
    return wrong_time() if which == time.CLOCK_REALTIME else _true_clock(which)


def wrong_clock_ns(which: int) -> int:
    return wrong_time_ns() if which == time.CLOCK_REALTIME else _true_clock_ns(which)


def spawn(path: str, argv: Sequence[str], env: Mapping[str, str], **options: Any) -> int:
    """As posix_spawn does, but a keeper gets this clock, too."""
    words = list(argv)
    for at, word in enumerate(words):
        if isinstance(word, str) and word.endswith(KEEPER):
            words[at:at] = [HERE, _file]
            break
    return _true_spawn(path, words, env, **options)


if __name__ == "__main__":
    _file = sys.argv[1]
    time.time, time.time_ns = wrong_time, wrong_time_ns
    time.clock_gettime, time.clock_gettime_ns = wrong_clock, wrong_clock_ns
    sys.argv = sys.argv[2:]
    if sys.argv[0].endswith(KEEPER):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        os.posix_spawn = spawn  # type: ignore[assignment]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
