"""Messages that keep links alive and those between a slave and its master, one frozen struct each.

A message is a msgpack map: "t" names its type, the rest are its fields. What clients ask and are answered
is in `drqueue.proto.messages`, which offers these here, too.
"""

from typing import Literal

from msgspec import Struct

from drqueue.proto.ids import AttemptKey, Natural
from drqueue.proto.model import (
    Exit,
    LogEnds,
    MachineInfo,
    MachineLoad,
    Positive,
    RunOrder,
    Seconds,
    SlaveLimits,
)

PROTOCOL_OLDEST = 1
PROTOCOL_NEWEST = 1

Role = Literal["client", "slave"]
Peer = Literal["master", "slave"]


class Message(Struct, frozen=True, omit_defaults=True, tag_field="t", tag=str.lower):
    """Base of all messages."""


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
    pid: Natural = 0


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
