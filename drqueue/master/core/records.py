"""The rows that survive. A commit takes a list of these, in order, all or none.

What a frame without history is stands in its layer's row, as packed interval sets over positions;
a frame that has one has a row of its own, which overrides its layer's sets. Attempts are an
append-only history; the ones that still live have outcome "". Everything else that the master knows
is derived from these when it starts. `_at` fields are seconds since 1970, for people only.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from drqueue.proto.ids import AttemptKey
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.messages import AccountKind
from drqueue.proto.model import (
    Amount,
    Cores,
    JobSpec,
    Limit,
    LimitsChange,
    LogEnds,
    MachineInfo,
    Offers,
    OnUnreachable,
    PoolPolicy,
    Share,
    Sharer,
    SlaveLimits,
)
from drqueue.proto.roles import Role

Outcome = Literal["", "done", "failed", "killed", "requeued", "lost", "superseded", "cancelled"]


class Record(Struct, frozen=True, gc=False):
    """Base of all rows."""


class MetaRecord(Record, frozen=True, gc=False):
    """One named value of the farm (ids counted so far, the lease granted at the last graceful stop)."""

    name: str
    value: str


class JobRecord(Record, frozen=True, gc=False, kw_only=True):
    """A job; `spec` holds its latest priority, limits and ranges. `deleted`: only attempts still end.

    `submitter` is whose job it is: the proven name of whoever submitted it; "" where nobody knows any more.
    `user` is for whose share it runs. `forgiven`: of its failed attempts, how many there were when it last
    went on. `stopped_for`: why it stopped by itself.
    """

    id: int
    token: str
    spec: JobSpec
    submitted_at: float
    started_at: float = 0
    finished_at: float = 0
    stopped: bool = False
    deleted: bool = False
    submitter: str = ""
    user: str = ""
    forgiven: int = 0
    stopped_for: str = ""


class LayerRecord(Record, frozen=True, gc=False, kw_only=True):
    """Frames of a layer without a row of their own: positions by state, packed; the rest are WAITING.

    `floor`: such a frame's next attempt is floor + 1. `counted`: attempts up to this number are of
    earlier runs of the layer, and no part of its sums. `reruns`: how often all of it was sent back.
    `top`: the highest attempt that rows now dropped may have had.
    """

    job: int
    layer: int
    floor: int = 0
    counted: int = 0
    reruns: int = 0
    top: int = 0
    done: bytes = b""
    failed: bytes = b""
    cancelled: bytes = b""


class FrameRecord(Record, frozen=True, gc=False, kw_only=True):
    """A frame with history. `attempt` is the latest one's number, live or over; `returned`: how often it came
    back without a failure or a kill, besides its layer's reruns."""

    job: int
    layer: int
    frame: int
    state: Literal["WAITING", "DONE", "FAILED", "CANCELLED"]
    attempt: int
    requeued: int = 0
    avoid: tuple[int, ...] = ()
    returned: int = 0


class FramesForget(Record, frozen=True, gc=False):
    """Drop the rows of frames start <= frame < end: their layer's sets say it all."""

    job: int
    layer: int
    start: int
    end: int


class AttemptRecord(Record, frozen=True, gc=False, kw_only=True):
    """One try. Written when it is assigned, and once more, whole, when it is over.

    `frame` is the index in its key; `number` the first frame number it renders, which stays true
    when the layer's range is changed. `stop` and `again` are wishes not yet fulfilled. What it takes of its
    slave and of the limits it keeps until it is over, whatever becomes of its layer.
    """

    job: int
    layer: int
    frame: int
    attempt: int
    number: int
    slave: int
    slave_name: str
    assigned_at: float
    cores: Cores = 1
    memory_mb: int = 0
    lease_s: float = 0
    on_unreachable: OnUnreachable = "lease"
    stop: str = ""
    again: bool = False
    orphan: bool = False
    started_at: float = 0
    ended_at: float = 0
    outcome: Outcome = ""
    code: int | None = None
    signal: int | None = None
    reason: str = ""
    text: str = ""
    cpu_s: float = 0
    peak_mb: float = 0
    log_bytes: int = 0
    step: int = 1
    count: int = 1
    slot: int = 0
    eligible_at: float = 0
    gpus: tuple[int, ...] = ()
    disk_mb: int = 0
    amounts: dict[str, Amount] = {}
    limits: dict[str, int] = {}

    @property
    def key(self) -> AttemptKey:
        """The attempt's name on the wire."""
        return AttemptKey(self.job, self.layer, self.frame, self.attempt)


class JobForget(Record, frozen=True, gc=False):
    """Drop a job with all its layers, frames, attempts and logs."""

    job: int


