"""The whole farm on one heap: both real cores, the real codec, imaginary everything else.

`Farm(seed).run()` draws a farm, its jobs and its accidents from the seed, lets them happen, heals everything,
and waits until all is done. What breaks a promise raises Violation; the same seed does the same again, to the
last byte (`digest`). Masters are in `masters`, machines in `hosts`, slaves' daemons in `slaves`, accidents in
`faults` and its neighbours.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import count
from math import inf
from random import Random
from typing import Protocol

from drqueue.master.core.events import ClientAsked
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.codec import decode, encode
from drqueue.proto.messages import Done, Refusal, Request, Submit, Submitted
from drqueue.proto.model import JobSpec, RunOrder
from tests.builders import ADMIN
from tests.sim import faults
from tests.sim.books import Book, Violation
from tests.sim.hosts import Host
from tests.sim.masters import Backup, Master, Site
from tests.sim.mixes import Mix
from tests.sim.oracles import Oracle
from tests.sim.wires import End, Wire

WALL = 1_700_000_000.0
#: Virtual time in which a healed farm ends at least one more frame, until there is none left.
PATIENCE_S = 3000.0
#: How many lines of the trace are kept for whoever looks into a failure.
TAIL = 400

Then = Callable[[Request | None], None]


class Lines(Protocol):
    """Where a trace goes."""

    def append(self, line: str, /) -> None:
        """The next line."""


@dataclass(frozen=True)
class Fate:
    """What a process will do: run so long (None: for ever), end so, leave its outputs or not."""

    seconds: float | None
    code: int
    outputs: bool


class Farm:
    """Everything, on one heap."""

    def __init__(self, seed: int, lines: Lines | None = None) -> None:
        """`lines` gets the trace."""
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0
        #: Steps of the two cores, events of the heap, and accidents by their names.
        self.steps = self.events = 0
        self.injected: Counter[str] = Counter()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._hash = sha256()
        self.lines = lines
        self.wall_jump = 0.0
        self.mix = Mix(self.rng)
        self.lease_s = self.rng.choice((60.0, 120.0))
        self.requeue_fast_s = 20.0
        self.beat_s = 10.0
        self.calm = False
        self.slow_disk = False
        self.slow_wires = False
        self.oracle = Oracle(self)
        self.sites = [Site(self, MemoryStorage(), Book(self))]
        self.backups: list[Backup] = []
        #: How often a state folder was copied.
        self.copies = 0
        self.wires: dict[str, Wire] = {}
        #: When a master's line last heard a slave, by the slave's identity.
        self.said_at: dict[tuple[int, str], float] = {}
        self.submitted: list[JobSpec] = []
        self.jobs: list[int] = []
        self._clients: dict[int, Then] = {}
        self._tokens: dict[int, str] = {}
        self._client_numbers = count(1)
        self.pending_submits = 0
        self.hosts = [Host(self, number) for number in range(self.mix.hosts)]

    @property
    def site(self) -> Site:
        """The master's state folder; with several, the one that an operator would keep."""
        return self.sites[0]

    @property
    def master(self) -> Master | None:
        """The master that runs on it."""
        return self.site.master

    @property
    def storage(self) -> MemoryStorage:
        """Its database."""
        return self.site.storage

    # -- time -----------------------------------------------------------------------------------------

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in so many seconds."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), what))

    def true_wall(self) -> float:
        """The wall clock, where nobody touched it."""
        return WALL + self.now

    def wall(self) -> float:
        """The wall clock of the master's machine, which may jump."""
        return self.true_wall() + self.wall_jump

    def trace(self, *what: object) -> None:
        """Take this into the trace."""
        line = f"{self.now:.6f} {what!r}"
        self._hash.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    def inject(self, what: str, *where: object) -> None:
        """An accident happens: into the trace, and counted."""
        self.injected[what] += 1
        self.trace(what, *where)

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
        give_up, left = self.now + PATIENCE_S, inf
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
            self.oracle.overdue()
            if (unfinished := self.oracle.unfinished()) < left:
                give_up, left = self.now + PATIENCE_S, unfinished
            if self.now > give_up:
                raise Violation(f"healed, and nothing came of anything for {PATIENCE_S:.0f} s: {unsettled}")
        self.oracle.reloaded()
        assert self.master is not None
        self.site.book.final(self.master.core.state)
        return self.digest

    def until(self, when: float) -> None:
        """Let everything happen that is due by then."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            self.now, _, what = heapq.heappop(heap)
            self.events += 1
            what()
        self.now = when

    # -- master and wires -----------------------------------------------------------------------------

    def start_master(self) -> None:
        """Start a master on what was committed."""
        self.site.start()

    def crash_master(self, site: Site | None = None, away_s: float = 0.0) -> None:
        """It is gone; another comes after a while."""
        site = site or self.site
        master, site.master = site.master, None
        if master is None:
            return
        master.die()
        if site is self.site:
            clients, self._clients = self._clients, {}
            for then in clients.values():
                self.after(0.2, partial(then, None))
        away_s = away_s or self.rng.choice((0.5, 5.0, 40.0))
        self.after(away_s * self.rng.uniform(0.5, 1.5), lambda: site.start() if site in self.sites else None)

    def connect(self, host: Host) -> tuple[End, Master] | None:
        """A slave dials its master: its end of the wire, None where nobody answers."""
        master = self.sites[host.dials % len(self.sites)].master
        if master is None or not host.network:
            return None
        wire = self.wires[host.name] = Wire(self, host.up, host.down, host.when_awake)
        master.accept(wire.b)
        return wire.a, master

    def latency(self) -> float:
        """How long a message takes."""
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
        seconds = rng.choice(self.mix.seconds) * rng.uniform(0.5, 1.5)
        return Fate(seconds, 0 if rng.random() < 0.85 else rng.choice((1, 77)), rng.random() < 0.9)

    # -- clients --------------------------------------------------------------------------------------

    def ask(self, request: Request, then: Then) -> None:
        """A client asks; `then` gets the answer, or None where the link broke on either way."""
        number = next(self._client_numbers)
        lost = 0.0 if self.calm else self.rng.random()
        site = self.site if self.calm or len(self.sites) == 1 else self.rng.choice(self.sites)

        def arrived() -> None:
            master = site.master
            if master is None or lost > 0.9:
                self.after(0.1, lambda: then(None))
                return
            if isinstance(request, Submit):
                self._tokens[number] = request.token
            if lost > 0.8:
                self.after(0.1, lambda: then(None))  # the answer gets lost
            else:
                self._clients[number] = then
                self.after(20.0, lambda: then(None) if self._clients.pop(number, None) else None)
            message = decode(encode(request))
            assert isinstance(message, Request)
            master.put(ClientAsked(number, message, ADMIN))

        self.after(self.latency(), arrived)

    def answer(self, number: int, answer: Request, book: Book) -> None:
        """A master answers, and all that it says is on its disk."""
        travelled = decode(encode(answer))
        assert travelled == answer
        assert isinstance(answer, Done | Refusal | Submitted), answer
        token = self._tokens.pop(number, None)
        if token is not None and isinstance(answer, Submitted):
            book.acknowledged(token, answer.job)
        then = self._clients.pop(number, None)
        if then is not None:
            self.after(self.latency(), lambda: then(answer))

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

        again()
