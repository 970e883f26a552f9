"""Every message, one frozen struct each, grouped by the link it travels on.

A message is a msgpack map: "t" names its type, the rest are its fields. Every request has `rq`, a
number chosen by the asker; its answer carries the same. The comment above each group says who
sends it; `docs/protocol.md` repeats it for people, and a test compares the two.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from drqueue.proto.ids import AttemptKey, Natural
from drqueue.proto.model import (
    Exit,
    JobChange,
    JobSpec,
    LimitsChange,
    LogEnds,
    MachineInfo,
    MachineLoad,
    Positive,
    RunOrder,
    Seconds,
    SlaveLimits,
    Whole,
)
from drqueue.proto.views import AttemptView, FrameView, JobView, LayerView, Reason, SlaveView

PROTOCOL_OLDEST = 1
PROTOCOL_NEWEST = 1

Role = Literal["client", "slave"]
Peer = Literal["master", "slave"]
JobVerbName = Literal["stop", "hard-stop", "continue", "rerun", "delete"]
FrameVerbName = Literal["kill", "requeue", "finish"]
SlaveVerbName = Literal["forget", "declare-dead"]
Token = Annotated[str, Meta(min_length=8, max_length=64)]


class Message(Struct, frozen=True, omit_defaults=True, tag_field="t", tag=str.lower):
    """Base of all messages."""


class Request(Message, frozen=True, kw_only=True):
    """Base of what is asked; `rq` is chosen by the asker, unique among its open requests."""

    rq: Natural


# --- handshake: the dialling side says Hi, the other answers Welcome or Rejected -------------------


class Hi(Message, frozen=True, kw_only=True):
    """First words of whoever dialled: the protocol versions it speaks and what it is."""

    oldest: Positive = PROTOCOL_OLDEST
    newest: Positive = PROTOCOL_NEWEST
    role: Role
    software: str = ""
    name: str = ""


class Welcome(Message, frozen=True, kw_only=True):
    """The version agreed on, and who answers: a master (its farm and epoch) or a slave's control port."""

    version: Positive
    peer: Peer = "master"
    software: str = ""
    farm: str = ""
    epoch: Natural = 0


class Rejected(Message, frozen=True, kw_only=True):
    """No. With `retry`, trying again later may help; without, it cannot."""

    code: str
    text: str
    retry: bool = False


# --- both ways on every link ----------------------------------------------------------------------


class Beat(Message, frozen=True):
    """Nothing new, but alive. With `echo`, the other side answers at once with a plain Beat."""

    echo: bool = False


# --- slave to master ------------------------------------------------------------------------------


class Held(Struct, frozen=True, array_like=True):
    """One attempt a slave holds: still running (or about to), or ended and not yet noted."""

    key: AttemptKey
    ended: bool = False


class Hello(Message, frozen=True, kw_only=True):
    """A slave introduces itself with all it holds; with `more`, HelloMore parts follow."""

    identity: str
    name: str
    fingerprint: str = ""
    machine: MachineInfo
    limits: SlaveLimits
    cores: Positive
    memory_mb: Natural
    control: str = ""
    held: tuple[Held, ...] = ()
    more: bool = False


class HelloMore(Message, frozen=True, kw_only=True):
    """Further attempts held; the last part has no `more`."""

    held: tuple[Held, ...] = ()
    more: bool = False


class Started(Struct, frozen=True, array_like=True):
    """An attempt's process runs since `at` (the slave's wall clock)."""

    key: AttemptKey
    at: Seconds


class Exited(Struct, frozen=True, array_like=True):
    """An attempt is over; repeated on every new link until Noted."""

    key: AttemptKey
    exit: Exit


class Progressed(Struct, frozen=True, array_like=True):
    """How far an attempt says it is: `done` from 0 to 1, and its latest word."""

    key: AttemptKey
    done: Seconds
    activity: str = ""


class Report(Message, frozen=True, kw_only=True):
    """News of attempts, in the order it happened."""

    started: tuple[Started, ...] = ()
    exited: tuple[Exited, ...] = ()
    progressed: tuple[Progressed, ...] = ()


