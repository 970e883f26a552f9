"""Slaves on which frames fail and jobs whose frames fail: who is kept from whom, and what stops."""

from typing import Any

import pytest

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.events import SlaveSaid
from drqueue.master.core.slave import Failure
from drqueue.master.core.trouble import MYSELF
from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import LimitsNow
from drqueue.proto.messages import SlaveVerb
from drqueue.proto.model import Exit, MachineInfo, SlaveLimits
from tests.builders import WALL, CoreFarm, a_job, badly, well

HOUR = 3600.0


@pytest.fixture
def farm() -> CoreFarm:
    """Failed frames are tried again at once."""
    return CoreFarm(Policy(farm="farm", epoch=1, software="test", backoff=Backoff(0.001, 0.001)))


def failed(farm: CoreFarm, link: int, keys: list[AttemptKey], result: Exit | None = None) -> None:
    """These fail."""
    for key in keys:
        farm.exited(link, key, result or badly())


def keys(farm: CoreFarm, link: int, job: int) -> list[AttemptKey]:
    """What a slave was told to run of a job, since last asked."""
    return [order.key for order in farm.orders(link) if order.key.job == job]


def fails_on(farm: CoreFarm, link: int, owner: str, count: int = 1, **fields: Any) -> int:
    """Somebody's job of which so many frames fail there; it is stopped then."""
    job = farm.submit(a_job(f"1-{count}", owner=owner, **fields))
    for _ in range(count):
        (key,) = keys(farm, link, job)
        farm.exited(link, key, badly())
    farm.verb(job, "stop")
    return job


# -- a job and a slave -------------------------------------------------------------------------------------


def test_after_three_failures_a_job_avoids_a_slave_for_an_hour(farm: CoreFarm) -> None:
    bad, good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99"))
    for _ in range(3):
        failed(farm, bad, keys(farm, bad, job))
    assert farm.orders(bad) == []
    assert len(farm.orders(good)) == 1
    state = farm.core.state
    assert state.jobs[job].avoids == {0: pytest.approx(farm.now + HOUR)}
    other = farm.submit(a_job("1", priority=1))
    (key,) = keys(farm, bad, other)
    farm.exited(bad, key)
    farm.wait(HOUR - 1)
    assert farm.orders(bad) == []
    farm.wait(2)
    assert len(keys(farm, bad, job)) == 1
    assert not state.forgives


def test_the_end_of_avoiding_wakes_the_core(farm: CoreFarm) -> None:
    bad, good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99"))
    for _ in range(3):
        failed(farm, bad, keys(farm, bad, job))
    farm.wait(1)
    assert farm.core.next_wakeup() == pytest.approx(farm.now - 1 + HOUR, abs=0.1)
    farm.exited(good, farm.orders(good)[0].key)


def test_a_success_begins_the_count_anew_and_ends_avoiding(farm: CoreFarm) -> None:
    bad, _good = farm.link("bad", cores=2), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99"))
    first, second = keys(farm, bad, job)
    failed(farm, bad, [first])
    (third,) = keys(farm, bad, job)
    farm.exited(bad, third)
    failed(farm, bad, [second])
    failed(farm, bad, keys(farm, bad, job)[:1])
    assert farm.core.state.jobs[job].avoids == {}
    one, two = (a.key for a in farm.core.state.slaves[0].live.values())
    failed(farm, bad, [one])
    assert set(farm.core.state.jobs[job].avoids) == {0}
    farm.orders(bad)
    farm.exited(bad, two)
    assert farm.core.state.jobs[job].avoids == {}
    assert len(keys(farm, bad, job)) == 2


def test_a_deadline_that_was_overtaken_ends_no_later_avoiding(farm: CoreFarm) -> None:
    link, _good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99"))
    state = farm.core.state
    for _ in range(3):
        failed(farm, link, keys(farm, link, job))
    farm.slave_verb("bad", "heal")
    farm.wait(600)
    for _ in range(3):
        failed(farm, link, keys(farm, link, job))
    until = farm.now + HOUR
    assert state.jobs[job].avoids == {0: until}
    farm.wait(HOUR - 1)
    assert state.jobs[job].avoids == {0: until}
    farm.wait(2)
    assert state.jobs[job].avoids == {}


