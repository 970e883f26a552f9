"""How often a frame came back, counted or not; slots; exit codes that mean success; mail; what is reset."""

import pytest

from drqueue.master.core.effects import MailFinished
from drqueue.master.core.events import SlaveSaid
from drqueue.master.core.layer import ROWS_MOST
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, Report, Started
from drqueue.proto.messages import FrameVerb, GetSpec, SetLimits, Spec
from drqueue.proto.model import KILLED, Depend, Exit, LayerSpec, LimitsChange, Needs, SlaveLimits
from tests.builders import CoreFarm, a_job, badly, well

LONG = 10_000.0


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def shown(farm: CoreFarm, number: int = 1) -> tuple[int, int]:
    view = farm.frames()[number]
    return view.requeued, view.returned


# -- counts -----------------------------------------------------------------------------------------------


def test_a_frame_that_is_done_still_tells_how_often_it_failed(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    for _ in range(2):
        farm.exited(link, farm.order(link).key, badly())
        farm.wait(LONG)
    farm.exited(link, farm.order(link).key)
    assert farm.states() == {1: "DONE"}
    assert shown(farm) == (2, 0)
    farm.restart()
    assert shown(farm) == (2, 0)


def test_hard_stop_and_a_lost_slave_are_shown_but_not_counted(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 0}))
    farm.verb(0, "hard-stop")
    farm.exited(link, farm.order(link).key, Exit(signal=15, reason="stopped"))
    assert shown(farm) == (0, 1)
    farm.verb(0, "continue")
    farm.exited(link, farm.order(link).key, Exit(reason="lost"))
    assert shown(farm) == (0, 2)
    farm.restart()
    assert shown(farm) == (0, 2)


