"""A fork bomb that stops at `sys.argv[1]` processes: all fork, some leave their session or parent.

Each adds a byte to ./count, by which the bound is kept.
"""

import os
import signal
import sys

fd = os.open("count", os.O_RDWR | os.O_CREAT | os.O_APPEND)
while os.fstat(fd).st_size < int(sys.argv[1]):
    os.write(fd, b".")
    if os.fork():
        if os.fstat(fd).st_size % 3 == 1 and os.getpid() != os.getsid(0):
            os._exit(0)
    elif os.fstat(fd).st_size % 2:
        os.setsid()
while True:
    signal.pause()
