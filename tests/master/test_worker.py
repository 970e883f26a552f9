"""A thread of one's own: in order, with whatever comes of it, and gone with its worker."""

import gc
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest
import trio
import trio.testing

from drqueue.master.worker import Worker


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_what_is_done_in_the_thread_comes_back() -> None:
    worker = Worker("test")
    here = threading.current_thread()
    there = await worker.run(threading.current_thread)
    assert there is not here
    assert there.name == "test"
    assert await worker.run(threading.current_thread) is there


async def test_what_it_raises_is_raised_where_it_was_asked() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 1) == 1


async def test_many_who_ask_at_once_get_their_own_answers_in_the_order_in_which_they_asked() -> None:
    worker = Worker("test")
    done: list[int] = []
    answers: dict[int, int] = {}
    asked: list[int] = []

    def act(number: int) -> Callable[[], int]:
        def do() -> int:
            done.append(number)
            return number * number

        return do

    async def ask(number: int) -> None:
        asked.append(number)
        answers[number] = await worker.run(act(number))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, number)
    assert done == asked
    assert answers == {number: number * number for number in range(50)}


async def test_who_is_cancelled_waits_for_the_end() -> None:
    """Whatever it is, it is not half done when somebody else gets on with the same thing."""
    worker = Worker("test")
    go: SimpleQueue[None] = SimpleQueue()
    over: list[bool] = []

    def wait() -> None:
        go.get()
        over.append(True)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, wait)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert not over
                go.put(None)
    assert over


async def test_who_is_cancelled_is_told_what_came_of_it_and_then_of_that() -> None:
    worker = Worker("test")
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await worker.run(lambda: 1) == 1
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        assert await worker.run(lambda: 2) == 2
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert await worker.run(lambda: 3) == 3


async def test_the_thread_and_its_files_go_with_the_worker() -> None:
    # Those of other tests go first.
    gc.collect()
    before = open_files()
    worker = Worker("test")
    thread = await worker.run(threading.current_thread)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(worker.run, threading.current_thread)
    assert open_files() > before
    del worker
    gc.collect()
    await trio.to_thread.run_sync(thread.join, 10.0)
    assert not thread.is_alive()
    assert open_files() == before
