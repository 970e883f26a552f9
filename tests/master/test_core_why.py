"""Why frames wait: one situation for each cause that is not a slave's, and that one alone is told."""

from typing import Any

import pytest

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.turn import Policy
from drqueue.proto.messages import ChangeJob, Done
from drqueue.proto.model import (
    Alternative,
    Depend,
    Exit,
    JobChange,
    LayerDepend,
    Limit,
    Needs,
    Share,
    SlaveLimits,
)
from drqueue.proto.sharing_messages import PutLimit, PutPool, PutShare
from drqueue.proto.views import Reason
from tests.builders import CoreFarm, a_job, a_layer, badly


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm(Policy(farm="farm", epoch=1, software="test", backoff=Backoff(60.0, 60.0)))


def only(farm: CoreFarm, job: int = 0, number: int | None = None, layer: str = "") -> Reason:
    """The one reason, which a job's frame has, too."""
    (reason,) = farm.why(job, number, layer)
    return reason


def limit(farm: CoreFarm, name: str, amount: float, scope: Any = "attempts") -> None:
    assert isinstance(farm.ask(PutLimit(rq=0, name=name, amount=amount, scope=scope)), Done)


def share(farm: CoreFarm, name: str, **fields: Any) -> None:
    answer = farm.ask(PutShare(rq=0, share=Share(of="project", name=name, pool="Default", **fields)))
    assert isinstance(answer, Done)


# -- the whole job -----------------------------------------------------------------------------------------


