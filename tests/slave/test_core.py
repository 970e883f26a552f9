"""The slave's core by hand: orders, exits, reports."""

import pytest

from drqueue.proto.codec import MAX_BODY, encode
from drqueue.proto.link_messages import Held, Report, Stop
from drqueue.proto.model import Exit, SlaveLimits
from drqueue.slave.core.core import REPORT_MAX
from drqueue.slave.core.effects import KeepLog, Prepare, RemoveScratch, SayHello, Send, Start, Verify
from drqueue.slave.core.events import OutputsSeen, RegisteredAs, Unlinked, Verified
from drqueue.slave.core.orders import KILL_AGAIN_S, RECORDED_AFTER_S
from drqueue.slave.core.processes import ForgetProcess, LaunchFailed, ProcessStarted, SignalTree
from drqueue.slave.core.records import Accepted, Boot, Ended, Noted, Prepared, Running, SpoolRecord, StopAsked
from drqueue.slave.core.restore import known, restore
from drqueue.slave.core.state import MAX_HELD, InvalidTransitionError, Phase
from tests.slave.core_bench import BOOT, Bench, an_order, ended, key, orders, started


@pytest.fixture
def bench() -> Bench:
    """A registered slave of four cores."""
    made = Bench()
    made.register()
    return made


def test_an_order_is_kept_before_it_is_started(bench: Bench) -> None:
    out = bench.step(orders(an_order()))
    assert out.save == [Accepted(an_order())]
    assert out.do == [Start(an_order())]


def test_a_start_is_kept_and_reported(bench: Bench) -> None:
    bench.step(orders(an_order()))
    assert bench.step(started()).save == []
    assert bench.core.next_wakeup() == bench.now + RECORDED_AFTER_S
    out = bench.step(after_s=RECORDED_AFTER_S)
    assert out.save == [Running(key(), 100, 0, 5000.0)]
    assert [item.key for item in bench.starts()] == [key()]
    assert bench.step(after_s=RECORDED_AFTER_S).do == []


def test_an_exit_is_kept_reported_and_forgotten_only_when_noted(bench: Bench) -> None:
    bench.runs(an_order())
    out = bench.step(ended(code=3, log_bytes=9))
    (told,) = bench.exits()
    assert out.save == [Ended(key(), told.exit)]
    assert (told.exit.code, told.exit.reason, told.exit.cpu_s, told.exit.peak_mb) == (3, "", 1.5, 2.0)
    assert bench.done(KeepLog)[0].key == key()
    assert not bench.done(ForgetProcess)
    assert bench.step(orders(noted=(key(),))).save == [Noted(key())]
    assert bench.out.do == [ForgetProcess(key())]
    assert not bench.state.held
    assert bench.step(orders(noted=(key(),))).save == []


def test_a_running_attempt_is_not_forgotten_by_a_note(bench: Bench) -> None:
    bench.runs(an_order())
    assert bench.step(orders(noted=(key(),))).save == []
    assert key() in bench.state.held


def test_an_exit_is_told_on_every_new_link_until_it_is_noted(bench: Bench) -> None:
    bench.runs(an_order(0), an_order(1), an_order(2))
    bench.step(ended(1))
    bench.step(ended(0, log_bytes=1))
    for _ in range(2):
        bench.step(Unlinked(bench.state.link))
        out = bench.link()
        assert out.do == [
            SayHello(bench.state.link, (Held(key(0), True), Held(key(1), True), Held(key(2), False)))
        ]
        bench.step(RegisteredAs(3, "s"))
        assert [item.key for item in bench.exits()] == [key(1), key(0)]
        assert [item.key for item in bench.starts()] == [key(2)]
        assert [effect.key for effect in bench.done(KeepLog)] == [key(0)]


def test_news_wait_until_the_master_knows_what_is_held(bench: Bench) -> None:
    bench.runs(an_order(0), an_order(1))
    bench.step(Unlinked(1))
    assert not any(isinstance(effect, Send) for effect in bench.step(ended(0)).do)
    bench.link()
    assert not any(isinstance(effect, Send) for effect in bench.step(ended(1)).do)
    bench.step(RegisteredAs(3, "s"))
    assert [item.key for item in bench.exits()] == [key(0), key(1)]


def test_a_stale_unlinked_does_not_end_the_newer_link(bench: Bench) -> None:
    bench.register()
    bench.step(Unlinked(1))
    assert bench.state.registered


