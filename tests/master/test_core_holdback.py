"""A database restored from a backup (F16): nothing that began since that was made runs twice (I3, P4)."""

import copy
from typing import Any

import pytest

from drqueue.master.core.core import Core
from drqueue.master.core.events import Stopping
from drqueue.master.core.holdback import JUST_NOW, ROW
from drqueue.master.core.records import MetaRecord
from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held
from drqueue.proto.messages import Done, Farm, FarmInfo, JobVerb, ResumeFarm
from drqueue.proto.model import Depend
from drqueue.proto.roles import Who
from drqueue.proto.views import HoldbackView
from tests.builders import WALL, CoreFarm, a_job, structs_replace

LEASE = 1800.0
OVER = LEASE * 1.01 + 120
DAY = 86400.0
#: Above all ids that the master of the lost time handed out.
NEXT = 1000


def restored(farm: CoreFarm, *, granted_s: float = 0.0, policy: Policy | None = None) -> CoreFarm:
    """The farm as it is now, restored from a backup, as a later master starts on it."""
    storage = copy.deepcopy(farm.storage)
    storage.commit([MetaRecord("next_job", str(NEXT))])
    policy = policy or structs_replace(farm.policy, epoch=farm.policy.epoch + 1)
    other = CoreFarm(policy, storage, check_every=farm.check_every)
    saved, wall = storage.load(), WALL + other.now
    other.core = Core(policy, saved, other.now, wall, from_backup=True, granted_s=granted_s)
    other.step()
    return other


def a_lost_frame(**job: Any) -> tuple[CoreFarm, AttemptKey]:
    """A farm restored to before the only frame of its job began on s1, and that attempt."""
    farm = CoreFarm()
    farm.submit(a_job("1", **job))
    backup = copy.deepcopy(farm)
    return restored(backup), farm.order(farm.link()).key


def held_until(farm: CoreFarm, due: float) -> None:
    """Job 0 starts nothing before that time, and one frame then."""
    link = farm.link("free")
    farm.wait(due - farm.now - 0.001)
    assert farm.orders(link) == []
    farm.wait(0.002)
    assert farm.order(link).key.job == 0


def info(farm: CoreFarm) -> Farm:
    answer = farm.ask(FarmInfo(rq=0))
    assert isinstance(answer, Farm)
    return answer


def resume(farm: CoreFarm) -> tuple[int, str]:
    answer = farm.ask(ResumeFarm(rq=0))
    assert isinstance(answer, Done)
    return answer.count, answer.note


# -- leases that may have been given -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_job", "of_farm", "granted"),
    [(0.0, LEASE, 0.0), (9000.0, LEASE, 0.0), (60.0, LEASE, 0.0), (0.0, 60.0, DAY), (3 * DAY, 60.0, DAY)],
)
def test_f16_i3_jobs_wait_for_the_longest_lease_given(of_job: float, of_farm: float, granted: float) -> None:
    """Its own, the farm's, or what the master granted when it stopped."""
    farm = CoreFarm(Policy(lease_s=of_farm))
    farm.submit(a_job("1", lease_s=of_job))
    later = restored(farm, granted_s=granted)
    held_until(later, later.now + max(of_job, of_farm, granted) * 1.01 + 120)


def test_f16_i3_a_lease_on_record_counts_whatever_the_settings_are_now() -> None:
    """The farm's lease was shortened since: the backup has an attempt with the former one."""
    farm = CoreFarm(Policy(lease_s=9000.0))
    farm.submit(a_job("1-2"))
    key = farm.order(farm.link(cores=1)).key
    later = restored(farm, policy=Policy(epoch=2, lease_s=60.0))
    later.link(cores=1, held=[Held(key)])
    held_until(later, later.now + 9000 * 1.01 + 120)


def test_f16_i3_each_job_waits_for_its_own_lease() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1", lease_s=9000))
    farm.submit(a_job("1"))
    later = restored(farm)
    link = later.link()
    later.wait(OVER + 1)
    assert later.order(link).key.job == 1
    later.wait(9000 * 1.01 + 120 - OVER)
    assert later.order(link).key.job == 0


