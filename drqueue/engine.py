"""The loop both daemons run: inbox -> core.step -> commit -> perform.

It is the only caller a core has, and so its only owner. What a step wants saved is committed before
anything it wants done is done: durable before visible is the shape of this loop, not a rule to
remember. Events that come in while a commit is under way make up the next batch, so the slower the
disk, the bigger the batch. Where a commit waits for nobody, whoever brought the events has their whole turn
done on the spot, as long as the loop waits for nothing but events: that spares waking another task.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf
from typing import Generic, Protocol, TypeVar

import trio

from drqueue import failpoints
from drqueue.outcome import Outcome

#: Effects performed before other tasks have their turn: what concerns a whole farm would hold them up.
_IN_A_ROW = 100

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
    (a link's reader) calls `wait_room` first, which bounds the queue at about `limit` events. What a peer can
    bring about without waiting goes in by `put_if_room`: nobody fills the memory while a disk is full.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._events: deque[EventT] = deque()
        self._limit = limit
        # Parked by hand: an Event for every batch costs several times what the rest of a turn does.
        self._taker: trio.lowlevel.Task | None = None
        self._room: trio.Event | None = None
        self._closed = False
        self._together = 0
        #: Does the turn of what is queued, while the taker is parked.
        self.serve: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: EventT) -> None:
        """Queue an event."""
        self._events.append(event)
        if self._taker is not None and not self._together:
            self.nudge()

    def put_if_room(self, event: EventT) -> bool:
        """Queue an event that may be lost, unless `limit` events are queued already; whether it was."""
        if len(self._events) >= self._limit:
            return False
        self.put(event)
        return True

    def __enter__(self) -> None:
        """What is put from now on is one batch; it is served at the end, in place, where that can be."""
        self._together += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._together -= 1
        if self._events and self._taker is not None and not self._together:
            if self.serve is not None and kind is None and not self._closed:
                self.serve()
            else:
                self.nudge()

    def nudge(self) -> None:
        """Let whoever waits in `take` go on, with nothing."""
        if self._taker is not None:
            taker, self._taker = self._taker, None
            trio.lowlevel.reschedule(taker)

    async def wait_room(self) -> None:
        """Return once fewer than `limit` events are queued."""
        while len(self._events) >= self._limit:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def close(self) -> None:
        """No more events: the engine returns once the queue is empty."""
        self._closed = True
        self.nudge()

    async def take(self, timeout: float = inf) -> list[EventT] | None:
        """All queued events; [] after `timeout` seconds without one, or a nudge; None: closed and empty.

        One task at a time. Others have their turn, even where events are here already.
        """
        if self._events or self._closed or timeout <= 0:
            await trio.lowlevel.checkpoint()
        elif timeout == inf:
            await self._park()
        else:
            with trio.move_on_after(timeout):
                await self._park()
        if not self._events and self._closed:
            return None
        return self.drain()

    def drain(self) -> list[EventT]:
        """All queued events, at once."""
        batch = list(self._events)
        self._events.clear()
        if self._room is not None:
            self._room.set()
            self._room = None
        return batch

    async def _park(self) -> None:
        if self._taker is not None:
            raise RuntimeError("an inbox has one taker")
        self._taker = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._taker = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class _Alarm:
    """Rings at the earliest time it was set to; never too late, but perhaps once for what is no more.

    One long-lived scope, whose deadline seldom moves: a scope for each wait costs more than the wait.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._scope = trio.CancelScope()

    def set(self, at: float) -> None:
        """Ring at `at` (trio's clock) at the latest."""
        if at < self._scope.deadline:
            self._scope.deadline = at

    async def run(self) -> None:
        """Ring until cancelled."""
        while True:
            with self._scope:
                await trio.sleep_forever()
            self._scope = trio.CancelScope()
            self._ring()