@pytest.mark.parametrize("avoid_after", [0, 1, 2])
def test_how_many_failures_it_takes_is_set(avoid_after: int) -> None:
    farm = CoreFarm(Policy(avoid_after=avoid_after, sick_after=0, forgive_s=7.0))
    bad, _good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99"))
    for _ in range(avoid_after or 9):
        assert not farm.core.state.jobs[job].avoids
        failed(farm, bad, keys(farm, bad, job))
    assert farm.core.state.jobs[job].avoids == ({0: farm.now + 7} if avoid_after else {})


def test_a_job_does_not_avoid_all_that_could_run_it(farm: CoreFarm) -> None:
    """Nor where the others cannot run it, are away, disabled or blocked, be that so now or later."""
    bad = farm.link("bad", cores=1)
    farm.link("small", cores=1, limits=SlaveLimits(pools=("x",)))
    job = farm.submit(a_job("1-99", blocked=("blocked",)))
    farm.link("blocked", cores=1)
    for _ in range(3):
        failed(farm, bad, keys(farm, bad, job))
    assert set(farm.core.state.jobs[job].avoids) == {0}
    assert len(keys(farm, bad, job)) == 1


def leaves(farm: CoreFarm, link: int, how: str) -> None:
    """A slave takes no frames any more."""
    if how == "unlinked":
        farm.unlink(link)
        return
    limits = {
        "disabled": SlaveLimits(enabled=False),
        "in other pools": SlaveLimits(pools=("x",)),
        "without cores": SlaveLimits(max_cpus=0),
    }
    farm.step(SlaveSaid(link, LimitsNow(limits=limits[how])))


@pytest.mark.parametrize("how", ["unlinked", "disabled", "in other pools", "without cores"])
def test_a_job_tries_again_where_it_failed_once_all_others_are_gone(farm: CoreFarm, how: str) -> None:
    bad, good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99"))
    for _ in range(3):
        failed(farm, bad, keys(farm, bad, job))
    farm.step()
    assert farm.orders(bad) == []
    leaves(farm, good, how)
    assert len(keys(farm, bad, job)) == 1


@pytest.mark.parametrize("how", ["unlinked", "disabled", "in other pools", "without cores"])
def test_a_frame_tries_again_where_it_failed_once_all_others_are_gone(farm: CoreFarm, how: str) -> None:
    bad, good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-2"))
    failed(farm, bad, keys(farm, bad, job))
    farm.wait(1)
    assert farm.orders(bad) == []
    leaves(farm, good, how)
    assert len(keys(farm, bad, job)) == 1


