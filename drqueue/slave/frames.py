"""The keeper's frames: it reaps them, knows their strays, measures them, trims their logs, kills their trees.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
*Helpers* are processes of the keeper's own (they remove trees as other users), and nobody's strays.
The process that runs this is a child subreaper: whatever loses its parent becomes its child, a *stray*. A
stray is somebody's by its cgroup, by the processes and sessions seen at the last look, by its
DRQUEUE_ATTEMPT, or because nobody else of its user ran when it was born; otherwise it lives until all who ran
then have ended.

Where frames can have cgroups (`cgroups`), each is born in one of its own. But that costs a fork and, in
kernels before 6.18, some milliseconds; so brief frames, of a layer that takes less than BRIEF_S, get one only
once they have run for longer. (Of an unknown layer: where what ended last was brief.) All trees are walked as
well: an end is told once neither finds anything.
"""

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING or __package__:
    from drqueue.slave import asking, cgroups, oom, privileges, proctree
else:  # keeper.py made this folder importable
    import asking
    import cgroups
    import oom
    import privileges
    import proctree

TICK_S = 0.25
HASTE_S = 0.05  # between looks while a tree is being killed or a log runs over
SAMPLE_SHARE = 100  # looking at trees takes at most 1/100 of a core
PAGE = 4096
BRIEF_S = 1.0
BRIEF_LAYERS = 1000  # of which it is known whether they are

PR_SET_CHILD_SUBREAPER = 36
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

TICKS = os.sysconf("SC_CLK_TCK")

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
        "again", "birth", "cap", "cpu", "end", "group", "hole", "key", "killing", "limits", "line", "log",
        "path", "peak", "pid", "pids", "reason", "sessions", "start", "status", "stopped", "user",
    )  # fmt: skip

    def __init__(self, key: Key, cap: int, user: privileges.User | None = None) -> None:
        self.key = key
        self.user = user  # None: the keeper's own
        self.cap = cap
        self.line = ""  # what a daemon is told of its end, once it has come
        self.path = ""
        self.again = False  # the log may serve another attempt where it stays empty
        self.log = -1
        self.hole = 0  # where the hole in the log ends
        self.pid = self.birth = self.peak = self.status = 0
        self.cpu = self.start = self.end = 0.0
        self.reason = ""
        self.killing = self.stopped = False
        self.pids: dict[int, int] = {}  # members seen at the last look, with births (0: not looked up)
        self.sessions: set[int] = set()
        self.limits: cgroups.Limits | None = None  # of the group that it should have
        self.group: cgroups.Group | None = None

    @property
    def mark(self) -> str:
        """Its DRQUEUE_ATTEMPT."""
        return "{}/{}/{}/{}".format(*self.key)


class Stray:
    """A child of the keeper that it did not start. `uid` is -1 where its user is not known."""

    __slots__ = ("birth", "group", "owner", "pid", "uid")

    def __init__(self, pid: int, birth: int, uid: int, group: str) -> None:
        self.pid = pid
        self.birth = birth
        self.uid = uid
        self.group = group  # it was found in (`Home.where`)
        self.owner: Attempt | None = None


