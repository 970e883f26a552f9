"""One line each for what tests of the core need: a job, a slave, a farm that drives a Core by hand.

`CoreFarm` checks all invariants after every step, sends every message through the codec (one that
cannot travel should fail the cheapest test), and keeps what was said per link. It also checks what no
single test should have to: an attempt's name is given once and saved with its order, an exit is noted
only with (or after) its final row, and a restarted master knows all that the former one knew.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from msgspec import structs

from drqueue.master.core.core import Core
from drqueue.master.core.effects import (
    Answer,
    AnswerJoin,
    AskHistory,
    Audited,
    CutClients,
    Effect,
    MailFinished,
    Publish,
    Tell,
    Unlink,
    Warn,
)
from drqueue.master.core.events import (
    ClientAsked,
    ClockRead,
    Event,
    JoinAsked,
    SlaveLinked,
    SlaveSaid,
    SlaveUnlinked,
    Stopping,
)
from drqueue.master.core.invariants import check
from drqueue.master.core.reasons import CODES
from drqueue.master.core.records import AnyRecord, AttemptRecord, AuditRecord
from drqueue.master.core.turn import Policy
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.codec import decode, encode
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import (
    Acted,
    Exited,
    Held,
    Hello,
    Join,
    Joined,
    LogKept,
    Message,
    Orders,
    Rejected,
    Report,
    SecretTaken,
    Started,
)
from drqueue.proto.messages import (
    ChangeJob,
    FrameVerb,
    GetJob,
    GetSlave,
    Job,
    JobVerb,
    ListFrames,
    Reasons,
    Refusal,
    Request,
    SlaveInfo,
    SlaveVerb,
    Submit,
    Submitted,
    Why,
)
from drqueue.proto.model import Exit, JobChange, JobSpec, LayerSpec, MachineInfo, RunOrder, SlaveLimits
from drqueue.proto.roles import Who
from drqueue.proto.views import FrameView, JobView, LayerView, Reason, SlaveView
from tests.pictures import picture

WALL = 1_000_000.0
#: Who asks, and which slaves link, where a test does not care.
ADMIN = Who(name="admin", role="admin", peer="uid 0")
LOCAL_NODE = Who(name="local", role="node", peer="uid 0")


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
    """Exit 0, after a minute."""
    fields.setdefault("started_at", WALL)
    fields.setdefault("ended_at", WALL + 60)
    return Exit(code=0, **fields)


def badly(code: int = 1, **fields: Any) -> Exit:
    """Exit non-zero."""
    return Exit(code=code, **fields)


class CoreFarm:
    """A Core with imaginary slaves and clients. Time stands still unless `at` or `wait` moves it."""

    def __init__(
        self, policy: Policy | None = None, storage: MemoryStorage | None = None, *, check_every: int = 1
    ) -> None:
        """`check_every`: of so many steps one is checked, where a test takes thousands."""
        self.check_every = check_every
        self._steps = 0
        self.policy = policy or Policy(farm="farm", epoch=1, software="test")
        self.storage = storage or MemoryStorage()
        self.now = 100.0
        self.core = Core(self.policy, self.storage.load(), self.now, WALL + self.now)
        self.said: dict[int, list[Message]] = {}
        self.answers: dict[int, list[Request]] = {}
        self.unlinked: dict[int, Unlink] = {}
        self.published: list[Publish] = []
        self.asked_history: list[AskHistory] = []
        self.mails: list[MailFinished] = []
        self.warned: list[Warn] = []
        self.join_answers: dict[int, Joined | Rejected] = {}
        self.cuts: list[CutClients] = []
        self.saved: list[AnyRecord] = []
        self._ordered: set[AttemptKey] = set()
        self._links = count(1)
        self._rq = count(1)
        #: The number of the latest request.
        self.last_rq = 0
        self._tokens = count(1)

    # -- driving --------------------------------------------------------------------------------------

    def step(self, *events: Event) -> Sequence[Effect]:
        """One step; commits, checks, and keeps what is said."""
        live = set(self.core.state.attempts)
        outcome = self.core.step(events, self.now)
        self.storage.commit(outcome.save)
        self.saved += outcome.save
        self._steps += 1
        if not self._steps % self.check_every:
            check(self.core.state)
        self._check_orders(live, outcome.save, outcome.do)
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
                case MailFinished():
                    self.mails.append(effect)
                case AnswerJoin():
                    message = _travelled(effect.message)
                    assert isinstance(message, Joined | Rejected)
                    self.join_answers[effect.link] = message
                case CutClients():
                    self.cuts.append(effect)
                case Warn():
                    self.warned.append(effect)
                case Audited():
                    pass
        return outcome.do

    def _check_orders(
        self, live: set[AttemptKey], save: Sequence[AnyRecord], effects: Sequence[Effect]
    ) -> None:
        rows = {row.key: row for row in save if isinstance(row, AttemptRecord)}
        tells = [(e.link, e.message) for e in effects if isinstance(e, Tell)]
        orders = [(link, message) for link, message in tells if isinstance(message, Orders)]
        for key in [run.key for _link, message in orders for run in message.run]:
            assert key not in self._ordered, f"attempt {key} is ordered twice"
            assert key in rows, f"attempt {key} is ordered, but not saved"
            self._ordered.add(key)
        state = self.core.state
        for link, key in [(link, key) for link, message in orders for key in message.noted]:
            attempt = state.attempts.get(key)
            here = state.links.get(link)
            assert attempt is None or attempt.slave is not here, f"attempt {key} is noted, but lives here"
            if key in live and attempt is None:
                assert rows[key].outcome, f"attempt {key} is noted, but not saved as over"

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
        before = picture(self.core.state)
        self.core = Core(self.policy, self.storage.load(), self.now, WALL + self.now)
        check(self.core.state)
        after = picture(self.core.state)
        for what, was in before.items():
            assert after[what] == was, f"a restart changed {what}"

    def stop_well(self, grant_s: float = 86400.0) -> None:
        """The master stops in good order, and starts again."""
        self.step(Stopping(grant_s))
        self.restart()

    def read_clock(self, forward_s: float = 0.0) -> None:
        """The wall clock is read; it may have been set forward."""
        self.step(ClockRead(self.core.turn.wall + forward_s))

    # -- slaves ---------------------------------------------------------------------------------------

    def link(self, name: str = "s1", held: Sequence[Held] = (), who: Who = LOCAL_NODE, **fields: Any) -> int:
        """A slave says Hello; its link."""
        link = next(self._links)
        self.step(SlaveLinked(link, a_hello(name, **fields), tuple(held), who))
        return link

    def link_unchecked(self, name: str, **fields: Any) -> None:
        """A slave links, without looking at all others."""
        event = SlaveLinked(next(self._links), a_hello(name, **fields), (), LOCAL_NODE)
        self.storage.commit(self.core.step([event], self.now).save)

    def join(self, join: Join, peer: str = "192.0.2.7:5000", pin: str = "") -> Joined | Rejected:
        """The answer to somebody who asks for an account."""
        link = next(self._links)
        travelled = _travelled(join)
        assert isinstance(travelled, Join)
        self.step(JoinAsked(link, travelled, peer, pin))
        return self.join_answers.pop(link)

    def audited(self, after: int = 0) -> list[AuditRecord]:
        """The audit's rows, oldest first."""
        return self.storage.audit(after, 10_000)

    def unlink(self, link: int) -> None:
        """Its link drops."""
        self.step(SlaveUnlinked(link, self.now))

    def orders(self, link: int) -> list[RunOrder]:
        """What it was told to run since last asked for; stops and notes stay."""
        runs = [run for m in self.said.get(link, []) if isinstance(m, Orders) for run in m.run]
        kept = [structs.replace(m, run=()) if isinstance(m, Orders) else m for m in self.said.get(link, [])]
        self.said[link] = kept
        return runs

    def order(self, link: int) -> RunOrder:
        """The one order that came."""
        (order,) = self.orders(link)
        return order

    def order_first(self, link: int) -> AttemptKey:
        """The attempt at the first of the frames that it was told to run."""
        return self.orders(link)[0].key

    def relink(self, link: int, name: str = "s1", **fields: Any) -> int:
        """The link drops, and the slave says Hello on a new one."""
        self.unlink(link)
        return self.link(name, **fields)

    def keys(self, link: int) -> dict[int, AttemptKey]:
        """The attempts that it was told to run since last asked for, by first frame number."""
        return {order.start: order.key for order in self.orders(link)}

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

    def says(self, link: int, message: LogKept | Acted | SecretTaken) -> None:
        """It says that."""
        self.step(SlaveSaid(link, message))

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

    def fail_all(self, link: int, result: Exit | None = None) -> int:
        """All that it was told to run ends badly; how many those were."""
        orders = self.orders(link)
        for order in orders:
            self.exited(link, order.key, result or badly())
        return len(orders)

    def slave(self, who: str = "s1") -> SlaveView:
        """A slave as clients see it."""
        answer = self.ask(GetSlave(rq=0, slave=who))
        assert isinstance(answer, SlaveInfo), answer
        return answer.slave

    def slave_verb(self, who: str, verb: Any) -> int:
        """A verb on a slave, which must be done; its count."""
        answer = self.ask(SlaveVerb(rq=0, slave=who, verb=verb))
        assert not isinstance(answer, Refusal), answer
        return answer.count  # type: ignore[attr-defined,no-any-return]

    # -- clients ----------------------------------------------------------------------------------------

    def ask(self, request: Request, who: Who = ADMIN, fresh: str = "") -> Request:
        """The answer to a request."""
        self.last_rq = next(self._rq)
        request = structs.replace(request, rq=self.last_rq)
        travelled = _travelled(request)
        assert isinstance(travelled, Request)
        self.step(ClientAsked(1, travelled, who, fresh))
        answer = self.answers[1].pop()
        assert answer.rq == request.rq
        return answer

    def step_of(self, request: Request, who: Who = ADMIN) -> Sequence[Effect]:
        """The effects of the step that answers a request."""
        self.last_rq = next(self._rq)
        return self.step(ClientAsked(1, structs.replace(request, rq=self.last_rq), who))

    def submit(self, spec: JobSpec | None = None, token: str = "") -> int:
        """Queue a job that must be accepted; its id."""
        token = token or f"token-{next(self._tokens):06d}"
        answer = self.ask(Submit(rq=0, token=token, spec=spec or a_job()))
        assert isinstance(answer, Submitted), answer
        return answer.job

    def submit_as(self, who: Who, spec: JobSpec | None = None) -> int:
        """Somebody queues a job that must be accepted; its id."""
        token = f"token-{next(self._tokens):06d}"
        answer = self.ask(Submit(rq=0, token=token, spec=spec or a_job()), who)
        assert isinstance(answer, Submitted), answer
        return answer.job

    def submit_unchecked(self, spec: JobSpec) -> int:
        """Queue a job without looking at all others: for tests of thousands of jobs or frames."""
        job = self.core.state.next_job
        request = Submit(rq=1, token=f"token-{next(self._tokens):06d}", spec=spec)
        self.storage.commit(self.core.step([ClientAsked(1, request, ADMIN)], self.now).save)
        assert self.core.state.next_job == job + 1
        return job

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

    def refusal(self, request: Request, who: Who = ADMIN, fresh: str = "") -> Refusal:
        """The refusal that a request must meet."""
        answer = self.ask(request, who, fresh)
        assert isinstance(answer, Refusal), answer
        return answer

    def job(self, number: int = 0) -> JobView:
        """A job as clients see it."""
        answer = self.ask(GetJob(rq=0, job=number))
        assert isinstance(answer, Job), answer
        return answer.job

    def jobs(self) -> list[JobView]:
        """All jobs that are not deleted, as clients see them; asked in one step, so checked once."""
        jobs = [job.id for job in self.core.state.jobs.values() if not job.deleted]
        if not jobs:
            return []
        asked = [GetJob(rq=next(self._rq), job=number) for number in jobs]
        self.step(*(ClientAsked(1, request, ADMIN) for request in asked))
        answers, self.answers[1][-len(jobs) :] = self.answers[1][-len(jobs) :], []
        assert [answer.rq for answer in answers] == [request.rq for request in asked]
        assert all(isinstance(answer, Job) for answer in answers), answers
        return [answer.job for answer in answers if isinstance(answer, Job)]

    def layers(self, number: int = 0) -> tuple[LayerView, ...]:
        """A job's layers as clients see them."""
        answer = self.ask(GetJob(rq=0, job=number))
        assert isinstance(answer, Job), answer
        return answer.layers

    def change(self, job: int = 0, **fields: Any) -> None:
        """Change a live job, which must be accepted."""
        answer = self.ask(ChangeJob(rq=0, job=job, change=JobChange(**fields)))
        assert not isinstance(answer, Refusal), answer

    def why(self, job: int = 0, number: int | None = None, layer: str = "") -> list[Reason]:
        """Why it waits."""
        answer = self.ask(Why(rq=0, job=job, number=number, layer=layer))
        assert isinstance(answer, Reasons), answer
        assert all(reason.code in CODES for reason in answer.reasons), "a reason whose code nobody described"
        return list(answer.reasons)

    def codes(self, job: int = 0, number: int | None = None, layer: str = "") -> list[str]:
        """Why it waits, in codes."""
        return [reason.code for reason in self.why(job, number, layer)]

    def frames(self, job: int = 0, layer: str = "") -> dict[int, FrameView]:
        """A job's frames by number (of one layer, if it has several)."""
        found: dict[int, FrameView] = {}
        cursor: int | None = 0
        while cursor is not None:
            page: Any = self.ask(ListFrames(rq=0, job=job, layer=layer, cursor=cursor, limit=1000))
            found |= {view.number: view for view in page.frames}
            cursor = page.next
        return found

    def outcomes(self, job: int = 0, number: int = 1, layer: int = 0) -> list[str]:
        """The outcomes of all attempts at a frame, oldest first."""
        return [row.outcome for row in self.storage.attempts(job, layer, number)]

    def states(self, job: int = 0, layer: str = "") -> dict[int, str]:
        """A job's frames' states by number."""
        return {number: view.state for number, view in self.frames(job, layer).items()}

    def state_set(self, job: int = 0, layer: str = "") -> set[str]:
        """The states that a job's frames have."""
        return set(self.states(job, layer).values())


def structs_replace(policy: Policy, **fields: Any) -> Policy:
    """A policy with other values."""
    from dataclasses import replace

    return replace(policy, **fields)


def _travelled(message: Message) -> Message:
    decoded = decode(encode(message))
    assert decoded is not None
    assert decoded == message
    return decoded
