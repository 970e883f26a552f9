"""The slave's core by hand: farms and epochs, limits, kills, leaving, and anything in any order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue.proto.link_messages import Held, LimitsNow, Report, Stop
from drqueue.proto.messages import Done, GetSlave, KillAttempts, Refusal, Request, SetLimits
from drqueue.proto.model import LimitsChange, SlaveLimits
from drqueue.slave.core.effects import Alive, AllEnded, Answer, SayHello, Send, Start, Unlink
from drqueue.slave.core.events import (
    Asked,
    AutoEnableDue,
    Event,
    Granted,
    Heard,
    LeaveAsked,
    OutputsSeen,
    Ping,
    RegisteredAs,
    Unlinked,
    Verified,
)
from drqueue.slave.core.processes import ForgetProcess, LaunchFailed, SignalTree
from drqueue.slave.core.records import FarmLeft, LimitsSet, MasterSeen, StopAsked
from tests.slave.core_bench import Bench, an_order, ended, key, orders, started


@pytest.fixture
def bench() -> Bench:
    """A registered slave of four cores."""
    made = Bench()
    made.register()
    return made


# -- farms and epochs -------------------------------------------------------------------------------


def test_the_first_farm_is_taken_as_it_comes() -> None:
    bench = Bench()
    out = bench.link("farm", 7)
    assert MasterSeen("farm", 7) in out.save
    assert out.do == [SayHello(1, ())]
    assert bench.link("farm", 7).do == [SayHello(2, ())]
    assert MasterSeen("farm", 8) in bench.link("farm", 8).save


def test_an_older_epoch_is_left_without_a_hello(bench: Bench) -> None:
    bench.register(epoch=5)
    bench.steps(orders(an_order(), epoch=5), started())
    bench.link(epoch=4)
    assert [type(effect) for effect in bench.out.do] == [Unlink]
    assert not bench.state.linked
    # Its words do not keep frames alive.
    bench.step(Heard(), after_s=1800)
    assert bench.done(SignalTree) == [SignalTree(key(), kill=False)]


def test_two_masters_of_one_epoch_are_not_both_obeyed(bench: Bench) -> None:
    """One of them runs on a copy of the other's state: they give out the same names for different frames."""
    bench.link(epoch=5, life="first")
    bench.steps(RegisteredAs(3, "s"), orders(an_order(), epoch=5), started())
    bench.step(Unlinked(2))
    bench.link(epoch=5, life="second")
    (refused,) = bench.done(Unlink)
    assert "another master had epoch 5, too" in refused.text
    assert not bench.state.linked
    assert not bench.done(SayHello)
    assert bench.link(epoch=5, life="first").do[0] == SayHello(4, (Held(key(), False),))
    out = bench.link(epoch=6, life="second")
    assert MasterSeen("farm", 6, "second") in out.save
    assert bench.done(SayHello)


def test_a_master_that_tells_no_life_is_known_by_its_epoch_alone(bench: Bench) -> None:
    bench.link(epoch=5)
    assert MasterSeen("farm", 5, "first") in bench.link(epoch=5, life="first").save
    assert isinstance(bench.link(epoch=5).do[0], SayHello)
    assert bench.state.life == "first"
    assert bench.done(Unlink) == []
    bench.link(epoch=5, life="second")
    assert bench.done(Unlink)


def test_another_farm_is_served_once_the_former_ones_frames_are_gone(bench: Bench) -> None:
    bench.step(orders(an_order(0), an_order(1), an_order(2, cores=4), epoch=1))
    bench.steps(started(0), started(1), ended(1))
    bench.step(Unlinked(1))
    out = bench.link("other", 1)
    assert bench.done(SignalTree) == [SignalTree(key(0), kill=False)]
    assert bench.done(Unlink)
    assert not bench.done(SayHello)
    assert not any(isinstance(record, FarmLeft) for record in out.save)
    bench.step(Unlinked(2), after_s=10)
    assert bench.done(SignalTree) == [SignalTree(key(0), kill=True)]
    bench.step(ended(0, code=None, signal=9))
    out = bench.link("other", 1)
    assert out.save[:2] == [FarmLeft("farm"), MasterSeen("other", 1)]
    assert {effect.key for effect in bench.done(ForgetProcess)} == {key(0), key(1), key(2)}
    assert bench.done(SayHello) == [SayHello(3, ())]
    assert (bench.state.farm, bench.state.held, bench.state.ended) == ("other", {}, {})


