"""What clients ask and are answered, one frozen struct each; the other messages are in `link_messages`, those
about limits, shares and pools in `sharing_messages`.

A message is a msgpack map: "t" names its type, the rest are its fields. Every request has `rq`, a
number chosen by the asker; its answer carries the same. The comment above each group says who
sends it; `docs/protocol.md` repeats it for people, and a test compares the two.
"""

from typing import Annotated, Literal

from msgspec import Meta

from drqueue.proto.ids import AttemptKey, Natural
from drqueue.proto.link_messages import Message
from drqueue.proto.model import (
    Amount,
    JobChange,
    JobSpec,
    LimitsChange,
    LogEnds,
    Positive,
    Seconds,
    Whole,
)
from drqueue.proto.views import (
    AccountView,
    AttemptView,
    AuditView,
    Finding,
    FrameView,
    HoldbackView,
    JobView,
    LayerView,
    LoopLag,
    Reason,
    SlaveView,
)

JobVerbName = Literal["stop", "hard-stop", "continue", "rerun", "delete"]
FrameVerbName = Literal["kill", "requeue", "finish", "reset-requeued", "next"]
SlaveVerbName = Literal["forget", "declare-dead", "heal"]
AccountVerbName = Literal["revoke", "rotate", "approve", "reject", "set-role"]
AccountKind = Literal["node", "user"]
AccountRole = Literal["viewer", "artist", "supervisor", "admin"]
Token = Annotated[str, Meta(min_length=8, max_length=64)]


class Request(Message, frozen=True, kw_only=True):
    """Base of what is asked; `rq` is chosen by the asker, unique among its open requests."""

    rq: Natural


# --- client to master, or to a slave's control port, or master to slave (relayed) -------------------


class ReadLog(Request, frozen=True, kw_only=True):
    """Bytes of an attempt's log from `offset`, waiting `wait_s` for new ones; `slave` is whose log it is."""

    slave: str = ""
    key: AttemptKey
    offset: Natural = 0
    limit: Positive = 65536
    wait_s: Seconds = 0


class SetLimits(Request, frozen=True, kw_only=True):
    """Change a slave's limits. `slave` is its name, host name or address ("" on its own control port)."""

    slave: str = ""
    change: LimitsChange


class KillAttempts(Request, frozen=True, kw_only=True):
    """Stop these attempts on a slave, as a frame kill does; all of a job's with `job` alone."""

    slave: str = ""
    keys: tuple[AttemptKey, ...] = ()
    job: Natural | None = None


class Examine(Request, frozen=True, kw_only=True):
    """What is well and what is not with a daemon and its machine: the master, or the slave named."""

    slave: str = ""


class GetSlave(Request, frozen=True, kw_only=True):
    """One slave with what runs on it."""

    slave: str = ""


# --- client to master -------------------------------------------------------------------------------


class BackUp(Request, frozen=True, kw_only=True):
    """Make a backup now, in the master's own folder, for somebody on its machine to take away."""


class Submit(Request, frozen=True, kw_only=True):
    """Queue a job. The same token never makes a second one."""

    token: Token
    spec: JobSpec


class ListJobs(Request, frozen=True, kw_only=True):
    """A page of jobs by id, from `cursor`; finished ones only with `all`."""

    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    all: bool = False
    owner: str = ""


class GetJob(Request, frozen=True, kw_only=True):
    """One job with its layers."""

    job: Natural


class GetSpec(Request, frozen=True, kw_only=True):
    """A job as it was submitted, with all that was changed since."""

    job: Natural


class ListFrames(Request, frozen=True, kw_only=True):
    """A page of a job's frames, in order, from `cursor`; one layer only with `layer`."""

    job: Natural
    layer: str = ""
    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    states: tuple[str, ...] = ()


class ListAttempts(Request, frozen=True, kw_only=True):
    """Every attempt at one frame, oldest first."""

    job: Natural
    layer: str = ""
    number: Whole


class ListSlaves(Request, frozen=True, kw_only=True):
    """A page of slaves by id, from `cursor`."""

    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class JobVerb(Request, frozen=True, kw_only=True):
    """stop, hard-stop, continue, rerun or delete a job."""

    job: Natural
    verb: JobVerbName


