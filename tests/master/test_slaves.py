"""Slaves' links at the master, against slaves that lie, stall, flood and vanish. Time is virtual."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from drqueue.channel import LinkClosed
from drqueue.master import slaves
from drqueue.master.core.effects import Tell, Unlink
from drqueue.master.core.events import SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.master.slaves import NotLinked
from drqueue.proto.link_messages import (
    Beat,
    Held,
    HelloMore,
    Hi,
    LimitsNow,
    Message,
    Orders,
    Registered,
    Rejected,
    Report,
    Status,
    Stop,
)
from drqueue.proto.messages import Examine, FarmInfo, KillAttempts, ReadLog, Refusal, SetLimits
from drqueue.proto.model import LimitsChange, MachineLoad, RunOrder, SlaveLimits
from tests.builders import a_hello
from tests.master.rig import listen, said
from tests.master.slave_rig import SILENCE_S, WHO, Rig, a_key, a_report


@pytest.fixture
async def rig() -> Rig:
    return Rig()


# -- Hello ----------------------------------------------------------------------------------------------


async def test_hello_in_parts_is_one_event(rig: Rig) -> None:
    held = tuple(Held(a_key(n), n % 2 == 0) for n in range(9))
    async with rig.dialled() as far:
        hello = a_hello(held=held[:3], more=True)
        far.send(hello)
        far.send(HelloMore(held=held[3:8], more=True))
        assert await rig.events() == []
        far.send(HelloMore(held=held[8:]))
        assert await rig.events() == [SlaveLinked(1, hello, held, WHO)]


async def test_who_never_says_hello_is_dropped(rig: Rig, autojump_clock: MockClock) -> None:
    async with rig.dialled() as far:
        start = trio.current_time()
        with pytest.raises(LinkClosed):
            await far.receive()
        assert trio.current_time() - start == pytest.approx(30)
        assert await rig.events() == []


async def test_who_never_ends_its_hello_is_dropped(rig: Rig, autojump_clock: MockClock) -> None:
    async with rig.dialled() as far, trio.open_nursery() as nursery:
        far.send(a_hello(more=True))

        async def go_on() -> None:
            while True:
                far.send(HelloMore(more=True))
                await trio.sleep(1)

        nursery.start_soon(go_on)
        start = trio.current_time()
        with pytest.raises(LinkClosed):
            await far.receive()
        assert trio.current_time() - start == pytest.approx(30)
        nursery.cancel_scope.cancel()
    assert await rig.events() == []


@pytest.mark.parametrize(
    "first",
    [
        Beat(),
        a_report(1),
        a_hello(identity=""),
        a_hello(""),
        a_hello("n" * 128),
        a_hello("s1\x1b[2J"),
        a_hello(identity="i" * 33_000),
        a_hello(limits=SlaveLimits(pools=("p" * 60,) * 600)),
    ],
)
async def test_a_bad_beginning_ends_the_link(
    rig: Rig, first: Message, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.dialled() as far:
        far.send(first)
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await far.receive()
        assert await rig.events() == []
    assert rig.ended == {1}
    assert "broke the protocol" in caplog.text


async def test_a_slave_cannot_hold_without_end(rig: Rig) -> None:
    part = tuple(Held(a_key(n)) for n in range(5000))
    async with rig.dialled() as far:
        far.send(a_hello(more=True))
        for _ in range(5):
            far.send(HelloMore(held=part, more=True))
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await far.receive()
        assert await rig.events() == []


# -- what a slave says ----------------------------------------------------------------------------------


async def test_what_a_slave_says_becomes_events_in_order(rig: Rig, autojump_clock: MockClock) -> None:
    messages = [a_report(n) for n in range(300)]
    async with rig.linked() as far:
        far.send_many([*messages, Status(load=MachineLoad(load1=2.0)), LimitsNow(limits=SlaveLimits())])
        heard = trio.current_time()
        events = await rig.events()
        assert [e.message for e in events if isinstance(e, SlaveSaid)][:300] == messages
        assert len(events) == 302
        await trio.sleep(4)
    assert await rig.events() == [SlaveUnlinked(1, heard)]


@pytest.mark.parametrize(
    "message",
    [
        a_hello(),
        Hi(role="slave"),
        Orders(epoch=1),
        FarmInfo(rq=1),
        Status(load=MachineLoad(gpu_percent=(1.0,) * 9000)),
        LimitsNow(limits=SlaveLimits(pools=("p" * 60,) * 600)),
    ],
)
async def test_what_no_slave_says_ends_its_link_alone(rig: Rig, message: Message) -> None:
    async with rig.linked("other") as other, rig.linked() as far:
        far.send(message)
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await far.receive()
        (event,) = await rig.events()
        assert isinstance(event, SlaveUnlinked)
        assert event.link == 2
        other.send(a_report(1))
        assert await rig.events() == [SlaveSaid(1, a_report(1))]


async def test_until_it_is_registered_the_log_calls_a_slave_by_its_nodes_name(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.linked("another") as far:
        far.send(Registered(slave=1, name="x"))
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await far.receive()
    assert "slave=n1" in caplog.text
    assert "another" not in caplog.text


async def test_a_link_that_was_never_registered_is_no_slave_that_left(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The log would otherwise say of a good slave that it is gone, when a stranger came with its secret."""
    caplog.set_level("INFO")
    async with rig.linked("vm") as far:
        far.close()
        assert isinstance((await rig.events())[-1], SlaveUnlinked)
    assert "a slave's link ended unregistered" in caplog.text
    assert "slave unlinked" not in caplog.text


