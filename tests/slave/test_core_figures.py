"""What a slave's core counts and tells of frames, to the figure: what nobody would miss until it is wrong."""

import pytest

from drqueue.proto.link_messages import LimitsNow
from drqueue.proto.messages import Done, KillAttempts
from drqueue.proto.model import SlaveLimits
from drqueue.slave.core.effects import Answer
from drqueue.slave.core.events import Asked, LeaveAsked, RegisteredAs
from drqueue.slave.core.processes import ProcessEnded
from drqueue.slave.core.restore import restore
from tests.slave.core_bench import BOOT, Bench, an_order, key, orders


@pytest.fixture
def bench() -> Bench:
    """A registered slave of four cores."""
    made = Bench()
    made.register()
    return made


def test_an_exit_says_what_the_keeper_measured(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(ProcessEnded(key(), 3, None, 0.25, 3 << 19, 5000.5, 5000.75, 17, ""))
    (exited,) = bench.exits()
    exit_ = exited.exit
    assert (exit_.code, exit_.signal, exit_.reason) == (3, None, "")
    assert (exit_.cpu_s, exit_.peak_mb, exit_.log_bytes) == (0.25, 1.5, 17)
    assert (exit_.started_at, exit_.ended_at) == (5000.5, 5000.75)


def test_times_of_a_clock_that_was_set_back_are_not_below_zero(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(ProcessEnded(key(), 0, None, -0.5, 0, -3.0, -2.0, 0, ""))
    (exited,) = bench.exits()
    assert (exited.exit.cpu_s, exited.exit.started_at, exited.exit.ended_at) == (0.0, 0.0, 0.0)


def test_a_kill_counts_those_that_wait_for_room_and_no_others(bench: Bench) -> None:
    bench.runs(an_order(0, cores=4))
    bench.step(orders(an_order(1, cores=4), an_order(2, cores=4)))
    bench.step(ProcessEnded(key(0), 0, None, 0.0, 0, 0.0, 0.0, 0, ""))
    for count in (2, 0):
        # One runs, one waits, one is over; the second time all are, or are under way to it.
        bench.step(Asked("x", KillAttempts(rq=1, job=1)))
        (answer,) = bench.done(Answer)
        assert answer.message == Done(rq=1, count=count)


def test_one_that_leaves_says_on_each_link_that_it_takes_nothing(bench: Bench) -> None:
    """Its Hello tells the limits that somebody set: a master would order it what it refuses, for ever."""
    bench.runs(an_order())
    bench.step(LeaveAsked())
    disabled = [LimitsNow(limits=SlaveLimits(enabled=False))]
    assert bench.sent(LimitsNow) == disabled
    bench.link()
    bench.step(RegisteredAs(3, "s"))
    assert bench.sent(LimitsNow) == disabled


def test_a_new_slave_has_seen_no_epoch() -> None:
    assert restore([], boot_id=BOOT, now=1.0, limits=SlaveLimits()).epoch == 0
