"""Why no slave takes a frame: each slave asked by the very checks that place frames, and the answers counted.

Rules of this file:
1. Of slaves outside the job's pool nothing is said, unless there are none in it.
2. A slave that is out of service, and could not run the frame in any case, counts as one that could not.
3. Slaves with the same answer are told of together: one sentence, and the figures that matter to it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from drqueue.master.core.amounts import Ask, plain
from drqueue.master.core.demand import exceeds, lacks
from drqueue.master.core.layer import Layer
from drqueue.master.core.placement import avoided, is_blocked, why_not
from drqueue.master.core.reasons import BUSY, NEVER, asked, gpus, listed, many, megabytes, span
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState
from drqueue.proto.views import Reason

_CLOSED: Final = frozenset({"unlinked", "lost", "disabled", "autoenable", "sick"})
_EXPRESSION_MOST: Final = 60


def of_slaves(
    state: FarmState, layer: Layer, index: int | None, asks: Sequence[Ask], before: str = ""
) -> list[Reason] | None:
    """Why none takes a frame of the layer (this one), asked for any of `asks`; None where one would.

    `before`: what is said of those whose turn comes first, where slaves are only busy.
    """
    every, pool = state.slaves.values(), layer.job.spec.pool
    if not every:
        return [Reason(code="no-slaves", text="no slave has ever linked to this master")]
    members = [slave for slave in every if pool in slave.limits.pools]
    if not members:
        text = f"no slave is in pool {pool}: {_others(len(every))}"
        return [Reason(code="pool", text=text, count=len(every), name=pool)]
    avoid = avoided(layer, index)
    groups: dict[str, list[Slave]] = {}
    for slave in members:
        code = why_not(state, slave, layer, index, avoid=avoid, asks=asks)
        if code is None:
            return None
        if code in _CLOSED and slave.id not in layer.demand.able:
            code = layer.demand.never(slave) or code
        elif code in _CLOSED and is_blocked(slave, layer.job):
            code = "blocked"
        groups.setdefault(code, []).append(slave)
    told = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    views = [_Group(state, layer, code, found, asks, avoid) for code, found in told]
    ending = before if all(view.code in BUSY for view in views) else ""
    if all(view.code in NEVER or view.code == "blocked" for view in views):
        ending = ": as the farm stands, it will never run"
    reasons = [view.reason(len(members), pool, ending if len(views) == 1 else "") for view in views]
    if len(views) > 1:
        heads = ", ".join(f"{len(view.slaves):,} {view.short}" for view in views)
        text = f"{many(len(members), 'slave')} of pool {pool}: {heads}{ending}"
        reasons.insert(0, Reason(code="slaves", text=text, count=len(members), name=pool))
    return reasons


def nowhere(state: FarmState, layer: Layer) -> str:
    """Why no slave could ever run the layer, as the farm stands; "" where one could."""
    if any(not is_blocked(slave, layer.job) for slave in layer.demand.able.values()):
        return ""
    every, pool = state.slaves.values(), layer.job.spec.pool
    members = [slave for slave in every if pool in slave.limits.pools]
    if not members:
        return f"no slave is in pool {pool}" + (f": {_others(len(every))}" if every else "")
    groups: dict[str, list[Slave]] = {}
    for slave in members:
        code = "blocked" if is_blocked(slave, layer.job) else layer.demand.never(slave)
        if code is None:
            return ""
        groups.setdefault(code, []).append(slave)
    told = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    views = [_Group(state, layer, code, found, layer.demand.asks, ()) for code, found in told]
    nowhere = f"layer {layer.spec.name} can run nowhere:"
    if len(views) == 1:
        count = len(members)
        who = f"all {count:,} slaves of pool {pool}" if count > 1 else f"the only slave of pool {pool}"
        return f"{nowhere} {who} {views[0].told}"
    heads = ", ".join(f"{len(view.slaves):,} {view.short}" for view in views)
    return f"{nowhere} of {many(len(members), 'slave')} of pool {pool}, {heads}"


def _others(count: int) -> str:
    return "the only one is in others" if count == 1 else f"all {count:,} are in others"


class _Group:
    """Slaves that have the same reason."""

    def __init__(
        self,
        state: FarmState,
        layer: Layer,
        code: str,
        slaves: list[Slave],
        asks: Sequence[Ask],
        avoid: Collection[int],
    ) -> None:
        self.code = code
        self.slaves = slaves
        self._state = state
        self._layer = layer
        self._asks = asks
        self.name, self.until_at = "", 0.0
        #: After "are", or (`_lack`) a verb's rest.
        self._lack = False
        self._said = self._say(avoid)

    @property
    def short(self) -> str:
        """What is said of them after their number: `lack free memory (...)`, `disabled`."""
        return f"{'lacks' if len(self.slaves) == 1 else 'lack'} {self._said}" if self._lack else self._said

    @property
    def told(self) -> str:
        """What is said of them, as the end of a sentence: `lack free memory (...)`, `are disabled`."""
        verb = "" if self._lack else "is " if len(self.slaves) == 1 else "are "
        return f"{verb}{self.short}{self._instead()}"

    def reason(self, total: int, pool: str, ending: str) -> Reason:
        """What is said of them alone."""
        count = len(self.slaves)
        named = f" ({listed(sorted(s.name for s in self.slaves))})" if count <= 3 and total > 1 else ""
        if total == 1:
            who = f"slave {self.slaves[0].name}, the only one of pool {pool},"
        elif count == total:
            who = f"all {total:,} slaves of pool {pool}"
        else:
            who = f"{count:,} of {total:,} slaves{named}"
        text = f"{who} {self.told}{ending}"
        return Reason(code=self.code, text=text, count=count, name=self.name, until_at=self.until_at)

    def _say(self, avoid: Collection[int]) -> str:
        needs, job = self._layer.spec.needs, self._layer.job
        match self.code:
            case "unlinked":
                return "not linked"
            case "lost":
                return "given up as lost"
            case "autoenable":
                hours = Counter(slave.limits.autoenable or "" for slave in self.slaves)
                return f"disabled until {listed([hour for hour, _ in hours.most_common()], last='or')}"
            case "os":
                return f"not running {listed(list(needs.os), last='or')}"
            case "tag":
                missing = Counter(t for s in self.slaves for t in set(needs.tags) - set(s.offers.tags))
                names = sorted(missing, key=lambda tag: (-missing[tag], tag))
                self.name = names[0]
                return f"without tag {listed(names, last='or')}"
            case "where":
                text = needs.where
                return f"not such that {text if len(text) <= _EXPRESSION_MOST else text[:59] + '…'}"
            case "blocked":
                return "blocked for this job"
            case "avoided":
                return self._say_avoided()
            case "max-per-slave":
                return f"at the job's limit of {many(job.spec.max_per_slave, 'frame')} per slave"
            case "seat":
                return self._say_seat()
            case "load":
                cores = plain(self._asks[0].cores)
                left = plain(max(0, *(slave.free_cores for slave in self.slaves)))
                return f"loaded by others (needs {many(cores, 'core')}, they leave {left})"
            case "disabled":
                return self.code
            case "sick":
                return "sick: too many frames failed there in a row"
            case _:
                self._lack = True
                return self._short_of(self.code, self._asks[0], self.slaves)

    def _say_avoided(self) -> str:
        job = self._layer.job
        until = [job.avoids.get(slave.id, 0.0) for slave in self.slaves]
        if not all(until):
            return "on the avoid list: it failed there, and tries others first"
        self.until_at = self._state.wall(min(until))
        return f"on the avoid list for {span(min(until) - self._state.now)}: frames of the job failed there"

    def _say_seat(self) -> str:
        for claim in self._state.limits.of(self._layer):
            counter = claim.counter
            if counter.scope == "slaves" and not counter.has(0, self.slaves[0].machine_name):
                self.name = counter.name
                most = plain(counter.amount or 0)
                return f"without a seat of limit {counter.name} ({plain(counter.used)}/{most})"
        return "without a seat"

    def _instead(self) -> str:
        """What is missing for the alternatives, where there are any and the numbers are the matter."""
        if not self._lack:
            return ""
        parts = []
        for ask in self._asks[1:]:
            codes = Counter(exceeds(slave, ask) or lacks(slave, ask) or "" for slave in self.slaves)
            code = next((code for code, _ in codes.most_common() if code), "")
            if code == "load":
                parts.append(f"; in place of that, {asked(ask)}: they are loaded by others")
            elif code:
                short = self._short_of(code, ask, self.slaves)
                parts.append(f"; in place of that, {asked(ask)}: not enough {short}")
        return "".join(parts)

    def _short_of(self, code: str, ask: Ask, slaves: Iterable[Slave]) -> str:
        """What of an ask they have not, what it is, and the most that one of them has."""
        kind, _, never = code.partition("-")
        free = "" if never else "free "
        most = (
            f"the {'largest' if kind in ('memory', 'disk') else 'most'} {'offered' if never else 'free'} is"
        )
        match kind:
            case "cores":
                has = max(s.cores_most if never else s.cores_most - s.used_cores for s in slaves)
                return f"{free}cores (needs {plain(ask.cores)}, {most} {plain(max(0, has))})"
            case "memory":
                wanted = ask.memory_mb
                if never:
                    wanted = max(wanted, self._layer.spec.needs.machine_memory_mb)
                has = max(s.memory_mb - (0 if never else s.used_memory_mb) for s in slaves)
                return f"{free}memory (needs {megabytes(wanted)}, {most} {megabytes(max(0, has))})"
            case "gpu":
                of = ask.gpu_memory_mb
                has = max(len(s.gpus_with(of) if never else s.free_gpus_with(of)) for s in slaves)
                return f"{free}GPUs (needs {gpus(ask)}, {most} {has})"
            case "disk":
                has = max(s.offers.disk_mb - (0 if never else s.used_disk_mb) for s in slaves)
                return f"{free}disk (needs {megabytes(ask.disk_mb)}, {most} {megabytes(max(0, has))})"
            case _:
                return self._short_of_amounts(ask, slaves, never=bool(never), most=most)

    def _short_of_amounts(self, ask: Ask, slaves: Iterable[Slave], *, never: bool, most: str) -> str:
        parts = []
        for name, amount in ask.amounts:
            left = [s.amounts.get(name, 0) - (0 if never else s.used_amounts.get(name, 0)) for s in slaves]
            if min(left) < amount:
                self.name = self.name or name
                parts.append(f"{name} (needs {plain(amount)}, {most} {plain(max(0, *left))})")
        return " or ".join(parts)
