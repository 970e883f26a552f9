"""The slave's core by hand: leases, time limits, restarts."""

import pytest

from drqueue.proto.link_messages import Stop
from drqueue.slave.core.core import HEARD_KEPT_S
from drqueue.slave.core.effects import Prepare, Start
from drqueue.slave.core.events import Granted, Heard, OutputsSeen, RegisteredAs, Unlinked
from drqueue.slave.core.processes import SignalTree
from drqueue.slave.core.records import MasterHeard
from drqueue.slave.core.restore import known
from tests.slave.core_bench import BOOT, Bench, an_order, ended, key, orders, started

LEASE = 1800.0


@pytest.fixture
def bench() -> Bench:
    """A registered slave of four cores."""
    made = Bench()
    made.register()
    return made


def restarted(bench: Bench, after_s: float = 0.0) -> Bench:
    """The daemon killed and started again, the master not yet there."""
    again = Bench(state=bench.restored(BOOT))
    again.now = bench.now + after_s
    again.kept = list(bench.kept)
    return again


# -- time limits ------------------------------------------------------------------------------------


def test_a_time_limit_counts_from_the_start_of_the_process(bench: Bench) -> None:
    bench.step(orders(an_order(timeout_s=60)))
    bench.step(started(), after_s=50)
    begun = bench.now
    bench.step(after_s=1)
    assert bench.core.next_wakeup() == begun + 60
    assert bench.step(after_s=58.9).do == []
    assert bench.step(after_s=0.1).do == [SignalTree(key(), kill=False)]
    assert bench.step(after_s=10).do == [SignalTree(key(), kill=True)]
    bench.step(ended(code=None, signal=9))
    (told,) = bench.exits()
    assert (told.exit.reason, told.exit.text) == ("timeout", "it ran longer than its limit of 60 s")


def test_a_time_limit_of_what_ended_in_time_passes_unseen(bench: Bench) -> None:
    bench.runs(an_order(timeout_s=60))
    bench.step(ended())
    assert bench.step(after_s=61).do == []


def test_a_time_limit_survives_a_restart_of_the_daemon(bench: Bench) -> None:
    bench.step(orders(an_order(timeout_s=600)))
    bench.step(started(birth=int(bench.now * 100)))
    bench.step(after_s=1)
    again = restarted(bench, after_s=598)
    assert again.step().do == []
    assert again.step(after_s=1).do == [SignalTree(key(), kill=False)]


def test_a_stop_of_a_frame_that_is_being_timed_out_keeps_the_first_reason(bench: Bench) -> None:
    bench.runs(an_order(timeout_s=60))
    bench.step(after_s=60)
    bench.step(orders(stop=(Stop(key(), "late"),)))
    bench.step(ended(code=1))
    assert bench.exits()[0].exit.reason == "timeout"


# -- leases -----------------------------------------------------------------------------------------


def test_the_lease_counts_from_the_masters_last_word(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Heard(), after_s=1000)
    bench.step(Unlinked(1), after_s=10)
    assert not any(isinstance(effect, SignalTree) for effect in bench.step(after_s=LEASE - 10.1).do)
    assert bench.step(after_s=0.1).do == [SignalTree(key(), kill=False)]
    bench.step(ended(code=None, signal=15))
    bench.register()
    (told,) = bench.exits()
    assert (told.exit.reason, told.exit.signal) == ("lease", 15)


def test_a_lease_ends_on_a_link_on_which_nobody_speaks(bench: Bench) -> None:
    bench.runs(an_order())
    assert bench.step(after_s=LEASE).do == [SignalTree(key(), kill=False)]


def test_each_attempt_has_its_own_lease(bench: Bench) -> None:
    bench.runs(an_order(0, lease_s=100), an_order(1, lease_s=50), an_order(2, lease_s=70))
    told = {}
    for _ in range(100):
        bench.step(after_s=1)
        told.update(
            {effect.key.frame: bench.now - 1000 for effect in bench.done(SignalTree) if not effect.kill}
        )
    assert told == {1: 50.0, 2: 70.0, 0: 100.0}


def test_hold_has_no_lease_and_requeue_fast_keeps_its_own(bench: Bench) -> None:
    bench.runs(an_order(0, on_unreachable="hold"), an_order(1, on_unreachable="requeue-fast"))
    bench.step(Unlinked(1))
    bench.step(after_s=LEASE - 1)
    assert bench.out.do == []
    assert bench.step(after_s=1).do == [SignalTree(key(1), kill=False)]
    assert bench.step(after_s=1e7).do == [SignalTree(key(1), kill=True)]


def test_a_word_read_after_a_suspend_does_not_revive_a_lease(bench: Bench) -> None:
    """It may have waited in the socket for hours, while the master gave the frame to another slave."""
    bench.runs(an_order())
    bench.step(Heard(), after_s=LEASE + 1)
    assert bench.done(SignalTree) == [SignalTree(key(), kill=False)]


