"""Frames: where each one stands, and the only doors by which one changes state.

Rules of this file:
1. A frame's state is which of its layer's sets holds its position: `waiting` (or `held` by what it depends
   on, or `delayed`), `live` (an attempt is ASSIGNED or RUNNING), `done`, `failed`, `cancelled`; each position
   is in exactly one.
2. Only `Layer`'s methods change those sets, and only along TRANSITIONS; its gate sorts what is WAITING.
3. Facts and wishes are separate: `Attempt.stop` is what was asked, never a state.
"""

from collections.abc import Sequence
from heapq import heappush
from typing import TYPE_CHECKING, Literal

from drqueue.master.core.amounts import Ask
from drqueue.master.core.attempt import Attempt, History
from drqueue.master.core.order import FrameOrder
from drqueue.master.core.records import AttemptRecord, DoneFrames, FrameRecord, LayerRecord, LayerTotals
from drqueue.master.core.waits import Eligible
from drqueue.proto.ids import AttemptKey
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import LayerSpec, RunOrder
from drqueue.proto.range_text import written
from drqueue.proto.ranges import Chunks, FrameRange

if TYPE_CHECKING:
    from drqueue.master.core.demand import Demand
    from drqueue.master.core.depends import Wait
    from drqueue.master.core.fairness import Party, Project
    from drqueue.master.core.gates import Gate, Link
    from drqueue.master.core.lanes import Lane, Queue
    from drqueue.master.core.limits import Claim
    from drqueue.master.core.state import Job

FrameState = Literal["WAITING", "ASSIGNED", "RUNNING", "DONE", "FAILED", "CANCELLED"]
Resting = Literal["WAITING", "DONE", "FAILED", "CANCELLED"]

#: (from, to) -> what makes a frame go there. `docs/states.md` is drawn from this table.
TRANSITIONS: dict[tuple[FrameState, FrameState], str] = {
    ("WAITING", "ASSIGNED"): "dispatched to a slave",
    ("WAITING", "DONE"): "frame finish",
    ("WAITING", "CANCELLED"): "job deleted, or its dependency cancelled",
    ("ASSIGNED", "RUNNING"): "its process started",
    ("ASSIGNED", "WAITING"): "not started: retried, killed, stopped hard, or its slave lost",
    ("ASSIGNED", "DONE"): "ended well, or frame finish",
    ("ASSIGNED", "FAILED"): "failed or killed with no retries left",
    ("ASSIGNED", "CANCELLED"): "job deleted, or its dependency cancelled",
    ("RUNNING", "WAITING"): "retried, killed, stopped hard, requeued, or its slave lost",
    ("RUNNING", "DONE"): "ended well, or frame finish",
    ("RUNNING", "FAILED"): "failed or killed with no retries left",
    ("RUNNING", "CANCELLED"): "job deleted, or its dependency cancelled",
    ("DONE", "WAITING"): "frame requeue, rerun",
    ("FAILED", "WAITING"): "frame requeue, rerun",
    ("FAILED", "DONE"): "frame finish",
    ("CANCELLED", "WAITING"): "frame requeue, rerun",
}


#: Frames that get a row each by one verb at most: whose counts are reset, or differ from their layer's.
ROWS_MOST = 10_000
#: A layer is brief when so many of its frames are done, in less than so many seconds each.
BRIEF_KNOWN = 8
BRIEF_S = 1.0


class InvalidTransitionError(Exception):
    """A bug: a frame was to go where no transition leads."""


