"""Frames whose keeper is gone: how the daemon finds them, watches them, and ends them.

They are no children of anybody here, so their exit status cannot be learnt. They are known by process id and
birth, by descent, by the log they write, and by the DRQUEUE_ATTEMPT they were started with. Another farm on
this machine may use the same number for an attempt of its own: a process found by DRQUEUE_ATTEMPT alone
counts only where its output goes into this slave's state directory, or where it shares DRQUEUE_MASTER and
DRQUEUE_COMPID with a known one.
Another user's environment and descriptors are closed to a slave that is not root: its frames are known by the
keeper's notes, by descent, by the session that their main process leads, and, as all, by their cgroup.
"""

import itertools
import os
import time
from collections.abc import Iterable

import trio

from drqueue.proto.ids import AttemptKey, parse_attempt
from drqueue.slave import cgroups, notes, proctree
from drqueue.slave.logs import LOGS, parse_log_name

KILL_EVERY_S = 0.05
_FARM = (b"DRQUEUE_ATTEMPT=", b"DRQUEUE_MASTER=", b"DRQUEUE_COMPID=")
_TICKS = os.sysconf("SC_CLK_TCK")


class Orphan:
    """One attempt without a keeper: its main process (0 when that is gone) and what belongs to it."""

    def __init__(self, key: AttemptKey, pid: int, birth: int, state_dir: str) -> None:
        self.key = key
        self.pid = pid
        self.birth = birth
        self.started_at = _wall(birth)
        self.killing = False
        self._state_dir = state_dir
        self._folder = os.path.realpath(state_dir)
        self._owner = _owner(pid) if pid and proctree.alive(pid, birth) else -1
        self._marks = _marks(pid) if pid else set()
        self._seen: dict[int, int] = {}

    def members(self) -> list[int]:
        """All living processes of the attempt."""
        roots = [self.pid] if self.pid and proctree.alive(self.pid, self.birth) else []
        roots += [pid for pid in cgroups.members(self._state_dir, self.key) if pid not in roots]
        roots += [pid for pid, birth in self._seen.items() if proctree.alive(pid, birth)]
        for pid in proctree.processes():
            if pid in roots:
                continue
            if self._in_session(pid) or (proctree.attempt_of(pid) == str(self.key) and self._is_ours(pid)):
                roots.append(pid)
        found = [pid for pid in proctree.descendants(roots) if pid != os.getpid()]
        self._seen = {pid: proctree.birth(pid) for pid in found}
        return [pid for pid, birth in self._seen.items() if proctree.alive(pid, birth)]

    def _in_session(self, pid: int) -> bool:
        """Whether it is in the main process's session: while any is, nobody else gets that number."""
        if self._owner < 0:
            return False
        info = proctree.look(pid)
        return info is not None and info.session == self.pid and _owner(pid) == self._owner

    def _is_ours(self, pid: int) -> bool:
        if len(self._marks) > 1 and self._marks == _marks(pid):
            return True
        return writes_into(pid, self._folder)

    def terminate(self) -> None:
        proctree.terminate(self.members())

    async def kill(self) -> None:
        """Kill until nothing is found."""
        while True:
            if not proctree.kill(self.members):
                self._owner = -1  # the number may be anybody's from now on
                return
            await trio.sleep(KILL_EVERY_S)

    async def ended(self) -> None:
        """Wait for the main process's end, then end what it left behind."""
        try:
            fd = os.pidfd_open(self.pid) if self.pid else -1
        except ProcessLookupError:
            fd = -1
        try:
            # Opened by number: only if this is still that very process is there something to wait for.
            if fd >= 0 and proctree.alive(self.pid, self.birth):
                await trio.lowlevel.wait_readable(fd)
        finally:
            if fd >= 0:
                os.close(fd)
        await self.kill()


def find_orphans(keys: Iterable[AttemptKey], state_dir: str) -> dict[AttemptKey, Orphan]:
    """Search all processes for attempts of which only the key is known."""
    wanted = {str(key): key for key in keys}
    found: dict[AttemptKey, Orphan] = {}
    if not wanted:
        return found
    folder = os.path.realpath(state_dir)
    for mark, pid, birth in notes.running(state_dir):
        key = wanted.get(mark)
        if key is not None:
            found[key] = Orphan(key, pid, birth, state_dir)
    for pid in proctree.processes():
        key = wanted.get(proctree.attempt_of(pid))
        if key is None or not writes_into(pid, folder):
            key = wanted.get(_logs_as(pid, state_dir))
        if key is None:
            continue
        info = proctree.look(pid)
        # The main process leads its session; only its descendants may be left, though.
        if info is not None and info.session == pid and key not in found:
            found[key] = Orphan(key, pid, info.birth, state_dir)
    return found


def running_attempts(state_dir: str) -> set[AttemptKey]:
    """All attempts of which a process runs that belongs to this slave, whoever looks after it."""
    marks = {mark for mark, _, _ in notes.running(state_dir)}
    # Not all of its directory: daemons may run inside of another farm's frame.
    folder = os.path.realpath(os.path.join(state_dir, LOGS))
    for pid in proctree.processes():
        if writes_into(pid, folder):
            marks |= {proctree.attempt_of(pid), _logs_as(pid, state_dir)}
    found = set()
    for mark in marks:
        try:
            found.add(parse_attempt(mark))
        except ValueError:  # none, or no mark of ours
            continue
    return found


def writes_into(pid: int, folder: str) -> bool:
    """Whether the process's output or errors go to a file below that folder (its path without links)."""
    for fd in (1, 2):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if path.startswith(folder + "/"):
            return True
    return False


def _logs_as(pid: int, state_dir: str) -> str:
    """The attempt whose log is the process's output; "" where it is no log of this slave's.

    That is so before the command begins, while all else of the process is the keeper's.
    """
    folder = os.path.realpath(os.path.join(state_dir, LOGS)) + "/"
    try:
        path = os.readlink(f"/proc/{pid}/fd/1")
    except OSError:
        return ""
    if not path.startswith(folder):
        return ""
    job, _, name = path[len(folder) :].partition("/")
    return str(parse_log_name(job, name) or "")


def unborn(state_dir: str) -> bool:
    """Whether a child that a dead keeper started is not yet to be told from it: it may become any attempt."""
    state_dir = os.path.realpath(state_dir)
    return any(
        kept_by(pid) == state_dir and pid != _locker(state_dir) and not _logs_as(pid, state_dir)
        for pid in proctree.processes()
    )


def _locker(state_dir: str) -> int:
    """The keeper that took the lock last, living or not."""
    try:
        with open(os.path.join(state_dir, "keeper.lock"), "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _owner(pid: int) -> int:
    """The uid of a process; -1 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def is_kept(pid: int, state_dir: str) -> bool:
    """Whether the process's parent is the keeper of another slave, whose frame it then is.

    A copied state directory tells of attempts that run below the keeper of the original.
    """
    info = proctree.look(pid)
    return info is not None and kept_by(info.parent) not in ("", os.path.realpath(state_dir))


def kept_by(pid: int) -> str:
    """The state directory whose keeper a process is, links resolved; "" where it is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    for word, following in itertools.pairwise(words):
        if word.endswith(b"/slave/keeper.py"):
            return os.path.realpath(os.fsdecode(following))
    return ""


def _marks(pid: int) -> set[bytes]:
    return {entry for entry in proctree.environment(pid) if entry.startswith(_FARM)}


def _wall(birth: int) -> float:
    """Ticks since boot as seconds of wall clock; now for 0."""
    if not birth:
        return time.time()
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + birth / _TICKS
