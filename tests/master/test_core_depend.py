"""Waiting for others: job-on-job dependencies, layers `after` layers, start times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.messages import ChangeJob, Done, JobVerb, Submit
from drqueue.proto.model import Depend, JobChange
from tests.builders import WALL, CoreFarm, a_job, a_layer, badly


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def child_of(*parents: int, until: str = "done", **fields: object) -> object:
    depends = tuple(Depend(parent, until) for parent in parents)  # type: ignore[arg-type]
    return a_job("1", depends=depends, **fields)  # type: ignore[arg-type]


# -- jobs -------------------------------------------------------------------------------------------------


def test_a_job_waits_until_its_parent_is_done(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    parent, child = farm.submit(a_job("1-2")), farm.submit(child_of(0))  # type: ignore[arg-type]
    assert farm.states(child) == {1: "BLOCKED"}
    assert farm.job(child).counts.blocked == 1
    assert farm.job(child).waits_for == "job 0"
    assert farm.codes(child) == ["dependency"]
    for _ in range(2):
        order = farm.order(link)
        assert order.key.job == parent
        farm.exited(link, order.key)
    assert farm.order(link).key.job == child
    assert farm.job(child).waits_for == ""


@pytest.mark.parametrize("until", ["done", "ended"])
def test_a_failed_parent(farm: CoreFarm, until: str) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1", layer={"retries": 0}))
    child = farm.submit(child_of(0, until=until))  # type: ignore[arg-type]
    farm.fail_all(link)
    assert farm.job(0).state == "FINISHED"
    assert farm.states(child) == {1: "ASSIGNED" if until == "ended" else "BLOCKED"}
    farm.frame(0, "finish", "1")
    assert farm.states(child) == {1: "ASSIGNED"}


def test_all_parents_are_waited_for_over_restarts(farm: CoreFarm) -> None:
    for _ in range(2):
        farm.submit(a_job("1"))
    child = farm.submit(child_of(0, 1))  # type: ignore[arg-type]
    farm.frame(0, "finish", "1")
    farm.restart()
    assert farm.job(child).waits_for == "job 1"
    farm.frame(1, "finish", "1")
    farm.restart()
    assert farm.job(child).waits_for == ""


def test_a_parent_that_runs_again_blocks_again(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    child = farm.submit(child_of(0))  # type: ignore[arg-type]
    farm.frame(0, "finish", "1")
    farm.verb(0, "rerun")
    assert farm.states(child) == {1: "BLOCKED"}


def test_depending_on_a_job_that_is_not_there_is_refused(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    farm.verb(0, "delete")
    for parent in (0, 7):
        request = Submit(rq=0, token="token-xx", spec=child_of(parent))  # type: ignore[arg-type]
        assert farm.refusal(request).code == "no-such-job"


def test_a_circle_is_refused(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    farm.submit(child_of(0))  # type: ignore[arg-type]
    farm.submit(child_of(1))  # type: ignore[arg-type]
    for job, parent, ring in ((0, 2, "0 -> 2 -> 1 -> 0"), (0, 1, "0 -> 1 -> 0"), (1, 1, "")):
        change = JobChange(depends=(Depend(parent),))
        refusal = farm.refusal(ChangeJob(rq=0, job=job, change=change))
        said = f"these would wait for each other: {ring}" if ring else "job 1 would wait for itself"
        assert (refusal.code, refusal.text) == ("bad-job", said)
    assert farm.job(0).depends == ()


def test_dependencies_of_a_live_job_may_change(farm: CoreFarm) -> None:
    farm.submit(a_job("1", stopped=True))
    farm.submit(a_job("1", stopped=True))
    child = farm.submit(child_of(0))  # type: ignore[arg-type]
    farm.change(child, depends=(Depend(1),))
    assert farm.job(child).waits_for == "job 1"
    farm.frame(0, "finish", "1")
    farm.restart()
    assert farm.job(child).waits_for == "job 1"
    farm.change(child, depends=())
    assert farm.states(child) == {1: "WAITING"}
    farm.verb(1, "delete")
    assert farm.states(child) == {1: "WAITING"}


def test_deleting_a_parent_cancels_what_waits_for_it_down_the_chain(farm: CoreFarm) -> None:
    for spec in (a_job("1"), child_of(0), child_of(1), child_of(2, until="ended")):
        farm.submit(spec)  # type: ignore[arg-type]
    farm.verb(0, "delete")
    assert [farm.states(job)[1] for job in (1, 2, 3)] == ["CANCELLED", "CANCELLED", "WAITING"]
    assert farm.job(1).state == "FINISHED"
    farm.restart()
    assert [farm.states(job)[1] for job in (1, 2, 3)] == ["CANCELLED", "CANCELLED", "WAITING"]
    link = farm.link()
    assert farm.order(link).key.job == 3
    farm.verb(1, "rerun")
    assert farm.order(link).key.job == 1, "the dependency on what is gone is gone"


def test_deleting_a_parent_that_is_done_cancels_nobody(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    child = farm.submit(child_of(0))  # type: ignore[arg-type]
    farm.frame(0, "finish", "1")
    farm.verb(0, "delete")
    assert farm.states(child) == {1: "WAITING"}
    assert farm.job(child).depends == ()
    farm.restart()
    assert farm.order(farm.link()).key.job == child


def test_frames_of_a_cancelled_job_that_run_are_stopped(farm: CoreFarm) -> None:
    """It runs because it was let go and then made to wait."""
    link = farm.link(cores=3)
    farm.submit(a_job("1", stopped=True))
    child = farm.submit(a_job("1-4", layer={"retries": 3}))
    keys = farm.keys(link)
    farm.change(child, depends=(Depend(0),))
    farm.verb(0, "delete")
    assert {why for _key, why in farm.stops(link)} == {"cancel"}
    assert farm.states(child) == {1: "ASSIGNED", 2: "ASSIGNED", 3: "ASSIGNED", 4: "CANCELLED"}
    farm.exited(link, keys[1], badly(reason="stopped"))
    farm.exited(link, keys[2])
    assert farm.frame(child, "kill", "3") == 1
    farm.exited(link, keys[3], badly(reason="stopped"))
    assert farm.states(child) == {1: "CANCELLED", 2: "DONE", 3: "CANCELLED", 4: "CANCELLED"}
    farm.restart()
    assert farm.states(child) == {1: "CANCELLED", 2: "DONE", 3: "CANCELLED", 4: "CANCELLED"}
    assert farm.frame(child, "requeue", "1,4") == 2
    assert farm.states(child)[4] == "WAITING"


@pytest.mark.parametrize("verb", ["requeue", "rerun"])
def test_asking_for_a_frame_again_outweighs_its_cancelling(farm: CoreFarm, verb: str) -> None:
    link = farm.link()
    farm.submit(a_job("1", stopped=True))
    child = farm.submit(a_job("1"))
    key = farm.order(link).key
    farm.change(child, depends=(Depend(0),))
    farm.verb(0, "delete")
    farm.frame(child, "requeue", "1") if verb == "requeue" else farm.verb(child, "rerun")
    farm.exited(link, key, badly(reason="stopped"))
    assert farm.order(link).key.attempt == 2


def test_cancelling_a_job_in_back_off(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", stopped=True))
    child = farm.submit(a_job("1"))
    farm.fail_all(link)
    farm.change(child, depends=(Depend(0),))
    farm.verb(0, "delete")
    assert farm.states(child) == {1: "CANCELLED"}
    farm.wait(100)
    assert farm.orders(link) == []
    farm.verb(child, "rerun")
    assert farm.order(link).key.attempt == 2


def test_a_chain_of_thousands_is_cancelled(farm: CoreFarm) -> None:
    state, length = farm.core.state, 1500
    farm.submit(a_job("1"))
    for job in range(length):
        farm.core.step([], farm.now)
        farm.submit_unchecked(child_of(job))  # type: ignore[arg-type]
    farm.verb(0, "delete")
    assert all(len(job.layers[0].cancelled) == 1 for job in state.jobs.values())
    assert len(state.jobs) == length


def test_a_ladder_of_dependencies_is_cancelled_once_each(farm: CoreFarm) -> None:
    """2^30 paths lead through it."""
    farm.submit(a_job("1"))
    farm.submit(child_of(0))  # type: ignore[arg-type]
    for job in range(30):
        farm.submit(child_of(job, job + 1))  # type: ignore[arg-type]
    farm.verb(0, "delete")
    assert {farm.states(job)[1] for job in range(1, 32)} == {"CANCELLED"}


# -- layers -----------------------------------------------------------------------------------------------


def test_a_layer_waits_for_the_one_before_it(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    layers = (
        a_layer("1", name="encode", after=("comp", "render")),
        a_layer("1-2", name="render"),
        a_layer("1", name="comp", after=("render",)),
    )
    job = farm.submit(a_job(layers=layers))
    assert farm.states(job, "encode") == {1: "BLOCKED"}
    assert farm.codes(job, layer="encode") == ["dependency", "dependency"]
    assert farm.job(job).counts.blocked == 2
    names = []
    while orders := farm.orders(link):
        for order in orders:
            names.append(order.layer_name)
            farm.exited(link, order.key)
    assert names == ["render", "render", "comp", "encode"]
    assert farm.job(job).state == "FINISHED"


def test_a_layer_after_a_failed_one_stays_blocked(farm: CoreFarm) -> None:
    link = farm.link()
    layers = (a_layer("1", name="a", retries=0), a_layer("1", name="b", after=("a",)))
    job = farm.submit(a_job(layers=layers))
    farm.fail_all(link)
    assert farm.states(job, "b") == {1: "BLOCKED"}
    assert farm.job(job).state == "WAITING"
    (reason,) = farm.why(job)
    assert reason.code == "dependency"
    text = "layer b waits for layer a: 0 of 1 frame is done; 1 frame failed (1): requeue or finish it"
    assert reason.text == text
    farm.frame(job, "requeue", "1", layer="a")
    assert farm.why(job, layer="b")[0].text == "layer b waits for layer a: 0 of 1 frame is done"
    farm.render_all(link)
    assert farm.states(job, "b") == {1: "DONE"}


def test_why_names_the_failed_frames_of_a_layer_in_pictures(farm: CoreFarm) -> None:
    link = farm.link(cores=8)
    layers = (a_layer("1-10", name="a", chunk=4, retries=0), a_layer("1", name="b", after=("a",)))
    job = farm.submit(a_job(layers=layers))
    first, second, third = farm.orders(link)
    farm.exited(link, first.key, badly())
    farm.exited(link, second.key)
    farm.exited(link, third.key, badly())
    (reason,) = farm.why(job)
    assert reason.text.endswith("; 6 frames failed (1-4,9-10): requeue or finish them")


def test_why_says_what_of_another_job_will_not_be_done_by_itself(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-3", layer={"retries": 0}))
    child = farm.submit(a_job("1", depends=(Depend(0),)))
    assert [reason.text for reason in farm.why(child)] == ["it waits for job 0: 0 of 3 frames are done"]
    farm.fail_all(link)
    assert farm.job(0).state == "FINISHED"
    (reason,) = farm.why(child)
    text = "it waits for job 0: 0 of 3 frames are done; 3 frames failed (1-3): requeue or finish them"
    assert (reason.code, reason.text) == ("dependency", text)
    many = farm.submit(a_job("1-9999x2", layer={"retries": 0}, depends=(Depend(child),)))
    grandchild = farm.submit(a_job("1", depends=(Depend(many),)))
    farm.verb(child, "delete")
    farm.frame(grandchild, "requeue", "1")
    (reason,) = farm.why(grandchild)
    assert "; 5,000 frames were cancelled (1-1999x2): requeue" in reason.text


# -- start times ------------------------------------------------------------------------------------------


def test_a_job_starts_at_its_time(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1", not_before=farm.core.turn.wall + 50))
    assert farm.orders(link) == []
    assert farm.states(job) == {1: "WAITING"}
    assert farm.codes(job) == ["not-before"]
    farm.wait(49.9)
    assert farm.orders(link) == []
    farm.wait(0.2)
    assert len(farm.orders(link)) == 1


def test_a_start_time_survives_a_restart_and_may_change(farm: CoreFarm) -> None:
    job = farm.submit(a_job("1", not_before=farm.core.turn.wall + 5000))
    farm.restart()
    link = farm.link()
    assert farm.codes(job) == ["not-before"]
    farm.change(job, not_before=farm.core.turn.wall + 10)
    farm.wait(9)
    assert farm.orders(link) == []
    farm.wait(2)
    assert len(farm.orders(link)) == 1
    assert farm.core.next_wakeup() is None


def test_a_wall_clock_that_is_set_forward_starts_jobs(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", not_before=farm.core.turn.wall + 3600))
    farm.read_clock(forward_s=3599)
    assert farm.orders(link) == []
    farm.read_clock(forward_s=2)
    assert len(farm.orders(link)) == 1


def test_a_dependency_is_named_before_a_start_time(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", stopped=True))
    child = farm.submit(child_of(0, not_before=WALL + 500))  # type: ignore[arg-type]
    assert farm.job(child).waits_for == "job 0"
    farm.frame(0, "finish", "1")
    assert farm.job(child).waits_for == "its start time"
    farm.wait(500)
    assert len(farm.orders(link)) == 1


@given(st.floats(1.6e9, 2e9), st.floats(0, 1e7), st.floats(1e-9, 1e6))
def test_a_start_time_is_met_when_the_core_wakes_for_it(wall: float, now: float, later: float) -> None:
    """Whatever rounding does between the two clocks: it does not wake in vain, again and again."""
    farm = CoreFarm()
    farm.now = now
    farm.step()
    farm.read_clock(forward_s=wall - farm.core.turn.wall)
    link = farm.link()
    farm.submit(a_job("1", not_before=farm.core.turn.wall + later))
    for _ in range(3):
        wake = farm.core.next_wakeup()
        if wake is None:
            break
        farm.now = max(farm.now, wake)
        farm.step()
    assert len(farm.orders(link)) == 1


def test_deleting_a_job_says_which_jobs_it_cancels() -> None:
    farm = CoreFarm()
    parent = farm.submit(a_job("1"))
    child = farm.submit(a_job("1", depends=(Depend(parent),)))
    other = farm.submit(a_job("1"))
    answer = farm.ask(JobVerb(rq=0, job=parent, verb="delete"))
    assert isinstance(answer, Done)
    assert answer.note.endswith(f"job {child}")
    assert farm.job(child).counts.cancelled == 1
    assert farm.job(other).counts.cancelled == 0


def test_stopping_a_finished_job_does_nothing() -> None:
    """Frames that are requeued later run."""
    farm = CoreFarm()
    link = farm.link()
    job = farm.submit(a_job("1"))
    farm.render_all(link)
    farm.verb(job, "stop")
    assert farm.job(job).state == "FINISHED"
    farm.frame(job, "requeue", "1")
    assert farm.render_all(link) == 1
