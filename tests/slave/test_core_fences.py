"""The slave's core by hand: from where leases count, words that are lost or come twice, unknown processes."""

import pytest

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Beat, Held, Orders, Report, Started, Stop
from drqueue.proto.model import RunOrder
from drqueue.slave.core.core import Core
from drqueue.slave.core.effects import SayHello, Send, Start, Unlink
from drqueue.slave.core.events import Granted, Heard, OrdersCame, RegisteredAs, Unlinked
from drqueue.slave.core.processes import SignalTree
from drqueue.slave.core.records import MasterHeard
from tests.slave.core_bench import BOOT, Bench, an_order, ended, key, orders, started

LEASE = 1800.0
TERM, KILL = SignalTree(key(), kill=False), SignalTree(key(), kill=True)


def registered(bench: Bench, epoch: int = 1) -> None:
    """A new link to a master that says which words came; the Hello did."""
    bench.link(epoch=epoch)
    bench.step(RegisteredAs(3, "s", seen=bench.now))


@pytest.fixture
def bench() -> Bench:
    """A slave of four cores, registered with a master that says which words came."""
    made = Bench()
    registered(made)
    return made


def counted(
    nth: int, *run: RunOrder, stop: tuple[Stop, ...] = (), noted: tuple[AttemptKey, ...] = ()
) -> OrdersCame:
    """The nth Orders of a link."""
    return OrdersCame(Orders(epoch=1, run=run, stop=stop, noted=noted, nth=nth))


def restarted(bench: Bench, after_s: float) -> Bench:
    """The daemon killed and started again, the master not yet there."""
    again = Bench(state=bench.restored(BOOT))
    again.now, again.kept = bench.now + after_s, list(bench.kept)
    again.step()
    return again


def ends_at(bench: Bench, at: float) -> None:
    """The lease of frame 0 is over exactly then."""
    bench.step(after_s=at - bench.now - 0.01)
    assert TERM not in bench.out.do
    bench.step(after_s=0.02)
    assert TERM in bench.out.do


# -- from where leases count ------------------------------------------------------------------------


def test_i3_a_lease_counts_from_what_the_master_is_known_to_have_heard(bench: Bench) -> None:
    bench.runs(an_order())
    said = bench.now + 100
    bench.step(Heard(said), after_s=400)
    bench.step(Heard(said - 50), after_s=100)  # one that was overtaken
    bench.step(Heard(), after_s=100)  # nothing new came to it
    ends_at(bench, said + LEASE)


def test_i3_nobody_is_believed_to_have_heard_what_was_not_said_yet(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Heard(bench.now + 1e6), after_s=10)
    ends_at(bench, bench.now + LEASE)


def test_i3_an_order_counts_from_there_too_and_is_not_begun_when_its_lease_is_over(bench: Bench) -> None:
    """It may have lain in a queue on its way, while the master gave the frame to another."""
    begun = bench.now
    bench.step(counted(1, an_order()), after_s=LEASE - 60)
    assert bench.done(Start) == [Start(an_order())]
    bench.step(started())
    ends_at(bench, begun + LEASE)
    bench.step(counted(2, an_order(1)), after_s=1)
    (denied,) = [item for item in bench.exits() if item.key == key(1)]
    assert (denied.exit.reason, denied.exit.text) == ("lost", "the order came too late: its lease was over")
    assert bench.done(Start) == []


def test_an_order_that_comes_with_fresh_news_of_what_was_heard_is_in_time(bench: Bench) -> None:
    bench.step(Heard(bench.now + 590), counted(1, an_order(lease_s=60)), after_s=600)
    assert bench.done(Start)
    bench.step(started())
    ends_at(bench, bench.now + 50)


def test_i3_a_master_that_only_answers_the_door_does_not_keep_frames(bench: Bench) -> None:
    """One that turns the slave away after its Hello never hears of what it holds."""
    bench.runs(an_order())
    heard = bench.state.heard_at
    for _ in range(20):
        bench.step(Unlinked(bench.state.link), after_s=60)
        bench.link()
    ends_at(bench, heard + LEASE)


def test_i3_without_registration_words_and_orders_are_those_of_a_link_that_lost_some(bench: Bench) -> None:
    for event in (Heard(bench.now), counted(1, an_order(5)), orders(an_order(5))):
        bench.link()
        bench.step(event)
        (refused,) = bench.done(Unlink)
        assert refused.text.startswith("start over: ")
        assert key(5) not in bench.state.held


def test_an_older_master_is_heard_when_its_words_are_read() -> None:
    bench = Bench()
    bench.register()
    bench.runs(an_order())
    bench.step(Heard(), after_s=400)
    ends_at(bench, bench.now + LEASE)


