"""The slave's link against a scripted master."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from drqueue.channel import LinkClosed
from drqueue.engine import Inbox
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    Beat,
    Grant,
    Held,
    Hello,
    HelloMore,
    LimitsNow,
    Orders,
    Progressed,
    Registered,
    Report,
    Started,
    Status,
)
from drqueue.proto.messages import Done, GetSlave, KillAttempts, SlaveInfo
from drqueue.proto.model import MachineInfo, MachineLoad, Offers, SlaveLimits
from drqueue.settings import Address
from drqueue.slave.core.events import Asked, Event, Granted, Heard, Linked, OrdersCame, RegisteredAs, Unlinked
from drqueue.slave.core.state import State
from drqueue.slave.link import HELD_PART, Link
from drqueue.slave.offer import Offer
from drqueue.slave.requests import Requests
from drqueue.slave.routes import Routes
from drqueue.slave.view import slave_view
from tests.slave.scripted_master import ScriptedMaster

MACHINE = MachineInfo(hostname="h", os="linux")


class Rig:
    """A link whose events are taken out by the test."""

    def __init__(self, folder: Path, addresses: list[Address]) -> None:
        self.inbox: Inbox[Event] = Inbox()
        self.state = State(SlaveLimits())
        self.requests = Requests(str(folder), self.inbox, self.view, lambda key: True)
        self.link = Link(
            Routes(str(folder), addresses, named=True),
            self.inbox,
            self.requests,
            self._hello,
            software="test",
            name="s",
            rng=lambda: 0.0,
            boottime=self.boottime,
        )
        self._events: list[Event] = []
        self.slept_s = 0.0

    def boottime(self) -> float:
        """As the real one, and what the machine slept besides."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.slept_s

    def view(self) -> object:
        return slave_view(
            self.state,
            name="s",
            offer=Offer(MACHINE, 4, 1, Offers()),
            load=MachineLoad(),
            control="",
            last_heard_at=0.0,
        )

    def _hello(self, held: tuple[Held, ...], more: bool) -> Hello:
        return Hello(
            identity="i",
            name="s",
            machine=MACHINE,
            limits=SlaveLimits(),
            cores=4,
            memory_mb=1,
            held=held,
            more=more,
        )

    async def next(self) -> Event:
        """The next event."""
        with trio.fail_after(5):
            while not self._events:
                self._events += await self.inbox.take(5) or []
        return self._events.pop(0)

    async def until(self, kind: type) -> Event:
        """The next event of a kind; others are dropped."""
        while not isinstance(event := await self.next(), kind):
            pass
        return event


