"""Whether a keeper still answers, and the end of one that does not.

A keeper that hangs (stopped, or asleep in the kernel on a sick disk) would leave its frames to themselves:
nothing that is asked of it happens, leases are not kept. It owes a greeting, and, while frames are its,
some word when it is asked for one. Patience is counted in naps, each of which this process was awake for: a
daemon that was itself stopped, or a machine that slept, finds what came meanwhile before it despairs.
"""

import logging
import os
import signal
from collections.abc import Callable

import trio

from drqueue.slave.keeper_link import is_locked
from drqueue.slave.orphans import kept_by

log = logging.getLogger(__name__)

GREETING_S = 15.0  # more than a frame's start as another user may take it (`spawning.START_S`)
PING_EVERY_S = 10.0  # of silence
PATIENCE_S = 60.0
GONE_S = 5.0  # between KILL and the end of everything that sleeps in no kernel
NAPS = 6


class Health:
    """One connection's watch over its keeper."""

    def __init__(self, state_dir: str, child: int) -> None:
        self._state_dir = state_dir
        self._child = child
        self._heard = 0
        self._news: trio.Event | None = None
        self.pings = False  # whether it is known to answer them
        self.hung = False

    def hear(self) -> None:
        """The keeper said something."""
        self._heard += 1
        if self._news is not None:
            self._news.set()

    async def watch(self, ping: Callable[[], bool], scope: trio.CancelScope) -> None:
        """Kill the keeper once it hangs, and cancel `scope` if the connection outlives even that.

        `ping` asks it for a word, and says whether it did: an idle keeper is left alone.
        """
        # It may have greeted, and said all that it has to say, before this began.
        silent = not self._heard and await self._silent(GREETING_S)
        while not silent:
            heard = self._heard
            await trio.sleep(PING_EVERY_S)
            silent = heard == self._heard and ping() and await self._silent(PATIENCE_S)
        self.hung = True
        end_keeper(self._state_dir, self._child)
        await trio.sleep(GONE_S)  # what it said before is still read, up to the end that the KILL makes
        scope.cancel()

    async def _silent(self, patience_s: float) -> bool:
        heard = self._heard
        for _ in range(NAPS):
            self._news = trio.Event()
            with trio.move_on_after(patience_s / NAPS):
                await self._news.wait()
            self._news = None
            if heard != self._heard:
                return False
        return True


def end_keeper(state_dir: str, child: int = 0) -> None:
    """Kill the keeper that hangs: `child`, where it is this process's, else the one that holds the lock."""
    if child:
        log.error("the keeper of %s, process %d, does not answer: it is killed", state_dir, child)
        os.kill(child, signal.SIGKILL)  # not reaped yet: the number is still its own
        return
    try:
        with open(os.path.join(state_dir, "keeper.lock"), encoding="ascii", errors="replace") as file:
            text = file.read().strip()
        pid = int(text) if text.isdecimal() else 0
        fd = os.pidfd_open(pid) if pid else -1
    except (FileNotFoundError, ProcessLookupError):
        pid, fd = 0, -1
    if fd < 0:
        log.error("the keeper of %s does not answer; its lock names no living process", state_dir)
        return
    try:
        # Looked at through a descriptor opened before: the number cannot become another's in between.
        if not is_locked(state_dir) or kept_by(pid) != os.path.realpath(state_dir):
            log.error("the keeper of %s does not answer; process %d is not it", state_dir, pid)
            return
        log.error("the keeper of %s, process %d, does not answer: it is killed", state_dir, pid)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError) as error:
        log.error("the keeper of %s, process %d, cannot be killed: %s", state_dir, pid, error.strerror)
    finally:
        os.close(fd)
