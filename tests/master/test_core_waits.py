"""Since when frames might have run, and how long they waited for a place."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.turn import Policy
from drqueue.master.core.waits import FRAMES_MOST, POOLS_MOST, WAITS_MOST, Eligible, PoolWaits
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Depend, Exit, SlaveLimits
from drqueue.proto.views import Waits
from tests.builders import WALL, CoreFarm, a_job, a_layer, badly, well


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm(Policy(farm="farm", epoch=1, software="test", backoff=Backoff(5.0, 5.0)))


def passes(farm: CoreFarm, seconds: float) -> float:
    """Time passes; the wall clock then."""
    farm.wait(seconds)
    return farm.core.turn.wall


def waited(farm: CoreFarm, key: AttemptKey) -> tuple[float, float]:
    """When an attempt might have been assigned, and when it was, as its row says."""
    (row,) = (row for row in farm.storage.attempts(key.job, key.layer, key.frame + 1) if row.key == key)
    return row.eligible_at, row.assigned_at


def free(farm: CoreFarm) -> int:
    """A slave's link."""
    return farm.link(cores=1)


# -- eligible ----------------------------------------------------------------------------------------------


def test_a_frame_waits_since_its_job_was_submitted(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    submitted = farm.core.turn.wall
    passes(farm, 30)
    key = farm.order(free(farm)).key
    assert waited(farm, key) == (submitted, pytest.approx(submitted + 30))


def test_a_frame_that_starts_at_once_has_not_waited(farm: CoreFarm) -> None:
    link = free(farm)
    farm.submit(a_job("1"))
    eligible, assigned = waited(farm, farm.order(link).key)
    assert eligible == assigned


def test_a_frame_waits_since_its_jobs_start_time(farm: CoreFarm) -> None:
    start = farm.core.turn.wall + 50
    farm.submit(a_job("1", not_before=start))
    passes(farm, 80)
    assert waited(farm, farm.order(free(farm)).key)[0] == pytest.approx(start)


def test_a_frame_waits_since_what_its_job_or_layer_waited_for_was_over(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    layers = (a_layer("1", name="a"), a_layer("1", name="b", after=("a",)))
    child = farm.submit(a_job(layers=layers, depends=(Depend(0),)))
    over = passes(farm, 10)
    farm.frame(0, "finish", "1")
    passes(farm, 10)
    link = free(farm)
    first = farm.order(link).key
    assert waited(farm, first)[0] == over
    over = passes(farm, 10)
    farm.exited(link, first)
    second = farm.order(link).key
    assert (second.job, second.layer, waited(farm, second)[0]) == (child, 1, over)


def test_a_frame_waits_since_its_job_went_on(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    farm.verb(0, "stop")
    on = passes(farm, 10)
    farm.verb(0, "continue")
    farm.verb(0, "continue")
    passes(farm, 10)
    farm.verb(0, "continue")
    assert waited(farm, farm.order(free(farm)).key)[0] == on


def test_limits_and_the_jobs_own_bound_are_waiting(farm: CoreFarm) -> None:
    submitted = farm.core.turn.wall
    farm.submit(a_job("1-2", max_running=1))
    link = farm.link(cores=4)
    first = farm.order(link).key
    passes(farm, 40)
    farm.exited(link, first)
    assert waited(farm, farm.order(link).key)[0] == submitted


def test_a_frame_that_failed_waits_since_the_end_of_its_back_off(farm: CoreFarm) -> None:
    link = free(farm)
    farm.submit(a_job("1"))
    first = farm.order(link).key
    failed = passes(farm, 10)
    farm.exited(link, first, badly())
    farm.unlink(link)
    passes(farm, 100)
    again = farm.order(farm.link("other", cores=1)).key
    assert waited(farm, again)[0] == pytest.approx(failed + 5)
    assert waited(farm, first)[0] < failed


@pytest.mark.parametrize("how", ["requeue", "lost", "hard-stop", "rerun"])
def test_a_frame_that_came_back_waits_since_then(farm: CoreFarm, how: str) -> None:
    link = free(farm)
    farm.submit(a_job("1-2"))
    first = farm.order(link).key
    if how == "lost":
        back = passes(farm, 10)
        farm.exited(link, first, Exit(reason="lost"))
        assert farm.core.state.attempts
    elif how == "hard-stop":
        farm.verb(0, "hard-stop")
        farm.exited(link, first, Exit(signal=9))
        back = passes(farm, 10)
        farm.verb(0, "continue")
    else:
        farm.exited(link, first)
        farm.exited(link, farm.order(link).key)
        farm.verb(0, "stop")
        back = passes(farm, 10)
        farm.verb(0, "continue")
        farm.unlink(link)
        farm.verb(0, "rerun") if how == "rerun" else farm.frame(0, "requeue", "1-2")
        passes(farm, 10)
        link = farm.link("other", cores=1)
    (key,) = (order.key for order in farm.orders(link)[:1])
    assert waited(farm, key)[0] == back


def test_many_frames_that_came_back_together_cost_no_time_each(farm: CoreFarm) -> None:
    farm.submit_unchecked(a_job("1-100000"))
    farm.frame(0, "finish", "1-50000")
    back = passes(farm, 10)
    farm.frame(0, "requeue", "1-40000")
    passes(farm, 5)
    link = free(farm)
    assert waited(farm, farm.order(link).key)[0] == back
    layer = farm.core.state.jobs[0].layers[0]
    assert layer.eligible.take(45_000, 1e9) == layer.eligible.take(99_999, 1e9) == WALL + 100
    assert layer.eligible.take(39_999, 1e9) == back


def test_the_wall_clock_set_back_makes_no_wait_negative(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    farm.read_clock(forward_s=-500)
    eligible, assigned = waited(farm, farm.order(free(farm)).key)
    assert eligible == assigned
    assert farm.core.state.waits.view("Default") == Waits(count=1)


def test_a_restart_forgets_no_wait_that_the_rows_tell_of(farm: CoreFarm) -> None:
    submitted = farm.core.turn.wall
    farm.submit(a_job("1-3"))
    link = free(farm)
    first = farm.order(link).key
    passes(farm, 10)
    farm.exited(link, first, Exit(reason="lost"))
    farm.exited(link, farm.order(link).key)
    running = farm.order(link).key
    assert waited(farm, running) == (submitted, pytest.approx(submitted + 10))
    farm.restart()
    assert farm.core.state.attempts[running].row.eligible_at == waited(farm, running)[0]
    passes(farm, 10)
    other = farm.link("other", cores=4)
    rows = {key.frame: waited(farm, key)[0] for key in farm.keys(other).values()}
    assert min(rows.values()) == submitted


def test_what_waited_ahead_of_its_place_has_waited_all_the_time(farm: CoreFarm) -> None:
    link = free(farm)
    farm.submit(a_job("1-99"))
    slave = farm.core.state.slaves[0]
    submitted = farm.core.turn.wall
    while not slave.ahead:
        farm.exited(link, next(iter(slave.live)), well(ended_at=WALL + 0.1))
    (ahead,) = slave.ahead
    passes(farm, 20)
    farm.exited(link, ahead, Exit(reason="stopped"))
    layer = farm.core.state.jobs[0].layers[0]
    assert layer.eligible.take(ahead.frame, 1e9) == submitted


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("look"), st.booleans()),
            st.tuples(st.just("since"), st.integers(0, 9)),
            st.tuples(st.just("all"), st.integers(0, 5), st.sampled_from([1, 3, FRAMES_MOST + 1])),
            st.tuples(st.just("take"), st.integers(0, 12)),
            st.tuples(st.just("clear")),
        ),
        max_size=40,
    )
)
def test_a_frame_waits_since_the_latest_of_what_let_it_go(steps: list[tuple[Any, ...]]) -> None:
    """Against a dict of every frame's time; one that was taken waits again once it came back."""
    eligible, at, is_open = Eligible(), 0.0, False
    frames: dict[int, float] = {}
    gone: set[int] = set()
    for now, step in enumerate(steps, start=1):
        match step:
            case ("look", opens):
                at = float(now) if opens and not is_open else at
                is_open = opens
                eligible.look(opens, float(now))
            case ("since", index):
                frames[index] = float(now)
                gone.discard(index)
                eligible.since(index, float(now))
            case ("all", start, count):
                frames.update((index, float(now)) for index in range(start, start + count))
                gone.difference_update(range(start, start + count))
                eligible.all_since([(start, start + count)], float(now))
            case ("take", index) if index not in gone:
                gone.add(index)
                when = eligible.take(index, now - 0.5)
                assert when == min(max(at, frames.get(index, 0.0)), now - 0.5)
            case ("clear",):
                frames.clear()
                gone.clear()
                eligible.clear()
    assert len(eligible._frames) <= 41 * FRAMES_MOST


