"""What attempts hold of limits, whatever is set, dropped or changed meanwhile; and what those that wait ahead
do not."""

import pytest

from drqueue.master.core.events import SlaveSaid
from drqueue.master.core.layer import BRIEF_KNOWN
from drqueue.proto.link_messages import Held, LimitsNow
from drqueue.proto.model import LimitScope, Needs, Share, SlaveLimits
from drqueue.proto.sharing_messages import DropLimit, PutLimit, PutShare
from tests.builders import WALL, CoreFarm, a_job, well


def used(farm: CoreFarm, name: str) -> int:
    """What is taken of a limit, in thousandths."""
    counter = farm.core.state.limits.counters.get(name)
    return 0 if counter is None else counter.used


def test_an_attempt_holds_nothing_of_a_limit_that_its_layer_names_later() -> None:
    farm = CoreFarm()
    farm.ask(PutLimit(rq=0, name="nuke", amount=5))
    farm.link(cores=1)
    farm.submit(a_job("1-4"))
    farm.change(0, limits={"nuke": 1})
    farm.ask(PutLimit(rq=0, name="other", amount=5))
    assert used(farm, "nuke") == 0
    farm.restart()
    assert used(farm, "nuke") == 0


def test_an_attempt_holds_of_the_project_that_it_was_started_for() -> None:
    farm = CoreFarm()
    farm.ask(PutLimit(rq=0, name="project:*", amount=5))
    link = farm.link(cores=1)
    farm.submit(a_job("1", project="a"))
    farm.change(0, project="b")
    farm.ask(PutLimit(rq=0, name="other", amount=5))
    farm.ask(PutLimit(rq=0, name="project:*", amount=5, scope="cores"))
    assert (used(farm, "project:a"), used(farm, "project:b")) == (1000, 0)
    farm.restart()
    assert (used(farm, "project:a"), used(farm, "project:b")) == (1000, 0)
    key = farm.order_first(link)
    farm.exited(farm.link(cores=1, held=[Held(key)]), key)
    assert (used(farm, "project:a"), used(farm, "project:b")) == (0, 0)


@pytest.mark.parametrize(("scope", "taken"), [("attempts", 2000), ("cores", 4000), ("slaves", 1000)])
def test_what_runs_is_counted_anew_in_another_scope_and_of_a_rule_that_is_new(
    scope: LimitScope, taken: int
) -> None:
    farm = CoreFarm()
    farm.ask(PutLimit(rq=0, name="nuke", amount=9, scope="attempts" if scope == "cores" else "cores"))
    farm.link(cores=4)
    farm.submit(a_job("1-2", owner="u", layer={"needs": Needs(cores=2), "limits": {"nuke": 1}}))
    farm.ask(PutLimit(rq=0, name="nuke", amount=9, scope=scope))
    farm.ask(PutLimit(rq=0, name="user:*", amount=9, scope=scope))
    assert used(farm, "nuke") == used(farm, "user:u") == taken
    farm.ask(DropLimit(rq=0, name="user:*"))
    farm.ask(PutLimit(rq=0, name="user:u", amount=1, scope=scope))
    assert used(farm, "user:u") == taken


def test_counters_of_a_rule_are_forgotten_once_nobody_holds_any() -> None:
    farm = CoreFarm()
    farm.ask(PutLimit(rq=0, name="project:*", amount=9))
    link = farm.link()
    for number in range(5):
        farm.submit(a_job("1", project=f"p{number}"))
        farm.exited(link, farm.order_first(link))
    farm.submit(a_job("1", project="runs"))
    farm.read_clock()
    assert [name for name in farm.core.state.limits.counters if name != "project:*"] == ["project:runs"]


# -- ahead -------------------------------------------------------------------------------------------------


def brief() -> tuple[CoreFarm, int]:
    """A slave of two cores at which two more frames wait ahead."""
    farm = CoreFarm()
    link = farm.link(cores=2)
    farm.submit(a_job("1-50", owner="u", project="p"))
    orders = farm.orders(link)
    for _ in range(BRIEF_KNOWN):
        farm.exited(link, orders.pop(0).key, well(started_at=WALL, ended_at=WALL + 0.1))
        orders += farm.orders(link)
    (slave,) = farm.core.state.slaves.values()
    assert len(slave.ahead) == 2
    return farm, link


def asked_back(farm: CoreFarm, link: int) -> bool:
    (slave,) = farm.core.state.slaves.values()
    return {key for key, _why in farm.stops(link)} == set(slave.ahead)


def test_what_waits_ahead_is_asked_back_when_a_limit_counts_it() -> None:
    farm, link = brief()
    farm.ask(PutLimit(rq=0, name="nuke", amount=1))
    assert not farm.stops(link), "nobody names it"
    farm.ask(PutLimit(rq=0, name="user:u", amount=1))
    assert asked_back(farm, link)


def test_what_waits_ahead_is_asked_back_when_its_project_gets_a_burst() -> None:
    farm, link = brief()
    farm.ask(PutShare(rq=0, share=Share(of="project", name="p", pool="Default", burst=1)))
    assert asked_back(farm, link)


@pytest.mark.parametrize(
    "change",
    [{"max_running": 1}, {"block": ("s1",)}, {"pool": "x"}, {"needs": Needs(cores=2)}, {"limits": {"l": 1}}],
    ids=lambda change: next(iter(change)),
)
def test_what_waits_ahead_is_asked_back_when_its_job_may_not_have_it_there(change: dict[str, object]) -> None:
    farm, link = brief()
    farm.change(0, priority=7)
    assert not farm.stops(link)
    farm.change(0, **change)
    assert asked_back(farm, link)


def test_what_waits_ahead_is_asked_back_when_its_slave_leaves_the_pool() -> None:
    farm, link = brief()
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits(pools=("x",)))))
    assert asked_back(farm, link)


def test_what_waits_ahead_takes_the_cores_that_its_slave_adds() -> None:
    farm, link = brief()
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits(max_cpus=1))))
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits())))
    (slave,) = farm.core.state.slaves.values()
    assert (slave.cores_used, len(slave.ahead)) == (2, 2)
    held = [Held(key) for key in slave.live]
    farm.relink(link, cores=3, held=held)
    assert (slave.cores_used, len(slave.ahead)) == (3, 3)


def test_who_waits_ahead_and_was_forgotten_meanwhile_counts_when_it_takes_its_place() -> None:
    farm, link = brief()
    (slave,) = farm.core.state.slaves.values()
    farm.change(0, project="q")
    for key in [key for key in slave.live if key not in slave.ahead]:
        farm.exited(link, key, well(ended_at=WALL + 0.1))
    farm.verb(0, "stop")
    farm.core.state.sharing.forget_idle(farm.now + 1e6)
    for key in [key for key in slave.live if key not in slave.ahead]:
        farm.exited(link, key, well(ended_at=WALL + 0.1))
    assert (slave.cores_used, len(slave.ahead)) == (2, 0)
