"""Frames: where each one stands, and the only doors by which one changes state.

Rules of this file:
1. A frame's state is which of its layer's sets holds its position: `waiting` (or `delayed`), `live` (an
   attempt is ASSIGNED or RUNNING), `done`, `failed`, `cancelled`; each position is in exactly one.
2. Only `Layer`'s methods change those sets, and only along TRANSITIONS.
3. Facts and wishes are separate: `Attempt.stop` is what was asked, never a state.
"""

from collections.abc import Sequence
from heapq import heappush
from typing import TYPE_CHECKING, Literal

from drqueue.master.core.records import AttemptRecord, FrameRecord, LayerRecord
from drqueue.proto.ids import AttemptKey
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import LayerSpec, OnUnreachable
from drqueue.proto.range_text import written
from drqueue.proto.ranges import Chunks, FrameRange

if TYPE_CHECKING:
    from drqueue.master.core.state import Job, Slave

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


class History:
    """What a resting frame's past means for its next attempt."""

    __slots__ = ("attempt", "avoid", "requeued", "returned")

    def __init__(
        self, attempt: int, requeued: int = 0, avoid: tuple[int, ...] = (), returned: int = 0
    ) -> None:
        self.attempt = attempt
        self.requeued = requeued
        self.avoid = avoid
        self.returned = returned

    @property
    def counts(self) -> bool:
        """Whether it came back at all: that is told of frames that are over, too."""
        return bool(self.requeued or self.returned)


class Attempt:
    """One live try. `index` is its frame's position now; `orphan`: the frame no longer waits for it."""

    __slots__ = (
        "again",
        "ahead",
        "asked_stop",
        "assigned_at",
        "cores",
        "index",
        "key",
        "layer",
        "lease_s",
        "members",
        "memory_mb",
        "on_unreachable",
        "orphan",
        "pid",
        "progress",
        "requeued",
        "returned",
        "running",
        "said",
        "slave",
        "slot",
        "started_at",
        "stop",
        "taken_back",
    )

    def __init__(
        self,
        key: AttemptKey,
        layer: "Layer",
        index: int,
        slave: "Slave",
        *,
        cores: float,
        memory_mb: int,
        lease_s: float,
        on_unreachable: OnUnreachable,
        assigned_at: float,
        requeued: int,
        returned: int = 0,
    ) -> None:
        self.key = key
        self.layer = layer
        self.index = index
        #: The frame numbers it renders, whatever becomes of the layer's range.
        self.members = layer.chunks.members(index)
        self.slave = slave
        self.cores = cores
        self.memory_mb = memory_mb
        self.lease_s = lease_s
        self.on_unreachable: OnUnreachable = on_unreachable
        self.assigned_at = assigned_at
        self.requeued = requeued
        self.returned = returned
        #: The lowest number that no other live attempt of its slave has; given when it is booked.
        self.slot = -1
        self.pid = 0
        self.started_at = 0.0
        self.running = False
        self.stop = ""
        self.asked_stop = False
        self.again = False
        self.orphan = False
        #: Sent ahead of a free place: it waits at its slave, and takes nothing of it yet.
        self.ahead = False
        self.taken_back = False
        self.progress = 0.0
        self.said = ""

    @property
    def waits(self) -> bool:
        """Whether it is known only to wait at its slave: to people, its frame is WAITING."""
        return self.ahead and not self.running

    @property
    def number(self) -> int:
        """The first frame number it renders."""
        return self.members[0]

    def record(self) -> AttemptRecord:
        """The row of this attempt while it lives."""
        key = self.key
        return AttemptRecord(
            job=key.job,
            layer=key.layer,
            frame=key.frame,
            attempt=key.attempt,
            number=self.number,
            slave=self.slave.id,
            slave_name=self.slave.name,
            assigned_at=self.assigned_at,
            cores=self.cores,
            memory_mb=self.memory_mb,
            lease_s=self.lease_s,
            on_unreachable=self.on_unreachable,
            stop=self.stop,
            again=self.again,
            orphan=self.orphan,
            started_at=self.started_at,
            step=self.members.step,
            count=len(self.members),
            slot=self.slot,
        )


