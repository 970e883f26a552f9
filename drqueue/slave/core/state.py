"""What a slave knows: the attempts it holds, its master, its limits. PURE.

Rules: only the modules of `drqueue.slave.core` change it; only `Attempt.move` changes a phase, and only
along TRANSITIONS. An attempt is held from its acceptance until its exit is noted. Cores are counted in
thousandths, so that sums of fractions are exact.
"""

from enum import Enum
from math import inf

from msgspec import Struct

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Exit, RunOrder, SlaveLimits
from drqueue.slave.core.amounts import milli, plain
from drqueue.slave.core.records import Before

#: More than this many attempts are not taken on: far above slots plus what is sent ahead.
MAX_HELD = 10_000


class Phase(Enum):
    """How far an attempt is on this slave."""

    QUEUED = "queued"  # waits for room
    PREPARING = "preparing"  # its outputs are looked at
    LAUNCHING = "launching"
    RUNNING = "running"
    VERIFYING = "verifying"  # it ended well, its outputs are looked at
    ENDED = "ended"  # and not yet noted

    # Phases are looked up with every step of an attempt; an enum's own hash is a Python function.
    __hash__ = object.__hash__


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.PREPARING, Phase.LAUNCHING, Phase.ENDED}),
    Phase.PREPARING: frozenset({Phase.LAUNCHING, Phase.ENDED}),
    Phase.LAUNCHING: frozenset({Phase.RUNNING, Phase.VERIFYING, Phase.ENDED}),
    Phase.RUNNING: frozenset({Phase.VERIFYING, Phase.ENDED}),
    Phase.VERIFYING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}

#: A process may exist.
ALIVE = frozenset({Phase.LAUNCHING, Phase.RUNNING})
#: Cores and GPUs are taken.
USING = ALIVE | {Phase.PREPARING}


class InvalidTransitionError(Exception):
    """A bug in the core: an attempt was asked to go where it cannot."""


class Attempt(Struct, eq=False):
    """One order and what became of it.

    `milli` is its cores in thousandths. `recorded`: its start is kept and told. Deadlines are
    in seconds since boot, `started_at` is wall clock.
    """

    order: RunOrder
    key: AttemptKey
    milli: int
    phase: Phase = Phase.QUEUED
    before: Before = {}
    pid: int = 0
    recorded: bool = False
    birth: int = 0
    started_at: float = 0.0
    since: float = 0.0
    stop_reason: str = ""
    stop_text: str = ""
    grace_s: float = 0.0
    kill_at: float = inf
    exit: Exit | None = None
    #: The end of its lease was acted upon.
    lapsed: bool = False

    @classmethod
    def of(cls, order: RunOrder) -> "Attempt":
        """One that was just accepted."""
        return cls(order, order.key, milli(order.cores))

    def move(self, phase: Phase) -> None:
        """Go on to another phase; InvalidTransitionError where that cannot follow."""
        if phase not in TRANSITIONS[self.phase]:
            raise InvalidTransitionError(f"{self.key}: {self.phase.value} -> {phase.value}")
        self.phase = phase


class State:
    """All of it. `held` is in the order of acceptance, `ended` in the order of exit, `fresh` of start."""

    def __init__(self, limits: SlaveLimits, farm: str = "", epoch: int = 0, life: str = "") -> None:
        self.limits = limits
        self.farm = farm
        self.epoch = epoch
        #: Which start of a master had that epoch, "" where it did not say.
        self.life = life
        self.held: dict[AttemptKey, Attempt] = {}
        self.queued: dict[AttemptKey, Attempt] = {}
        self.ended: dict[AttemptKey, Attempt] = {}
        #: Starts that are not yet recorded, and when they will be.
        self.fresh: dict[AttemptKey, float] = {}
        self.milli_used = 0
        #: By how many attempts each GPU is taken: more than one only where a former daemon's end left it
        #: open which of them was started.
        self.gpus_used: dict[int, int] = {}
        self.link = 0
        self.linked = False
        self.registered = False
        self.slave_id: int | None = None
        self.name = ""
        #: Since when, and whether the master of this link says which of this slave's words came.
        self.linked_at = 0.0
        self.confirms = False
        #: Of the Orders that are counted on this link, the last.
        self.orders = 0
        #: From where leases count: said then, and known to have come.
        self.heard_at = 0.0
        #: The master goes away and grants leases this long; since `hello_at` (0: never) one that is back may
        #: have heard of this slave, and grant no more than the usual.
        self.grant_s = 0.0
        self.hello_at = 0.0
        self.heard_kept_at = -inf
        #: Processes of attempts that are not held: this slave's own, from before its spool was lost.
        self.strangers: set[AttemptKey] = set()
        self.leaving = False
        self.done = 0
        self.failed = 0

    @property
    def cores_used(self) -> int | float:
        """Cores that are taken."""
        return plain(self.milli_used)

    def take(self, attempt: Attempt) -> None:
        """Count what an attempt takes."""
        self.milli_used += attempt.milli
        for gpu in attempt.order.gpus:
            self.gpus_used[gpu] = self.gpus_used.get(gpu, 0) + 1

    def give_back(self, attempt: Attempt) -> None:
        """Count it no longer."""
        self.milli_used -= attempt.milli
        for gpu in attempt.order.gpus:
            self.gpus_used[gpu] -= 1
            if not self.gpus_used[gpu]:
                del self.gpus_used[gpu]

    def in_use(self) -> list[Attempt]:
        """The attempts that take cores."""
        return [attempt for attempt in self.held.values() if attempt.phase in USING]

    def alive(self) -> list[Attempt]:
        """The attempts that may have a process."""
        return [attempt for attempt in self.held.values() if attempt.phase in ALIVE]