def test_a_grant_lengthens_leases_until_the_master_is_back(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    bench.step(Unlinked(1))
    assert bench.step(after_s=80000).do == []
    bench.register()
    assert bench.step(after_s=LEASE - 1).do == []
    assert bench.step(after_s=1).do == [SignalTree(key(), kill=False)]


def test_orders_that_follow_a_grant_do_not_end_it(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    bench.step(orders(noted=(key(5),)))
    assert bench.step(after_s=80000).do == []


def test_a_grant_shorter_than_the_lease_does_not_shorten_it(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(60.0))
    assert bench.step(after_s=LEASE - 1).do == []


def test_a_grant_survives_a_restart_of_the_daemon(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    again = restarted(bench, after_s=80000)
    assert again.step().do == []
    assert again.step(after_s=6400).do == [SignalTree(key(), kill=False)]


def test_a_lease_survives_a_restart_and_may_end_a_minute_early_but_never_late(bench: Bench) -> None:
    bench.runs(an_order())
    for _ in range(50):
        bench.step(Heard(), after_s=7)
    again = restarted(bench, after_s=LEASE - HEARD_KEPT_S)
    assert again.step().do == []
    assert again.step(after_s=HEARD_KEPT_S).do == [SignalTree(key(), kill=False)]


def test_a_restart_does_not_begin_a_lease_anew(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Unlinked(1), after_s=1000)
    again = restarted(bench, after_s=LEASE - 1000 - 1)
    assert again.step().do == []
    assert again.step(after_s=1).do == [SignalTree(key(), kill=False)]


def test_the_masters_last_word_is_kept_calmly_and_only_while_it_matters(bench: Bench) -> None:
    kept = []
    for _ in range(100):
        kept += bench.step(Heard(), after_s=10).save
    assert kept == []
    bench.step(orders(an_order(), an_order(1)))
    assert MasterHeard(bench.now) in bench.out.save
    for _ in range(60):
        kept += bench.step(Heard(), after_s=1).save
    assert kept == [MasterHeard(bench.now)]


def test_words_without_a_link_do_not_count(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Unlinked(1))
    bench.step(Heard(), RegisteredAs(1, "s"), after_s=LEASE - 1)
    assert not bench.state.registered
    assert bench.step(after_s=1).do == [SignalTree(key(), kill=False)]


def test_a_waiting_order_loses_its_lease_too(bench: Bench) -> None:
    bench.step(orders(an_order(0, cores=4), an_order(1)))
    bench.step(after_s=LEASE)
    assert [(item.key, item.exit.reason) for item in bench.exits()] == [(key(1), "lease")]


# -- restarts ---------------------------------------------------------------------------------------


def test_a_restart_never_starts_anything_twice(bench: Bench) -> None:
    bench.step(orders(an_order(0), an_order(1), an_order(2, outputs=("a",)), an_order(3, outputs=("a",))))
    bench.step(started(1), OutputsSeen(key(3), {"/a": (1, 2, 3)}))
    bench.step(after_s=1)
    again = restarted(bench)
    assert known(again.state) == {key(0): None, key(1): (101, 0), key(3): None}
    again.step()
    assert again.done(Start) == []
    assert again.done(Prepare) == [Prepare(an_order(2, outputs=("a",)))]
    again.steps(started(0), ended(1), ended(3, code=None, reason="keeper-died"))
    again.register()
    assert [(item.key.frame, item.exit.reason) for item in again.exits()] == [(1, ""), (3, "keeper-died")]


def test_a_time_limit_counts_for_what_the_keeper_alone_knows_to_run(bench: Bench) -> None:
    """The daemon was killed in the moment between a start and its record."""
    bench.step(orders(an_order(timeout_s=60)))
    bench.step(started(birth=int(bench.now * 100)))
    again = restarted(bench, after_s=30)
    again.step(started(birth=int(bench.now * 100)))
    again.step(after_s=29)
    assert again.out.do == []
    assert again.step(after_s=1).do == [SignalTree(key(), kill=False)]


def test_a_stop_under_way_goes_on_after_a_restart(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(orders(stop=(Stop(key(), "gone", 5.0),)))
    again = restarted(bench, after_s=3)
    assert again.step().do == [SignalTree(key(), kill=False)]
    assert again.step(after_s=5).do == [SignalTree(key(), kill=True)]
    again.step(ended(code=None, signal=9))
    again.register()
    assert again.exits()[0].exit.reason == "stopped"
    assert again.exits()[0].exit.text == "gone"


def test_cores_in_use_are_counted_again_after_a_restart(bench: Bench) -> None:
    bench.runs(an_order(0, cores=3))
    again = restarted(bench)
    again.register()
    again.step(orders(an_order(1, cores=2)))
    assert again.done(Start) == []
    again.step(ended(0))
    assert again.done(Start) == [Start(an_order(1, cores=2))]
