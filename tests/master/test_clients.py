"""Clients' links at the master: answers, relays, a full disk, and clients that misbehave. Time is virtual.

A real core behind a real engine; the disk is a dictionary whose commits a test may hold up.
"""

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from drqueue.channel import LinkClosed
from drqueue.master.clients import _LOOKS_AT_ONCE
from drqueue.master.core import queries
from drqueue.master.core.effects import Effect
from drqueue.master.core.events import ClientAsked, Event
from drqueue.master.core.records import AccountRecord, AnyRecord, AttemptRecord, LogRecord
from drqueue.outcome import Outcome
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Beat, Exited, Message, Orders, Report, Welcome
from drqueue.proto.messages import (
    Accounts,
    Attempts,
    Changed,
    Done,
    Farm,
    FarmInfo,
    FindLog,
    Frames,
    GetJob,
    Job,
    JobVerb,
    KillAttempts,
    ListAccounts,
    ListAttempts,
    ListFrames,
    ListJobs,
    LogPart,
    LogPlace,
    ReadLog,
    Refusal,
    SetLimits,
    Submit,
    Submitted,
    Unwatch,
    Watch,
    Watching,
)
from drqueue.proto.model import LimitsChange, LogEnds
from drqueue.proto.roles import Who
from tests.builders import a_hello, a_job, badly, well
from tests.master.rig import Rig, ask, listen, replaced, said


@pytest.fixture
async def rig(nursery: trio.Nursery) -> Rig:
    made = Rig()
    nursery.start_soon(made.run)
    return made


# -- answers ----------------------------------------------------------------------------------------------


async def test_requests_are_answered_by_their_numbers(rig: Rig) -> None:
    async with rig.client() as client:
        job = await rig.submit(client)
        client.send_many([GetJob(rq=5, job=job), GetJob(rq=3, job=77), FarmInfo(rq=4)])
        answers = {answer.rq: answer for answer in await said(client)}  # type: ignore[attr-defined]
        assert isinstance(answers[5], Job)
        assert isinstance(answers[3], Refusal)
        assert isinstance(answers[4], Farm)
        # A number is free again once it was answered.
        assert isinstance(await ask(client, GetJob(rq=5, job=job)), Job)


async def test_a_submit_is_answered_after_its_commit(rig: Rig) -> None:
    async with rig.client() as client:
        rig.disk.hold_up()
        client.send(Submit(rq=1, token="token-12345", spec=a_job()))
        assert await said(client) == []
        rig.disk.let_go()
        submitted = await client.receive()
        assert isinstance(submitted, Submitted)
        assert (submitted.rq, submitted.job) == (1, 0)


async def test_frames_that_ended_are_told_from_the_history(rig: Rig) -> None:
    async with rig.client() as client, rig.slave() as slave:
        job = await rig.submit(client, "5-6")
        await trio.testing.wait_all_tasks_blocked()
        keys = [order.key for orders in rig.orders for order in orders.run]
        assert len(keys) == 2
        slave.send(Report(exited=(Exited(keys[0], badly(3, text="it broke", cpu_s=1.5)),)))
        slave.send(Report(exited=(Exited(keys[1], well()),)))
        await trio.testing.wait_all_tasks_blocked()
        frames = await ask(client, ListFrames(rq=1, job=job))
        assert isinstance(frames, Frames)
        first, second = frames.frames
        assert (first.state, first.attempt, first.code, first.text, first.cpu_s) == (
            "WAITING", keys[0].attempt, 3, "it broke", 1.5,
        )  # fmt: skip
        assert (second.state, second.slave, second.progress) == ("DONE", "s1", 1.0)
        attempts = await ask(client, ListAttempts(rq=2, job=job, number=5))
        assert isinstance(attempts, Attempts)
        assert [view.text for view in attempts.attempts] == ["it broke"]


