"""A frame of eleven processes: itself, five children, and five that got away by a double fork and setsid.

Each notes its number in ./pids. With --ignore-term none of them heeds TERM.
"""

import os
import signal
import sys


def stay() -> None:
    """Note the own number and wait to be killed."""
    fd = os.open("pids", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)
    while True:
        signal.pause()


if "--ignore-term" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(5):
    if os.fork() == 0:
        stay()
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            stay()
        os._exit(0)
    os.waitpid(middle, 0)
stay()