class Layer:
    """One layer of a job, with every frame's state."""

    __slots__ = (
        "_base_cancelled",
        "_base_done",
        "_base_failed",
        "blanks",
        "blocked",
        "brief",
        "cancelled",
        "chunks",
        "claims",
        "counted",
        "cpu_s",
        "delayed",
        "demand",
        "done",
        "dying",
        "eligible",
        "ended",
        "env",
        "failed",
        "failures",
        "floor",
        "gate",
        "held",
        "history",
        "index",
        "job",
        "lane",
        "live",
        "order",
        "parties",
        "queue",
        "range",
        "reruns",
        "spec",
        "told",
        "top",
        "unfolded",
        "waiting",
        "waits",
        "wall_s",
        "watchers",
    )

    def __init__(self, job: "Job", index: int, spec: LayerSpec) -> None:
        self.job = job
        self.index = index
        self.live: dict[int, Attempt] = {}
        self.history: dict[int, History] = {}
        #: Positions WAITING, but not before a time of the core's clock (back-off).
        self.delayed: dict[int, float] = {}
        #: Attempts that no frame waits for any more but that still run, and the frame numbers they render:
        #: until they are over, no other attempt at any of these may start (P4).
        self.dying: dict[AttemptKey, Sequence[int]] = {}
        self.floor = 0
        self.top = 0
        self.reruns = 0
        #: What the whole layer waits for, and of that what is not met yet, in words.
        self.waits: tuple[Wait, ...] = ()
        self.blocked = ""
        #: What its frames wait for one by one, and which frames wait so for its own.
        self.gate: Gate | None = None
        self.watchers: list[Link] = []
        #: What its frames ask of slaves, and take of limits (as of a generation of these).
        self.demand: Demand = job.state.demands.of(job.spec.pool, spec.needs)
        self.claims: tuple[int, tuple[Claim, ...]] | None = None
        #: Where it waits for its turn, if it does, and whose share it is.
        self.lane: Lane | None = None
        self.queue: Queue | None = None
        self.parties: tuple[Project, Party] | None = None
        #: Since when its frames might have been dispatched.
        self.eligible = Eligible()
        #: Of the attempts above this number: how many were done, their wall seconds, all their CPU seconds.
        self.counted = 0
        self.ended = 0
        self.wall_s = 0.0
        self.cpu_s = 0.0
        #: Whether its frames are known to last less than about a second.
        self.brief = False
        #: Attempts that failed, ever.
        self.failures = 0
        #: Rows that say nothing but DONE, roughly: see `folding`.
        self.unfolded = 0
        self.take_spec(spec)
        self.clear_frames()

    def take_spec(self, spec: LayerSpec) -> None:
        """Use this spec from now on; the caller sees to the frames."""
        self.spec = spec
        self.range = FrameRange.parse(spec.frames)
        self.chunks = Chunks(self.range, spec.chunk)
        whole = (self.range.min, self.range.max, 1)
        #: Start, end and step as commands are told them.
        self.told = written(spec.frames) or self.range.single or whole
        self.use_spec(spec)

    def use_spec(self, spec: LayerSpec) -> None:
        """Use all of this spec but its frames and chunks, which are the same; `note_waiting` is the
        caller's."""
        if self.lane is not None:
            self.job.state.lanes.leave(self)
        self.spec = spec
        self.env = {**self.job.spec.env, **spec.env}
        self.claims = None
        #: What the rows and orders of all attempts that take the same have in common, by what they take.
        self.blanks: dict[Ask, tuple[AttemptRecord, RunOrder]] = {}
        self.order = FrameOrder(self.chunks, spec.order, spec.next)
        demands = self.job.state.demands
        former = self.demand
        self.demand = demands.of(self.job.spec.pool, spec.needs)
        demands.release(former)

    def go(self) -> None:
        """Its job is forgotten."""
        if self.lane is not None:
            self.job.state.lanes.leave(self)
        self.job.state.demands.release(self.demand)

    def clear_frames(self) -> None:
        """Every frame WAITING without history; live attempts are the caller's."""
        self.waiting = IntervalSet()
        self.waiting.add_range(0, len(self.chunks))
        #: WAITING positions whose own dependencies are not met.
        self.held = IntervalSet()
        self.done = IntervalSet()
        self.failed = IntervalSet()
        self.cancelled = IntervalSet()
        self._base_done = IntervalSet()
        self._base_failed = IntervalSet()
        self._base_cancelled = IntervalSet()
        self.history.clear()
        self.delayed.clear()
        self.eligible.clear()

    # -- asking -----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many frames (chunks) the layer has."""
        return len(self.chunks)

    @property
    def unfinished(self) -> int:
        """Frames WAITING or live."""
        return len(self.waiting) + len(self.held) + len(self.delayed) + len(self.live)

    def state_of(self, index: int) -> FrameState:
        """Where the frame at this position stands."""
        attempt = self.live.get(index)
        if attempt is not None:
            return "RUNNING" if attempt.running else "ASSIGNED"
        if index in self.waiting or index in self.delayed or index in self.held:
            return "WAITING"
        if index in self.done:
            return "DONE"
        return "FAILED" if index in self.failed else "CANCELLED"

    def resting(self, index: int) -> Resting:
        """What the row of the frame at this position says: a live one is WAITING but for its attempt."""
        state = self.state_of(index)
        return "WAITING" if state == "ASSIGNED" or state == "RUNNING" else state

    def sets(self) -> tuple[tuple[Resting, IntervalSet], ...]:
        """The resting states and their positions (without those delayed or held)."""
        return (
            ("WAITING", self.waiting),
            ("DONE", self.done),
            ("FAILED", self.failed),
            ("CANCELLED", self.cancelled),
        )

    def bases(self) -> tuple[tuple[Resting, IntervalSet], ...]:
        """Positions whose resting state stands in the layer's own row, not in one of theirs."""
        return (
            ("DONE", self._base_done),
            ("FAILED", self._base_failed),
            ("CANCELLED", self._base_cancelled),
        )

    def is_dying(self, index: int) -> bool:
        """Whether an attempt that was given up still renders numbers of this frame."""
        members = self.chunks.members(index)
        return any(number in members for numbers in self.dying.values() for number in numbers)

    def waiting_for_dying(self) -> set[int]:
        """Positions that wait for an attempt that was given up and still renders some of their numbers."""
        found = {self.chunks.chunk_of(number) for numbers in self.dying.values() for number in numbers}
        return {index for index in found if index is not None and index in self.waiting}

    def all_waiting(self) -> list[tuple[int, int]]:
        """Stretches of WAITING positions, held or not (without the delayed ones), ascending."""
        return sorted((*self.waiting.intervals(), *self.held.intervals()))

    def next_attempt(self, index: int) -> int:
        """The number that the frame's next attempt bears."""
        past = self.history.get(index)
        return (self.floor if past is None else max(past.attempt, self.floor)) + 1

    # -- changing ---------------------------------------------------------------------------------

    def look_open(self, wall: float) -> None:
        """Whether its frames may be dispatched, as far as it and its job are concerned, may have changed."""
        self.eligible.look(not (self.blocked or self.job.waits_for or self.job.stopped), wall)

    def eligible_since(self, index: int, wall: float) -> None:
        """A frame came back, or was released, at this time (which may lie ahead: the end of a back-off)."""
        self.eligible.since(index, wall)

    def assign(self, attempt: Attempt) -> None:
        """WAITING -> ASSIGNED."""
        self.waiting.discard(attempt.index)
        job, number = self.job, attempt.key.attempt
        self.live[attempt.index] = attempt
        if number > self.top:
            self.top = number
        job.live += 1
        if not self.waiting or job.spec.max_running:
            job.note_waiting()

    def release(self, attempt: Attempt, to: Resting, past: History | None, until: float = 0.0) -> None:
        """A live frame comes to rest; `until` delays a WAITING one."""
        index = attempt.index
        self._check("RUNNING" if attempt.running else "ASSIGNED", to)
        del self.live[index]
        self.job.live -= 1
        if self.job.spec.max_running:
            self.job.note_waiting()
        if past is not None:
            self.history[index] = past
        elif self.history:
            self.history.pop(index, None)
        if to == "WAITING" and until:
            self.delayed[index] = until
            heappush(self.job.state.delays, (until, self.job.id, self.index, index))
        else:
            self._set(to).add(index)
            if to == "WAITING":
                self.order.came_back(index)
                self._sort(index, index + 1)
                self.job.note_waiting()
            elif self.watchers:
                self._pass_on(index, index + 1)

    def move(self, start: int, end: int, source: Resting, to: Resting) -> None:
        """All of positions start <= i < end, which rest in `source`, go to `to` and have no row."""
        self._check(source, to)
        if source == "WAITING" and self.delayed:
            for index in [i for i in self.delayed if start <= i < end]:
                del self.delayed[index]
        self._set(source).discard_range(start, end)
        if source == "WAITING":
            self.held.discard_range(start, end)
        self._set(to).add_range(start, end)
        if to == "WAITING":
            self.order.came_back(start, end)
        for state, base in self.bases():
            if state == to:
                base.add_range(start, end)
            else:
                base.discard_range(start, end)
        if self.history:
            for index in [i for i in self.history if start <= i < end]:
                del self.history[index]
        if to == "WAITING":
            self._sort(start, end)
        if self.watchers:
            self._pass_on(start, end)
        self.job.note_waiting()

    def settle_at(self, index: int, to: Resting) -> None:
        """Where the layer's frames are laid out anew: a WAITING position rests in `to`, without a row."""
        self.waiting.discard(index)
        self._set(to).add(index)
        for state, base in self.bases():
            if state == to:
                base.add(index)

    def keep_history(self, index: int, past: History, until: float) -> None:
        """Where the layer's frames are laid out anew: what a frame went through; `until`: its back-off."""
        self.history[index] = past
        self.has_row(index)
        if until:
            self.waiting.discard(index)
            self.delayed[index] = until
            heappush(self.job.state.delays, (until, self.job.id, self.index, index))

    def restore(self, index: int, to: Resting, past: History) -> None:
        """Where the layer is rebuilt from its rows: a position with a row of its own."""
        if to != "WAITING":
            self.waiting.discard(index)
            self._set(to).add(index)
        if to in ("WAITING", "FAILED") or past.counts:
            self.history[index] = past
        self.top = max(self.top, past.attempt)

    def restore_done(self, rows: DoneFrames) -> None:
        """Where the layer is rebuilt from its rows: many that say nothing but DONE."""
        self.waiting.difference_update(rows.positions)
        self.done.update(rows.positions)
        self.top = max(self.top, rows.top)

    def restore_live(self, attempt: Attempt) -> None:
        """Where the layer is rebuilt from its rows: a live attempt."""
        for _state, positions in self.sets():
            positions.discard(attempt.index)
        self.live[attempt.index] = attempt
        self.job.live += 1

    def restore_bases(self, record: LayerRecord) -> None:
        """Where the layer is rebuilt from its rows: its own one. ValueError where it is corrupt."""
        self.floor = record.floor
        self.top = max(record.floor, record.top)
        self.counted = record.counted
        self.reruns = record.reruns
        for packed, base, positions in (
            (record.done, self._base_done, self.done),
            (record.failed, self._base_failed, self.failed),
            (record.cancelled, self._base_cancelled, self.cancelled),
        ):
            for start, end in IntervalSet.unpack(packed).intervals() if packed else ():
                base.add_range(start, end)
                positions.add_range(start, end)
                self.waiting.discard_range(start, end)

    def count(self, row: AttemptRecord) -> None:
        """Add an attempt that is over to the sums, unless it is of an earlier run."""
        self.job.state.summed[self] = None
        self.failures += row.outcome == "failed"
        if row.attempt <= self.counted:
            return
        self.cpu_s += row.cpu_s
        if row.outcome == "done":
            self.ended += 1
            took = row.ended_at - row.started_at
            if took > 0.0:
                self.wall_s += took
            self._look_brief()

    def count_anew(self) -> None:
        """Start the sums anew: every attempt so far is of an earlier run."""
        self.counted = self.top
        self.ended, self.wall_s, self.cpu_s, self.brief = 0, 0.0, 0.0, False
        self.job.state.summed[self] = None

    def _look_brief(self) -> None:
        brief = self.wall_s < BRIEF_S * self.ended and self.ended >= BRIEF_KNOWN
        if brief is not self.brief:
            self.brief = brief
            if brief:
                self.job.state.lanes.note_brief(self)

    def due(self, index: int) -> None:
        """A delayed frame may be dispatched again."""
        del self.delayed[index]
        self.waiting.add(index)
        self.order.came_back(index)
        self._sort(index, index + 1)
        self.job.note_waiting()

    def has_row(self, index: int) -> None:
        """The frame's state stands in a row of its own from now on."""
        for _state, base in self.bases():
            if base:
                base.discard(index)

    def _set(self, state: Resting) -> IntervalSet:
        if state == "DONE":
            return self.done
        if state == "WAITING":
            return self.waiting
        return self.failed if state == "FAILED" else self.cancelled

    def _sort(self, start: int, end: int) -> None:
        """Of these positions, which are WAITING now, those are held whose own dependencies are not met."""
        if self.gate is not None:
            self.gate.sort(start, end)

    def _pass_on(self, start: int, end: int) -> None:
        """These came to rest, or run again: frames that wait for them one by one are to know."""
        for link in self.watchers:
            link.changed(start, end)

    def _check(self, source: FrameState, to: FrameState) -> None:
        if (source, to) not in TRANSITIONS:
            raise InvalidTransitionError(f"job {self.job.id} layer {self.index}: {source} -> {to}")

    # -- rows -------------------------------------------------------------------------------------

    def record(self) -> LayerRecord:
        """The layer's row."""
        return LayerRecord(
            job=self.job.id,
            layer=self.index,
            floor=self.floor,
            counted=self.counted,
            reruns=self.reruns,
            top=self.top,
            done=self._base_done.pack(),
            failed=self._base_failed.pack(),
            cancelled=self._base_cancelled.pack(),
        )

    def totals(self) -> LayerTotals:
        """The row of its sums."""
        sums = (self.ended, self.wall_s, self.cpu_s, self.failures)
        return LayerTotals(self.job.id, self.index, *sums)

    def restore_totals(self, row: LayerTotals) -> None:
        """Where the layer is rebuilt from its rows: its sums."""
        self.ended, self.wall_s, self.cpu_s, self.failures = row.done, row.wall_s, row.cpu_s, row.failed
        self._look_brief()

    def frame_record(self, index: int, state: Resting, past: History) -> FrameRecord:
        """The row of a frame with history."""
        return FrameRecord(
            job=self.job.id,
            layer=self.index,
            frame=index,
            state=state,
            attempt=past.attempt,
            requeued=past.requeued,
            avoid=past.avoid,
            returned=past.returned,
        )
