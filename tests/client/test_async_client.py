"""The client library against a scripted master: matching, refusals, reconnects, slaves, waiting, watching."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from drqueue.client import (
    AmbiguousSlave,
    BadRequest,
    DiskFull,
    DrQueueError,
    JobChange,
    JobSpec,
    LayerSpec,
    LimitsChange,
    MasterUnreachable,
    NoSuchFrame,
    NoSuchJob,
    NotAllowed,
    NotFound,
    Refused,
    VersionMismatch,
    connect,
)
from drqueue.client.link import BACKLOG
from drqueue.proto import messages
from drqueue.proto.link_messages import Rejected
from tests.client.peer import Peer, job_view, serving, soon

SPEC = JobSpec(name="test", owner="ann", layers=(LayerSpec(argv=("true",), cwd="/"),))


@pytest.fixture
def master(tmp_path: Path) -> Peer:
    peer = Peer(str(tmp_path / "master.sock"))
    peer.on[messages.GetJob] = lambda _, asked: messages.Job(rq=asked.rq, job=job_view(asked.job), layers=())
    peer.on[messages.Watch] = lambda _, asked: messages.Watching(rq=asked.rq, watch=7)
    return peer


# -- asking -----------------------------------------------------------------------------------------------


async def test_answers_reach_their_askers_in_whatever_order_they_come(master: Peer) -> None:
    """Ten requests are in flight before the first is answered, and the last is answered first."""
    held: list[messages.GetJob] = []

    def answer_backwards(channel: Any, asked: messages.GetJob) -> None:
        held.append(asked)
        if len(held) == 10:
            for request in reversed(held):
                channel.send(messages.Job(rq=request.rq, job=job_view(request.job), layers=()))

    master.on[messages.GetJob] = answer_backwards
    got: dict[int, int] = {}
    async with serving(master), connect(master.address) as farm:

        async def ask(number: int) -> None:
            got[number] = (await farm.job(number))[0].id

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(ask, number)
    assert got == {number: number for number in range(10)}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("no-such-job", NoSuchJob),
        ("no-such-frame", NoSuchFrame),
        ("no-such-attempt", NoSuchFrame),
        ("no-such-slave", NotFound),
        ("ambiguous-slave", AmbiguousSlave),
        ("not-allowed", NotAllowed),
        ("bad-range", BadRequest),
        ("disk-full", DiskFull),
        ("of-the-future", Refused),
    ],
)
async def test_refusals_become_exceptions_with_code_and_sentence(
    master: Peer, code: str, kind: type[Refused]
) -> None:
    master.on[messages.GetJob] = lambda _, asked: messages.Refusal(rq=asked.rq, code=code, text="no, sorry")
    async with serving(master), connect(master.address) as farm:
        with pytest.raises(kind, match="no, sorry") as caught:
            await soon(farm.job(3))
    assert caught.value.code == code
    assert type(caught.value) is kind or kind is NotFound


async def test_lists_are_joined_from_their_pages(master: Peer) -> None:
    def page(_: Any, asked: messages.ListJobs) -> messages.Jobs:
        assert asked.all
        assert asked.owner == "ann"
        following = asked.cursor + 2 if asked.cursor < 4 else None
        return messages.Jobs(
            rq=asked.rq, jobs=(job_view(asked.cursor), job_view(asked.cursor + 1)), next=following
        )

    master.on[messages.ListJobs] = page
    async with serving(master), connect(master.address) as farm:
        assert [view.id for view in await soon(farm.jobs(all=True, owner="ann"))] == [0, 1, 2, 3, 4, 5]
        master.heard.clear()
        async for view in farm.each_job(all=True, owner="ann"):
            if view.id == 2:
                break
        assert len(master.heard) == 2, "the last page was not wanted"


async def test_an_answer_of_the_wrong_kind_is_an_error(master: Peer) -> None:
    master.on[messages.GetJob] = lambda _, asked: messages.Done(rq=asked.rq)
    async with serving(master), connect(master.address) as farm:
        with pytest.raises(DrQueueError, match="answered GetJob with Done"):
            await soon(farm.job(1))


async def test_a_request_too_large_for_a_packet_is_refused_here(master: Peer) -> None:
    async with serving(master), connect(master.address) as farm:
        with pytest.raises(BadRequest):
            await soon(farm.change_job(1, JobChange(block=tuple("x" * 1000 for _ in range(300)))))
        assert (await soon(farm.job(1)))[0].id == 1, "the link lives on"


async def test_a_job_that_cannot_be_is_refused_before_it_is_sent(master: Peer) -> None:
    async with serving(master), connect(master.address) as farm:
        with pytest.raises(BadRequest, match="command"):
            await farm.submit(JobSpec(name="x", layers=(LayerSpec(),)))
        with pytest.raises(BadRequest):
            await farm.submit(JobSpec(name="x", layers=(LayerSpec(argv=("true",), frames="1-"),)))
    assert master.heard == []


# -- links that break ---------------------------------------------------------------------------------------


async def test_no_master_is_one_bare_sentence(tmp_path: Path) -> None:
    with pytest.raises(MasterUnreachable, match=r"no master answers at unix:.*nobody\.sock"):
        async with connect(f"unix:{tmp_path}/nobody.sock"):
            raise AssertionError("connected to nobody")


async def test_patience_waits_for_a_master_that_starts_later(master: Peer) -> None:
    async with trio.open_nursery() as nursery:

        async def start_later() -> None:
            await trio.sleep(0.1)
            await master.serve()

        nursery.start_soon(start_later)
        with trio.fail_after(20):
            async with connect(master.address, patience_s=20) as farm:
                assert (await farm.job(1))[0].id == 1
        master.stop()


async def test_versions_that_do_not_meet_are_told_as_such(master: Peer) -> None:
    master.reject = Rejected(code="version", text="upgrade the client")
    async with serving(master):
        with pytest.raises(VersionMismatch, match="upgrade the client"):
            async with connect(master.address, patience_s=20):
                raise AssertionError("let in")


async def test_what_is_raised_inside_comes_out_bare(master: Peer) -> None:
    async with serving(master):
        with pytest.raises(ZeroDivisionError):
            async with connect(master.address):
                raise ZeroDivisionError


async def test_a_read_is_repeated_on_a_new_link(master: Peer) -> None:
    def break_once(channel: Any, asked: messages.GetJob) -> messages.Job | None:
        if master.kinds().count("GetJob") == 1:
            channel.close()
            return None
        return messages.Job(rq=asked.rq, job=job_view(asked.job), layers=())

    master.on[messages.GetJob] = break_once
    async with serving(master), connect(master.address) as farm:
        assert (await soon(farm.job(5)))[0].id == 5
    assert master.kinds() == ["GetJob", "GetJob"]


async def test_a_master_that_always_hangs_up_is_not_asked_forever(master: Peer) -> None:
    master.on[messages.GetJob] = lambda channel, _: channel.close()
    async with serving(master), connect(master.address) as farm:
        with pytest.raises(MasterUnreachable):
            await soon(farm.job(5))
    assert len(master.heard) == 2


async def test_a_verb_is_never_repeated_by_itself(master: Peer) -> None:
    """It may have been done: whoever asked must look."""
    master.on[messages.FrameVerb] = lambda channel, _: channel.close()
    async with serving(master), connect(master.address) as farm:
        with pytest.raises(MasterUnreachable, match="before it answered"):
            await soon(farm.frame_kill(1, "1-3"))
        assert master.kinds() == ["FrameVerb"]


async def test_a_verb_goes_out_on_a_new_link_where_the_old_one_was_gone_before(master: Peer) -> None:
    master.on[messages.JobVerb] = lambda _, asked: messages.Done(rq=asked.rq, count=4, note="so be it")
    async with serving(master), connect(master.address) as farm:
        link = await farm.linked(0)
        master.drop_links()
        while not link.over:
            await trio.lowlevel.checkpoint()
        did = await soon(farm.stop(1))
    assert (did.count, did.note) == (4, "so be it")


async def test_a_submission_is_repeated_under_the_same_token(master: Peer) -> None:
    def break_once(channel: Any, asked: messages.Submit) -> messages.Submitted | None:
        if len(master.heard) == 1:
            channel.close()
            return None
        return messages.Submitted(rq=asked.rq, job=9, again=True, note="P4 is off")

    master.on[messages.Submit] = break_once
    notes: list[str] = []
    async with serving(master), connect(master.address) as farm:
        assert await soon(farm.submit(SPEC, note=notes.append)) == 9
    first, second = master.heard
    assert isinstance(first, messages.Submit)
    assert isinstance(second, messages.Submit)
    assert first.token == second.token
    assert first.spec == second.spec == SPEC
    assert notes == ["P4 is off"]


async def test_two_submissions_have_two_tokens(master: Peer) -> None:
    master.on[messages.Submit] = lambda _, asked: messages.Submitted(rq=asked.rq, job=len(master.heard))
    async with serving(master), connect(master.address) as farm:
        assert await soon(farm.submit(SPEC)) == 1
        assert await soon(farm.submit(SPEC)) == 2
        assert await soon(farm.submit(SPEC, token="given-token")) == 3
    tokens = [message.token for message in master.heard if isinstance(message, messages.Submit)]
    assert len(set(tokens)) == 3
    assert tokens[2] == "given-token"


# -- slaves -------------------------------------------------------------------------------------------------


async def test_a_slave_is_told_directly_where_its_port_answers(master: Peer, tmp_path: Path) -> None:
    slave = Peer(str(tmp_path / "control.sock"), "slave")
    slave.on[messages.SetLimits] = lambda _, asked: messages.Done(rq=asked.rq, count=1)
    slave.on[messages.KillAttempts] = lambda _, asked: messages.Done(rq=asked.rq, count=2)
    master.on[messages.GetTicket] = lambda _, asked: messages.Ticket(
        rq=asked.rq, slave=0, name="s1", control=slave.address
    )
    async with serving(master, slave), connect(master.address) as farm:
        await soon(farm.set_slave("s1", LimitsChange(max_cpus=2, max_load=None)))
        assert (await soon(farm.kill_attempts("s1", job=3))).count == 2
        assert (await soon(farm.disable_slave(slave.address))).count == 1
    assert master.kinds() == ["GetTicket", "GetTicket"]
    first, _, third = slave.heard
    assert isinstance(first, messages.SetLimits)
    assert first.slave == ""
    assert first.change == LimitsChange(max_cpus=2, max_load=None)
    assert isinstance(third, messages.SetLimits)
    assert third.change == LimitsChange(enabled=False)


async def test_a_slave_out_of_reach_is_told_through_the_master(master: Peer, tmp_path: Path) -> None:
    master.on[messages.GetTicket] = lambda _, asked: messages.Ticket(
        rq=asked.rq, slave=0, name="s1", control=f"unix:{tmp_path}/gone.sock"
    )
    master.on[messages.SetLimits] = lambda _, asked: messages.Done(rq=asked.rq, count=1)
    async with serving(master), connect(master.address) as farm:
        await soon(farm.enable_slave("s1"))
    told = master.heard[-1]
    assert isinstance(told, messages.SetLimits)
    assert (told.slave, told.change) == ("s1", LimitsChange(enabled=True))


async def test_a_master_at_a_slaves_port_is_not_taken_for_the_slave(master: Peer) -> None:
    master.on[messages.GetTicket] = lambda _, asked: messages.Ticket(
        rq=asked.rq, slave=0, name="s1", control=master.address
    )
    master.on[messages.SetLimits] = lambda _, asked: messages.Done(rq=asked.rq)
    async with serving(master), connect(master.address) as farm:
        await soon(farm.enable_slave("s1"))
    told = master.heard[-1]
    assert isinstance(told, messages.SetLimits)
    assert told.slave == "s1"


async def test_a_slave_that_breaks_off_is_an_error_with_a_sentence(master: Peer, tmp_path: Path) -> None:
    slave = Peer(str(tmp_path / "control.sock"), "slave")
    slave.on[messages.GetSlave] = lambda channel, _: channel.close()
    async with serving(slave), connect(f"unix:{tmp_path}/no-master.sock", lazily=True) as farm:
        with pytest.raises(DrQueueError, match=r"the link to slave .* broke before it answered"):
            await soon(farm.slave(slave.address))


# -- waiting and watching -----------------------------------------------------------------------------------


async def test_wait_ends_when_the_last_job_has_finished(master: Peer) -> None:
    seen: list[dict[int, str]] = []
    async with serving(master) as nursery, connect(master.address) as farm:

        async def finish() -> None:
            await master.until(lambda: master.kinds().count("GetJob") == 2)
            (link,) = master.links
            for number in (2, 1):
                link.send(messages.Changed(watch=7, jobs=(job_view(number, "FINISHED"), job_view(99))))

        nursery.start_soon(finish)
        views = await soon(
            farm.wait([1, 2], lambda views: seen.append({key: view.state for key, view in views.items()}))
        )
    assert [(view.id, view.state) for view in views] == [(1, "FINISHED"), (2, "FINISHED")]
    assert seen == [
        {1: "ACTIVE", 2: "ACTIVE"},
        {1: "ACTIVE", 2: "FINISHED"},
        {1: "FINISHED", 2: "FINISHED"},
    ]


async def test_wait_survives_a_restart_of_the_master(master: Peer) -> None:
    """The job finishes while no master runs; the waiter finds that out from the new one."""
    async with serving(master) as nursery, connect(master.address) as farm:

        async def restart() -> None:
            await master.until(lambda: "GetJob" in master.kinds())
            master.stop()
            await master.stopped.wait()
            master.on[messages.GetJob] = lambda _, asked: messages.Job(
                rq=asked.rq, job=job_view(asked.job, "FINISHED"), layers=()
            )
            await master.serve()

        nursery.start_soon(restart)
        (view,) = await soon(farm.wait([1]))
    assert view.state == "FINISHED"
    assert master.kinds().count("Watch") == 2


async def test_wait_without_patience_tells_that_the_master_is_gone(master: Peer) -> None:
    async with serving(master) as nursery, connect(master.address) as farm:

        async def die() -> None:
            await master.until(lambda: "GetJob" in master.kinds())
            master.stop()

        nursery.start_soon(die)
        with pytest.raises(MasterUnreachable):
            await soon(farm.wait([1], patience_s=0.05))


async def test_wait_for_a_job_that_gets_deleted_says_so(master: Peer) -> None:
    async with serving(master) as nursery, connect(master.address) as farm:

        async def delete() -> None:
            await master.until(lambda: "GetJob" in master.kinds())
            master.links[0].send(messages.Changed(watch=7, jobs_gone=(1,)))

        nursery.start_soon(delete)
        with pytest.raises(NoSuchJob, match="job 1 was deleted"):
            await soon(farm.wait([1]))


async def test_a_watch_stands_before_it_is_entered_and_is_ended_after(master: Peer) -> None:
    master.on[messages.Watch] = lambda channel, asked: channel.send_many(
        [messages.Watching(rq=asked.rq, watch=3), messages.Changed(watch=3, jobs=(job_view(1),))]
    )
    async with serving(master), connect(master.address) as farm:
        async with farm.watch(jobs=True) as changes:
            assert master.kinds() == ["Watch"]
            assert (await soon(anext(changes))).jobs[0].id == 1
        await soon(master.until(lambda: "Unwatch" in master.kinds()))
        last = master.heard[-1]
        assert isinstance(last, messages.Unwatch)
        assert last.watch == 3
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


async def test_a_watch_goes_on_after_a_restart_with_a_resync(master: Peer) -> None:
    async with (
        serving(master) as nursery,
        connect(master.address) as farm,
        farm.watch(slaves=True) as changes,
    ):
        master.stop()
        await soon(master.stopped.wait())
        nursery.start_soon(master.serve)
        assert (await soon(anext(changes))).resync
        master.links[0].send(messages.Changed(watch=7, slaves_gone=(4,)))
        assert (await soon(anext(changes))).slaves_gone == (4,)


async def test_a_slow_watcher_holds_a_bounded_number_of_changes(master: Peer) -> None:
    """What piles up beyond the bound is replaced by one `resync`, and what comes after that is kept."""
    count = BACKLOG + 3
    master.on[messages.GetJob] = lambda channel, asked: channel.send_many(
        [
            *(messages.Changed(watch=7, jobs_gone=(number,)) for number in range(count)),
            messages.Job(rq=asked.rq, job=job_view(1), layers=()),
        ]
    )
    async with serving(master), connect(master.address) as farm, farm.watch(jobs=True) as changes:
        await soon(farm.job(1))
        first = await soon(anext(changes))
        assert first.resync
        rest = [(await soon(anext(changes))).jobs_gone for _ in range(2)]
        assert rest == [(count - 2,), (count - 1,)]
