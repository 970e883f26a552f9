"""Slaves that link: names, identities, and every row of the reconcile table."""

import pytest

from drqueue.master.core import on_slave
from drqueue.master.core.core import Core
from drqueue.master.core.events import SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.master.core.records import AttemptRecord, LogRecord
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    Beat,
    Exited,
    Held,
    LimitsNow,
    LogKept,
    Progressed,
    Registered,
    Report,
    Started,
    Status,
)
from drqueue.proto.messages import Refusal, SetLimits, SlaveVerb
from drqueue.proto.model import Exit, LimitsChange, LogEnds, MachineInfo, MachineLoad, SlaveLimits
from tests.builders import LOCAL_NODE, WALL, CoreFarm, a_hello, a_job, badly


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def registered(farm: CoreFarm, link: int) -> Registered:
    (message,) = [m for m in farm.said[link] if isinstance(m, Registered)]
    return message


# -- who it is --------------------------------------------------------------------------------------------


def test_a_slave_is_registered_before_it_gets_orders(farm: CoreFarm) -> None:
    farm.submit()
    link = farm.link()
    assert registered(farm, link) == Registered(slave=0, name="s1", beat_s=10, silence_s=30)
    assert isinstance(farm.said[link][0], Registered)
    assert len(farm.orders(link)) == 4


def test_a_taken_name_gets_a_suffix_and_keeps_it(farm: CoreFarm) -> None:
    names = [registered(farm, farm.link("node", identity=i)).name for i in "abc"]
    assert names == ["node", "node-2", "node-3"]
    farm.restart()
    assert registered(farm, farm.link("node", identity="b")).name == "node-2"


def test_a_slave_that_is_called_otherwise_now_is_renamed(farm: CoreFarm) -> None:
    farm.link("other", identity="o")
    farm.unlink(farm.link("node-gpu-2", identity="i"))
    link = farm.link("node", identity="i")
    assert registered(farm, link).name == "node", "node-gpu-2 is no suffixed form of node"
    farm.unlink(link)
    assert registered(farm, farm.link("other", identity="i")).name == "other-2"


def test_slave_ids_are_never_used_again(farm: CoreFarm) -> None:
    farm.unlink(farm.link("a"))
    farm.slave_verb("a", "forget")
    farm.restart()
    assert registered(farm, farm.link("b")).slave == 1


def test_an_identity_in_use_is_refused_naming_both(farm: CoreFarm) -> None:
    first = farm.link("one", identity="same")
    second = farm.link("two", identity="same")
    refused = farm.unlinked[second]
    assert (refused.code, refused.retry) == ("identity-in-use", True)
    assert "one" in refused.text
    assert "two" in refused.text
    assert Beat(echo=True) in farm.said[first], "the first one is asked for a sign of life"
    assert farm.slave("one").linked
    farm.unlink(second)
    assert farm.slave("one").linked
    farm.unlink(first)
    assert farm.link("one", identity="same") not in farm.unlinked


def test_an_unknown_link_is_told_to_say_hello_again(farm: CoreFarm) -> None:
    farm.step(SlaveSaid(99, Status(load=MachineLoad())))
    assert (farm.unlinked[99].code, farm.unlinked[99].retry) == ("say-hello", True)


def test_what_the_slave_is_now_replaces_what_it_was(farm: CoreFarm) -> None:
    farm.unlink(farm.link(cores=4))
    machine = MachineInfo(hostname="new", os="darwin", boot_id="boot-2")
    farm.link(cores=8, memory_mb=1, machine=machine, control="unix:/x", limits=SlaveLimits(max_cpus=6))
    farm.restart()
    view = farm.slave()
    assert (view.machine, view.cores, view.memory_mb, view.control) == (machine, 6, 1, "unix:/x")


# -- the table --------------------------------------------------------------------------------------------


def a_running_frame(farm: CoreFarm) -> tuple[int, AttemptKey]:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 0}))
    return link, farm.order(link).key


@pytest.mark.parametrize("restart", [False, True])
def test_live_here_and_held_goes_on(farm: CoreFarm, restart: bool) -> None:
    link, key = a_running_frame(farm)
    farm.restart() if restart else farm.unlink(link)
    link = farm.link(held=[Held(key)])
    assert farm.stops(link) == farm.orders(link) == farm.noted(link) == []
    farm.exited(link, key)
    assert farm.states() == {1: "DONE"}
    assert farm.outcomes() == ["done"]