def test_a_sign_of_life_is_asked_for_when_half_of_a_lease_is_over(bench: Bench) -> None:
    """With the rhythm of long leases nothing is asked: the beats come long before."""
    bench.runs(an_order(0, lease_s=80), an_order(1))
    begun = bench.state.heard_at
    asked = []
    while bench.now < begun + 79:
        wake = bench.core.next_wakeup()
        assert wake is not None
        bench.step(after_s=wake - bench.now)
        asked += [(bench.now - begun, message) for message in bench.sent(Beat)]
    assert [after for after, _beat in asked] == [40, 50, 60, 70]
    assert asked[0][1] == Beat(echo=True, at=begun + 40)
    assert SignalTree(key(0), kill=False) in bench.out.do
    bench.step(Heard(bench.now))
    bench.step(after_s=500)
    assert bench.sent(Beat) == []


def test_nobody_is_asked_who_cannot_answer() -> None:
    bench = Bench()
    bench.register()
    bench.runs(an_order(lease_s=80))
    bench.step(after_s=60)
    assert bench.sent(Beat) == []
    registered(bench)
    bench.step(Unlinked(2))
    bench.step(after_s=60)
    assert bench.done(Send) == []


def test_what_the_master_heard_survives_a_restart_and_is_kept_calmly(bench: Bench) -> None:
    bench.runs(an_order())
    kept = []
    for _ in range(13):
        kept += bench.step(Heard(bench.now), after_s=10).save
    assert [record for record in kept if isinstance(record, MasterHeard)] == kept
    assert len(kept) == 2
    again = restarted(bench, LEASE - 100)
    assert again.state.heard_at == kept[-1].at
    ends_at(again, kept[-1].at + LEASE)


# -- grants -----------------------------------------------------------------------------------------


def test_i3_a_grant_is_over_once_a_master_may_have_heard_the_hello(bench: Bench) -> None:
    """It then waits no longer than for the lease; whether it heard is not known: its answer may be lost."""
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    bench.step(Unlinked(1), after_s=5000)
    said = bench.now
    bench.link(epoch=2)
    assert bench.done(SignalTree) == []
    bench.step(Unlinked(2), after_s=200)
    bench.link(epoch=2)  # the first of both may be the only one that came
    ends_at(bench, said + LEASE)


