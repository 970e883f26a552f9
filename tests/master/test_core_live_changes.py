"""Changing live jobs: priority, limits, and above all their frames."""

import pytest

from drqueue.proto.link_messages import Held
from drqueue.proto.messages import ChangeJob, GetJob
from drqueue.proto.model import JobChange, Needs, SlaveLimits
from tests.builders import CoreFarm, a_job, a_layer, badly


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def test_priority_counts_at_once(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    for _ in range(3):
        farm.submit(a_job("1-9"))
    first = farm.order(link)
    farm.change(2, priority=501)
    farm.restart()
    link = farm.link(cores=1, held=[Held(first.key)])
    farm.exited(link, first.key)
    assert farm.order(link).key.job == 2


def test_pool_hosts_and_needs_count_at_once(farm: CoreFarm) -> None:
    link = farm.link(limits=SlaveLimits(pools=("gpu",)), cores=1)
    farm.submit(a_job("1", blocked=("s1", "s9"), layer={"needs": Needs(cores=2)}))
    farm.change(pool="gpu")
    assert farm.codes() == ["blocked"]
    farm.change(unblock=("s1",), block=("s7",))
    assert farm.job().blocked_hosts == ("s9", "s7")
    assert farm.codes() == ["cores-never"]
    farm.change(needs=Needs(cores=1))
    assert len(farm.orders(link)) == 1


def test_retries_count_for_what_runs(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 3}))
    farm.change(retries=0)
    farm.fail_all(link)
    assert farm.states() == {1: "FAILED"}


def test_a_change_that_is_wrong_changes_nothing(farm: CoreFarm) -> None:
    farm.submit(a_job("1-5"))
    before = farm.ask(GetJob(rq=0, job=0))
    for change, code in (
        (JobChange(priority=1, frames="5-"), "bad-range"),
        (JobChange(priority=1, layer="comp"), "no-such-layer"),
        (JobChange(priority=1, name=" "), "bad-job"),
        (JobChange(priority=1, retries=1001), "bad-job"),
    ):
        assert farm.refusal(ChangeJob(rq=0, job=0, change=change)).code == code
        after = farm.ask(GetJob(rq=0, job=0))
        assert after.job == before.job  # type: ignore[attr-defined]
        assert after.layers == before.layers  # type: ignore[attr-defined]
    assert farm.refusal(ChangeJob(rq=0, job=9, change=JobChange())).code == "no-such-job"


# -- frames -----------------------------------------------------------------------------------------------


