"""A frame of eleven processes: itself, five children, and five that leave no trace of whose they were.

Those five left by a double fork and a session of their own, ignore TERM, were started anew with an empty
environment (`exec`), and have closed every descriptor. All note their numbers in ./pids. With `--leave` the
frame itself exits with 7 once all are there.
"""

import os
import signal
import sys
from pathlib import Path

HERE = os.path.abspath(__file__)
PIDS = os.path.abspath("pids")


def stay() -> None:
    """Note the own number, close everything, and wait to be killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.chdir("/")
    fd = os.open(sys.argv[2] if sys.argv[1:2] == ["away"] else PIDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.closerange(0, 1 << 16)
    while True:
        signal.pause()


if sys.argv[1:2] == ["away"]:
    stay()
for _ in range(5):
    if os.fork() == 0:
        stay()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-I", "-S", HERE, "away", PIDS], {})
        os._exit(0)
    os.waitpid(middle, 0)
if "--leave" in sys.argv:
    while not os.path.exists(PIDS) or len(Path(PIDS).read_text().split()) < 10:
        signal.sigtimedwait([], 0.01)
    os._exit(7)
stay()