def test_stopped_by_hand(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1-3", stopped=True))
    assert only(farm) == Reason(code="stopped", text="the job is stopped (drqueue continue)", count=3)
    assert farm.codes(0, 2) == ["stopped"]


def test_stopped_by_its_failures(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-3", max_failures=1))
    farm.fail_all(link)
    reason = only(farm)
    assert (reason.code, reason.count) == ("max-failures", 3)
    assert reason.text == (
        "the job stopped by itself: 1 attempt failed, and max_failures is 1; "
        "the last: frame 1 on s1: exit 1 (drqueue continue)"
    )
    assert farm.codes(0, 2) == ["max-failures"]


def test_not_before(farm: CoreFarm) -> None:
    farm.link()
    start = farm.core.turn.wall + 7200
    farm.submit(a_job("1-3", not_before=start))
    reason = only(farm)
    assert (reason.code, reason.count, reason.until_at) == ("not-before", 3, start)
    assert reason.text == "it waits for its start time, in 2 h"


@pytest.mark.parametrize(
    ("depend", "name", "text"),
    [
        (Depend(0), "job 0", "it waits for job 0: 2 of 6 frames are done"),
        (Depend(0, layer="sim"), "job 0/sim", "it waits for layer sim of job 0: 2 of 4 frames are done"),
        (Depend(0, until="ended"), "job 0", "it waits for job 0: 2 of 6 frames are over"),
        (
            Depend(0, layer="sim", frames="percent", percent=75),
            "job 0/sim (75%)",
            "it waits for layer sim (75%) of job 0: 2 of 4 frames are done",
        ),
    ],
)
def test_a_dependency_on_a_job(farm: CoreFarm, depend: Depend, name: str, text: str) -> None:
    farm.submit(a_job(layers=(a_layer("1-4", name="sim"), a_layer("1-2", name="comp", after=("sim",)))))
    farm.frame(0, "finish", "1-2", layer="sim")
    child = farm.submit(a_job("1-3", depends=(depend,)))
    reason = only(farm, child)
    assert (reason.code, reason.count, reason.name) == ("dependency", 3, name)
    assert reason.text == text.replace("layer sim (75%) of job 0", "layer sim of job 0 (75%)")
    assert farm.codes(child, 1) == ["dependency"]


def test_dependencies_on_several_jobs_are_told_one_by_one(farm: CoreFarm) -> None:
    for _ in range(3):
        farm.submit(a_job("1"))
    farm.frame(1, "finish", "1")
    child = farm.submit(a_job("1", depends=(Depend(0), Depend(1), Depend(2))))
    assert [reason.name for reason in farm.why(child)] == ["job 0", "job 2"]


def test_a_dependency_on_a_layer(farm: CoreFarm) -> None:
    layers = (a_layer("1-8", name="sim", chunk=4), a_layer("1-2", name="comp", after=("sim",)))
    job = farm.submit(a_job(layers=layers))
    farm.frame(job, "finish", "1", layer="sim")
    reason = only(farm, job, 1, "comp")
    assert reason == Reason(
        code="dependency",
        text="layer comp waits for layer sim: 4 of 8 frames are done",
        count=1,
        name="sim",
    )


@pytest.mark.parametrize(
    ("depend", "number", "text"),
    [
        ({"layer": "a", "frames": "each"}, 3, "it waits for frame 3 of layer a"),
        ({"layer": "a", "frames": "each", "offset": -1}, 3, "it waits for frame 2 of layer a"),
        ({"frames": "previous"}, 3, "it waits for frame 2"),
    ],
)
def test_a_dependency_frame_by_frame(farm: CoreFarm, depend: dict[str, Any], number: int, text: str) -> None:
    layers = (a_layer("1-5", name="a"), a_layer("1-5", name="b", depends=(LayerDepend(**depend),)))
    job = farm.submit(a_job(layers=layers))
    reason = only(farm, job, number, "b")
    assert (reason.code, reason.text, reason.count) == ("dependency", text, 1)


def test_frames_that_wait_for_single_others_are_counted(farm: CoreFarm) -> None:
    each = LayerDepend(layer="a", frames="each")
    layers = (a_layer("1-9", name="a", chunk=3), a_layer("1-9", name="b", chunk=5, depends=(each,)))
    job = farm.submit(a_job(layers=layers))
    reason = only(farm, job, layer="b")
    text = "2 frames of layer b wait for single others: frame 1 waits for frames 1-6 of layer a"
    assert (reason.code, reason.text, reason.count) == ("dependency", text, 2)


def test_a_single_frame_that_will_not_be_done_by_itself(farm: CoreFarm) -> None:
    each = LayerDepend(layer="a", frames="each")
    job = farm.submit(
        a_job(layers=(a_layer("1-2", name="a", retries=0), a_layer("1-2", name="b", depends=(each,))))
    )
    farm.fail_all(farm.link())
    assert only(farm, job, 2, "b").text == "it waits for frame 2 of layer a, which failed"


def test_max_running(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1-9", max_running=2))
    reason = only(farm)
    assert (reason.code, reason.count) == ("max-running", 7)
    assert reason.text == "the job runs 2 frames, its limit is 2"
    assert farm.codes(0, 5) == ["max-running"]


# -- single frames -----------------------------------------------------------------------------------------


def test_back_off(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1"))
    farm.fail_all(link)
    reason = only(farm, 0, 1)
    assert (reason.code, reason.until_at) == ("back-off", pytest.approx(farm.core.turn.wall + 60))
    assert reason.text == "it failed, and is tried again in 60 s"
    assert only(farm).text == "frame 1 failed, and is tried again in 60 s"


def test_back_off_of_several(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    farm.submit(a_job("1-3"))
    farm.fail_all(link)
    (reason,) = [reason for reason in farm.why() if reason.code == "back-off"]
    assert (reason.text, reason.count) == ("2 frames failed, and are tried again, the first in 60 s", 2)


def test_an_attempt_that_is_still_being_stopped(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1-2"))
    farm.change(chunk=2)
    assert farm.codes() == farm.codes(0, 1) == ["ending"]


def test_out_of_reach(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2", lease_s=1000.0))
    farm.unlink(link)
    reason = only(farm, 0, 1)
    assert (reason.code, reason.name) == ("unreachable", "s1")
    assert reason.until_at == pytest.approx(farm.core.turn.wall + 1130)
    assert (only(farm).code, only(farm).count) == ("unreachable", 2)
    assert only(farm).text.startswith("nothing waits, but 2 frames may run out of reach; of frame 1: it may")


def test_failed_for_good(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2", layer={"retries": 0}))
    farm.fail_all(link)
    assert (only(farm).code, only(farm).count, only(farm, 0, 1).code) == ("failed", 2, "failed")


# -- limits ------------------------------------------------------------------------------------------------


def test_a_limit_is_reached(farm: CoreFarm) -> None:
    limit(farm, "nuke", 2)
    farm.link()
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 1}}))
    reason = only(farm)
    assert (reason.code, reason.name, reason.text, reason.count) == ("limit", "nuke", "limit nuke 2/2", 7)
    assert (only(farm, 0, 9).code, only(farm, 0, 9).count) == ("limit", 1)


def test_a_limit_that_has_too_little_left(farm: CoreFarm) -> None:
    limit(farm, "nuke", 3)
    farm.link()
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 2}}))
    assert only(farm).text == "limit nuke 2/3, and one attempt takes 2"