async def test_the_log_names_a_slave_as_it_is_registered(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Not as it wanted to be called: another one may go by that name."""
    caplog.set_level("INFO")
    async with rig.linked("vm") as far:
        rig.slaves.tell(Tell(1, Registered(slave=7, name="vm-2")))
        far.close()
        assert isinstance((await rig.events())[-1], SlaveUnlinked)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "slave linked id=7 slave=vm-2 host=vm"
    assert said[1].startswith("slave unlinked slave=vm-2 ")


async def test_a_bug_ends_one_link_with_a_traceback(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.linked("other") as other, rig.linked() as far:
        wait_room = rig.inbox.wait_room

        async def broken() -> None:
            raise ZeroDivisionError("somebody's bug")

        monkeypatch.setattr(rig.inbox, "wait_room", broken)
        far.send(a_report(1))
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await far.receive()
        monkeypatch.setattr(rig.inbox, "wait_room", wait_room)
        assert isinstance((await rig.events())[-1], SlaveUnlinked)
        other.send(a_report(2))
        assert await rig.events() == [SlaveSaid(1, a_report(2))]
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info


async def test_a_full_inbox_holds_up_its_fillers_and_loses_nothing(autojump_clock: MockClock) -> None:
    rig = Rig(limit=10)
    async with rig.linked("a") as one, rig.linked("b") as two:
        for n in range(100):
            one.send(a_report(n))
            two.send(a_report(1000 + n))
        heard: dict[int, list[Message]] = {1: [], 2: []}
        while sum(len(messages) for messages in heard.values()) < 200:
            with trio.fail_after(5):
                events = await rig.events()
            assert 0 < len(events) <= 12
            for event in events:
                assert isinstance(event, SlaveSaid)
                heard[event.link].append(event.message)
        assert heard[1] == [a_report(n) for n in range(100)]
        assert heard[2] == [a_report(1000 + n) for n in range(100)]


# -- beats and silence ------------------------------------------------------------------------------------


async def test_a_beat_with_echo_is_answered(rig: Rig) -> None:
    async with rig.linked() as far:
        far.send_many([Beat(), Beat(echo=True)])
        assert await far.receive() == Beat()
        assert await said(far) == []


async def test_a_silent_slave_is_asked_and_then_dropped(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with rig.linked() as far:
        nursery.start_soon(rig.slaves.beat)
        start = trio.current_time()
        heard: list[Message] = []
        await listen(far, heard)
        assert SILENCE_S < trio.current_time() - start <= SILENCE_S + 10
        assert heard[0] == Beat()
        assert heard[1:] == [Beat(echo=True)] * (len(heard) - 1)
        assert len(heard) > 1
        (event,) = await rig.events()
        assert event == SlaveUnlinked(1, start)
    nursery.cancel_scope.cancel()


async def test_a_slave_that_answers_beats_stays(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with rig.linked() as far:
        nursery.start_soon(rig.slaves.beat)
        with trio.move_on_after(600):
            while True:
                message = await far.receive()
                assert isinstance(message, Beat)
                if message.echo:
                    far.send(Beat())
        assert not far.closed
    nursery.cancel_scope.cancel()


async def test_a_slave_whose_words_the_master_cannot_take_is_not_silent(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """While a full disk holds up the core, slaves may talk to a wall for an hour."""
    rig = Rig(limit=1)
    async with rig.linked() as far:
        nursery.start_soon(rig.slaves.beat)
        far.send(a_report(1))
        with trio.move_on_after(3600):
            while True:
                await far.receive()
        assert not far.closed
        assert await rig.events() == [SlaveSaid(1, a_report(1))]
        far.send(a_report(2))
        assert await rig.events() == [SlaveSaid(1, a_report(2))]
    nursery.cancel_scope.cancel()


# -- orders and other effects -----------------------------------------------------------------------------


async def test_orders_larger_than_a_packet_come_in_several_in_order(rig: Rig) -> None:
    run = tuple(RunOrder(key=a_key(n), start=n, shell="x" * 60_000) for n in range(11))
    stop = tuple(Stop(a_key(100 + n), "stop") for n in range(3))
    noted = tuple(a_key(200 + n) for n in range(25))
    async with rig.linked() as far:
        rig.slaves.tell(Tell(1, Orders(epoch=7, run=run, stop=stop, noted=noted)))
        parts = await said(far)
        assert all(isinstance(part, Orders) and part.epoch == 7 for part in parts)
        assert tuple(order for part in parts for order in part.run) == run  # type: ignore[attr-defined]
        assert tuple(order for part in parts for order in part.stop) == stop  # type: ignore[attr-defined]
        assert tuple(key for part in parts for key in part.noted) == noted  # type: ignore[attr-defined]
        assert await rig.events() == []


async def test_an_order_that_fits_no_packet_fails_its_attempt_and_nothing_else(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the master would die of it, restart, order it again, and die again."""
    big = RunOrder(key=a_key(1), start=1, shell="x" * 270_000)
    small = RunOrder(key=a_key(2), start=2, shell="x")
    async with rig.linked() as far:
        rig.slaves.tell(
            Tell(1, Orders(epoch=7, run=(big, small), stop=(Stop(a_key(8), "w"),), noted=(a_key(9),)))
        )
        parts = [part for part in await said(far) if isinstance(part, Orders)]
        assert [order for part in parts for order in part.run] == [small]
        assert [stop.key for part in parts for stop in part.stop] == [a_key(8)]
        assert [key for part in parts for key in part.noted] == [a_key(9)]
        (event,) = await rig.events()
        assert isinstance(event, SlaveSaid)
        assert event.link == 1
        assert isinstance(event.message, Report)
        (exited,) = event.message.exited
        assert (exited.key, exited.exit.reason, exited.exit.code) == (a_key(1), "bad-order", None)
    assert "too large" in caplog.text


async def test_another_message_that_fits_no_packet_is_left_out(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.linked() as far:
        change = LimitsChange(pools=("p" * 60,) * 6000)
        rig.slaves.tell(Tell(1, SetLimits(rq=0, change=change)))
        rig.slaves.tell(Tell(1, Registered(slave=4, name="s1")))
        assert await said(far) == [Registered(slave=4, name="s1")]
    assert "left out" in caplog.text


async def test_a_slave_is_turned_away_with_a_sentence_however_long(rig: Rig) -> None:
    async with rig.linked() as far:
        rig.slaves.unlink(Unlink(1, "identity-in-use", "s" * 600_000, retry=True))
        rejected = await far.receive()
        assert isinstance(rejected, Rejected)
        assert (rejected.code, rejected.retry) == ("identity-in-use", True)
        with pytest.raises(LinkClosed):
            await far.receive()
    assert isinstance((await rig.events())[-1], SlaveUnlinked)


async def test_effects_for_a_link_that_is_gone_go_nowhere(rig: Rig) -> None:
    async with rig.linked():
        pass
    rig.slaves.tell(Tell(1, Orders(epoch=1)))
    rig.slaves.unlink(Unlink(1, "say-hello", "say Hello again", retry=True))
    with pytest.raises(NotLinked):
        await rig.slaves.ask(1, ReadLog(rq=1, key=a_key(1)))


async def test_whoever_wants_limits_changed_waits_for_no_dead_link(
    rig: Rig, autojump_clock: MockClock
) -> None:
    """Long before the link itself is given up; what a slave has to read may take longer."""
    async with rig.linked():
        for request, seconds in (
            (SetLimits(rq=1, change=LimitsChange(enabled=False)), 5),
            (KillAttempts(rq=2, job=1), 5),
            (Examine(rq=3), 30),
        ):
            began = trio.current_time()
            answer = await rig.slaves.ask(1, request)
            assert isinstance(answer, Refusal)
            assert (answer.rq, answer.code) == (request.rq, "not-linked")
            assert f"within {seconds} s" in answer.text
            assert trio.current_time() - began == pytest.approx(seconds)


async def test_flush_waits_for_last_words_and_not_too_long(rig: Rig, autojump_clock: MockClock) -> None:
    async with rig.linked("a") as one, rig.linked("b"):
        for link in (1, 2):
            for n in range(10):
                order = RunOrder(key=a_key(n), start=n, shell="x" * 100_000)
                rig.slaves.tell(Tell(link, Orders(epoch=1, run=(order,))))
        start = trio.current_time()
        await rig.slaves.flush(2)
        assert trio.current_time() - start == pytest.approx(2)
        assert len(await said(one)) == 10


async def test_a_node_has_no_more_links_than_its_share(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may hold a Hello that is not whole for half a minute."""
    monkeypatch.setattr(slaves, "_LINKS_OF_ONE", 2)
    async with rig.dialled() as first, rig.dialled():
        async with rig.dialled() as third:
            (last,) = await said(third)
            assert isinstance(last, Rejected)
            assert (last.code, last.retry) == ("too-many", True)
        first.close()
        await trio.testing.wait_all_tasks_blocked()
        async with rig.dialled() as fourth:
            assert await said(fourth) == []
    assert not rig.slaves._links_of