def test_a_start_is_left_out_where_the_exit_goes_out_in_the_same_report(bench: Bench) -> None:
    bench.step(orders(an_order(), an_order(1)))
    bench.step(started(0), started(1))
    bench.step(ended(0), after_s=RECORDED_AFTER_S)
    assert [item.key for item in bench.starts()] == [key(1)]
    assert [item.key for item in bench.exits()] == [key(0)]


def test_nothing_is_told_as_started_and_ended_at_once_on_a_new_link(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(Unlinked(1))
    bench.link()
    bench.step(RegisteredAs(3, "s"), ended())
    assert bench.starts() == []
    assert [item.key for item in bench.exits()] == [key()]


def test_a_brief_frame_is_told_once_at_its_end(bench: Bench) -> None:
    bench.steps(orders(an_order()), started())
    out = bench.step(ended(), after_s=RECORDED_AFTER_S / 2)
    assert [type(record) for record in out.save] == [Ended]
    assert bench.starts() == []
    assert bench.step(after_s=RECORDED_AFTER_S).do == []


def test_an_order_that_is_held_already_is_no_news(bench: Bench) -> None:
    bench.runs(an_order())
    assert bench.step(orders(an_order())).do == []
    bench.step(ended())
    assert bench.step(orders(an_order())).do == []


def test_orders_of_an_older_epoch_are_not_obeyed() -> None:
    bench = Bench()
    bench.register(epoch=5)
    bench.runs()
    assert bench.step(orders(an_order(), epoch=4)).do == []
    assert bench.state.held == {}
    bench.step(orders(an_order(), epoch=6))
    assert bench.state.epoch == 6
    assert bench.step(orders(stop=(Stop(key(), "old"),), epoch=5)).do == []


def test_orders_without_a_link_are_not_obeyed(bench: Bench) -> None:
    bench.step(Unlinked(1))
    assert bench.step(orders(an_order())).do == []


# -- room ------------------------------------------------------------------------------------------


def test_what_is_sent_ahead_waits_for_room_and_keeps_its_order(bench: Bench) -> None:
    bench.step(orders(an_order(0, cores=3), an_order(1, cores=2), an_order(2, cores=1)))
    assert bench.done(Start) == [Start(an_order(0, cores=3))]
    bench.step(started(0))
    assert bench.step(ended(0)).do[0] == Start(an_order(1, cores=2))
    assert bench.done(Start)[1:] == [Start(an_order(2, cores=1))]


def test_an_order_larger_than_the_slave_runs_alone(bench: Bench) -> None:
    bench.step(orders(an_order(0, cores=9), an_order(1)))
    assert [effect.order.key for effect in bench.done(Start)] == [key(0)]


def test_what_waits_is_taken_back_unstarted(bench: Bench) -> None:
    bench.step(orders(an_order(0, cores=4), an_order(1)))
    bench.step(orders(stop=(Stop(key(1), "needed elsewhere", unstarted=True),)))
    (told,) = bench.exits()
    assert (told.key, told.exit.reason, told.exit.code, told.exit.signal) == (key(1), "stopped", None, None)
    assert not bench.done(SignalTree)
    bench.step(started(0), ended(0))
    assert not bench.done(Start)


def test_what_has_begun_is_not_taken_back(bench: Bench) -> None:
    """The order to give it back crossed its start: it runs on, whether it is being launched or runs."""
    bench.step(orders(an_order(0)))
    bench.step(orders(stop=(Stop(key(0), "needed elsewhere", unstarted=True),)))
    bench.step(started(0))
    bench.step(orders(stop=(Stop(key(0), "needed elsewhere", unstarted=True),)))
    assert not bench.done(SignalTree)
    bench.step(ended(0))
    (told,) = bench.exits()
    assert (told.exit.code, told.exit.reason) == (0, "")


def test_more_than_a_slave_may_hold_is_not_taken_on(bench: Bench) -> None:
    bench.state.held = {key(n, job=9): bench.core._work.state.held.get(key()) for n in range(MAX_HELD)}  # type: ignore[misc]
    bench.core._work.accept(an_order())
    assert key() not in bench.state.held
    assert bench.core._work.exited[0].exit.reason == "lost"
    bench.state.held = {}


# -- stops ------------------------------------------------------------------------------------------


def test_a_stop_is_term_then_kill_then_kill_again(bench: Bench) -> None:
    bench.runs(an_order())
    out = bench.step(orders(stop=(Stop(key(), "an operator said so", 4.0),)))
    assert out.do == [SignalTree(key(), kill=False)]
    assert out.save == [StopAsked(key(), "stopped", "an operator said so", 4.0)]
    assert bench.core.next_wakeup() == bench.now + 4.0
    assert bench.step(after_s=3.9).do == []
    assert bench.step(after_s=0.1).do == [SignalTree(key(), kill=True)]
    assert bench.step(after_s=KILL_AGAIN_S - 0.1).do == []
    assert bench.step(after_s=0.1).do == [SignalTree(key(), kill=True)]
    bench.step(ended(code=None, signal=9))
    (told,) = bench.exits()
    assert (told.exit.reason, told.exit.signal, told.exit.text) == ("stopped", 9, "an operator said so")
    assert bench.core.next_wakeup() is None or bench.step(after_s=100).do == []


def test_a_second_stop_does_not_give_more_time(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(orders(stop=(Stop(key(), "one", 4.0),)))
    bench.step(after_s=3)
    assert bench.step(orders(stop=(Stop(key(), "two", 4.0),))).do == []
    assert bench.step(after_s=1).do == [SignalTree(key(), kill=True)]


def test_a_stop_without_a_grace_takes_the_slaves_own(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(orders(stop=(Stop(key(), "why"),)))
    assert bench.core.next_wakeup() == bench.now + 10.0


def test_a_stop_of_something_unknown_is_answered_with_lost(bench: Bench) -> None:
    bench.step(orders(stop=(Stop(key(7), "stale"),)))
    (told,) = bench.exits()
    assert (told.key, told.exit.reason) == (key(7), "lost")
    assert bench.out.save == []


def test_a_stop_during_the_launch_is_said_again_once_it_runs(bench: Bench) -> None:
    bench.step(orders(an_order()))
    assert bench.step(orders(stop=(Stop(key(), "why", 4.0),))).do == [SignalTree(key(), kill=False)]
    bench.step(started(), after_s=1)
    assert bench.done(SignalTree) == [SignalTree(key(), kill=False)]
    bench.step(ended(code=0))
    assert bench.exits()[0].exit.reason == "stopped"


def test_run_and_stop_in_one_packet_never_start_anything(bench: Bench) -> None:
    bench.step(orders(an_order(), stop=(Stop(key(), "changed my mind"),)))
    assert not bench.done(Start)
    assert bench.exits()[0].exit.reason == "stopped"


def test_a_stop_of_what_has_ended_changes_nothing(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(ended(code=0))
    assert bench.step(orders(stop=(Stop(key(), "late"),))).save == []
    assert bench.state.ended[key()].exit is not None
    assert bench.state.ended[key()].exit.reason == ""


def test_a_process_that_nobody_ordered_is_killed(bench: Bench) -> None:
    assert bench.step(started(5)).do == [SignalTree(key(5), kill=True)]
    assert bench.step(ended(5)).do == [ForgetProcess(key(5))]


# -- how it ends ------------------------------------------------------------------------------------


def test_a_command_that_cannot_start_says_why(bench: Bench) -> None:
    bench.step(orders(an_order()))
    bench.step(LaunchFailed(key(), "no-command", "there is no render"))
    (told,) = bench.exits()
    assert (told.exit.reason, told.exit.text, told.exit.code) == ("no-command", "there is no render", None)
    assert bench.state.cores_used == 0


def test_a_keepers_death_is_told_as_such(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(ended(code=None, reason="keeper-died"))
    (told,) = bench.exits()
    assert (told.exit.reason, told.exit.code, told.exit.signal) == ("keeper-died", None, None)
    assert bench.state.failed == 0


def test_a_start_told_again_by_the_keeper_is_no_news(bench: Bench) -> None:
    bench.runs(an_order())
    assert bench.step(ProcessStarted(key(), 100, 0, 5000.0)).do == []
    assert bench.out.save == []


def test_outputs_are_looked_at_before_and_after(bench: Bench) -> None:
    order = an_order(outputs=("a.png",))
    assert bench.step(orders(order)).do == [Prepare(order)]
    before = {"/a.png": (1, 2, 3)}
    assert bench.step(OutputsSeen(key(), before)).save == [Prepared(key(), before)]
    assert bench.out.do == [Start(order)]
    bench.step(started())
    assert bench.step(ended(code=0)).do == [Verify(order, before)]
    assert bench.out.save == []
    bench.step(Verified(key(), "output /a.png is missing"))
    (told,) = bench.exits()
    assert (told.exit.code, told.exit.reason, told.exit.text) == (
        0,
        "missing-output",
        "output /a.png is missing",
    )
    assert told.exit.cpu_s == 1.5


def test_good_outputs_are_a_plain_exit(bench: Bench) -> None:
    bench.steps(orders(an_order(outputs=("a.png",))), OutputsSeen(key(), {}), started(), ended(code=0))
    bench.step(Verified(key(), ""))
    assert (bench.exits()[0].exit.code, bench.exits()[0].exit.reason) == (0, "")
    assert bench.state.done == 1


def test_a_failed_attempts_outputs_are_not_looked_at(bench: Bench) -> None:
    bench.steps(orders(an_order(outputs=("a.png",))), OutputsSeen(key(), {}), started(), ended(code=1))
    assert not bench.done(Verify)
    assert bench.exits()[0].exit.code == 1


def test_the_cores_are_free_while_outputs_are_looked_at(bench: Bench) -> None:
    bench.steps(orders(an_order(0, cores=4, outputs=("a",)), an_order(1)), OutputsSeen(key(), {}), started())
    bench.step(ended(code=0))
    assert bench.done(Start) == [Start(an_order(1))]


def test_a_stop_does_not_wait_for_a_disk_that_hangs(bench: Bench) -> None:
    bench.step(orders(an_order(0, outputs=("a",)), an_order(1, outputs=("a",))))
    bench.steps(OutputsSeen(key(0), {}), started(0), ended(0, code=0))
    bench.step(orders(stop=(Stop(key(0), "x"), Stop(key(1), "x"))))
    assert [item.exit.reason for item in bench.exits()] == ["stopped", "stopped"]
    assert bench.step(Verified(key(0), ""), OutputsSeen(key(1), {})).do == []


def test_scratch_is_removed_when_the_exit_is_noted(bench: Bench) -> None:
    bench.runs(an_order(cwd="scratch"))
    assert not any(isinstance(effect, RemoveScratch) for effect in bench.step(ended()).do)
    bench.step(orders(noted=(key(),)))
    assert bench.done(RemoveScratch) == [RemoveScratch(key())]


# -- sizes and bugs ---------------------------------------------------------------------------------


def test_reports_go_in_parts_that_fit_into_a_packet(bench: Bench) -> None:
    bench = Bench(cores=1000)
    bench.register()
    count = 2 * REPORT_MAX + 10
    bench.step(orders(*[an_order(n) for n in range(count)]))
    bench.step(*[LaunchFailed(key(n), "no-cwd", "\U0001f9a4" * 5000) for n in range(count)])
    sizes = [len(encode(report, MAX_BODY)) for report in bench.sent(Report)]
    assert len(sizes) == 3
    assert [item.key.frame for item in bench.exits()] == list(range(count))
    bench.register()
    assert [item.key.frame for item in bench.exits()] == list(range(count))


def test_a_phase_cannot_be_skipped(bench: Bench) -> None:
    bench.step(orders(an_order()))
    with pytest.raises(InvalidTransitionError):
        bench.state.held[key()].move(Phase.QUEUED)


def test_an_order_that_stands_in_the_spool_twice_was_given_once() -> None:
    """What is known of it by then stays known."""
    order = Accepted(an_order())
    records: list[SpoolRecord] = [Boot(BOOT), order, Ended(key(), Exit(code=0)), order]
    state = restore(records, boot_id=BOOT, now=5.0, limits=SlaveLimits())
    assert state.held.keys() == state.ended.keys() == {key()}
    assert known(state) == {}


def test_another_boot_runs_nothing_of_the_spool(bench: Bench) -> None:
    bench.runs(an_order(0), an_order(1))
    bench.step(orders(an_order(2)), ended(1, code=0))
    again = Bench(state=bench.restored("boot-2"))
    check = {attempt.key: attempt.exit.reason for attempt in again.state.ended.values() if attempt.exit}
    assert check == {key(1): "", key(0): "lost", key(2): "lost"}
    assert again.state.cores_used == 0
    assert bench.restored(BOOT).ended.keys() == {key(1)}
