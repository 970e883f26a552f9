"""What slaves' links at the master count and tell: which words came, and which Orders of a link these are."""

import pytest
import trio
from trio.testing import MockClock

from drqueue.channel import Channel
from drqueue.master.core.effects import Tell, Unlink
from drqueue.master.core.events import SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.proto.link_messages import Beat, Orders, Registered, Report, Status, Stop
from drqueue.proto.model import MachineLoad, RunOrder
from tests.builders import a_hello
from tests.master.rig import said
from tests.master.slave_rig import Rig, a_key, a_report

STATUS = Status(load=MachineLoad(load1=1.0))


@pytest.fixture
async def rig() -> Rig:
    return Rig()


def registered(rig: Rig, link: int = 1) -> None:
    """The core took the slave on."""
    rig.slaves.tell(Tell(link, Registered(slave=0, name="s1")))


async def beats(far: Channel) -> list[Beat]:
    """What beats came by now."""
    return [message for message in await said(far) if isinstance(message, Beat)]


async def test_i3_a_registered_slave_is_told_the_latest_of_its_words_that_came(rig: Rig) -> None:
    async with rig.dialled() as far:
        far.send(a_hello(at=5.5))
        assert isinstance((await rig.events())[0], SlaveLinked)
        registered(rig)
        far.send(Beat(echo=True))
        assert await beats(far) == [Beat(seen=5.5)]
        far.send_many([Beat(at=7.5), Beat(at=6.5, echo=True)])
        assert await beats(far) == [Beat(seen=7.5)]


async def test_i3_a_slave_that_the_core_did_not_take_on_is_told_of_no_word(rig: Rig) -> None:
    """Before it is, and where it is turned away, the core counts none of what it says."""
    async with rig.dialled() as far:
        far.send(a_hello(at=5.5))
        await rig.events()
        far.send(Beat(at=7.5, echo=True))
        assert await beats(far) == [Beat()]
        rig.slaves.unlink(Unlink(1, "identity-in-use", "no", retry=True))
        assert await beats(far) == []


async def test_i3_the_masters_own_beats_tell_it_too(
    rig: Rig, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with rig.dialled() as far:
        far.send(a_hello(at=5.5))
        await rig.events()
        registered(rig)
        nursery.start_soon(rig.slaves.beat)
        assert await far.receive() == Registered(slave=0, name="s1")
        assert await far.receive() == Beat(seen=5.5)
        far.send(Beat(at=17.5))
        assert await far.receive() == Beat(seen=17.5)
    nursery.cancel_scope.cancel()


async def test_i3_the_link_ended_no_earlier_than_its_last_word_came(
    rig: Rig, autojump_clock: MockClock
) -> None:
    """What a slave was told that it came, the core counts, even where the core itself never saw it."""
    async with rig.linked() as far:
        registered(rig)
        await trio.sleep(10)
        far.send(Beat(at=17.5, echo=True))
        assert await beats(far) == [Beat(seen=17.5)]
        told_at = trio.current_time()
        await trio.sleep(5)
    (event,) = await rig.events()
    assert isinstance(event, SlaveUnlinked)
    assert event.heard == told_at


async def test_an_older_slave_is_told_nothing_of_that(rig: Rig) -> None:
    async with rig.linked() as far:
        registered(rig)
        far.send(Beat(echo=True))
        assert await beats(far) == [Beat()]


async def test_f6_orders_are_counted_on_each_link_by_the_packet(rig: Rig) -> None:
    """Also where one has to be split, and where an order that fits into none is left out."""
    big = RunOrder(key=a_key(1), start=1, shell="x" * 270_000)
    small = tuple(RunOrder(key=a_key(n), start=n, shell="x" * 60_000) for n in range(2, 13))
    async with rig.linked("a") as one, rig.linked("b") as two:
        rig.slaves.tell(Tell(1, Orders(epoch=1, noted=(a_key(0),))))
        rig.slaves.tell(
            Tell(1, Orders(epoch=1, run=(big, *small), stop=(Stop(a_key(8), "w"),), noted=(a_key(9),)))
        )
        rig.slaves.tell(Tell(1, Orders(epoch=1, run=(big,), noted=(a_key(10),))))
        rig.slaves.tell(Tell(1, Orders(epoch=1, run=(big,))))
        rig.slaves.tell(Tell(2, Orders(epoch=1)))
        rig.slaves.tell(Tell(1, Orders(epoch=1, noted=(a_key(11),))))
        parts = [part for part in await said(one) if isinstance(part, Orders)]
        assert [part.nth for part in parts] == list(range(1, len(parts) + 1))
        assert [order for part in parts for order in part.run] == list(small)
        assert [key.frame for part in parts for key in part.noted] == [0, 9, 10, 11]
        assert [part.nth for part in await said(two) if isinstance(part, Orders)] == [1]


async def test_f9_words_are_heard_on_while_the_core_is_held_up(autojump_clock: MockClock) -> None:
    """What may be lost does not wait for room: else no beat behind it is read while a disk is full."""
    rig = Rig(limit=2)
    async with rig.dialled() as far:
        far.send(a_hello(at=1.5))
        registered_ = await rig.events()
        assert len(registered_) == 1
        registered(rig)
        progress = Report(progressed=a_report(1).progressed)
        for n in range(50):
            far.send_many([STATUS, progress, Beat(at=10.0 + n)])
        far.send(Beat(echo=True))
        assert await beats(far) == [Beat(seen=59.0)]
        assert await rig.events() == [SlaveSaid(1, STATUS), SlaveSaid(1, progress)]
