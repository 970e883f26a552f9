"""What frames ask of slaves, and which slaves could ever give it.

`Demand.never` and `lacks` are the only judges of fitness: whatever places frames and whatever explains why
they wait asks them. Layers that ask the same share one Demand.
"""

from typing import TYPE_CHECKING, Final

from msgspec import msgpack

from drqueue.master.core.amounts import Ask, asks_of
from drqueue.proto.expressions import parse
from drqueue.proto.model import Needs

if TYPE_CHECKING:
    from drqueue.master.core.rooms import Group
    from drqueue.master.core.slave import Slave

Key = tuple[str, bytes]


class Demand:
    """The needs of layers of one pool."""

    __slots__ = (
        "_os",
        "_tags",
        "_where",
        "able",
        "asks",
        "groups",
        "key",
        "least_cores",
        "needs",
        "pool",
        "users",
    )

    def __init__(self, key: Key, needs: Needs) -> None:
        self.key = key
        self.pool = key[0]
        self.needs = needs
        self.asks = asks_of(needs)
        self.least_cores = min(ask.cores for ask in self.asks)
        self._os = frozenset(map(str.casefold, needs.os))
        self._tags = frozenset(needs.tags)
        self._where = parse(needs.where) if needs.where else None
        #: Slaves that could run it, were they free and enabled.
        self.able: dict[int, Slave] = {}
        #: The groups of rooms that these stand in; None until they are looked for (anew).
        self.groups: list[Group] | None = None
        #: How many layers ask for it.
        self.users = 0

    def unfit(self, slave: "Slave") -> str | None:
        """A code for what the slave is not, whatever it has: pool, os, tag or where."""
        if self.pool not in slave.limits.pools:
            return "pool"
        if self._os and slave.machine.os.casefold() not in self._os:
            return "os"
        if self._tags and not self._tags.issubset(slave.offers.tags):
            return "tag"
        if self._where is not None and not self._where.matches(slave.attributes):
            return "where"
        return None

    def never(self, slave: "Slave") -> str | None:
        """A code for why this slave could not run it even if it were free, or None."""
        unfit = self.unfit(slave)
        if unfit is not None:
            return unfit
        if self.needs.machine_memory_mb > slave.memory_mb:
            return "memory-never"
        first: str | None = None
        for ask in self.asks:
            short = exceeds(slave, ask)
            if short is None:
                return None
            first = first or short
        return first


def exceeds(slave: "Slave", ask: Ask) -> str | None:
    """A code for what the slave does not have so much of at all, or None."""
    if ask.cores > slave.cores_most:
        return "cores-never"
    if ask.memory_mb > slave.memory_mb:
        return "memory-never"
    if ask.gpus and len(slave.gpus_with(ask.gpu_memory_mb)) < ask.gpus:
        return "gpu-never"
    if ask.disk_mb > slave.offers.disk_mb:
        return "disk-never"
    for name, amount in ask.amounts:
        if amount > slave.amounts.get(name, 0):
            return "amount-never"
    return None


def lacks(slave: "Slave", ask: Ask) -> str | None:
    """A code for what the slave has not enough of free now, or None: it has room."""
    if slave.used_cores + ask.cores > slave.cores_most:
        return "cores"
    if ask.memory_mb and slave.used_memory_mb + ask.memory_mb > slave.memory_mb:
        return "memory"
    if ask.gpus and len(slave.free_gpus_with(ask.gpu_memory_mb)) < ask.gpus:
        return "gpu"
    if ask.disk_mb and slave.used_disk_mb + ask.disk_mb > slave.offers.disk_mb:
        return "disk"
    for name, amount in ask.amounts:
        if slave.used_amounts.get(name, 0) + amount > slave.amounts.get(name, 0):
            return "amount"
    if ask.cores > slave.free_cores:
        return "load"
    return None


class Demands:
    """All demands of layers that are there, by what they ask."""

    #: Beyond so many that nobody uses any more, the oldest is forgotten: its slaves are found again in no
    #: time.
    _KEPT: Final = 256

    def __init__(self, slaves: dict[int, "Slave"]) -> None:
        self._slaves = slaves
        self.by_key: dict[Key, Demand] = {}

    def of(self, pool: str, needs: Needs) -> Demand:
        """The demand of these needs; `release` it when its layer asks for it no more."""
        key = (pool, msgpack.encode(needs))
        demand = self.by_key.get(key)
        if demand is None:
            if len(self.by_key) >= self._KEPT:
                self._forget_unused()
            demand = self.by_key[key] = Demand(key, needs)
            demand.able = {s.id: s for s in self._slaves.values() if demand.never(s) is None}
        demand.users += 1
        return demand

    def release(self, demand: Demand) -> None:
        """A layer asks for it no more."""
        demand.users -= 1

    def _forget_unused(self) -> None:
        for key in [key for key, demand in self.by_key.items() if not demand.users][: self._KEPT // 2]:
            del self.by_key[key]

    def look_again(self, slave: "Slave") -> None:
        """What a slave is, or has at all, changed."""
        for demand in self.by_key.values():
            demand.groups = None
            if demand.never(slave) is None:
                demand.able[slave.id] = slave
            else:
                demand.able.pop(slave.id, None)

    def gone(self, slave: "Slave") -> None:
        """The slave is forgotten."""
        for demand in self.by_key.values():
            demand.able.pop(slave.id, None)
