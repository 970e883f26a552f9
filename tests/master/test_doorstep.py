"""Who may wait before the gate, by hand: made-up links, made-up times."""

import math

import pytest

from drqueue.master.doorstep import (
    ADDRESSES,
    ELSEWHERE,
    FAILURES,
    MOST,
    SHARE,
    SILENT_S,
    SLOW_S,
    WINDOW_S,
    Doorstep,
    Notice,
)

COME = 100.0


def a_crowd(most: int = MOST) -> Doorstep:
    """Links 0, 1, ... of different addresses, one each tenth of a second from COME on."""
    step = Doorstep()
    for link in range(most):
        step.came(link, f"10.0.0.{link}", COME + link / 10)
    return step


def a_culprit(failures: int, at: float = 0.0) -> Doorstep:
    """Address "bad" failed so often at once."""
    step = Doorstep()
    for _ in range(failures):
        step.failed("bad", "x", at)
    return step


# -- places ----------------------------------------------------------------------------------------------


def test_there_are_so_many_places() -> None:
    step = a_crowd(MOST - 1)
    assert not step.full
    step.came(999, "z", 500.0)
    assert step.full
    step.left(3)
    assert not step.full
    step.left(3)
    step.came(1000, "z", 500.0)
    assert step.full


def test_the_oldest_silent_one_goes_first_not_the_one_silent_for_longest() -> None:
    step = a_crowd(3)
    step.heard(0, COME + 1.5)
    assert step.silent(COME + 2.0) == 1
    assert step.silent(COME + 1.5 + SILENT_S) == 0
    step.left(0)
    step.left(1)
    assert step.silent(COME + 100.0) == 2


def test_nobody_goes_who_said_a_word_just_now() -> None:
    step = a_crowd(2)
    step.heard(0, COME + 1.0)
    step.heard(1, COME + 1.2)
    assert step.silent(COME + 1.9) is None
    assert step.silent_at() == COME + 1.0 + SILENT_S
    assert step.silent(step.silent_at()) == 0


def test_a_word_that_comes_byte_by_byte_holds_no_place_for_long() -> None:
    step = a_crowd(1)
    for beat in range(20):
        step.heard(0, COME + beat / 10 + 1.5)
    assert step.silent(COME + SLOW_S - 0.1) is None
    assert step.silent_at() == COME + SLOW_S
    assert step.silent(COME + SLOW_S) == 0


def test_who_waits_for_this_side_is_never_silent() -> None:
    step = a_crowd(1)
    step.judged(0)
    assert step.silent(1e9) is None
    assert step.silent_at() == math.inf
    step.heard(7, 5.0)
    step.judged(7)
    assert step.silent_at() == math.inf


def test_an_empty_doorstep_waits_for_nobody() -> None:
    step = Doorstep()
    assert step.silent(1e9) is None
    assert step.silent_at() == step.due_at() == math.inf
    assert step.due(1e9) == []


# -- addresses that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "crowded"), [(0, False), (FAILURES, False), (FAILURES + 1, True)])
def test_more_than_ten_failures_within_a_minute_cost_places(failures: int, crowded: bool) -> None:
    step = a_culprit(failures)
    for link in range(SHARE):
        assert not step.crowded("bad", 1.0)
        step.came(link, "bad", 1.0)
    assert step.crowded("bad", 1.0) is crowded
    assert not step.crowded("good", 1.0)
    step.left(0)
    assert not step.crowded("bad", 1.0)


def test_failures_are_forgiven_after_a_minute() -> None:
    step = Doorstep()
    for n in range(FAILURES + 1):
        step.failed("bad", "x", n * 5.0)
    for link in range(SHARE):
        step.came(link, "bad", 60.0)
    assert step.crowded("bad", WINDOW_S)
    assert not step.crowded("bad", WINDOW_S + 0.1)
    step.failed("bad", "x", WINDOW_S + 1)
    assert step.crowded("bad", WINDOW_S + 2)


