"""One line each for what tests of the core need: a job, a slave, a farm that drives a Core by hand.

`CoreFarm` checks all invariants after every step, sends every message through the codec (one that
cannot travel should fail the cheapest test), and keeps what was said per link.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from msgspec import structs

from drqueue.master.core.core import Core
from drqueue.master.core.effects import Answer, AskHistory, Effect, Publish, Tell, Unlink
from drqueue.master.core.events import ClientAsked, Event, SlaveLinked, SlaveSaid, SlaveUnlinked
from drqueue.master.core.invariants import check
from drqueue.master.core.records import AnyRecord
from drqueue.master.core.turn import Policy
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.codec import decode, encode
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import (
    Exited,
    FrameVerb,
    GetJob,
    Held,
    Hello,
    Job,
    JobVerb,
    ListFrames,
    Message,
    Orders,
    Refusal,
    Report,
    Request,
    Started,
    Submit,
    Submitted,
)
from drqueue.proto.model import Exit, JobSpec, LayerSpec, MachineInfo, RunOrder, SlaveLimits
from drqueue.proto.views import FrameView, JobView

WALL = 1_000_000.0


def a_layer(frames: str = "1-10", **fields: Any) -> LayerSpec:
    """A layer that runs /bin/true."""
    fields.setdefault("argv", ("/bin/true",))
    return LayerSpec(frames=frames, **fields)


def a_job(frames: str = "1-10", *, layer: dict[str, Any] | None = None, **fields: Any) -> JobSpec:
    """A job of one layer over `frames`; `layer` and the other fields override what is usual."""
    fields.setdefault("name", "job")
    fields.setdefault("layers", (a_layer(frames, **(layer or {})),))
    return JobSpec(**fields)


def a_hello(name: str = "s1", **fields: Any) -> Hello:
    """A slave's Hello: 4 cores, 8 GB, Linux."""
    fields.setdefault("identity", f"id-{name}")
    fields.setdefault("machine", MachineInfo(hostname=name, os="linux", boot_id="boot-1"))
    fields.setdefault("limits", SlaveLimits())
    fields.setdefault("cores", 4)
    fields.setdefault("memory_mb", 8192)
    return Hello(name=name, **fields)


def well(**fields: Any) -> Exit:
    """Exit 0."""
    return Exit(code=0, **fields)


def badly(code: int = 1, **fields: Any) -> Exit:
    """Exit non-zero."""
    return Exit(code=code, **fields)