def test_f16_a_grant_counts_for_slaves_of_the_backup_too() -> None:
    """What the backup knows to run goes elsewhere only after what its slave was granted since."""
    farm = CoreFarm()
    farm.submit(a_job("1"))
    farm.link()
    later = restored(farm, granted_s=DAY)
    later.wait(DAY)
    assert later.states() == {1: "ASSIGNED"}
    later.wait(0.01 * DAY + 121)
    assert later.states() == {1: "WAITING"}


def test_f16_what_the_backup_knows_to_run_is_kept() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1"))
    key = farm.order(farm.link()).key
    later = restored(farm)
    link = later.link(held=[Held(key)])
    assert later.stops(link) == []
    later.exited(link, key)
    assert later.states() == {1: "DONE"}


def test_f16_new_jobs_run_at_once() -> None:
    farm, _key = a_lost_frame()
    link = farm.link("free")
    job = farm.submit(token="that-nobody-used")
    assert job == NEXT
    assert {order.key.job for order in farm.orders(link)} == {job}
    assert "restored" not in farm.codes(job)
    farm.restart()
    link = farm.link("free")
    assert {order.key.job for order in farm.orders(link)} == {job}


def test_f16_i3_a_finished_job_that_runs_again_waits_too() -> None:
    """It may have been sent back since, and may run somewhere."""
    farm = CoreFarm()
    farm.submit(a_job("1"))
    farm.frame(0, "finish", "1")
    later = restored(farm)
    link = later.link()
    later.verb(0, "rerun")
    later.wait(OVER - 1)
    assert later.orders(link) == []
    assert later.codes() == ["restored"]
    later.wait(2)
    assert later.order(link).key.job == 0


def test_f16_dependencies_and_start_times_count_beside_it() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1"))
    farm.submit(a_job("1", depends=(Depend(0),)))
    farm.submit(a_job("1", not_before=WALL + 100 + 2 * OVER))
    later = restored(farm)
    assert [later.job(job).waits_for for job in range(3)] == [
        "the end of leases given before the restore",
        "job 0",
        "the end of leases given before the restore",
    ]
    assert later.codes(1) == ["dependency", "restored"]
    assert later.codes(2) == ["restored", "not-before"]
    later.wait(OVER + 1)
    assert [later.job(job).waits_for for job in range(3)] == ["", "job 0", "its start time"]
    link = later.link()
    later.exited(link, later.order(link).key)
    assert later.order(link).key.job == 1
    later.wait(OVER)
    assert later.order(link).key.job == 2


# -- jobs that hold on to their slaves -------------------------------------------------------------------


def test_f16_i3_a_job_that_holds_on_waits_for_the_operator() -> None:
    farm, _key = a_lost_frame(on_unreachable="hold")
    link = farm.link("free")
    farm.wait(1000 * DAY)
    assert farm.orders(link) == []
    farm.restart()
    link = farm.link("free")
    farm.wait(1000 * DAY)
    assert farm.orders(link) == []
    assert resume(farm) == (1, "")
    assert farm.order(link).key.job == 0
    farm.restart()
    assert farm.core.state.holdback is None


@pytest.mark.parametrize("restart", [False, True])
def test_f16_i3_what_was_ordered_to_hold_on_does_so_whatever_the_job_says_now(restart: bool) -> None:
    farm, _key = a_lost_frame(on_unreachable="hold")
    farm.change(on_unreachable="lease")
    if restart:
        farm.restart()
    link = farm.link("free")
    farm.wait(10 * DAY)
    assert farm.orders(link) == []
    assert "vouches" in farm.why()[0].text


def test_a_job_that_is_deleted_holds_nothing_up() -> None:
    farm, _key = a_lost_frame(on_unreachable="hold")
    farm.verb(0, "delete")
    farm.read_clock()
    assert farm.core.state.holdback is None
    farm.restart()
    assert farm.core.state.holdback is None


# -- slaves that link and run what began since -------------------------------------------------------------