class Frames:
    """All that runs; `ended` is told each attempt whose tree is gone, after its log is measured (`size`)."""

    def __init__(self, ended: Callable[[Attempt, int], None], state_dir: str) -> None:
        self.ended = ended
        self.state_dir = state_dir
        self.home: cgroups.Home | None = None  # of the frames' cgroups, once one is wanted
        self.brief: dict[tuple[int, int], bool] = {}  # layers, and whether they are
        self.last_brief = False  # what ended last
        self.ooms = oom.Watch()
        self.leaders: dict[int, Attempt] = {}
        self.closing: list[Attempt] = []
        self.strays: dict[int, Stray] = {}
        self.helpers: set[int] = set()
        self.next_tick = self.next_sample = 0.0
        self.hurry = False
        self.own = -1
        if proctree.has_children_files():
            me = os.getpid()
            self.own = os.open(f"/proc/{me}/task/{me}/children", os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self.leaders) + len(self.closing) + len(self.strays) + len(self.helpers)

    def help(self, pid: int) -> None:
        """Take a process of the keeper's own into care."""
        if not self:
            self.next_tick = time.monotonic() + TICK_S
        self.helpers.add(pid)

    def add(self, attempt: Attempt) -> None:
        """Take a just started attempt into care."""
        if not self:
            self.next_tick = time.monotonic() + TICK_S
            self.ooms.look(unless_within_s=TICK_S)
        attempt.sessions.add(attempt.pid)
        if attempt.group is not None and self.home is not None:
            attempt.group.whole = self.home.where(attempt.pid) == cgroups.name_of(attempt.key)
        self.leaders[attempt.pid] = attempt

    # --- cgroups

    def group(self, attempt: Attempt, limits: cgroups.Limits) -> None:
        """Make the group for an attempt that is to be started; not yet where it will take a moment only."""
        attempt.limits = limits
        if not self.brief.get(attempt.key[:2], self.last_brief):
            self.make_group(attempt)

    def make_group(self, attempt: Attempt) -> bool:
        if self.home is None:
            self.home = cgroups.Home(self.state_dir)
        if attempt.limits is not None:
            attempt.group = self.home.enter(attempt.key, attempt.limits)
            attempt.limits = None
        return attempt.group is not None

    def ungroup(self, attempt: Attempt) -> None:
        if attempt.group is not None and self.home is not None:
            self.home.leave(attempt.group)
            attempt.group = None

    def close(self) -> None:
        """Nothing runs any more, and nothing will."""
        if self.home is not None:
            self.home.close()

    def group_late(self, attempt: Attempt) -> None:
        """Take a running tree into a group: all of it, as what was taken in bears no children outside."""
        if not self.make_group(attempt) or attempt.group is None:
            return
        taken: set[int] = set()
        while new := [pid for pid in self.members(attempt) if pid not in taken]:
            taken.update(new)
            for pid in new:
                attempt.group.add(pid)

    def learn(self, attempt: Attempt) -> None:
        """Its main process ended: how long frames of its layer take."""
        if attempt.killing or attempt.stopped:
            return
        layer, brief = attempt.key[:2], attempt.end - attempt.start < BRIEF_S
        if layer not in self.brief and len(self.brief) == BRIEF_LAYERS:
            del self.brief[next(iter(self.brief))]
        self.brief[layer] = self.last_brief = brief

    def verdict(self, attempt: Attempt) -> str:
        """Whether an attempt that just ended was ended for want of memory, as the kernel counts it."""
        if attempt.killing or not attempt.status:
            return ""
        if attempt.group is not None and attempt.group.counted:
            return oom.SURE if attempt.group.oom_kills() else ""
        # A shell says 137 of a child that was killed.
        if os.waitstatus_to_exitcode(attempt.status) not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return ""
        return self.ooms.verdict(attempt.birth / TICKS)

    # --- the loop's

    def tick(self) -> None:
        """The calm part: logs, memory, strays, and what is to be killed again."""
        now = time.monotonic()
        self.hurry = False
        self.ooms.look()
        grown = time.clock_gettime(time.CLOCK_BOOTTIME) - BRIEF_S
        for attempt in self.leaders.values():
            if attempt.limits is not None and attempt.birth / TICKS < grown:
                self.group_late(attempt)
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
                attempt.reason = attempt.reason or self.verdict(attempt)
                self.learn(attempt)
                self.closing.append(attempt)
            elif pid in self.helpers:
                self.helpers.remove(pid)
                if status:
                    print(f"helper {pid} failed: status {status}", file=sys.stderr, flush=True)
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
        owners = [stray.owner for stray in self.strays.values()]
        closing, self.closing = self.closing, []
        for attempt in closing:
            if attempt in owners or (attempt.group is not None and not attempt.group.empty()):
                self.closing.append(attempt)
            else:
                self.finish(attempt)
        for attempt in self.closing:
            self.kill(attempt)
        for stray in list(self.strays.values()):
            if stray.owner is None and not self.suspects(stray):
                self.haste()
                proctree.kill(partial(proctree.descendants, (stray.pid,)))

    def finish(self, attempt: Attempt) -> None:
        size = self.trim(attempt)
        attempt.pids = {}
        if attempt.group is not None:
            # What is charged holds the file cache, too; what was measured counts shared pages more than once.
            attempt.peak = min(attempt.peak, attempt.group.peak() or attempt.peak)
            self.ungroup(attempt)
        self.ended(attempt, size)

    # --- whose is it?

    def find_strays(self) -> None:
        """Find the keeper's children that it did not start, and whose they are."""
        for pid in self.own_children():
            if pid not in self.leaders and pid not in self.strays and pid not in self.helpers:
                group = self.home.where(pid) if self.home is not None else ""
                self.strays[pid] = Stray(pid, proctree.birth(pid), proctree.user(pid), group)
        unknown = []
        for stray in self.strays.values():
            if stray.owner is None:
                stray.owner = self.owner_of(stray)
                if stray.owner is None:
                    unknown.append(stray)
        if unknown:
            self.ask(unknown)

    def ask(self, unknown: list[Stray]) -> None:
        """Ask the users of strays whose environment is closed to the keeper."""
        users = {a.user for stray in unknown for a in self.suspects(stray) if a.user is not None}
        for user in users:
            theirs = {stray.pid: stray for stray in unknown if stray.uid == user[0]}
            closed = [pid for pid in theirs if not proctree.environment_is_open(pid)]
            owners = {a.mark: a for pid in closed for a in self.suspects(theirs[pid])}
            if closed:
                for pid, mark in asking.attempts_of(closed, list(owners), user).items():
                    if owners[mark] in self.suspects(theirs[pid]):
                        theirs[pid].owner = owners[mark]

    def own_children(self) -> list[int]:
        if self.own < 0:
            return proctree.children(os.getpid())
        # Reading through a kept descriptor costs a microsecond; opening the file costs six.
        data = part = os.pread(self.own, 65536, 0)
        while len(part) > PAGE // 2:  # less than a page that is nearly full is the end
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
            if stray.group == cgroups.name_of(attempt.key):
                return attempt
        for attempt in suspects:
            if attempt.pids.get(stray.pid, -1) in (0, stray.birth) or info.session in attempt.sessions:
                return attempt
        mark = proctree.attempt_of(stray.pid)
        for attempt in suspects:
            if mark == attempt.mark:
                return attempt
        return suspects[0] if len(suspects) == 1 else None

    def suspects(self, stray: Stray) -> list[Attempt]:
        """The attempts not yet reported that ran when the stray was born, and whose it may be.

        A frame of another user than the keeper's cannot change its user. What one started that was born in a
        cgroup is there, or was moved to another one, as containers are; but not to the keeper's.
        """
        return [
            a
            for a in (*self.leaders.values(), *self.closing)
            if a.birth <= stray.birth
            and (a.user is None or stray.uid in (-1, a.user[0]))
            and (stray.group or a.group is None or not a.group.whole)
        ]

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
        attempt.stopped = True
        self.find_strays()
        proctree.terminate(self.members(attempt))

    def kill(self, attempt: Attempt) -> None:
        """Kill what is found of the tree now; `tick` and `settle` repeat it until nothing is found."""
        attempt.killing = True
        self.haste()
        if attempt.group is not None:
            attempt.group.kill()

        def find() -> list[int]:
            self.find_strays()
            members = self.members(attempt)
            # A member whose parent dies first comes back as the keeper's child, and is still known.
            attempt.pids.update((pid, 0) for pid in members if pid not in attempt.pids)
            attempt.sessions.update(members)
            return members

        proctree.kill(find)

    def trim(self, attempt: Attempt) -> int:
        """Punch out a log's middle when it holds more than the cap: a quarter stays at either end.

        The log's length, which that does not change.
        """
        size = os.fstat(attempt.log).st_size
        if size <= attempt.cap:
            return size
        quarter = max(attempt.cap // 4 // PAGE, 1) * PAGE
        start = max(attempt.hole, quarter)
        end = (size - quarter) // PAGE * PAGE
        if quarter + size - start <= attempt.cap or end <= start:
            return size
        self.hurry = True
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if _libc.fallocate(attempt.log, mode, start, end - start) == 0:
            attempt.hole = end
        elif ctypes.get_errno() != errno.EINTR and attempt.pid in self.leaders:
            print(f"no holes in logs here: {os.strerror(ctypes.get_errno())}", file=sys.stderr, flush=True)
            attempt.reason = "log-limit"
            attempt.killing = True
        return size