def test_being_turned_away_is_no_failure() -> None:
    step = a_culprit(FAILURES)
    step.failed("bad", "turned away", 0.0, counts=False)
    for link in range(SHARE):
        step.came(link, "bad", 1.0)
    assert not step.crowded("bad", 1.0)
    step.failed("bad", "x", 1.0)
    assert step.crowded("bad", 1.0)


def test_a_crowded_address_gives_up_its_own_silent_one() -> None:
    step = a_culprit(FAILURES + 1)
    step.came(0, "good", 1.0)
    step.came(1, "bad", 2.0)
    assert step.silent(10.0) == 0
    assert step.silent(10.0, "bad") == 1
    assert step.silent(10.0, "none") is None


# -- what is told ----------------------------------------------------------------------------------------


def test_the_first_failure_is_told_at_once_the_others_once_a_minute() -> None:
    step = Doorstep()
    assert step.failed("a", "garbage", 0.0) == Notice("a", "garbage", 1)
    assert step.failed("a", "silence", 1.0) is None
    assert step.failed("b", "garbage", 2.0) == Notice("b", "garbage", 1)
    assert step.failed("a", "refused", 3.0) is None
    assert step.due_at() == WINDOW_S
    assert step.due(WINDOW_S - 0.1) == []
    assert step.due(WINDOW_S) == [Notice("a", "refused", 2)]
    assert step.failed("a", "late", WINDOW_S + 1) is None
    assert step.due(WINDOW_S + 30) == []
    assert step.due(2 * WINDOW_S) == [Notice("a", "late", 1)]


def test_an_address_that_failed_no_more_is_forgotten() -> None:
    step = a_culprit(1)
    assert step.due(WINDOW_S) == []
    assert step.due_at() == math.inf
    assert step.failed("bad", "again", WINDOW_S) == Notice("bad", "again", 1)


def test_any_number_of_addresses_takes_bounded_room() -> None:
    step = Doorstep()
    told = [step.failed(f"a{n}", "x", 0.0) for n in range(ADDRESSES + 500)]
    assert sum(notice is not None for notice in told) == ADDRESSES + 1
    assert told[ADDRESSES] == Notice(ELSEWHERE, "x", 1)
    assert step.failed("a7", "y", 1.0) is None
    assert sorted(step.due(WINDOW_S)) == [Notice("a7", "y", 1), Notice(ELSEWHERE, "x", 499)]
    assert step.failed("new", "x", WINDOW_S) == Notice("new", "x", 1)


def test_what_others_tell_of_hides_nothing_but_counts() -> None:
    """Else whoever ends each minute with a refusal is never told of."""
    step = Doorstep()
    for _ in range(FAILURES + 1):
        assert step.failed("bad", "refused", 0.0, told=True) is None
    for link in range(SHARE):
        step.came(link, "bad", 0.0)
    assert step.crowded("bad", 1.0)
    assert step.failed("bad", "noise", 2.0) == Notice("bad", "noise", 1)
    assert step.failed("bad", "more noise", 3.0) is None
    assert step.failed("bad", "refused", 4.0, told=True) is None
    assert step.due(WINDOW_S) == [Notice("bad", "more noise", 1)]


def test_who_failed_lately_is_not_forgotten_for_having_been_told_of() -> None:
    step = Doorstep()
    step.failed("bad", "noise", 0.0)
    for _ in range(FAILURES + 1):
        step.failed("bad", "refused", WINDOW_S - 1, told=True)
    assert step.due(WINDOW_S) == []
    for link in range(SHARE):
        step.came(link, "bad", WINDOW_S)
    assert step.crowded("bad", WINDOW_S + 1)
    assert step.failed("bad", "noise", WINDOW_S + 1) == Notice("bad", "noise", 1)
    assert step.due(3 * WINDOW_S) == []
    assert step.due_at() == math.inf
