"""Keeps copies of frames' logs in the folder DRQUEUE_LOGS, laid out as the original DrQueue does.

Rules: the slave's own logs stay the truth, the copies are a courtesy. Copying has one thread of its own, so
that a disk which hangs holds up copies alone. What cannot be written now is tried again, and said once. Where
no folder is set nothing is begun; what was begun before is brought to its end.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import trio

from drqueue import log
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import RunOrder
from drqueue.slave import logs

if TYPE_CHECKING:
    from drqueue.slave.log_copy import LogCopy

LOOK_S = 1.0
#: Pause before a copy that could not be written is tried again.
RETRY_S = 10.0
#: A look that takes longer is told: the disk hangs.
HANGS_S = 30.0
#: Copies under way; of frames beyond, there are none.
COPIES_MAX = 10_000


class _Seen(NamedTuple):
    """What came of one look at all copies."""

    over: list[AttemptKey]
    more: bool
    cut_short: int
    error: OSError | None


class ClassicLogs:
    """The copies under way. `root` "" makes none; `is_over` says whether an attempt writes no more."""

    def __init__(self, state_dir: str, root: str, umask: int, is_over: Callable[[AttemptKey], bool]) -> None:
        """Take up what a former daemon left."""
        self._state_dir = state_dir
        self._root = root
        self._umask = umask
        self._is_over = is_over
        self._copies: dict[AttemptKey, LogCopy] = {}
        self._wanted = trio.Event()
        self._looking = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._closed = False
        self._trouble = False
        self._full = False
        if not os.path.lexists(os.path.join(state_dir, logs.COPIES)):
            return
        from drqueue.slave.log_copy import unfinished  # who copies no logs does not pay for it

        try:
            self._copies = {copy.key: copy for copy in unfinished(state_dir)}
        except OSError as error:
            self._complain(error)
        if self._copies:
            self._wanted.set()

    def begin(self, order: RunOrder) -> None:
        """Copy this attempt's log from now on; asked before it starts, never raises."""
        if not self._root or order.key in self._copies:
            return
        full = len(self._copies) >= COPIES_MAX
        if full and not self._full:
            log.warning("too many logs wait to be copied: further ones are left out", waiting=COPIES_MAX)
        self._full = full
        if full:
            return
        from drqueue.slave.log_copy import LogCopy

        try:
            self._copies[order.key] = LogCopy.begin(self._state_dir, self._root, order)
        except OSError as error:
            self._complain(error)
        else:
            self._wanted.set()

    async def run(self) -> None:
        """Copy while there is something to copy, until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                while self._copies:
                    if not await self.look():
                        await trio.sleep(LOOK_S)
        finally:
            self._closed = True

    async def look(self) -> bool:
        """Copy what is new; whether there is more already."""
        async with self._looking:
            if not self._copies:
                return False
            # Asked before the logs are looked at: what is written until an attempt's end is copied then.
            work = [(copy, self._is_over(key)) for key, copy in self._copies.items()]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_if_it_hangs)
                seen = await trio.to_thread.run_sync(
                    self._advance, work, abandon_on_cancel=True, limiter=self._thread
                )
                nursery.cancel_scope.cancel()
            for key in seen.over:
                del self._copies[key]
            if seen.cut_short:
                log.warning("logs were deleted before they were copied", count=seen.cut_short)
            if seen.error is not None:
                self._complain(seen.error)
            elif self._trouble and not any(copy.retry_at for copy in self._copies.values()):
                self._trouble = False
                log.event("logs are copied again", folder=self._root)
            return seen.more

    def _advance(self, work: "list[tuple[LogCopy, bool]]") -> _Seen:
        """In the thread: each copy in turn. Of two that go to the same file, the later one waits."""
        from drqueue.slave.log_copy import Copied

        over: list[AttemptKey] = []
        busy: set[str] = set()
        more, cut_short = False, 0
        failure: OSError | None = None
        for copy, is_over in work:
            if self._closed:
                break
            if copy.path in busy:
                continue
            busy.add(copy.path)
            if copy.retry_at > time.monotonic():
                continue
            try:
                state = copy.advance(is_over, self._umask)
            except OSError as error:
                copy.retry_at = time.monotonic() + RETRY_S
                if not os.path.isabs(str(error.filename)):
                    error.filename = copy.path
                failure = failure or error
                continue
            copy.retry_at = 0.0
            if state in (Copied.COMPLETE, Copied.CUT_SHORT):
                over.append(copy.key)
                busy.remove(copy.path)
                cut_short += state is Copied.CUT_SHORT
            more = more or state is Copied.MORE
        return _Seen(over, more, cut_short, failure)

    async def _tell_if_it_hangs(self) -> None:
        await trio.sleep(HANGS_S)
        self._complain(OSError(0, f"it does not answer for {HANGS_S:g} s", self._root))

    def _complain(self, error: OSError) -> None:
        """Once, until all is well again."""
        if not self._trouble:
            self._trouble = True
            log.warning("logs cannot be copied; it is tried again", file=error.filename, error=error.strerror)
