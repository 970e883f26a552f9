"""A wall clock that jumps makes nothing old that is not (F8): nothing is dropped for its age by it (I1)."""

import random

import pytest

from drqueue.master.core.core import Core
from drqueue.master.core.dates import DAY_S, KEEP_S, Dates
from drqueue.master.core.events import ClockRead, Stopping
from drqueue.master.core.turn import Policy
from drqueue.proto.messages import Farm, FarmInfo
from tests.builders import WALL, CoreFarm, a_job
from tests.master.access import AccessFarm

HOUR = 3600.0
YEAR = 365 * DAY_S


def a_farm_with_a_finished_job(keep_s: float = 30 * DAY_S) -> CoreFarm:
    farm = CoreFarm(Policy(keep_s=keep_s))
    farm.submit(a_job("1"))
    farm.frame(0, "finish", "1")
    farm.read_clock()
    return farm


def reads(farm: CoreFarm, ahead_s: float, hours: int) -> bool:
    """The wall clock is so far ahead for so long; whether the job is there still."""
    for _ in range(hours):
        farm.step(ClockRead(WALL + farm.now + ahead_s))
        farm.wait(HOUR)
    return 0 in farm.core.state.jobs


def clock(farm: CoreFarm) -> str:
    answer = farm.ask(FarmInfo(rq=0))
    assert isinstance(answer, Farm)
    return answer.clock


@pytest.mark.parametrize("years", [10, -10, 0.1, -0.1])
def test_f8_a_clock_off_by_years_deletes_nothing(years: float) -> None:
    """Nor when it is set right again."""
    farm = a_farm_with_a_finished_job()
    assert reads(farm, years * YEAR, 23)
    assert reads(farm, 0, 20 * 24)


def test_f8_one_that_was_so_for_a_day_is_believed() -> None:
    farm = a_farm_with_a_finished_job()
    assert reads(farm, YEAR, 24)
    assert not reads(farm, YEAR, 1)


def test_f8_the_day_begins_anew_with_each_jump() -> None:
    farm = a_farm_with_a_finished_job()
    for years in (1, 2, 3, 1, 2):
        assert reads(farm, years * YEAR, 20)
    for _ in range(5):
        assert reads(farm, YEAR, 20)
        assert reads(farm, 0, 1)


def test_f8_it_is_told_once_and_as_long_as_it_is_so() -> None:
    farm = a_farm_with_a_finished_job()
    assert clock(farm) == ""
    reads(farm, YEAR, 6)
    (warned,) = farm.warned
    assert warned.text == (
        "the wall clock is 365 days ahead of where this master last saw it: nothing gets older by that "
        "for 24 h, in case it is wrong"
    )
    assert clock(farm).endswith("for 18 h, in case it is wrong")
    reads(farm, 0, 1)
    assert clock(farm) == ""
    reads(farm, YEAR, 3)
    assert len(farm.warned) == 1
    reads(farm, YEAR, 30)
    assert clock(farm) == ""


def test_f8_a_start_with_a_wrong_clock_deletes_nothing() -> None:
    """What was believed last is on the disk; a right one, after a long pause, is believed a day later."""
    farm = a_farm_with_a_finished_job()
    farm.wait(KEEP_S)
    farm.read_clock()
    farm.core = Core(farm.policy, farm.storage.load(), farm.now, WALL + farm.now + YEAR)
    assert reads(farm, YEAR, 24)
    assert farm.warned
    farm.core = Core(farm.policy, farm.storage.load(), farm.now, WALL + farm.now + YEAR)
    assert reads(farm, YEAR, 24)
    assert not reads(farm, YEAR, 1)


def test_f8_a_stop_in_good_order_keeps_the_date() -> None:
    farm = a_farm_with_a_finished_job()
    farm.wait(KEEP_S - 10)
    farm.read_clock()
    farm.step(Stopping(0))
    assert float(farm.storage.load().meta["date"]) == pytest.approx(WALL + farm.now)


def test_f8_rows_of_an_older_version_tell_the_date_themselves() -> None:
    farm = CoreFarm(Policy(keep_s=30 * DAY_S))
    farm.submit(a_job("1"))
    farm.frame(0, "finish", "1")
    assert "date" not in farm.storage.load().meta
    farm.core = Core(farm.policy, farm.storage.load(), farm.now, WALL + farm.now + YEAR)
    assert reads(farm, YEAR, 24)
    assert not reads(farm, YEAR, 2)