@pytest.mark.parametrize("restart", [False, True])
def test_live_here_with_a_wish_is_told_again(farm: CoreFarm, restart: bool) -> None:
    link, key = a_running_frame(farm)
    farm.verb(0, "hard-stop")
    farm.restart() if restart else farm.unlink(link)
    link = farm.link(held=[Held(key)])
    assert farm.stops(link) == [(key, "hard-stop")]


def test_a_wish_made_while_the_slave_is_away_is_told_when_it_comes(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    farm.unlink(link)
    farm.frame(0, "kill", "1")
    assert farm.stops(link) == []
    assert farm.stops(farm.link(held=[Held(key)])) == [(key, "kill")]


@pytest.mark.parametrize("restart", [False, True])
def test_live_here_but_not_held_is_over_and_nobodys_failure(farm: CoreFarm, restart: bool) -> None:
    link, key = a_running_frame(farm)
    farm.restart() if restart else farm.unlink(link)
    link = farm.link()
    assert farm.outcomes() == ["lost", ""]
    assert farm.order(link).key.attempt == key.attempt + 1
    assert farm.frames()[1].requeued == 0


@pytest.mark.parametrize("held", [AttemptKey(0, 0, 0, 9), AttemptKey(5, 0, 0, 1), AttemptKey(0, 3, 0, 1)])
def test_held_but_nothing_known_of_it_is_stopped(farm: CoreFarm, held: AttemptKey) -> None:
    farm.submit(a_job("1", stopped=True))
    link = farm.link(held=[Held(held)])
    assert farm.stops(link) == [(held, "stale")]
    farm.exited(link, held)
    assert farm.noted(link) == [held]
    assert farm.states() == {1: "WAITING"}


def test_held_but_live_elsewhere_is_stopped_and_its_report_is_ignored(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    farm.unlink(link)
    farm.slave_verb("s1", "declare-dead")
    other = farm.link("s2")
    second = farm.order(other).key
    link = farm.link(held=[Held(key)])
    assert farm.stops(link) == [(key, "stale")]
    farm.exited(link, key, badly())
    assert farm.noted(link) == [key]
    assert farm.states() == {1: "ASSIGNED"}
    assert farm.slave("s1").cores_used == 0
    farm.exited(other, second)
    farm.exited(link, key)
    assert farm.outcomes() == ["lost", "done"]


def test_the_very_attempt_of_another_slave_is_not_this_ones_to_report(farm: CoreFarm) -> None:
    """A stranger that knows the right name changes nothing."""
    link, key = a_running_frame(farm)
    other = farm.link("s2", held=[Held(key)])
    assert farm.stops(other) == [(key, "stale")]
    farm.started(other, key)
    farm.exited(other, key, badly())
    assert farm.states() == {1: "ASSIGNED"}
    assert farm.slave("s1").cores_used == 1
    farm.exited(link, key)
    assert farm.outcomes() == ["done"]


@pytest.mark.parametrize("restart", [False, True])
def test_ended_and_not_noted_is_applied_when_its_report_comes(farm: CoreFarm, restart: bool) -> None:
    link, key = a_running_frame(farm)
    farm.restart() if restart else farm.unlink(link)
    link = farm.link(held=[Held(key, ended=True)])
    assert farm.states() == {1: "ASSIGNED"}
    assert farm.stops(link) == farm.noted(link) == []
    farm.exited(link, key)
    assert farm.noted(link) == [key]
    assert farm.states() == {1: "DONE"}


def test_an_ended_attempt_that_is_current_no_more_is_noted_without_effect(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    farm.unlink(link)
    farm.slave_verb("s1", "declare-dead")
    link = farm.link(held=[Held(key, ended=True)])
    assert farm.stops(link) == []
    farm.exited(link, key, badly())
    assert farm.noted(link) == [key]
    assert farm.outcomes() == ["lost", ""]


def test_an_exit_is_noted_in_the_step_that_saves_it(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    before = len(farm.saved)
    farm.exited(link, key)
    rows = [r for r in farm.saved[before:] if isinstance(r, AttemptRecord)]
    assert [(r.key, r.outcome) for r in rows] == [(key, "done")]
    assert farm.noted(link) == [key]


def test_an_exit_said_twice_is_noted_twice_and_counted_once(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    farm.exited(link, key)
    farm.exited(link, key, badly())
    assert farm.noted(link) == [key, key]
    assert farm.outcomes() == ["done"]
    assert farm.slave().frames_done == 1


def test_a_report_is_taken_in_its_order(farm: CoreFarm) -> None:
    """Started and ended between two reports."""
    link, key = a_running_frame(farm)
    news = Report(
        started=(Started(key, 5.0),), exited=(Exited(key, Exit(code=0)),), progressed=(Progressed(key, 0.5),)
    )
    farm.step(SlaveSaid(link, news))
    (row,) = farm.storage.attempts(0, 0, 1)
    assert (row.outcome, row.started_at) == ("done", 5.0)


def test_progress_is_shown_and_bounded(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    for said, shown in ((0.25, 0.25), (7.0, 1.0), (-1.0, 0.0), (float("nan"), 0.0)):
        farm.step(SlaveSaid(link, Report(progressed=(Progressed(key, said, "x" * 500),))))
        view = farm.frames()[1]
        assert (view.progress, len(view.activity)) == (shown, 200)


def test_two_links_at_once_in_one_step(farm: CoreFarm) -> None:
    farm.submit(a_job("1-8"))
    farm.step(SlaveLinked(71, a_hello("a"), (), LOCAL_NODE), SlaveLinked(72, a_hello("b"), (), LOCAL_NODE))
    assert len(farm.orders(71)) == len(farm.orders(72)) == 4


# -- limits and logs --------------------------------------------------------------------------------------


def test_a_slave_that_drains_gets_nothing_more(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-3"))
    key = farm.order(link).key
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits(enabled=False))))
    farm.exited(link, key)
    assert farm.orders(link) == []
    assert farm.slave().state == "disabled"
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits())))
    assert farm.order(link).start == 2


def set_limits(farm: CoreFarm, **change: object) -> None:
    farm.ask(SetLimits(rq=0, slave="s1", change=LimitsChange(**change)))  # type: ignore[arg-type]


def told_limits(farm: CoreFarm, link: int) -> list[LimitsChange]:
    return [m.change for m in farm.said[link] if isinstance(m, SetLimits)]


def test_limits_of_a_slave_that_is_away_wait_for_it(farm: CoreFarm) -> None:
    farm.unlink(farm.link())
    set_limits(farm, enabled=False, max_cpus=2)
    set_limits(farm, max_cpus=3)
    farm.restart()
    link = farm.link()
    assert told_limits(farm, link) == [LimitsChange(enabled=False, max_cpus=3)]
    farm.restart()
    link = farm.link()
    assert len(told_limits(farm, link)) == 1, "not yet taken up: said again"
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits(enabled=False, max_cpus=3))))
    farm.restart()
    assert told_limits(farm, farm.link()) == []


