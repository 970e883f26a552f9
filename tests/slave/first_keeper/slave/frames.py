"""The keeper's frames: it reaps them, knows their strays, measures them, trims their logs, kills their trees.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
The process that runs this is a child subreaper: whatever loses its parent becomes its child, a *stray*. A
stray is somebody's by the processes and sessions seen at the last look, by its DRQUEUE_ATTEMPT, or because
nobody else ran when it was born; otherwise it lives until all who ran then have ended.
"""

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from drqueue.slave import proctree
else:  # keeper.py, the only importer, made this folder importable
    import proctree

TICK_S = 0.25
HASTE_S = 0.05  # between looks while a tree is being killed or a log runs over
SAMPLE_SHARE = 100  # looking at trees takes at most 1/100 of a core
PAGE = 4096

PR_SET_CHILD_SUBREAPER = 36
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

Key = tuple[int, int, int, int]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def become_subreaper() -> None:
    """Make this process the parent of all orphans below it; raises OSError."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


class Attempt:
    """One attempt: it runs, then closes (main process reaped, tree not yet gone), then has ended."""

    __slots__ = (
        "birth", "cap", "cpu", "end", "hole", "key", "killing", "line", "log", "mark", "peak", "pid",
        "pids", "reason", "sessions", "start", "status",
    )  # fmt: skip

    def __init__(self, key: Key, cap: int) -> None:
        self.key = key
        self.mark = "{}/{}/{}/{}".format(*key)
        self.cap = cap
        self.line = ""  # what a daemon that attaches is told
        self.log = -1
        self.hole = 0  # where the hole in the log ends
        self.pid = self.birth = self.peak = self.status = 0
        self.cpu = self.start = self.end = 0.0
        self.reason = ""
        self.killing = False
        self.pids: dict[int, int] = {}  # members seen at the last look, with births (0: not looked up)
        self.sessions: set[int] = set()


class Stray:
    """A child of the keeper that it did not start."""

    __slots__ = ("birth", "owner", "pid")

    def __init__(self, pid: int, birth: int) -> None:
        self.pid = pid
        self.birth = birth
        self.owner: Attempt | None = None


class Frames:
    """All that runs; `ended` is told each attempt whose tree is gone, after its log is measured (`size`)."""

    def __init__(self, ended: Callable[[Attempt, int], None]) -> None:
        self.ended = ended
        self.leaders: dict[int, Attempt] = {}
        self.closing: list[Attempt] = []
        self.strays: dict[int, Stray] = {}
        self.next_tick = self.next_sample = 0.0
        self.hurry = False
        self.own = -1
        if proctree.has_children_files():
            me = os.getpid()
            self.own = os.open(f"/proc/{me}/task/{me}/children", os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self.leaders) + len(self.closing) + len(self.strays)

    def add(self, attempt: Attempt) -> None:
        """Take a just started attempt into care."""
        if not self:
            self.next_tick = time.monotonic() + TICK_S
        attempt.sessions.add(attempt.pid)
        self.leaders[attempt.pid] = attempt

    def tick(self) -> None:
        """The calm part: logs, memory, strays, and what is to be killed again."""
        now = time.monotonic()
        self.hurry = False
        for attempt in (*self.leaders.values(), *self.closing):
            self.trim(attempt)
        if now >= self.next_sample:
            for attempt in self.leaders.values():
                self.look(attempt)
            # Half a tick less: a tick that comes a little early still looks.
            self.next_sample = now + max(TICK_S, SAMPLE_SHARE * (time.monotonic() - now)) - TICK_S / 2
        for attempt in self.leaders.values():
            if attempt.killing:
                self.kill(attempt)
        self.reap()
        self.settle()
        self.next_tick = time.monotonic() + (HASTE_S if self.hurry else TICK_S)

    def haste(self) -> None:
        self.hurry = True
        self.next_tick = min(self.next_tick, time.monotonic() + HASTE_S)

    def reap(self) -> None:
        """Collect all that died, and report those whose tree is gone."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            attempt = self.leaders.pop(pid, None)
            if attempt is not None:
                attempt.status = status
                attempt.end = time.time()
                self.closing.append(attempt)
            else:
                stray = self.strays.pop(pid, None)
                attempt = stray.owner if stray is not None else self.owner_seen(pid)
            if attempt is not None:
                attempt.cpu += usage.ru_utime + usage.ru_stime
                attempt.peak = max(attempt.peak, usage.ru_maxrss * 1024)
        if self.closing:
            self.settle()

    def settle(self) -> None:
        """Report the closing whose tree is gone; kill what is left of the others, and what is nobody's."""
        self.find_strays()
        closing, self.closing = self.closing, []
        if not self.strays:  # nearly always
            for attempt in closing:
                self.finish(attempt)
            return
        owners = [stray.owner for stray in self.strays.values()]
        self.closing = [attempt for attempt in closing if attempt in owners]
        for attempt in closing:
            if attempt not in owners:
                self.finish(attempt)
        for attempt in self.closing:
            self.kill(attempt)
        for stray in list(self.strays.values()):
            if stray.owner is None and not self.suspects(stray):
                self.haste()
                proctree.kill(partial(proctree.descendants, (stray.pid,)))

    def finish(self, attempt: Attempt) -> None:
        self.trim(attempt)
        size = os.fstat(attempt.log).st_size
        os.close(attempt.log)
        attempt.log = -1
        attempt.pids = {}
        self.ended(attempt, size)

    # --- whose is it?

    def find_strays(self) -> None:
        """Find the keeper's children that it did not start, and whose they are."""
        for pid in self.own_children():
            if pid not in self.leaders and pid not in self.strays:
                self.strays[pid] = Stray(pid, proctree.birth(pid))
        for stray in self.strays.values():
            if stray.owner is None:
                stray.owner = self.owner_of(stray)

    def own_children(self) -> list[int]:
        if self.own < 0:
            return proctree.children(os.getpid())
        # Reading through a kept descriptor costs a microsecond; opening the file costs six.
        data = part = os.pread(self.own, 65536, 0)
        while part:
            part = os.pread(self.own, 65536, len(data))
            data += part
        return [int(word) for word in data.split()]

    def owner_seen(self, pid: int) -> Attempt | None:
        for attempt in (*self.leaders.values(), *self.closing):
            if pid in attempt.pids:
                return attempt
        return None

    def owner_of(self, stray: Stray) -> Attempt | None:
        info = proctree.look(stray.pid)
        if info is None:
            return None
        suspects = self.suspects(stray)
        for attempt in suspects:
            if attempt.pids.get(stray.pid, -1) in (0, stray.birth) or info.session in attempt.sessions:
                return attempt
        mark = proctree.attempt_of(stray.pid)
        for attempt in suspects:
            if mark == attempt.mark:
                return attempt
        return suspects[0] if len(suspects) == 1 else None

    def suspects(self, stray: Stray) -> list[Attempt]:
        """The attempts not yet reported that ran when the stray was born."""
        return [a for a in (*self.leaders.values(), *self.closing) if a.birth <= stray.birth]

    def members(self, attempt: Attempt) -> list[int]:
        """The attempt's processes, its strays and their descendants included."""
        roots = [stray.pid for stray in self.strays.values() if stray.owner is attempt]
        if attempt.pid in self.leaders:
            roots.append(attempt.pid)
        return proctree.descendants(roots)

    def look(self, attempt: Attempt) -> None:
        """Measure the tree's memory and remember its processes, by which later strays are known."""
        total = 0
        attempt.pids = {}
        attempt.sessions = {attempt.pid}
        for pid in self.members(attempt):
            info = proctree.look(pid)
            if info is not None:
                total += info.rss
                attempt.pids[pid] = info.birth
                attempt.sessions.add(info.session)
        attempt.peak = max(attempt.peak, total)

    # --- ending it

    def terminate(self, attempt: Attempt) -> None:
        self.find_strays()
        proctree.terminate(self.members(attempt))

    def kill(self, attempt: Attempt) -> None:
        """Kill what is found of the tree now; `tick` and `settle` repeat it until nothing is found."""
        attempt.killing = True
        self.haste()

        def find() -> list[int]:
            self.find_strays()
            members = self.members(attempt)
            # A member whose parent dies first comes back as the keeper's child, and is still known.
            attempt.pids.update((pid, 0) for pid in members if pid not in attempt.pids)
            attempt.sessions.update(members)
            return members

        proctree.kill(find)

    def trim(self, attempt: Attempt) -> None:
        """Punch out a log's middle when it holds more than the cap: a quarter stays at either end."""
        quarter = max(attempt.cap // 4 // PAGE, 1) * PAGE
        size = os.fstat(attempt.log).st_size
        start = max(attempt.hole, quarter)
        end = (size - quarter) // PAGE * PAGE
        if quarter + size - start <= attempt.cap or size <= attempt.cap or end <= start:
            return
        self.hurry = True
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if _libc.fallocate(attempt.log, mode, start, end - start) == 0:
            attempt.hole = end
        elif ctypes.get_errno() != errno.EINTR and attempt.pid in self.leaders:
            print(f"no holes in logs here: {os.strerror(ctypes.get_errno())}", file=sys.stderr, flush=True)
            attempt.reason = "log-limit"
            attempt.killing = True
