"""Who runs next, and where: priorities, turns, limits, needs; and `why`, which must say the same."""

import math
from collections import Counter

import pytest

from drqueue.master.core.events import SlaveSaid
from drqueue.proto.link_messages import Status
from drqueue.proto.messages import ChangeJob, Done, GetSlave, Submit
from drqueue.proto.model import JobChange, MachineInfo, MachineLoad, Needs, SlaveLimits
from tests.builders import CoreFarm, a_job, a_layer, badly, well


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def jobs_of(farm: CoreFarm, link: int) -> list[int]:
    return [order.key.job for order in farm.orders(link)]


# -- which job --------------------------------------------------------------------------------------------


def test_higher_priority_goes_first(farm: CoreFarm) -> None:
    for priority in (5, 2**32 - 1, 0, 500):
        farm.submit(a_job("1", priority=priority))
    assert jobs_of(farm, farm.link()) == [1, 3, 0, 2]


def test_equals_take_turns(farm: CoreFarm) -> None:
    for _ in range(3):
        farm.submit(a_job("1-9"))
    assert Counter(jobs_of(farm, farm.link(cores=9))) == {0: 3, 1: 3, 2: 3}


def test_turns_go_on_over_many_passes(farm: CoreFarm) -> None:
    """One place that is free now and then is shared as well."""
    for _ in range(3):
        farm.submit(a_job("1-9"))
    link, served = farm.link(cores=1), list[int]()
    for _ in range(9):
        order = farm.order(link)
        served.append(order.key.job)
        farm.exited(link, order.key)
    assert served == [0, 1, 2] * 3