class SlaveRecord(Record, frozen=True, gc=False, kw_only=True):
    """A slave as it last introduced itself. `wish`: limits asked for while it was away.

    `account` is that of the node which it belongs to, "" for one of the master's own machine. `sick`: why
    frames are kept from it until somebody heals it.
    """

    id: int
    identity: str
    name: str
    fingerprint: str
    machine: MachineInfo
    limits: SlaveLimits
    cores: int
    memory_mb: int
    control: str = ""
    last_heard_at: float = 0
    wish: LimitsChange | None = None
    account: str = ""
    offers: Offers = Offers()
    sick: str = ""


class SlaveForget(Record, frozen=True, gc=False):
    """Drop a slave. Its number is never given to another."""

    slave: int


class LogRecord(Record, frozen=True, gc=False):
    """The ends of a finished attempt's log."""

    key: AttemptKey
    ends: LogEnds


class LayerTotals(Record, frozen=True, gc=False):
    """Sums over a layer's attempts of its latest run: how many were done, the wall seconds of those, and the
    CPU seconds of all that are over. `failed`: how many of all its attempts failed. Written as it changes.
    """

    job: int
    layer: int
    done: int
    wall_s: float
    cpu_s: float
    failed: int = 0


class AccountRecord(Record, frozen=True, gc=False, kw_only=True):
    """A node's or a person's way in: who shows the secret of `secret_hash` is `name`, with `role`.

    A person has one for each place they log in from. `pending`: it waits to be approved. `next_hash`: a new
    secret, good from the moment it is shown, and the old one no longer. `pin`: of the certificate that a
    node's slave shows at its control port. `line`: the hash of the token that it came with.
    """

    id: str
    kind: AccountKind
    name: str
    role: Role
    secret_hash: str
    created_at: float
    created_by: str
    pending: bool = False
    next_hash: str = ""
    pin: str = ""
    peer: str = ""
    identity: str = ""
    fingerprint: str = ""
    code: str = ""
    line: str = ""


class AccountForget(Record, frozen=True, gc=False):
    """Drop an account: its secret opens nothing any more."""

    id: str


class LineRecord(Record, frozen=True, gc=False, kw_only=True):
    """A line that was handed out, by its token's hash. `replaces`: the account whose place it will take."""

    token_hash: str
    kind: AccountKind
    name: str
    role: Role
    created_at: float
    created_by: str
    expires_at: float
    uses_left: int
    net: str = ""
    replaces: str = ""


class LineForget(Record, frozen=True, gc=False):
    """Drop a line that is used up, too old or revoked."""

    token_hash: str


class AuditRecord(Record, frozen=True, gc=False, kw_only=True):
    """A row of the audit. Written once; again with a higher `count` where the same was refused repeatedly."""

    id: int
    at: float
    who: str
    role: str
    peer: str
    what: str
    outcome: str
    text: str = ""
    count: int = 1


class LimitRecord(Record, frozen=True, gc=False):
    """A limit that somebody set."""

    limit: Limit


class LimitForget(Record, frozen=True, gc=False):
    """Drop a limit."""

    name: str


class ShareRecord(Record, frozen=True, gc=False):
    """What a user or a project was given of a pool."""

    share: Share


class ShareForget(Record, frozen=True, gc=False):
    """Drop what a user or a project was given of a pool."""

    of: Sharer
    name: str
    pool: str


class PoolRecord(Record, frozen=True, gc=False):
    """A pool's policy, where it is not the usual one."""

    name: str
    policy: PoolPolicy


class PoolForget(Record, frozen=True, gc=False):
    """The pool's policy is the usual one again."""

    name: str


AnyRecord = (
    MetaRecord
    | JobRecord
    | LayerRecord
    | FrameRecord
    | FramesForget
    | AttemptRecord
    | JobForget
    | SlaveRecord
    | SlaveForget
    | LogRecord
    | LayerTotals
    | AccountRecord
    | AccountForget
    | LineRecord
    | LineForget
    | AuditRecord
    | LimitRecord
    | LimitForget
    | ShareRecord
    | ShareForget
    | PoolRecord
    | PoolForget
)


class DoneFrames(Struct, frozen=True):
    """Frames with rows that say no more than that they are DONE, together; `top`: their highest attempt."""

    job: int
    layer: int
    positions: IntervalSet
    top: int


class Saved(Struct, frozen=True, kw_only=True):
    """All that storage holds and the core needs to start from."""

    meta: dict[str, str] = {}
    jobs: Iterable[JobRecord] = ()
    layers: Iterable[LayerRecord] = ()
    #: Rows of frames, but for those in `done`.
    frames: Iterable[FrameRecord] = ()
    done: Iterable[DoneFrames] = ()
    live: Iterable[AttemptRecord] = ()
    totals: Iterable[LayerTotals] = ()
    slaves: Iterable[SlaveRecord] = ()
    accounts: Iterable[AccountRecord] = ()
    lines: Iterable[LineRecord] = ()
    limits: Iterable[LimitRecord] = ()
    shares: Iterable[ShareRecord] = ()
    pools: Iterable[PoolRecord] = ()
    #: The highest id in the audit.
    audited: int = 0