def test_another_farm_is_served_at_once_where_nothing_runs(bench: Bench) -> None:
    bench.runs(an_order())
    bench.step(ended())
    bench.link("other", 1)
    assert bench.done(SayHello) == [SayHello(2, ())]
    bench.register("other", 1)
    assert bench.exits() == []


# -- limits -----------------------------------------------------------------------------------------


def ask(bench: Bench, request: Request, only_of: str | None = None) -> object:
    """What the core answers."""
    bench.step(Asked("asker", request, only_of))
    (answer,) = bench.done(Answer)
    assert answer.asker == "asker"
    return answer.message


def test_an_artist_kills_what_they_submitted_and_nothing_else(bench: Bench) -> None:
    mine, yours = an_order(0, submitter="ann"), an_order(1, submitter="bob")
    nobodys = an_order(2)
    bench.step(orders(mine, yours, nobodys))
    for keys in ((key(1),), (key(0), key(1)), (key(2),)):
        answer = ask(bench, KillAttempts(rq=1, keys=keys), "ann")
        assert isinstance(answer, Refusal)
        assert answer.code == "not-allowed"
        assert not bench.out.save
    answer = ask(bench, KillAttempts(rq=1, keys=(key(1),)), "ann")
    assert isinstance(answer, Refusal)
    assert answer.text == "job 1 was submitted by bob: only they or a supervisor may do that"
    assert isinstance(ask(bench, KillAttempts(rq=1, job=1), "ann"), Refusal)
    assert ask(bench, KillAttempts(rq=1, keys=(key(0),)), "ann") == Done(rq=1, count=1)
    assert ask(bench, KillAttempts(rq=1, keys=(key(9),)), "ann") == Done(rq=1, count=0)
    assert ask(bench, KillAttempts(rq=1, keys=(key(1), key(2)))) == Done(rq=1, count=2)


def test_nobodys_frames_are_no_artists_without_a_name(bench: Bench) -> None:
    bench.step(orders(an_order(0)))
    assert isinstance(ask(bench, KillAttempts(rq=1, keys=(key(0),)), ""), Refusal)


def test_limits_are_kept_answered_and_told(bench: Bench) -> None:
    answer = ask(bench, SetLimits(rq=4, change=LimitsChange(enabled=False, max_cpus=2)))
    assert answer == Done(rq=4, count=1)
    wanted = SlaveLimits(enabled=False, max_cpus=2)
    assert bench.out.save == [LimitsSet(wanted)]
    assert bench.sent(LimitsNow) == [LimitsNow(limits=wanted)]
    assert ask(bench, SetLimits(rq=5, change=LimitsChange(max_cpus=2))) == Done(rq=5, count=0)
    assert bench.sent(LimitsNow) == []
    assert ask(bench, SetLimits(rq=6, change=LimitsChange(max_cpus=None))) == Done(rq=6, count=1)
    assert bench.state.limits.max_cpus is None


def test_limits_changed_without_a_link_are_told_on_the_next(bench: Bench) -> None:
    bench.step(Unlinked(1))
    ask(bench, SetLimits(rq=1, change=LimitsChange(pools=("a", "b", "a"))))
    assert bench.sent(LimitsNow) == []
    bench.link()
    ask(bench, SetLimits(rq=2, change=LimitsChange(max_load=3.0)))
    assert bench.sent(LimitsNow) == []
    bench.register()
    assert bench.state.limits == SlaveLimits(pools=("a", "b"), max_load=3.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (LimitsChange(autoenable="25:00"), "25:00"),
        (LimitsChange(pools=("",)), "pool"),
        (LimitsChange(pools=("a b",)), "a b"),
        (LimitsChange(pools=tuple(f"p{n}" for n in range(65))), "64"),
        (LimitsChange(max_load=float("nan")), "max_load"),
        (LimitsChange(join=("a:b",)), "a:b"),
        (LimitsChange(leave=("a b",)), "a b"),
        (LimitsChange(leave=("night",)), "night"),
        (LimitsChange(pools=("night",), leave=("Default",)), "Default"),
        (LimitsChange(join=("night",), leave=("night",)), "night"),
        (LimitsChange(join=tuple(f"p{n}" for n in range(64))), "65"),
    ],
)
def test_limits_that_cannot_be_are_refused_in_a_sentence(
    bench: Bench, change: LimitsChange, word: str
) -> None:
    answer = ask(bench, SetLimits(rq=4, change=change))
    assert isinstance(answer, Refusal)
    assert word in answer.text
    assert bench.out.save == []


