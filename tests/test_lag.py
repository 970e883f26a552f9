"""The loop's lag: what a sleeper saw over the last minute."""

import time

import trio
import trio.lowlevel
import trio.testing

from drqueue.lag import NAP_S, LagProbe


async def test_nothing_is_said_before_the_first_nap(autojump_clock: trio.testing.MockClock) -> None:
    probe = LagProbe()
    assert probe.seen() is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.run)
        await trio.sleep(10 * NAP_S)
        assert probe.seen() is not None
        nursery.cancel_scope.cancel()


async def test_a_step_that_holds_the_loop_up_is_seen_for_a_minute(mock_clock: trio.testing.MockClock) -> None:
    """One long step among many naps: the most is its length, the median is not; later it is forgotten."""
    probe = LagProbe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.run)
        await trio.testing.wait_all_tasks_blocked()

        async def naps(count: int) -> None:
            for _ in range(count):
                mock_clock.jump(NAP_S)
                await trio.testing.wait_all_tasks_blocked()

        await naps(10)
        mock_clock.jump(NAP_S + 3)
        await trio.testing.wait_all_tasks_blocked()
        await naps(10)
        lag = probe.seen()
        assert lag is not None
        assert (lag.median_ms, lag.p99_ms, lag.most_ms) == (0, 3000, 3000)
        await naps(int(60 / NAP_S))
        lag = probe.seen()
        assert lag is not None
        assert lag.most_ms == 0
        nursery.cancel_scope.cancel()


async def test_a_real_block_is_seen() -> None:
    probe = LagProbe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.run)
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(NAP_S + 0.1)  # noqa: ASYNC251  (the block that is to be seen)
        while (lag := probe.seen()) is None:
            await trio.lowlevel.checkpoint()
        assert lag.most_ms >= 90
        nursery.cancel_scope.cancel()
