"""Autoenable: once a day at its time, whatever the clock does."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.slave.nimby import Mark, autoenable, parse_time_of_day

START = datetime(2026, 3, 10, 12, 0)


def turns(times: list[datetime], at: str | None = "21:00", mark: Mark | None = None) -> list[datetime]:
    """When a slave that somebody disables again at once becomes enabled."""
    mark = mark or Mark(times[0])
    found = []
    for now in times:
        enable, mark = autoenable(at, False, mark, now)
        if enable:
            found.append(now)
    return found


def steps(start: datetime, hours: float, every: timedelta = timedelta(minutes=15)) -> list[datetime]:
    return [start + every * n for n in range(int(timedelta(hours=hours) / every))]


def test_a_disabled_slave_is_enabled_once_a_day() -> None:
    assert turns(steps(START, 72)) == [START.replace(hour=21) + timedelta(days=n) for n in range(3)]


def test_an_enabled_slave_and_one_without_a_time_are_left_alone() -> None:
    assert turns(steps(START, 72), at=None) == []
    assert autoenable("21:00", True, Mark(START), START.replace(hour=22)) == (
        False,
        Mark(START.replace(hour=22), START.date()),
    )


def test_a_start_after_the_time_does_not_enable() -> None:
    assert turns(steps(START.replace(hour=21), 10)) == []


def test_who_disables_after_the_time_is_not_overruled_that_day() -> None:
    evening = START.replace(hour=21, minute=1)
    _, mark = autoenable("21:00", True, Mark(START), evening)
    assert turns(steps(evening, 23), mark=mark) == []


def test_a_jump_over_the_time_enables_once() -> None:
    assert turns([START, START + timedelta(hours=11), START + timedelta(hours=12)]) == [
        START + timedelta(hours=11)
    ]
    assert turns([START, START + timedelta(days=40), START + timedelta(days=40, seconds=15)]) == [
        START + timedelta(days=40)
    ]


def test_a_clock_set_back_by_hours_does_not_enable_twice() -> None:
    evening = START.replace(hour=21)
    assert turns([START, evening, *steps(evening - timedelta(hours=2), 20)]) == [evening]


def test_a_clock_that_was_years_ahead_costs_a_day_not_years() -> None:
    ahead = START + timedelta(days=4000)
    found = turns([START, ahead, *steps(START, 72)])
    assert found[0] == ahead
    assert found[1:] == [START.replace(hour=21) + timedelta(days=n) for n in (1, 2)]


def test_a_glitch_back_by_days_does_not_enable_again() -> None:
    evening = START.replace(hour=21)
    assert turns([START, evening, evening - timedelta(days=3), *steps(evening, 20)]) == [evening]


@given(st.lists(st.integers(-72 * 60, 72 * 60), max_size=40), st.integers(0, 23), st.integers(0, 59))
def test_never_twice_for_one_date_in_a_row_and_never_backwards(
    jumps: list[int], hour: int, minute: int
) -> None:
    now, mark = START, Mark(START)
    latest: date | None = None
    for jump in jumps:
        before, now = now, now + timedelta(minutes=jump)
        enable, mark = autoenable(f"{hour}:{minute:02d}", False, mark, now)
        if enable:
            assert now > before
            assert mark.passed != latest
            latest = mark.passed
        assert not autoenable(f"{hour}:{minute:02d}", False, mark, now)[0]


@given(st.integers(0, 23), st.integers(0, 59), st.integers(1, 600))
def test_a_running_clock_enables_exactly_once_in_any_24_hours(hour: int, minute: int, every: int) -> None:
    at = f"{hour:02d}:{minute:02d}"
    times = steps(START, 24 + every / 60, timedelta(minutes=every))
    days = (times[-1] - START) // timedelta(days=1)
    assert days <= len(turns(times, at)) <= days + 1


@pytest.mark.parametrize(("text", "hour", "minute"), [("21:00", 21, 0), ("7:5", 7, 5), ("00:00", 0, 0)])
def test_times_of_day(text: str, hour: int, minute: int) -> None:
    moment = parse_time_of_day(text)
    assert (moment.hour, moment.minute) == (hour, minute)


@pytest.mark.parametrize(
    "text", ["", "21", "24:00", "21:60", "-1:00", "21:00:00", "٢١:00", "a:b", ":", "021:00", "+1:00"]
)
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time of day"):
        parse_time_of_day(text)