def test_a_longer_range_keeps_what_was_done_and_what_runs(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    farm.submit(a_job("1-4", layer={"retries": 0}))
    keys = farm.keys(link)
    farm.exited(link, keys[1])
    farm.exited(link, keys[2], badly())
    running = farm.keys(link)
    assert farm.states() == {1: "DONE", 2: "FAILED", 3: "ASSIGNED", 4: "ASSIGNED"}
    farm.change(frames="-1-6")
    assert farm.states() == {
        **dict.fromkeys((-1, 0, 5, 6), "WAITING"),
        1: "DONE",
        2: "FAILED",
        3: "ASSIGNED",
        4: "ASSIGNED",
    }
    assert farm.stops(link) == []
    farm.restart()
    link = farm.link(cores=2, held=[Held(key) for key in running.values()])
    farm.exited(link, running[3])
    farm.exited(link, running[4])
    farm.render_all(link)
    assert farm.states() == {n: "FAILED" if n == 2 else "DONE" for n in range(-1, 7)}


def test_running_frames_outside_the_new_range_are_stopped(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    farm.submit(a_job("1-4"))
    keys = farm.keys(link)
    farm.change(frames="2-3")
    assert farm.stops(link) == [(keys[1], "range")]
    assert farm.states() == {2: "ASSIGNED", 3: "WAITING"}
    assert farm.slave().cores_used == 2
    farm.restart()
    link = farm.link(cores=2, held=[Held(key) for key in keys.values()])
    assert farm.stops(link) == [(keys[1], "range")]
    farm.exited(link, keys[1], badly())
    assert farm.outcomes() == ["superseded"]
    assert farm.order(link).start == 3
    farm.exited(link, keys[2])
    farm.render_all(link)


def test_a_range_that_comes_back_waits_for_its_former_run(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2"))
    keys = farm.keys(link)
    farm.change(frames="2")
    farm.change(frames="1-2")
    assert farm.states() == {1: "WAITING", 2: "ASSIGNED"}
    assert farm.orders(link) == []
    assert farm.codes() == ["ending"]
    farm.exited(link, keys[1])
    order = farm.order(link)
    assert (order.start, order.key.attempt) == (1, 2)


def test_other_chunks_stop_what_runs_and_wait_for_it(farm: CoreFarm) -> None:
    link = farm.link(cores=8)
    farm.submit(a_job("1-8", layer={"chunk": 4}))
    keys = farm.keys(link)
    farm.exited(link, keys[5])
    farm.change(chunk=2)
    assert farm.stops(link) == [(keys[1], "range")]
    assert farm.states() == {1: "WAITING", 3: "WAITING", 5: "DONE", 7: "DONE"}
    assert farm.orders(link) == []
    farm.exited(link, keys[1])
    assert [(order.start, order.count) for order in farm.orders(link)] == [(1, 2), (3, 2)]


def test_a_bigger_chunk_keeps_a_state_that_all_its_frames_had(farm: CoreFarm) -> None:
    farm.submit(a_job("1-8"))
    farm.frame(0, "finish", "1-3,5,6")
    farm.change(chunk=2)
    assert farm.states() == {1: "DONE", 3: "WAITING", 5: "DONE", 7: "WAITING"}
    farm.restart()
    assert farm.states() == {1: "DONE", 3: "WAITING", 5: "DONE", 7: "WAITING"}


def test_what_frames_went_through_is_kept(farm: CoreFarm) -> None:
    """Failures counted, slaves avoided, back-off: of a running, a waiting and a failed frame."""
    bad = farm.link("bad", cores=3)
    farm.submit(a_job("1-3", layer={"retries": 1}))
    farm.fail_all(bad)
    farm.wait(5)
    again = farm.keys(bad)
    farm.exited(bad, again[1], badly())
    farm.exited(bad, again[2], badly(reason="lost"))
    again |= farm.keys(bad)
    farm.verb(0, "stop")
    farm.exited(bad, again[2], badly(reason="lost"))
    expected = {1: ("FAILED", 1), 2: ("WAITING", 1), 3: ("ASSIGNED", 1)}
    assert {n: (v.state, v.requeued) for n, v in farm.frames().items()} == expected
    farm.change(frames="0-3")
    expected[0] = ("WAITING", 0)
    assert {n: (v.state, v.requeued) for n, v in farm.frames().items()} == expected
    farm.restart()
    assert {n: (v.state, v.requeued) for n, v in farm.frames().items()} == expected
    good = farm.link("good", cores=1)
    bad = farm.link("bad", cores=3, held=[Held(again[3])])
    farm.verb(0, "continue")
    order = farm.order(good)
    farm.exited(good, order.key, badly())
    farm.exited(bad, again[3], badly())
    farm.wait(1000)
    assert farm.states()[3] == "FAILED"


def test_a_back_off_goes_on_under_a_new_range(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("2-3", stopped=False))
    farm.exited(link, farm.keys(link)[2], badly())
    farm.change(frames="1-3")
    assert farm.order(link).start == 1
    assert farm.codes(0, 2) == ["back-off"]
    farm.wait(4.9)
    assert farm.orders(link) == []
    farm.wait(0.2)
    assert farm.order(link).start == 2


def test_attempt_numbers_go_on_under_a_new_range(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("5-9"))
    farm.exited(link, farm.order(link).key)
    key = farm.order(link).key
    farm.change(frames="1-9")
    farm.restart()
    link = farm.link(cores=1, held=[Held(key)])
    farm.exited(link, key)
    order = farm.order(link)
    assert order.start == 1
    assert order.key.attempt == 2, "5/1 of the former division bore the name (0, 0, 0, 1)"


def test_a_finished_job_with_more_frames_goes_on(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2"))
    farm.render_all(link)
    farm.change(frames="1-3")
    assert farm.job().state == "ACTIVE"
    assert farm.order(link).start == 3


def test_a_job_whose_open_frames_are_taken_away_is_finished(farm: CoreFarm) -> None:
    farm.submit(a_job("1-2"))
    farm.frame(0, "finish", "1")
    farm.change(frames="1")
    assert farm.job().state == "FINISHED"


def test_the_frames_of_one_layer_change_alone(farm: CoreFarm) -> None:
    farm.submit(a_job(layers=(a_layer("1-2", name="a"), a_layer("1-2", name="b", after=("a",)))))
    farm.change(layer="b", frames="1-5")
    assert (len(farm.states(0, "a")), len(farm.states(0, "b"))) == (2, 5)
    farm.frame(0, "finish", "1-2", layer="a")
    assert farm.state_set(0, "b") == {"WAITING"}
    farm.change(layer="a", frames="1-3")
    assert farm.state_set(0, "b") == {"BLOCKED"}


def test_many_dying_runs_do_not_hold_up_the_frames_behind_them(farm: CoreFarm) -> None:
    link = farm.link(cores=100)
    farm.submit(a_job("1-100"))
    assert len(farm.orders(link)) == 100
    farm.change(frames="200")
    farm.change(frames="1-110")
    other = farm.link("other", cores=10)
    assert sorted(farm.keys(other)) == list(range(101, 111))