async def test_a_log_is_found_by_frame_and_attempt(rig: Rig) -> None:
    async with rig.client() as client, rig.slave() as slave:
        job = await rig.submit(client, "5")
        nothing = await ask(client, FindLog(rq=1, job=job, number=5, attempt=40))
        assert isinstance(nothing, Refusal)
        assert "no attempt 40" in nothing.text
        await trio.testing.wait_all_tasks_blocked()
        (key,) = [order.key for orders in rig.orders for order in orders.run]
        slave.send(Report(exited=(Exited(key, well()),)))
        await trio.testing.wait_all_tasks_blocked()
        quiet = await ask(client, FindLog(rq=1, job=job, number=5))
        assert isinstance(quiet, LogPlace)
        assert quiet.kept == LogEnds(size=0)
        rig.disk.storage.commit([LogRecord(key, LogEnds(size=3, head=b"abc"))])
        place = await ask(client, FindLog(rq=1, job=job, number=5))
        assert isinstance(place, LogPlace)
        assert (place.key, place.slave, place.linked, place.over) == (key, "s1", True, True)
        assert place.kept == LogEnds(size=3, head=b"abc")


async def test_of_more_attempts_than_fit_the_latest_are_told(rig: Rig) -> None:
    async with rig.client() as client:
        job = await rig.submit(client, "5")
        rig.disk.storage.commit(
            [
                AttemptRecord(
                    job=job, layer=0, frame=0, attempt=n, number=5, slave=0, slave_name="s", assigned_at=0,
                    text="x" * 490,
                )
                for n in range(1, 2001)
            ]
        )  # fmt: skip
        answer = await ask(client, ListAttempts(rq=1, job=job, number=5))
        assert isinstance(answer, Attempts)
        numbers = [view.attempt for view in answer.attempts]
        assert numbers == list(range(numbers[0], 2001))
        assert len(numbers) > 300