def test_f16_i3_what_a_slave_says_that_it_runs_must_end_first() -> None:
    """It links in the last moment, and takes its time to stop: its lease begins anew with that."""
    farm, key = a_lost_frame()
    free = farm.link("free")
    farm.wait(OVER - 1)
    link = farm.link(held=[Held(key)])
    assert farm.stops(link) == [(key, "stale")]
    (reason,) = farm.why()
    assert (reason.code, reason.name, reason.until_at) == ("restored", "s1", 0)
    assert reason.text == (
        "it came back with a backup, and 1 frame of it that began since is being stopped on slave s1"
    )
    farm.wait(60)
    assert farm.orders(free) == []
    farm.exited(link, key)
    assert farm.noted(link) == [key]
    order = farm.order(free)
    assert order.key.attempt > key.attempt


@pytest.mark.parametrize("linked_s", [0, 60])
def test_f16_i3_one_that_goes_silent_again_has_a_whole_lease(linked_s: float) -> None:
    """Whether its job waited for nothing else by then or not."""
    farm, key = a_lost_frame()
    free = farm.link("free")
    farm.wait(OVER - 1)
    link = farm.link(held=[Held(key)])
    farm.wait(linked_s)
    farm.unlink(link)
    farm.wait(OVER - 1)
    assert farm.orders(free) == []
    assert farm.why()[0].until_at == pytest.approx(farm.core.turn.wall + 1)
    farm.wait(2)
    assert farm.order(free).key.job == 0


@pytest.mark.parametrize("ended", [True, False])
def test_f16_one_that_comes_back_without_it_holds_nothing_up(ended: bool) -> None:
    farm, key = a_lost_frame()
    free = farm.link("free")
    farm.wait(OVER - 1)
    farm.unlink(farm.link(held=[Held(key)]))
    farm.wait(60)
    assert farm.orders(free) == []
    farm.link(held=[Held(key, ended=True)] if ended else [])
    assert farm.order(free).key.job == 0


def test_f16_that_it_is_over_ends_no_others_lease() -> None:
    """That all known slaves have linked proves nothing: one may have joined since."""
    farm, key = a_lost_frame()
    link = farm.link(held=[Held(key)])
    farm.exited(link, key)
    farm.wait(OVER - 1)
    assert farm.orders(link) == []


def test_f16_other_jobs_wait_for_their_own_only() -> None:
    farm = CoreFarm()
    farm.submit(a_job("1"))
    farm.submit(a_job("1"))
    later = restored(farm)
    key = farm.keys(farm.link())[1]
    link = later.link(held=[Held(key)])
    later.wait(OVER + 1)
    assert later.order(link).key.job == 1 - key.job


# -- an operator vouches -----------------------------------------------------------------------------------


def test_f16_an_operator_who_vouches_lets_all_go_on() -> None:
    farm, _key = a_lost_frame()
    link = farm.link("free")
    farm.wait(5)
    assert resume(farm) == (1, "")
    assert farm.order(link).key.job == 0
    row = farm.audited()[-1]
    assert (row.who, row.what, row.outcome) == ("admin", "resume the farm", "done")
    assert resume(farm) == (0, "no job is held back")


@pytest.mark.parametrize(("role", "may"), [("viewer", 0), ("artist", 0), ("supervisor", 1), ("admin", 1)])
def test_f16_only_a_supervisor_may_vouch(role: Any, may: int) -> None:
    farm, _key = a_lost_frame()
    link = farm.link("free")
    farm.ask(ResumeFarm(rq=0), Who(name="w", role=role, peer="uid 7"))
    assert len(farm.orders(link)) == may
    assert farm.audited()[-1].outcome == ("done" if may else "not-allowed")


def test_f16_i3_nobody_vouches_for_what_is_known_to_run() -> None:
    farm, key = a_lost_frame()
    free = farm.link("free")
    link = farm.link(held=[Held(key)])
    assert resume(farm) == (0, "1 job waits until slave s1 has stopped what began after the backup")
    assert farm.orders(free) == []
    farm.exited(link, key)
    assert farm.order(free).key.job == 0


def test_f16_vouching_is_for_what_is_out_of_reach() -> None:
    farm, key = a_lost_frame()
    farm.unlink(farm.link(held=[Held(key)]))
    free = farm.link("free")
    assert resume(farm) == (1, "")
    assert farm.order(free).key.job == 0


# -- masters that start in between ------------------------------------------------------------------------


