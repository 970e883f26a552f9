"""A frame that floods its log: python -I -S flood.py KIND MEGABYTES CODE [SECONDS FILE]

It writes HEAD, then blocks of KIND, then TAIL, each whole, however long that takes, and ends with CODE.
Blocks that there is no room for are lost, as with a renderer that does not look. With SECONDS it goes on for
that long, and adds a byte to FILE for each block that was lost.

Rules: the standard library alone.
"""

import os
import random
import sys
import time

MEGABYTE = 1 << 20
SIZE = 70_000
#: Longer than what is kept of a log's ends.
HEAD = b"".join(b"head %09d\n" % number for number in range(SIZE // 15))
TAIL = b"".join(b"tail %09d\n" % number for number in range(SIZE // 15))
#: 1 MB of each.
BLOCKS = {
    "line": b"x" * MEGABYTE,
    "nul": bytes(MEGABYTE),
    "lines": b"a\n" * (MEGABYTE // 2),
    "binary": random.Random(1).randbytes(MEGABYTE),
    "carriage": b"50%\r" * (MEGABYTE // 4),
}


def write_all(data: bytes) -> None:
    """Write all of it, as soon as there is room."""
    while data:
        try:
            data = data[os.write(1, data) :]
        except OSError:
            time.sleep(0.01)


def main() -> int:
    """Flood."""
    block, megabytes, code = BLOCKS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3])
    over = time.monotonic() + float(sys.argv[4] if sys.argv[4:] else 0)
    write_all(HEAD)
    written = 0
    while written < megabytes or time.monotonic() < over:
        written += 1
        try:
            os.write(1, block)
        except OSError:
            with open(sys.argv[5], "ab") as lost:
                lost.write(b"x")
            time.sleep(0.001)
    write_all(TAIL)
    return code


if __name__ == "__main__":
    sys.exit(main())