async def test_an_answer_that_fits_no_packet_is_a_refusal(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would be if commands were not cut: quotes grow fivefold when they are quoted."""
    monkeypatch.setattr(queries, "_COMMAND_MOST", 10**6)
    monkeypatch.setattr(queries, "_ANSWER_BYTES", 10**6)
    async with rig.client() as client:
        job = await rig.submit(client, layer={"argv": ("'" * 64_000,)})
        answer = await ask(client, GetJob(rq=1, job=job))
        assert isinstance(answer, Refusal)
        assert (answer.rq, answer.code) == (1, "too-large")
        assert isinstance(await ask(client, FarmInfo(rq=1)), Farm)


async def test_a_watcher_hears_news_until_it_ends_the_watch(rig: Rig) -> None:
    async with rig.client() as client, rig.client() as other:
        watching = await ask(client, Watch(rq=1, jobs=True))
        assert isinstance(watching, Watching)
        job = await rig.submit(other)
        news = await client.receive()
        assert isinstance(news, Changed)
        assert (news.watch, [view.id for view in news.jobs]) == (watching.watch, [job])
        assert await ask(other, Unwatch(rq=2, watch=watching.watch)) == Done(rq=2, count=0)
        assert await ask(client, Unwatch(rq=2, watch=watching.watch)) == Done(rq=2, count=1)


# -- a full disk ------------------------------------------------------------------------------------------


async def test_while_the_disk_is_full_reads_are_answered_and_writes_refused(rig: Rig) -> None:
    async with rig.client() as client, rig.client() as other:
        job = await rig.submit(client)
        rig.disk.hold_up()
        other.send(Submit(rq=7, token="token-12345", spec=a_job()))
        assert await said(other) == []
        rig.disk.alarm = "the master cannot write: no room"
        farm = await ask(client, FarmInfo(rq=1))
        assert isinstance(farm, Farm)
        assert farm.alarm == "the master cannot write: no room"
        assert isinstance(await ask(client, GetJob(rq=2, job=job)), Job)
        jobs = await ask(client, ListJobs(rq=2, all=True))
        assert isinstance(jobs, Refusal) is False
        assert isinstance(await ask(client, ListFrames(rq=3, job=job)), Frames)
        assert isinstance(await ask(client, ListAttempts(rq=3, job=job, number=1)), Attempts)
        assert isinstance(await ask(client, GetJob(rq=2, job=78)), Refusal)
        for write in (
            Submit(rq=4, token="token-22222", spec=a_job()),
            JobVerb(rq=5, job=job, verb="stop"),
            SetLimits(rq=6, slave="nobody", change=LimitsChange(enabled=False)),
        ):
            refused = await ask(client, write)
            assert isinstance(refused, Refusal)
            assert (refused.rq, refused.code, refused.text) == (
                write.rq, "disk-full", "the master cannot write: no room",
            )  # fmt: skip
        assert rig.core.state.jobs[job].shown_state != "STOPPED"
        rig.disk.let_go()
        assert isinstance(await other.receive(), Submitted)


# -- relays -----------------------------------------------------------------------------------------------


async def test_what_concerns_a_slave_is_passed_on_to_it(rig: Rig) -> None:
    async with rig.client() as client, rig.slave() as slave:
        for request, reply in (
            (
                ReadLog(rq=50, slave="s1", key=AttemptKey(1, 0, 0, 1), wait_s=5),
                LogPart(rq=0, data=b"x", next=1, size=1),
            ),
            (KillAttempts(rq=51, slave="s1", job=1), Done(rq=0, count=1)),
            (SetLimits(rq=52, slave="s1", change=LimitsChange(enabled=False)), Done(rq=0, count=1)),
            (
                SetLimits(rq=53, slave="s1", change=LimitsChange(max_cpus=2)),
                Refusal(rq=0, code="no", text="n"),
            ),
        ):
            client.send(request)
            passed = await slave.receive()
            assert type(passed) is type(request)
            slave.send(replaced(reply, passed.rq))
            assert await client.receive() == replaced(reply, request.rq)


async def test_a_slave_that_is_not_linked_cannot_be_asked(rig: Rig) -> None:
    async with rig.client() as client:
        for request in (
            ReadLog(rq=1, slave="s1", key=AttemptKey(1, 0, 0, 1)),
            ReadLog(rq=1, key=AttemptKey(1, 0, 0, 1)),
            KillAttempts(rq=1, slave="s" * 250_000, job=1),
        ):
            answer = await ask(client, request)
            assert isinstance(answer, Refusal)
            assert answer.code in ("not-linked", "too-large")
        async with rig.slave() as slave:
            client.send(ReadLog(rq=1, slave="s1", key=AttemptKey(1, 0, 0, 1)))
            assert isinstance(await slave.receive(), ReadLog)
        answer = await client.receive()
        assert isinstance(answer, Refusal)
        assert answer.code == "not-linked"


async def test_a_client_that_leaves_takes_its_relays_along(rig: Rig) -> None:
    async with rig.slave() as slave:
        async with rig.client() as client:
            client.send(ReadLog(rq=1, slave="s1", key=AttemptKey(1, 0, 0, 1)))
            assert isinstance(await slave.receive(), ReadLog)
            client.close()
            await trio.testing.wait_all_tasks_blocked()
            assert not rig.slaves._links[77].asked
        assert not rig.clients._clients


# -- clients that misbehave ---------------------------------------------------------------------------------


async def test_the_same_number_twice_is_the_clients_fault(rig: Rig) -> None:
    async with rig.client() as client, rig.client() as other:
        rig.disk.hold_up()
        client.send(Submit(rq=1, token="token-12345", spec=a_job()))
        # Another client's numbers are its own affair.
        other.send(Submit(rq=1, token="token-22222", spec=a_job()))
        await trio.testing.wait_all_tasks_blocked()
        client.send(GetJob(rq=1, job=0))
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await client.receive()
        rig.disk.let_go()
        assert isinstance(await other.receive(), Submitted)


@pytest.mark.parametrize("message", [a_hello(), Orders(epoch=1), Changed(watch=1), Welcome(version=1)])
async def test_what_no_client_says_ends_its_link_alone(rig: Rig, message: Message) -> None:
    async with rig.client() as other, rig.client() as client:
        client.send(message)
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await client.receive()
        assert isinstance(await ask(other, FarmInfo(rq=1)), Farm)


async def test_an_answer_for_a_client_that_left_goes_nowhere(rig: Rig) -> None:
    async with rig.client() as client:
        rig.disk.hold_up()
        client.send(Submit(rq=1, token="token-12345", spec=a_job()))
        client.send(ListAttempts(rq=2, job=0, number=1))
        await trio.testing.wait_all_tasks_blocked()
        client.close()
        await trio.testing.wait_all_tasks_blocked()
        rig.disk.let_go()
    async with rig.client() as client:
        assert await rig.submit(client) == 1


async def test_a_flood_of_requests_is_bounded_and_every_one_answered(rig: Rig) -> None:
    """While a commit hangs, so many are taken in and no more."""
    async with rig.client() as client, rig.client() as other:
        rig.disk.hold_up()
        other.send(Submit(rq=1, token="token-22222", spec=a_job()))
        await trio.testing.wait_all_tasks_blocked()
        client.send_many([JobVerb(rq=n, job=77, verb="stop") for n in range(2000)])
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.inbox) == 256
        rig.disk.let_go()
        answers = await said(client)
        assert [answer.rq for answer in answers] == list(range(2000))  # type: ignore[attr-defined]


async def test_pages_asked_for_all_at_once_do_not_cost_a_reading_client_its_link(rig: Rig) -> None:
    async with rig.client() as client, rig.client() as other:
        job = await rig.submit(client, "1-1000", layer={"name": "n" * 110})
        rig.disk.hold_up()
        other.send(Submit(rq=1, token="token-22222", spec=a_job()))
        await trio.testing.wait_all_tasks_blocked()
        client.send_many([ListFrames(rq=n, job=job, limit=1000) for n in range(100)])
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.inbox) == _LOOKS_AT_ONCE
        rig.disk.let_go()
        answers = await said(client)
        assert [type(answer) for answer in answers] == [Frames] * 100


async def test_looks_of_all_clients_together_are_few_at_a_time_and_each_has_its_turn(rig: Rig) -> None:
    """What the core is asked for at once is answered in one step, for which everybody else waits."""
    async with rig.client() as one, rig.client() as two, rig.client() as other:
        job = await rig.submit(one, "1-50")
        rig.disk.hold_up()
        other.send(Submit(rq=1, token="token-22222", spec=a_job()))
        await trio.testing.wait_all_tasks_blocked()
        one.send_many([ListFrames(rq=n, job=job) for n in range(30)])
        await trio.testing.wait_all_tasks_blocked()
        two.send_many([ListFrames(rq=n, job=job) for n in range(30)])
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.inbox) == _LOOKS_AT_ONCE
        batches: list[int] = []
        order: list[int] = []
        step = rig.core.step

        def counting(events: Sequence[Event], now: float) -> Outcome[AnyRecord, Effect]:
            asked = [event.client for event in events if isinstance(event, ClientAsked)]
            batches.append(len(asked))
            order.extend(asked)
            return step(events, now)

        rig.core.step = counting  # type: ignore[method-assign]
        rig.disk.let_go()
        assert [answer.rq for answer in await said(one)] == list(range(30))  # type: ignore[attr-defined]
        assert [answer.rq for answer in await said(two)] == list(range(30))  # type: ignore[attr-defined]
        assert sum(batches) == 60
        assert max(batches) <= _LOOKS_AT_ONCE
        turns = order[_LOOKS_AT_ONCE : 2 * _LOOKS_AT_ONCE]
        assert len(set(turns)) == 2, "whoever came later does not wait for all of who came before"
        assert sorted(map(turns.count, set(turns))) == [_LOOKS_AT_ONCE // 2] * 2
    assert not rig.clients._looking
    assert rig.clients._looks._free == _LOOKS_AT_ONCE


async def test_who_leaves_while_the_core_is_busy_takes_no_place_along(rig: Rig) -> None:
    async with rig.client() as other:
        job = await rig.submit(other, "1-50")
        rig.disk.hold_up()
        other.send(Submit(rq=1, token="token-22222", spec=a_job()))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(4):
            async with rig.client() as client:
                client.send_many(
                    [FindLog(rq=n, job=job, number=1) for n in range(6)] if number % 2 else
                    [ListFrames(rq=n, job=job) for n in range(6)]
                )  # fmt: skip
                await trio.testing.wait_all_tasks_blocked()
        assert len(rig.inbox) <= _LOOKS_AT_ONCE
        rig.disk.let_go()
        assert len(await said(other)) == 1
        other.send_many([ListAttempts(rq=n, job=job, number=1) for n in range(20)])
        assert len(await said(other)) == 20
    assert not rig.clients._looking
    assert rig.clients._looks._free == _LOOKS_AT_ONCE


async def test_who_waits_to_look_is_answered_while_the_disk_is_full(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with rig.client() as client, rig.client() as other:
        job = await rig.submit(client, "1-50")
        rig.disk.hold_up()
        other.send(Submit(rq=1, token="token-22222", spec=a_job()))
        await trio.testing.wait_all_tasks_blocked()
        client.send_many([ListFrames(rq=n, job=job) for n in range(20)])
        await trio.testing.wait_all_tasks_blocked()
        rig.disk.alarm = "no room"
        answers: list[Message] = []
        with trio.move_on_after(30):
            await listen(client, answers)
        assert [answer.rq for answer in answers] == list(range(_LOOKS_AT_ONCE, 20))  # type: ignore[attr-defined]
        rig.disk.let_go()
        assert len(await said(client)) == _LOOKS_AT_ONCE


async def test_people_are_listed_with_where_they_are_linked_from(rig: Rig) -> None:
    accounts = [
        AccountRecord(
            id=name, kind="user", name=name, role="admin", secret_hash=name, created_at=1.0, created_by="x",
            peer="192.0.2.1",
        )
        for name in ("ada", "bob")
    ]  # fmt: skip
    for account in accounts:
        rig.core.state.register.restore(account)
    ada = [Who(name="ada", role="admin", account="ada", peer=f"192.0.2.{n}") for n in (8, 9)]
    async with rig.client(who=ada[0]) as client, rig.client(who=ada[1]):
        answer = await ask(client, ListAccounts(rq=1, kind="user"))
        assert isinstance(answer, Accounts)
        assert [(view.name, view.linked, view.peer) for view in answer.accounts] == [
            ("ada", True, "192.0.2.9"),
            ("bob", False, "192.0.2.1"),
        ]


async def test_a_client_that_does_not_read_is_not_read_and_then_dropped(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with rig.client() as client:
        job = await rig.submit(client, "1-1000", layer={"name": "n" * 110})
        served = rig.clients._clients[1]
        start = trio.current_time()
        for n in range(2000):
            client.send(ListFrames(rq=n, job=job, limit=1000))
        most = 0
        while rig.ended == 0:
            most = max(most, served.channel.queued)
            await trio.sleep(0.5)
        assert 0 < most < 8 * 1024 * 1024
        assert trio.current_time() - start == pytest.approx(30, abs=1)
    async with rig.client() as client:
        assert isinstance(await ask(client, FarmInfo(rq=1)), Farm)


async def test_a_client_that_says_nothing_is_dropped(rig: Rig, autojump_clock: MockClock) -> None:
    async with rig.client() as client:
        for _ in range(5):
            await trio.sleep(25)
            assert await ask(client, Beat(echo=True)) == Beat()  # type: ignore[arg-type]
        start = trio.current_time()
        with pytest.raises(LinkClosed):
            await client.receive()
        assert trio.current_time() - start == pytest.approx(30)


@pytest.mark.parametrize("where", ["_inbox.wait_room", "_answer_from_history"])
async def test_a_bug_ends_one_link_with_a_traceback(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """In the link's reader as well as in a task of its own."""
    async with rig.client() as other, rig.client() as client:
        job = await rig.submit(client)

        async def broken(*_args: object) -> None:
            raise ZeroDivisionError("somebody's bug")

        with monkeypatch.context() as patch:
            owner, _, name = where.rpartition(".")
            patch.setattr(getattr(rig.clients, owner) if owner else rig.clients, name, broken)
            client.send(ListAttempts(rq=1, job=job, number=1))
            with trio.fail_after(5), pytest.raises(LinkClosed):
                await client.receive()
        assert isinstance(await ask(other, FarmInfo(rq=1)), Farm)
        assert len(rig.clients._clients) == 1
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info


async def test_flush_gets_last_words_out(rig: Rig, autojump_clock: MockClock) -> None:
    async with rig.client() as client, rig.client():
        job = await rig.submit(client, "1-1000", layer={"name": "n" * 110})
        client.send_many([ListFrames(rq=n, job=job, limit=1000) for n in range(20)])
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await rig.clients.flush(2)
        assert trio.current_time() - start == pytest.approx(2)
        assert len(await said(client)) == 20
        await rig.clients.flush(2)
        assert trio.current_time() - start == pytest.approx(2)