def test_a_wish_that_was_taken_up_unheard_is_not_made_again(farm: CoreFarm) -> None:
    """It obeyed, but its link dropped before it said so; what is set there later stands."""
    farm.unlink(farm.link())
    set_limits(farm, enabled=False)
    farm.unlink(farm.link())
    link = farm.link(limits=SlaveLimits(enabled=False))
    assert told_limits(farm, link) == []
    farm.unlink(link)
    assert told_limits(farm, farm.link(limits=SlaveLimits(enabled=True))) == []


def test_a_wish_has_a_size(farm: CoreFarm) -> None:
    """Also one that is merged from several."""
    farm.unlink(farm.link())
    half = tuple(f"pool-{n:03}-{'x' * 90}" for n in range(160))
    assert not isinstance(farm.ask(SetLimits(rq=0, slave="s1", change=LimitsChange(pools=half))), Refusal)
    before = farm.core.state.slaves[0].wish
    many = SetLimits(rq=0, slave="s1", change=LimitsChange(autoenable="x" * 3000))
    assert farm.refusal(many).code == "bad-limits"
    assert farm.core.state.slaves[0].wish == before


def test_a_master_knows_so_many_slaves_and_no_more(farm: CoreFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slave, "SLAVES_MOST", 2)
    farm.link("a")
    farm.unlink(farm.link("b"))
    third = farm.link("c")
    assert (farm.unlinked[third].code, farm.unlinked[third].retry) == ("too-many-slaves", True)
    assert "forget some" in farm.unlinked[third].text
    assert farm.link("b") not in farm.unlinked, "those that it knows are welcome"
    farm.step(SlaveUnlinked(third, farm.now))
    farm.unlink(farm.core.state.slaves[0].link or 0)
    farm.slave_verb("a", "forget")
    assert farm.link("c") not in farm.unlinked


def test_a_later_wish_replaces_one_that_is_under_way(farm: CoreFarm) -> None:
    farm.unlink(farm.link())
    set_limits(farm, enabled=False)
    link = farm.link()
    set_limits(farm, enabled=True)
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits(enabled=True))))
    farm.unlink(link)
    assert told_limits(farm, farm.link()) == []


