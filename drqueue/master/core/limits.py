"""Limits: named counters of what runs, of one kind whatever they are for.

Rules of this file:
1. An attempt takes of all its counters in the step in which it is booked, and gives back what it took, of the
   very same counters, when it is over: whatever became of its job or of the limits meanwhile.
2. A counter may stand above its amount (that was lowered): then nothing is taken of it until it is below.
3. `user:NAME`, `project:NAME` and `pool:NAME` count by themselves, with the amount of `user:*` and so on,
   where they have none of their own. `burst:PROJECT@POOL` is what a share says. Others count what names them.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from drqueue.master.core.amounts import THOUSAND, Ask, milli
from drqueue.proto.model import Limit, LimitScope

if TYPE_CHECKING:
    from drqueue.master.core.attempt import Attempt
    from drqueue.master.core.lanes import Lane
    from drqueue.master.core.layer import Layer

#: Names of counters that count by themselves, up to the colon.
BY_ITSELF = ("user", "project", "pool")


class Counter:
    """One limit and what is taken of it, in thousandths; `machines`: attempts by machine, where those
    count."""

    __slots__ = ("amount", "lanes", "machines", "name", "scope", "used")

    def __init__(self, name: str, scope: LimitScope = "attempts", amount: int | None = None) -> None:
        self.name = name
        self.scope: LimitScope = scope
        #: None: nobody set it.
        self.amount = amount
        self.used = 0
        self.machines: dict[str, int] = {}
        #: Lanes with frames that wait for it.
        self.lanes: dict[Lane, None] = {}

    @property
    def open_ended(self) -> bool:
        """Whether it holds nothing back: one that counts by itself, and has no amount."""
        return self.amount is None and self.kind in (*BY_ITSELF, "burst")

    @property
    def kind(self) -> str:
        """`user`, `project`, `pool` or `burst`, where it counts by itself; else its name."""
        return self.name.partition(":")[0]

    def units(self, ask: Ask, count: int) -> int:
        """What an attempt takes of it, in thousandths."""
        return ask.cores * count if self.scope == "cores" else THOUSAND * count

    def has(self, units: int, machine: str | None = None) -> bool:
        """Whether so much is left; of a counter of machines, on this machine (None: on a new one)."""
        if self.amount is None:
            return self.open_ended
        if self.scope == "slaves":
            return machine in self.machines or self.used + THOUSAND <= self.amount
        return self.used + units <= self.amount

    def take(self, units: int, machine: str) -> None:
        """An attempt is booked."""
        if self.scope == "slaves":
            self.machines[machine] = self.machines.get(machine, 0) + 1
            self.used = THOUSAND * len(self.machines)
        else:
            self.used += units

    def give(self, units: int, machine: str) -> None:
        """It is over."""
        if self.scope == "slaves":
            left = self.machines[machine] - 1
            if left:
                self.machines[machine] = left
            else:
                del self.machines[machine]
            self.used = THOUSAND * len(self.machines)
        else:
            self.used -= units


class Claim(NamedTuple):
    """What attempts of a layer take of a counter; `of`: whose counter it is (lane, pool, project or user)."""

    counter: Counter
    each: int
    of: str


class Limits:
    """All counters, by name."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter] = {}
        #: What was set, by name: `user:*` has no counter of its own.
        self.set_to: dict[str, Limit] = {}
        #: Raised by every change of what was set: what layers remember is old then.
        self.generation = 0
        #: Counters of which something came back since the last pass.
        self.freed: dict[Counter, None] = {}

    def put(self, limit: Limit, attempts: Iterable["Attempt"]) -> None:
        """Set a limit; `attempts`: all that live, which are counted anew where it counts by itself."""
        new = self._limit(limit.name) is None
        self.set_to[limit.name] = limit
        self._changed(limit.name, attempts, new=new)

    def drop(self, name: str, attempts: Iterable["Attempt"]) -> None:
        """Forget a limit that was set."""
        del self.set_to[name]
        self._changed(name, attempts)

    def burst(self, project: str, pool: str, cores: float | None, attempts: Iterable["Attempt"]) -> None:
        """A project never has more cores of a pool (None: no limit)."""
        name = f"burst:{project}@{pool}"
        if cores is not None:
            self.put(Limit(name=name, amount=cores, scope="cores"), attempts)
        elif name in self.set_to:
            self.drop(name, attempts)

    def _changed(self, name: str, attempts: Iterable["Attempt"], *, new: bool = False) -> None:
        """`new`: nothing was counted so far. What counts by itself counts what runs already, too."""
        self.generation += 1
        kind, colon, rest = name.partition(":")
        if rest == "*" and kind in BY_ITSELF:
            touched = [name for name in self.counters if name.startswith(f"{kind}:")]
        else:
            touched = [name]
        others: dict[Counter, LimitScope] = {}
        for one in touched:
            counter, limit = self._counter(one), self._limit(one)
            counter.amount = None if limit is None else milli(limit.amount)
            self.freed[counter] = None
            if limit is not None and limit.scope != counter.scope:
                others[counter] = limit.scope
        if others or (new and colon):
            self._count_anew(attempts, others, kind if new and colon else "")

    def _count_anew(
        self, attempts: Iterable["Attempt"], scopes: Mapping[Counter, LimitScope], kind: str
    ) -> None:
        """Counters get other scopes; of what counts by itself, `kind` counts from now on."""
        for counter, scope in scopes.items():
            counter.scope, counter.used, counter.machines = scope, 0, {}
        for attempt in attempts:
            for counter, count in attempt.held:
                if counter in scopes:
                    counter.take(counter.units(attempt.ask, count), attempt.machine)
            if kind and not attempt.ahead and all(counter.kind != kind for counter, _ in attempt.held):
                for counter, count, _ in self.of(attempt.layer):
                    if counter.kind == kind:
                        attempt.machine = attempt.machine or attempt.slave.machine_name
                        counter.take(counter.units(attempt.ask, count), attempt.machine)
                        attempt.held = (*attempt.held, (counter, count))

    def prune(self) -> None:
        """Forget counters that nobody set (for themselves), holds or waits for."""
        for counter in list(self.counters.values()):
            if counter.name not in self.set_to and not counter.used and not counter.lanes:
                del self.counters[counter.name]
                # What layers remember of it would count apart from its successor.
                self.generation += 1

    def _limit(self, name: str) -> Limit | None:
        found = self.set_to.get(name)
        if found is None:
            kind, colon, _ = name.partition(":")
            if colon and kind in BY_ITSELF:
                return self.set_to.get(f"{kind}:*")
        return found

    def _counter(self, name: str) -> Counter:
        counter = self.counters.get(name)
        if counter is None:
            limit = self._limit(name)
            counter = self.counters[name] = Counter(name)
            if limit is not None:
                counter.scope, counter.amount = limit.scope, milli(limit.amount)
        return counter

    def of(self, layer: "Layer") -> tuple[Claim, ...]:
        """What each attempt of a layer takes."""
        if layer.claims is None or layer.claims[0] != self.generation:
            layer.claims = (self.generation, tuple(self._claims(layer)))
        return layer.claims[1]

    def _claims(self, layer: "Layer") -> Iterable[Claim]:
        for name, count in sorted(layer.spec.limits.items()):
            yield Claim(self._counter(name), count, "lane")
        job = layer.job
        for kind, name in (("pool", job.spec.pool), ("project", job.spec.project), ("user", job.user)):
            full = f"{kind}:{name}"
            if self._limit(full) is not None:
                yield Claim(self._counter(full), 1, kind)
        burst = f"burst:{job.spec.project}@{job.spec.pool}"
        if burst in self.set_to:
            yield Claim(self._counter(burst), 1, "project")

    def take(self, attempt: "Attempt") -> None:
        """An attempt is booked."""
        claims = self.of(attempt.layer)
        if claims:
            self._take(attempt, tuple((claim.counter, claim.each) for claim in claims))

    def take_again(self, attempt: "Attempt", held: Mapping[str, int]) -> None:
        """An attempt that lives holds so much of these, whatever its layer takes now, and what counts by
        itself since it was booked."""
        self._give(attempt)
        kinds = {name.partition(":")[0] for name in held if ":" in name}
        claims = [claim for claim in self.of(attempt.layer) if claim.of != "lane"]
        by_itself = {c.counter.name: c.each for c in claims if c.counter.kind not in kinds}
        every = sorted({**by_itself, **held}.items())
        self._take(attempt, tuple((self._counter(name), count) for name, count in every))

    def _take(self, attempt: "Attempt", held: tuple[tuple[Counter, int], ...]) -> None:
        attempt.held, attempt.machine = held, attempt.slave.machine_name
        for counter, count in held:
            counter.take(counter.units(attempt.ask, count), attempt.machine)

    def give(self, attempt: "Attempt") -> None:
        """It is over."""
        if attempt.held:
            held = attempt.held
            self._give(attempt)
            for counter, _count in held:
                self.freed[counter] = None

    def _give(self, attempt: "Attempt") -> None:
        for counter, count in attempt.held:
            counter.give(counter.units(attempt.ask, count), attempt.machine)
        attempt.held = ()
