"""What admins set of limits, shares and pools: what is answered, kept, shown and told the audit."""

from typing import Any

import pytest

from drqueue.master.core.records import (
    LimitForget,
    LimitRecord,
    PoolForget,
    PoolRecord,
    ShareForget,
    ShareRecord,
)
from drqueue.proto.messages import Done, Refusal, Request
from drqueue.proto.model import Limit, MachineInfo, Share, SlaveLimits
from drqueue.proto.roles import Who
from drqueue.proto.sharing_messages import (
    DropLimit,
    DropShare,
    Limits,
    ListLimits,
    ListPools,
    ListShares,
    Pools,
    PutLimit,
    PutPool,
    PutShare,
    Shares,
)
from drqueue.proto.views import LimitView, PoolView, ShareView
from tests.builders import CoreFarm, a_job

ANNA = Who(name="anna", role="artist", peer="uid 1000")
BOB = Who(name="bob", role="artist", peer="uid 1001")


def note(farm: CoreFarm, request: Request) -> str:
    """What is said of a request that must be done."""
    answer = farm.ask(request)
    assert isinstance(answer, Done), answer
    assert answer.count == 1
    return answer.note


def put(farm: CoreFarm, name: str, amount: float | None, scope: Any = None) -> str:
    return note(farm, PutLimit(rq=0, name=name, amount=amount, scope=scope))


def share(farm: CoreFarm, of: Any, name: str, **fields: Any) -> str:
    return note(farm, PutShare(rq=0, share=Share(of=of, name=name, **fields)))


def limits(farm: CoreFarm) -> dict[str, LimitView]:
    answer = farm.ask(ListLimits(rq=0))
    assert isinstance(answer, Limits)
    assert answer.next is None
    assert len({view.name for view in answer.limits}) == len(answer.limits)
    return {view.name: view for view in answer.limits}


def shares(farm: CoreFarm) -> dict[tuple[str, str, str], ShareView]:
    answer = farm.ask(ListShares(rq=0))
    assert isinstance(answer, Shares)
    return {(view.of, view.name, view.pool): view for view in answer.shares}


def pools(farm: CoreFarm) -> dict[str, PoolView]:
    answer = farm.ask(ListPools(rq=0))
    assert isinstance(answer, Pools)
    return {view.name: view for view in answer.pools}


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


# -- limits -----------------------------------------------------------------------------------------------


def test_a_limit_is_set_changed_and_dropped(farm: CoreFarm) -> None:
    assert put(farm, "nuke", 20) == ""
    assert (
        farm.saved[-1] == LimitRecord(Limit(name="nuke", amount=20))
        or LimitRecord(Limit(name="nuke", amount=20)) in farm.saved
    )
    assert limits(farm) == {"nuke": LimitView(name="nuke", amount=20, scope="attempts")}
    put(farm, "nuke", None, "cores")
    put(farm, "nuke", 2.5)
    assert limits(farm) == {"nuke": LimitView(name="nuke", amount=2.5, scope="cores")}
    farm.restart()
    assert limits(farm) == {"nuke": LimitView(name="nuke", amount=2.5, scope="cores")}
    assert note(farm, DropLimit(rq=0, name="nuke")) == ""
    assert LimitForget("nuke") in farm.saved
    assert limits(farm) == {}
    farm.restart()
    assert limits(farm) == {}


def test_a_limit_of_nothing_is_closed(farm: CoreFarm) -> None:
    farm.link()
    put(farm, "nuke", 0)
    farm.submit(a_job("1-3", layer={"limits": {"nuke": 1}}))
    assert farm.state_set() == {"WAITING"}
    assert limits(farm)["nuke"] == LimitView(name="nuke", amount=0, scope="attempts", waiting_jobs=1)
    put(farm, "nuke", 2)
    assert sorted(farm.states().values()) == ["ASSIGNED", "ASSIGNED", "WAITING"]
    assert limits(farm)["nuke"].used == 2


