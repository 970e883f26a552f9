"""A frame that writes down its own life: python ledger.py LEDGER SECONDS|hold [EXIT].

`hold`: frames above 2 live until the file LEDGER.go is there.

Each line is `start|end job/layer/frame/attempt number`; a lock per frame, held from start to end, tells
two lives of one frame at a time (`overlap`). What the frames themselves saw is the truth that the
farm's own account is held against.
"""

import fcntl
import os
import sys
import time


def say(descriptor: int, word: str) -> None:
    """One line, in one write."""
    line = f"{word} {os.environ['DRQUEUE_ATTEMPT']} {os.environ['DRQUEUE_FRAME']}\n"
    os.write(descriptor, line.encode())


def main() -> int:
    """Start, last as long as told, end."""
    ledger = sys.argv[1]
    status = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    book = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    lock = os.open(f"{ledger}.{os.environ['DRQUEUE_FRAME']}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(book, "overlap")
        return 9
    say(book, "start")
    print(f"frame {os.environ['DRQUEUE_FRAME']} lives", flush=True)
    if sys.argv[2] != "hold":
        time.sleep(float(sys.argv[2]))
    elif int(os.environ["DRQUEUE_FRAME"]) > 2:
        while not os.path.exists(f"{ledger}.go"):
            time.sleep(0.02)
    say(book, "end")
    return status


if __name__ == "__main__":
    sys.exit(main())
