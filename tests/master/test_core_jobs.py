"""Submitting, and the verbs on jobs: stop, hard-stop, continue, rerun, delete."""

import pytest

from drqueue.master.core import jobs
from drqueue.master.core.events import ClientAsked, SlaveSaid
from drqueue.master.core.records import JobForget
from drqueue.proto.link_messages import Exited, Held, Report
from drqueue.proto.messages import GetJob, Job, JobVerb, ListJobs, Submit, Submitted
from drqueue.proto.model import JobSpec
from tests.builders import ADMIN, CoreFarm, a_job, a_layer, badly, well

TWO_LAYERS = (a_layer("1-2", name="render"), a_layer("1-3", name="comp"))


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def test_a_job_renders_and_finishes(farm: CoreFarm) -> None:
    job = farm.submit(a_job("1-3"))
    assert farm.job(job).state == "WAITING"
    link = farm.link()
    keys = farm.keys(link)
    assert farm.states(job) == {1: "ASSIGNED", 2: "ASSIGNED", 3: "ASSIGNED"}
    farm.started(link, keys[1])
    assert farm.states(job)[1] == "RUNNING"
    assert farm.job(job).state == "ACTIVE"
    for key in keys.values():
        farm.exited(link, key)
    view = farm.job(job)
    assert (view.state, view.counts.done, view.progress) == ("FINISHED", 3, 1.0)
    assert view.finished_at == farm.core.turn.wall


def test_job_ids_count_from_0_and_are_never_used_again(farm: CoreFarm) -> None:
    assert [farm.submit(), farm.submit()] == [0, 1]
    farm.verb(1, "delete")
    farm.restart()
    assert farm.submit() == 2


def test_submitting_twice_with_a_token_makes_one_job(farm: CoreFarm) -> None:
    job = farm.submit(a_job(), token="the-token")
    for _ in range(2):
        again = farm.ask(Submit(rq=0, token="the-token", spec=a_job("1-99", name="other")))
        assert isinstance(again, Submitted)
        assert (again.job, again.again) == (job, True)
        farm.restart()
    jobs = farm.ask(ListJobs(rq=0, all=True)).jobs  # type: ignore[attr-defined]
    assert [view.name for view in jobs] == ["job"]


def test_a_bad_job_is_refused_in_a_sentence_and_takes_no_id(farm: CoreFarm) -> None:
    refusal = farm.refusal(Submit(rq=0, token="token-00", spec=a_job("1-")))
    assert refusal.code == "bad-job"
    assert "layer 'main'" in refusal.text
    assert farm.submit() == 0


def test_requeue_fast_is_pointed_out_at_submit(farm: CoreFarm) -> None:
    spec = a_job(on_unreachable="requeue-fast")
    answer = farm.ask(Submit(rq=0, token="token-00", spec=spec))
    assert isinstance(answer, Submitted)
    assert "60 s" in answer.note


def test_an_unknown_job_is_refused_by_every_verb(farm: CoreFarm) -> None:
    for verb in ("stop", "hard-stop", "continue", "rerun", "delete"):
        assert farm.refusal(JobVerb(rq=0, job=7, verb=verb)).code == "no-such-job"  # type: ignore[arg-type]