def test_a_limit_that_is_lowered_lets_run_what_runs(farm: CoreFarm) -> None:
    link = farm.link()
    put(farm, "nuke", 3)
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 1}}))
    running = farm.keys(link)
    assert len(running) == 3
    assert put(farm, "nuke", 1) == "3 of 1 are in use: it goes down as frames end"
    assert farm.stops(link) == []
    for key in list(running.values())[:2]:
        farm.exited(link, key)
        assert farm.orders(link) == []
    farm.exited(link, list(running.values())[2])
    assert len(farm.orders(link)) == 1


def test_a_limit_for_everybody_names_who_is_above_it(farm: CoreFarm) -> None:
    farm.link()
    farm.submit_as(ANNA, a_job("1-2"))
    farm.submit_as(BOB, a_job("1"))
    assert put(farm, "user:*", 1, "cores") == "above it now: user:anna; that goes down as frames end"
    found = limits(farm)
    assert {name: (view.amount, view.used) for name, view in found.items()} == {
        "user:*": (1, 0), "user:anna": (1, 2), "user:bob": (1, 1),
    }  # fmt: skip
    assert found["user:anna"].scope == "cores"
    put(farm, "user:anna", 5, "cores")
    assert limits(farm)["user:anna"].amount == 5
    assert note(farm, DropLimit(rq=0, name="user:anna")) == "user:* holds for anna now: 1"
    assert limits(farm)["user:anna"].amount == 1


def test_what_jobs_name_in_vain_is_listed(farm: CoreFarm) -> None:
    farm.submit(a_job("1-3", layer={"limits": {"nuke": 1}}))
    farm.submit(a_job("1-3", layer={"limits": {"nuke": 1, "houdini": 1}}))
    assert limits(farm) == {
        "houdini": LimitView(name="houdini", amount=None, scope="attempts", waiting_jobs=1),
        "nuke": LimitView(name="nuke", amount=None, scope="attempts", waiting_jobs=2),
    }
    put(farm, "nuke", 1)
    told = "jobs 0, 1 name it: their frames wait until it is set again"
    assert note(farm, DropLimit(rq=0, name="nuke")) == told
    farm.verb(1, "delete")
    put(farm, "nuke", 1)
    told = "job 0 names it: its frames wait until it is set again"
    assert note(farm, DropLimit(rq=0, name="nuke")) == told


def test_seats_name_the_machines_that_have_them(farm: CoreFarm) -> None:
    farm.link("s1")
    farm.link("s2")
    put(farm, "nuke", 1, "slaves")
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 1}}))
    view = limits(farm)["nuke"]
    assert (view.used, view.waiting_jobs) == (1, 1)
    assert view.held_by in (("s1",), ("s2",))


def test_a_machine_that_has_a_seat_is_called_by_its_host_name(farm: CoreFarm) -> None:
    machine = MachineInfo(hostname="host7", os="linux", boot_id="boot-1")
    farm.link("s1", machine=machine, fingerprint="f" * 64)
    put(farm, "nuke", 1, "slaves")
    farm.submit(a_job("1-9", layer={"limits": {"nuke": 1}}))
    assert limits(farm)["nuke"].held_by == ("host7",)


def test_what_is_left_of_a_limit_that_was_dropped_is_not_listed(farm: CoreFarm) -> None:
    """Frames that hold some of it still run, but nobody waits for it to be set."""
    farm.link()
    farm.submit_as(ANNA, a_job("1-9"))
    for name in ("user:anna", "user:*"):
        put(farm, name, 9)
        note(farm, DropLimit(rq=0, name=name))
    assert limits(farm) == {}


def test_jobs_without_a_project_are_called_so(farm: CoreFarm) -> None:
    farm.link("s1")
    farm.submit(a_job("1-9"))
    assert put(farm, "project:*", 2) == "above it now: project:; that goes down as frames end"


def test_whom_nobody_has_heard_of_is_said(farm: CoreFarm) -> None:
    assert put(farm, "user:ana", 5) == "no user 'ana' has jobs so far"
    assert put(farm, "project:film", 5) == "no project 'film' has jobs so far"
    assert put(farm, "pool:night", 5) == "no slave and no job is in pool night so far"
    farm.submit_as(ANNA, a_job("1", project="film", pool="night"))
    assert put(farm, "user:anna", 5) == ""
    assert put(farm, "project:film", 5) == ""
    assert put(farm, "pool:night", 5) == ""