def test_a_new_job_among_equals_gets_one_turn_not_all(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-99"))
    for _ in range(20):
        farm.exited(link, farm.order(link).key)
    farm.submit(a_job("1-99"))
    served = []
    for _ in range(6):
        order = farm.order(link)
        served.append(order.key.job)
        farm.exited(link, order.key)
    assert sorted(served[1:5]) == [0, 0, 1, 1]


def test_a_job_that_cannot_run_holds_nobody_up(farm: CoreFarm) -> None:
    farm.submit(a_job("1-2", priority=999, pool="gpu"))
    farm.submit(a_job("1-2", priority=1))
    assert jobs_of(farm, farm.link()) == [1, 1]


def test_frames_go_in_the_order_of_their_range(farm: CoreFarm) -> None:
    farm.submit(a_job("9,1,5-3"))
    assert [order.start for order in farm.orders(farm.link(cores=5))] == [9, 1, 5, 4, 3]


# -- limits of the job ------------------------------------------------------------------------------------


def test_max_running(farm: CoreFarm) -> None:
    links = [farm.link("a"), farm.link("b")]
    farm.submit(a_job("1-9", max_running=3))
    orders = [order for link in links for order in farm.orders(link)]
    assert len(orders) == 3
    assert farm.codes() == ["max-running"]
    farm.exited(links[0], orders[0].key)
    assert sum(len(farm.orders(link)) for link in links) == 1
    farm.change(max_running=0)
    assert sum(len(farm.orders(link)) for link in links) == 5


def test_max_per_slave(farm: CoreFarm) -> None:
    a = farm.link("a")
    farm.submit(a_job("1-9", max_per_slave=2))
    orders = farm.orders(a)
    assert len(orders) == 2
    assert farm.codes() == ["max-per-slave"]
    assert len(farm.orders(farm.link("b"))) == 2
    farm.exited(a, orders[0].key, badly())
    assert len(farm.orders(a)) == 1


def test_a_stopping_run_keeps_its_place_in_max_per_slave(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-3", max_per_slave=1))
    key = farm.order(link).key
    farm.frame(0, "finish", "1")
    assert farm.orders(link) == []
    farm.exited(link, key)
    assert farm.order(link).start == 2


# -- needs of the layer, offers of the slave, and what `why` says of each ----------------------------------


def test_places_are_cores_and_all_come_back(farm: CoreFarm) -> None:
    farm.submit(a_job("1-9", layer={"needs": Needs(cores=3)}))
    link = farm.link(cores=8)
    orders = farm.orders(link)
    assert len(orders) == 2
    assert (farm.slave().cores, farm.slave().cores_used) == (8, 6)
    assert farm.codes() == ["cores"]
    farm.exited(link, orders[0].key)
    assert len(farm.orders(link)) == 1
    farm.render_all(link)
    farm.exited(link, orders[1].key)
    farm.render_all(link)
    assert farm.slave().cores_used == 3, "the one that was asked for above"


def test_memory_is_booked_and_comes_back(farm: CoreFarm) -> None:
    farm.submit(a_job("1-9", layer={"needs": Needs(memory_mb=3000)}))
    link = farm.link(cores=9, memory_mb=8192)
    orders = farm.orders(link)
    assert len(orders) == 2
    assert farm.slave().memory_used_mb == 6000
    assert farm.codes() == ["memory"]
    farm.exited(link, orders[0].key, badly())
    assert len(farm.orders(link)) == 1


def test_what_needs_no_memory_runs_where_none_is_left(farm: CoreFarm) -> None:
    link = farm.link(memory_mb=100)
    farm.submit(a_job("1", layer={"needs": Needs(memory_mb=100)}))
    farm.submit(a_job("1"))
    assert len(farm.orders(link)) == 2


def test_resources_are_booked_anew_after_a_restart(farm: CoreFarm) -> None:
    from drqueue.proto.link_messages import Held

    farm.submit(a_job("1-9", layer={"needs": Needs(cores=2, memory_mb=10)}))
    link = farm.link()
    keys = farm.keys(link)
    farm.restart()
    link = farm.link(held=[Held(key) for key in keys.values()])
    assert (farm.slave().cores_used, farm.slave().memory_used_mb) == (4, 20)
    assert farm.orders(link) == []
    farm.exited(link, keys[1])
    assert farm.order(link).start == 3


def test_the_tightest_fit_is_used_first(farm: CoreFarm) -> None:
    links = [farm.link("a", cores=4), farm.link("b", cores=2)]
    farm.submit(a_job("1-3"))
    assert [len(farm.orders(link)) for link in links] == [1, 2]


@pytest.mark.parametrize(
    ("code", "slave", "job"),
    [
        ("disabled", {"limits": SlaveLimits(enabled=False)}, {}),
        ("pool", {"limits": SlaveLimits(pools=("gpu", "night"))}, {}),
        ("pool", {"limits": SlaveLimits(pools=())}, {}),
        ("os", {}, {"layer": {"needs": Needs(os=("darwin", "windows"))}}),
        ("blocked", {}, {"blocked": ("s1",)}),
        ("blocked", {"machine": MachineInfo(hostname="h", os="linux")}, {"blocked": ("h",)}),
        ("blocked", {"machine": MachineInfo(hostname="h", os="linux")}, {"blocked": ("s1",)}),
        ("cores-never", {"cores": 4}, {"layer": {"needs": Needs(cores=5)}}),
        ("cores-never", {"limits": SlaveLimits(max_cpus=1)}, {"layer": {"needs": Needs(cores=2)}}),
        ("cores-never", {"limits": SlaveLimits(max_cpus=0)}, {}),
        ("memory-never", {"memory_mb": 99}, {"layer": {"needs": Needs(memory_mb=100)}}),
    ],
)
def test_an_unfit_slave_gets_nothing_and_why_says_so(
    farm: CoreFarm, code: str, slave: dict[str, object], job: dict[str, object]
) -> None:
    link = farm.link("s1", **slave)
    farm.submit(a_job("1", **job))  # type: ignore[arg-type]
    assert farm.orders(link) == []
    (reason,) = farm.why()
    assert (reason.code, reason.count) == (code, 1)
    assert reason.text.startswith("no slave is in pool" if code == "pool" else "slave s1, the only one of")
    assert farm.codes(0, 1) == [code]
    assert len(farm.orders(farm.link("fit", cores=8, limits=SlaveLimits(pools=("Default", "x"))))) == (
        0 if code == "os" else 1
    )


def test_os_is_one_of_those_wanted(farm: CoreFarm) -> None:
    farm.submit(a_job("1", layer={"needs": Needs(os=("darwin", "Linux"))}))
    assert len(farm.orders(farm.link())) == 1


def test_max_cpus_bounds_the_offer(farm: CoreFarm) -> None:
    farm.submit(a_job("1-9"))
    assert len(farm.orders(farm.link("a", cores=8, limits=SlaveLimits(max_cpus=2)))) == 2
    assert len(farm.orders(farm.link("b", cores=3, limits=SlaveLimits(max_cpus=64)))) == 3
    assert farm.slave("b").cores == 3


def loaded(farm: CoreFarm, link: int, load1: float) -> None:
    farm.step(SlaveSaid(link, Status(load=MachineLoad(load1=load1))))


@pytest.mark.parametrize(
    ("most", "load1", "places"),
    [
        (1.5, 1.4, 4),
        (1.5, 1.5, 3),
        (1.5, 4.6, 1),
        (1.5, 6.0, 0),
        (1.5, 60.0, 0),
        (0.0, 0.0, 0),
        (None, 60.0, 4),
    ],
)
def test_each_max_load_of_others_takes_a_core(
    farm: CoreFarm, most: float | None, load1: float, places: int
) -> None:
    link = farm.link(cores=4, limits=SlaveLimits(max_load=most))
    loaded(farm, link, load1)
    assert farm.slave().state == ("loaded" if places == 0 else "idle")
    farm.submit(a_job("1-9"))
    assert len(farm.orders(link)) == places
    assert farm.codes() == (["load"] if places < 4 else ["cores"])


def test_the_load_of_its_own_frames_keeps_no_slave_from_more(farm: CoreFarm) -> None:
    link = farm.link(cores=4, limits=SlaveLimits(max_load=1.0))
    loaded(farm, link, 0.0)
    farm.submit(a_job("1-9"))
    keys = farm.keys(link)
    for seconds in range(15, 301, 15):
        farm.wait(15)
        # As the system's own mean rises where four processes run and nothing else does.
        loaded(farm, link, 4 * (1 - math.exp(-seconds / 60)))
    for number in (1, 2, 3, 4):
        farm.exited(link, keys[number], well(started_at=1.0, ended_at=9.0))
        assert len(farm.orders(link)) == 1, number


def test_others_beside_its_own_frames_take_cores(farm: CoreFarm) -> None:
    link = farm.link(cores=4, limits=SlaveLimits(max_load=1.0))
    farm.submit(a_job("1-9"))
    keys = farm.keys(link)
    farm.wait(600)
    loaded(farm, link, 6.1)
    for number in (1, 2):
        farm.exited(link, keys[number], well(started_at=1.0, ended_at=9.0))
    assert farm.orders(link) == []
    assert farm.codes() == ["load"]
    farm.exited(link, keys[3], well(started_at=1.0, ended_at=9.0))
    assert len(farm.orders(link)) == 1


def test_what_waits_for_the_load_starts_when_it_falls(farm: CoreFarm) -> None:
    link = farm.link(cores=1, limits=SlaveLimits(max_load=2.0))
    loaded(farm, link, 2.0)
    farm.submit(a_job("1"))
    assert farm.orders(link) == []
    loaded(farm, link, 1.9)
    assert len(farm.orders(link)) == 1


def test_localhost_is_the_one_slave_of_this_machine(farm: CoreFarm) -> None:
    farm.link("near", control="unix:/near/control.sock")
    farm.link("far", control="10.0.0.7:2345")
    assert farm.slave("localhost").name == farm.slave("127.0.0.1").name == "near"
    farm.link("nearer", control="unix:/nearer/control.sock")
    assert farm.refusal(GetSlave(rq=0, slave="localhost")).code == "ambiguous-slave"


def test_blocking_a_host_that_nobody_knows_is_pointed_out(farm: CoreFarm) -> None:
    farm.link("s1")
    farm.submit(a_job("1"))
    answer = farm.ask(ChangeJob(rq=0, job=0, change=JobChange(block=("s1", "nosuch"))))
    assert isinstance(answer, Done)
    first, second = answer.note.split("; ")
    assert first == "no slave is called nosuch so far"
    assert second == "layer main can run nowhere: the only slave of pool Default is blocked for this job"


@pytest.mark.parametrize("pool", ["night shift", "a,b", "a/b", "x" * 64])
def test_a_pool_that_no_slave_can_be_in_is_refused(farm: CoreFarm, pool: str) -> None:
    farm.submit(a_job("1"))
    assert (
        "no pool is called" in farm.refusal(Submit(rq=0, token="a-token-x", spec=a_job("1", pool=pool))).text
    )
    assert farm.refusal(ChangeJob(rq=0, job=0, change=JobChange(pool=pool))).code == "bad-job"


def test_why_without_any_slave(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    assert farm.codes() == ["no-slaves"]


def test_why_with_slaves_out_of_reach(farm: CoreFarm) -> None:
    farm.unlink(farm.link("a"))
    farm.unlink(farm.link("b"))
    farm.slave_verb("b", "declare-dead")
    farm.submit(a_job("1"))
    assert farm.codes() == ["slaves", "lost", "unlinked"]


def test_why_counts_slaves_by_reason_most_first(farm: CoreFarm) -> None:
    """Of those outside its pool nothing is said."""
    for name in "ab":
        farm.link(name, limits=SlaveLimits(enabled=False))
    farm.unlink(farm.link("c"))
    farm.link("d", limits=SlaveLimits(pools=("x",)))
    farm.submit(a_job("1"))
    reasons = farm.why()
    assert [(r.code, r.count) for r in reasons] == [("slaves", 3), ("disabled", 2), ("unlinked", 1)]
    assert reasons[0].text == "3 slaves of pool Default: 2 disabled, 1 not linked"
    assert reasons[1].text == "2 of 3 slaves (a and b) are disabled"


def test_why_a_stopped_job_waits(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1-3", stopped=True))
    (reason,) = farm.why()
    assert (reason.code, reason.count) == ("stopped", 3)


def test_why_a_frame_that_runs_out_of_reach(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    assert farm.why(0, 1) == []
    farm.unlink(link)
    assert farm.codes(0, 1) == ["unreachable"]
    assert farm.codes(0) == ["unreachable"]


@pytest.mark.parametrize(
    ("job", "passed_s", "until"),
    [
        ({"lease_s": 1000.0}, 10, "when that slave's lease ends, in 19 min, or when it is declared dead"),
        ({"lease_s": 86400.0}, 10, "when that slave's lease ends, in 25 h, or when it is declared dead"),
        ({"on_unreachable": "requeue-fast"}, 15.5, "requeue-fast, in 45 s, or when it is declared dead"),
        ({"on_unreachable": "hold"}, 9e9, "only when that slave is declared dead"),
    ],
)
def test_why_says_until_when_an_unreachable_slave_is_waited_for(
    farm: CoreFarm, job: dict[str, object], passed_s: float, until: str
) -> None:
    link = farm.link()
    farm.submit(a_job("1", **job))  # type: ignore[arg-type]
    farm.unlink(link)
    farm.wait(passed_s)
    (reason,) = farm.why(0, 1)
    assert f"it goes elsewhere {until}" in reason.text or until in reason.text


def test_nothing_to_say_of_frames_that_ended(farm: CoreFarm) -> None:
    farm.submit(a_job("1-2"))
    farm.render_all(farm.link())
    assert farm.why() == farm.why(0, 2) == farm.why(0, layer="main") == []
    farm.verb(0, "stop")
    assert farm.why() == []


@pytest.mark.parametrize(
    ("frames", "said"),
    [("1", "nothing waits, but 1 frame failed"), ("1-2", "nothing waits, but 2 frames failed")],
)
def test_why_counts_failed_frames_in_good_english(farm: CoreFarm, frames: str, said: str) -> None:
    farm.submit(a_job(frames, layer={"retries": 0}))
    farm.fail_all(farm.link())
    (reason,) = farm.why()
    assert reason.text.startswith(said)


def test_why_a_job_waits_its_turn_while_the_master_stops(farm: CoreFarm) -> None:
    """A place is free, and only the next pass is missing."""
    from drqueue.master.core.events import Stopping

    farm.link()
    farm.step(Stopping(60))
    farm.submit(a_job("1"))
    (reason,) = farm.why(0)
    assert (reason.code, reason.text) == ("turn", "it waits for nothing but its turn")
    for waiting in ("1 job of higher priority (1 frame) goes", "2 jobs of higher priority (2 frames) go"):
        farm.submit(a_job("1", priority=900))
        (reason,) = farm.why(0)
        assert reason.text == f"it waits for nothing but its turn: {waiting} before it"
    assert (reason.code, reason.count) == ("turn", 2)


def test_a_layer_whose_slaves_are_missing_does_not_hold_the_next_one_up(farm: CoreFarm) -> None:
    layers = (a_layer("1", name="a", needs=Needs(cores=64)), a_layer("1", name="b"))
    farm.submit(a_job(layers=layers))
    assert farm.order(farm.link()).layer_name == "b"


def test_a_hundred_frames_that_avoid_the_only_free_slave_do_not_starve_another_job(farm: CoreFarm) -> None:
    bad, good = farm.link("bad", cores=100), farm.link("good", cores=1)
    farm.submit(a_job("1-100", blocked=("good",)))
    farm.change(0, unblock=("good",))
    farm.fail_all(bad)
    farm.submit(a_job("1-5", priority=1))
    farm.wait(5)
    assert {order.key.job for order in farm.orders(good)} == {0, 1} or farm.slave("good").cores_used == 1
    assert set(jobs_of(farm, bad)) == {1}
