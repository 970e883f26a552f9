"""One slave as the master knows it: what it is, what it offers, what is taken of it."""

from math import exp, inf
from typing import TYPE_CHECKING, NamedTuple

from drqueue.master.core.amounts import THOUSAND, milli, plain
from drqueue.master.core.records import SlaveRecord
from drqueue.proto.expressions import attributes_of
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import (
    LimitsChange,
    MachineInfo,
    MachineLoad,
    Offers,
    SlaveLimits,
)

if TYPE_CHECKING:
    from drqueue.master.core.attempt import Attempt
    from drqueue.master.core.rooms import Group, Place

#: Seconds after which the system's mean load has all but a third of what was before.
LOAD_S = 60.0


class Failure(NamedTuple):
    """One frame that failed on a slave."""

    job: int
    layer: int
    frame: int
    user: str


class Slave:
    """One slave, linked or not."""

    __slots__ = (
        "account",
        "ahead",
        "amounts",
        "attributes",
        "control",
        "cores",
        "cores_most",
        "ends_tickets",
        "fingerprint",
        "foreign",
        "frames_done",
        "frames_failed",
        "free_cores",
        "generation",
        "gpu_bits",
        "gpus",
        "greeted",
        "group",
        "heard",
        "heard_at",
        "id",
        "identity",
        "limits",
        "link",
        "live",
        "load",
        "lost",
        "machine",
        "may_keep",
        "memory_mb",
        "name",
        "offers",
        "own_load",
        "own_load_at",
        "place",
        "reports",
        "sick",
        "slots",
        "streak",
        "told_end_at",
        "traits",
        "used_amounts",
        "used_cores",
        "used_disk_mb",
        "used_gpus",
        "used_memory_mb",
        "wish",
    )

    def __init__(self, record: SlaveRecord) -> None:
        self.id = record.id
        self.identity = record.identity
        self.name = record.name
        self.fingerprint = record.fingerprint
        self.machine: MachineInfo = record.machine
        self.limits: SlaveLimits = record.limits
        self.cores = record.cores
        self.memory_mb = record.memory_mb
        self.control = record.control
        self.heard_at = record.last_heard_at
        self.wish: LimitsChange | None = record.wish
        self.offers: Offers = record.offers
        #: Why frames are kept from it, "" where they are not.
        self.sick = record.sick
        #: Frames that failed on it, none ending well between.
        self.streak: list[Failure] = []
        #: The account of its node, "" where it is of the master's own machine.
        self.account = record.account
        #: How often a key for tickets was told since this master started.
        self.generation = 0
        #: Whether its next key ends all tickets before it: somebody may have been revoked while it was away.
        self.ends_tickets = True
        #: When it was last told such a key, on the core's clock.
        self.told_end_at = -inf
        #: Exits that were applied on this very link, of which the logs may come.
        self.may_keep: dict[AttemptKey, None] = {}
        self.link: int | None = None
        #: Of the Reports that are counted on that link, the last.
        self.reports = 0
        self.load = MachineLoad()
        #: What its frames' cores amount to in `load1`, and when that was reckoned (the core's clock).
        self.own_load = 0.0
        self.own_load_at = 0.0
        #: When its last message came, on the core's clock; the core's own start before the first one.
        self.heard = 0.0
        #: It said Hello since this master started.
        self.greeted = False
        #: Its attempts were given up (end of lease, or declared dead) since it was last linked.
        self.lost = False
        self.live: dict[AttemptKey, Attempt] = {}
        #: Those of them that were sent ahead and wait for a place there, in order.
        self.ahead: dict[AttemptKey, Attempt] = {}
        #: Slots that its live attempts have, as the bits of a number.
        self.slots = 0
        #: What its attempts take: cores and amounts in thousandths, devices as the bits of a number.
        self.used_cores = 0
        self.used_memory_mb = 0
        self.used_disk_mb = 0
        self.used_gpus = 0
        self.used_amounts: dict[str, int] = {}
        #: Cores that are left to whoever else loads the machine.
        self.foreign = 0
        #: Cores that a frame may take now, in thousandths.
        self.free_cores = 0
        #: Where it stands among those with room.
        self.place: Place | None = None
        self.measure()
        self.frames_done = 0
        self.frames_failed = 0

    @property
    def cores_offered(self) -> int:
        """Cores that the farm may use: what it offers, within its own limit."""
        limit = self.limits.max_cpus
        return self.cores if limit is None else min(limit, self.cores)

    def measure(self) -> None:
        """Reckon anew what it offers, after its limits, its hardware or its offers changed."""
        #: Cores that the farm may use, in thousandths.
        self.cores_most = self.cores_offered * THOUSAND
        offered = set(self.offers.gpus)
        #: Devices that it offers, as (memory, index), the smallest first; and as the bits of a number.
        self.gpus = sorted(
            {g.index: (g.memory_mb, g.index) for g in self.machine.gpus if g.index in offered}.values()
        )
        self.gpu_bits = sum(1 << index for _memory_mb, index in self.gpus)
        self.amounts = {name: milli(amount) for name, amount in self.offers.amounts.items()}
        self.attributes = attributes_of(
            self.machine,
            self.offers,
            name=self.name,
            pools=self.limits.pools,
            cores=self.cores_offered,
            memory_mb=self.memory_mb,
        )
        self.foreign = self.foreign_cores()
        #: Slaves with the same traits, by what they have free; found when it is needed.
        self.group: Group | None = None
        self.traits = (self.limits.pools, self.machine.os, self.offers.tags)
        self.reckon()

    def reckon(self) -> None:
        """Reckon anew what is free, after what is taken, or left to others, changed."""
        self.free_cores = self.cores_most - self.foreign * THOUSAND - self.used_cores

    def take(self, attempt: "Attempt") -> None:
        """An attempt takes what it asks for."""
        ask = attempt.ask
        self.used_cores += ask.cores
        self.free_cores -= ask.cores
        self.used_memory_mb += ask.memory_mb
        if ask.disk_mb:
            self.used_disk_mb += ask.disk_mb
        for index in attempt.gpus:
            self.used_gpus |= 1 << index
        for name, amount in ask.amounts:
            self.used_amounts[name] = self.used_amounts.get(name, 0) + amount

    def give_back(self, attempt: "Attempt") -> None:
        """It gives it back."""
        ask = attempt.ask
        self.used_cores -= ask.cores
        self.free_cores += ask.cores
        self.used_memory_mb -= ask.memory_mb
        if ask.disk_mb:
            self.used_disk_mb -= ask.disk_mb
        for index in attempt.gpus:
            self.used_gpus &= ~(1 << index)
        for name, amount in ask.amounts:
            left = self.used_amounts[name] - amount
            if left:
                self.used_amounts[name] = left
            else:
                del self.used_amounts[name]

    def foreign_cores(self) -> int:
        """Cores for others: one for each whole `max_load` of the machine's load beyond its own frames' share;
        all of them where `max_load` is 0.
        """
        most = self.limits.max_load
        if most is None:
            return 0
        if most == 0:
            return self.cores_offered
        return min(self.cores_offered, int(max(0.0, self.load.load1 - self.own_load) / most))

    @property
    def open(self) -> bool:
        """Whether frames may be sent to it."""
        return self.link is not None and self.limits.enabled and not self.sick

    @property
    def cores_used(self) -> int | float:
        """Cores that its attempts take."""
        return plain(self.used_cores)

    @property
    def machine_name(self) -> str:
        """What two slaves on one machine have in common."""
        return self.fingerprint or self.machine.hostname

    def gpus_with(self, memory_mb: int) -> list[int]:
        """Devices that it offers with at least so much memory each, the smallest first."""
        return [index for has_mb, index in self.gpus if has_mb >= memory_mb]

    def free_gpus_with(self, memory_mb: int) -> list[int]:
        """Those of them that no attempt has."""
        return [index for index in self.gpus_with(memory_mb) if not self.used_gpus >> index & 1]

    def count_of(self, job: int) -> int:
        """Live attempts of a job on it."""
        return sum(key.job == job for key in self.live)

    @property
    def was_revoked(self) -> bool:
        """Whether its node's account is gone: of slaves without one, only such have a port on the network."""
        far = bool(self.control) and not self.control.startswith("unix:")
        return self.link is None and not self.account and far

    def loaded(self, load: MachineLoad, now: float) -> bool:
        """It tells its load, a mean over the last minute; reckon its own frames' share in it likewise.

        Whether others have more or fewer of its cores than before.
        """
        self.load = load
        old = exp((self.own_load_at - now) / LOAD_S)
        self.own_load = self.own_load * old + self.used_cores / THOUSAND * (1 - old)
        self.own_load_at = now
        before, self.foreign = self.foreign, self.foreign_cores()
        self.reckon()
        return self.foreign != before

    def record(self) -> SlaveRecord:
        """The slave's row."""
        return SlaveRecord(
            id=self.id,
            identity=self.identity,
            name=self.name,
            fingerprint=self.fingerprint,
            machine=self.machine,
            limits=self.limits,
            cores=self.cores,
            memory_mb=self.memory_mb,
            control=self.control,
            last_heard_at=self.heard_at,
            wish=self.wish,
            account=self.account,
            offers=self.offers,
            sick=self.sick,
        )