@pytest.mark.parametrize(
    ("name", "amount", "scope", "told"),
    [
        ("nuke", None, None, "limit 'nuke' is a new one: say how much of it there is"),
        ("two words", 1, None, "no limit is called 'two words'"),
        ("", 1, None, "no limit is called ''"),
        ("user:", 1, None, "no user is called ''"),
        ("team:x", 1, None, "user:NAME, project:NAME and pool:NAME"),
        ("burst:x@y", 1, None, "user:NAME, project:NAME and pool:NAME"),
        ("pool:a b", 1, None, "no pool is called 'a b'"),
        ("nuke", 1.5, None, "1.5 is no whole number"),
        ("nuke", 0.0001, "cores", "too fine"),
        ("nuke", 10**12, None, "is too much"),
        ("*", 1, None, "no limit is called '*'"),
    ],
)
def test_what_no_limit_can_be(farm: CoreFarm, name: str, amount: float | None, scope: Any, told: str) -> None:
    refusal = farm.refusal(PutLimit(rq=0, name=name, amount=amount, scope=scope))
    assert refusal.code == "bad-limit"
    assert told in refusal.text
    assert limits(farm) == {}


def test_a_limit_that_was_never_set_cannot_be_dropped(farm: CoreFarm) -> None:
    missing = farm.refusal(DropLimit(rq=0, name="nuk"))
    assert (missing.code, missing.text) == ("no-such-limit", "no limit 'nuk' was set, nor any other")
    put(farm, "nuke", 20)
    share(farm, "project", "nuks", pool="Default", burst=3)
    near = farm.refusal(DropLimit(rq=0, name="nuk"))
    assert near.text == "no limit 'nuk' was set: did you mean nuke?"
    assert farm.refusal(DropLimit(rq=0, name="burst:nuks@Default")).code == "no-such-limit"


# -- shares -----------------------------------------------------------------------------------------------


def test_a_share_is_given_changed_and_taken(farm: CoreFarm) -> None:
    farm.submit_as(ANNA, a_job("1-3", project="robots"))
    assert share(farm, "project", "robots", pool="Default", weight=2.5, burst=400) == ""
    given = Share(of="project", name="robots", pool="Default", weight=2.5, burst=400)
    assert ShareRecord(given) in farm.saved
    assert shares(farm) == {
        ("project", "robots", "Default"): ShareView(
            of="project", name="robots", pool="Default", share=given, waiting=3
        ),
        ("user", "anna", "Default"): ShareView(of="user", name="anna", pool="Default", share=None, waiting=3),
    }
    farm.restart()
    assert shares(farm)["project", "robots", "Default"].share == given
    assert limits(farm) == {}, "a burst is no limit that anybody set"
    note(farm, DropShare(rq=0, of="project", name="robots", pool="Default"))
    assert ShareForget("project", "robots", "Default") in farm.saved
    assert shares(farm)["project", "robots", "Default"].share is None


def test_what_was_given_of_all_pools_counts_in_each_that_has_none_of_its_own(farm: CoreFarm) -> None:
    everywhere, night = (
        Share(of="user", name="anna", weight=3),
        Share(of="user", name="anna", pool="night", weight=5),
    )
    for each in (everywhere, night):
        note(farm, PutShare(rq=0, share=each))
    for pool in ("Default", "day", "night"):
        farm.submit_as(ANNA, a_job("1-2", pool=pool))
    found = {pool: view for (of, _, pool), view in shares(farm).items() if of == "user"}
    assert {pool: (view.share, view.waiting) for pool, view in found.items()} == {
        "": (everywhere, 4),
        "Default": (everywhere, 2),
        "day": (everywhere, 2),
        "night": (night, 2),
    }