class Layer:
    """One layer of a job, with every frame's state."""

    __slots__ = (
        "_base_cancelled",
        "_base_done",
        "_base_failed",
        "blocked",
        "cancelled",
        "chunks",
        "counted",
        "cpu_s",
        "delayed",
        "done",
        "dying",
        "ended",
        "env",
        "failed",
        "floor",
        "history",
        "index",
        "job",
        "live",
        "range",
        "reruns",
        "spec",
        "told",
        "top",
        "waiting",
        "wall_s",
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
        self.blocked = ""
        #: Of the attempts above this number: how many were done, their wall seconds, all their CPU seconds.
        self.counted = 0
        self.ended = 0
        self.wall_s = 0.0
        self.cpu_s = 0.0
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
        self.env = {**self.job.spec.env, **spec.env}

    def clear_frames(self) -> None:
        """Every frame WAITING without history; live attempts are the caller's."""
        self.waiting = IntervalSet()
        self.waiting.add_range(0, len(self.chunks))
        self.done = IntervalSet()
        self.failed = IntervalSet()
        self.cancelled = IntervalSet()
        self._base_done = IntervalSet()
        self._base_failed = IntervalSet()
        self._base_cancelled = IntervalSet()
        self.history.clear()
        self.delayed.clear()

    # -- asking -----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many frames (chunks) the layer has."""
        return len(self.chunks)

    @property
    def brief(self) -> bool:
        """Whether its frames are known to last less than about a second."""
        return self.ended >= BRIEF_KNOWN and self.wall_s < BRIEF_S * self.ended

    @property
    def unfinished(self) -> int:
        """Frames WAITING or live."""
        return len(self.waiting) + len(self.delayed) + len(self.live)

    def state_of(self, index: int) -> FrameState:
        """Where the frame at this position stands."""
        attempt = self.live.get(index)
        if attempt is not None:
            return "RUNNING" if attempt.running else "ASSIGNED"
        if index in self.waiting or index in self.delayed:
            return "WAITING"
        if index in self.done:
            return "DONE"
        return "FAILED" if index in self.failed else "CANCELLED"

    def resting(self, index: int) -> Resting:
        """What the row of the frame at this position says: a live one is WAITING but for its attempt."""
        state = self.state_of(index)
        return "WAITING" if state == "ASSIGNED" or state == "RUNNING" else state

    def sets(self) -> tuple[tuple[Resting, IntervalSet], ...]:
        """The resting states and their positions (without the delayed ones)."""
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

    def next_attempt(self, index: int) -> int:
        """The number that the frame's next attempt bears."""
        past = self.history.get(index)
        return (self.floor if past is None else max(past.attempt, self.floor)) + 1

    # -- changing ---------------------------------------------------------------------------------

    def assign(self, attempt: Attempt) -> None:
        """WAITING -> ASSIGNED."""
        self.waiting.discard(attempt.index)
        self.live[attempt.index] = attempt
        self.top = max(self.top, attempt.key.attempt)
        self.job.live += 1
        if not self.waiting:
            self.job.note_waiting()

    def release(self, attempt: Attempt, to: Resting, past: History | None, until: float = 0.0) -> None:
        """A live frame comes to rest; `until` delays a WAITING one."""
        index = attempt.index
        self._check("RUNNING" if attempt.running else "ASSIGNED", to)
        del self.live[index]
        self.job.live -= 1
        if past is None:
            self.history.pop(index, None)
        else:
            self.history[index] = past
        if to == "WAITING" and until:
            self.delayed[index] = until
            heappush(self.job.state.delays, (until, self.job.id, self.index, index))
        else:
            self._set(to).add(index)
            if to == "WAITING":
                self.job.note_waiting()

    def move(self, start: int, end: int, source: Resting, to: Resting) -> None:
        """All of positions start <= i < end, which rest in `source`, go to `to` and have no row."""
        self._check(source, to)
        if source == "WAITING" and self.delayed:
            for index in [i for i in self.delayed if start <= i < end]:
                del self.delayed[index]
        self._set(source).discard_range(start, end)
        self._set(to).add_range(start, end)
        for state, base in self.bases():
            if state == to:
                base.add_range(start, end)
            else:
                base.discard_range(start, end)
        if self.history:
            for index in [i for i in self.history if start <= i < end]:
                del self.history[index]
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

    def restore_live(self, attempt: Attempt) -> None:
        """Where the layer is rebuilt from its rows: a live attempt."""
        for _state, positions in self.sets():
            positions.discard(attempt.index)
        self.live[attempt.index] = attempt
        self.job.live += 1

    def restore_bases(self, record: LayerRecord) -> None:
        """Where the layer is rebuilt from its rows: its own one. ValueError where it is corrupt."""
        self.floor = self.top = record.floor
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
        """Add an attempt that is over to the sums, unless it is of an earlier run; storage sums up alike."""
        if row.attempt <= self.counted:
            return
        self.cpu_s += row.cpu_s
        if row.outcome == "done":
            self.ended += 1
            self.wall_s += max(0.0, row.ended_at - row.started_at)

    def count_anew(self) -> None:
        """Start the sums anew: every attempt so far is of an earlier run."""
        self.counted = self.top
        self.ended, self.wall_s, self.cpu_s = 0, 0.0, 0.0

    def due(self, index: int) -> None:
        """A delayed frame may be dispatched again."""
        del self.delayed[index]
        self.waiting.add(index)
        self.job.note_waiting()

    def has_row(self, index: int) -> None:
        """The frame's state stands in a row of its own from now on."""
        for _state, base in self.bases():
            if base:
                base.discard(index)

    def _set(self, state: Resting) -> IntervalSet:
        if state == "WAITING":
            return self.waiting
        if state == "DONE":
            return self.done
        return self.failed if state == "FAILED" else self.cancelled

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
            done=self._base_done.pack(),
            failed=self._base_failed.pack(),
            cancelled=self._base_cancelled.pack(),
        )

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
