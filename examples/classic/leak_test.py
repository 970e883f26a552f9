#!/usr/bin/env python3
"""Asks for the lists of jobs, frames and computers again and again, and shows this process's memory.

    leak_test.py [ROUNDS]

Memory that keeps growing from line to line would be a leak. Changes nothing.
"""

import sys

import drqueue


def memory_kb() -> int:
    """Memory of this process that is in RAM now (KiB)."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise OSError("this system does not say how much memory a process has")


def one_round() -> None:
    """Fetch everything, keep nothing."""
    for job in drqueue.request_job_list(drqueue.CLIENT):
        job.request_frame_list(drqueue.CLIENT)
    drqueue.request_computer_list(drqueue.CLIENT)


def main(rounds: int) -> None:
    """Ten lines in all."""
    for number in range(1, rounds + 1):
        one_round()
        if number % max(1, rounds // 10) == 0:
            print(f"{number} rounds: {memory_kb()} KiB", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2 or not all(word.isdecimal() for word in sys.argv[1:]):
        sys.exit("usage: leak_test.py [ROUNDS]")
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    except OSError as error:
        sys.exit(f"leak_test: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