def test_a_job_submitted_stopped_waits_for_continue(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1-2", stopped=True))
    assert farm.orders(link) == []
    assert farm.job(job).state == "STOPPED"
    farm.restart()
    link = farm.link()
    farm.verb(job, "continue")
    assert len(farm.orders(link)) == 2


def test_stop_lets_running_frames_end(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    job = farm.submit(a_job("1-3"))
    keys = farm.keys(link)
    assert farm.verb(job, "stop") == 0
    assert farm.job(job).state == "STOPPED"
    assert farm.stops(link) == []
    farm.exited(link, keys[1])
    assert farm.states(job) == {1: "DONE", 2: "ASSIGNED", 3: "WAITING"}
    assert farm.orders(link) == []
    farm.verb(job, "continue")
    assert farm.order(link).start == 3


def test_a_stopped_job_whose_frames_all_ended_is_finished(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1"))
    farm.verb(job, "stop")
    farm.render_all(link)
    assert farm.job(job).state == "FINISHED"


def test_hard_stop_kills_and_counts_nothing(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1-2", layer={"retries": 0}))
    keys = farm.keys(link)
    assert farm.verb(job, "hard-stop") == 2
    assert sorted(farm.stops(link)) == [(keys[1], "hard-stop"), (keys[2], "hard-stop")]
    assert farm.states(job) == {1: "ASSIGNED", 2: "ASSIGNED"}, "a wish is no fact"
    farm.exited(link, keys[1], badly(signal=15, reason="stopped", code=None))  # type: ignore[arg-type]
    farm.exited(link, keys[2], badly(1))
    assert farm.state_set(job) == {"WAITING"}
    assert [view.requeued for view in farm.frames(job).values()] == [0, 0]
    assert farm.outcomes(job, 1) == ["killed"]
    assert farm.orders(link) == []
    farm.verb(job, "continue")
    assert farm.render_all(link) == 2
    assert farm.state_set(job) == {"DONE"}


def test_a_frame_that_ends_well_despite_a_hard_stop_is_done(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1"))
    key = farm.order(link).key
    farm.verb(job, "hard-stop")
    farm.exited(link, key)
    assert farm.states(job) == {1: "DONE"}


def test_a_hard_stop_said_twice_stops_once(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1"))
    farm.verb(job, "hard-stop")
    farm.verb(job, "hard-stop")
    assert len(farm.stops(link)) == 1


def test_rerun_starts_everything_again_with_fresh_retries(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    job = farm.submit(a_job("1-4", layer={"retries": 0}))
    first = farm.keys(link)
    farm.exited(link, first[1], badly())
    farm.exited(link, first[2])
    assert farm.states(job) == {1: "FAILED", 2: "DONE", 3: "ASSIGNED", 4: "ASSIGNED"}
    first |= farm.keys(link)
    assert farm.verb(job, "rerun") == 4
    assert {why for _key, why in farm.stops(link)} == {"rerun"}
    farm.exited(link, first[3], badly(reason="stopped"))
    farm.exited(link, first[4])
    second = farm.keys(link)
    assert {key.attempt for key in second.values()} == {2}
    assert farm.render_all(link) == 0
    for key in second.values():
        farm.exited(link, key)
    farm.render_all(link)
    assert farm.state_set(job) == {"DONE"}
    assert farm.job(job).state == "FINISHED"


def test_rerun_starts_no_frame_while_its_former_run_lives(farm: CoreFarm) -> None:
    """P4: also where the slave that runs it is out of reach."""
    away, near = farm.link("away", cores=1), farm.link("near", cores=1)
    job = farm.submit(a_job("1"))
    key = farm.order(away).key
    farm.unlink(away)
    farm.verb(job, "rerun")
    assert farm.orders(near) == []
    farm.restart()
    near = farm.link("near", cores=1)
    assert farm.orders(near) == []
    away = farm.link("away", held=[Held(key)], cores=1)
    assert farm.stops(away) == [(key, "rerun")]
    assert farm.orders(near) == []
    farm.exited(away, key)
    assert farm.outcomes(job) == ["requeued", ""]
    assert farm.states(job) == {1: "ASSIGNED"}


def test_rerun_survives_a_restart(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1-3"))
    farm.render_all(link)
    farm.unlink(link)
    farm.verb(job, "rerun")
    farm.restart()
    link = farm.link()
    assert {key.attempt for key in farm.keys(link).values()} == {2}


def test_rerun_of_a_finished_job_opens_it_again(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1"))
    farm.render_all(link)
    farm.verb(job, "rerun")
    assert farm.job(job).state == "ACTIVE"
    assert farm.job(job).finished_at == 0


def test_rerun_ends_a_back_off(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1"))
    farm.fail_all(link)
    farm.verb(job, "rerun")
    assert farm.order(link).key.attempt == 2
    assert farm.frames(job)[1].requeued == 0


def test_delete_stops_what_runs_and_hides_the_job_at_once(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    job = farm.submit(a_job("1-3"))
    key = farm.order(link).key
    assert farm.verb(job, "delete") == 1
    assert farm.stops(link) == [(key, "delete")]
    assert farm.refusal(GetJob(rq=0, job=job)).code == "no-such-job"
    assert farm.slave().cores_used == 1, "its place is taken until it ends"
    farm.restart()
    assert farm.refusal(GetJob(rq=0, job=job)).code == "no-such-job"
    link = farm.link(cores=1, held=[Held(key)])
    assert farm.stops(link) == [(key, "delete")]
    farm.exited(link, key, badly(reason="stopped"))
    assert farm.noted(link) == [key]
    assert farm.orders(link) == []
    assert farm.saved[-1] == JobForget(job)
    assert job not in farm.core.state.jobs


def test_delete_of_a_job_that_does_not_run_drops_it(farm: CoreFarm) -> None:
    link = farm.link()
    job = farm.submit(a_job("1-3"))
    farm.render_all(link)
    assert farm.verb(job, "delete") == 0
    assert not farm.core.state.jobs
    assert list(farm.storage.load().jobs) == []


def test_delete_when_finished_waits_for_success(farm: CoreFarm) -> None:
    link = farm.link()
    good = farm.submit(a_job("1", delete_when_finished=True))
    bad = farm.submit(a_job("1", delete_when_finished=True, layer={"retries": 0}))
    for order in farm.orders(link):
        farm.exited(link, order.key, well() if order.key.job == good else badly())
    assert list(farm.core.state.jobs) == [bad]
    farm.frame(bad, "finish", "1")
    assert not farm.core.state.jobs


def test_an_order_carries_all_that_the_frame_needs(farm: CoreFarm) -> None:
    link = farm.link()
    layer = a_layer(
        "1-9x2", chunk=2, name="beauty", env={"B": "2"}, timeout_s=9.0, outputs=("o.png",), cwd="/tmp"
    )
    farm.submit(JobSpec(name="shot", owner="ada", env={"A": "1", "B": "1"}, layers=(layer,), lease_s=60))
    order = farm.orders(link)[1]
    assert (order.start, order.step, order.count) == (5, 2, 2)
    assert order.env == {"A": "1", "B": "2"}
    assert (order.range_start, order.range_end, order.range_step, order.block) == (1, 9, 2, 2)
    assert (order.job_name, order.owner, order.layer_name, order.lease_s) == ("shot", "ada", "beauty", 60)
    assert (order.timeout_s, order.outputs, order.cwd) == (9.0, ("o.png",), "/tmp")


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ("1-10x20", (1, 10, 20)),
        ("7", (7, 7, 1)),
        ("1-11x3", (1, 11, 3)),
        ("9-1x4", (9, 1, -4)),
        ("5-5x2", (5, 5, 2)),
        ("1,2,3", (1, 3, 1)),
        ("1-5,20", (1, 20, 1)),
    ],
)
def test_commands_are_told_the_range_as_it_was_written(
    farm: CoreFarm, frames: str, told: tuple[int, int, int]
) -> None:
    link = farm.link()
    farm.submit(a_job(frames))
    order = farm.orders(link)[0]
    assert (order.range_start, order.range_end, order.range_step) == told


def test_frame_times_give_a_mean_and_a_time_of_arrival(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    job = farm.submit(a_job("1-3"))
    farm.exited(link, farm.order(link).key, well(started_at=10, ended_at=30, cpu_s=5.0))
    view = farm.job(job)
    assert (view.mean_frame_s, view.cpu_s) == (20, 5)
    assert view.eta_at == pytest.approx(farm.core.turn.wall + 40)
    farm.restart()
    assert farm.job(job).mean_frame_s == 20


def test_a_jobs_sums_are_the_same_after_a_restart(farm: CoreFarm) -> None:
    """All attempts that are over cost CPU time; only those that were done have a frame time."""

    def sums() -> tuple[float, float]:
        view = farm.job(0)
        return (view.mean_frame_s, view.cpu_s)

    def sums_hold() -> tuple[float, float]:
        before = sums()
        farm.restart()
        assert sums() == before
        return before

    link = farm.link(cores=2)
    farm.submit(a_job("1-4"))
    keys = farm.keys(link)
    farm.exited(link, keys[1], well(started_at=10, ended_at=30, cpu_s=5.0))
    farm.exited(link, keys[2], badly(started_at=10, ended_at=99, cpu_s=7.0))
    assert sums_hold() == (20, 12)
    link = farm.link(cores=2)
    keys = farm.keys(link)
    farm.frame(0, "finish", "3")
    farm.exited(link, keys[3], badly(started_at=1, ended_at=2, cpu_s=1.0))
    farm.frame(0, "finish", "1-2")
    assert sums_hold() == (20, 13)
    link = farm.link(cores=1)
    key = farm.order(link).key
    farm.verb(0, "rerun")
    assert sums_hold() == (0, 0)
    link = farm.link(cores=1, held=(Held(key),))
    farm.exited(link, key, badly(cpu_s=50.0))
    assert sums() == (0, 0), "that attempt was of the run before"
    farm.exited(link, farm.order(link).key, well(started_at=10, ended_at=15, cpu_s=2.0))
    assert sums_hold() == (5, 2)


def test_the_states_of_two_layers_are_counted_together(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    job = farm.submit(a_job(layers=TWO_LAYERS))
    for key in farm.keys(link).values():
        farm.exited(link, key)
    counts = farm.job(job).counts
    assert (counts.total, counts.done, counts.assigned, counts.waiting) == (5, 2, 2, 1)


def test_a_late_repetition_of_a_deleted_jobs_submission_makes_no_second_job() -> None:
    farm = CoreFarm()
    spec = a_job("1")
    job = farm.submit(spec, token="once-only")
    farm.verb(job, "delete")
    assert farm.submit(spec, token="once-only") == job
    assert farm.core.state.jobs == {}


def test_who_asks_in_the_step_of_the_last_exit_is_told_of_the_whole_end(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    news = SlaveSaid(link, Report(exited=(Exited(farm.order(link).key, well()),)))
    farm.step(news, ClientAsked(1, GetJob(rq=7, job=0), ADMIN))
    answer = farm.answers[1].pop()
    assert isinstance(answer, Job)
    assert (answer.job.state, answer.job.finished_at > 0) == ("FINISHED", True)


def test_p7_a_farm_takes_no_job_beyond_its_bound(farm: CoreFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished and deleted ones do not count, nor is a retry of one that it took another one."""
    monkeypatch.setattr(jobs, "JOBS_MOST", 2)
    first, second = farm.submit(), farm.submit(token="the-second")
    full = Submit(rq=0, token="the-third", spec=a_job())
    for restart in (False, True):
        if restart:
            farm.restart()
        refusal = farm.refusal(full)
        assert (refusal.code, refusal.text) == (
            "too-many",
            "2 jobs are not finished, and no farm takes more: wait until some are, or delete some",
        )
        assert farm.submit(token="the-second") == second
    farm.frame(first, "finish", "1-10")
    third = farm.submit(token="the-third")
    assert farm.refusal(Submit(rq=0, token="the-fourth", spec=a_job())).code == "too-many"
    farm.verb(first, "rerun")
    farm.verb(third, "delete")
    assert farm.refusal(Submit(rq=0, token="the-fourth", spec=a_job())).code == "too-many"
    farm.verb(second, "delete")
    farm.submit(token="the-fourth")
