"""One turn of the core: the state, the time, and what has been asked for so far.

Handlers get a Turn and speak through it; the core empties it at the end of each step. What is said to
a slave is gathered into one Orders message per step.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import attrgetter

from drqueue.master.core.attempt import Attempt
from drqueue.master.core.attempts import Backoff
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
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Joined, Message, Orders, Rejected, Stop, TicketKey
from drqueue.proto.messages import Done, FindLog, ListAttempts, Refusal, Request
from drqueue.proto.model import RunOrder
from drqueue.proto.roles import Who
from drqueue.proto.tickets import slave_key

_job_of, _frame_of, _slave_of = attrgetter("key.job"), attrgetter("frame_key"), attrgetter("slave.id")


@dataclass(frozen=True, slots=True)
class Policy:
    """The farm's settings that the core acts on; durations in seconds, `keep_s` for finished jobs."""

    farm: str = ""
    epoch: int = 1
    software: str = ""
    lease_s: float = 1800.0
    requeue_fast_s: float = 60.0
    keep_s: float = 30 * 86400.0
    backoff: Backoff = field(default_factory=Backoff)
    beat_s: float = 10.0
    silence_s: float = 30.0
    #: After so long half of what users and projects ran is forgotten, where that counts for whose turn it is.
    memory_half_life_s: float = 3600.0
    #: Highest priority that an artist may give a job.
    artist_max_priority: int = 1000
    #: What join lines say of where the master listens; "" and 0 where it does not, on the network.
    line_host: str = ""
    line_port: int = 0
    line_pin: str = ""
    #: What is to be said with every line: where its host is one of several.
    line_note: str = ""
    #: After so many failures of a job's frames on a slave it avoids that slave (0: never), for so long.
    avoid_after: int = 3
    forgive_s: float = 3600.0
    #: After so many frames in a row that failed on it, of several users, a slave is sick (0: never).
    sick_after: int = 5
    #: What keys for tickets are made from, random for each start; empty: no slave is told one.
    ticket_seed: bytes = b""


class _Draft:
    """What a slave is told at the end of the step."""

    __slots__ = ("noted", "run", "stop")

    def __init__(self) -> None:
        self.run: list[RunOrder] = []
        self.stop: list[Stop] = []
        self.noted: list[AttemptKey] = []


