"""What clients and watchers are shown: pages, views, what is published, what is purged."""

from typing import Any

import pytest
from msgspec import structs

from drqueue.master.core.effects import Answer, AskHistory
from drqueue.master.core.events import ClientAsked, SlaveSaid
from drqueue.master.core.turn import Policy
from drqueue.proto.codec import encode
from drqueue.proto.ids import FrameKey
from drqueue.proto.link_messages import Status
from drqueue.proto.messages import (
    FarmInfo,
    FindLog,
    GetJob,
    GetSlave,
    ListFrames,
    ListJobs,
    ListSlaves,
    LogPlace,
    Unwatch,
)
from drqueue.proto.model import Depend, MachineInfo, MachineLoad
from tests.builders import ADMIN, CoreFarm, a_job, a_layer, badly

DAY = 86400.0


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def pages(farm: CoreFarm, request: Any, what: str) -> list[list[Any]]:
    found, cursor = [], 0
    while cursor is not None:
        page: Any = farm.ask(structs.replace(request, cursor=cursor))
        found.append(list(getattr(page, what)))
        cursor = page.next
    return found


# -- pages ------------------------------------------------------------------------------------------------


def test_jobs_come_in_pages(farm: CoreFarm) -> None:
    for owner in "abababa":
        farm.submit(a_job(owner=owner))
    farm.frame(2, "finish", "1-10")
    farm.verb(3, "delete")
    every = pages(farm, ListJobs(rq=0, limit=2, all=True), "jobs")
    assert [[job.id for job in page] for page in every] == [[0, 1], [2, 4], [5, 6]]
    unfinished = pages(farm, ListJobs(rq=0, limit=9), "jobs")
    assert [[job.id for job in page] for page in unfinished] == [[0, 1, 4, 5, 6]]
    of_b = pages(farm, ListJobs(rq=0, limit=2, owner="b"), "jobs")
    assert [[job.id for job in page] for page in of_b] == [[1, 5]]


def test_frames_come_in_pages_over_layers(farm: CoreFarm) -> None:
    farm.submit(a_job(layers=(a_layer("1-5", name="a"), a_layer("1-4", name="b", after=("a",)))))
    found = pages(farm, ListFrames(rq=0, job=0, limit=3), "frames")
    assert [[(f.layer_name, f.number) for f in page] for page in found] == [
        [("a", 1), ("a", 2), ("a", 3)],
        [("a", 4), ("a", 5), ("b", 1)],
        [("b", 2), ("b", 3), ("b", 4)],
    ]
    assert len(pages(farm, ListFrames(rq=0, job=0, layer="b"), "frames")[0]) == 4


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("DONE",), [2]),
        (("WAITING",), [1, 3, 4, 5]),
        (("BLOCKED",), []),
        (("FAILED", "DONE"), [2]),
        ((), [1, 2, 3, 4, 5]),
    ],
)
def test_frames_by_state(farm: CoreFarm, states: tuple[str, ...], expected: list[int]) -> None:
    farm.submit(a_job("1-5"))
    farm.frame(0, "finish", "2")
    page: Any = farm.ask(ListFrames(rq=0, job=0, states=states))
    assert [frame.number for frame in page.frames] == expected


