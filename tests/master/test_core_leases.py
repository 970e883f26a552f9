"""Silence: leases, hold, requeue-fast, declare-dead, restarts of the master (P4, P5)."""

import pytest

from drqueue.master.core.events import Stopping
from drqueue.master.core.turn import Policy
from drqueue.proto.link_messages import Grant, Held
from tests.builders import CoreFarm, a_job, badly

LEASE = 1800.0
GIVEN_UP = LEASE * 1.01 + 120
DAY = 86400.0


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def lost_after(farm: CoreFarm, seconds: float) -> None:
    """Frame 1 of job 0 is given up exactly then."""
    assert farm.core.next_wakeup() == pytest.approx(farm.now + seconds)
    farm.wait(seconds - 0.001)
    assert farm.states() == {1: "ASSIGNED"}
    farm.wait(0.002)
    assert farm.states() == {1: "WAITING"}
    assert farm.outcomes() == ["lost"]
    assert farm.frames()[1].requeued == 0
    assert farm.slave().state == "lost"
    assert farm.slave().cores_used == 0


def a_frame_out_of_reach(farm: CoreFarm, **job: object) -> int:
    link = farm.link()
    farm.submit(a_job("1", **job))
    farm.orders(link)
    farm.unlink(link)
    return link


def test_a_dropped_link_ends_nothing(farm: CoreFarm) -> None:
    other = farm.link("other", cores=1)
    farm.submit(a_job("1-2", blocked=("other",)))
    link = farm.link()
    keys = farm.keys(link)
    farm.unlink(link)
    farm.wait(GIVEN_UP - 1)
    assert farm.state_set() == {"ASSIGNED"}
    assert farm.slave().state == "unlinked"
    assert farm.orders(other) == []
    link = farm.link(held=[Held(key) for key in keys.values()])
    farm.wait(10 * DAY)
    assert farm.state_set() == {"ASSIGNED"}


@pytest.mark.parametrize(("of_job", "of_farm"), [(0.0, LEASE), (0.0, 60.0), (600.0, LEASE)])
def test_a_lease_is_waited_for_with_a_margin(of_job: float, of_farm: float) -> None:
    farm = CoreFarm(Policy(lease_s=of_farm))
    a_frame_out_of_reach(farm, lease_s=of_job)
    lost_after(farm, (of_job or of_farm) * 1.01 + 120)


def test_it_counts_from_the_slaves_last_word(farm: CoreFarm) -> None:
    from drqueue.master.core.events import SlaveUnlinked

    link = farm.link()
    farm.submit(a_job("1"))
    farm.orders(link)
    heard = farm.now + 50
    farm.now += 80
    farm.step(SlaveUnlinked(link, heard))
    lost_after(farm, GIVEN_UP - 30)


def test_the_length_recorded_with_the_order_counts(farm: CoreFarm) -> None:
    a_frame_out_of_reach(farm)
    farm.policy = Policy(farm="farm", lease_s=10.0)
    farm.restart()
    lost_after(farm, GIVEN_UP)


def test_hold_waits_for_ever(farm: CoreFarm) -> None:
    a_frame_out_of_reach(farm, on_unreachable="hold")
    assert farm.core.next_wakeup() is None
    farm.wait(1000 * DAY)
    farm.restart()
    farm.wait(1000 * DAY)
    assert farm.states() == {1: "ASSIGNED"}
    assert farm.slave_verb("s1", "declare-dead") == 1
    assert farm.states() == {1: "WAITING"}


def test_hold_ends_with_the_slaves_return_without_it(farm: CoreFarm) -> None:
    a_frame_out_of_reach(farm, on_unreachable="hold")
    farm.link()
    assert farm.outcomes() == ["lost", ""]


def test_requeue_fast_gives_up_after_a_minute(farm: CoreFarm) -> None:
    a_frame_out_of_reach(farm, on_unreachable="requeue-fast")
    lost_after(farm, 60)


def test_requeue_fast_after_a_restart_counts_from_there(farm: CoreFarm) -> None:
    a_frame_out_of_reach(farm, on_unreachable="requeue-fast")
    farm.now += 59
    farm.restart()
    lost_after(farm, 60)


def test_frames_of_one_slave_are_given_up_each_by_its_own_lease(farm: CoreFarm) -> None:
    link = farm.link()
    for how in ("lease", "hold", "requeue-fast"):
        farm.submit(a_job("1", on_unreachable=how))
    farm.orders(link)
    farm.unlink(link)
    farm.wait(61)
    assert [farm.states(job)[1] for job in range(3)] == ["ASSIGNED", "ASSIGNED", "WAITING"]
    farm.wait(GIVEN_UP)
    assert [farm.states(job)[1] for job in range(3)] == ["WAITING", "ASSIGNED", "WAITING"]
    farm.slave_verb("s1", "declare-dead")
    assert farm.states(1) == {1: "WAITING"}


