"""Whether a frame was killed because memory ran out, which looks like a crash but is none.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
Of a frame whose cgroup counts memory the kernel says so itself. Of others there is a count of all such kills,
at least for the whole machine: it tells once it grew at the very time at which a frame died of a KILL that
nobody here sent. Where it grew earlier in that frame's life, it is not told but hinted at.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING or __package__:
    from drqueue.slave import cgroups
else:  # keeper.py made this folder importable
    import cgroups

SURE, PERHAPS = "oom", "perhaps-oom"
DYING_S = 10.0  # what the kernel kills for want of memory is gone within this time


class Count:
    """How often the kernel has killed for want of memory, counted as near to this process as it is.

    That is in its own cgroup and below, v2 or v1, or else on the whole machine.
    """

    __slots__ = ("_fd",)

    def __init__(
        self, mounts: str = cgroups.MOUNTS, own: str = cgroups.OWN, machine: str = "/proc/vmstat"
    ) -> None:
        self._fd = -1
        here = cgroups.place(mounts, own).path or cgroups.own_folder("cgroup2", "", mounts, own)[0]
        first, top = cgroups.own_folder("cgroup", "memory", mounts, own)
        for path in (
            f"{here}/memory.events" if here else "",
            f"{first}/memory.oom_control" if first != top else "",
            machine,
        ):
            if path and "oom_kill " in cgroups.read(path):
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                return

    def read(self) -> int:
        """The count; 0 where there is none."""
        if self._fd < 0:
            return 0
        try:
            data = os.pread(self._fd, 1 << 16, 0)
        except OSError:  # the group is gone
            return 0
        for line in data.splitlines():
            if line.startswith(b"oom_kill "):
                return int(line[9:])
        return 0


class Watch:
    """When the kernel killed for want of memory, as looking now and then tells; in seconds since boot."""

    __slots__ = ("count", "counter", "looked", "since", "until")

    def __init__(self, counter: Count | None = None) -> None:
        self.counter = Count() if counter is None else counter
        self.count = self.counter.read()
        self.looked = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.since = self.until = 0.0  # between these the count grew last

    def look(self, unless_within_s: float = 0.0) -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if now - self.looked < unless_within_s:
            return
        count = self.counter.read()
        if count > self.count:
            self.since, self.until = self.looked, now
        self.count, self.looked = count, now

    def verdict(self, birth: float) -> str:
        """Of a process that was killed just now, by nobody here: SURE, PERHAPS, or "" for no."""
        self.look()
        if not birth or self.until <= birth:
            return ""
        return SURE if self.since >= birth and self.looked - self.until < DYING_S else PERHAPS