def test_a_limit_that_is_too_small_for_ever(farm: CoreFarm) -> None:
    limit(farm, "nuke", 1)
    farm.link()
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 2}}))
    assert only(farm).text == "limit nuke 0/1, and one attempt takes 2: it never runs"


def test_a_limit_that_is_closed(farm: CoreFarm) -> None:
    limit(farm, "nuke", 0)
    farm.link()
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 1}}))
    assert only(farm).text == "limit nuke 0/0: it is closed until somebody raises it"


def test_a_limit_that_was_never_set(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1", layer={"limits": {"nuke": 1}}))
    reason = only(farm)
    assert (reason.code, reason.name) == ("limit-unset", "nuke")
    assert reason.text == "limit nuke was never set: frames wait until it is"


def test_each_limit_that_is_reached_is_told(farm: CoreFarm) -> None:
    for name in "abc":
        limit(farm, name, 2 if name == "b" else 1)
    farm.link()
    farm.submit(a_job("1-9", layer={"limits": {"a": 1, "b": 1, "c": 1}}))
    assert [(reason.code, reason.name) for reason in farm.why()] == [("limit", "a"), ("limit", "c")]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("user:anna", "limit-user"),
        ("user:*", "limit-user"),
        ("project:film", "limit-project"),
        ("project:*", "limit-project"),
        ("pool:Default", "limit-pool"),
        ("pool:*", "limit-pool"),
    ],
)
def test_limits_of_everybody(farm: CoreFarm, name: str, code: str) -> None:
    limit(farm, name, 2)
    farm.link()
    farm.submit(a_job("1-9", owner="anna", project="film"))
    reason = only(farm)
    whose = name.replace(
        ":*", {"user": ":anna", "project": ":film", "pool": ":Default"}[name.partition(":")[0]]
    )
    assert (reason.code, reason.name, reason.text) == (code, whose, f"limit {whose} 2/2")


def test_a_limit_of_cores(farm: CoreFarm) -> None:
    limit(farm, "user:anna", 3, "cores")
    farm.link()
    farm.submit(a_job("1-9", owner="anna", layer={"needs": Needs(cores=2)}))
    assert only(farm).text == "limit user:anna 2/3 cores, and one attempt takes 2"


def test_the_burst_of_a_project(farm: CoreFarm) -> None:
    share(farm, "film", burst=2)
    farm.link()
    farm.submit(a_job("1-9", project="film"))
    reason = only(farm)
    assert (reason.code, reason.name) == ("burst", "film")
    assert reason.text == "project film runs 2 of the 2 cores that it may have of pool Default"


def test_seats_that_are_taken(farm: CoreFarm) -> None:
    limit(farm, "flame", 1, "slaves")
    farm.link("a", cores=1)
    farm.submit(a_job("1-9", layer={"limits": {"flame": 1}}))
    farm.link("b")
    reasons = farm.why()
    assert [reason.code for reason in reasons] == ["slaves", "cores", "seat"]
    assert (reasons[2].name, reasons[2].text) == (
        "flame",
        "1 of 2 slaves (b) is without a seat of limit flame (1/1)",
    )


def test_no_seat_at_all(farm: CoreFarm) -> None:
    limit(farm, "flame", 0, "slaves")
    farm.link("b")
    farm.submit(a_job("1-9", layer={"limits": {"flame": 1}}))
    assert (only(farm).code, only(farm).name) == ("limit", "flame")


def test_a_limit_that_leaves_an_alternative_is_in_nobodys_way(farm: CoreFarm) -> None:
    """The first amounts are beyond it, the others find no room: slaves are asked for those."""
    limit(farm, "user:anna", 6, "cores")
    farm.link(cores=8)
    other = farm.submit(a_job("1-6", owner="ben"))
    needs = Needs(cores=8, alternatives=(Alternative(cores=4),))
    farm.submit(a_job("1", owner="anna", layer={"needs": needs}))
    assert other == 0
    reason = only(farm, 1)
    assert (reason.code, reason.count) == ("cores", 1)
    assert "needs 4, the most free is 2" in reason.text


# -- turn --------------------------------------------------------------------------------------------------


def stopping(farm: CoreFarm) -> None:
    """From now on nothing is dispatched, so that only the next pass is missing."""
    from drqueue.master.core.events import Stopping

    farm.step(Stopping(60))