def test_cores_that_run_and_those_of_late_are_shown(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit_as(ANNA, a_job("1-3", project="robots"))
    keys = farm.keys(link)
    view = shares(farm)["project", "robots", "Default"]
    assert (view.cores, view.remembered, view.waiting) == (3, 0, 0)
    farm.wait(3600)
    view = shares(farm)["user", "anna", "Default"]
    assert view.cores == 3
    assert view.remembered == pytest.approx(1.5)
    for key in keys.values():
        farm.exited(link, key)
    view = shares(farm)["user", "anna", "Default"]
    assert view.cores == 0
    assert view.remembered == pytest.approx(1.5)


def test_a_burst_below_what_runs_is_said_and_holds_back(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit_as(ANNA, a_job("1-9", project="robots"))
    keys = list(farm.keys(link).values())
    told = share(farm, "project", "robots", pool="Default", burst=2)
    assert told == "it has 4 cores now: that goes down as frames end"
    farm.exited(link, keys[0])
    farm.exited(link, keys[1])
    assert farm.orders(link) == []
    share(farm, "project", "robots", pool="Default")
    assert len(farm.orders(link)) == 2


def test_a_minimum_of_a_pool_that_is_fifo_is_said_to_count_for_nothing(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1", project="a"))
    farm.ask(PutPool(rq=0, name="Default", policy="fifo"))
    told = share(farm, "project", "a", pool="Default", minimum=3)
    assert told == "pool Default is fifo: the minimum counts once it is fair"


def test_more_guaranteed_than_there_is_is_said(farm: CoreFarm) -> None:
    farm.link()
    farm.submit(a_job("1", project="a"))
    farm.submit(a_job("1", project="b"))
    assert share(farm, "project", "a", pool="Default", minimum=3) == ""
    told = share(farm, "project", "b", pool="Default", minimum=1.5)
    assert told == "4.5 cores of Default are guaranteed, its slaves offer 4 now"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"of": "user", "name": ""}, "no user is called ''"),
        ({"of": "user", "name": "a\nb"}, "no user is called"),
        ({"of": "project", "name": "x", "pool": "a b"}, "no pool is called 'a b'"),
        ({"of": "project", "name": "x", "minimum": 2}, "a minimum is of one pool"),
        ({"of": "project", "name": "x", "burst": 2}, "a burst is of one pool"),
        ({"of": "user", "name": "x", "pool": "P", "minimum": 2}, "users have a weight only"),
        ({"of": "project", "name": "x", "pool": "P", "minimum": 3, "burst": 2}, "less than the minimum"),
        ({"of": "project", "name": "x", "pool": "P", "burst": 10**12}, "is too much"),
    ],
)
def test_what_no_share_can_be(farm: CoreFarm, fields: dict[str, Any], told: str) -> None:
    refusal = farm.refusal(PutShare(rq=0, share=Share(**fields)))
    assert refusal.code == "bad-share"
    assert told in refusal.text
    assert shares(farm) == {}


def test_a_share_that_was_never_given_cannot_be_dropped(farm: CoreFarm) -> None:
    share(farm, "user", "anna", weight=2)
    missing = farm.refusal(DropShare(rq=0, of="user", name="anna", pool="night"))
    assert missing.code == "no-such-share"
    assert missing.text == "user 'anna' was given nothing of pool night (but of all pools)"
    missing = farm.refusal(DropShare(rq=0, of="project", name="anna"))
    assert missing.text == "project 'anna' was given nothing of all pools together"


def test_jobs_without_a_project_share_one_that_has_no_name(farm: CoreFarm) -> None:
    farm.submit(a_job("1-2"))
    assert shares(farm)["project", "", "Default"].waiting == 2
    share(farm, "project", "", weight=0.5)
    held = shares(farm)["project", "", "Default"].share
    assert held is not None
    assert held.weight == 0.5


# -- pools ------------------------------------------------------------------------------------------------


def test_a_pools_policy_is_kept_where_it_is_not_the_usual_one(farm: CoreFarm) -> None:
    farm.link()
    assert note(farm, PutPool(rq=0, name="Default", policy="fifo")) == ""
    assert PoolRecord("Default", "fifo") in farm.saved
    farm.restart()
    assert pools(farm)["Default"].policy == "fifo"
    note(farm, PutPool(rq=0, name="Default", policy="fair"))
    assert PoolForget("Default") in farm.saved
    farm.restart()
    assert pools(farm)["Default"].policy == "fair"
    told = note(farm, PutPool(rq=0, name="night", policy="fifo"))
    assert told == "no slave and no job is in pool night so far"
    assert pools(farm)["night"] == PoolView(name="night", policy="fifo")
    assert farm.refusal(PutPool(rq=0, name="a b", policy="fair")).code == "bad-pool"


