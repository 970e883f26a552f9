"""One try at a frame, and what a frame's past means for its next one."""

from typing import TYPE_CHECKING, Final

from msgspec import Struct, structs

from drqueue.master.core.amounts import Ask, plain
from drqueue.master.core.records import AttemptRecord
from drqueue.proto.ids import AttemptKey, FrameKey

if TYPE_CHECKING:
    from drqueue.master.core.fairness import Party, Pool, Project
    from drqueue.master.core.layer import Layer
    from drqueue.master.core.limits import Counter
    from drqueue.master.core.slave import Slave

_NO_ROW: Final = AttemptRecord(
    job=0, layer=0, frame=0, attempt=0, number=0, slave=0, slave_name="", assigned_at=0.0
)


class History(Struct, eq=False, gc=False):
    """What a resting frame's past means for its next attempt."""

    attempt: int
    requeued: int = 0
    avoid: tuple[int, ...] = ()
    returned: int = 0

    @property
    def counts(self) -> bool:
        """Whether it came back at all: that is told of frames that are over, too."""
        return bool(self.requeued or self.returned)


class Attempt(Struct, eq=False):
    """One live try. `index` is its frame's position now; `orphan`: the frame no longer waits for it."""

    key: AttemptKey
    layer: "Layer"
    index: int
    slave: "Slave"
    #: What it takes of its slave, and which devices those are.
    ask: Ask
    #: The frame numbers it renders, whatever becomes of the layer's range.
    members: range
    frame_key: FrameKey
    gpus: tuple[int, ...] = ()
    requeued: int = 0
    returned: int = 0
    #: Sent ahead of a free place: it waits at its slave, and takes nothing of it yet.
    ahead: bool = False
    #: The lowest number that no other live attempt of its slave has; given when it is booked.
    slot: int = -1
    #: What it takes of which limits, on which machine, and for whom: given when it is booked.
    held: "tuple[tuple[Counter, int], ...]" = ()
    machine: str = ""
    pool: "Pool | None" = None
    parties: "tuple[Project, Party] | None" = None
    #: What was saved of it when it was booked: of its wishes, `record` says what they are now.
    row: AttemptRecord = _NO_ROW
    pid: int = 0
    started_at: float = 0.0
    running: bool = False
    stop: str = ""
    asked_stop: bool = False
    again: bool = False
    orphan: bool = False
    taken_back: bool = False
    progress: float = 0.0
    said: str = ""

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
        return structs.replace(
            self.row, stop=self.stop, again=self.again, orphan=self.orphan, started_at=self.started_at
        )
