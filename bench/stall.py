"""How long a trio loop keeps others waiting: how late a sleeper in it wakes.

`python -m bench.stall FILE master ARGUMENT...` runs the master with a sleeper inside, `python -m bench.stall
FILE` nothing but a sleeper. Each writes into FILE, on SIGUSR2, how late it woke each time since it was asked
last, and how much CPU its process had taken when the loop began.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import Struct

T = TypeVar("T")

#: Often enough to meet a stall of some ms, seldom enough to cost little.
NAP_S = 0.01
_LOOK_S = 0.02


class Seen(Struct, frozen=True):
    """What a sleeper saw: seconds by which it woke late each time; CPU seconds before its loop began."""

    late_s: tuple[float, ...]
    start_cpu_s: float

    def late_ms(self, share: float) -> float:
        """So late, at most, was this share of all times (milliseconds)."""
        return sorted(self.late_s)[min(len(self.late_s) - 1, int(share * len(self.late_s)))] * 1000


class Sleeper:
    """Naps in a loop beside what else runs there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._late: list[float] = []
        self._start_cpu_s = 0.0

    async def beside(self, do: Callable[..., Awaitable[T]], *args: object) -> T:
        """Do that, napping meanwhile."""
        self._start_cpu_s = time.process_time()
        trio.lowlevel.spawn_system_task(self._nap)
        trio.lowlevel.spawn_system_task(self._tell)
        return await do(*args)

    async def alone(self) -> None:
        """Nap for ever."""
        await self.beside(trio.sleep_forever)

    async def _nap(self) -> None:
        while True:
            due = time.perf_counter() + NAP_S
            await trio.sleep(NAP_S)
            self._late.append(time.perf_counter() - due)

    async def _tell(self) -> None:
        with trio.open_signal_receiver(signal.SIGUSR2) as asked:
            async for _ in asked:
                late, self._late = self._late, []
                self._write(json.dumps({"late_s": late, "start_cpu_s": self._start_cpu_s}))

    def _write(self, text: str) -> None:
        new = Path(f"{self._path}.new")
        new.write_text(text)
        new.rename(self._path)


async def ask(pid: int, path: str) -> Seen:
    """What the sleeper in a process saw since it was asked last."""
    file = trio.Path(path)
    await file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    with trio.fail_after(60):
        while not await file.exists():  # noqa: ASYNC110  (another process makes it)
            await trio.sleep(_LOOK_S)
    return msgspec.json.decode(await file.read_bytes(), type=Seen)


def main() -> None:
    """Run a master, or nothing, with a sleeper inside."""
    sleeper = Sleeper(sys.argv[1])
    if sys.argv[2:]:
        from drqueue.master import cli

        run: Any = trio.run
        setattr(trio, "run", partial(run, sleeper.beside))  # noqa: B010
        cli.main(sys.argv[3:])
    else:
        trio.run(sleeper.alone)


if __name__ == "__main__":
    main()