def test_blocked_frames_are_found_as_such_and_as_waiting(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    farm.submit(a_job("1-2", depends=(Depend(0),)))
    for state in ("BLOCKED", "WAITING"):
        page: Any = farm.ask(ListFrames(rq=0, job=1, states=(state,)))
        assert [frame.state for frame in page.frames] == ["BLOCKED"] * 2


def test_a_rare_state_in_a_long_job_takes_several_short_pages(farm: CoreFarm) -> None:
    farm.core.step([], farm.now)
    farm.submit_unchecked(a_job("1-50000"))
    farm.frame(0, "finish", "45000")
    found = pages(farm, ListFrames(rq=0, job=0, states=("DONE",)), "frames")
    assert [[frame.number for frame in page] for page in found] == [[], [], [45000]]


def test_slaves_come_in_pages(farm: CoreFarm) -> None:
    for number in range(5):
        farm.link(f"s{number}")
    found = pages(farm, ListSlaves(rq=0, limit=2), "slaves")
    assert [[s.name for s in page] for page in found] == [["s0", "s1"], ["s2", "s3"], ["s4"]]


def test_pages_of_long_jobs_fit_a_packet(farm: CoreFarm) -> None:
    """Whatever the limit asked for: the codec, which every answer here goes through, would refuse them."""
    farm.submit(a_job("1", stopped=True))
    blocked = tuple(f"node-{n:04}.example.com" for n in range(500))
    for _ in range(60):
        farm.submit(a_job("1", blocked=blocked, depends=(Depend(0),), name="n" * 127))
    found = pages(farm, ListJobs(rq=0, limit=1000), "jobs")
    assert sum(map(len, found)) == 61


def test_pages_of_frames_fit_a_packet(farm: CoreFarm) -> None:
    """Also once the history has added how each one ended, in a long sentence."""
    farm.submit_unchecked(a_job(layers=(a_layer("1-1500", name="ü" * 127),), stopped=True))
    farm.frame(0, "finish", "1-1500")
    page: Any = farm.ask(ListFrames(rq=0, job=0, limit=1000))
    ended = {"slave": "n" * 100, "reason": "missing-output", "text": "t" * 500, "ended_at": 1e9, "cpu_s": 1e3}
    encode(structs.replace(page, frames=tuple(structs.replace(f, **ended) for f in page.frames)))
    assert sum(map(len, pages(farm, ListFrames(rq=0, job=0, limit=1000), "frames"))) == 1500


def test_what_a_slave_says_of_an_end_is_cut(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    farm.exited(link, farm.order(link).key, badly(text="ü" * 5000 + "\ud800", reason="r" * 5000))
    (row,) = farm.storage.attempts(0, 0, 1)
    assert (row.text, row.reason) == ("ü" * 250, "r" * 40)


def test_pages_of_slaves_fit_a_packet(farm: CoreFarm) -> None:
    machine = MachineInfo(hostname="h" * 200, os="linux", cpu_model="c" * 2000, boot_id="b")
    for number in range(150):
        farm.link_unchecked(f"s{number}", machine=machine)
    found = pages(farm, ListSlaves(rq=0, limit=1000), "slaves")
    assert len(found) > 1
    assert sum(map(len, found)) == 150


# -- views ------------------------------------------------------------------------------------------------


def test_a_slave_is_found_by_name_host_address_and_number(farm: CoreFarm) -> None:
    farm.link("a", machine=MachineInfo(hostname="h1", os="linux"), control="10.0.0.1:2345")
    farm.link("b", machine=MachineInfo(hostname="h2", os="linux"), control="unix:/run/b")
    farm.link("h1", machine=MachineInfo(hostname="h2", os="linux"))
    for who, name in (("a", "a"), ("h1", "h1"), ("10.0.0.1", "a"), ("unix:/run/b", "b"), ("0", "a")):
        assert farm.slave(who).name == name
    refusal = farm.refusal(GetSlave(rq=0, slave="h2"))
    assert (refusal.code, "b, h1" in refusal.text) == ("ambiguous-slave", True)
    for who in ("", "nobody"):
        assert farm.refusal(GetSlave(rq=0, slave=who)).code == "no-such-slave"


def test_a_slaves_states(farm: CoreFarm) -> None:
    from drqueue.proto.link_messages import LimitsNow
    from drqueue.proto.model import SlaveLimits

    link = farm.link()
    assert farm.slave().state == "idle"
    farm.submit(a_job("1-2"))
    view = farm.slave()
    assert (view.state, [frame.number for frame in view.running]) == ("busy", [1, 2])
    farm.step(SlaveSaid(link, LimitsNow(limits=SlaveLimits(enabled=False))))
    assert farm.slave().state == "disabled"
    farm.unlink(link)
    assert farm.slave().state == "unlinked"
    farm.slave_verb("s1", "declare-dead")
    assert farm.slave().state == "lost"


def test_a_layer_shows_its_command_as_a_shell_would_need_it(farm: CoreFarm) -> None:
    argv = ("render", "{frame}", "two words", "it's", "")
    farm.submit(a_job("1-4x2", layer={"argv": argv, "chunk": 2}))
    answer: Any = farm.ask(GetJob(rq=0, job=0))
    (layer,) = answer.layers
    assert layer.command == "render {frame} 'two words' 'it'\"'\"'s' ''"
    assert (layer.frames, layer.chunk, layer.counts.total) == ("1-4x2", 2, 2)
    assert layer.chunk_counts.total == 1
    frame = farm.frames()[1]
    assert (frame.number, frame.last, frame.count) == (1, 3, 2)


def test_the_farm_in_numbers(farm: CoreFarm) -> None:
    farm.link("a")
    farm.unlink(farm.link("b"))
    farm.submit(a_job("1-9"))
    info: Any = farm.ask(FarmInfo(rq=0))
    assert (info.farm, info.epoch, info.jobs, info.slaves, info.slaves_linked) == ("farm", 1, 1, 2, 1)
    assert (info.cores, info.cores_used, info.frames_running, info.frames_waiting) == (4, 4, 4, 5)


def test_the_log_of_a_live_attempt_lies_at_its_slave(farm: CoreFarm) -> None:
    link = farm.link(control="unix:/c")
    farm.submit(a_job("7"))
    key = farm.order(link).key
    expected = {"key": key, "number": 7, "slave": "s1", "control": "unix:/c", "linked": True}
    for attempt in (None, 1):
        answer = farm.ask(FindLog(rq=0, job=0, number=7, attempt=attempt))
        assert isinstance(answer, LogPlace)
        assert {name: getattr(answer, name) for name in expected} == expected
    effects = farm.step(ClientAsked(1, FindLog(rq=1, job=0, number=7, attempt=9), ADMIN))
    assert [type(effect) for effect in effects] == [AskHistory]
    assert farm.refusal(FindLog(rq=0, job=0, number=8)).code == "no-such-frame"


def test_a_request_that_a_master_does_not_answer_is_refused(farm: CoreFarm) -> None:
    assert farm.refusal(Unwatch(rq=0, watch=1)).code == "bad-request"


def test_peeking_answers_reads_and_changes_nothing(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    (effect,) = farm.core.peek(4, GetJob(rq=77, job=0), ADMIN)
    assert isinstance(effect, Answer)
    assert (effect.client, effect.message.rq) == (4, 77)
    assert farm.core.step([], farm.now).save == []


# -- watchers ---------------------------------------------------------------------------------------------


def news(farm: CoreFarm) -> tuple[set[int], set[FrameKey], set[int]]:
    jobs: set[int] = set()
    frames: set[FrameKey] = set()
    slaves: set[int] = set()
    for publish in farm.published:
        jobs |= publish.jobs
        frames |= publish.frames
        slaves |= publish.slaves
    farm.published.clear()
    return jobs, frames, slaves


def test_everything_that_changes_is_published(farm: CoreFarm) -> None:
    frame = FrameKey(0, 0, 0)
    link = farm.link()
    assert news(farm) == (set(), set(), {0})
    farm.submit(a_job("1"))
    assert news(farm) == ({0}, {frame}, {0})
    key = farm.order(link).key
    farm.started(link, key)
    assert news(farm) == ({0}, {frame}, {0})
    farm.frame(0, "kill", "1")
    assert news(farm) == ({0}, {frame}, {0})
    farm.exited(link, key, badly())
    assert news(farm) == ({0}, {frame}, {0})
    farm.step(SlaveSaid(link, Status(load=MachineLoad())))
    assert news(farm) == (set(), set(), {0})
    farm.verb(0, "stop")
    assert news(farm)[0] == {0}
    farm.exited(link, farm.order(link).key, badly())
    farm.frame(0, "finish", "1")
    assert frame in news(farm)[1]
    farm.unlink(link)
    assert news(farm)[2] == {0}
    farm.slave_verb("s1", "forget")
    assert news(farm)[2] == {0}
    farm.change(priority=1)
    assert news(farm)[0] == {0}
    farm.verb(0, "delete")
    assert news(farm)[0] == {0}


def test_dependents_are_published_when_they_may_go(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    farm.submit(a_job("1", depends=(Depend(0),)))
    news(farm)
    farm.frame(0, "finish", "1")
    assert news(farm)[0] == {0, 1}


def test_asking_publishes_nothing(farm: CoreFarm) -> None:
    farm.submit(a_job("1"))
    news(farm)
    farm.ask(ListJobs(rq=0))
    farm.frames()
    farm.why()
    assert farm.published == []


# -- purging ----------------------------------------------------------------------------------------------


def test_finished_jobs_are_purged_after_their_time() -> None:
    farm = CoreFarm(Policy(keep_s=10 * DAY))
    finished, open_, failed = (farm.submit(a_job("1")) for _ in range(3))
    farm.frame(finished, "finish", "1")
    child = farm.submit(a_job("1", depends=(Depend(finished),), stopped=True))
    farm.wait(10 * DAY - 1)
    farm.read_clock()
    assert set(farm.core.state.jobs) == {finished, open_, failed, child}
    farm.restart()
    farm.wait(3)
    farm.read_clock()
    assert set(farm.core.state.jobs) == {open_, failed, child}
    assert farm.states(child) == {1: "WAITING"}
    assert [row.id for row in farm.storage.load().jobs] == [open_, failed, child]


@pytest.mark.parametrize(
    ("count", "command", "shown"),
    [
        (1, {"argv": ("'" * 64_000,)}, 2000),
        (1, {"argv": (), "shell": "x" * 2001}, 2000),
        (1, {"argv": (), "shell": "x" * 2000}, 2000),
        (100, {"argv": ("~",) * 500, "env": {"A": "x" * 300}}, 1999),
        (100, {"argv": ("~",) * 480, "outputs": ("o" * 800,)}, 500),
    ],
)
def test_a_job_of_whatever_commands_fits_a_packet(
    farm: CoreFarm, count: int, command: dict[str, Any], shown: int
) -> None:
    """What people see of a command is cut where it is long, and shorter where many stand together."""
    layers = tuple(structs.replace(a_layer("1", name=f"{n:0100}"), **command) for n in range(count))
    farm.submit_unchecked(a_job(layers=layers))
    answer: Any = farm.ask(GetJob(rq=0, job=0))
    for layer in answer.layers:
        assert len(layer.command) == shown
        assert layer.command.endswith("…") or len(command.get("shell", "")) == 2000 or shown == 1999


def test_a_linked_slave_was_heard_of_just_now(farm: CoreFarm) -> None:
    link = farm.link()
    farm.now += 500
    farm.step(SlaveSaid(link, Status(load=MachineLoad())))
    assert farm.slave().last_heard_at == farm.core.turn.wall


def test_purging_goes_in_small_steps() -> None:
    farm = CoreFarm(Policy(keep_s=DAY))
    for job in range(25):
        farm.submit(a_job("1"))
        farm.frame(job, "finish", "1")
    left = []
    farm.wait(DAY + 1)
    for _ in range(3):
        farm.read_clock()
        left.append(len(farm.core.state.jobs))
    assert left == [15, 5, 0]


def test_jobs_are_kept_for_ever_where_asked() -> None:
    farm = CoreFarm(Policy(keep_s=0))
    farm.submit(a_job("1"))
    farm.frame(0, "finish", "1")
    farm.read_clock(forward_s=10_000 * DAY)
    assert 0 in farm.core.state.jobs


def test_people_see_pictures_counted_whatever_the_chunks() -> None:
    """Ten pictures in chunks of four: 4 + 4 + 2."""
    farm = CoreFarm()
    link = farm.link(cores=2)
    job = farm.submit(a_job("1-10", layer={"chunk": 4}))
    first, second = farm.orders(link)
    farm.started(link, second.key)
    farm.exited(link, first.key)
    view = farm.job(job)
    assert (view.counts.total, view.chunk_counts.total) == (10, 3)
    assert (view.counts.done, view.counts.running, view.counts.assigned) == (4, 4, 2)
    assert (view.chunk_counts.done, view.chunk_counts.running, view.chunk_counts.assigned) == (1, 1, 1)
    farm.frame(job, "kill", "10")
    farm.verb(job, "stop")
    (third,) = farm.orders(link)
    farm.exited(link, third.key, badly())
    assert farm.job(job).counts.waiting == 2
