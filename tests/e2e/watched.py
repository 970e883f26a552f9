"""Run a daemon and write down what kept its loop busy: python watched.py FILE MODULE [OPTIONS].

For each step of a task, and for each turn of the loop (all the steps between two looks at the sockets), that
took longer than any before: a line with `step` or `turn`, milliseconds, and the task. What counts is this
thread's CPU time, so that other programs on the machine do not matter. An empty FILE begins anew.
"""

import functools
import os
import runpy
import sys
import time

import trio


class Watcher(trio.abc.Instrument):
    """Measures steps and turns."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="ascii", buffering=1)  # noqa: SIM115  (as long as the daemon)
        self._longest = {"step": 0.0, "turn": 0.0}
        self._step = self._turn = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._took("step", time.thread_time() - self._step, task.name)

    def after_io_wait(self, timeout: float) -> None:
        self._turn = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        self._took("turn", time.thread_time() - self._turn, "")

    def _took(self, what: str, seconds: float, task: str) -> None:
        if not os.fstat(self._file.fileno()).st_size:
            self._longest = dict.fromkeys(self._longest, 0.0)
        if seconds > self._longest[what]:
            self._longest[what] = seconds
            self._file.write(f"{what} {1000 * seconds:.3f} {task}\n")


def main() -> None:
    watcher = Watcher(sys.argv[1])

    trio.run = functools.partial(trio.run, instruments=[watcher])  # type: ignore[assignment]
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
