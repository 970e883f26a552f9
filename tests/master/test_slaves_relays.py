"""What a master passes on to slaves, and what they say of more than frames. Time is virtual."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from drqueue.channel import LinkClosed
from drqueue.master.core.events import SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.master.slaves import NotLinked
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Acted, Message, NewSecret, SecretTaken, TicketKey
from drqueue.proto.messages import Done, Examine, Findings, KillAttempts, LogPart, ReadLog, Refusal
from tests.builders import a_hello
from tests.master.rig import said
from tests.master.slave_rig import WHO, Rig, a_key


@pytest.fixture
async def rig() -> Rig:
    return Rig()


# -- relays -----------------------------------------------------------------------------------------------


class Asking:
    """Relayed requests on their way, and what became of each."""

    def __init__(self, rig: Rig, nursery: trio.Nursery) -> None:
        self._rig = rig
        self._nursery = nursery
        self.answers: dict[int, Message | str] = {}

    def ask(self, rq: int, wait_s: float = 0.0, link: int = 1) -> None:
        """Ask for a log on behalf of somebody."""
        self._nursery.start_soon(self._ask, link, rq, wait_s)

    async def _ask(self, link: int, rq: int, wait_s: float) -> None:
        try:
            self.answers[rq] = await self._rig.slaves.ask(link, ReadLog(rq=rq, key=a_key(rq)), wait_s)
        except NotLinked:
            self.answers[rq] = "not linked"


async def test_answers_find_their_askers_in_any_order(rig: Rig, nursery: trio.Nursery) -> None:
    asking = Asking(rig, nursery)
    async with rig.linked() as far:
        # Two clients may well use the same number.
        asking.ask(7)
        asking.ask(8)
        asked = [await far.receive() for _ in range(2)]
        assert all(isinstance(request, ReadLog) for request in asked)
        assert len({request.rq for request in asked}) == 2  # type: ignore[attr-defined]
        far.send(Done(rq=0))
        far.send(Done(rq=999_999))
        for request in reversed(asked):
            assert isinstance(request, ReadLog)
            far.send(LogPart(rq=request.rq, data=b"%d" % request.key.frame, next=1, size=1))
            far.send(Refusal(rq=request.rq, code="again", text="a second answer is none"))
        await trio.testing.wait_all_tasks_blocked()
        assert asking.answers == {
            7: LogPart(rq=7, data=b"7", next=1, size=1),
            8: LogPart(rq=8, data=b"8", next=1, size=1),
        }
        assert not far.closed


async def test_a_slave_that_vanishes_leaves_no_asker_waiting(rig: Rig, nursery: trio.Nursery) -> None:
    asking = Asking(rig, nursery)
    async with rig.linked() as far:
        asking.ask(1)
        asking.ask(2)
        await far.receive()
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()
    assert asking.answers == {1: "not linked", 2: "not linked"}


@pytest.mark.parametrize(("wait_s", "patience_s"), [(0.0, 30.0), (20.0, 50.0), (1e15, 90.0)])
async def test_an_answer_that_never_comes_is_waited_for_so_long(
    rig: Rig, nursery: trio.Nursery, wait_s: float, patience_s: float, autojump_clock: MockClock
) -> None:
    asking = Asking(rig, nursery)
    async with rig.linked() as far:
        asking.ask(1, wait_s)
        request = await far.receive()
        await trio.sleep(patience_s - 1)
        assert asking.answers == {}
        await trio.sleep(2)
        refusal = asking.answers[1]
        assert isinstance(refusal, Refusal)
        assert (refusal.rq, refusal.code) == (1, "not-linked")
        # Too late is not wrong.
        assert isinstance(request, ReadLog)
        far.send(Done(rq=request.rq))
        assert await said(far) == []
        assert not far.closed


async def test_an_asker_that_gives_up_leaves_nothing_behind(rig: Rig, autojump_clock: MockClock) -> None:
    async with rig.linked() as far:
        with trio.move_on_after(1):
            await rig.slaves.ask(1, ReadLog(rq=1, key=a_key(1)))
        assert not rig.slaves._links[1].asked
        assert isinstance(await far.receive(), ReadLog)


async def test_what_cannot_be_passed_on_is_refused(rig: Rig) -> None:
    async with rig.linked() as far:
        keys = tuple(AttemptKey(2**40, 0, 0, n) for n in range(18_000))
        refusal = await rig.slaves.ask(1, KillAttempts(rq=5, keys=keys))
        assert isinstance(refusal, Refusal)
        assert (refusal.rq, refusal.code) == (5, "too-large")
        assert not rig.slaves._links[1].asked
        assert await said(far) == []


async def test_findings_find_their_asker(rig: Rig) -> None:
    async with rig.linked() as far, trio.open_nursery() as nursery:
        found: list[Message] = []

        async def ask() -> None:
            found.append(await rig.slaves.ask(1, Examine(rq=7, slave="s1")))

        nursery.start_soon(ask)
        request = await far.receive()
        assert isinstance(request, Examine)
        far.send(Findings(rq=request.rq, findings=()))
        await trio.testing.wait_all_tasks_blocked()
        assert found == [Findings(rq=7, findings=())]


# -- who and what ------------------------------------------------------------------------------------------


async def test_the_core_is_told_whose_link_it_is_and_what_was_done_at_the_slave(rig: Rig) -> None:
    acted = Acted(at=5.0, who="anna", role="artist", peer="192.0.2.7", what="kill job 3", outcome="done")
    taken = SecretTaken(secret_hash="a" * 64)
    async with rig.dialled() as far:
        far.send(a_hello())
        far.send_many([acted, taken])
        linked, *others = await rig.events()
        assert isinstance(linked, SlaveLinked)
        assert linked.who == WHO
        assert others == [SlaveSaid(1, acted), SlaveSaid(1, taken)]


@pytest.mark.parametrize(
    "message",
    [
        Acted(at=5.0, who="a" * 40_000, role="artist", peer="", what="kill"),
        Acted(at=5.0, who="anna", role="artist", peer="", what="k" * 40_000),
        TicketKey(key=b"k" * 32, now=5.0),
        NewSecret(),
    ],
)
async def test_what_no_slave_says_of_people_ends_its_link(rig: Rig, message: Message) -> None:
    async with rig.linked() as far:
        far.send(message)
        with trio.fail_after(5), pytest.raises(LinkClosed):
            await far.receive()
        assert [type(event) for event in await rig.events()] == [SlaveUnlinked]


async def test_what_slaves_run_is_known_by_their_links(rig: Rig) -> None:
    async with rig.linked():
        assert len(rig.slaves) == 1
        assert rig.slaves.software(1) == "test 9"
        assert rig.slaves.software(2) == ""
    assert len(rig.slaves) == 0
