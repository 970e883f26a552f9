"""One thread that does one thing after another, for a trio task that waits.

Where it is asked a hundred times a second, trio's own threads cost several times what it does here. What it
needs to ring with one who waits is opened as it is made; where descriptors are short, the others take turns.
"""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

import trio

T = TypeVar("T")


class _Job(Generic[T]):
    """Something to do, and what came of it. `bell`: an eventfd that rings when it is done."""

    __slots__ = ("bell", "do", "error", "value")

    def __init__(self, do: Callable[[], T], bell: int) -> None:
        self.do = do
        self.bell = bell
        self.value: T | None = None
        self.error: BaseException | None = None


_Queue = SimpleQueue[_Job[object] | None]


class Worker:
    """A thread, started when it is first needed; it ends once nobody knows the worker any more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: _Queue = SimpleQueue()
        #: Those that nobody waits for.
        self._bells: list[int] = [_new_bell()]
        self._short = trio.lowlevel.ParkingLot()
        self._started = False
        weakref.finalize(self, _end, self._jobs, self._bells)

    async def run(self, do: Callable[[], T]) -> T:
        """What `do` returns, called in the thread once all is done that was asked before. Not cancelled."""
        if not self._started:
            self._start()
        bell = self._bells.pop() if self._bells else await self._another_bell()
        job = _Job(do, bell)
        self._jobs.put(cast(_Job[object], job))
        try:
            await trio.lowlevel.wait_readable(bell)
        except trio.Cancelled:
            # Only here: a scope costs a quarter of all this. Whoever asked is told at its next checkpoint.
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(bell)
        os.eventfd_read(bell)
        self._bells.append(bell)
        if self._short:
            self._short.unpark()
        if job.error is not None:
            raise job.error
        return cast(T, job.value)

    async def _another_bell(self) -> int:
        while True:
            try:
                return _new_bell()
            except OSError:
                # Out of descriptors. One that rings for somebody else comes back soon: its work is under way.
                await self._short.park()
            if self._bells:
                return self._bells.pop()

    def _start(self) -> None:
        self._started = True
        threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()


def _new_bell() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def _work(jobs: _Queue) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.value = job.do()
        except BaseException as error:  # noqa: BLE001  (raised again for whoever asked)
            job.error = error
        os.eventfd_write(job.bell, 1)
        # Not kept alive until the next one comes.
        del job


def _end(jobs: _Queue, bells: list[int]) -> None:
    jobs.put(None)
    for bell in bells:
        os.close(bell)