class Turn:
    """What handlers work with."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state = FarmState(policy.memory_half_life_s)
        self.now = 0.0
        #: It only answers, between two steps: nothing may be changed, nothing is written down.
        self.peeking = False
        self._do: list[Effect] = []
        self._drafts: defaultdict[int, _Draft] = defaultdict(_Draft)

    @property
    def wall(self) -> float:
        """The wall clock, for people."""
        return self.state.wall(self.now)

    # -- to slaves --------------------------------------------------------------------------------

    def run(self, slave: Slave, order: RunOrder) -> None:
        """Order an attempt (the slave is linked)."""
        if slave.link is not None:
            self._drafts[slave.link].run.append(order)

    def stop(self, attempt: Attempt) -> None:
        """Say an attempt's `stop` to its slave, if it is linked; else the next Hello brings it up."""
        link = attempt.slave.link
        if link is not None and not attempt.asked_stop:
            attempt.asked_stop = True
            self._drafts[link].stop.append(Stop(attempt.key, attempt.stop))

    def take_back(self, attempt: Attempt) -> None:
        """Ask for an attempt that was sent ahead back, if it has not started; its answer decides."""
        link = attempt.slave.link
        if link is not None and not attempt.taken_back:
            attempt.taken_back = True
            self._drafts[link].stop.append(Stop(attempt.key, "taken back", unstarted=True))

    def stop_stale(self, link: int, key: AttemptKey) -> None:
        """A slave holds what it should not: end it."""
        self._drafts[link].stop.append(Stop(key, "stale"))

    def noted(self, link: int, key: AttemptKey) -> None:
        """The exit is written down (by the time this leaves): the slave may forget it."""
        self._drafts[link].noted.append(key)

    def tell(self, link: int, message: Message) -> None:
        """Anything else to a slave."""
        self._do.append(Tell(link, message))

    def unlink(self, link: int, code: str, text: str, *, retry: bool) -> None:
        """Turn a slave away."""
        self._do.append(Unlink(link, code, text, retry))

    def ticket_key(self, slave: Slave) -> None:
        """Tell a linked slave its next key for tickets, and whether those before it are good any more."""
        if slave.link is None or not self.policy.ticket_seed:
            return
        slave.generation += 1
        key = slave_key(self.policy.ticket_seed, slave.id, slave.generation)
        self.tell(slave.link, TicketKey(key=key, now=self.wall, only=slave.ends_tickets))
        if slave.ends_tickets:
            slave.told_end_at = self.now
        slave.ends_tickets = False

    # -- to clients -------------------------------------------------------------------------------

    def answer(self, client: int, message: Request) -> None:
        """Answer a request."""
        self._do.append(Answer(client, message))

    def done(self, client: int, request: Request, count: int = 0, note: str = "") -> None:
        """It is done."""
        self.answer(client, Done(rq=request.rq, count=count, note=note))

    def refuse(self, client: int, request: Request, code: str, text: str) -> None:
        """It is not done, and why."""
        self.answer(client, Refusal(rq=request.rq, code=code, text=text))

    def ask_history(self, client: int, request: FindLog | ListAttempts, layer: int, number: int) -> None:
        """Let the history of attempts answer."""
        self._do.append(AskHistory(client, request, layer, number))

    def answer_join(self, link: int, message: Joined | Rejected) -> None:
        """Answer whoever asked for an account."""
        self._do.append(AnswerJoin(link, message))

    def cut(self, accounts: Collection[str], text: str) -> None:
        """Cut the links of clients that showed the secret of these accounts."""
        if accounts:
            self._do.append(CutClients(frozenset(accounts), text))

    # -- to the audit -------------------------------------------------------------------------------

    def did(self, who: Who, what: str, text: str = "", outcome: str = "done") -> None:
        """Somebody did something."""
        if not self.peeking:
            self.state.audit.done(who, what, outcome, text, self.wall, self.state.save)

    def noticed(
        self, who: Who, what: str, outcome: str, text: str = "", times: int = 1, source: str = ""
    ) -> None:
        """Something was refused, or met, that may happen often; see AuditTrail.count."""
        if not self.peeking:
            save, now = self.state.save, self.now
            self.state.audit.count(
                who, what, outcome, text, self.wall, save, now=now, times=times, source=source
            )

    # -- to people ----------------------------------------------------------------------------------

    def mail(self, mail: MailFinished) -> None:
        """Send a mail."""
        self._do.append(mail)

    def warn(self, text: str, **fields: object) -> None:
        """Tell the log what somebody should look at."""
        self._do.append(Warn(text, tuple(fields.items())))

    # -- the end of a step ------------------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        """All effects of this step, and an empty slate."""
        state = self.state
        epoch = self.policy.epoch
        do: list[Effect] = [
            Tell(link, Orders(epoch=epoch, run=tuple(d.run), stop=tuple(d.stop), noted=tuple(d.noted)))
            for link, d in self._drafts.items()
        ]
        # Registered (in _do) must reach a slave before its first orders.
        do = [*self._do, *do]
        if state.audit.news:
            state.audit.news = False
            do.append(Audited())
        self._do, self._drafts = [], defaultdict(_Draft)
        if state.changed_jobs or state.changed_frames or state.changed_slaves or state.touched:
            jobs, frames, slaves = state.changed_jobs, state.changed_frames, state.changed_slaves
            touched, state.touched = state.touched, {}
            state.changed_jobs, state.changed_frames, state.changed_slaves = set(), set(), set()
            jobs.update(map(_job_of, touched))
            frames.update(map(_frame_of, touched))
            slaves.update(map(_slave_of, touched))
            do.append(Publish(frozenset(jobs), frozenset(frames), frozenset(slaves)))
        return do
