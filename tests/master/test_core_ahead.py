"""Frames of brief layers are sent ahead of free places, counted as the slave counts them, and taken back."""

import gc
import weakref
from collections.abc import Iterable

import pytest
from msgspec import structs

from drqueue.master.core import schedule
from drqueue.master.core.events import SlaveSaid
from drqueue.master.core.lanes import Lane
from drqueue.master.core.layer import BRIEF_KNOWN
from drqueue.master.core.schedule import AHEAD_MOST
from drqueue.master.core.turns import Turns
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import LimitsNow, Orders, Stop
from drqueue.proto.model import Exit, JobSpec, RunOrder, SlaveLimits
from tests.builders import WALL, CoreFarm, a_job, well


def warmed(spec: JobSpec, seconds: float = 0.1, cores: int = 2) -> tuple[CoreFarm, int, list[RunOrder]]:
    """A farm of one slave on which enough frames ended to know their length; what it holds then."""
    farm = CoreFarm()
    link = farm.link(cores=cores)
    farm.submit(spec)
    orders = farm.orders(link)
    ended = 0
    while ended < BRIEF_KNOWN:
        farm.exited(link, orders.pop(0).key, well(started_at=WALL, ended_at=WALL + seconds))
        orders += farm.orders(link)
        ended += 1
    return farm, link, orders


def taken_back(farm: CoreFarm, link: int) -> list[AttemptKey]:
    """What the slave was asked to give back if it has not begun."""
    stops: list[Stop] = [s for m in farm.said[link] if isinstance(m, Orders) for s in m.stop]
    assert all(stop.unstarted for stop in stops)
    return [stop.key for stop in stops]


def ahead(farm: CoreFarm) -> list[AttemptKey]:
    (slave, *_others) = farm.core.state.slaves.values()
    return list(slave.ahead)


def test_brief_frames_wait_at_a_full_slave_and_take_nothing_of_it() -> None:
    farm, _link, held = warmed(a_job("1-50"))
    (slave,) = farm.core.state.slaves.values()
    assert len(held) == 4
    assert ahead(farm) == [order.key for order in held[2:]]
    assert (slave.cores_used, slave.cores_offered) == (2, 2)


def test_the_first_that_waits_takes_the_place_that_comes_free() -> None:
    farm, link, held = warmed(a_job("1-50"))
    farm.exited(link, held[0].key, well(started_at=WALL, ended_at=WALL))
    (new,) = farm.orders(link)
    assert ahead(farm) == [held[3].key, new.key]


def test_no_more_than_a_few_wait_at_one_slave() -> None:
    farm, _link, held = warmed(a_job("1-100"), cores=2 * AHEAD_MOST)
    assert len(held) == 3 * AHEAD_MOST
    assert len(ahead(farm)) == AHEAD_MOST


def test_long_frames_bind_late() -> None:
    farm, _link, held = warmed(a_job("1-50"), seconds=1.0)
    assert (len(held), ahead(farm)) == (2, [])


@pytest.mark.parametrize("limit", ["max_running", "max_per_slave"])
def test_frames_that_a_limit_counts_are_not_sent_ahead(limit: str) -> None:
    farm, _link, held = warmed(a_job("1-50", **{limit: 40}))
    assert (len(held), ahead(farm)) == (2, [])


def test_a_frame_that_failed_is_not_sent_ahead() -> None:
    farm, link, held = warmed(a_job("1-50"))
    farm.exited(link, held[0].key, Exit(code=1))
    farm.wait(3600)
    assert held[0].key.frame not in {key.frame for key in ahead(farm)}


def test_a_stopped_job_takes_back_what_has_not_begun() -> None:
    """What runs ends normally; what is given back waits, and nothing is counted against it."""
    farm, link, held = warmed(a_job("1-50"))
    waiting = [order.key for order in held[2:]]
    farm.verb(0, "stop")
    assert sorted(taken_back(farm, link)) == sorted(waiting)
    for key in waiting:
        farm.exited(link, key, Exit(reason="stopped"))
    frames = farm.frames(0)
    assert [frames[order.start].state for order in held] == ["ASSIGNED", "ASSIGNED", "WAITING", "WAITING"]
    assert [frames[order.start].requeued for order in held[2:]] == [0, 0]
    assert farm.orders(link) == []


def test_one_that_has_begun_meanwhile_is_simply_counted() -> None:
    farm, link, held = warmed(a_job("1-50"))
    farm.verb(0, "stop")
    farm.exited(link, held[2].key)
    assert farm.states(0)[held[2].start] == "DONE"


