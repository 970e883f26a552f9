"""After a restore from a backup its jobs are held back until nothing of theirs can run that began since (P4).

The backup knows nothing of attempts that began after it was made. Their slaves may be out of reach, and what
they run would run twice.

Rules of this file:
1. A job of the backup starts no frame until each lease that may have been given out for it since is over:
   the longest of its own, the farm's and what a stopping master granted, with the margin that leases have,
   from this master's start on. One that holds on to its slaves has no such time. Or an operator vouches.
2. That all known slaves have linked ends nothing earlier. A node that joined after the backup is not known,
   and has no way in any more: it goes on until its lease ends, and nobody can tell that it is there.
3. What a linked slave says that it runs of such a job is told to stop, as any stale attempt is. But its slave
   has heard a master, so its lease has begun anew: the job waits until that slave says that it is over, or
   for a whole lease after its last word. An operator vouches for those out of reach, not for these.
4. Until all of it is over a row says so. A master that starts in between begins all of it anew.
5. Jobs that came later run at once: nothing of theirs began before.
"""

from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from math import inf
from typing import Final

from msgspec import Struct, json

from drqueue.master.core import depends
from drqueue.master.core.leases import LEASE_EXTRA_S, LEASE_FACTOR
from drqueue.master.core.records import MetaRecord
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState, Job
from drqueue.master.core.turn import Turn
from drqueue.proto.ids import AttemptKey
from drqueue.proto.views import HoldbackView

#: The named value that lasts as long as this does; what storage says in it of a database that was restored.
ROW: Final = "restored"
JUST_NOW: Final = "just now"


class _Kept(Struct, frozen=True):
    """What the row says: which ids are held back, after which grant, and which until somebody vouches."""

    below: int
    granted_s: float
    hold: tuple[int, ...] = ()


class Holdback:
    """Which jobs are held back, and until when."""

    __slots__ = ("_heap", "dues", "lasts", "strangers")

    def __init__(self) -> None:
        #: By job: until when, on the core's clock; `inf` where only an operator ends it.
        self.dues: dict[int, float] = {}
        #: By job: seconds for which what it has may go on without a master's word.
        self.lasts: dict[int, float] = {}
        #: By job: what slaves said that they run of it, begun since the backup, and is not known to be over.
        self.strangers: dict[int, dict[AttemptKey, Slave]] = {}
        self._heap: list[tuple[float, int]] = []

    def add(self, job: int, due: float, lasts: float) -> None:
        """Hold a job back."""
        self.dues[job], self.lasts[job] = due, lasts
        self.look(job)

    def look(self, job: int) -> None:
        """It may be over at another time than before."""
        until = self.until(job)
        if until < inf:
            heappush(self._heap, (until, job))

    def until(self, job: int) -> float:
        """When a job goes on, as things are, on the core's clock; `inf`: not by time alone."""
        until = self.dues[job]
        for slave in self.strangers.get(job, {}).values():
            until = max(until, inf if slave.link is not None else slave.heard + self.lasts[job])
        return until

    def next_deadline(self) -> float | None:
        """When to ask `over` again at the latest."""
        return self._heap[0][0] if self._heap else None

    def over(self, now: float) -> Iterator[int]:
        """Jobs that are held back no longer."""
        while self._heap and self._heap[0][0] <= now:
            number = heappop(self._heap)[1]
            if number in self.dues:
                if self.until(number) <= now:
                    self.drop(number)
                    yield number
                else:
                    self.look(number)

    def drop(self, number: int) -> None:
        """It is held back no longer."""
        del self.dues[number], self.lasts[number]
        self.strangers.pop(number, None)

    def strange(self, slave: Slave) -> list[AttemptKey]:
        """What that slave said that it runs."""
        return [key for keys in self.strangers.values() for key, where in keys.items() if where is slave]

    def gone(self, key: AttemptKey) -> None:
        """One of these is over."""
        keys = self.strangers.get(key.job, {})
        if keys.pop(key, None) is not None:
            if not keys:
                del self.strangers[key.job]
            self.look(key.job)


