"""Simulated slaves (bench/simslaves.py) in processes of their own, and what they tell."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec
import trio

from bench.simslaves import Asked, Told
from bench.tls import Door

_LINK_S = 300.0


class Slaves:
    """All processes of simulated slaves, and what they told last."""

    def __init__(self, told: list[Told]) -> None:
        self._told = told
        self._news = trio.Event()

    def hear(self, number: int, told: Told) -> None:
        self._told[number] = told
        self._news.set()
        self._news = trio.Event()

    @property
    def registered(self) -> int:
        return sum(told.registered for told in self._told)

    @property
    def events(self) -> int:
        return sum(told.events for told in self._told)

    @property
    def failed(self) -> dict[str, int]:
        """Why dials came to nothing, and how often."""
        return dict(sum((Counter(told.failed) for told in self._told), Counter()))

    @property
    def cpu_s(self) -> float:
        return sum(told.cpu_s for told in self._told)

    async def until(self, registered: int) -> None:
        """Return once so many are registered."""
        with trio.fail_after(_LINK_S):
            while self.registered < registered:
                await self._news.wait()


async def simulated(
    doors: Sequence[Door],
    processes: int,
    frame_s: float,
    cut_s: float,
    task_status: trio.TaskStatus[Slaves],
) -> None:
    """Run a slave of one slot for each door, in so many processes, until cancelled; see `simslaves.Asked`."""
    slaves = Slaves([Told()] * processes)
    async with trio.open_nursery() as nursery:
        for number in range(processes):
            mine = doors[number::processes]
            first = mine[0]
            asked = Asked(
                host=first.address.host,
                port=first.address.port,
                pin=first.pin,
                secrets=tuple(door.secret for door in mine),
                slots=1,
                frame_s=frame_s,
                first=number * len(doors),
                cut_s=cut_s,
            )
            nursery.start_soon(_process, number, asked, slaves)
        task_status.started(slaves)


async def _process(number: int, asked: Asked, slaves: Slaves) -> None:
    argv = [sys.executable, "-m", "bench.simslaves"]
    process = await trio.lowlevel.open_process(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdin.send_all(msgspec.json.encode(asked) + b"\n")
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                slaves.hear(number, msgspec.json.decode(lines[-1], type=Told))
        raise RuntimeError("the simulated slaves are gone")
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()
