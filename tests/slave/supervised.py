"""A daemon reduced to its supervisor inside the test's own process, with real keepers and frames."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave.core.processes import Launch, LaunchFailed, ProcessEnded, ProcessEvent, ProcessStarted
from drqueue.slave.supervisor import Supervisor
from tests.slave.tree_harness import Ward, until

E = TypeVar("E", ProcessStarted, ProcessEnded, LaunchFailed)
Known = dict[AttemptKey, tuple[int, int] | None]
K1, K2, K3 = AttemptKey(0, 0, 0, 1), AttemptKey(0, 0, 1, 1), AttemptKey(0, 0, 2, 1)


class Daemon:
    """A supervisor and the events it delivered."""

    def __init__(self, ward: Ward) -> None:
        self.ward = ward
        self.events: list[ProcessEvent] = []
        self.news = trio.Event()
        self.supervisor = Supervisor(str(ward.state), self.deliver, linger_s=20)

    def deliver(self, event: ProcessEvent) -> None:
        self.events.append(event)
        self.news.set()
        self.news = trio.Event()

    async def wait(self, kind: type[E], key: AttemptKey) -> E:
        """Wait for the (first) event of that kind for that attempt."""
        with trio.fail_after(30):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and event.key == key:
                        return event
                await self.news.wait()

    def order(self, key: AttemptKey, *argv: str, **more: Any) -> Launch:
        return Launch(**{**order(self.ward, key, *argv), "key": key, "argv": argv, **more})

    def launch(self, key: AttemptKey, *argv: str, **more: Any) -> None:
        self.supervisor.launch(self.order(key, *argv, **more))
        self.supervisor.flush()

    def signal(self, key: AttemptKey, kill: bool) -> None:
        self.supervisor.signal_tree(key, kill)
        self.supervisor.flush()


def order(ward: Ward, key: AttemptKey, *argv: str) -> dict[str, Any]:
    """A launch as JSON takes it."""
    return {
        "key": key, "argv": argv, "env": ward.env(key), "cwd": str(ward.work), "log_path": str(ward.log(key)),
        "log_cap": 1 << 20, "umask": 0o022,
    }  # fmt: skip


@asynccontextmanager
async def running(ward: Ward, known: Known | None = None) -> AsyncIterator[Daemon]:
    """A daemon that has accounted for all of `known`; its keeper lives on."""
    daemon = Daemon(ward)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            await nursery.start(daemon.supervisor.run, known or {})
        yield daemon
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def passing(ward: Ward, known: Known | None = None) -> AsyncIterator[Daemon]:
    """A daemon that shuts down everything at its end."""
    async with running(ward, known) as daemon:
        yield daemon
        with trio.fail_after(30):
            await daemon.supervisor.shutdown()


async def come(condition: Callable[[], Any]) -> Any:
    """Wait for a condition while the daemon goes on."""
    return await trio.to_thread.run_sync(until, condition)