def begin(state: FarmState, row: str, lease_s: float, granted_s: float | None) -> None:
    """Hold back what is to be, of all jobs that are there. ValueError where the row is damaged.

    `granted_s`: the database was restored just now, after such a grant.
    """
    if granted_s is not None:
        state.granted_s = max(state.granted_s, granted_s)
        hold = sorted(job.id for job in state.jobs.values() if job.spec.on_unreachable == "hold")
        kept = _Kept(state.next_job, state.granted_s, tuple(hold))
        state.save.append(MetaRecord("lease_grant", str(state.granted_s)))
        state.save.append(MetaRecord(ROW, json.encode(kept).decode()))
    elif row:
        kept = json.decode(row, type=_Kept)
    else:
        return
    longest: dict[int, float] = {}
    for attempt in state.attempts.values():
        number = attempt.key.job
        longest[number] = max(attempt.row.lease_s, longest.get(number, 0.0))
    state.holdback = held = Holdback()
    of_operator = frozenset(kept.hold)
    for job in state.jobs.values():
        if job.id < kept.below and not job.deleted:
            lease = max(lease_s, job.spec.lease_s, kept.granted_s, longest.get(job.id, 0.0))
            lasts = lease * LEASE_FACTOR + LEASE_EXTRA_S
            held.add(job.id, inf if job.id in of_operator else state.started + lasts, lasts)
    _forget(state)


def linked(turn: Turn, slave: Slave, running: Collection[AttemptKey]) -> None:
    """A slave says Hello, with all that it runs."""
    held = turn.state.holdback
    if held is None:
        return
    for key in held.strange(slave):
        if key not in running:
            held.gone(key)
    for key in running:
        if key not in slave.live and key.job in held.dues:
            held.strangers.setdefault(key.job, {})[key] = slave


def unlinked(turn: Turn, slave: Slave) -> None:
    """A slave's link ended: what it runs may go on for a lease."""
    held = turn.state.holdback
    if held is not None:
        for number in {key.job for key in held.strange(slave)}:
            held.look(number)


def ended(turn: Turn, key: AttemptKey) -> None:
    """A slave says that this one is over."""
    if turn.state.holdback is not None:
        turn.state.holdback.gone(key)


def vouch(turn: Turn) -> tuple[int, str]:
    """An operator vouches that nothing runs out of reach: how many jobs that have frames left go on, and a
    sentence where something still holds some back."""
    held = turn.state.holdback
    if held is None:
        return 0, "no job is held back"
    count, names = 0, set[str]()
    for number in held.dues:
        held.dues[number] = turn.now
        keys = held.strangers.pop(number, {})
        if left := {key: slave for key, slave in keys.items() if slave.link is not None}:
            held.strangers[number] = left
            names.update(slave.name for slave in left.values())
        elif _unfinished(turn.state.jobs.get(number)):
            count += 1
        held.look(number)
    note = ""
    if names:
        jobs = f"{len(held.strangers):,} job{'' if len(held.strangers) == 1 else 's'}"
        first, more = min(names), f" and {len(names) - 1} more" if len(names) > 1 else ""
        note = f"{jobs} wait{'s' if len(held.strangers) == 1 else ''} until slave {first}{more} has stopped"
        note += " what began after the backup"
    return count, note


def pass_deadlines(turn: Turn) -> None:
    """Let those jobs go on that are held back no longer."""
    state, held = turn.state, turn.state.holdback
    if held is None:
        return
    freed = list(held.over(turn.now))
    _forget(state)
    for number in freed:
        job = state.jobs.get(number)
        if job is not None and not job.deleted:
            depends.recheck(turn, job)


def look_again(state: FarmState) -> None:
    """Once in a while: jobs that are gone hold nothing up."""
    held = state.holdback
    if held is not None:
        for number in [number for number in held.dues if number not in state.jobs]:
            held.drop(number)
        _forget(state)


def view(state: FarmState) -> HoldbackView | None:
    """What people are told of it; None where no job that has frames left is held back."""
    held = state.holdback
    if held is None:
        return None
    numbers = [number for number in held.dues if _unfinished(state.jobs.get(number))]
    if not numbers:
        return None
    waits = [number for number in numbers if held.dues[number] == inf]
    times = [until for number in numbers if (until := held.until(number)) < inf]
    away = sum(not slave.greeted for slave in state.slaves.values())
    return HoldbackView(
        jobs=len(numbers),
        until_at=state.wall(max(times)) if times else 0.0,
        for_operator=len(waits),
        slaves_away=away,
    )


def _forget(state: FarmState) -> None:
    if state.holdback is not None and not state.holdback.dues:
        state.holdback = None
        state.save.append(MetaRecord(ROW, ""))


def _unfinished(job: Job | None) -> bool:
    return job is not None and not job.deleted and not job.finished
