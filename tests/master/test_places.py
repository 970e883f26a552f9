"""So many at a time, in order, and none lost with whoever goes."""

import trio
import trio.testing
from trio.testing import MockClock

from drqueue.master.places import Places


def no() -> bool:
    return False


async def test_places_go_to_who_waits_longest(nursery: trio.Nursery) -> None:
    places = Places(2)
    taken: list[int] = []

    async def take(number: int) -> None:
        assert await places.take(no)
        taken.append(number)

    for number in range(5):
        nursery.start_soon(take, number)
        await trio.testing.wait_all_tasks_blocked()
    assert taken == [0, 1]
    for wanted in ([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        places.give_back()
        await trio.testing.wait_all_tasks_blocked()
        assert taken == wanted


async def test_who_goes_takes_no_place_along(nursery: trio.Nursery) -> None:
    """Neither while it waits, nor when it was given one in the same moment."""
    places = Places(1)
    assert await places.take(no)
    for given in (False, True):
        with trio.CancelScope() as scope:

            async def end(scope: trio.CancelScope = scope, given: bool = given) -> None:
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                if given:
                    places.give_back()

            nursery.start_soon(end)
            await places.take(no)
        assert scope.cancelled_caught
    with trio.fail_after(1):
        assert await places.take(no)


async def test_a_place_that_will_not_come_is_not_waited_for(autojump_clock: MockClock) -> None:
    places = Places(1)
    assert await places.take(no)
    start = trio.current_time()
    assert not await places.take(lambda: trio.current_time() >= start + 3)
    assert 3 <= trio.current_time() - start <= 4
    places.give_back()
    assert await places.take(no), "whoever went does not stand in the line"