def test_a_slave_that_comes_back_stops_its_clock(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    key = farm.order(link).key
    farm.unlink(link)
    farm.wait(GIVEN_UP - 10)
    link = farm.link(held=[Held(key)])
    farm.unlink(link)
    lost_after(farm, GIVEN_UP)


def test_a_given_up_frame_goes_elsewhere_and_its_late_report_is_noted_only(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    key = farm.order(link).key
    farm.unlink(link)
    other = farm.link("other")
    farm.wait(GIVEN_UP + 1)
    second = farm.order(other).key
    assert second.attempt == 2
    link = farm.link(held=[Held(key, ended=True)])
    farm.exited(link, key)
    assert farm.noted(link) == [key]
    assert farm.states() == {1: "ASSIGNED"}
    farm.exited(other, second)
    assert farm.outcomes() == ["lost", "done"]
    assert farm.slave("s1").frames_done == 0


def test_nothing_is_given_up_while_the_master_was_away(farm: CoreFarm) -> None:
    """A full lease from its start on, however long it was down."""
    a_frame_out_of_reach(farm)
    farm.now += 30 * DAY
    farm.restart()
    lost_after(farm, GIVEN_UP)


def test_declare_dead_frees_all_and_is_taken_at_its_word(farm: CoreFarm) -> None:
    link = farm.link(cores=2)
    farm.submit(a_job("1-3"))
    keys = farm.keys(link)
    farm.unlink(link)
    other = farm.link("other")
    farm.orders(other)
    assert farm.slave_verb("s1", "declare-dead") == 2
    assert {order.key.attempt for order in farm.orders(other)} == {2}
    farm.restart()
    link = farm.link(held=[Held(key) for key in keys.values()])
    assert sorted(farm.stops(link)) == [(keys[1], "stale"), (keys[2], "stale")]


# -- stopping in good order -------------------------------------------------------------------------------


def test_a_master_that_stops_well_grants_a_day(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-9"))
    farm.orders(link)
    farm.step(Stopping(DAY))
    assert [m for m in farm.said[link] if isinstance(m, Grant)] == [Grant(lease_s=DAY)]
    farm.submit(a_job("1-9", priority=999))
    assert farm.orders(link) == [], "it hands out nothing more"


def test_the_grant_holds_for_slaves_that_do_not_come_back(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    farm.orders(link)
    farm.stop_well(DAY)
    lost_after(farm, DAY * 1.01 + 120)


def test_the_grant_ends_with_the_next_welcome(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    key = farm.order(link).key
    farm.stop_well(DAY)
    farm.unlink(farm.link(held=[Held(key)]))
    lost_after(farm, GIVEN_UP)


def test_the_grant_of_a_former_life_binds_no_later_one(farm: CoreFarm) -> None:
    """All came back after the upgrade; then the master crashes: 30 minutes, not 24 hours."""
    link = farm.link()
    farm.submit(a_job("1"))
    key = farm.order(link).key
    farm.stop_well(DAY)
    farm.link(held=[Held(key)])
    farm.restart()
    lost_after(farm, GIVEN_UP)


def test_the_grant_outlasts_a_crash_for_whoever_still_relies_on_it(farm: CoreFarm) -> None:
    link, other = farm.link(), farm.link("other")
    farm.submit(a_job("1", blocked=("other",)))
    farm.orders(link)
    farm.orders(other)
    farm.stop_well(DAY)
    farm.link("other")
    farm.restart()
    farm.stop_well(10.0)
    lost_after(farm, DAY * 1.01 + 120)


def test_the_grant_is_nobodys_who_came_back(farm: CoreFarm) -> None:
    """One slave is still away with it; the other one came, and went again."""
    link, other = farm.link(), farm.link("other")
    farm.submit(a_job("1", blocked=("other",)))
    farm.submit(a_job("1", blocked=("s1",)))
    key = farm.order(link).key
    farm.orders(other)
    farm.stop_well(DAY)
    farm.unlink(farm.link(held=[Held(key)]))
    lost_after(farm, GIVEN_UP)
    assert farm.states(1) == {1: "ASSIGNED"}


def test_a_longer_lease_of_the_job_beats_the_grant(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", lease_s=2 * DAY))
    farm.orders(link)
    farm.stop_well(DAY)
    lost_after(farm, 2 * DAY * 1.01 + 120)


# -- restarts ---------------------------------------------------------------------------------------------


def test_a_farm_goes_on_where_it_was(farm: CoreFarm) -> None:
    """DONE, FAILED, back-off, running and waiting frames, over three crashes; each frame is done once."""
    link = farm.link(cores=2)
    farm.submit(a_job("1-6", layer={"retries": 1}))
    keys = farm.keys(link)
    farm.exited(link, keys[1])
    farm.exited(link, keys[2], badly())
    live = [order.key for order in farm.orders(link)]
    for _ in range(3):
        farm.restart()
        assert farm.states()[1] == "DONE"
        link = farm.link(cores=2, held=[Held(key) for key in live])
        assert farm.orders(link) == []
    for key in live:
        farm.exited(link, key)
    farm.render_all(link)
    assert farm.state_set() == {"DONE"}
    assert farm.outcomes(0, 2) == ["failed", "done"]
    assert [farm.outcomes(0, n) for n in (1, 3, 4, 5, 6)] == [["done"]] * 5


def test_a_restarted_master_carries_a_new_epoch_in_its_orders(farm: CoreFarm) -> None:
    from drqueue.proto.link_messages import Orders

    farm.submit(a_job("1"))
    farm.restart()
    link = farm.link()
    assert [m.epoch for m in farm.said[link] if isinstance(m, Orders)] == [2]


def test_a_finished_job_is_finished_after_a_restart(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    farm.render_all(link)
    before = farm.job()
    farm.now += 50
    farm.restart()
    assert farm.job() == before