def test_f8_what_a_clock_of_1970_finished_is_as_old_as_its_submission() -> None:
    farm = CoreFarm(Policy(keep_s=30 * DAY_S))
    farm.submit(a_job("1"))
    farm.step(ClockRead(60))
    farm.frame(0, "finish", "1")
    assert farm.job(0).finished_at < DAY_S
    assert reads(farm, 0, 48)


def test_f8_lines_are_no_good_but_stay_until_the_clock_is_believed() -> None:
    farm = AccessFarm()
    token = farm.add_line(ttl_s=40 * DAY_S)
    farm.tries("waits")
    reads(farm, YEAR, 12)
    assert farm.rejected("n1", token) == "bad-line"
    assert len(farm.accounts()) == len(farm.accounts(pending=True)) == 1
    reads(farm, YEAR, 13)
    assert farm.accounts() == farm.accounts(pending=True) == []


def test_f8_a_clock_that_goes_by_less_than_a_day_again_and_again_gets_nowhere() -> None:
    dates = Dates(WALL, 0.0)
    for step in range(200):
        dates.read(WALL + step * 60 + step * 0.9 * DAY_S, step * 60.0)
    assert dates.today(12_000) < WALL + 12_000 + 2 * DAY_S


@pytest.mark.parametrize("seed", range(20))
def test_f8_the_date_is_never_far_ahead_of_what_the_clock_said_within_a_day(seed: int) -> None:
    """Nor is it other than what the clock says for two."""
    rng = random.Random(seed)
    dates, now, wrong, since = Dates(WALL, 0.0), 0.0, 0.0, 0.0
    said = [(0.0, 0.0)]
    for _ in range(400):
        if rng.random() < 0.05:
            wrong, since = rng.choice([0.0, 0.0, -1, 1, 1]) * rng.uniform(0, 10 * YEAR), now
        dates.read(WALL + now + wrong, now)
        said = [(at, was) for at, was in said if at > now - DAY_S] + [(now, wrong)]
        ahead = dates.today(now) - WALL - now
        assert ahead <= min(was for _, was in said) + 2 * DAY_S
        if now - since > 2 * DAY_S:
            assert ahead == pytest.approx(wrong, abs=1)
        now += rng.uniform(10, 2 * HOUR)


def test_f8_rows_that_a_wrong_clock_stamped_tell_no_date() -> None:
    """A young farm's master is killed under such a clock, and started again."""
    farm = a_farm_with_a_finished_job()
    farm.step(ClockRead(WALL + farm.now + 10 * YEAR))
    farm.submit(a_job("1"))
    farm.core = Core(farm.policy, farm.storage.load(), farm.now, WALL + farm.now + 10 * YEAR)
    assert reads(farm, 10 * YEAR, 20)
    assert reads(farm, 0, 48)


@pytest.mark.parametrize("starts", [(0.0,), (10.0, -10.0, 10.0)])
def test_f8_a_job_under_a_clock_in_the_past_is_no_older_than_those_before_it(
    starts: tuple[float, ...],
) -> None:
    """Also where masters are killed before they note the date that they believe, and start with any."""
    farm = CoreFarm(Policy(keep_s=5 * DAY_S))
    farm.read_clock()
    farm.wait(KEEP_S / 2)
    farm.submit(a_job("1"))
    farm.frame(0, "finish", "1")
    farm.step(ClockRead(WALL + farm.now - 10 * DAY_S))
    farm.submit(a_job("1"))
    farm.frame(1, "finish", "1")
    assert 0 < farm.job(1).submitted_at < farm.job(1).finished_at + 1 < WALL - 9 * DAY_S
    for days in starts:
        farm.core = Core(farm.policy, farm.storage.load(), farm.now, WALL + farm.now + days * DAY_S)
        farm.step(ClockRead(WALL + farm.now + days * DAY_S))
        assert 1 in farm.core.state.jobs
    for hours in range(4 * 24):
        assert reads(farm, 0, 1), hours
        assert 1 in farm.core.state.jobs, hours
    assert not reads(farm, 0, 48)
    assert 1 not in farm.core.state.jobs