class FrameVerb(Request, frozen=True, kw_only=True):
    """kill, requeue (with `now`: killing a running one), finish or reset-requeued frames, named by a range;
    next: let those of them that wait go before all others of their layer.

    `running`: finish only those that are running (or about to).
    """

    job: Natural
    layer: str = ""
    frames: str
    verb: FrameVerbName
    now: bool = False
    running: bool = False


class ChangeJob(Request, frozen=True, kw_only=True):
    """Change a live job."""

    job: Natural
    change: JobChange


class SlaveVerb(Request, frozen=True, kw_only=True):
    """forget a slave that is gone, declare it dead so that its frames go elsewhere at once, or heal one that
    was found sick: frames are sent to it again.
    """

    slave: str
    verb: SlaveVerbName


class Why(Request, frozen=True, kw_only=True):
    """Why a job, or one frame of it, does not render."""

    job: Natural
    layer: str = ""
    number: Whole | None = None


class FindLog(Request, frozen=True, kw_only=True):
    """Where the log of a frame's attempt lies (the latest attempt without `attempt`)."""

    job: Natural
    layer: str = ""
    number: Whole
    attempt: Natural | None = None


class FarmInfo(Request, frozen=True, kw_only=True):
    """Who this master is and how the farm does."""


class ResumeFarm(Request, frozen=True, kw_only=True):
    """An operator vouches, after a restore from a backup, that no slave out of reach runs what began since it
    was made: its jobs go on at once. Where one does, such a frame runs twice.
    """


class WhoAmI(Request, frozen=True, kw_only=True):
    """Who the master takes me for."""


class GetTicket(Request, frozen=True, kw_only=True):
    """A ticket for a slave's control port, and where that is."""

    slave: str


class AddLine(Request, frozen=True, kw_only=True):
    """A line that brings a node, or a person with this role, to the farm: `uses` times within `ttl_s`.

    `net` is the network (CIDR) from which it may be used. A node is called `name`, if that is given. Without
    `role` a person has the one that they have already, or is an artist.
    """

    kind: AccountKind
    name: str = ""
    role: AccountRole | None = None
    ttl_s: Annotated[float, Meta(ge=1, le=31_536_000)] = 3600
    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    net: str = ""


class ListAccounts(Request, frozen=True, kw_only=True):
    """A page of accounts by name, from `cursor`; with `pending` those that wait to be approved."""

    kind: AccountKind
    pending: bool = False
    cursor: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class AccountVerb(Request, frozen=True, kw_only=True):
    """revoke an account, rotate its secret, approve one that waits, reject that, or set a person's role.

    `name` is the account's, its id, or the code of one that waits. Answered with Done, or, where somebody has
    a line to paste, with TheLine.
    """

    kind: AccountKind
    name: str
    verb: AccountVerbName
    role: AccountRole = "artist"


class ListAudit(Request, frozen=True, kw_only=True):
    """What was done and refused, from `cursor` on, oldest first; waits `wait_s` where there is nothing yet.

    `latest` (in place of a cursor): the last so many.
    """

    cursor: Natural = 0
    latest: Natural = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    wait_s: Seconds = 0


class Watch(Request, frozen=True, kw_only=True):
    """Tell me whenever something changes: all jobs, all slaves, or one job's frames too."""

    jobs: bool = False
    slaves: bool = False
    job: Natural | None = None


class Unwatch(Request, frozen=True, kw_only=True):
    """No more of that watch."""

    watch: Natural


# --- answers ----------------------------------------------------------------------------------------


class Done(Request, frozen=True, kw_only=True):
    """It is done (and on disk): how many things it touched, and what is worth saying."""

    count: Natural = 0
    note: str = ""


class Refusal(Request, frozen=True, kw_only=True):
    """It is not done: a code for programs, one sentence for people."""

    code: str
    text: str


class Submitted(Request, frozen=True, kw_only=True):
    """The job's id. `again`: the token was known, nothing new was made. `warnings` say what will not render
    as the farm stands."""

    job: Natural
    again: bool = False
    note: str = ""
    warnings: tuple[str, ...] = ()


class Jobs(Request, frozen=True, kw_only=True):
    """A page of jobs; `next` is the cursor of the next one, None at the end."""

    jobs: tuple[JobView, ...]
    next: Natural | None = None


