"""Who may ask a slave what at its own port, and what of it the master hears."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from drqueue.engine import Inbox
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Acted, Message
from drqueue.proto.messages import (
    Done,
    Examine,
    Findings,
    GetSlave,
    KillAttempts,
    ReadLog,
    Refusal,
    Request,
    SetLimits,
)
from drqueue.proto.model import LimitsChange
from drqueue.proto.roles import Role, Who
from drqueue.proto.views import Finding, SlaveView
from drqueue.slave.acts import WAITING_MAX, Acts, described
from drqueue.slave.core.events import Asked, Event
from drqueue.slave.requests import LinkRequests, Requests

KEY = AttemptKey(1, 0, 3, 1)
DISABLE = SetLimits(rq=1, change=LimitsChange(enabled=False, max_cpus=None, max_load=1.5, pools=("A", "B")))
KILL = KillAttempts(rq=2, job=4)


def who(role: Role, name: str = "ann") -> Who:
    """Somebody."""
    return Who(name=name, role=role, account="acc", peer="10.0.0.9")


class Bench:
    """Requests without sockets: what is answered, what the core is asked, what the master hears."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.inbox: Inbox[Event] = Inbox()
        self.linked = True
        self.clock = 5000.0
        self.heard: list[Acted] = []
        self.said: list[Message] = []
        self.acts = Acts(self._hear, lambda: self.clock)
        self.requests = Requests(
            str(folder), self.inbox, self._view, lambda key: True, look=self._look, acts=self.acts
        )
        self._nursery = nursery

    def _hear(self, message: Message) -> bool:
        if self.linked:
            assert isinstance(message, Acted)
            self.heard.append(message)
        return self.linked

    def _view(self) -> SlaveView:
        raise AssertionError("nobody asks for it here")

    async def _look(self) -> tuple[Finding, ...]:
        return (Finding(what="clock", state="ok", text="it goes"),)

    def link(self, who: Who | None) -> LinkRequests:
        """The requests of one link."""
        return self.requests.for_link(self._nursery, self.said.append, who)

    async def asked(self) -> Asked:
        """What the core was asked."""
        with trio.fail_after(5):
            (event,) = await self.inbox.take(5) or []
        assert isinstance(event, Asked)
        return event

    def refusal(self) -> Refusal:
        """The refusal that was said, and nothing else."""
        (said,) = self.said
        self.said.clear()
        assert isinstance(said, Refusal)
        return said


@asynccontextmanager
async def a_bench(folder: Path) -> AsyncIterator[Bench]:
    """One, with a nursery."""
    async with trio.open_nursery() as nursery:
        yield Bench(folder, nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("role", "request_", "text"),
    [
        ("viewer", ReadLog(rq=1, key=KEY), "this takes an artist, you are a viewer"),
        ("viewer", KILL, "this takes an artist, you are a viewer"),
        ("artist", DISABLE, "this takes a supervisor, you are an artist"),
        ("supervisor", Examine(rq=1), "this takes an admin, you are a supervisor"),
    ],
)
async def test_a_role_that_does_not_reach_is_refused_and_noted(
    tmp_path: Path, role: Role, request_: Request, text: str
) -> None:
    async with a_bench(tmp_path) as bench:
        bench.link(who(role)).handle(request_)
        refusal = bench.refusal()
        assert (refusal.code, refusal.text) == ("not-allowed", text)
        (heard,) = bench.heard
        assert (heard.who, heard.role, heard.peer) == ("ann", role, "10.0.0.9")
        assert (heard.outcome, heard.at) == ("not-allowed", 5000.0)
        assert len(bench.inbox) == 0


@pytest.mark.parametrize(("role", "only_of"), [("artist", "ann"), ("supervisor", None), ("admin", None)])
async def test_artists_are_held_to_what_they_submitted(
    tmp_path: Path, role: Role, only_of: str | None
) -> None:
    async with a_bench(tmp_path) as bench:
        bench.link(who(role)).handle(KILL)
        assert (await bench.asked()).only_of == only_of


async def test_what_the_master_passes_on_was_checked_and_is_not_noted_here(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        link = bench.link(None)
        link.handle(DISABLE)
        asked = await bench.asked()
        assert asked.only_of is None
        asked.asker(Done(rq=1, count=1))  # type: ignore[operator]
        link.handle(Examine(rq=3))
        with trio.fail_after(5):
            while len(bench.said) < 2:  # noqa: ASYNC110  (a list has no event)
                await trio.sleep(0.01)
        found = (Finding(what="clock", state="ok", text="it goes"),)
        assert bench.said == [Done(rq=1, count=1), Findings(rq=3, findings=found)]
        assert bench.heard == []


async def test_what_was_changed_is_told_once_it_is_done(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        link = bench.link(who("supervisor"))
        link.handle(DISABLE)
        assert bench.heard == []
        (await bench.asked()).asker(Done(rq=1, count=1))  # type: ignore[operator]
        link.handle(DISABLE)
        (await bench.asked()).asker(Done(rq=1, count=0))  # type: ignore[operator]
        link.handle(KILL)
        (await bench.asked()).asker(Refusal(rq=2, code="not-allowed", text="bob's"))  # type: ignore[operator]
        assert [(act.what, act.outcome) for act in bench.heard] == [
            ("set enabled=no, max_cpus=off, max_load=1.5, pools=A+B", "done"),
            ("kill all frames of job 4", "not-allowed"),
        ]


async def test_a_refusal_that_is_repeated_is_told_once_a_minute(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        link = bench.link(who("viewer"))
        for _ in range(3):
            link.handle(KILL)
        assert len(bench.heard) == 1
        bench.link(who("viewer", "bob")).handle(KILL)
        assert len(bench.heard) == 2
        bench.clock += 61
        link.handle(KILL)
        assert len(bench.heard) == 3


async def test_what_happens_without_a_link_is_told_on_the_next(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.linked = False
        somebody = who("admin")
        for number in range(WAITING_MAX + 5):
            bench.acts.done(somebody, KillAttempts(rq=1, job=number))
        assert bench.heard == []
        bench.linked = True
        bench.acts.tell()
        lost, first, *_, last = bench.heard
        assert len(bench.heard) == WAITING_MAX + 1
        assert (lost.outcome, lost.what[:9]) == ("lost", "5 older e")
        assert (first.what, last.what) == ("kill all frames of job 5", "kill all frames of job 1004")
        bench.acts.tell()
        assert len(bench.heard) == WAITING_MAX + 1


async def test_one_look_at_a_time_on_a_link(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        link = bench.link(who("admin"))
        link.handle(Examine(rq=1))
        link.handle(Examine(rq=2))
        refusal = bench.refusal()
        assert (refusal.rq, refusal.code) == (2, "busy")


def test_requests_in_words() -> None:
    assert described(KillAttempts(rq=1, keys=(KEY, KEY))) == "kill 2 frames of job 1"
    assert described(KillAttempts(rq=1, keys=(KEY, AttemptKey(2, 0, 0, 1)))) == "kill 2 frames"
    assert described(SetLimits(rq=1, change=LimitsChange())) == "set nothing"
    assert described(SetLimits(rq=1, change=LimitsChange(join=("x" * 50,)))) == f"set join={'x' * 39}…"
    assert described(KillAttempts(rq=1, keys=(KEY,))) == "kill 1 frame of job 1"
    assert described(ReadLog(rq=1, key=KEY)) == "read a log of job 1"
    assert described(GetSlave(rq=1)) == "look at the slave"
    assert described(Examine(rq=1)) == "examine the slave"
