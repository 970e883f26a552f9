"""The loop where a commit waits for nobody: turns are done by whoever brought the events. Time is virtual."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from drqueue import engine
from drqueue.outcome import Outcome
from tests.test_engine import Rig


class ServedRig(Rig):
    """An engine whose commits may be done at once, as long as `at_once` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = True
        self.in_perform: Callable[[object], object] = lambda effect: None

    def commit_now(self, records: Sequence[object]) -> bool:
        if self.at_once:
            self.story.append(("commit now", *records))
        return self.at_once

    def perform(self, effect: object) -> None:
        super().perform(effect)
        self.in_perform(effect)

    async def serve(self) -> None:
        await engine.run(
            self.core,
            self.inbox,
            self.commit,
            self.perform,
            flush=partial(self.story.append, "flush"),
            commit_now=self.commit_now,
        )

    def bring(self, *events: object) -> None:
        with self.inbox:
            for event in events:
                self.inbox.put(event)


@pytest.fixture
async def rig(nursery: trio.Nursery, autojump_clock: MockClock) -> ServedRig:
    made = ServedRig()
    nursery.start_soon(made.serve)
    await settle()
    made.story.clear()
    return made


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_what_is_put_together_is_one_turn_done_at_once(rig: ServedRig) -> None:
    rig.bring("a", "b")
    assert rig.story == [("commit now", "a", "b"), ("do", "a"), ("do", "b"), "flush"]
    await settle()
    assert rig.core.batches == [["a", "b"]]


async def test_what_is_put_alone_is_left_to_the_loop(rig: ServedRig) -> None:
    rig.inbox.put("a")
    assert rig.story == []
    await settle()
    assert rig.story[0] == ("commit", "a")


async def test_a_commit_that_has_to_wait_is_the_loops(rig: ServedRig) -> None:
    rig.at_once = False
    rig.commits_may_end = trio.Event()
    rig.bring("a")
    rig.bring("b")
    await settle()
    assert rig.story == [("commit", "a")]
    rig.bring("c")  # while the commit waits
    rig.commits_may_end.set()
    await settle()
    assert rig.core.batches == [["a"], ["b"], ["c"]]
    done = [entry for entry in rig.story if isinstance(entry, tuple) and entry[0] == "do"]
    assert done == [("do", "a"), ("do", "b"), ("do", "c")]


async def test_what_is_committed_at_once_is_not_committed_again_by_the_loop(rig: ServedRig) -> None:
    """More effects than others should wait for are the loop's, too."""
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    seen: list[int] = []
    rig.in_perform = lambda effect: seen.append(others)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        rig.bring(*range(250))
        assert seen == []
        while "flush" not in rig.story:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(seen) == 250
    assert len(set(seen)) > 1  # others had their turn
    assert rig.story[0] == ("commit now", *range(250))
    assert "committed" not in rig.story


async def test_what_a_turn_brings_about_is_the_next(rig: ServedRig) -> None:
    rig.in_perform = lambda effect: rig.inbox.put("again") if effect == "a" else None
    rig.bring("a")
    await settle()
    assert rig.core.batches == [["a"], ["again"]]
    assert ("do", "again") in rig.story


async def test_a_deadline_that_a_turn_sets_is_kept(autojump_clock: MockClock, rig: ServedRig) -> None:
    due = trio.current_time() + 5
    rig.in_perform = lambda effect: rig.core.deadlines.append(due)
    rig.bring("a")
    await trio.sleep(10)
    assert rig.core.met == [due]


async def test_whoever_fails_while_bringing_leaves_the_turn_to_the_loop(rig: ServedRig) -> None:
    def failing() -> None:
        with rig.inbox:
            rig.inbox.put("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert rig.story == []
    await settle()
    assert ("do", "a") in rig.story


@pytest.mark.parametrize("where", ["step", "perform"])
async def test_a_bug_in_a_turn_ends_the_loop_and_not_whoever_brought_the_event(
    where: str, autojump_clock: MockClock
) -> None:
    rig = ServedRig()

    def step(events: Sequence[object], now: float) -> Outcome[object, object]:
        raise ZeroDivisionError

    def perform(effect: object) -> None:
        raise ZeroDivisionError

    ended = trio.Event()

    async def serve() -> None:
        with pytest.raises(ExceptionGroup) as raised:
            await rig.serve()
        assert raised.group_contains(ZeroDivisionError)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await settle()
        if where == "step":
            rig.core.step = step  # type: ignore[method-assign]
        else:
            rig.in_perform = perform
        rig.bring("a")
        with trio.fail_after(5):
            await ended.wait()


async def test_closing_after_a_turn_ends_the_loop(autojump_clock: MockClock) -> None:
    rig = ServedRig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.serve)
        await settle()
        rig.bring("a")
        rig.inbox.close()
        rig.bring("b")
    assert ("do", "b") in rig.story