def test_a_policy_holds_for_what_waits_already(farm: CoreFarm) -> None:
    """By fair shares the second project would be next, by age the first job goes on."""
    for policy, expected in (("fair", 1), ("fifo", 0)):
        farm = CoreFarm()
        link = farm.link(cores=1)
        farm.submit_as(ANNA, a_job("1-4", project="a"))
        farm.submit_as(BOB, a_job("1-4", project="b"))
        note(farm, PutPool(rq=0, name="Default", policy=policy))  # type: ignore[arg-type]
        farm.wait(60)
        farm.exited(link, farm.orders(link)[0].key)
        orders = farm.orders(link)
        assert orders[0].key.job == expected, policy


def test_pools_show_slaves_frames_and_waits(farm: CoreFarm) -> None:
    farm.link("s1", limits=SlaveLimits(pools=("Default", "night")))
    farm.link("s2", limits=SlaveLimits(enabled=False))
    farm.submit(a_job("1-6"))
    farm.submit(a_job("1", pool="lost"))
    found = pools(farm)
    assert list(found) == ["Default", "lost", "night"]
    view = found["Default"]
    assert (view.slaves, view.cores, view.cores_used) == (1, 4, 4)
    assert (view.jobs, view.waiting + view.running) == (1, 6)
    assert view.running >= 4
    assert view.waits.count >= 4
    assert (found["lost"].jobs, found["lost"].slaves, found["lost"].waiting) == (1, 0, 1)
    assert (found["night"].jobs, found["night"].slaves, found["night"].cores) == (0, 1, 4)


# -- for all of them --------------------------------------------------------------------------------------


def test_lists_come_in_pages(farm: CoreFarm) -> None:
    for number in range(7):
        put(farm, f"n{number}", number)
    found: list[str] = []
    cursor: int | None = 0
    while cursor is not None:
        page = farm.ask(ListLimits(rq=0, cursor=cursor, limit=3))
        assert isinstance(page, Limits)
        assert len(page.limits) <= 3
        found += [view.name for view in page.limits]
        cursor = page.next
    assert found == [f"n{number}" for number in range(7)]
    beyond = farm.ask(ListLimits(rq=0, cursor=99))
    assert isinstance(beyond, Limits)
    assert (beyond.limits, beyond.next) == ((), None)


def test_the_audit_says_what_was_set(farm: CoreFarm) -> None:
    put(farm, "user:*", 100, "cores")
    note(farm, DropLimit(rq=0, name="user:*"))
    share(farm, "project", "robots", pool="Default", weight=2, minimum=0.5, burst=400)
    note(farm, DropShare(rq=0, of="project", name="robots", pool="Default"))
    share(farm, "user", "anna", weight=3)
    note(farm, PutPool(rq=0, name="Default", policy="fifo"))
    farm.refusal(DropLimit(rq=0, name="nuke"))
    farm.ask(ListLimits(rq=0))
    assert [(row.what, row.outcome) for row in farm.audited()] == [
        ("limit user:*: set 100, scope cores", "done"),
        ("limit user:*: drop", "done"),
        ("share of project robots in Default: weight 2, minimum 0.5, burst 400", "done"),
        ("share of project robots in Default: drop", "done"),
        ("share of user anna in all pools: weight 3", "done"),
        ("pool Default: fifo", "done"),
        ("limit nuke: drop", "no-such-limit"),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        PutLimit(rq=0, name="nuke", amount=1),
        DropLimit(rq=0, name="nuke"),
        PutShare(rq=0, share=Share(of="user", name="anna")),
        DropShare(rq=0, of="user", name="anna"),
        PutPool(rq=0, name="Default", policy="fifo"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_only_admins_set_them(farm: CoreFarm, request_: Request) -> None:
    for role in ("viewer", "artist", "supervisor"):
        who = Who(name="x", role=role, peer="uid 9")  # type: ignore[arg-type]
        answer = farm.ask(request_, who)
        assert isinstance(answer, Refusal)
        assert answer.code == "not-allowed"
    assert isinstance(farm.ask(ListLimits(rq=0), Who(name="x", role="viewer", peer="uid 9")), Limits)
