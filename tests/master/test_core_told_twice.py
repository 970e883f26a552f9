"""An exit that is told again, by a slave that has not heard that it is noted, counts once."""

from typing import Any

import pytest

from drqueue.proto.model import Exit
from tests.builders import CoreFarm, a_job, badly, well

told = pytest.mark.parametrize(
    "result", [well(), badly(), Exit(reason="lost")], ids=["well", "badly", "lost"]
)


def seen(farm: CoreFarm) -> Any:
    """All that anybody sees of job 0 and its slave."""
    return farm.frames(), farm.job(), farm.layers(), farm.slave().frames_done, farm.slave().frames_failed


@told
def test_i3_an_exit_told_twice_is_noted_twice_and_counted_once(result: Exit) -> None:
    farm = CoreFarm()
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 2}))
    order = farm.order(link)
    farm.exited(link, order.key, result)
    # What comes of it at once is an attempt of its own.
    next_ones = {one.key for one in farm.orders(link)}
    before = seen(farm)
    farm.exited(link, order.key, result)
    assert seen(farm) == before
    assert farm.noted(link) == [order.key, order.key]
    assert farm.core.state.attempts.keys() == next_ones


@told
def test_i3_an_exit_told_to_two_masters_is_counted_by_one(result: Exit) -> None:
    farm = CoreFarm()
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 2}))
    order = farm.order(link)
    farm.exited(link, order.key, result)
    farm.restart()
    link = farm.link()
    counted = farm.frames()[1].requeued
    assert counted == (result.code == 1)
    farm.exited(link, order.key, result)
    assert farm.noted(link) == [order.key]
    assert farm.frames()[1].requeued == counted
