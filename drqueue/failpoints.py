"""Places in the daemons and the keeper that can be made to fail, for tests of what survives that.

    DRQUEUE_FAILPOINT=NAME=ACTION[@N][,NAME=ACTION[@N]...]

The N-th time that the process comes to the place NAME (every time without @N) it does ACTION: kill and stop
(its own KILL and STOP), exit (at once, status 70), sleep (0.3 s), eio, enospc, emfile, eagain (the OSError
that a system call would raise there). It says so on stderr first. A name or an action that is unknown ends
the program at its start. `NAMES` says what the places are.

Rules: the standard library alone and no `typing`, for the keeper imports this by path. Where the variable is
unset a place costs one look at a constant: `if failpoints.ACTIVE: failpoints.hit("commit-before")`.
"""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable

VARIABLE = "DRQUEUE_FAILPOINT"
SLEEP_S = 0.3
EXIT_STATUS = 70

NAMES = {
    "commit-before": "master: rows are to be saved",
    "commit-within": "master: rows are written, and not committed",
    "commit-after": "master: rows are committed, and nobody was told",
    "migration-step": "master: before each statement that brings the tables to a newer version",
    "epoch-within": "master: the next epoch is in the database, and not in farm.json",
    "bounds-before": "master: farm.json is to get other bounds of ids, or accounts that are gone",
    "bounds-after": "master: it has them, and the rows that need them are not saved",
    "backup-step": "master: some pages of a backup are copied",
    "backup-rename": "master: a backup is whole, and still has its temporary name",
    "state-write": "both: a file of state (farm.json, identity.json, ...) is written, and not in place",
    "state-renamed": "both: it is in place, and its folder not synced",
    "turn-committed": "both: what a turn of the core wants saved is committed, nothing is done yet",
    "effect-done": "both: one of the effects of a turn is performed",
    "send-before": "both: bytes are to be sent",
    "send-half": "both: half of them are sent",
    "send-after": "both: the system took them, or some of them",
    "append-before": "slave: records are to be appended to the spool",
    "append-half": "slave: half of their bytes are written",
    "append-after": "slave: they are written, and nobody was told",
    "compact-before": "slave: a shorter spool is written, and not in place",
    "compact-after": "slave: it is in place, and the old one still open",
    "identity-save": "slave: the identity is to be saved",
    "keeper-born": "slave: a keeper was started, and nothing said to it",
    "order-before": "slave: the keeper is to be told something",
    "order-after": "slave: it was told, or some of it",
    "frame-spawned": "keeper: a frame's process runs, and the daemon was not told",
    "frame-reaped": "keeper: a frame's processes are gone, and the daemon was not told",
    "frame-forgotten": "keeper: the daemon has a result for good",
}

_ERRORS = {
    "eio": errno.EIO,
    "enospc": errno.ENOSPC,
    "emfile": errno.EMFILE,
    "eagain": errno.EAGAIN,
}
ACTIONS = ("kill", "stop", "exit", "sleep", *_ERRORS)

_lock = threading.Lock()
_counts: dict[str, int] = {}


def parse(text: str) -> dict[str, list[tuple[str, int]]]:
    """What is to happen at which places: (action, N or 0) by name; ValueError with a sentence."""
    found: dict[str, list[tuple[str, int]]] = {}
    for part in text.split(","):
        name, equals, rest = part.strip().partition("=")
        action, at, times = rest.partition("@")
        if not equals or name not in NAMES:
            raise ValueError(f"{VARIABLE} names a place that there is not: {name!r}")
        if action not in ACTIONS:
            raise ValueError(f"{VARIABLE} asks for {action!r} at {name}; there is {', '.join(ACTIONS)}")
        if at and not (times.isascii() and times.isdecimal() and int(times) > 0):
            raise ValueError(f"{VARIABLE} counts to {times!r} at {name}, which is no number above 0")
        found.setdefault(name, []).append((action, int(times) if at else 0))
    return found


def hit(name: str, first: Callable[[], object] | None = None) -> None:
    """The process is at this place: do what is to happen there, if anything, after a call of `first`."""
    with _lock:
        count = _counts[name] = _counts.get(name, 0) + 1
    for action, at in _armed.get(name, ()):
        if at in (0, count):
            if first is not None:
                first()
            os.write(2, f"failpoint {name}: {action}, time {count}\n".encode())
            _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "sleep":
        time.sleep(SLEEP_S)
    elif action == "exit":
        os._exit(EXIT_STATUS)
    elif action in _ERRORS:
        number = _ERRORS[action]
        raise OSError(number, f"{os.strerror(number)} (failpoint {name})")
    else:
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def _from_environment() -> dict[str, list[tuple[str, int]]]:
    text = os.environ.get(VARIABLE, "")
    try:
        return parse(text) if text else {}
    except ValueError as error:
        raise SystemExit(str(error)) from None


_armed = _from_environment()
#: Whether anything is to happen anywhere in this process.
ACTIVE = bool(_armed)