@asynccontextmanager
async def linked(folder: Path, *paths: str) -> AsyncIterator[tuple[Rig, ScriptedMaster]]:
    """A link that dials a scripted master."""
    master = ScriptedMaster(str(folder / "m.sock"))
    rig = Rig(folder, [Address("unix", path=path) for path in (*paths, master.path)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.link.run)
        yield rig, master
        nursery.cancel_scope.cancel()
    master.close()


async def test_messages_become_events_in_order(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master):
        async with master.link() as link:
            assert await rig.next() == Linked(1, "farm-a", 1)
            rig.link.say_hello(1, ())
            rig.link.flush()
            await link.register(slave=8, name="s-2")
            assert await rig.next() == RegisteredAs(8, "s-2")
            assert rig.link.registered
            link.channel.send_many([Beat(), Orders(epoch=1), Grant(lease_s=5.0)])
            assert await rig.next() == OrdersCame(Orders(epoch=1))
            assert await rig.next() == Granted(5.0)
            assert await rig.next() == Heard()
        assert await rig.next() == Unlinked(1)
        assert not rig.link.registered


async def test_the_first_address_that_answers_is_taken(tmp_path: Path) -> None:
    async with linked(tmp_path, str(tmp_path / "nobody.sock")) as (rig, master), master.link():
        assert isinstance(await rig.next(), Linked)
        assert rig.link.address == f"unix:{master.path}"


async def test_it_dials_again_after_a_drop_and_numbers_its_links(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master):
        for number in (1, 2, 3):
            async with master.link():
                assert await rig.until(Linked) == Linked(number, "farm-a", 1)
            assert await rig.until(Unlinked) == Unlinked(number)


async def test_a_large_hello_goes_in_parts(tmp_path: Path) -> None:
    held = tuple(Held(AttemptKey(1, 0, n, 1), n % 2 == 0) for n in range(2 * HELD_PART + 1))
    async with linked(tmp_path) as (rig, master), master.link() as link:
        await rig.until(Linked)
        rig.link.say_hello(1, held)
        rig.link.flush()
        hello = await link.hear(Hello)
        assert isinstance(hello, Hello)
        parts = [hello.held]
        more = hello.more
        while more:
            part = await link.hear(HelloMore)
            assert isinstance(part, HelloMore)
            parts.append(part.held)
            more = part.more
        assert [len(part) for part in parts] == [HELD_PART, HELD_PART, 1]
        assert sum(parts, ()) == held


async def test_what_was_meant_for_an_older_link_is_not_sent_on_a_newer(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master):
        async with master.link():
            await rig.until(Linked)
            rig.link.send(1, LimitsNow(limits=SlaveLimits(max_cpus=1)))
        await rig.until(Unlinked)
        rig.link.send(1, LimitsNow(limits=SlaveLimits(max_cpus=1)))
        async with master.link() as link:
            await rig.until(Linked)
            rig.link.send(1, LimitsNow(limits=SlaveLimits(max_cpus=1)))
            rig.link.send(2, LimitsNow(limits=SlaveLimits(max_cpus=2)))
            rig.link.flush()
            assert await link.hear(LimitsNow) == LimitsNow(limits=SlaveLimits(max_cpus=2))


async def test_it_beats_in_the_farms_rhythm_and_answers_an_echo(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master), master.link() as link:
        await rig.until(Linked)
        rig.link.say_hello(1, ())
        rig.link.flush()
        await link.register(beat_s=0.1, silence_s=30)
        await link.hear(Beat, timeout_s=5)
        await link.hear(Beat, timeout_s=5)
        link.channel.send(Beat(echo=True))
        answer = await link.hear(Beat)
        assert answer == Beat(at=answer.at)


async def test_silence_ends_a_link_and_another_is_made(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master):
        async with master.link() as link:
            await rig.until(Linked)
            rig.link.say_hello(1, ())
            rig.link.flush()
            await link.register(beat_s=30, silence_s=0.3)
            assert await rig.until(Unlinked) == Unlinked(1)
        async with master.link():
            assert await rig.until(Linked) == Linked(2, "farm-a", 1)


async def test_words_of_the_master_keep_a_link(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master), master.link() as link:
        await rig.until(Linked)
        rig.link.say_hello(1, ())
        rig.link.flush()
        await link.register(beat_s=30, silence_s=0.5)
        for _ in range(10):
            await trio.sleep(0.1)
            link.channel.send(Beat())
            assert await rig.until(Heard) == Heard()
        assert rig.link.number == 1


@pytest.mark.parametrize(("slept_s", "stays"), [(3600.0, False), (20.0, True)])
async def test_what_lay_in_the_socket_while_the_machine_slept_is_no_news(
    tmp_path: Path, slept_s: float, stays: bool
) -> None:
    """Only a clock that goes on in a suspend can tell: trio's stands still."""
    async with linked(tmp_path) as (rig, master):
        async with master.link() as link:
            await rig.until(Linked)
            rig.link.say_hello(1, ())
            rig.link.flush()
            await link.register(beat_s=30, silence_s=30)
            await rig.until(RegisteredAs)
            rig.slept_s = slept_s
            link.channel.send(Orders(epoch=1))
            event = await rig.next()
            while isinstance(event, Heard):
                event = await rig.next()
            assert event == (OrdersCame(Orders(epoch=1)) if stays else Unlinked(1))
        if not stays:
            async with master.link():
                assert await rig.until(Linked) == Linked(2, "farm-a", 1)


async def test_a_handshake_that_the_machine_slept_through_is_no_link(tmp_path: Path) -> None:
    master = ScriptedMaster(str(tmp_path / "m.sock"))
    rig = Rig(tmp_path, [Address("unix", path=master.path)])
    naps = iter((0.0, 3600.0))
    rig.link.boottime = lambda: rig.boottime() + next(naps, 3600.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.link.run)
        async with master.link() as link:
            with trio.fail_after(5), pytest.raises(LinkClosed):
                await link.channel.receive()
        async with master.link():
            assert await rig.next() == Linked(1, "farm-a", 1)
        nursery.cancel_scope.cancel()
    master.close()


async def test_nonsense_ends_the_link_only(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master):
        async with master.link() as link:
            await rig.until(Linked)
            link.channel._sock.send(b"\x00\x00\x00\x02\xc1\xc1")
            assert await rig.until(Unlinked) == Unlinked(1)
        async with master.link():
            assert await rig.until(Linked) == Linked(2, "farm-a", 1)


async def test_a_rejection_without_retry_is_said_once_and_tried_slowly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def remembered(link: Link, seconds: float) -> None:
        pauses.append(seconds)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Link, "_pause", remembered)
    async with linked(tmp_path) as (rig, master):
        for _ in range(2):
            async with master.link() as link:
                await rig.until(Linked)
                link.channel.reject("duplicate", "s1 holds this identity", retry=False)
                await rig.until(Unlinked)
    said = [record for record in caplog.records if "s1 holds this identity" in record.getMessage()]
    assert len(said) == 1
    assert pauses.count(30.0) >= 2


