"""The loop: durable before visible, deadlines kept, nothing lost, nobody starved. Time is virtual."""

from collections.abc import Sequence
from math import inf

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from drqueue import engine
from drqueue.engine import Inbox
from drqueue.outcome import Outcome


class Core:
    """Saves every event, then wants it done; notes when it was stepped. Deadlines are set by the test."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.times: list[float] = []
        self.deadlines: list[float] = []
        self.met: list[float] = []

    def step(self, events: Sequence[object], now: float) -> Outcome[object, object]:
        self.batches.append(list(events))
        self.times.append(now)
        self.met += [now for due in self.deadlines if due <= now]
        self.deadlines = [due for due in self.deadlines if due > now]
        return Outcome(tuple(events), tuple(events))

    def next_wakeup(self) -> float | None:
        return min(self.deadlines, default=None)


class Rig:
    """An engine whose every act is written down in `story`."""

    def __init__(self) -> None:
        self.core = Core()
        self.inbox: Inbox[object] = Inbox()
        self.story: list[object] = []
        self.commits_may_end = trio.Event()
        self.commits_may_end.set()

    async def commit(self, records: Sequence[object]) -> None:
        self.story.append(("commit", *records))
        await self.commits_may_end.wait()
        self.story.append("committed")

    def perform(self, effect: object) -> None:
        self.story.append(("do", effect))

    async def run(self, longest_nap_s: float = inf) -> None:
        await engine.run(
            self.core,
            self.inbox,
            self.commit,
            self.perform,
            flush=lambda: self.story.append("flush"),
            longest_nap_s=longest_nap_s,
        )


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- durable before visible -----------------------------------------------------------------------------


async def test_a_turn_commits_then_performs_in_order_then_flushes(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(rig.run)
    for event in "abc":
        rig.inbox.put(event)
    await settle()
    assert rig.core.batches == [["a", "b", "c"]]
    assert rig.story == [
        ("commit", "a", "b", "c"),
        "committed",
        ("do", "a"),
        ("do", "b"),
        ("do", "c"),
        "flush",
    ]


async def test_nothing_is_done_while_a_commit_is_under_way(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig.commits_may_end = trio.Event()
    nursery.start_soon(rig.run)
    rig.inbox.put("a")
    await trio.sleep(1000)
    assert rig.story == [("commit", "a")]
    for event in "bcd":
        rig.inbox.put(event)
    await trio.sleep(1000)
    assert rig.core.batches == [["a"]]
    rig.commits_may_end.set()
    await settle()
    # What came meanwhile is one batch.
    assert rig.core.batches == [["a"], ["b", "c", "d"]]
    assert rig.story[1:4] == ["committed", ("do", "a"), "flush"]


async def test_a_commit_that_fails_ends_the_engine_with_nothing_done(
    rig: Rig, autojump_clock: MockClock
) -> None:
    class DiskDiedError(Exception):
        pass

    async def commit(records: Sequence[object]) -> None:
        raise DiskDiedError

    rig.inbox.put("a")
    with pytest.raises(ExceptionGroup) as raised:
        await engine.run(rig.core, rig.inbox, commit, rig.perform)
    assert raised.group_contains(DiskDiedError)
    assert rig.story == []


async def test_a_cancelled_commit_has_nothing_done(rig: Rig, autojump_clock: MockClock) -> None:
    rig.commits_may_end = trio.Event()
    rig.inbox.put("a")
    with trio.move_on_after(1):
        await rig.run()
    assert rig.story == [("commit", "a")]


async def test_others_have_their_turn_amid_what_concerns_a_whole_farm(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """All of it is done, in order, also where the engine is cancelled meanwhile."""
    for number in range(1000):
        rig.inbox.put(number)

    async def look() -> None:
        while ("do", 0) not in rig.story:
            await trio.lowlevel.checkpoint()
        rig.story.append("others")
        scope.cancel()

    nursery.start_soon(look)
    with trio.CancelScope() as scope:
        await rig.run()
    done = [entry for entry in rig.story[2:] if entry != "others"]
    assert done == [*(("do", number) for number in range(1000)), "flush"]
    assert 100 <= rig.story.index("others") < 500


async def test_without_records_nothing_is_committed(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig.core.step = lambda events, now: Outcome((), tuple(events))  # type: ignore[method-assign]
    nursery.start_soon(rig.run)
    rig.inbox.put("a")
    await settle()
    assert rig.story == [("do", "a"), "flush"]


# -- deadlines ------------------------------------------------------------------------------------------


async def test_a_deadline_is_met_on_time_when_nothing_happens(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    rig.core.deadlines = [start + 5, start + 700, start + 701]
    nursery.start_soon(rig.run)
    await trio.sleep(1000)
    assert rig.core.met == pytest.approx([start + 5, start + 700, start + 701])
    # An alarm may ring in vain, but not again and again.
    assert len(rig.core.times) <= 6


async def test_deadlines_are_met_amid_constant_chatter(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    rig.core.deadlines = [start + 5.05]
    nursery.start_soon(rig.run)
    for _ in range(100):
        rig.inbox.put("chatter")
        await trio.sleep(0.1)
    assert rig.core.met == pytest.approx([start + 5.05])


async def test_a_deadline_that_an_event_brings_is_met_whether_earlier_or_later_than_the_last(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    rig.core.deadlines = [start + 100]
    nursery.start_soon(rig.run)
    await trio.sleep(1)
    rig.core.deadlines = [start + 10]
    rig.inbox.put("earlier")
    await trio.sleep(4)
    rig.core.deadlines = [start + 60]
    rig.inbox.put("later")
    await trio.sleep(500)
    assert rig.core.met == pytest.approx([start + 60])


async def test_a_deadline_that_passes_in_a_commit_is_met_right_after(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    rig.core.deadlines = [start + 5]
    rig.commits_may_end = trio.Event()
    nursery.start_soon(rig.run)
    rig.inbox.put("a")
    await trio.sleep(50)
    rig.commits_may_end.set()
    await settle()
    assert rig.core.met == pytest.approx([start + 50])


async def test_a_core_whose_deadline_never_passes_starves_nobody(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    rig.core.next_wakeup = lambda: -1.0  # type: ignore[method-assign]
    nursery.start_soon(rig.run)
    for _ in range(20):
        await trio.lowlevel.checkpoint()
    assert len(rig.core.batches) > 5
    nursery.cancel_scope.cancel()


async def test_an_engine_that_feeds_itself_starves_nobody(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def commit(records: Sequence[object]) -> None:
        """Done at once, without giving way."""

    nursery.start_soon(engine.run, rig.core, rig.inbox, commit, rig.inbox.put)
    rig.inbox.put("for ever")
    for _ in range(20):
        await trio.lowlevel.checkpoint()
    assert len(rig.core.batches) > 5
    nursery.cancel_scope.cancel()


async def test_a_nap_is_bounded_for_clocks_that_go_on_alone(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The core's clock jumps ahead while trio's stands; the engine finds out within a nap."""
    suspended_s = 0.0
    rig.core.deadlines = [trio.current_time() + 100_000]

    async def run() -> None:
        await engine.run(
            rig.core,
            rig.inbox,
            rig.commit,
            rig.perform,
            clock=lambda: trio.current_time() + suspended_s,
            longest_nap_s=30,
        )

    nursery.start_soon(run)
    await trio.sleep(95)
    assert len(rig.core.times) == 3
    suspended_s = 200_000
    await trio.sleep(30)
    assert len(rig.core.met) == 1