class CoreFarm:
    """A Core with imaginary slaves and clients. Time stands still unless `at` or `wait` moves it."""

    def __init__(self, policy: Policy | None = None, storage: MemoryStorage | None = None) -> None:
        self.policy = policy or Policy(farm="farm", epoch=1, software="test")
        self.storage = storage or MemoryStorage()
        self.now = 100.0
        self.core = Core(self.policy, self.storage.load(), self.now, WALL + self.now)
        self.said: dict[int, list[Message]] = {}
        self.answers: dict[int, list[Request]] = {}
        self.unlinked: dict[int, Unlink] = {}
        self.published: list[Publish] = []
        self.asked_history: list[AskHistory] = []
        self.saved: list[AnyRecord] = []
        self._links = count(1)
        self._rq = count(1)
        self._tokens = count(1)

    # -- driving --------------------------------------------------------------------------------------

    def step(self, *events: Event) -> Sequence[Effect]:
        """One step; commits, checks, and keeps what is said."""
        outcome = self.core.step(events, self.now)
        self.storage.commit(outcome.save)
        self.saved += outcome.save
        check(self.core.state)
        wake = self.core.next_wakeup()
        assert wake is None or wake > self.now - 1e-6, "a deadline that passed was not met"
        for effect in outcome.do:
            match effect:
                case Tell():
                    self.said.setdefault(effect.link, []).append(_travelled(effect.message))
                case Answer():
                    answer = _travelled(effect.message)
                    assert isinstance(answer, Request)
                    self.answers.setdefault(effect.client, []).append(answer)
                case Unlink():
                    self.unlinked[effect.link] = effect
                case Publish():
                    self.published.append(effect)
                case AskHistory():
                    self.asked_history.append(effect)
        return outcome.do

    def wait(self, seconds: float) -> None:
        """Let time pass, waking the core whenever it wants to be."""
        until = self.now + seconds
        while (wake := self.core.next_wakeup()) is not None and wake <= until:
            self.now = max(self.now, wake)
            self.step()
        self.now = until
        self.step()

    def restart(self) -> None:
        """Kill the master and start another from what was committed; every link is gone."""
        epoch = self.policy.epoch + 1
        self.policy = structs_replace(self.policy, epoch=epoch)
        self.core = Core(self.policy, self.storage.load(), self.now, WALL + self.now)
        check(self.core.state)

    # -- slaves ---------------------------------------------------------------------------------------

    def link(self, name: str = "s1", held: Sequence[Held] = (), **fields: Any) -> int:
        """A slave says Hello; its link."""
        link = next(self._links)
        self.step(SlaveLinked(link, a_hello(name, **fields), tuple(held)))
        return link

    def unlink(self, link: int) -> None:
        """Its link drops."""
        self.step(SlaveUnlinked(link, self.now))

    def orders(self, link: int) -> list[RunOrder]:
        """What it was told to run since last asked for; stops and notes stay."""
        runs = [run for m in self.said.get(link, []) if isinstance(m, Orders) for run in m.run]
        kept = [structs.replace(m, run=()) if isinstance(m, Orders) else m for m in self.said.get(link, [])]
        self.said[link] = kept
        return runs

    def stops(self, link: int) -> list[tuple[AttemptKey, str]]:
        """All it was ever told to stop, and why."""
        return [(s.key, s.why) for m in self.said.get(link, []) if isinstance(m, Orders) for s in m.stop]

    def noted(self, link: int) -> list[AttemptKey]:
        """All exits that were ever noted to it."""
        return [key for m in self.said.get(link, []) if isinstance(m, Orders) for key in m.noted]

    def started(self, link: int, *keys: AttemptKey) -> None:
        """It says that these run."""
        news = Report(started=tuple(Started(key, WALL) for key in keys))
        self.step(SlaveSaid(link, news))

    def exited(self, link: int, key: AttemptKey, result: Exit | None = None) -> None:
        """It says that this one is over (well, if nothing else is said)."""
        self.step(SlaveSaid(link, Report(exited=(Exited(key, result or well()),))))

    def render_all(self, link: int) -> int:
        """It runs whatever it is told to, well, until there is no more; how many."""
        total = 0
        while orders := self.orders(link):
            for order in orders:
                total += 1
                self.exited(link, order.key)
        return total

    # -- clients ----------------------------------------------------------------------------------------

    def ask(self, request: Request) -> Request:
        """The answer to a request."""
        request = structs.replace(request, rq=next(self._rq))
        travelled = _travelled(request)
        assert isinstance(travelled, Request)
        self.step(ClientAsked(1, travelled))
        answer = self.answers[1].pop()
        assert answer.rq == request.rq
        return answer

    def submit(self, spec: JobSpec | None = None, token: str = "") -> int:
        """Queue a job that must be accepted; its id."""
        token = token or f"token-{next(self._tokens):06d}"
        answer = self.ask(Submit(rq=0, token=token, spec=spec or a_job()))
        assert isinstance(answer, Submitted), answer
        return answer.job

    def verb(self, job: int, verb: Any) -> int:
        """A verb on a job, which must be done; its count."""
        answer = self.ask(JobVerb(rq=0, job=job, verb=verb))
        assert not isinstance(answer, Refusal), answer
        return answer.count  # type: ignore[attr-defined,no-any-return]

    def frame(self, job: int, verb: Any, frames: str, **fields: Any) -> int:
        """A verb on frames, which must be done; its count."""
        answer = self.ask(FrameVerb(rq=0, job=job, verb=verb, frames=frames, **fields))
        assert not isinstance(answer, Refusal), answer
        return answer.count  # type: ignore[attr-defined,no-any-return]

    def refusal(self, request: Request) -> Refusal:
        """The refusal that a request must meet."""
        answer = self.ask(request)
        assert isinstance(answer, Refusal), answer
        return answer

    def job(self, number: int = 0) -> JobView:
        """A job as clients see it."""
        answer = self.ask(GetJob(rq=0, job=number))
        assert isinstance(answer, Job), answer
        return answer.job

    def frames(self, job: int = 0) -> dict[int, FrameView]:
        """A job's frames by number."""
        answer: Any = self.ask(ListFrames(rq=0, job=job, limit=1000))
        return {view.number: view for view in answer.frames}

    def states(self, job: int = 0) -> dict[int, str]:
        """A job's frames' states by number."""
        return {number: view.state for number, view in self.frames(job).items()}


def structs_replace(policy: Policy, **fields: Any) -> Policy:
    """A policy with other values."""
    from dataclasses import replace

    return replace(policy, **fields)


def _travelled(message: Message) -> Message:
    decoded = decode(encode(message))
    assert decoded is not None
    assert decoded == message
    return decoded
