"""The loop both daemons run: inbox -> core.step -> commit -> perform.

It is the only caller a core has, and so its only owner. What a step wants saved is committed before
anything it wants done is done: durable before visible is the shape of this loop, not a rule to
remember. Events that come in while a commit is under way make up the next batch, so the slower the
disk, the bigger the batch.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Generic, Protocol, TypeVar

import trio

from drqueue.outcome import Outcome

EventT = TypeVar("EventT")
EventT_contra = TypeVar("EventT_contra", contravariant=True)
RecordT = TypeVar("RecordT")
EffectT = TypeVar("EffectT")


class Core(Protocol[EventT_contra, RecordT, EffectT]):
    """A pure decision maker; see `drqueue.master.core` and `drqueue.slave.core`."""

    def step(self, events: Sequence[EventT_contra], now: float) -> Outcome[RecordT, EffectT]:
        """Take every event in order, then every deadline that passed."""

    def next_wakeup(self) -> float | None:
        """When to call `step([], now)` if nothing happens; None: never."""


class Inbox(Generic[EventT]):
    """Events on their way to the core, in order.

    `put` never fails and never waits, so that no event is lost; whoever can make its peer wait
    (a link's reader) calls `wait_room` first, which bounds the queue at about `limit` events.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._events: deque[EventT] = deque()
        self._limit = limit
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: EventT) -> None:
        """Queue an event."""
        self._events.append(event)
        if not self._arrived.is_set():
            self._arrived.set()

    async def wait_room(self) -> None:
        """Return once fewer than `limit` events are queued."""
        while len(self._events) >= self._limit:
            self._room = trio.Event()
            await self._room.wait()

    def close(self) -> None:
        """No more events: the engine returns once the queue is empty."""
        self._closed = True
        self._arrived.set()

    async def take(self, timeout: float) -> list[EventT] | None:
        """All queued events, [] after `timeout` seconds without one, None when closed and empty."""
        if not self._events and not self._closed:
            self._arrived = trio.Event()
            with trio.move_on_after(max(timeout, 0)):
                await self._arrived.wait()
        if not self._events and self._closed:
            return None
        batch = list(self._events)
        self._events.clear()
        self._room.set()
        return batch


async def run(
    core: Core[EventT, RecordT, EffectT],
    inbox: Inbox[EventT],
    commit: Callable[[Sequence[RecordT]], Awaitable[None]],
    perform: Callable[[EffectT], None],
    *,
    clock: Callable[[], float] = trio.current_time,
    flush: Callable[[], None] = lambda: None,
    longest_nap_s: float = inf,
) -> None:
    """Feed `core` until `inbox` is closed.

    `perform` is sync, so that it cannot wait for anyone; `flush` comes after a batch of effects.
    `longest_nap_s` bounds one wait, for clocks that go on while trio's stands still (suspend).
    """
    while True:
        wake = core.next_wakeup()
        timeout = inf if wake is None else wake - clock()
        batch = await inbox.take(min(timeout, longest_nap_s))
        if batch is None:
            return
        outcome = core.step(batch, clock())
        if outcome.save:
            await commit(outcome.save)
        for effect in outcome.do:
            perform(effect)
        flush()
