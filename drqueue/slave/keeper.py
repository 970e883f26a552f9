"""The keeper: a small process that is the parent of a slave's frames, so that they outlive its daemon.

    python -I -S keeper.py STATE_DIR [LINGER_SECONDS]

This file only settles in; `keeper_loop` serves the daemon, `frames` watches the processes, `spawning` starts
them, `privileges` makes them another user's, `notes` keeps which those are, `unheard` keeps results that no
daemon heard, `cgroups` has a group for each frame, `oom` tells whether memory ran out, `proctree` reads
/proc, `asking` reads what of it is open to its user alone; `failpoints`, in the folder above, makes it fail
in tests. (Python keeps no bytecode of a file it runs by path, and compiling a long one would cost two
megabytes for good.)

Rules of all these: standard library only, imported at start (the package may be replaced under a running
keeper); one thread; nothing waits for the daemon; nothing a connection sends can end it.

One keeper per state directory: it holds the lock on `keeper.lock` and listens on `keeper.sock`; a socket
given as standard input is its first connection. It serves one daemon at a time, the newest, in lines of
JSON. The daemon greets with {"v": 1}, the keeper answers {"is": "keeper", "v": 1, "pid": its own, "users":
whether it may change users, "bases": true, "pings": true}, before it does anything else, tells all that it
holds, and ends that with {"is": "held"}. A key is [job, layer, frame, attempt].

    do: base     all of launch but its key and log           is: started  key pid birth at
        launch   key argv env cwd umask log cap                  failed   key reason text
                 scratch again group                             ended    key code signal cpu peak
        launch-as   the same, and as                                      start end log reason
        remove-as   paths as
        signal   key kill
        forget   key, or keys
        shutdown grace
        ping                                            pong

`as` is [uid, gid, [further groups]]. These are verbs of their own, and no field of launch: a keeper that
knows nothing of users closes the connection instead of starting a frame as its own. A scratch directory is
made where it is missing; another user's must be new. What is to be removed is not answered for.

What a launch leaves out is as `base` gave it last on the connection; its environment goes over that one.

A start is told a moment later, and not at all where the end came before. With `again` a log that stays empty
may become another attempt's, so that of what wrote nothing there may be no log in the end. `group` wants a
cgroup of its own, with [most processes, most bytes of memory] where those can be limited, 0 for any.

An end is told at once, but where frames run that have just begun: then up to 2 ms later, with theirs perhaps.

A result (failed, ended) is held until it is forgotten, and written to `keeper.ended` while no daemon is
there. Without daemon and frames the keeper ends after LINGER_SECONDS, unless that file cannot be written; on
shutdown, or TERM, as soon as all trees are gone.

A log over its cap keeps its first and its last quarter and loses what lies between, four times a second:
the disk holds at most the cap and what is written between two looks. The file's length is not changed.
"""

import ctypes
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
    HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path += (HERE, os.path.dirname(HERE))
    import frames
    import keeper_loop

LOCK_PATIENCE_S = 10.0


def signals() -> int:
    """A descriptor from which CHLD and TERM are read, in place of handlers; raises OSError."""
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_IGN)
    wanted = (signal.SIGCHLD, signal.SIGTERM)
    for signo in wanted:
        signal.signal(signo, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, wanted)
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask = (ctypes.c_ulong * (1024 // bits))()
    for signo in wanted:
        mask[(signo - 1) // bits] |= 1 << (signo - 1) % bits
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return fd


class Log:
    """keeper.log as stderr. What there is no room for is lost: a full disk must not end a keeper."""

    def write(self, text: str) -> int:
        try:
            return os.write(2, text.encode("utf-8", "backslashreplace"))
        except OSError:
            return 0

    def flush(self) -> None:
        """Nothing is held back."""


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
    sys.stderr = Log()
    take_lock()
    frames.become_subreaper()
    linger_s = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    keeper = keeper_loop.Keeper(linger_s, open_socket(), signals(), state_dir)
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
