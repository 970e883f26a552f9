"""Limits: taken and given back with the booking, never exceeded, never a reason to kill what runs."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue.proto.link_messages import Held
from drqueue.proto.messages import ChangeJob
from drqueue.proto.model import JobChange, LimitScope, MachineInfo, Needs, Share
from drqueue.proto.sharing_messages import DropLimit, PutLimit, PutShare
from tests.builders import CoreFarm, a_job


def put(farm: CoreFarm, name: str, amount: float, scope: LimitScope = "attempts") -> None:
    """Set a limit."""
    farm.ask(PutLimit(rq=0, name=name, amount=amount, scope=scope))  # type: ignore[arg-type]


def named(frames: str = "1-99", cores: float = 1, job: dict[str, Any] | None = None, **limits: int) -> Any:
    """A job whose frames take so much of these limits."""
    return a_job(frames, layer={"needs": Needs(cores=cores), "limits": limits}, **(job or {}))


def test_a_licence_is_shared_by_all_jobs_that_name_it() -> None:
    farm = CoreFarm()
    put(farm, "nuke", 3)
    farm.submit(named(nuke=1))
    farm.submit(named(nuke=2))
    link = farm.link(cores=16)
    first = farm.orders(link)
    assert len(first) == 2
    assert farm.core.state.limits.counters["nuke"].used == 3000
    # One comes back, two are asked for by whose turn it is: the other one has it.
    farm.exited(link, next(order.key for order in first if order.key.job == 0))
    assert [order.key.job for order in farm.orders(link)] == [0]


def test_jobs_that_name_no_limit_go_past_those_that_wait_for_one() -> None:
    farm = CoreFarm()
    put(farm, "nuke", 0)
    link = farm.link(cores=4)
    farm.submit(named(nuke=1, job={"priority": 900}))
    plain = farm.submit(a_job("1-2"))
    assert {order.key.job for order in farm.orders(link)} == {plain}
    assert farm.codes(0) == ["limit"]
    put(farm, "nuke", 1)
    assert [order.key.job for order in farm.orders(link)] == [0]


def test_a_limit_that_was_never_set_holds_frames_back_until_it_is() -> None:
    farm = CoreFarm()
    link = farm.link()
    farm.submit(named("1", nuke=1))
    assert farm.orders(link) == []
    assert farm.codes() == ["limit-unset"]
    put(farm, "nuke", 1)
    assert farm.order(link).start == 1


def test_lowering_a_limit_kills_nothing_and_holds_back_until_it_is_met() -> None:
    farm = CoreFarm()
    put(farm, "nuke", 4)
    link = farm.link(cores=8)
    farm.submit(named(nuke=1))
    orders = farm.orders(link)
    assert len(orders) == 4
    put(farm, "nuke", 2)
    assert farm.stops(link) == []
    for order in orders[:2]:
        farm.exited(link, order.key)
        assert farm.orders(link) == []
    farm.exited(link, orders[2].key)
    assert len(farm.orders(link)) == 1


def test_cores_are_counted_where_the_limit_says_so() -> None:
    farm = CoreFarm()
    put(farm, "user:admin", 5, "cores")
    link = farm.link(cores=16)
    farm.submit(named(cores=1.5))
    assert len(farm.orders(link)) == 3
    assert farm.codes() == ["limit-user"]


def test_one_limit_for_every_user_and_one_that_is_somebodys_own() -> None:
    farm = CoreFarm()
    put(farm, "user:*", 2)
    put(farm, "user:anna", 3)
    link = farm.link(cores=16)
    for owner in ("anna", "bob", "carl"):
        farm.submit(a_job("1-9", owner=owner))
    owners = [order.owner for order in farm.orders(link)]
    assert {owner: owners.count(owner) for owner in owners} == {"anna": 3, "bob": 2, "carl": 2}


def test_projects_and_pools_count_by_themselves() -> None:
    farm = CoreFarm()
    put(farm, "project:film", 2)
    put(farm, "pool:Default", 3)
    link = farm.link(cores=16)
    farm.submit(a_job("1-9", project="film"))
    farm.submit(a_job("1-9", project="ads"))
    assert sorted(order.key.job for order in farm.orders(link)) == [0, 0, 1]
    assert farm.codes(1) == ["limit-pool"]
    put(farm, "pool:Default", 4)
    assert [order.key.job for order in farm.orders(link)] == [1]
    assert farm.codes(0) == ["limit-pool", "limit-project"]


def test_what_runs_already_counts_in_a_limit_that_counts_by_itself() -> None:
    farm = CoreFarm()
    link = farm.link(cores=4)
    farm.submit(a_job("1-9", owner="anna"))
    orders = farm.orders(link)
    put(farm, "user:anna", 3)
    assert farm.core.state.limits.counters["user:anna"].used == 4000
    farm.exited(link, orders[0].key)
    farm.exited(link, orders[1].key)
    assert len(farm.orders(link)) == 1


def two_machines(farm: CoreFarm) -> list[int]:
    """Three slaves, two of them on one machine."""
    places = (("a1", "host-a"), ("a2", "host-a"), ("b", "host-b"))
    return [farm.link(name, cores=2, machine=MachineInfo(hostname=h, os="linux")) for name, h in places]


def test_a_seat_counts_once_for_all_that_runs_on_a_machine() -> None:
    farm = CoreFarm()
    put(farm, "seat", 1, "slaves")
    links = two_machines(farm)
    farm.submit(named(seat=1))
    orders = [farm.orders(link) for link in links]
    assert [len(found) for found in orders] == [2, 2, 0]
    assert "seat" in farm.codes()
    for found in orders[:2]:
        for order in found:
            farm.exited(links[orders.index(found)], order.key)
    assert [len(farm.orders(link)) for link in links] == [2, 2, 0]
    put(farm, "seat", 2, "slaves")
    assert [len(farm.orders(link)) for link in links] == [0, 0, 2]


def test_a_seat_goes_to_another_machine_when_the_last_that_had_it_ended() -> None:
    farm = CoreFarm()
    put(farm, "seat", 1, "slaves")
    first = farm.link("a")
    farm.submit(named("1", seat=1))
    key = farm.order(first).key
    second = farm.link("b")
    other = farm.submit(a_job("1", layer={"needs": Needs(cores=4), "limits": {"seat": 1}}))
    assert farm.orders(second) == []
    farm.exited(first, key)
    assert (farm.core.state.limits.counters["seat"].used, farm.job(other).counts.waiting) == (1000, 0)


def test_restart_keeps_what_is_held_and_what_was_set() -> None:
    farm = CoreFarm()
    put(farm, "nuke", 2)
    put(farm, "seat", 1, "slaves")
    put(farm, "user:*", 9)
    link = farm.link(cores=8)
    farm.submit(named(nuke=1, seat=1))
    orders = farm.orders(link)
    before = {c.name: (c.used, c.amount, c.scope) for c in farm.core.state.limits.counters.values()}
    farm.restart()
    after = {c.name: (c.used, c.amount, c.scope) for c in farm.core.state.limits.counters.values()}
    assert after == before
    assert before["nuke"] == (2000, 2000, "attempts")
    link = farm.link(cores=8, held=[Held(order.key) for order in orders])
    farm.verb(0, "stop")
    farm.exited(link, orders[0].key)
    assert farm.core.state.limits.counters["nuke"].used == 1000


def test_what_a_job_names_may_change_while_it_runs() -> None:
    farm = CoreFarm()
    put(farm, "nuke", 2)
    put(farm, "arnold", 1)
    link = farm.link(cores=8)
    farm.submit(named(nuke=1))
    orders = farm.orders(link)
    farm.ask(ChangeJob(rq=0, job=0, change=JobChange(limits={"arnold": 1})))
    assert len(farm.orders(link)) == 1
    for order in orders:
        farm.exited(link, order.key)
    used = {name: counter.used for name, counter in farm.core.state.limits.counters.items()}
    assert used == {"nuke": 0, "arnold": 1000}


def test_the_scope_may_change_while_it_is_used() -> None:
    farm = CoreFarm()
    put(farm, "x", 9)
    links = two_machines(farm)
    farm.submit(named("1-6", x=1))
    assert farm.core.state.limits.counters["x"].used == 6000
    put(farm, "x", 9, "slaves")
    assert farm.core.state.limits.counters["x"].used == 2000
    put(farm, "x", 9, "cores")
    for link in links:
        farm.render_all(link)
    assert farm.core.state.limits.counters["x"].used == 0


def test_a_burst_is_the_most_that_a_project_has_of_a_pool() -> None:
    farm = CoreFarm()
    farm.ask(PutShare(rq=0, share=Share(of="project", name="film", pool="Default", burst=3)))
    link = farm.link(cores=16)
    farm.submit(a_job("1-9", project="film"))
    assert len(farm.orders(link)) == 3
    assert farm.codes() == ["burst"]
    farm.restart()
    link = farm.link(cores=16)
    assert farm.codes() == ["burst"]


def test_a_dropped_limit_is_no_limit_for_what_counted_by_itself() -> None:
    farm = CoreFarm()
    put(farm, "user:*", 1)
    link = farm.link(cores=4)
    farm.submit(a_job("1-9"))
    assert len(farm.orders(link)) == 1
    farm.ask(DropLimit(rq=0, name="user:*"))
    assert len(farm.orders(link)) == 3


_limit = st.tuples(
    st.sampled_from(("a", "b", "user:*", "user:u1", "project:p0", "pool:Default")),
    st.integers(0, 4),
    st.sampled_from(("attempts", "cores", "slaves")),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_limit, min_size=1, max_size=10), st.integers(0, 2**32))
def test_limits_are_never_exceeded_but_by_what_ran_before(
    limits: list[tuple[str, int, LimitScope]], seed: int
) -> None:
    """Random limits set and dropped while jobs run: no placement ever takes more than is there."""
    farm, roll = CoreFarm(), random.Random(seed)
    machines = [MachineInfo(hostname=f"h{n % 3}", os="linux") for n in range(5)]
    links = [farm.link(f"s{n}", cores=4, machine=machine) for n, machine in enumerate(machines)]
    for number in range(6):
        names = dict.fromkeys(("a", "b")[: number % 3], 1 + number % 2)
        farm.submit(
            named("1-30", 1 + number % 2, {"owner": f"u{number % 3}", "project": f"p{number % 2}"}, **names)
        )
    counters = farm.core.state.limits.counters
    running = [(link, order.key) for link in links for order in farm.orders(link)]
    for name, amount, scope in limits:
        put(farm, name, amount, scope)
        for _ in range(4):
            if running:
                link, key = running.pop(roll.randrange(len(running)))
                before = {c.name: c.used for c in counters.values()}
                farm.exited(link, key)
                for counter in counters.values():
                    if counter.amount is not None:
                        assert counter.used <= max(counter.amount, before.get(counter.name, 0))
            running += [(one, order.key) for one in links for order in farm.orders(one)]
