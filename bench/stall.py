"""How long a trio loop keeps others waiting: how late a sleeper wakes.

`python -m bench.stall FILE master ARGUMENT...` runs the master with a sleeper inside, `python -m bench.stall
FILE` nothing but a sleeper. Each writes what it saw since it was asked last into FILE on SIGUSR2, and how
much CPU it had taken when it was up.
"""

import json
import os
import signal
import sys
import time
from typing import Any

import trio

#: Often enough to meet a stall of some ms, seldom enough to cost little.
NAP_S = 0.01


class Sleeper(trio.abc.Instrument):
    """Naps in a loop that it is an instrument of, and keeps how late it woke (seconds)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._late: list[float] = []
        self._up_cpu_s = 0.0

    def before_run(self) -> None:
        """The loop begins."""
        self._up_cpu_s = time.process_time()
        trio.lowlevel.spawn_system_task(self._nap)
        trio.lowlevel.spawn_system_task(self._tell)

    async def _nap(self) -> None:
        while True:
            due = time.perf_counter() + NAP_S
            await trio.sleep(NAP_S)
            self._late.append(time.perf_counter() - due)

    async def _tell(self) -> None:
        with trio.open_signal_receiver(signal.SIGUSR2) as asked:
            async for _ in asked:
                late, self._late = self._late, []
                text = json.dumps({"late_s": late, "up_cpu_s": self._up_cpu_s})
                with open(f"{self._path}.new", "w", encoding="ascii") as file:
                    file.write(text)
                os.rename(f"{self._path}.new", self._path)


async def ask(pid: int, path: str) -> dict[str, Any]:
    """What the sleeper in a process saw since it was asked last."""
    if os.path.exists(path):
        os.unlink(path)
    os.kill(pid, signal.SIGUSR2)
    while not os.path.exists(path):
        await trio.sleep(0.02)
    with open(path, encoding="ascii") as file:
        seen: dict[str, Any] = json.load(file)
    return seen


def main() -> None:
    """Run a master, or nothing, with a sleeper inside."""
    sleeper = Sleeper(sys.argv[1])
    if sys.argv[2:3] != ["master"]:
        trio.run(trio.sleep_forever, instruments=[sleeper])
        return
    from drqueue.master import cli

    run = trio.run
    trio.run = lambda *args, **more: run(*args, instruments=[sleeper], **more)
    cli.main(sys.argv[3:])


if __name__ == "__main__":
    main()
