"""The keeper: a small process that is the parent of a slave's frames, so that they outlive its daemon.

    python -I -S keeper.py STATE_DIR [LINGER_SECONDS]

This file only settles in; `keeper_loop` serves the daemon, `frames` watches the processes, `spawning` starts
them, `proctree` reads /proc. (Python keeps no bytecode of a file it runs by path, and compiling a long one
would cost two megabytes for good.)

Rules of these five: standard library only, imported at start (the package may be replaced under a running
keeper); one thread; nothing waits for the daemon; nothing a connection sends can end it.

One keeper per state directory: it holds the lock on `keeper.lock` and listens on `keeper.sock`; a socket
given as standard input is its first connection. It serves one daemon at a time, the newest, in lines of
JSON. The daemon greets with {"v": 1}, the keeper answers {"is": "keeper", "v": 1, "pid": its own}, tells
all that it holds, and ends that with {"is": "held"}. A key is [job, layer, frame, attempt].

    do: launch   key argv env cwd umask log cap scratch      is: started  key pid birth at
        signal   key kill                                        failed   key reason text
        forget   key                                             ended    key code signal cpu peak
        shutdown grace                                                    start end log reason

A result (failed, ended) is held until it is forgotten. Without daemon and frames it ends after
LINGER_SECONDS, results or not; on shutdown, or TERM, as soon as all trees are gone.

A log over its cap keeps its first and its last quarter and loses what lies between, four times a second:
the disk holds at most the cap and what is written between two looks. The file's length is not changed.
"""

import fcntl
import os
import signal
import socket
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from drqueue.slave import frames, keeper_loop
else:  # run by path and without site: the package cannot be imported
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import frames
    import keeper_loop

LOCK_PATIENCE_S = 10.0


def signals() -> socket.socket:
    """Let CHLD and TERM write their number to a socket; return its reading end."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    for signo in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(signo, lambda *_: None)
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_IGN)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    return reading


def take_lock() -> None:
    """Hold keeper.lock for life; a keeper that is ending gets a while to let go of it."""
    fd = os.open("keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    patience = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > patience:
                holder = os.read(fd, 64).decode("ascii", "replace").strip()
                raise SystemExit(f"another keeper, process {holder}, serves this state directory") from None
        time.sleep(0.01)
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())


def open_socket() -> socket.socket:
    """Listen in the working directory: a name relative to it is never longer than 107 bytes."""
    if os.path.lexists("keeper.sock"):
        os.unlink("keeper.sock")  # a dead keeper's: the lock is ours
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind("keeper.sock")
    os.chmod("keeper.sock", 0o600)
    listener.listen(keeper_loop.MAX_CALLERS)
    return listener


def settle_in() -> socket.socket | None:
    """Take over the first connection from standard input; drop all other inherited descriptors."""
    first = socket.socket(fileno=os.dup(0)) if stat.S_ISSOCK(os.fstat(0).st_mode) else None
    kept = first.fileno() if first is not None else 2
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 20)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open("keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > 1 << 20:
        os.ftruncate(log, 0)
    for fd, source in ((0, null), (1, null), (2, log)):
        os.dup2(source, fd)
    os.close(null)
    os.close(log)
    return first


def main() -> None:
    os.umask(0o077)
    os.chdir(sys.argv[1])
    state_dir = os.getcwd()
    first = settle_in()
    take_lock()
    frames.become_subreaper()
    linger_s = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    keeper = keeper_loop.Keeper(linger_s, open_socket(), signals())
    os.chdir("/")
    if first is not None:
        keeper.welcome(first)
    keeper.run()
    try:
        os.unlink(f"{state_dir}/keeper.sock")
    except FileNotFoundError:  # the state directory went first
        return


if __name__ == "__main__":
    main()