class Job(Request, frozen=True, kw_only=True):
    """One job with its layers."""

    job: JobView
    layers: tuple[LayerView, ...]


class Spec(Request, frozen=True, kw_only=True):
    """A job as it was submitted, with all that was changed since."""

    spec: JobSpec


class Frames(Request, frozen=True, kw_only=True):
    """A page of frames; `next` is the cursor of the next one, None at the end."""

    frames: tuple[FrameView, ...]
    next: Natural | None = None


class Attempts(Request, frozen=True, kw_only=True):
    """Attempts at a frame, oldest first."""

    attempts: tuple[AttemptView, ...]


class Slaves(Request, frozen=True, kw_only=True):
    """A page of slaves; `next` is the cursor of the next one, None at the end."""

    slaves: tuple[SlaveView, ...]
    next: Natural | None = None


class SlaveInfo(Request, frozen=True, kw_only=True):
    """One slave with what runs on it."""

    slave: SlaveView


class Reasons(Request, frozen=True, kw_only=True):
    """Why it waits, most telling first; empty means it does not wait."""

    reasons: tuple[Reason, ...]


class LogPlace(Request, frozen=True, kw_only=True):
    """Where a log lies: the attempt, its slave and that slave's control address; what the master kept."""

    key: AttemptKey
    number: Whole
    slave: str
    control: str = ""
    linked: bool = False
    over: bool = False
    kept: LogEnds | None = None


class LogPart(Request, frozen=True, kw_only=True):
    """Bytes of a log; `next` is where to read on, `over` says that no more will come."""

    data: bytes
    next: Natural
    size: Natural
    over: bool = False


class Farm(Request, frozen=True, kw_only=True):
    """Who this master is and how the farm does. `alarm` is a sentence, or empty; `lag` is the master's.

    `holdback`: after a restore from a backup. `clock`: a sentence where the wall clock is not believed.
    """

    farm: str
    epoch: Natural
    software: str
    started_at: Seconds
    jobs: Natural
    slaves: Natural
    slaves_linked: Natural
    cores: Amount
    cores_used: Amount
    frames_running: Natural
    frames_waiting: Natural
    alarm: str = ""
    lag: LoopLag | None = None
    holdback: HoldbackView | None = None
    clock: str = ""


class Watching(Request, frozen=True, kw_only=True):
    """The watch stands; its number comes with every Changed."""

    watch: Natural


class You(Request, frozen=True, kw_only=True):
    """Who the master takes the asker for."""

    name: str
    role: str
    account: str = ""
    peer: str = ""


class Ticket(Request, frozen=True, kw_only=True):
    """A ticket for a slave. `control` is where its port is, "" where it has none that could be reached;
    `pin` is of the certificate that the port shows, "" for a Unix socket, which takes no ticket."""

    slave: Natural
    name: str
    control: str = ""
    pin: str = ""
    ticket: bytes = b""


class TheLine(Request, frozen=True, kw_only=True):
    """A line to paste: the only time that its token is shown."""

    line: str
    expires_at: Seconds
    note: str = ""


class Accounts(Request, frozen=True, kw_only=True):
    """A page of accounts; `next` is the cursor of the next one, None at the end."""

    accounts: tuple[AccountView, ...]
    next: Natural | None = None


class Audit(Request, frozen=True, kw_only=True):
    """Rows of the audit; `next` is where to read on, now or later."""

    rows: tuple[AuditView, ...]
    next: Natural


class BackedUp(Request, frozen=True, kw_only=True):
    """The backup is whole and checked: a file of this name in `backups/`, with so many bytes."""

    name: str
    size: Natural


class Findings(Request, frozen=True, kw_only=True):
    """What was found, in the order in which it is told."""

    findings: tuple[Finding, ...]


class Changed(Message, frozen=True, kw_only=True):
    """Latest states of what changed since the last one; with `resync`, too much did: list anew."""

    watch: Natural
    jobs: tuple[JobView, ...] = ()
    jobs_gone: tuple[Natural, ...] = ()
    frames: tuple[FrameView, ...] = ()
    slaves: tuple[SlaveView, ...] = ()
    slaves_gone: tuple[Natural, ...] = ()
    resync: bool = False