def test_a_kill_is_counted_and_nothing_else_is_shown(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    for count in (1, 2, 3):
        farm.exited(link, farm.order(link).key, Exit(signal=9, reason=KILLED))
        assert shown(farm) == (count, 0)
    farm.exited(link, farm.order(link).key, Exit(signal=9, reason=KILLED))
    assert farm.states() == {1: "FAILED"}
    assert shown(farm) == (3, 0)


def test_rerun_counts_once_for_every_frame_in_whatever_state(farm: CoreFarm) -> None:
    link = farm.link(cores=3)
    farm.submit(a_job("1-4", layer={"retries": 0}))
    keys = farm.keys(link)
    farm.exited(link, keys[1])
    farm.exited(link, keys[2], badly())
    keys |= farm.keys(link)
    farm.verb(0, "stop")
    assert farm.states() == {1: "DONE", 2: "FAILED", 3: "ASSIGNED", 4: "ASSIGNED"}
    farm.verb(0, "rerun")
    for number in (3, 4):
        farm.exited(link, keys[number], Exit(signal=15, reason="stopped"))
    assert farm.states() == dict.fromkeys((1, 2, 3, 4), "WAITING")
    assert {shown(farm, number) for number in (1, 2, 3, 4)} == {(0, 1)}
    farm.verb(0, "rerun")
    farm.restart()
    assert {shown(farm, number) for number in (1, 2, 3, 4)} == {(0, 2)}


def test_rerun_keeps_what_was_counted_before(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-3", layer={"retries": 1}))
    keys = farm.keys(link)
    farm.exited(link, keys[1], badly())
    farm.exited(link, keys[2], Exit(reason="lost"))
    farm.exited(link, keys[3], badly())
    farm.wait(LONG)
    keys = farm.keys(link)
    farm.exited(link, keys[2])
    farm.exited(link, keys[3], badly())
    assert farm.states() == {1: "ASSIGNED", 2: "DONE", 3: "FAILED"}
    farm.verb(0, "stop")
    farm.verb(0, "rerun")
    farm.restart()
    link = farm.link(held=[Held(keys[1])])
    farm.exited(link, keys[1], Exit(signal=15, reason="stopped"))
    assert [shown(farm, number) for number in (1, 2, 3)] == [(0, 2), (0, 2), (0, 2)]
    farm.verb(0, "continue")
    farm.fail_all(link)
    assert {shown(farm, number) for number in (1, 2, 3)} == {(1, 2)}


def test_requeue_goes_on_counting_where_the_failures_were(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2", layer={"retries": 1}))
    keys = farm.keys(link)
    farm.exited(link, keys[2])
    farm.exited(link, keys[1], badly())
    farm.wait(LONG)
    farm.exited(link, farm.order(link).key, badly())
    assert farm.states() == {1: "FAILED", 2: "DONE"}
    assert shown(farm) == (1, 0)
    farm.verb(0, "stop")
    assert farm.frame(0, "requeue", "1-2") == 2
    assert shown(farm, 1) == (0, 2)
    assert shown(farm, 2) == (0, 1)
    farm.restart()
    assert shown(farm, 1) == (0, 2)


def test_a_frame_requeued_while_it_runs_is_shown_once(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    farm.frame(0, "requeue", "1")
    assert farm.frames()[1].stop == "requeue"
    farm.exited(link, farm.order(link).key)
    assert shown(farm) == (0, 1)
    assert farm.frames()[1].stop == ""
    farm.exited(link, farm.order(link).key)
    assert farm.states() == {1: "DONE"}
    assert shown(farm) == (0, 1)


def test_finishing_a_frame_keeps_its_counts(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2", layer={"retries": 0}))
    keys = farm.keys(link)
    farm.exited(link, keys[1], badly())
    farm.exited(link, keys[2], Exit(reason="lost"))
    farm.orders(link)
    farm.frame(0, "finish", "1-2")
    assert farm.states() == {1: "DONE", 2: "DONE"}
    assert shown(farm, 1) == (0, 0)
    assert shown(farm, 2) == (0, 1)
    farm.restart()
    assert shown(farm, 2) == (0, 1)


def test_counts_stay_with_their_numbers_when_the_range_changes(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-3"))
    keys = farm.keys(link)
    for number in (1, 2, 3):
        farm.exited(link, keys[number], Exit(reason="lost"))
    keys = farm.keys(link)
    farm.exited(link, keys[2])
    farm.change(frames="2-5")
    assert farm.states()[2] == "DONE"
    assert shown(farm, 2) == (0, 1)
    assert shown(farm, 3) == (0, 1)
    assert shown(farm, 4) == (0, 0)
    farm.restart()
    assert shown(farm, 2) == (0, 1)


def test_a_frame_that_joins_after_a_rerun_has_not_come_back(farm: CoreFarm) -> None:
    """Neither a new number, nor a chunk that there was not; both count the reruns that follow."""
    link = farm.link()
    farm.submit(a_job("1-4"))
    farm.render_all(link)
    farm.verb(0, "rerun")
    farm.render_all(link)
    farm.change(frames="3-6")
    assert [shown(farm, number) for number in (3, 4, 5, 6)] == [(0, 1), (0, 1), (0, 0), (0, 0)]
    farm.restart()
    link = farm.link(name="s2")
    farm.render_all(link)
    farm.verb(0, "rerun")
    assert [shown(farm, number) for number in (3, 4, 5, 6)] == [(0, 2), (0, 2), (0, 1), (0, 1)]
    farm.change(chunk=2)
    assert [shown(farm, number) for number in (3, 5)] == [(0, 0), (0, 0)]


def test_reset_begins_every_count_anew_in_whatever_state(farm: CoreFarm) -> None:
    link = farm.link(cores=4)
    farm.submit(a_job("1-4", layer={"retries": 1}))
    farm.verb(0, "rerun")
    farm.fail_all(link, Exit(reason="stopped"))
    keys = farm.keys(link)
    farm.exited(link, keys[1])
    farm.exited(link, keys[2], badly())
    farm.exited(link, keys[3], badly())
    farm.wait(LONG)
    farm.exited(link, farm.keys(link)[2], badly())
    assert farm.states() == {1: "DONE", 2: "FAILED", 3: "ASSIGNED", 4: "ASSIGNED"}
    farm.verb(0, "stop")
    assert [shown(farm, number) for number in (1, 2, 3, 4)] == [(0, 1), (1, 1), (1, 1), (0, 1)]
    assert farm.frame(0, "reset-requeued", "1-4") == 4
    assert {shown(farm, number) for number in (1, 2, 3, 4)} == {(0, 0)}
    farm.restart()
    assert {shown(farm, number) for number in (1, 2, 3, 4)} == {(0, 0)}
    assert farm.states() == {1: "DONE", 2: "FAILED", 3: "ASSIGNED", 4: "ASSIGNED"}


def test_a_reset_gives_fresh_retries_to_a_frame_that_runs(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 1}))
    farm.exited(link, farm.order(link).key, badly())
    farm.wait(LONG)
    key = farm.order(link).key
    farm.frame(0, "reset-requeued", "1")
    farm.exited(link, key, badly())
    assert farm.states() == {1: "WAITING"}
    assert shown(farm) == (1, 0)


def test_attempt_numbers_go_on_after_a_reset(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    farm.verb(0, "rerun")
    farm.fail_all(link, Exit(reason="stopped"))
    farm.exited(link, farm.order(link).key)
    farm.frame(0, "reset-requeued", "1")
    farm.restart()
    farm.frame(0, "requeue", "1")
    assert farm.order(farm.link()).key == AttemptKey(0, 0, 0, 3)


def test_more_frames_than_get_rows_at_once_are_not_reset(farm: CoreFarm) -> None:
    farm.submit(a_job(f"1-{ROWS_MOST + 1}"))
    request = FrameVerb(rq=0, job=0, verb="reset-requeued", frames=f"1-{ROWS_MOST + 1}")
    assert farm.refusal(request).code == "bad-range"
    assert farm.frame(0, "reset-requeued", f"1-{ROWS_MOST}") == ROWS_MOST
    assert farm.refusal(FrameVerb(rq=0, job=0, verb="reset-requeued", frames="0")).code == "no-such-frame"


def test_finish_of_running_frames_leaves_the_others_alone(farm: CoreFarm) -> None:
    link = farm.link(cores=1)
    farm.submit(a_job("1-3", layer={"retries": 0}))
    farm.exited(link, farm.order(link).key, badly())
    assert farm.states() == {1: "FAILED", 2: "ASSIGNED", 3: "WAITING"}
    assert farm.frame(0, "finish", "1-3", running=True) == 1
    assert farm.states() == {1: "FAILED", 2: "DONE", 3: "WAITING"}


# -- slots ------------------------------------------------------------------------------------------------


def test_an_attempt_gets_the_lowest_slot_that_is_free(farm: CoreFarm) -> None:
    link = farm.link(cores=3)
    farm.submit(a_job("1-6"))
    orders = {order.start: order for order in farm.orders(link)}
    assert {number: order.slot for number, order in orders.items()} == {1: 0, 2: 1, 3: 2}
    farm.exited(link, orders[2].key)
    order = farm.order(link)
    assert (order.start, order.slot) == (4, 1)
    farm.exited(link, order.key)
    farm.restart()
    assert [view.slot for view in farm.frames().values() if view.state == "ASSIGNED"] == [0, 2, 1]


def test_the_process_of_a_frame_is_told(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    key = farm.order(link).key
    assert farm.frames()[1].pid == 0
    farm.step(SlaveSaid(link, Report(started=(Started(key, 5.0, 4711),))))
    assert farm.frames()[1].pid == 4711


def test_slots_of_two_slaves_do_not_mix(farm: CoreFarm) -> None:
    one, two = farm.link("a", cores=1), farm.link("b", cores=1)
    farm.submit(a_job("1-2"))
    assert (farm.order(one).slot, farm.order(two).slot) == (0, 0)


# -- exit codes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "result", "state"),
    [
        ("any", badly(7), "DONE"),
        ("any", Exit(signal=11), "FAILED"),
        ("any", Exit(code=3, reason="missing-output"), "FAILED"),
        ("any", Exit(code=3, reason="timeout"), "FAILED"),
        ("any", Exit(), "FAILED"),
        ((0, 7), badly(7), "DONE"),
        ((0, 7), badly(8), "FAILED"),
        ((7,), well(), "FAILED"),
    ],
)
def test_which_exit_is_a_success_is_the_jobs_to_say(
    farm: CoreFarm, codes: object, result: Exit, state: str
) -> None:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 0, "success_exit_codes": codes}))
    order = farm.order(link)
    assert order.success_exit_codes == codes
    farm.exited(link, order.key, result)
    assert farm.states() == {1: state}


def test_a_killed_frame_is_no_success_whatever_its_code(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 0, "success_exit_codes": "any"}))
    farm.frame(0, "kill", "1")
    farm.exited(link, farm.order(link).key, Exit(signal=15, reason="stopped"))
    assert farm.states() == {1: "FAILED"}