# -- the inbox ------------------------------------------------------------------------------------------


async def test_closing_drains_what_is_queued(rig: Rig, autojump_clock: MockClock) -> None:
    rig.inbox.put("a")
    rig.inbox.put("b")
    rig.inbox.close()
    await rig.run()
    assert [event for batch in rig.core.batches for event in batch] == ["a", "b"]
    assert rig.story[-1] == "flush"


async def test_closing_wakes_an_idle_engine(rig: Rig, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await settle()
        rig.inbox.close()
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert not nursery.cancel_scope.cancelled_caught


async def test_an_event_that_comes_in_the_last_commit_is_not_lost(
    rig: Rig, autojump_clock: MockClock
) -> None:
    rig.commits_may_end = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        rig.inbox.put("a")
        await settle()
        rig.inbox.put("b")
        rig.inbox.close()
        rig.commits_may_end.set()
    assert ("do", "b") in rig.story


async def test_take_waits_for_an_event_a_timeout_or_a_nudge(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    inbox: Inbox[int] = Inbox()
    start = trio.current_time()
    assert await inbox.take(7) == []
    assert trio.current_time() - start == pytest.approx(7)
    inbox.put(1)
    assert await inbox.take(7) == [1]

    async def later(act: object, *args: object) -> None:
        await trio.sleep(3)
        act(*args)  # type: ignore[operator]

    nursery.start_soon(later, inbox.put, 2)
    assert await inbox.take() == [2]
    nursery.start_soon(later, inbox.nudge)
    assert await inbox.take() == []
    nursery.start_soon(later, inbox.close)
    assert await inbox.take() is None
    assert trio.current_time() - start == pytest.approx(16)


async def test_a_cancelled_take_loses_no_event(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    inbox: Inbox[int] = Inbox()
    with trio.move_on_after(1):
        await inbox.take()
    inbox.put(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.take()
    assert scope.cancelled_caught
    assert await inbox.take() == [1]
    # An event and the end of the patience, in the same instant.
    with trio.move_on_after(5):
        nursery.start_soon(put_at, inbox, trio.current_time() + 5)
        await inbox.take()
    assert len(inbox) in (0, 1)
    await settle()
    inbox.put(3)
    assert (await inbox.take() or [])[-1] == 3


async def put_at(inbox: Inbox[int], at: float) -> None:
    await trio.sleep_until(at)
    inbox.put(2)


async def test_one_task_alone_takes(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    inbox: Inbox[int] = Inbox()
    nursery.start_soon(inbox.take)
    await settle()
    with pytest.raises(RuntimeError, match="one taker"):
        await inbox.take()
    inbox.put(1)


async def test_a_full_inbox_holds_up_every_reader_and_then_lets_every_one_go(
    autojump_clock: MockClock,
) -> None:
    inbox: Inbox[int] = Inbox(limit=10)
    through = 0

    async def reader() -> None:
        nonlocal through
        inbox.put(0)
        await inbox.wait_room()
        through += 1

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(reader)
        await settle()
        assert through < 10
        assert len(inbox) == 30
        assert len(await inbox.take() or []) == 30
        with trio.fail_after(5):
            await settle()
        assert through == 30


async def test_an_inbox_with_room_holds_up_nobody(autojump_clock: MockClock) -> None:
    inbox: Inbox[int] = Inbox(limit=2)
    inbox.put(0)
    with trio.fail_after(1):
        await inbox.wait_room()


def test_what_may_be_lost_is_put_only_while_there_is_room() -> None:
    inbox: Inbox[int] = Inbox(limit=2)
    assert [inbox.put_if_room(number) for number in range(4)] == [True, True, False, False]
    inbox.put(9)
    assert len(inbox) == 3
