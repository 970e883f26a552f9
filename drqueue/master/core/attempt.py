"""One try at a frame, and what a frame's past means for its next one."""

from typing import TYPE_CHECKING, Final

from msgspec import structs

from drqueue.master.core.amounts import Ask, plain
from drqueue.master.core.records import AttemptRecord
from drqueue.proto.ids import AttemptKey, FrameKey
from drqueue.proto.model import OnUnreachable

if TYPE_CHECKING:
    from drqueue.master.core.fairness import Party, Pool, Project
    from drqueue.master.core.layer import Layer
    from drqueue.master.core.limits import Counter
    from drqueue.master.core.slave import Slave


#: A row is a copy of this: that takes a fraction of the time of making it from all its fields.
_BLANK: Final = AttemptRecord(
    job=0, layer=0, frame=0, attempt=0, number=0, slave=0, slave_name="", assigned_at=0.0
)


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
        "_row",
        "again",
        "ahead",
        "ask",
        "asked_stop",
        "assigned_at",
        "eligible_at",
        "frame_key",
        "gpus",
        "held",
        "index",
        "key",
        "layer",
        "lease_s",
        "machine",
        "members",
        "on_unreachable",
        "orphan",
        "parties",
        "pid",
        "pool",
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
        ask: Ask,
        gpus: tuple[int, ...] = (),
        lease_s: float,
        on_unreachable: OnUnreachable,
        assigned_at: float,
        requeued: int,
        returned: int = 0,
    ) -> None:
        self.key = key
        self.layer = layer
        self.index = index
        self.frame_key = FrameKey(key.job, key.layer, index)
        #: The frame numbers it renders, whatever becomes of the layer's range.
        self.members = layer.chunks.members(index)
        self.slave = slave
        #: What it takes of its slave, and which devices those are.
        self.ask = ask
        self.gpus = gpus
        #: What it takes of which limits, on which machine, and for whom: given when it is booked.
        self.held: tuple[tuple[Counter, int], ...] = ()
        self.machine = ""
        self.pool: Pool | None = None
        self.parties: tuple[Project, Party] | None = None
        self.lease_s = lease_s
        self.on_unreachable: OnUnreachable = on_unreachable
        self.assigned_at = assigned_at
        self.requeued = requeued
        self.returned = returned
        #: When it might have been assigned, had there been a place; on the wall clock.
        self.eligible_at = assigned_at
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
        #: What was saved of it first.
        self._row: AttemptRecord | None = None

    @property
    def waits(self) -> bool:
        """Whether it is known only to wait at its slave: to people, its frame is WAITING."""
        return self.ahead and not self.running

    @property
    def cores(self) -> int | float:
        """Cores that it takes."""
        return plain(self.ask.cores)

    @property
    def memory_mb(self) -> int:
        """Memory that it takes."""
        return self.ask.memory_mb

    @property
    def number(self) -> int:
        """The first frame number it renders."""
        return self.members[0]

    def record(self) -> AttemptRecord:
        """The row of this attempt while it lives."""
        row = self._row
        if row is None:
            row = self._row = self._first_row()
        elif self.stop or self.again or self.orphan or self.started_at:
            row = structs.replace(
                row, stop=self.stop, again=self.again, orphan=self.orphan, started_at=self.started_at
            )
        return row

    def _first_row(self) -> AttemptRecord:
        key, ask, members = self.key, self.ask, self.members
        row = structs.replace(
            _BLANK,
            job=key.job,
            layer=key.layer,
            frame=key.frame,
            attempt=key.attempt,
            number=members[0],
            slave=self.slave.id,
            slave_name=self.slave.name,
            assigned_at=self.assigned_at,
            cores=plain(ask.cores),
            memory_mb=ask.memory_mb,
            lease_s=self.lease_s,
            on_unreachable=self.on_unreachable,
            step=members.step,
            count=len(members),
            slot=self.slot,
            eligible_at=self.eligible_at,
        )
        if self.held or self.gpus or ask.disk_mb or ask.amounts:
            row = structs.replace(
                row,
                gpus=self.gpus,
                disk_mb=ask.disk_mb,
                amounts={name: plain(amount) for name, amount in ask.amounts},
                limits={counter.name: count for counter, count in self.held},
            )
        if self.stop or self.again or self.orphan or self.started_at:
            row = structs.replace(
                row, stop=self.stop, again=self.again, orphan=self.orphan, started_at=self.started_at
            )
        return row
