"""How a slave's daemon finds its keeper, and starts one."""

import fcntl
import os
import signal
import socket
import sys
from typing import NamedTuple

import trio

from drqueue import failpoints

KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class Link(NamedTuple):
    """A connection, and the keeper's process id where it is this process's child, else 0."""

    sock: socket.socket
    child: int


def connect(state_dir: str) -> socket.socket | None:
    """A connection to a living keeper, None where there is none."""
    # By way of a descriptor: the path itself may be longer than a socket's address.
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(f"/proc/self/fd/{folder}/keeper.sock")
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
        sock.close()
        return None
    finally:
        os.close(folder)
    return sock


def is_locked(state_dir: str) -> bool:
    """Whether some keeper, perhaps one that starts or ends, holds the lock."""
    try:
        fd = os.open(os.path.join(state_dir, "keeper.lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def start(state_dir: str, linger_s: float) -> Link:
    """Start a keeper; raises OSError."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    argv = [sys.executable, "-I", "-S", "-X", "utf8", KEEPER, state_dir, str(linger_s)]
    # A Python with libraries of its own needs this one; frames get what their orders say, nothing else.
    env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", failpoints.VARIABLE) if name in os.environ}
    actions = (
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    )
    try:
        child = os.posix_spawn(
            argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_SIGNALS
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    if failpoints.ACTIVE:
        failpoints.hit("keeper-born")
    return Link(ours, child)


def last_words(state_dir: str) -> str:
    """The last line that a keeper logged."""
    try:
        with open(os.path.join(state_dir, "keeper.log"), encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


async def reap(pid: int) -> None:
    """Collect a keeper that was this process's child."""
    fd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(fd)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - it has ended
    finally:
        os.close(fd)