@pytest.mark.parametrize(
    ("change", "pools"),
    [
        (LimitsChange(join=("night", "fast")), ("Default", "night", "fast")),
        (LimitsChange(join=("Default", "night", "night")), ("Default", "night")),
        (LimitsChange(leave=("Default",)), ()),
        (LimitsChange(pools=()), ()),
        (LimitsChange(join=("night",), leave=("Default", "Default")), ("night",)),
        (LimitsChange(pools=("a", "b"), join=("c", "a"), leave=("b",)), ("a", "c")),
        (LimitsChange(pools=tuple(f"p{n}" for n in range(65)), leave=("p0",)), None),
    ],
)
def test_pools_are_replaced_then_joined_then_left(
    bench: Bench, change: LimitsChange, pools: tuple[str, ...] | None
) -> None:
    """Each once, in order; even the last one may be left."""
    assert ask(bench, SetLimits(rq=4, change=change)) == Done(rq=4, count=1)
    wanted = pools if pools is not None else tuple(f"p{n}" for n in range(1, 65))
    assert bench.state.limits == SlaveLimits(pools=wanted)
    assert bench.sent(LimitsNow) == [LimitsNow(limits=SlaveLimits(pools=wanted))]


def test_joining_where_it_is_already_changes_nothing(bench: Bench) -> None:
    change = LimitsChange(join=("Default",))
    assert ask(bench, SetLimits(rq=4, change=change)) == Done(rq=4, count=0)
    assert bench.out.save == []


def test_autoenable_enables_and_keeps_the_rest(bench: Bench) -> None:
    ask(bench, SetLimits(rq=1, change=LimitsChange(enabled=False, max_cpus=3, autoenable="21:00")))
    bench.step(AutoEnableDue())
    wanted = SlaveLimits(enabled=True, max_cpus=3, autoenable="21:00")
    assert bench.out.save == [LimitsSet(wanted)]
    assert bench.sent(LimitsNow) == [LimitsNow(limits=wanted)]
    assert bench.step(AutoEnableDue()).save == []


# -- kills ------------------------------------------------------------------------------------------


def test_a_kill_at_the_slave_is_reported_as_one(bench: Bench) -> None:
    bench.runs(an_order(0), an_order(1))
    assert ask(bench, KillAttempts(rq=9, keys=(key(0), key(5)))) == Done(rq=9, count=1)
    assert bench.done(SignalTree) == [SignalTree(key(0), kill=False)]
    assert [record.reason for record in bench.out.save if isinstance(record, StopAsked)] == ["killed"]
    bench.step(ended(0, code=None, signal=15))
    assert [(item.exit.reason, item.exit.signal) for item in bench.exits()] == [("killed", 15)]


def test_all_attempts_of_a_job_are_killed_at_once(bench: Bench) -> None:
    bench.runs(an_order(0), an_order(1), an_order(2, key=key(2, job=7)))
    assert ask(bench, KillAttempts(rq=9, job=1)) == Done(rq=9, count=2)
    assert ask(bench, KillAttempts(rq=9, job=1)) == Done(rq=9, count=0)


def test_what_makes_no_sense_is_refused(bench: Bench) -> None:
    for request in (KillAttempts(rq=9), GetSlave(rq=9)):
        answer = ask(bench, request)
        assert isinstance(answer, Refusal)
        assert answer.code == "bad-request"


# -- leaving ----------------------------------------------------------------------------------------