def test_i3_that_survives_a_restart(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    bench.step(Unlinked(1), after_s=5000)
    said = bench.now
    bench.link(epoch=2)
    assert any(isinstance(record, MasterHeard) for record in bench.out.save), "kept before the Hello leaves"
    ends_at(restarted(bench, 100), said + LEASE)


def test_i3_a_hello_does_not_lengthen_a_grant(bench: Bench) -> None:
    bench.runs(an_order())
    granted = bench.state.heard_at
    bench.step(Granted(3600.0))
    bench.step(Unlinked(1), after_s=3500)
    bench.link(epoch=2)
    ends_at(bench, granted + 3600.0)


def test_a_grant_counts_until_the_slave_is_registered_anew(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    bench.step(Unlinked(1), after_s=5000)
    registered(bench, epoch=2)
    assert bench.done(SignalTree) == []
    bench.step(Heard(bench.now + 100), after_s=100)
    ends_at(bench, bench.now + LEASE)


def test_a_master_that_was_refused_grants_nothing(bench: Bench) -> None:
    registered(bench, epoch=5)
    bench.steps(OrdersCame(Orders(epoch=5, run=(an_order(),), nth=1)), started())
    bench.link(epoch=4)
    bench.step(Granted(86400.0))
    ends_at(bench, bench.state.heard_at + LEASE)


def test_a_shorter_grant_takes_the_place_of_a_longer_one(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Granted(86400.0))
    bench.step(Granted(60.0))
    ends_at(bench, bench.state.heard_at + LEASE)


# -- what ends with a lease -------------------------------------------------------------------------


@pytest.mark.parametrize(("grace_s", "takes_s"), [(10.0, 10.0), (3600.0, 30.0)])
def test_i3_a_lease_that_is_over_gives_half_a_minute_whatever_the_node_gives(
    grace_s: float, takes_s: float
) -> None:
    bench = Bench()
    bench.core = Core(bench.state, cores=4, grace_s=grace_s)
    registered(bench)
    bench.runs(an_order())
    bench.step(Unlinked(1))
    ends_at(bench, bench.state.heard_at + LEASE)
    bench.step(after_s=takes_s - 0.1)
    assert bench.out.do == []
    assert bench.step(after_s=0.1).do == [KILL]


def test_i3_f8_a_lease_that_ended_in_a_suspend_kills_at_once(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Heard(bench.now), after_s=LEASE + 61)
    assert bench.done(SignalTree) == [TERM, KILL]


def test_f8_a_minute_late_there_is_still_time(bench: Bench) -> None:
    bench.runs(an_order())
    begun = bench.state.heard_at
    bench.step(after_s=begun + LEASE + 60 - bench.now)
    assert bench.done(SignalTree) == [TERM]


def test_i3_a_stop_with_a_long_grace_does_not_outlive_the_lease(bench: Bench) -> None:
    bench.runs(an_order())
    begun = bench.state.heard_at
    bench.step(counted(1, stop=(Stop(key(), "late", 1e6),)))
    assert bench.done(SignalTree) == [TERM]
    bench.step(Unlinked(1))
    assert bench.step(after_s=LEASE + 29.5 - (bench.now - begun)).do == []
    assert bench.step(after_s=31).do == [KILL]
    bench.step(ended(code=None, signal=9))
    registered(bench)
    assert bench.exits()[0].exit.reason == "stopped"


def test_i3_f3_restarts_of_the_daemon_do_not_lengthen_the_time_to_end(bench: Bench) -> None:
    """Each would give the grace anew: after a minute there is none."""
    bench.runs(an_order())
    ends_at(bench, bench.state.heard_at + LEASE)
    again = bench
    for _ in range(6):
        again = restarted(again, 9.0)
        assert again.done(SignalTree) == [TERM]
    assert restarted(again, 9.0).done(SignalTree) == [TERM, KILL]


# -- words that are lost, come twice, or overtake each other -----------------------------------------


@pytest.mark.parametrize("nth", [1, 3, 7])
def test_i4_f6_orders_that_are_missing_or_come_twice_end_the_link(bench: Bench, nth: int) -> None:
    bench.step(counted(1, an_order(0)))
    bench.step(started())
    bench.step(ended())
    out = bench.step(counted(nth, an_order(1), noted=(key(0),)))
    assert out.do == [Unlink(1, f"start over: orders {nth} of this link came after 1")]
    assert out.save == []
    bench.step(counted(2, an_order(2)), Heard(bench.now))
    assert bench.state.held.keys() == {key(0)}, "of that link nothing counts any more"
    bench.step(Unlinked(1))
    bench.link()
    assert bench.done(SayHello) == [SayHello(2, (Held(key(0), ended=True),))]
    bench.step(RegisteredAs(3, "s", seen=bench.now))
    assert [item.key for item in bench.exits()] == [key(0)]
    bench.step(counted(1, an_order(1), noted=(key(0),)))
    assert bench.state.held.keys() == {key(1)}


def test_i4_f6_an_order_that_comes_again_after_its_end_was_noted_starts_nothing(bench: Bench) -> None:
    bench.step(counted(1, an_order()))
    bench.step(started())
    bench.step(ended())
    bench.step(counted(2, noted=(key(),)))
    bench.step(counted(1, an_order()))
    assert bench.done(Start) == []
    assert bench.done(Unlink)


def test_f6_orders_are_counted_anew_on_each_link_and_those_of_an_older_master_not_at_all(
    bench: Bench,
) -> None:
    bench.steps(counted(1, an_order(0)), counted(2, an_order(1)))
    bench.register()
    bench.steps(orders(an_order(2)), orders(an_order(3)))
    registered(bench)
    bench.step(counted(1, an_order(4)), counted(2, an_order(5)))
    assert bench.done(Unlink) == []
    assert bench.state.held.keys() == {key(frame) for frame in range(6)}


# -- processes that nobody knows ----------------------------------------------------------------------


def test_i3_f10_no_hello_while_processes_run_that_a_damaged_spool_does_not_know() -> None:
    """A Hello without them would tell the master that they are over, and it would start them elsewhere."""
    bench = Bench()
    bench.step(started(0), started(1))
    assert bench.done(SignalTree) == [SignalTree(key(0), kill=True), SignalTree(key(1), kill=True)]
    for gone in (0, 1):
        bench.link()
        (refused,) = bench.done(Unlink)
        assert "are ended first" in refused.text
        assert bench.done(SayHello) == []
        assert not bench.state.linked
        bench.step(Unlinked(bench.state.link), ended(gone, code=None, signal=9))
    bench.link()
    assert bench.done(SayHello) == [SayHello(3, ())]


def test_f6_a_slave_that_hears_twice_that_it_is_registered_tells_all_anew(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(RegisteredAs(3, "s", seen=bench.now))
    assert bench.sent(Report) == [Report(started=(Started(key(), 5000.0, 100),))]
