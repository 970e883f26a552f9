"""The whole farm on one heap: both real cores, the real codec, imaginary everything else.

`Farm(seed).run()` draws a farm, its jobs and its accidents from the seed, lets them happen, heals everything,
and waits until all is done. What breaks a promise raises Violation; the same seed does the same again, to the
last byte (`digest`). The master's shell is here; machines are in `hosts`, slaves' daemons in `slaves`.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import count
from random import Random

from drqueue.master.core.attempts import Backoff
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Answer, Effect, Tell, Unlink
from drqueue.master.core.events import (
    ClientAsked,
    ClockRead,
    Event,
    SlaveLinked,
    SlaveSaid,
    SlaveUnlinked,
    Stopping,
)
from drqueue.master.core.invariants import check
from drqueue.master.core.records import AnyRecord
from drqueue.master.core.turn import Policy
from drqueue.master.storage.memory import MemoryStorage
from drqueue.outcome import Outcome
from drqueue.proto.codec import decode, encode
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import (
    Beat,
    Held,
    Hello,
    HelloMore,
    LimitsNow,
    LogKept,
    Message,
    Orders,
    Rejected,
    Report,
    Status,
    Welcome,
)
from drqueue.proto.messages import Done, Refusal, Request, Submit, Submitted
from drqueue.proto.model import JobSpec, RunOrder
from tests.builders import ADMIN, LOCAL_NODE
from tests.sim import faults
from tests.sim.hosts import Host
from tests.sim.oracles import Oracle, Violation
from tests.sim.wires import End, Wire

WALL = 1_700_000_000.0
CLOCK_S = 10.0
#: Virtual time that a healed farm gets for everything there is to do.
PATIENCE_S = 6000.0
#: How many lines of the trace are kept for whoever looks into a failure.
TAIL = 400


@dataclass(frozen=True)
class Fate:
    """What a process will do: run so long (None: for ever), end so, leave its outputs or not."""

    seconds: float | None
    code: int
    outputs: bool


class _Link:
    """The master's end of a slave's link."""

    def __init__(self, end: End, number: int) -> None:
        self.end = end
        self.number = number
        self.hello: Hello | None = None
        self.held: list[Held] = []
        self.linked = False


class Master:
    """One life of the master: the real core, and what `drqueue.master` puts around it."""

    def __init__(self, farm: "Farm") -> None:
        self.farm = farm
        self.alive = True
        self.crash_at = ""
        self._offset = farm.rng.uniform(1.0, 1e6)
        farm.epoch += 1
        self._policy = Policy(
            farm="farm",
            epoch=farm.epoch,
            software="sim",
            lease_s=farm.lease_s,
            requeue_fast_s=20.0,
            keep_s=0.0,
            backoff=Backoff(2.0, 20.0),
            beat_s=farm.beat_s,
            silence_s=3 * farm.beat_s,
        )
        self.core = Core(self._policy, farm.storage.load(), self.clock(), farm.wall())
        self._answerer = Answerer(
            Welcome(version=1, software="sim", farm="farm", epoch=farm.epoch), ("client", "slave")
        )
        self._links: dict[int, _Link] = {}
        self._ends: list[End] = []
        self._numbers = count(1)
        self._inbox: list[Event] = []
        self._busy = self._stepping = self._leaving = False
        self._timer = 0
        farm.trace("master starts", farm.epoch)
        check(self.core.state)
        self._tick()
        farm.after(farm.beat_s, self._beat)

    def clock(self) -> float:
        """Its own clock, which began somewhere."""
        return self.farm.now + self._offset

    @property
    def committed(self) -> bool:
        """All that the core knows is on disk."""
        return not self._busy

    def put(self, event: Event) -> None:
        """Something happened."""
        if self.alive:
            self._inbox.append(event)
            self._wake()

    def die(self) -> None:
        """kill -9: every link breaks, what was not committed is lost."""
        self.alive = False
        self.farm.trace("master dies")
        for end in self._ends:
            end.close()

    def leave(self, grant_s: float) -> None:
        """TERM: leases are stretched, then it goes."""
        self.put(Stopping(grant_s))
        self._leaving = True

    def _tick(self) -> None:
        if self.alive:
            self.put(ClockRead(self.farm.wall()))
            self.farm.after(CLOCK_S, self._tick)

    # -- the engine -----------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._busy and not self._stepping:
            self._stepping = True
            self.farm.after(0.0, self._step)

    def _arm(self) -> None:
        wake = self.core.next_wakeup()
        if wake is not None:
            self._timer += 1
            timer = self._timer
            self.farm.after(
                max(0.0, wake - self.clock()) + 1e-6, lambda: self._wake() if timer == self._timer else None
            )

    def _step(self) -> None:
        self._stepping = False
        if not self.alive or self._busy:
            return
        farm = self.farm
        events, self._inbox = self._inbox, []
        outcome = self.core.step(events, self.clock())
        farm.steps += 1
        farm.trace("master", events, outcome.save, outcome.do)
        check(self.core.state)
        wake = self.core.next_wakeup()
        if wake is not None and wake <= self.clock() - 1e-3:
            raise Violation("a deadline of the master that passed was not met")
        if outcome.save and self.crash_at == "before commit":
            farm.crash_master()
            return
        if not outcome.save:
            self._perform(events, outcome)
            return
        self._busy = True
        slow = farm.rng.uniform(0.2, 5.0) if farm.slow_disk else 0.003
        farm.after(slow, lambda: self._commit(events, outcome))

    def _commit(self, events: Sequence[Event], outcome: Outcome[AnyRecord, Effect]) -> None:
        if not self.alive:
            # Killed while the disk was at it: it may be there all the same, or not.
            if self.farm.rng.random() < 0.5 and self.farm.master is None:
                self._write(events, outcome)
            return
        self._write(events, outcome)
        if self.crash_at == "after commit":
            self.farm.crash_master()
            return
        self._perform(events, outcome)

    def _write(self, events: Sequence[Event], outcome: Outcome[AnyRecord, Effect]) -> None:
        self.farm.storage.commit(outcome.save)
        refused = {
            do.client for do in outcome.do if isinstance(do, Answer) and isinstance(do.message, Refusal)
        }
        done = [e for e in events if isinstance(e, ClientAsked) and e.client not in refused]
        self.farm.oracle.committed(outcome.save, done, self.core.state)

    def _perform(self, events: Sequence[Event], outcome: Outcome[AnyRecord, Effect]) -> None:
        self._busy = False
        for effect in outcome.do:
            match effect:
                case Tell(number, message):
                    link = self._links.get(number)
                    if link is not None:
                        link.end.send([message])
                        if isinstance(message, Orders) and message.run:
                            self._ordered(link)
                case Unlink(number, code, text, retry):
                    link = self._links.get(number)
                    if link is not None:
                        link.end.send([Rejected(code=code, text=text, retry=retry)])
                        self._close(link)
                case Answer(client, answer):
                    self.farm.answer(client, answer)
                case _:
                    pass  # nobody here watches, reads mail or joins
            if self.crash_at == "mid effects":
                self.farm.crash_master()
                return
        if self._inbox:
            self._wake()
        elif self._leaving:
            # What was said is with the kernel: it arrives, then the links end.
            self.farm.crash_master(self.farm.rng.choice((1.0, 30.0, 220.0)))
            return
        self._arm()

    def _ordered(self, link: _Link) -> None:
        for host in self.farm.hosts:
            if host.sleeps_at_order and link.hello is not None and link.hello.name == host.name:
                faults.fall_asleep(self.farm, host, host.sleeps_at_order)
                host.sleeps_at_order = 0.0

    # -- slaves' links --------------------------------------------------------------------------------

    def accept(self, end: End) -> None:
        """A slave dials."""
        self._ends.append(end)
        link = _Link(end, next(self._numbers))

        def greeted(message: Message) -> None:
            _hi, reply = self._answerer.greeted(message)
            end.send([reply])
            end.established()
            end.on_message = lambda message: self._hello(link, message)

        end.on_message = greeted
        end.on_closed = lambda: self._closed(link)

    def _hello(self, link: _Link, message: Message) -> None:
        match message:
            case Hello():
                link.hello, link.held = message, [*message.held]
                more = message.more
            case HelloMore():
                link.held += message.held
                more = message.more
            case _:
                # As its shell would, for any words before Hello.
                self.farm.trace("no hello", type(message).__name__)
                link.end.close()
                return
        if not more:
            assert link.hello is not None
            link.linked = True
            self._links[link.number] = link
            link.end.on_message = lambda message: self._hear(link, message)
            self.put(SlaveLinked(link.number, link.hello, tuple(link.held), LOCAL_NODE))

    def _hear(self, link: _Link, message: Message) -> None:
        match message:
            case Report() | Status() | LimitsNow() | LogKept():
                self.put(SlaveSaid(link.number, message))
            case Beat(echo=echo):
                if echo:
                    link.end.send([Beat()])
            case Request():
                pass
            case _:
                raise AssertionError(f"a slave does not say {message}")

    def _close(self, link: _Link) -> None:
        link.end.close()
        self._closed(link)

    def _closed(self, link: _Link) -> None:
        if self._links.pop(link.number, None) is not None:
            self.put(SlaveUnlinked(link.number, link.end.last_received + self._offset))

    def _beat(self) -> None:
        if not self.alive:
            return
        for link in [*self._links.values()]:
            silent = self.farm.now - link.end.last_received
            if silent > 3 * self.farm.beat_s:
                self._close(link)
            else:
                link.end.send([Beat(echo=silent > self.farm.beat_s)])
        self.farm.after(self.farm.beat_s, self._beat)


class Farm:
    """Everything, on one heap."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._hash = sha256()
        self.lines: list[str] | None = [] if keep_trace else None
        self.wall_jump = 0.0
        self.lease_s = self.rng.choice((60.0, 120.0))
        self.beat_s = 10.0
        self.epoch = 0
        self.calm = False
        self.slow_disk = False
        self.slow_wires = False
        self.storage = MemoryStorage()
        self.oracle = Oracle(self)
        self.master: Master | None = None
        self.wires: dict[str, Wire] = {}
        self.submitted: list[JobSpec] = []
        self.jobs: list[int] = []
        self._clients: dict[int, Callable[[Request | None], None]] = {}
        self._client_numbers = count(1)
        self.pending_submits = 0
        self.hosts = [Host(self, number) for number in range(self.rng.randint(1, 3))]

    # -- time -----------------------------------------------------------------------------------------

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in so many seconds."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), what))

    def wall(self) -> float:
        """The wall clock, which may jump."""
        return WALL + self.now + self.wall_jump

    def trace(self, *what: object) -> None:
        """Take this into the trace."""
        line = f"{self.now:.6f} {what!r}"
        self._hash.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """The hash of all events and effects so far."""
        return self._hash.hexdigest()

    def run(self) -> str:
        """Live through everything the seed holds; returns the digest. Raises Violation."""
        self.start_master()
        for host in self.hosts:
            host.start_daemon()
        calm_at = faults.plan(self)
        self.until(calm_at)
        faults.heal(self)
        self.calm = True
        give_up = self.now + PATIENCE_S
        settled_at = 0.0
        while True:
            self.until(self.now + 15.0)
            unsettled = self.oracle.unsettled()
            if not unsettled:
                settled_at = settled_at or self.now
                if self.now >= settled_at + 30.0:
                    break
            else:
                settled_at = 0.0
            self.oracle.disowned()
            if self.now > give_up:
                raise Violation(f"not at rest {PATIENCE_S:.0f} s after the last accident: {unsettled}")
        self.oracle.reloaded()
        self.oracle.final()
        return self.digest

    def until(self, when: float) -> None:
        """Let everything happen that is due by then."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            self.now, _, what = heapq.heappop(heap)
            what()
        self.now = when

    # -- master and wires -----------------------------------------------------------------------------

    def start_master(self) -> None:
        """Start a master on what was committed."""
        if self.master is None:
            self.master = Master(self)

    def crash_master(self, away_s: float = 0.0) -> None:
        """It is gone; another comes after a while."""
        master, self.master = self.master, None
        if master is None:
            return
        master.die()
        clients, self._clients = self._clients, {}
        for then in clients.values():
            self.after(0.2, partial(then, None))
        away_s = away_s or self.rng.choice((0.5, 5.0, 40.0))
        self.after(away_s * self.rng.uniform(0.5, 1.5), self.start_master)

    def connect(self, host: Host) -> End | None:
        """A slave dials the master: its end of the wire, None where nobody answers."""
        if self.master is None or not host.network:
            return None
        wire = self.wires[host.name] = Wire(self, self._latency, host.when_awake)
        self.master.accept(wire.b)
        return wire.a

    def _latency(self) -> float:
        if self.slow_wires:
            return self.rng.uniform(0.1, 15.0)
        return self.rng.uniform(0.0005, 0.01)

    def fate(self, order: RunOrder) -> Fate:
        """What a process will do."""
        rng = self.rng
        if order.job_name == "brief":
            return Fate(rng.uniform(0.05, 0.8), 0 if rng.random() < 0.95 else 1, rng.random() < 0.95)
        if order.timeout_s and rng.random() < 0.2:
            return Fate(None, 0, True)
        seconds = rng.choice((0.05, 2.0, 5.0, 20.0, 60.0, 400.0)) * rng.uniform(0.5, 1.5)
        return Fate(seconds, 0 if rng.random() < 0.85 else rng.choice((1, 77)), rng.random() < 0.9)

    # -- clients --------------------------------------------------------------------------------------

    def ask(self, request: Request, then: Callable[[Request | None], None]) -> None:
        """A client asks; `then` gets the answer, or None where the link broke on either way."""
        number = next(self._client_numbers)
        lost = 0.0 if self.calm else self.rng.random()

        def arrived() -> None:
            master = self.master
            if master is None or lost > 0.9:
                self.after(0.1, lambda: then(None))
                return
            if lost > 0.8:
                self.after(0.1, lambda: then(None))  # the answer gets lost
            else:
                self._clients[number] = then
                self.after(20.0, lambda: then(None) if self._clients.pop(number, None) else None)
            message = decode(encode(request))
            assert isinstance(message, Request)
            master.put(ClientAsked(number, message, ADMIN))

        self.after(self._latency(), arrived)

    def answer(self, number: int, answer: Request) -> None:
        """The master answers."""
        travelled = decode(encode(answer))
        assert travelled == answer
        assert isinstance(answer, Done | Refusal | Submitted), answer
        then = self._clients.pop(number, None)
        if then is not None:
            self.after(self._latency(), lambda: then(answer))

    def submit(self, spec: JobSpec) -> None:
        """A client submits, with one token, until it hears that this is done."""
        token = f"token-{len(self.submitted):06d}"
        self.submitted.append(spec)
        self.pending_submits += 1

        def again() -> None:
            self.ask(Submit(rq=1, token=token, spec=spec), answered)

        def answered(answer: Request | None) -> None:
            if answer is None:
                self.after(self.rng.uniform(0.5, 5.0), again)
                return
            self.pending_submits -= 1
            if isinstance(answer, Submitted):
                self.jobs.append(answer.job)
                self.oracle.acknowledged(token, answer.job)

        again()
