"""What another user's processes were started with, asked as that user.

Standard library only, without `typing`: the keeper imports this by path and has to stay small.
Without CAP_SYS_PTRACE the keeper may not read the environment of another user's process, but that user may.
So a child becomes that user and looks. It is undumpable, as it has changed users: nobody of that user's can
tell it what to say; stopping it costs PATIENCE_S.
"""

import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING or __package__:
    from drqueue.slave import privileges, proctree
else:  # keeper.py made this folder importable
    import privileges
    import proctree

PATIENCE_S = 1.0


def attempts_of(pids: list[int], marks: list[str], user: privileges.User) -> dict[int, str]:
    """Which of these processes of that user were started with one of these DRQUEUE_ATTEMPT."""
    try:
        reading, writing = os.pipe()
    except OSError:
        return {}
    try:
        masked = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _tell(pids, marks, user, writing)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            os.close(writing)
        said = _read(reading)
        os.kill(pid, signal.SIGKILL)
        if said is not None:
            os.waitpid(pid, 0)
    except OSError:
        return {}
    finally:
        os.close(reading)
    answers = [line.split() for line in (said or b"").decode("ascii", "replace").splitlines()]
    return {int(number): mark for number, mark in answers}


def _tell(pids: list[int], marks: list[str], user: privileges.User, pipe: int) -> None:
    """The child's part; it never returns."""
    try:
        privileges.become(user)
        lines = [f"{pid} {mark}\n" for pid in pids if (mark := proctree.attempt_of(pid)) in marks]
        data = "".join(lines).encode()
        while data:
            data = data[os.write(pipe, data) :]
    finally:
        os._exit(0)


def _read(pipe: int) -> bytes | None:
    """All that the child says; None where it does not come to an end."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    end = time.monotonic() + PATIENCE_S
    said = b""
    while poll.poll(max(0.0, end - time.monotonic()) * 1000):
        part = os.read(pipe, 65536)
        if not part:
            return said
        said += part
    return None
