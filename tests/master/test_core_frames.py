"""How attempts end, and the verbs on frames: retries, back-off, another slave first, kill, requeue."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.master.core import jobs
from drqueue.master.core.attempts import Backoff
from drqueue.master.core.effects import Answer
from drqueue.master.core.events import ClientAsked
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.link_messages import Held
from drqueue.proto.messages import FrameVerb, ListAttempts, Refusal
from drqueue.proto.model import FAILURES, KILLED, NOBODYS, Exit, SlaveLimits
from drqueue.proto.ranges import Chunks, FrameRange
from tests.builders import ADMIN, CoreFarm, a_job, badly, well

LONG = 10_000.0


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def a_frame(farm: CoreFarm, retries: int = 3) -> int:
    """The link of a slave that runs frame 1 of job 0."""
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": retries}))
    return link


# -- failing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_so_many_more_attempts(farm: CoreFarm, retries: int) -> None:
    link = a_frame(farm, retries)
    for attempt in range(1, retries + 2):
        key = farm.order(link).key
        assert key.attempt == attempt
        farm.exited(link, key, badly())
        farm.wait(LONG)
    assert farm.states() == {1: "FAILED"}
    assert farm.job().state == "FINISHED"
    assert farm.outcomes() == ["failed"] * (retries + 1)
    farm.wait(LONG)
    assert farm.orders(link) == []


@pytest.mark.parametrize("reason", sorted(FAILURES))
def test_every_failure_counts(farm: CoreFarm, reason: str) -> None:
    link = a_frame(farm)
    farm.exited(link, farm.order(link).key, Exit(reason=reason, text="why"))
    assert farm.frames()[1].requeued == 1
    assert farm.outcomes() == ["failed"]


def test_a_missing_output_counts_though_the_code_is_0(farm: CoreFarm) -> None:
    link = a_frame(farm, retries=0)
    farm.exited(link, farm.order(link).key, well(reason="missing-output"))
    assert farm.states() == {1: "FAILED"}


def test_a_signal_counts(farm: CoreFarm) -> None:
    link = a_frame(farm, retries=0)
    farm.exited(link, farm.order(link).key, Exit(signal=11))
    assert farm.states() == {1: "FAILED"}


@pytest.mark.parametrize("reason", sorted(NOBODYS))
def test_what_is_nobodys_failure_counts_nothing_and_waits_for_nothing(farm: CoreFarm, reason: str) -> None:
    link = a_frame(farm, retries=0)
    farm.exited(link, farm.order(link).key, Exit(reason=reason))
    assert farm.outcomes() == ["lost", ""]
    assert farm.order(link).key.attempt == 2
    assert farm.frames()[1].requeued == 0


@given(st.integers(1, 100), st.floats(0.1, 100), st.floats(100, 10_000))
def test_back_off_doubles_up_to_the_most(failures: int, first: float, most: float) -> None:
    backoff = Backoff(first, most)
    assert backoff.after(1) == first
    assert backoff.after(failures) == min(most, first * 2 ** min(failures - 1, 30))


def test_a_failed_frame_backs_off(farm: CoreFarm) -> None:
    link = a_frame(farm)
    for pause in (5.0, 10.0, 20.0):
        farm.fail_all(link)
        assert farm.states() == {1: "WAITING"}
        assert farm.core.next_wakeup() == farm.now + pause
        assert farm.codes(0, 1) == ["back-off"]
        farm.wait(pause - 0.01)
        assert farm.orders(link) == []
        farm.wait(0.01)
        assert farm.states() == {1: "ASSIGNED"}


def test_a_back_off_that_was_cut_short_does_not_cut_the_next_one(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.fail_all(link)
    farm.wait(1)
    farm.verb(0, "rerun")
    farm.fail_all(link)
    farm.wait(4.5)
    assert farm.orders(link) == [], "the first pause is over, the second one is not"
    farm.wait(0.5)
    assert farm.order(link).key.attempt == 3


def test_a_failed_frame_goes_to_another_slave_first(farm: CoreFarm) -> None:
    """Also where the one that it failed on is free and the other one is busy."""
    bad, good = farm.link("bad", cores=1), farm.link("good", cores=1)
    farm.submit(a_job("1", blocked=("good",)))
    farm.submit(a_job("1"))
    failing, busy = farm.order(bad), farm.order(good)
    farm.change(0, unblock=("good",))
    farm.exited(bad, failing.key, badly())
    farm.wait(100)
    assert farm.orders(bad) == []
    assert farm.states(0) == {1: "WAITING"}
    farm.exited(good, busy.key)
    assert farm.order(good).key == (0, 0, 0, 2)


def test_frames_behind_one_that_avoids_the_free_slave_are_not_held_up(farm: CoreFarm) -> None:
    bad, good = farm.link("bad", cores=1), farm.link("good", cores=1)
    farm.submit(a_job("1-3"))
    first, second = farm.order(bad), farm.order(good)
    farm.verb(0, "stop")
    farm.exited(bad, first.key, badly())
    farm.wait(5)
    farm.verb(0, "continue")
    assert farm.order(bad).start == 3, "frame 1 waits for the other slave"
    farm.exited(good, second.key)
    assert farm.order(good).key == (0, 0, 0, 2)


@pytest.mark.parametrize("why", ["alone", "unlinked", "disabled", "pool", "too small"])
def test_it_falls_back_to_the_same_slave_where_no_other_could_ever_run_it(farm: CoreFarm, why: str) -> None:
    link = farm.link("bad", cores=4)
    farm.submit(a_job("1"))
    if why == "unlinked":
        farm.unlink(farm.link("other"))
    elif why == "disabled":
        farm.link("other", limits=SlaveLimits(enabled=False))
    elif why == "pool":
        farm.link("other", limits=SlaveLimits(pools=("gpu",)))
    elif why == "too small":
        farm.link("other", limits=SlaveLimits(max_cpus=0))
    farm.fail_all(link)
    farm.wait(5)
    assert farm.order(link).key.attempt == 2


def test_a_slave_that_comes_is_preferred_to_the_one_it_failed_on(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.fail_all(link)
    other = farm.link("other", cores=1)
    farm.wait(5)
    assert farm.orders(link) == []
    assert farm.order(other).key.attempt == 2


def test_what_a_frame_avoids_survives_a_restart(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.fail_all(link)
    farm.restart()
    link = farm.link(limits=SlaveLimits(enabled=False))
    other = farm.link("other")
    assert farm.order(other).key.attempt == 2
    assert farm.frames()[1].requeued == 1


def test_all_frames_that_avoid_each_slave_still_end(farm: CoreFarm) -> None:
    links = [farm.link("a", cores=1), farm.link("b", cores=1)]
    job = farm.submit(a_job("1-4", layer={"retries": 3}))
    for _ in range(40):
        for link in links:
            farm.fail_all(link)
        farm.wait(300)
    assert farm.state_set(job) == {"FAILED"}


# -- kill -------------------------------------------------------------------------------------------------


def test_kills_are_counted_with_failures_up_to_failed(farm: CoreFarm) -> None:
    """`requeued` alone decides: the kill that finds it at the retries makes the frame FAILED."""
    link = a_frame(farm, retries=2)
    farm.fail_all(link)
    farm.wait(5)
    for requeued in (2, 2):
        key = farm.order(link).key
        assert farm.frame(0, "kill", "1") == 1
        assert farm.stops(link)[-1] == (key, "kill")
        assert farm.frames()[1].stop == "kill"
        farm.exited(link, key, badly(reason="stopped"))
        assert farm.frames()[1].requeued == requeued
    assert farm.states() == {1: "FAILED"}
    assert farm.outcomes() == ["failed", "killed", "killed"]


def test_a_killed_frame_starts_again_at_once_and_anywhere(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.frame(0, "kill", "1")
    farm.exited(link, farm.order(link).key, badly())
    assert farm.order(link).key.attempt == 2


def test_a_kill_at_the_slave_itself_counts_too(farm: CoreFarm) -> None:
    link = a_frame(farm, retries=1)
    for state in ("ASSIGNED", "FAILED"):
        farm.exited(link, farm.order(link).key, Exit(reason=KILLED))
        assert farm.states() == {1: state}


def test_killing_twice_stops_once(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.frame(0, "kill", "1")
    farm.frame(0, "kill", "1")
    assert len(farm.stops(link)) == 1


def test_killing_what_does_not_run_changes_nothing(farm: CoreFarm) -> None:
    farm.submit(a_job("1-3"))
    assert farm.frame(0, "kill", "1-3") == 0
    assert farm.state_set() == {"WAITING"}


def test_a_kill_wish_is_kept_over_a_restart(farm: CoreFarm) -> None:
    link = a_frame(farm)
    key = farm.order(link).key
    farm.frame(0, "kill", "1")
    farm.restart()
    link = farm.link(held=[Held(key)])
    assert farm.stops(link) == [(key, "kill")]
    farm.exited(link, key, badly())
    assert farm.frames()[1].requeued == 1


# -- requeue ----------------------------------------------------------------------------------------------


def test_requeue_of_ended_frames(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-3", layer={"retries": 0}))
    farm.exited(link, farm.order(link).key)
    farm.exited(link, farm.order(link).key, badly())
    farm.exited(link, farm.order(link).key)
    assert farm.states() == {1: "DONE", 2: "FAILED", 3: "DONE"}
    assert farm.frame(0, "requeue", "1-2") == 2
    assert farm.job().state == "ACTIVE"
    order = farm.order(link)
    assert (order.start, order.key.attempt) == (1, 2)
    farm.restart()
    link = farm.link(cores=1, held=[Held(order.key)])
    farm.exited(link, order.key)
    assert farm.order(link).key == (0, 0, 1, 2)


def test_requeue_gives_fresh_retries_and_forgives_slaves(farm: CoreFarm) -> None:
    link = a_frame(farm, retries=0)
    farm.link("other", limits=SlaveLimits(pools=("else",)))
    farm.fail_all(link)
    assert farm.states() == {1: "FAILED"}
    farm.frame(0, "requeue", "1")
    assert farm.frames()[1].requeued == 0
    assert farm.order(link).key.attempt == 2


def test_requeue_of_a_running_frame_runs_it_once_more_afterwards(farm: CoreFarm) -> None:
    link = a_frame(farm)
    key = farm.order(link).key
    assert farm.frame(0, "requeue", "1") == 1
    assert farm.frame(0, "requeue", "1") == 1
    assert farm.stops(link) == []
    assert farm.frames()[1].stop == "requeue"
    farm.exited(link, key)
    again = farm.order(link).key
    assert again.attempt == 2
    farm.exited(link, again)
    assert farm.outcomes() == ["requeued", "done"]
    assert farm.states() == {1: "DONE"}


def test_a_frame_requeued_while_it_runs_has_fresh_retries_afterwards(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.fail_all(link)
    farm.wait(5)
    key = farm.order(link).key
    assert farm.frames()[1].requeued == 1
    farm.frame(0, "requeue", "1")
    farm.exited(link, key, badly())
    assert farm.frames()[1].requeued == 0
    assert farm.order(link).key.attempt == 3


def test_attempt_numbers_go_on_when_a_frame_is_requeued_after_a_restart(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.exited(link, farm.order(link).key)
    farm.restart()
    farm.frame(0, "requeue", "1")
    assert farm.order(farm.link()).key.attempt == 2


def test_requeue_of_a_running_frame_survives_a_restart(farm: CoreFarm) -> None:
    link = a_frame(farm)
    key = farm.order(link).key
    farm.frame(0, "requeue", "1")
    farm.restart()
    link = farm.link(held=[Held(key, ended=True)])
    farm.exited(link, key)
    assert farm.order(link).key.attempt == 2


def test_requeue_now_kills_and_counts_nothing(farm: CoreFarm) -> None:
    link = a_frame(farm, retries=0)
    key = farm.order(link).key
    farm.frame(0, "requeue", "1", now=True)
    assert farm.stops(link) == [(key, "requeue")]
    farm.exited(link, key, badly(reason="stopped"))
    assert farm.order(link).key.attempt == 2
    assert farm.frames()[1].requeued == 0


def test_requeueing_many_frames_keeps_no_row_for_each(farm: CoreFarm) -> None:
    job = farm.submit(a_job("1-5000"))
    assert farm.frame(job, "finish", "1-4000") == 4000
    assert farm.job(job).counts.done == 4000
    assert farm.frame(job, "requeue", "1001-4000") == 3000
    assert not list(farm.storage.load().frames)
    farm.restart()
    counts = farm.job(job).counts
    assert (counts.done, counts.waiting) == (1000, 4000)


def test_attempt_numbers_go_on_after_many_frames_were_requeued(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-1500"))
    farm.exited(link, farm.order(link).key)
    waiting = farm.order(link).key
    farm.exited(link, waiting, badly(reason="lost"))
    farm.frame(0, "finish", "1-1500")
    farm.exited(link, farm.order(link).key)
    farm.frame(0, "requeue", "1-1500")
    farm.restart()
    link = farm.link(cores=1)
    assert farm.order(link).key.attempt > 2


# -- finish -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
def test_finish_of_a_running_frame_ignores_its_report_and_keeps_its_place(
    farm: CoreFarm, started: bool
) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-2", layer={"retries": 0}))
    key = farm.order(link).key
    if started:
        farm.started(link, key)
    assert farm.frame(0, "finish", "1") == 1
    assert farm.states() == {1: "DONE", 2: "WAITING"}
    assert farm.stops(link) == [(key, "finish")]
    assert farm.orders(link) == []
    assert farm.slave().cores_used == 1
    farm.restart()
    link = farm.link(cores=1, held=[Held(key)])
    assert farm.stops(link) == [(key, "finish")]
    assert farm.orders(link) == []
    if started:
        farm.started(link, key)
    farm.exited(link, key, badly())
    assert farm.noted(link) == [key]
    assert farm.outcomes() == ["superseded"]
    assert farm.states() == {1: "DONE", 2: "ASSIGNED"}


def test_finish_of_frames_that_wait_or_failed(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-3", layer={"retries": 0}))
    farm.exited(link, farm.order(link).key, badly())
    farm.verb(0, "stop")
    farm.exited(link, farm.order(link).key, badly(reason="lost"))
    assert farm.states() == {1: "FAILED", 2: "WAITING", 3: "WAITING"}
    assert farm.frame(0, "finish", "1-3") == 3
    assert farm.job().state == "FINISHED"
    farm.restart()
    assert farm.state_set() == {"DONE"}


def test_finish_of_a_frame_in_back_off(farm: CoreFarm) -> None:
    link = a_frame(farm)
    farm.fail_all(link)
    assert farm.frame(0, "finish", "1") == 1
    farm.wait(100)
    assert farm.orders(link) == []
    assert farm.states() == {1: "DONE"}


def test_a_finished_frame_requeued_waits_until_its_former_run_is_over(farm: CoreFarm) -> None:
    """P4: the frame counts as DONE, but its process may still run."""
    link = farm.link()
    farm.submit(a_job("1-2"))
    keys = farm.keys(link)
    farm.frame(0, "finish", "1")
    farm.frame(0, "requeue", "1")
    assert farm.states()[1] == "WAITING"
    assert farm.orders(link) == []
    assert farm.codes(0, 1) == ["ending"]
    farm.exited(link, keys[2])
    assert farm.codes(0) == ["ending"]
    farm.restart()
    link = farm.link(held=[Held(keys[1])])
    assert farm.orders(link) == []
    farm.exited(link, keys[1], badly())
    assert farm.order(link).key == (0, 0, 0, 2)


# -- naming frames ----------------------------------------------------------------------------------------


def test_any_number_inside_a_chunk_names_it(farm: CoreFarm) -> None:
    farm.submit(a_job("1-20", layer={"chunk": 5}))
    assert farm.frame(0, "finish", "3,8,9") == 2
    assert farm.states() == {1: "DONE", 6: "DONE", 11: "WAITING", 16: "WAITING"}


def test_numbers_that_fit_nowhere_are_counted_or_refused(farm: CoreFarm) -> None:
    farm.submit(a_job("1-9x2"))
    answer = farm.ask(FrameVerb(rq=0, job=0, verb="finish", frames="1-5"))
    assert (answer.count, answer.note[:1]) == (3, "2")  # type: ignore[attr-defined]
    for frames, code in (
        ("2", "no-such-frame"), ("2-20x4", "no-such-frame"), ("1-", "bad-range"), ("", "bad-range"),
        ("1,3-2000000", "bad-range"),
    ):  # fmt: skip
        refusal = farm.refusal(FrameVerb(rq=0, job=0, verb="finish", frames=frames))
        assert refusal.code == code, frames
    refusal = farm.refusal(FrameVerb(rq=0, job=0, layer="comp", verb="finish", frames="1"))
    assert (refusal.code, "main" in refusal.text) == ("no-such-layer", True)


def test_the_history_of_a_frame_is_asked_from_the_storage(farm: CoreFarm) -> None:
    farm.submit(a_job("1-20", layer={"chunk": 5}))
    farm.step(ClientAsked(1, ListAttempts(rq=1, job=0, number=8), ADMIN))
    (asked,) = farm.asked_history
    assert (asked.layer, asked.number) == (0, 6)


@pytest.mark.parametrize("frames", ["1-20", "1-20x3", "20-1", "20-1x2", "-9-9x2", "7", "1-19x6"])
@pytest.mark.parametrize("wanted", ["1-10", "10-1", "4-19x3", "19-4x3", "5-15x2", "-20-40", "7", "0-9x4"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_range_of_frames_means_each_of_its_numbers(
    farm: CoreFarm, frames: str, wanted: str, chunk: int
) -> None:
    farm.submit(a_job(frames, layer={"chunk": chunk}))
    layer = farm.core.state.jobs[0].layers[0]
    hit = {layer.chunks.chunk_of(number) for number in FrameRange.parse(wanted)} - {None}
    missing = sum(number not in layer.range for number in FrameRange.parse(wanted))
    answer: Any = farm.ask(FrameVerb(rq=0, job=0, verb="finish", frames=wanted))
    if not hit:
        assert answer.code == "no-such-frame"
        return
    assert answer.count == len(hit)
    note = f"{missing} of the numbers are not in the job's range" if missing else ""
    assert answer.note == note
    assert set(layer.done) == hit


@pytest.mark.parametrize("frames", ["2-9999999", "9999999-2", "1-9999999x3"])
def test_ten_million_frames_are_named_without_looking_each_up(
    frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = CoreFarm()
    farm.submit_unchecked(a_job("1-10000000x3" if "x" in frames else "1-10000000"))
    looked_up: list[int] = []
    chunk_of = Chunks.chunk_of

    def counted(chunks: Chunks, number: int) -> int | None:
        looked_up.append(number)
        return chunk_of(chunks, number)

    monkeypatch.setattr(Chunks, "chunk_of", counted)
    request = FrameVerb(rq=1, job=0, verb="finish", frames=frames)
    assert farm.core.step([ClientAsked(1, request, ADMIN)], farm.now).do
    assert len(farm.core.state.jobs[0].layers[0].done) > 3_000_000
    assert len(looked_up) <= 2


def test_frames_in_many_pieces_are_named_up_to_a_bound() -> None:
    farm = CoreFarm()
    farm.submit_unchecked(a_job("1-100000"))
    layer = farm.core.state.jobs[0].layers[0]
    for frames, done in (("1-40002x2", 0), ("1-40000x2", 20_000), ("2-100,5-1000x5", 20_140)):
        request = FrameVerb(rq=1, job=0, verb="finish", frames=frames)
        effects = farm.core.step([ClientAsked(1, request, ADMIN)], farm.now).do
        (answer,) = [effect for effect in effects if isinstance(effect, Answer)]
        assert len(layer.done) == done
        assert isinstance(answer.message, Refusal) == (done == 0)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=8),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=8),
)
def test_what_stretches_have_in_common(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    first, second = ({i for start, size in each for i in range(start, start + size)} for each in (one, two))
    runs = []
    for members in (first, second):
        kept = IntervalSet()
        for index in members:
            kept.add(index)
        runs.append(list(kept.intervals()))
    found = [i for start, end in jobs.common(*runs) for i in range(start, end)]
    assert found == sorted(first & second)
    assert {i for i in range(40) if jobs._holds(runs[0], i)} == first
