"""Notices at once that this machine has slept: what fell due meanwhile is late already.

Leases are counted on CLOCK_BOOTTIME, which goes on while a machine sleeps; trio's clock stands still then, so
what waits by it would come late by up to as long as it waits. A timer on CLOCK_BOOTTIME rings as soon as the
machine is awake, if it would have rung meanwhile.
"""

import ctypes
import os
import time
from collections.abc import Callable

import trio

from drqueue import log

#: Shorter sleeps may be noticed so much later (s).
PERIOD_S = 10.0
#: Between the two clocks, where nothing slept (s).
_JITTER_S = 1.0

_C = ctypes.CDLL(None, use_errno=True)


class _Timer(ctypes.Structure):
    """The kernel's itimerspec."""

    _fields_ = (
        ("period_s", ctypes.c_long),
        ("period_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


def slept_s() -> float:
    """Seconds that this machine has slept since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def boot_timer(period_s: float) -> int:
    """A descriptor that is readable every `period_s` of CLOCK_BOOTTIME; raises OSError."""
    fd: int = _C.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    seconds, rest = int(period_s), int(period_s % 1 * 1e9)
    if _C.timerfd_settime(fd, 0, ctypes.byref(_Timer(seconds, rest, seconds, rest)), None) != 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, os.strerror(number))
    return fd


async def watch(
    woke: Callable[[], None], *, period_s: float | None = None, slept: Callable[[], float] | None = None
) -> None:
    """Call `woke` each time that the machine has slept; for good, where the kernel has such a timer."""
    slept = slept or slept_s
    try:
        fd = boot_timer(period_s or PERIOD_S)
    except OSError as error:
        log.warning("sleeps of this machine are not noticed at once", error=error.strerror)
        return
    try:
        before = slept()
        while True:
            await trio.lowlevel.wait_readable(fd)
            os.read(fd, 8)
            now = slept()
            if now - before > _JITTER_S:
                log.event("the machine was asleep", seconds=round(now - before))
                woke()
            before = now
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