def test_f16_i13_a_start_in_between_begins_it_anew() -> None:
    farm, _key = a_lost_frame()
    farm.wait(OVER - 1)
    farm.restart()
    held_until(farm, farm.now + OVER)
    farm.restart()
    assert farm.core.state.holdback is None


def test_f16_i13_the_grant_before_the_restore_is_not_forgotten() -> None:
    later = restored(a_lost_frame()[0], granted_s=DAY)
    later.restart()
    held_until(later, later.now + DAY * 1.01 + 120)


def test_f16_a_stop_in_good_order_in_between_adds_no_grant_to_it() -> None:
    """Slaves that are out of reach hear nothing of that."""
    farm, _key = a_lost_frame()
    farm.step(Stopping(DAY))
    farm.restart()
    held_until(farm, farm.now + OVER)


def test_f2_f16_a_start_that_was_killed_before_its_first_commit_is_made_up_for() -> None:
    """Storage took its mark away, and says so in a row until the core has its own there."""
    farm = CoreFarm()
    farm.submit(a_job("1"))
    farm.storage.commit([MetaRecord(ROW, JUST_NOW)])
    farm.core = Core(farm.policy, farm.storage.load(), farm.now, WALL + farm.now)
    farm.step()
    assert farm.storage.load().meta[ROW] not in ("", JUST_NOW)
    top = farm.core.state.jobs[0].layers[0].top
    assert top >= 1000
    held_until(farm, farm.now + OVER)
    farm.restart()
    assert farm.core.state.jobs[0].layers[0].top == top + 1


def test_f16_a_second_restore_begins_it_anew() -> None:
    farm, _key = a_lost_frame(on_unreachable="hold")
    later = restored(farm, granted_s=DAY)
    later.change(on_unreachable="lease")
    link = later.link("free")
    later.wait(30 * DAY)
    assert later.orders(link) == []


@pytest.mark.parametrize("row", ["yes", "{}", '{"below": "x", "granted_s": 1}', "\x00"])
def test_f11_a_damaged_row_is_refused(row: str) -> None:
    farm = CoreFarm()
    farm.storage.commit([MetaRecord(ROW, row)])
    with pytest.raises(ValueError, match=r".+"):
        Core(farm.policy, farm.storage.load(), 0.0, WALL)


# -- what people are told ----------------------------------------------------------------------------------


def test_why_says_what_it_waits_for_and_until_when() -> None:
    farm, _key = a_lost_frame()
    farm.wait(60)
    for number in (None, 1):
        (reason,) = farm.why(0, number)
        assert (reason.code, reason.count) == ("restored", 1)
        assert reason.until_at == pytest.approx(WALL + 100 + OVER)
        assert reason.text == (
            "it came back with a backup, and frames of it that began since may still run out of reach: it "
            "goes on when the last lease is over, in 32 min, or when an operator vouches that none does "
            "(drqueue farm resume)"
        )


def test_why_says_that_it_waits_for_an_operator() -> None:
    farm, _key = a_lost_frame(on_unreachable="hold")
    (reason,) = farm.why()
    assert (reason.code, reason.until_at) == ("restored", 0)
    assert reason.text == (
        "it came back with a backup, and frames of it that began since may still run out of reach, for it "
        "says to hold on to them: it goes on when an operator vouches that none does (drqueue farm resume)"
    )


def test_the_farm_says_how_much_is_held_back_and_until_when() -> None:
    farm = CoreFarm()
    farm.link("known")
    for how in ("lease", "hold", "lease", "lease"):
        farm.submit(a_job("1", on_unreachable=how, stopped=True))
    farm.frame(3, "finish", "1")
    later = restored(farm)
    until: Any = pytest.approx(WALL + 100 + OVER)
    assert info(later).holdback == HoldbackView(jobs=3, until_at=until, for_operator=1, slaves_away=1)
    later.link("known")
    later.link("new")
    later.ask(JobVerb(rq=0, job=0, verb="delete"))
    assert info(later).holdback == HoldbackView(jobs=2, until_at=until, for_operator=1)
    later.wait(OVER + 1)
    assert info(later).holdback == HoldbackView(jobs=1, for_operator=1)
    resume(later)
    assert info(later).holdback is None
    assert info(farm).holdback is None