async def test_a_core_may_drop_the_link(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master):
        async with master.link() as link:
            await rig.until(Linked)
            rig.link.drop(1, "older epoch")
            with trio.fail_after(5), pytest.raises((LinkClosed, RemoteProtocolError)):
                await link.channel.receive()
        await rig.until(Unlinked)


async def test_requests_relayed_by_the_master_are_answered_there(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master), master.link() as link:
        await rig.until(Linked)
        link.channel.send(GetSlave(rq=5))
        info = await link.hear(SlaveInfo)
        assert isinstance(info, SlaveInfo)
        assert (info.rq, info.slave.name) == (5, "s")
        link.channel.send(KillAttempts(rq=6, job=1))
        asked = await rig.until(Asked)
        assert isinstance(asked, Asked)
        assert isinstance(asked.asker, Callable)  # type: ignore[arg-type]
        asked.asker(Done(rq=6, count=2))
        assert await link.hear(Done) == Done(rq=6, count=2)


async def test_a_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked(tmp_path) as (rig, master), master.link() as link:
        await rig.until(Linked)
        writes: list[int] = []
        write = type(link.channel)._write
        monkeypatch.setattr(
            type(link.channel), "_write", lambda self, data: (writes.append(len(data)), write(self, data))[1]
        )
        for _ in range(5):
            rig.link.send(1, Status(load=MachineLoad()))
        rig.link.flush()
        rig.link.flush()
        assert len(writes) == 1
        for _ in range(5):
            await link.hear(Status)


# -- what the master is to know to have come ----------------------------------------------------------------


async def test_i3_each_word_says_when_it_was_said_and_what_came_is_told_to_the_core(tmp_path: Path) -> None:
    async with linked(tmp_path) as (rig, master), master.link() as link:
        await rig.until(Linked)
        before = rig.boottime()
        rig.link.say_hello(1, ())
        rig.link.flush()
        hello = await link.hear(Hello)
        assert isinstance(hello, Hello)
        assert before <= hello.at <= rig.boottime()
        link.channel.send(Registered(slave=0, name="s", beat_s=0.1, silence_s=30, seen=hello.at))
        assert await rig.until(RegisteredAs) == RegisteredAs(0, "s", hello.at)
        beat = await link.hear(Beat)
        assert isinstance(beat, Beat)
        assert hello.at < beat.at <= rig.boottime()
        # Read in one go, one of them overtaken by the other.
        link.channel.send_many([Beat(seen=beat.at), Beat(seen=hello.at), Beat(echo=True)])
        heard = await rig.until(Heard)
        while heard == Heard():
            heard = await rig.until(Heard)
        assert heard == Heard(beat.at)
        echo = await link.hear(Beat)
        assert isinstance(echo, Beat)
        assert echo.at > beat.at


async def test_f6_reports_are_counted_on_each_link_but_for_those_of_progress(tmp_path: Path) -> None:
    key = AttemptKey(1, 0, 0, 1)
    started, progressed = Report(started=(Started(key, 5.0),)), Report(progressed=(Progressed(key, 0.5),))
    async with linked(tmp_path) as (rig, master):
        for number in (1, 2):
            async with master.link() as link:
                await rig.until(Linked)
                rig.link.send(3 - number, started)  # for another link: it goes nowhere, and is not counted
                for report in (started, progressed, started):
                    rig.link.send(number, report)
                rig.link.flush()
                told = [await link.hear(Report) for _ in range(3)]
                assert [report.nth for report in told if isinstance(report, Report)] == [1, 0, 2]
            await rig.until(Unlinked)
