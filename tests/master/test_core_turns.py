"""Whose turn it is: priority, then fair shares of projects and users, or first come; guarantees; no
starvation."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue.master.core.places_invariants import check_settled
from drqueue.master.core.turn import Policy
from drqueue.proto.model import Needs, Share, SlaveLimits
from drqueue.proto.sharing_messages import PutPool, PutShare
from tests.builders import CoreFarm, a_job


def share(farm: CoreFarm, of: Any, name: str, **fields: Any) -> None:
    """Give a share."""
    farm.ask(PutShare(rq=0, share=Share(of=of, name=name, **fields)))


class Ends:
    """What runs on a farm ends in an order that a seed gives."""

    def __init__(self, farm: CoreFarm, links: list[int], seed: int = 1) -> None:
        self.farm, self.links, self.roll = farm, links, random.Random(seed)
        self.running: list[tuple[int, Any]] = []
        self.placed: list[Any] = []
        self.look()

    def look(self) -> None:
        """Take what was ordered."""
        for link in self.links:
            orders = self.farm.orders(link)
            self.placed += orders
            self.running += [(link, order) for order in orders]

    def one(self) -> Any:
        """One ends; its order."""
        link, order = self.running.pop(self.roll.randrange(len(self.running)))
        self.farm.exited(link, order.key)
        self.look()
        return order


def test_priority_comes_before_all_shares() -> None:
    farm = CoreFarm()
    share(farm, "user", "rich", weight=1000)
    farm.submit(a_job("1-9", owner="rich"))
    farm.submit(a_job("1-9", owner="poor", priority=501))
    link = farm.link(cores=9)
    assert {order.owner for order in farm.orders(link)} == {"poor"}


def test_users_share_evenly_however_many_jobs_they_have() -> None:
    farm = CoreFarm()
    for _ in range(5):
        farm.submit(a_job("1-50", owner="many"))
    farm.submit(a_job("1-50", owner="one"))
    link = farm.link(cores=12)
    owners = Counter(order.owner for order in farm.orders(link))
    assert owners == {"many": 6, "one": 6}


def test_it_is_cores_that_are_shared_not_frames() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1-50", owner="wide", layer={"needs": Needs(cores=4)}))
    farm.submit(a_job("1-50", owner="slim"))
    link = farm.link(cores=16)
    assert Counter(order.owner for order in farm.orders(link)) == {"wide": 2, "slim": 8}


def test_projects_share_first_and_then_their_users() -> None:
    farm = CoreFarm()
    for owner, project in (("a", "film"), ("b", "film"), ("c", "film"), ("a", "ads")):
        farm.submit(a_job("1-50", owner=owner, project=project))
    link = farm.link(cores=24)
    found = Counter((order.key.job) for order in farm.orders(link))
    assert found == {0: 4, 1: 4, 2: 4, 3: 12}


@pytest.mark.parametrize("of", ["user", "project"])
@pytest.mark.parametrize("weights", [(1, 3), (1, 1), (0.5, 2.5), (1, 2, 7)])
def test_shares_are_as_the_weights_say_over_a_thousand_placements(
    of: str, weights: tuple[float, ...]
) -> None:
    farm = CoreFarm(check_every=50)
    for number, weight in enumerate(weights):
        share(farm, of, f"n{number}", weight=weight)
        whose: dict[str, Any] = {"owner" if of == "user" else "project": f"n{number}"}
        farm.submit(a_job("1-5000", **whose))
    ends = Ends(farm, [farm.link(f"s{n}", cores=25) for n in range(2)])
    while len(ends.placed) < 1000:
        ends.one()
    got = Counter(order.key.job for order in ends.placed)
    for number, weight in enumerate(weights):
        due = len(ends.placed) * weight / sum(weights)
        assert abs(got[number] - due) <= 0.1 * due, f"{got} of {len(ends.placed)}, weights {weights}"


def test_a_share_of_one_pool_counts_there_and_another_elsewhere() -> None:
    farm = CoreFarm()
    share(farm, "user", "a", weight=3)
    share(farm, "user", "a", weight=1, pool="night")
    for pool in ("Default", "night"):
        for owner in ("a", "b"):
            farm.submit(a_job("1-50", owner=owner, pool=pool))
    day, night = farm.link("day", cores=8), farm.link("night", cores=8, limits=SlaveLimits(pools=("night",)))
    assert Counter(order.owner for order in farm.orders(day)) == {"a": 6, "b": 2}
    assert Counter(order.owner for order in farm.orders(night)) == {"a": 4, "b": 4}


def test_who_had_little_of_late_goes_first() -> None:
    farm = CoreFarm(Policy(farm="farm", memory_half_life_s=600))
    farm.submit(a_job("1-500", owner="greedy"))
    ends = Ends(farm, [farm.link(cores=8)])
    farm.wait(3600)
    farm.submit(a_job("1-500", owner="late"))
    for _ in range(80):
        ends.one()
    # It remembers nearly 8 cores of the greedy one, for which the late one may run as many.
    assert Counter(order.owner for _link, order in ends.running)["late"] >= 7


@pytest.mark.parametrize("stopped_well", [True, False])
def test_what_was_survives_a_restart(stopped_well: bool) -> None:
    farm = CoreFarm()
    farm.submit(a_job("1-500", owner="greedy", project="film"))
    farm.link(cores=8)
    farm.wait(3600)
    if not stopped_well:
        # It is saved when the clock is read, now and then; a stop in good order needs no such luck.
        farm.read_clock()
    before = {(u.name, round(u.remembered(farm.now, 3600))) for _p, _q, u in farm.core.state.sharing.all()}
    assert before == {("greedy", 4000)}
    if stopped_well:
        farm.stop_well()
    else:
        farm.restart()
    after = {(u.name, round(u.remembered(farm.now, 3600))) for _p, _q, u in farm.core.state.sharing.all()}
    assert before <= after
    (project,) = farm.core.state.sharing.pool("Default").projects.values()
    assert round(project.remembered(farm.now, 3600)) == 4000


def test_what_was_is_forgotten() -> None:
    farm = CoreFarm(Policy(farm="farm", memory_half_life_s=600))
    farm.submit(a_job("1-8", owner="greedy"))
    ends = Ends(farm, [farm.link(cores=8)])
    farm.wait(3600)
    while ends.running:
        ends.one()
    farm.wait(20 * 600)
    farm.submit(a_job("1-500", owner="greedy"))
    farm.submit(a_job("1-500", owner="late"))
    for _ in range(16):
        ends.look()
        ends.one()
    assert Counter(order.owner for _link, order in ends.running) == {"late": 4, "greedy": 4}


def test_small_jobs_do_not_wait_behind_a_big_one() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1-5000", owner="big"))
    ends = Ends(farm, [farm.link(cores=4)])
    for number in range(3):
        small = farm.submit(a_job("1", owner=f"small{number}"))
        ends.one()
        assert ends.placed[-1].key.job == small


def test_jobs_of_one_user_take_turns() -> None:
    farm = CoreFarm()
    for _ in range(3):
        farm.submit(a_job("1-9", owner="a"))
    link = farm.link(cores=6)
    assert [order.key.job for order in farm.orders(link)] == [0, 1, 2, 0, 1, 2]


# -- first come ---------------------------------------------------------------------------------------------


def test_in_a_pool_that_is_fifo_the_first_job_is_served_first() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1-4", owner="a"))
    farm.submit(a_job("1-9", owner="b"))
    farm.submit(a_job("1-3", owner="c", priority=600))
    farm.ask(PutPool(rq=0, name="Default", policy="fifo"))
    link = farm.link(cores=9)
    assert [order.key.job for order in farm.orders(link)] == [2, 2, 2, 0, 0, 0, 0, 1, 1]
    farm.restart()
    assert farm.core.state.sharing.pool("Default").policy == "fifo"


def test_the_policy_may_change_while_jobs_wait() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1-9", owner="a"))
    farm.submit(a_job("1-9", owner="b"))
    for policy, due in (("fifo", {0: 4}), ("fair", {0: 2, 1: 2}), ("fifo", {0: 4})):
        farm.ask(PutPool(rq=0, name="Default", policy=policy))  # type: ignore[arg-type]
        link = farm.link(cores=4)
        found = farm.orders(link)
        assert Counter(order.key.job for order in found) == due
        for order in found[:2]:
            farm.exited(link, order.key)
        farm.unlink(link)
        farm.slave_verb("s1", "declare-dead")


# -- guarantees and pools -----------------------------------------------------------------------------------


def test_a_guaranteed_minimum_comes_before_priority_and_no_further() -> None:
    farm = CoreFarm()
    share(farm, "project", "film", pool="Default", minimum=3)
    farm.submit(a_job("1-9", project="film", priority=100))
    farm.submit(a_job("1-9", project="ads", priority=900))
    link = farm.link(cores=8)
    assert Counter(order.key.job for order in farm.orders(link)) == {0: 3, 1: 5}
    farm.restart()
    assert [p.minimum for p in farm.core.state.sharing.pool("Default").guarantees] == [3000]


def test_pools_that_share_a_slave_take_turns() -> None:
    farm = CoreFarm()
    for pool in ("Default", "night", "Default", "Default"):
        farm.submit(a_job("1-50", pool=pool))
    link = farm.link(cores=8, limits=SlaveLimits(pools=("Default", "night")))
    assert Counter(order.pool for order in farm.orders(link)) == {"Default": 4, "night": 4}


# -- nothing waits in vain ----------------------------------------------------------------------------------

_jobs = st.lists(
    st.fixed_dictionaries(
        {
            "frames": st.integers(1, 6),
            "cores": st.sampled_from((0.5, 1, 2, 3)),
            "priority": st.sampled_from((100, 500)),
            "owner": st.sampled_from("abc"),
            "project": st.sampled_from(("", "p")),
            "pool": st.sampled_from(("Default", "night")),
            "max_running": st.sampled_from((0, 0, 2)),
            "max_per_slave": st.sampled_from((0, 0, 1)),
            "blocked": st.sampled_from(((), (), ("s0",))),
        }
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(_jobs, st.integers(1, 4), st.integers(0, 2**32))
def test_a_frame_that_has_room_is_placed_at_once_and_all_are_done_in_the_end(
    jobs: list[dict[str, Any]], slaves: int, seed: int
) -> None:
    farm, roll = CoreFarm(), random.Random(seed)
    pools = (("Default",), ("Default", "night"), ("night",), ("night", "Default"))
    links = [farm.link(f"s{n}", cores=3, limits=SlaveLimits(pools=pools[n])) for n in range(slaves)]
    ends = Ends(farm, links, seed)
    for job in jobs:
        fields = {key: value for key, value in job.items() if key not in ("frames", "cores")}
        farm.submit(a_job(f"1-{job['frames']}", layer={"needs": Needs(cores=job["cores"])}, **fields))
        check_settled(farm.core.state)
        ends.look()
        while ends.running and roll.random() < 0.5:
            ends.one()
            check_settled(farm.core.state)
    while ends.running:
        ends.one()
        check_settled(farm.core.state)
    for number, job in enumerate(jobs):
        able = [n for n in range(slaves) if job["pool"] in pools[n] and f"s{n}" not in job["blocked"]]
        assert farm.job(number).counts.done == (job["frames"] if able else 0)


def test_who_is_below_the_minimum_and_can_have_nothing_takes_nobody_along() -> None:
    farm = CoreFarm()
    share(farm, "project", "short", pool="Default", minimum=4)
    farm.submit(a_job("1", project="short", priority=100, blocked=("s1",)))
    farm.submit(a_job("1", project="other", priority=100))
    farm.submit(a_job("1", project="urgent", priority=900))
    link = farm.link("s1", cores=1)
    assert farm.order(link).key.job == 2


def test_a_project_that_was_forgotten_and_comes_back_has_no_better_turn_than_others() -> None:
    farm = CoreFarm()
    link = farm.link(cores=1)
    farm.submit(a_job("1-100", project="stays"))
    gone = farm.submit(a_job("1-100", project="returns"))
    order = farm.order(link)
    farm.verb(gone, "delete")
    farm.read_clock()
    farm.submit(a_job("1-100", project="returns"))
    jobs: Counter[int] = Counter()
    for _ in range(20):
        farm.now += 60
        farm.exited(link, order.key)
        order = farm.order(link)
        jobs[order.key.job] += 1
    assert jobs[0] == jobs[2] == 10


# -- against the rule, word by word --------------------------------------------------------------------------

_waiting = st.lists(
    st.fixed_dictionaries(
        {
            "frames": st.integers(1, 5),
            # Each in a lane of its own.
            "memory_mb": st.integers(0, 2),
            "priority": st.sampled_from((400, 500)),
            "owner": st.sampled_from("abc"),
            "project": st.sampled_from(("", "p", "q")),
            "pool": st.sampled_from(("Default", "night", "fifo")),
        }
    ),
    min_size=1,
    max_size=14,
)
_shares = st.lists(
    st.one_of(
        st.tuples(st.just("user"), st.sampled_from("abc"), st.just(0), st.sampled_from((1, 2, 5))),
        st.tuples(st.just("project"), st.sampled_from("pq"), st.integers(0, 3), st.sampled_from((1, 3))),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(_waiting, _shares, st.integers(1, 40))
def test_the_turns_of_one_pass_are_those_that_the_rule_says(
    jobs: list[dict[str, Any]], shares: list[tuple[str, str, int, int]], cores: int
) -> None:
    """Against a plain look at all that waits, at every turn."""
    farm = CoreFarm()
    farm.ask(PutPool(rq=0, name="fifo", policy="fifo"))
    for of, name, minimum, weight in shares:
        share(farm, of, name, pool="Default", minimum=minimum, weight=weight)
    left, specs = {}, {}
    for job in jobs:
        fields = {key: value for key, value in job.items() if key not in ("frames", "memory_mb")}
        needs = Needs(memory_mb=job["memory_mb"])
        number = farm.submit(a_job(f"1-{job['frames']}", layer={"needs": needs}, **fields))
        left[number], specs[number] = job["frames"], job
    link = farm.link(cores=cores, limits=SlaveLimits(pools=("Default", "night", "fifo")))
    given_ = {(of, name): (minimum, weight) for of, name, minimum, weight in shares}
    running: Counter[tuple[str, ...]] = Counter()
    served: Counter[object] = Counter()

    def rank(number: int) -> tuple[object, ...]:
        job = specs[number]
        pool, project, user = job["pool"], job["project"], job["owner"]
        fair, shared = pool != "fifo", pool == "Default"
        minimum, weight = given_.get(("project", project), (0, 1)) if shared else (0, 1)
        _, of_user = given_.get(("user", user), (0, 1)) if shared else (0, 1)
        runs, users = running[pool, project], running[pool, project, user]
        above = not fair or runs >= minimum
        mine = (runs / weight, project, users / of_user, user, served[number]) if fair else ()
        return above, -job["priority"], served[pool], pool, *mine, number

    for turn, order in enumerate(farm.orders(link), 1):
        number = min((number for number in left if left[number]), key=rank)
        assert order.key.job == number
        job = specs[number]
        left[number] -= 1
        running[job["pool"], job["project"]] += 1
        running[job["pool"], job["project"], job["owner"]] += 1
        served[number] = served[job["pool"]] = turn
    assert turn == min(cores, sum(job["frames"] for job in jobs))