def test_nothing_but_its_turn(farm: CoreFarm) -> None:
    farm.link(limits=SlaveLimits(pools=("Default", "other")))
    stopping(farm)
    job = farm.submit(a_job("1", project="a"))
    assert only(farm, job) == Reason(code="turn", text="it waits for nothing but its turn")
    farm.submit(a_job("1-4", priority=900))
    farm.submit(a_job("1-4", priority=900, stopped=True))
    farm.submit(a_job("1-4", priority=900, depends=(Depend(0),)))
    farm.submit(a_job("1-2", priority=100))
    reason = only(farm, job)
    assert (reason.code, reason.count) == ("turn", 1)
    text = "it waits for nothing but its turn: 1 job of higher priority (4 frames) goes before it"
    assert reason.text == text


def test_others_go_first_by_share(farm: CoreFarm) -> None:
    link = farm.link(cores=3)
    farm.submit(a_job("1-9", project="film"))
    farm.submit(a_job("1-9", project="ad"))
    farm.submit(a_job("1-5", project="new", stopped=True))
    stopping(farm)
    farm.verb(2, "continue")
    farm.exited(link, farm.order_first(link))
    reason = only(farm, 1 if farm.core.state.jobs[1].live else 0)
    assert reason.code == "turn"
    assert "by share" in reason.text
    assert "(5 frames" in reason.text or "2 jobs" in reason.text


def test_in_a_pool_without_shares_who_came_first_goes_first(farm: CoreFarm) -> None:
    farm.ask(PutPool(rq=0, name="Default", policy="fifo"))
    farm.link()
    stopping(farm)
    for _ in range(3):
        farm.submit(a_job("1-2"))
    assert only(farm, 0).count == 0
    assert only(farm, 2).text.endswith(": 2 jobs queued earlier (4 frames) go before it")


def test_who_is_below_its_guaranteed_minimum_goes_first(farm: CoreFarm) -> None:
    share(farm, "film", minimum=2)
    farm.link()
    stopping(farm)
    farm.submit(a_job("1-2", project="film", priority=1))
    farm.submit(a_job("1", priority=900))
    assert only(farm, 1).text.endswith(
        ": 1 job below its project's guaranteed minimum (2 frames) goes before it"
    )
    assert only(farm, 0).count == 0


def test_a_frame_sent_ahead_waits_for_its_turn_at_its_slave(farm: CoreFarm) -> None:
    from tests.builders import WALL, well

    link = farm.link(cores=1)
    farm.submit(a_job("1-99"))
    slave = farm.core.state.slaves[0]
    while not slave.ahead:
        farm.exited(link, next(iter(slave.live)), well(ended_at=WALL + 0.1))
    (attempt,) = slave.ahead.values()
    assert only(farm, 0, attempt.number).text == "it was sent ahead to slave s1, and waits for a place there"


# -- several layers, several causes ------------------------------------------------------------------------


def test_layers_that_wait_for_different_things_are_told_one_by_one(farm: CoreFarm) -> None:
    farm.link()
    layers = (
        a_layer("1-2", name="a", needs=Needs(cores=64)),
        a_layer("1", name="b", after=("a",)),
        a_layer("1", name="c", limits={"nuke": 1}),
        a_layer("1", name="d", needs=Needs(cores=64)),
    )
    job = farm.submit(a_job(layers=layers))
    assert [(r.code, r.text.partition(":")[0]) for r in farm.why(job)] == [
        ("cores-never", "layer a"),
        ("dependency", "layer b waits for layer a"),
        ("limit-unset", "layer c"),
    ]
    assert farm.codes(job, layer="d") == ["cores-never"]


def test_frames_in_back_off_hide_nothing(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-9"))
    farm.fail_all(link)
    assert farm.codes() == ["back-off", "cores"]


def test_a_change_that_nobody_can_meet_is_said_at_once(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1", stopped=True))
    answer: Any = farm.ask(ChangeJob(rq=0, job=0, change=JobChange(needs=Needs(cores=64))))
    assert answer.note == (
        "layer main can run nowhere: the only slave of pool Default lacks cores "
        "(needs 64, the most offered is 4)"
    )
    again: Any = farm.ask(ChangeJob(rq=0, job=0, change=JobChange(priority=7)))
    assert again.note == ""


def test_what_is_over_waits_for_nothing(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2", layer={"retries": 0}))
    farm.exited(link, farm.order_first(link))
    assert farm.why(0, 1) == farm.why(0, 2) == []
    farm.exited(link, next(iter(farm.core.state.attempts)), Exit(reason="lost"))
    farm.exited(link, next(iter(farm.core.state.attempts)), badly())
    assert Limit(name="x", amount=1).scope == "attempts"
    assert farm.why(0, 1) == []