def test_what_is_nobodys_failure_counts_nowhere(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    other = farm.link("other", cores=1)
    for owner in "ab":
        job = farm.submit(a_job("1-9", owner=owner, max_failures=1))
        for reason in ("lost", "keeper-died", "stopped", "shutdown", "lease", "killed"):
            failed(farm, link, keys(farm, link, job), Exit(reason=reason))
        farm.verb(job, "hard-stop")
        (attempt,) = farm.core.state.slaves[0].live
        failed(farm, link, [attempt], Exit(signal=9))
        state = farm.core.state.jobs[job]
        assert (state.failures, state.failed_on, state.avoids, state.stopped_for) == (0, {}, {}, "")
        for key in list(farm.core.state.slaves[1].live):
            failed(farm, other, [key], Exit(signal=15, reason="stopped"))
    assert farm.core.state.slaves[0].streak == []


def test_memory_that_ran_out_is_the_frames_failure_and_no_sign_of_a_sick_slave(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    for owner in "abc":
        job = farm.submit(a_job("1-2", owner=owner))
        for _ in range(2):
            (key,) = keys(farm, link, job)
            farm.exited(link, key, Exit(signal=9, reason="oom"))
        farm.verb(job, "stop")
    slave = farm.core.state.slaves[0]
    assert (slave.sick, slave.streak) == ("", [])
    assert farm.core.state.jobs[job].failures == 2
    assert farm.core.state.jobs[job].failed_on == {slave.id: 2}


# -- sick slaves -------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_of_two_users_make_a_slave_sick(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    fails_on(farm, link, "anna", 4)
    assert farm.slave().sick == ""
    job = fails_on(farm, link, "ben")
    view = farm.slave()
    sentence = f"5 frames of 2 users failed on it in a row, the last of job {job}: exit 1"
    assert (view.state, view.sick) == ("sick", sentence)
    assert farm.storage.load().slaves[0].sick == sentence  # type: ignore[index]
    (warned,) = farm.warned
    assert warned.text == "slave is sick, and gets no new frames"
    assert dict(warned.fields) == {"slave": "s1", "because": sentence}
    row = next(row for row in farm.audited() if "sick" in row.what)
    assert (row.who, row.what, row.outcome) == (MYSELF.name, "slave s1: sick, and gets no new frames", "done")
    assert row.text == sentence
    farm.published.clear()
    new = farm.submit(a_job("1"))
    assert farm.orders(link) == []
    assert farm.codes(new) == ["sick"]
    assert farm.published[0].jobs == {new}


def test_failures_of_one_user_make_no_slave_sick(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    for _ in range(4):
        fails_on(farm, link, "anna", 3)
    assert farm.slave().sick == ""
    fails_on(farm, link, "ben")
    assert farm.slave().sick.startswith("5 frames of 2 users")


def test_a_success_in_between_makes_a_slave_well(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    fails_on(farm, link, "anna", 4)
    farm.submit(a_job("1", owner="carl"))
    farm.render_all(link)
    fails_on(farm, link, "ben", 4)
    assert farm.slave().sick == ""
    fails_on(farm, link, "anna")
    assert farm.slave().sick != ""


@pytest.mark.parametrize(("sick_after", "sick"), [(0, False), (3, True), (4, False)])
def test_how_many_make_it_sick_is_set(sick_after: int, sick: bool) -> None:
    farm = CoreFarm(Policy(sick_after=sick_after))
    link = farm.link(cores=1)
    for owner in ("a", "b", "c"):
        fails_on(farm, link, owner)
    assert bool(farm.slave().sick) is sick


def test_what_runs_on_a_sick_slave_goes_on(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    long = farm.submit(a_job("1", owner="carl"))
    (running,) = keys(farm, link, long)
    fails_on(farm, link, "anna", 4)
    fails_on(farm, link, "ben")
    assert farm.slave().sick
    assert farm.stops(link) == []
    farm.exited(link, running)
    assert farm.states(long) == {1: "DONE"}
    assert farm.slave().state == "sick"


def test_two_bad_jobs_do_not_take_a_whole_farm(farm: CoreFarm) -> None:
    """Their frames fail wherever they go: that is no slave's fault."""
    links = [farm.link(f"s{number}", cores=2) for number in range(4)]
    for owner in ("anna", "ben"):
        farm.submit(a_job("1-40", owner=owner, layer={"retries": 2}))
    while sum(farm.fail_all(link) for link in links):
        farm.wait(1)
    assert [slave.sick for slave in farm.core.state.slaves.values()] == [""] * 4
    assert farm.job(0).counts.failed == 40


def test_frames_that_fail_wherever_they_go_make_no_slave_sick(farm: CoreFarm) -> None:
    """Of jobs whose other frames are fine: the second slave that a frame fails on is not doubted for it."""
    links = [farm.link(name, cores=1) for name in ("one", "two")]
    for number in range(8):
        job = farm.submit(a_job("1-2", owner=f"user{number % 2}", layer={"retries": 1}))
        while farm.job(job).state != "FINISHED":
            farm.wait(1)
            for link in links:
                for order in farm.orders(link):
                    farm.exited(link, order.key, badly() if order.start == 2 else None)
                    assert len(farm.core.state.slaves[0].streak) <= 1
        assert farm.outcomes(job, 2) == ["failed", "failed"]
    assert [slave.sick for slave in farm.core.state.slaves.values()] == ["", ""]


def test_the_second_slave_that_a_frame_fails_on_is_never_doubted_for_it(farm: CoreFarm) -> None:
    one = farm.link("one", cores=1)
    for number in range(7):
        job = farm.submit(a_job("1-2", owner=f"user{number % 2}", layer={"retries": 1}))
        farm.exited(one, *keys(farm, one, job))
        failed(farm, one, keys(farm, one, job))
        other = farm.link("two", cores=1)
        farm.wait(1)
        failed(farm, other, keys(farm, other, job))
        assert farm.job(job).state == "FINISHED"
        assert [slave.streak for slave in farm.core.state.slaves.values()] == [[], []]
        farm.unlink(other)


def sick_slave(farm: CoreFarm, name: str = "s1", **fields: Any) -> int:
    """The link of a slave that is sick."""
    link = farm.link(name, cores=1, **fields)
    fails_on(farm, link, "anna", 4)
    fails_on(farm, link, "ben")
    assert farm.slave(name).sick
    return link


def test_a_sick_slave_is_healed_by_a_supervisor_while_it_is_linked(farm: CoreFarm) -> None:
    link = sick_slave(farm)
    job = farm.submit(a_job("1"))
    answer: Any = farm.ask(SlaveVerb(rq=0, slave="s1", verb="heal"))
    assert (answer.count, answer.note) == (1, "")
    assert (farm.slave().sick, farm.slave().state) == ("", "busy")
    assert len(keys(farm, link, job)) == 1
    assert farm.storage.load().slaves[0].sick == ""  # type: ignore[index]
    assert farm.audited()[-1].what == "slave s1: heal"
    again: Any = farm.ask(SlaveVerb(rq=0, slave="s1", verb="heal"))
    assert (again.count, again.note) == (0, "slave s1 was not sick")


def test_healing_forgives_a_slave_with_all_jobs_and_begins_its_count_anew(farm: CoreFarm) -> None:
    bad, _good = farm.link("bad", cores=1), farm.link("good", cores=1)
    job = farm.submit(a_job("1-99", owner="anna"))
    for _ in range(3):
        failed(farm, bad, keys(farm, bad, job))
    assert farm.orders(bad) == []
    assert farm.slave_verb("bad", "heal") == 0
    assert len(keys(farm, bad, job)) == 1
    assert farm.core.state.slaves[0].streak == []


def test_sickness_survives_a_restart_and_a_link_and_ends_with_a_reboot(farm: CoreFarm) -> None:
    link = sick_slave(farm)
    sentence = farm.slave().sick
    link = farm.relink(link)
    assert farm.slave().sick == sentence
    farm.restart()
    assert farm.slave().sick == sentence
    link = farm.link()
    job = farm.submit(a_job("1"))
    assert farm.orders(link) == []
    link = farm.relink(link, machine=MachineInfo(hostname="s1", os="linux", boot_id=""))
    assert farm.slave().sick == sentence
    farm.relink(link, machine=MachineInfo(hostname="s1", os="linux", boot_id="boot-1"))
    assert farm.slave().sick == sentence
    (link,) = farm.core.state.links
    link = farm.relink(link, machine=MachineInfo(hostname="s1", os="linux", boot_id="boot-2"))
    assert farm.slave().sick == ""
    assert len(keys(farm, link, job)) == 1
    assert any(row.what == "slave s1: healed" and row.text for row in farm.audited())


# -- jobs that stop by themselves --------------------------------------------------------------------------


def test_a_job_stops_by_itself_and_goes_on_with_a_fresh_count(farm: CoreFarm) -> None:
    link = farm.link(cores=4)
    job = farm.submit(a_job("1-99", max_failures=3, name="boom"))
    running = keys(farm, link, job)
    failed(farm, link, running[:2])
    assert farm.job(job).state == "ACTIVE"
    more = keys(farm, link, job)
    failed(farm, link, [running[2]], badly(text="no such texture"))
    view = farm.job(job)
    sentence = "3 attempts failed, and max_failures is 3; the last: frame 3 on s1: no such texture"
    assert (view.state, farm.core.state.jobs[job].stopped_for) == ("STOPPED", sentence)
    assert (farm.orders(link), farm.stops(link)) == ([], [])
    assert [r.code for r in farm.why(job)] == ["max-failures"]
    assert sentence in farm.why(job)[0].text
    row = farm.audited()[-1]
    assert (row.who, row.what, row.text) == (MYSELF.name, f"stop job {job} 'boom'", sentence)
    assert dict(farm.warned[-1].fields) == {"job": job, "because": sentence}
    failed(farm, link, [running[3]])
    assert farm.core.state.jobs[job].failures == 4
    for key in more:
        farm.exited(link, key)
    farm.restart()
    assert farm.core.state.jobs[job].stopped_for == sentence
    assert farm.core.state.jobs[job].failures == 4
    link = farm.link(cores=4)
    farm.verb(job, "continue")
    known = farm.core.state.jobs[job]
    assert (known.stopped, known.stopped_for, known.failures) == (False, "", 0)
    farm.restart()
    assert farm.core.state.jobs[job].failures == 0


def test_the_count_begins_anew_with_a_rerun(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    job = farm.submit(a_job("1-9", max_failures=3))
    for _ in range(2):
        failed(farm, link, keys(farm, link, job))
    farm.verb(job, "rerun")
    failed(farm, link, list(farm.core.state.slaves[0].live), Exit(signal=9))
    assert farm.core.state.jobs[job].failures == 0
    for _ in range(2):
        failed(farm, link, keys(farm, link, job)[-1:])
    assert farm.job(job).state != "STOPPED"
    failed(farm, link, keys(farm, link, job)[-1:])
    assert farm.job(job).state == "STOPPED"


def test_a_job_that_somebody_stopped_is_said_to_be_stopped_by_hand(farm: CoreFarm) -> None:
    link = farm.link(cores=4)
    job = farm.submit(a_job("1-9", max_failures=2))
    farm.verb(job, "stop")
    farm.fail_all(link)
    assert farm.codes(job) == ["stopped"]
    farm.verb(job, "continue")
    assert farm.core.state.jobs[job].failures == 0


def test_a_job_is_not_stopped_by_its_very_last_failure(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    job = farm.submit(a_job("1", max_failures=1, layer={"retries": 0}))
    failed(farm, link, keys(farm, link, job))
    assert (farm.job(job).state, farm.core.state.jobs[job].stopped) == ("FINISHED", False)


@pytest.mark.parametrize(
    ("result", "how"),
    [
        (badly(7), "exit 7"),
        (Exit(signal=11), "signal 11"),
        (Exit(reason="timeout"), "timeout"),
        (Exit(reason="no-cwd", text="it is gone"), "it is gone"),
        (Exit(code=1, text="x" * 400), "x" * 119 + "…"),
    ],
)
def test_how_the_last_one_failed_is_told_in_a_few_words(farm: CoreFarm, result: Exit, how: str) -> None:
    link = farm.link(cores=1)
    job = farm.submit(a_job("1-2", max_failures=1))
    failed(farm, link, keys(farm, link, job), result)
    assert farm.core.state.jobs[job].stopped_for.endswith(f": frame 1 on s1: {how}")


def test_frames_sent_ahead_are_taken_back_from_a_slave_that_its_job_avoids(farm: CoreFarm) -> None:
    link, _other = farm.link(cores=4), farm.link("other", cores=1)
    job = farm.submit(a_job("1-99", owner="anna"))
    brief = well(ended_at=WALL + 0.1)
    slave = farm.core.state.slaves[0]
    while not slave.ahead:
        farm.exited(link, next(iter(slave.live)), brief)
    for _ in range(3):
        farm.exited(link, next(key for key, a in slave.live.items() if not a.ahead), badly())
    assert 0 in farm.core.state.jobs[job].avoids
    waiting = set(slave.ahead)
    assert waiting
    assert waiting <= {key for key, why in farm.stops(link) if why == "taken back"}


def test_frames_sent_ahead_are_taken_back_from_a_slave_that_falls_sick(farm: CoreFarm) -> None:
    link = farm.link(cores=4)
    farm.submit(a_job("1-99", owner="anna"))
    brief = well(ended_at=WALL + 0.1)
    slave = farm.core.state.slaves[0]
    while len(slave.ahead) < 4:
        farm.exited(link, next(iter(slave.live)), brief)
    slave.streak.append(Failure(77, 0, 0, "ben"))
    for _ in range(4):
        farm.exited(link, next(key for key, a in slave.live.items() if not a.ahead), badly())
    assert slave.sick
    waiting = set(slave.ahead)
    assert waiting
    assert waiting <= {key for key, why in farm.stops(link) if why == "taken back"}