def test_a_linked_slaves_limits_are_passed_on(farm: CoreFarm) -> None:
    link = farm.link()
    set_limits(farm, max_load=2.0)
    assert told_limits(farm, link) == [LimitsChange(max_load=2.0)]


def test_log_ends_are_kept_for_known_jobs_only(farm: CoreFarm) -> None:
    link, key = a_running_frame(farm)
    farm.exited(link, key)
    ends = LogEnds(size=3, head=b"abc")
    farm.step(SlaveSaid(link, LogKept(key=key, ends=ends)))
    farm.step(SlaveSaid(link, LogKept(key=AttemptKey(9, 0, 0, 1), ends=ends)))
    assert [r for r in farm.saved if isinstance(r, LogRecord)] == [LogRecord(key, ends)]


# -- forget -----------------------------------------------------------------------------------------------


def test_forget_is_for_slaves_that_are_gone_and_hold_nothing(farm: CoreFarm) -> None:
    link, _key = a_running_frame(farm)
    for verb in ("forget", "declare-dead"):
        assert farm.refusal(SlaveVerb(rq=0, slave="s1", verb=verb)).code == "bad-state"  # type: ignore[arg-type]
    farm.unlink(link)
    refusal = farm.refusal(SlaveVerb(rq=0, slave="s1", verb="forget"))
    assert "declare it dead" in refusal.text
    assert farm.slave_verb("s1", "declare-dead") == 1
    assert farm.slave("s1").state == "lost"
    assert farm.slave_verb("s1", "forget") == 1
    assert farm.refusal(SlaveVerb(rq=0, slave="s1", verb="forget")).code == "no-such-slave"
    farm.restart()
    assert farm.core.state.slaves == {}


def test_after_a_restore_a_later_masters_attempt_is_not_taken_for_a_new_one() -> None:
    """The backup knows attempt 1 as nobody's; a slave reports it, while the restored master runs its own."""
    farm = CoreFarm()
    job = farm.submit(a_job("1"))
    backup = farm.storage.load()
    later = farm.link()
    (theirs,) = farm.orders(later)

    restored = CoreFarm()
    restored.core = Core(restored.policy, backup, restored.now, WALL, from_backup=True)
    link = restored.link()
    restored.wait(3600)
    (ours,) = restored.orders(link)
    assert ours.key != theirs.key
    restored.exited(link, theirs.key)
    assert restored.states(job) == {1: "ASSIGNED"}
    restored.exited(link, ours.key)
    assert restored.states(job) == {1: "DONE"}


# -- names given out by another life on a copy of the rows ---------------------------------------------


@pytest.mark.parametrize("ended", [True, False])
def test_a_name_that_another_master_gave_is_never_given_again(farm: CoreFarm, ended: bool) -> None:
    """Its end would be taken for the end of what was started here."""
    farm.submit(a_job("1-2"))
    theirs = AttemptKey(0, 0, 0, 3)
    link = farm.link(cores=1, held=[Held(theirs, ended=ended)])
    order = farm.order(link)
    assert order.key == AttemptKey(0, 0, 0, 4)
    farm.exited(link, theirs, badly())
    assert farm.states() == {1: "ASSIGNED", 2: "WAITING"}
    farm.restart()
    link = farm.link(cores=1, held=[Held(order.key)])
    farm.exited(link, order.key)
    assert farm.order(link).key == AttemptKey(0, 0, 1, 4)


def test_f16_a_name_is_not_given_again_though_other_frames_had_as_many_attempts(farm: CoreFarm) -> None:
    """Two masters on copies of one state: what the other one's attempt came to is not this one's result."""
    farm.submit(a_job("1-2"))
    link = farm.link("s1", cores=1)
    assert farm.order(link).key == AttemptKey(0, 0, 0, 1)
    theirs = AttemptKey(0, 0, 1, 1)
    other = farm.link("s2", cores=1, held=[Held(theirs, ended=True)])
    order = farm.order(other)
    assert order.key == AttemptKey(0, 0, 1, 2)
    farm.exited(other, theirs)
    assert farm.states() == {1: "ASSIGNED", 2: "ASSIGNED"}
    farm.exited(other, order.key)
    assert farm.states() == {1: "ASSIGNED", 2: "DONE"}


@pytest.mark.parametrize("key", [AttemptKey(0, 0, 0, 2**53), AttemptKey(0, 7, 0, 5), AttemptKey(9, 0, 0, 5)])
def test_absurd_names_change_nothing(farm: CoreFarm, key: AttemptKey) -> None:
    farm.submit(a_job("1"))
    assert farm.order(farm.link(held=[Held(key, ended=True)])).key == AttemptKey(0, 0, 0, 1)