def test_leaving_takes_all_frames_along(bench: Bench) -> None:
    bench.runs(an_order(0), an_order(1, cores=3))
    bench.step(orders(an_order(2)))
    bench.step(LeaveAsked())
    assert {effect.key for effect in bench.done(SignalTree)} == {key(0), key(1)}
    assert [(item.key, item.exit.reason) for item in bench.exits()] == [(key(2), "shutdown")]
    bench.step(ended(0))
    assert bench.exits()[0].exit.reason == "shutdown"
    assert not bench.done(AllEnded)
    bench.step(orders(an_order(3)))
    assert [(item.key, item.exit.reason) for item in bench.exits()] == [(key(3), "lost")]
    bench.step(ended(1))
    assert bench.out.do[-1] == AllEnded()
    assert not bench.done(Start)
    bench.step()
    assert bench.out.do == []


def test_leaving_is_said_before_frames_end_lest_the_master_sends_them_again(bench: Bench) -> None:
    bench.runs(an_order(0, cores=4))
    bench.step(orders(an_order(1)))
    bench.step(LeaveAsked())
    assert [effect.message for effect in bench.done(Send)] == [
        LimitsNow(limits=SlaveLimits(enabled=False)),
        Report(exited=tuple(bench.exits())),
    ]
    # It is no wish of anybody's: after the restart the slave takes frames again.
    assert bench.state.limits == SlaveLimits()


def test_leaving_with_nothing_is_over_at_once(bench: Bench) -> None:
    bench.step(LeaveAsked())
    assert bench.out.do[-1] == AllEnded()


def test_a_ping_is_answered(bench: Bench) -> None:
    assert bench.step(Ping()).do == [Alive()]


# -- anything, in any order -------------------------------------------------------------------------

_frames = st.integers(0, 3)
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        lambda frame, cores, gpus, outputs, timeout_s, hold: orders(
            an_order(frame, cores=cores, gpus=gpus, outputs=outputs, timeout_s=timeout_s, on_unreachable=hold)
        ),
        _frames,
        st.sampled_from([1, 2, 5, 0.1, 0.25, 1.7]),
        st.sampled_from([(), (), (0,), (1,), (0, 1)]),
        st.sampled_from([(), ("a.png",)]),
        st.sampled_from([0, 5, 50]),
        st.sampled_from(["lease", "hold"]),
    ),
    st.builds(
        lambda frame, grace: orders(stop=(Stop(key(frame), "why", grace),)),
        _frames,
        st.sampled_from([None, 0.0, 3]),
    ),
    st.builds(lambda frame: orders(noted=(key(frame),)), _frames),
    st.builds(started, _frames, st.sampled_from([0, 50_000])),
    st.builds(ended, _frames, st.sampled_from([0, 1, None])),
    st.builds(lambda frame: LaunchFailed(key(frame), "no-cwd", "no"), _frames),
    st.builds(lambda frame: OutputsSeen(key(frame), {"/a": (1, 2, 3)}), _frames),
    st.builds(lambda frame, text: Verified(key(frame), text), _frames, st.sampled_from(["", "missing"])),
    st.builds(Unlinked, st.integers(1, 3)),
    st.builds(lambda: Asked(0, KillAttempts(rq=1, job=1))),
    st.builds(lambda on: Asked(0, SetLimits(rq=1, change=LimitsChange(enabled=on))), st.booleans()),
    st.sampled_from([Heard(), Granted(9000.0), AutoEnableDue(), LeaveAsked(), Ping()]),
)
_moves = st.one_of(
    st.lists(_events, min_size=1, max_size=4),
    st.tuples(st.sampled_from(["farm", "farm", "farm", "other"]), st.integers(1, 3)),
    st.floats(0, 4000, allow_nan=False),
)


@given(st.lists(_moves, max_size=25))
@settings(max_examples=150, deadline=None)
def test_nothing_that_may_happen_breaks_an_invariant(moves: list[object]) -> None:
    """And no exit is ever lost: what was accepted and is not noted is held, and told on the next link."""
    bench = Bench()
    bench.register()
    for move in moves:
        if isinstance(move, list):
            bench.step(*move)
        elif isinstance(move, tuple):
            bench.register(*move)
        else:
            bench.step(after_s=move)  # type: ignore[arg-type]
    state = bench.state
    bench.step(*[ended(stranger.frame) for stranger in state.strangers])
    bench.register(state.farm, state.epoch)
    told = {item.key for item in bench.exits()}
    assert told == state.ended.keys()