class _Loop(Generic[EventT, RecordT, EffectT]):
    """What `run` does; see there."""

    def __init__(
        self,
        core: Core[EventT, RecordT, EffectT],
        inbox: Inbox[EventT],
        perform: Callable[[EffectT], None],
        flush: Callable[[], None],
        clock: Callable[[], float],
        longest_nap_s: float,
    ) -> None:
        self._core = core
        self._inbox = inbox
        self._perform = perform
        self._flush = flush
        self._clock = clock
        self._longest_nap_s = longest_nap_s
        self._alarm = _Alarm(inbox.nudge)
        #: A turn done on the spot that needs the loop after all, and whether it is committed.
        self._begun: tuple[Outcome[RecordT, EffectT], bool] | None = None
        self._failure: BaseException | None = None

    async def run(self, commit: Callable[[Sequence[RecordT]], Awaitable[None]]) -> None:
        """Turn after turn, until the inbox is closed."""
        inbox = self._inbox
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._alarm.run)
            while True:
                batch = await inbox.take(inf if self._may_nap() else 0)
                if self._failure is not None:
                    raise self._failure
                if self._begun is not None:
                    # First, for the core knows of it already.
                    (outcome, committed), self._begun = self._begun, None
                    await self._end_turn(outcome, None if committed else commit)
                    if not batch:
                        continue
                if batch is None:
                    break
                await self._end_turn(self._core.step(batch, self._clock()), commit)
            nursery.cancel_scope.cancel()

    async def _end_turn(
        self,
        outcome: Outcome[RecordT, EffectT],
        commit: Callable[[Sequence[RecordT]], Awaitable[None]] | None,
    ) -> None:
        if outcome.save and commit is not None:
            await commit(outcome.save)
        if failpoints.ACTIVE and outcome.save:
            failpoints.hit("turn-committed")
        for done, effect in enumerate(outcome.do, start=1):
            self._perform(effect)
            if failpoints.ACTIVE:
                failpoints.hit("effect-done")
            if done % _IN_A_ROW == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()
        self._flush()

    def serve(self, commit_now: Callable[[Sequence[RecordT]], bool]) -> None:
        """A turn on the spot, or its beginning; whatever goes wrong in it goes wrong in the loop."""
        inbox = self._inbox
        try:
            outcome = self._core.step(inbox.drain(), self._clock())
            committed = not outcome.save or commit_now(outcome.save)
            if not committed or len(outcome.do) > _IN_A_ROW:
                self._begun = outcome, committed
                inbox.nudge()
                return
            if failpoints.ACTIVE and outcome.save:
                failpoints.hit("turn-committed")
            for effect in outcome.do:
                self._perform(effect)
                if failpoints.ACTIVE:
                    failpoints.hit("effect-done")
            self._flush()
            if len(inbox) or not self._may_nap():
                inbox.nudge()
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            self._failure = error
            inbox.nudge()

    def _may_nap(self) -> bool:
        """Whether there is nothing to do before the next event; the alarm is set for what comes then."""
        wake = self._core.next_wakeup()
        nap = self._longest_nap_s if wake is None else min(wake - self._clock(), self._longest_nap_s)
        if nap > 0:
            self._alarm.set(trio.current_time() + nap)
            return True
        return False


async def run(
    core: Core[EventT, RecordT, EffectT],
    inbox: Inbox[EventT],
    commit: Callable[[Sequence[RecordT]], Awaitable[None]],
    perform: Callable[[EffectT], None],
    *,
    clock: Callable[[], float] = trio.current_time,
    flush: Callable[[], None] = lambda: None,
    longest_nap_s: float = inf,
    commit_now: Callable[[Sequence[RecordT]], bool] | None = None,
) -> None:
    """Feed `core` until `inbox` is closed.

    `perform` is sync, so that it cannot wait for anyone; `flush` comes after a batch of effects.
    `longest_nap_s` bounds one wait, for clocks that go on while trio's stands still (suspend).
    `commit_now` commits where that waits for nobody, and says whether it did.
    """
    loop = _Loop(core, inbox, perform, flush, clock, longest_nap_s)
    if commit_now is not None:
        inbox.serve = partial(loop.serve, commit_now)
    try:
        await loop.run(commit)
    finally:
        inbox.serve = None