def test_a_disabled_slave_gives_back_what_has_not_begun() -> None:
    farm, link, held = warmed(a_job("1-50"))
    farm.step(SlaveSaid(link, LimitsNow(limits=structs.replace(SlaveLimits(), enabled=False))))
    assert sorted(taken_back(farm, link)) == sorted(order.key for order in held[2:])


def test_a_free_place_elsewhere_gets_what_waits_ahead() -> None:
    """The last frames of a job wait at a full slave when another one comes up."""
    farm, link, held = warmed(a_job(f"1-{BRIEF_KNOWN + 4}"))
    assert len(ahead(farm)) == 2
    other = farm.link("s2", cores=2)
    waiting = taken_back(farm, link)
    assert sorted(waiting) == sorted(order.key for order in held[2:])
    for key in waiting:
        farm.exited(link, key, Exit(reason="stopped"))
    assert {order.start for order in farm.orders(other)} == {order.start for order in held[2:]}


def test_lower_priorities_do_not_fill_the_queue_before_higher_ones() -> None:
    farm, link, held = warmed(a_job("1-50"))
    urgent = farm.submit(a_job("1-50", priority=900))
    farm.exited(link, held[0].key, well(started_at=WALL, ended_at=WALL))
    farm.exited(link, held[1].key, well(started_at=WALL, ended_at=WALL))
    farm.exited(link, held[2].key, well(started_at=WALL, ended_at=WALL))
    assert {order.key.job for order in farm.orders(link)} == {urgent}


# -- what people see of it --------------------------------------------------------------------------------


def test_to_people_a_frame_that_waits_ahead_waits() -> None:
    farm, link, held = warmed(a_job("1-50"))
    states = farm.states()
    assert [states[order.start] for order in held] == ["ASSIGNED", "ASSIGNED", "WAITING", "WAITING"]
    counts = farm.job().chunk_counts
    assert (counts.assigned, counts.running, counts.waiting, counts.total) == (2, 0, 50 - BRIEF_KNOWN - 2, 50)
    farm.published.clear()
    farm.exited(link, held[0].key, well(started_at=WALL, ended_at=WALL))
    assert farm.states()[held[2].start] == "ASSIGNED"
    assert any(key.frame == held[2].key.frame for news in farm.published for key in news.frames)


def test_chunks_that_wait_ahead_are_counted_in_pictures() -> None:
    farm, _link, _held = warmed(a_job("1-100", layer={"chunk": 2}))
    counts = farm.job().counts
    assert (counts.assigned, counts.waiting, counts.done) == (4, 100 - 2 * BRIEF_KNOWN - 4, 2 * BRIEF_KNOWN)


def test_one_that_the_slave_began_by_itself_runs() -> None:
    farm, link, held = warmed(a_job("1-50"))
    farm.started(link, held[2].key)
    assert farm.states()[held[2].start] == "RUNNING"
    assert farm.job().chunk_counts.running == 1
    assert farm.frame(0, "kill", str(held[2].start)) == 1


def test_verbs_on_running_frames_leave_alone_what_waits_ahead() -> None:
    farm, _link, held = warmed(a_job("1-50"))
    waits = str(held[2].start)
    assert farm.frame(0, "kill", waits) == 0
    assert farm.frame(0, "requeue", waits) == 0
    assert farm.frame(0, "requeue", waits, now=True) == 0
    assert farm.frame(0, "finish", waits, running=True) == 0
    assert farm.states()[held[2].start] == "WAITING"
    assert farm.frame(0, "finish", waits) == 1
    assert farm.states()[held[2].start] == "DONE"


def test_why_says_where_a_frame_waits_ahead() -> None:
    farm, link, held = warmed(a_job("1-50"))
    (reason,) = farm.why(0, held[2].start)
    assert (reason.code, reason.text) == (
        "turn",
        "it was sent ahead to slave s1, and waits for a place there",
    )
    assert farm.why(0, held[0].start) == []
    farm.unlink(link)
    assert farm.codes(0, held[2].start) == ["unreachable"]


def test_of_the_turns_of_a_pass_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Turns]] = []

    class Noted(Turns):
        def __init__(self, lanes: Iterable[Lane], number: int) -> None:
            super().__init__(lanes, number)
            made.append(weakref.ref(self))

    monkeypatch.setattr(schedule, "Turns", Noted)
    gc.disable()
    try:
        warmed(a_job("1-50"))
        assert made
        assert not [one for one in made if one() is not None]
    finally:
        gc.enable()