# -- the machine's memory -----------------------------------------------------------------------------------


def test_memory_of_the_machine_is_asked_for_but_not_set_aside(farm: CoreFarm) -> None:
    small, large = farm.link("small", memory_mb=4096), farm.link("large", memory_mb=8192)
    farm.submit(a_job("1-4", layer={"needs": Needs(machine_memory_mb=8192)}))
    assert len(farm.orders(large)) == 4
    assert farm.orders(small) == []
    assert farm.slave("large").memory_used_mb == 0


def test_why_says_that_no_machine_has_the_memory(farm: CoreFarm) -> None:
    farm.link(memory_mb=4096)
    farm.submit(a_job("1", layer={"needs": Needs(machine_memory_mb=8192)}))
    (reason,) = farm.why()
    assert reason.code == "memory-never"
    assert "lacks memory (needs 8 GB, the largest offered is 4 GB)" in reason.text


# -- mail -------------------------------------------------------------------------------------------------


def test_a_mail_goes_out_when_a_job_is_finished_and_not_before(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-2", layer={"retries": 0}, mail_when_finished=True, email="ada@x", owner="ada"))
    keys = farm.keys(link)
    farm.exited(link, keys[1])
    assert farm.mails == []
    farm.exited(link, keys[2], badly())
    mail = MailFinished(job=0, to="ada@x", name="job", frames=2, failed=1, mean_s=60.0)
    assert farm.mails == [mail]
    farm.restart()
    farm.step()
    assert farm.mails == [mail]
    farm.frame(0, "requeue", "2")
    farm.link("s2")
    farm.frame(0, "finish", "2")
    assert farm.mails[1:] == [MailFinished(job=0, to="ada@x", name="job", frames=2, failed=0, mean_s=60.0)]


def test_without_an_address_the_mail_goes_to_the_owner_and_without_the_wish_nowhere(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", owner="ada", email="x@y"))
    farm.submit(a_job("1", owner="bob", mail_when_finished=True, delete_when_finished=True))
    farm.render_all(link)
    assert [mail.to for mail in farm.mails] == ["bob"]
    assert sorted(farm.core.state.jobs) == [0]


def test_a_mail_counts_pictures_whatever_they_were_rendered_in(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1-10", layer={"retries": 0, "chunk": 4}, mail_when_finished=True, owner="ada"))
    keys = farm.keys(link)
    farm.exited(link, keys[1])
    farm.exited(link, keys[5], badly())
    farm.exited(link, keys[9])
    (mail,) = farm.mails
    assert (mail.frames, mail.failed, mail.mean_s) == (10, 4, 60.0 * 3 / 10)


def test_a_deleted_job_sends_no_mail(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", mail_when_finished=True, owner="ada"))
    key = farm.order(link).key
    farm.verb(0, "delete")
    farm.exited(link, key)
    assert farm.mails == []


# -- views ------------------------------------------------------------------------------------------------


def test_the_spec_is_told_as_it_is_now(farm: CoreFarm) -> None:
    spec = a_job("1-4", kind="blender", params={"scene": "a b"}, email="a@b", env={"A": "1"})
    farm.submit(spec)
    answer = farm.ask(GetSpec(rq=0, job=0))
    assert isinstance(answer, Spec)
    assert answer.spec == spec
    assert farm.job().kind == "blender"
    farm.change(frames="1-2", priority=7)
    answer = farm.ask(GetSpec(rq=0, job=0))
    assert isinstance(answer, Spec)
    assert (answer.spec.layers[0].frames, answer.spec.priority) == ("1-2", 7)
    assert farm.refusal(GetSpec(rq=0, job=9)).code == "no-such-job"


def test_moved_is_when_a_frame_last_started_or_ended(farm: CoreFarm) -> None:
    farm.submit(a_job("1-2", depends=()))
    submitted = farm.job().moved_at
    assert submitted == farm.job().submitted_at
    farm.wait(10)
    assert farm.job().moved_at == submitted
    link = farm.link()
    assert farm.job().moved_at == submitted + 10
    farm.wait(5)
    farm.exited(link, farm.order_first(link))
    assert farm.job().moved_at == submitted + 15


def test_layers_have_a_mean_time_of_their_own(farm: CoreFarm) -> None:
    link = farm.link()
    slow, quick = LayerSpec(name="slow", argv=("a",)), LayerSpec(name="quick", argv=("b",))
    farm.submit(a_job(layers=(slow, quick)))
    keys = {order.layer_name: order.key for order in farm.orders(link)}
    farm.exited(link, keys["slow"], well(started_at=100.0, ended_at=190.0))
    farm.exited(link, keys["quick"], well(started_at=100.0, ended_at=110.0))
    assert [layer.mean_frame_s for layer in farm.layers()] == [90.0, 10.0]
    assert farm.job().mean_frame_s == 50.0


def test_a_dependency_until_ended_takes_failed_frames_for_ends(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1", layer={"retries": 0}))
    farm.submit(a_job("1", depends=(Depend(0, "ended"),)))
    farm.exited(link, farm.order(link).key, badly())
    assert farm.order(link).key.job == 1


# -- pools one by one -----------------------------------------------------------------------------------


def test_wishes_to_join_and_leave_pools_add_up_and_are_told_when_the_slave_comes_back(farm: CoreFarm) -> None:
    link = farm.link(limits=SlaveLimits(pools=("a", "b")))
    farm.unlink(link)
    for change in (
        LimitsChange(join=("c", "d")),
        LimitsChange(leave=("c", "a")),
        LimitsChange(join=("a",), leave=("b", "gone")),
    ):
        farm.ask(SetLimits(rq=0, slave="s1", change=change))
    link = farm.link(limits=SlaveLimits(pools=("a", "b")))
    (wish,) = [message for message in farm.said[link] if isinstance(message, SetLimits)]
    assert wish.change == LimitsChange(join=("d", "a"), leave=("b",))
    link = farm.relink(link, limits=SlaveLimits(pools=("a", "d")))
    assert not [message for message in farm.said[link] if isinstance(message, SetLimits)]
    assert farm.core.state.slaves[0].wish is None


def test_the_machines_memory_is_changed_without_touching_other_needs(farm: CoreFarm) -> None:
    farm.submit(a_job("1", layer={"needs": Needs(cores=2, memory_mb=5, os=("linux",))}))
    farm.change(machine_memory_mb=4096)
    (layer,) = farm.layers()
    assert layer.needs == Needs(cores=2, memory_mb=5, os=("linux",), machine_memory_mb=4096)
