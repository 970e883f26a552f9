"""What /proc says about trees of processes, and how to end one.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
A process that is gone answers None or nothing, never an exception.
"""

import os
import signal
from collections.abc import Callable, Iterable

MARK = b"DRQUEUE_ATTEMPT="
PASSES = 20


class Info:
    """One process as /proc/PID/stat shows it; `birth` in clock ticks since boot, `rss` in bytes."""

    __slots__ = ("birth", "parent", "rss", "session", "state")

    def __init__(self, state: str, parent: int, session: int, birth: int, rss: int) -> None:
        self.state = state
        self.parent = parent
        self.session = session
        self.birth = birth
        self.rss = rss


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = part = os.read(fd, 65536)
        # seq_file hands out a page at a time: a short read is no end of file.
        while part:
            part = os.read(fd, 65536)
            data += part
    except OSError:
        return b""
    finally:
        os.close(fd)
    return data


def look(pid: int) -> Info | None:
    """Read one process; None when it is gone."""
    data = _read(f"/proc/{pid}/stat")
    # The name stands in parentheses and may hold anything, parentheses and blanks too.
    field = data[data.rfind(b")") + 2 :].split()
    if len(field) < 22:
        return None
    rss = int(field[21]) * _PAGE
    return Info(field[0].decode("ascii"), int(field[1]), int(field[3]), int(field[19]), rss)


_PAGE = os.sysconf("SC_PAGE_SIZE")


def birth(pid: int) -> int:
    """When the process was born, in clock ticks since boot; 0 when it is gone."""
    info = look(pid)
    return 0 if info is None else info.birth


def alive(pid: int, born: int) -> bool:
    """Whether that very process (not a later one of the same number) still runs."""
    info = look(pid)
    return info is not None and info.birth == born and info.state not in "ZX"


def processes() -> list[int]:
    """The numbers of all processes this user can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def has_children_files() -> bool:
    """Whether this kernel lists a process's children (CONFIG_PROC_CHILDREN)."""
    me = os.getpid()
    return os.path.exists(f"/proc/{me}/task/{me}/children")


_LISTED = has_children_files()


def _by_parent() -> dict[int, list[int]]:
    table: dict[int, list[int]] = {}
    for pid in processes():
        info = look(pid)
        if info is not None:
            table.setdefault(info.parent, []).append(pid)
    return table


def children(pid: int) -> list[int]:
    """Children of all threads of a process, zombies among them."""
    if not _LISTED:
        return _by_parent().get(pid, [])
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(word) for tid in tasks for word in _read(f"/proc/{pid}/task/{tid}/children").split()]


def descendants(roots: Iterable[int]) -> list[int]:
    """The roots and everything below them, parents before children."""
    found = dict.fromkeys(roots)
    todo = list(found)
    table = None if _LISTED else _by_parent()
    while todo:
        pid = todo.pop()
        for child in children(pid) if table is None else table.get(pid, ()):
            if child not in found:
                found[child] = None
                todo.append(child)
    return list(found)


def environment(pid: int) -> list[bytes]:
    """The environment a process was started with, as NAME=value; empty where it may not be read."""
    return _read(f"/proc/{pid}/environ").split(b"\0")


def attempt_of(pid: int) -> str:
    """The value of DRQUEUE_ATTEMPT a process was started with; "" where there is none."""
    for entry in environment(pid):
        if entry.startswith(MARK):
            return entry[len(MARK) :].decode("ascii", "replace")
    return ""


def send(pid: int, signo: int) -> bool:
    """Send a signal; False when the process is gone or is not ours to signal."""
    try:
        os.kill(pid, signo)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def terminate(pids: Iterable[int]) -> None:
    """Send TERM to all of them, and CONT, since a stopped process would not hear it."""
    for pid in pids:
        send(pid, signal.SIGTERM)
        send(pid, signal.SIGCONT)


def kill(find: Callable[[], Iterable[int]]) -> set[int]:
    """Kill everything that `find` finds, asking again until it finds nothing new.

    All are stopped before the first is killed: a stopped process forks no more, so a fork bomb stands
    still. Returns what was signalled; the caller repeats while that is not empty.
    """
    found: set[int] = set()
    for _ in range(PASSES):
        new = [pid for pid in find() if pid not in found]
        if not new:
            break
        found.update(new)
        for pid in new:
            send(pid, signal.SIGSTOP)
    for pid in found:
        send(pid, signal.SIGKILL)
    return found
