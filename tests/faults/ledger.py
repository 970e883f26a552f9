"""A frame that writes down its own life: python -I -S ledger.py FOLDER SECONDS [stray|held]

It lasts between 0 and SECONDS, which its number decides, and so does its number its exit code. Each line of
FOLDER/ledger is `start|end BOOTTIME ATTEMPT SLAVE NUMBER`; a lock per frame of a job, held for as long as
the process lives, tells two lives at a time: `overlap`. What frames saw of themselves is the truth that the
farm's own account is held against. `stray`: it leaves a child, which must
not keep the lock, and its number in FOLDER/stray. `held`: it lives until FOLDER/go is there.

Rules: the standard library alone, few modules: hundreds of these are started.
"""

import fcntl
import os
import sys
import time

LINES = 5


def code_of(number: int) -> int:
    """The exit code of frame `number`: every seventh fails, each in a way of its own."""
    return number // 7 % 250 + 1 if number % 7 == 0 else 0


def lasts_s(number: int, most_s: float) -> float:
    """How long it lives (seconds)."""
    return number * 7919 % 1000 / 1000 * most_s


def log_of(number: int) -> bytes:
    """All that it prints."""
    return b"".join(b"frame %d, line %d of %d\n" % (number, line, LINES) for line in range(1, LINES + 1))


def main() -> int:
    """Start, last, end."""
    folder, most_s = sys.argv[1], float(sys.argv[2])
    attempt, number = os.environ["DRQUEUE_ATTEMPT"], int(os.environ["DRQUEUE_FRAME"])
    # Python opens these so that what is executed does not inherit them.
    book = os.open(f"{folder}/ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    frame = attempt.rpartition("/")[0].replace("/", "-")
    lock = os.open(f"{folder}/{frame}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def say(word: str) -> None:
        boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        slave = os.environ.get("DRQUEUE_COMPID", "?")
        os.write(book, f"{word} {boottime:.6f} {attempt} {slave} {number}\n".encode())

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("overlap")
        return 99
    say("start")
    *early, last = log_of(number).splitlines(keepends=True)
    os.write(1, b"".join(early))
    if sys.argv[3:] == ["stray"]:
        stray = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True)
        with open(f"{folder}/stray", "w", encoding="ascii") as file:
            file.write(str(stray))
    time.sleep(lasts_s(number, most_s))
    while sys.argv[3:] == ["held"] and not os.path.exists(f"{folder}/go"):
        time.sleep(0.02)
    os.write(1, last)
    say("end")
    return code_of(number)


if __name__ == "__main__":
    sys.exit(main())