# -- percentiles -------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-10, 1e6), max_size=3000))
def test_percentiles_are_those_of_the_latest_waits(seconds: list[float]) -> None:
    waits = PoolWaits()
    for one in seconds:
        waits.note("a", one)
    latest = sorted(max(0.0, one) for one in seconds[-WAITS_MOST:])
    view = waits.view("a")
    assert view.count == len(latest)
    if not latest:
        assert view == Waits()
        return
    for part, value in ((0.5, view.p50_s), (0.9, view.p90_s), (0.99, view.p99_s), (1.0, view.most_s)):
        assert value in latest
        assert sum(one <= value for one in latest) >= part * len(latest)
        assert sum(one < value for one in latest) < math.ceil(part * len(latest) - 1e-9)


def test_percentiles_of_a_hundred() -> None:
    waits = PoolWaits()
    for one in range(1, 101):
        waits.note("a", one)
    assert waits.view("a") == Waits(count=100, p50_s=50, p90_s=90, p99_s=99, most_s=100)


def test_waits_are_kept_pool_by_pool(farm: CoreFarm) -> None:
    for pool in ("a", "b"):
        farm.submit(a_job("1", pool=pool))
    passes(farm, 10)
    farm.link("a", limits=SlaveLimits(pools=("a",)))
    passes(farm, 20)
    farm.link("b", limits=SlaveLimits(pools=("b",)))
    waits = farm.core.state.waits
    assert waits.view("a").most_s == pytest.approx(10)
    assert waits.view("b").most_s == pytest.approx(30)
    assert waits.view("c") == Waits()


def test_pools_are_bounded() -> None:
    waits = PoolWaits()
    for number in range(POOLS_MOST + 5):
        waits.note(str(number), 1)
    assert len(waits) == POOLS_MOST
    assert "0" not in waits