class LogKept(Message, frozen=True, kw_only=True):
    """The ends of a finished attempt's log, for the master to keep."""

    key: AttemptKey
    ends: LogEnds


class Status(Message, frozen=True, kw_only=True):
    """How busy the machine is; at a calm rate."""

    load: MachineLoad


class LimitsNow(Message, frozen=True, kw_only=True):
    """The slave's limits, whenever they changed."""

    limits: SlaveLimits


# --- master to slave ------------------------------------------------------------------------------


class Registered(Message, frozen=True, kw_only=True):
    """Answer to Hello: the slave's number and the name it goes by (a taken one got a suffix)."""

    slave: Natural
    name: str
    beat_s: Seconds = 10
    silence_s: Seconds = 30


class Stop(Struct, frozen=True, array_like=True):
    """End this attempt: TERM, KILL after `grace_s` (None: the node's); `unstarted`: unless it has begun."""

    key: AttemptKey
    why: str
    grace_s: Seconds | None = None
    unstarted: bool = False


class Orders(Message, frozen=True, kw_only=True):
    """What to run, what to stop, which exits are noted (and may be forgotten), under this epoch."""

    epoch: Natural
    run: tuple[RunOrder, ...] = ()
    stop: tuple[Stop, ...] = ()
    noted: tuple[AttemptKey, ...] = ()


class Grant(Message, frozen=True, kw_only=True):
    """The master goes away in good order: leases are at least this long until the next Welcome."""

    lease_s: Seconds


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


class GetSlave(Request, frozen=True, kw_only=True):
    """One slave with what runs on it."""

    slave: str = ""


# --- client to master -------------------------------------------------------------------------------


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
    """kill, requeue (with `now`: killing a running one) or finish frames, named by a frame range."""

    job: Natural
    layer: str = ""
    frames: str
    verb: FrameVerbName
    now: bool = False


class ChangeJob(Request, frozen=True, kw_only=True):
    """Change a live job."""

    job: Natural
    change: JobChange


class SlaveVerb(Request, frozen=True, kw_only=True):
    """forget a slave that is gone, or declare it dead so that its frames go elsewhere at once."""

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
    """The job's id. `again`: the token was known, nothing new was made."""

    job: Natural
    again: bool = False
    note: str = ""


class Jobs(Request, frozen=True, kw_only=True):
    """A page of jobs; `next` is the cursor of the next one, None at the end."""

    jobs: tuple[JobView, ...]
    next: Natural | None = None


class Job(Request, frozen=True, kw_only=True):
    """One job with its layers."""

    job: JobView
    layers: tuple[LayerView, ...]


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
    """Who this master is and how the farm does. `alarm` is a sentence, or empty."""

    farm: str
    epoch: Natural
    software: str
    started_at: Seconds
    jobs: Natural
    slaves: Natural
    slaves_linked: Natural
    cores: Natural
    cores_used: Natural
    frames_running: Natural
    frames_waiting: Natural
    alarm: str = ""


class Watching(Request, frozen=True, kw_only=True):
    """The watch stands; its number comes with every Changed."""

    watch: Natural


class Changed(Message, frozen=True, kw_only=True):
    """Latest states of what changed since the last one; with `resync`, too much did: list anew."""

    watch: Natural
    jobs: tuple[JobView, ...] = ()
    jobs_gone: tuple[Natural, ...] = ()
    frames: tuple[FrameView, ...] = ()
    slaves: tuple[SlaveView, ...] = ()
    slaves_gone: tuple[Natural, ...] = ()
    resync: bool = False


def _all_messages() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    queue: list[type[Message]] = [Message]
    while queue:
        cls = queue.pop()
        for sub in cls.__subclasses__():
            queue.append(sub)
            if sub is not Request:
                found[str(sub.__struct_config__.tag)] = sub
    return found


#: Every message by its tag on the wire.
BY_TAG: dict[str, type[Message]] = _all_messages()
