"""Messages that keep links alive and those between a slave and its master, one frozen struct each.

A message is a msgpack map: "t" names its type, the rest are its fields. What clients ask and are answered
is in `drqueue.proto.messages`, which offers these here, too.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from drqueue.proto.ids import AttemptKey, Natural
from drqueue.proto.model import (
    Exit,
    LogEnds,
    MachineInfo,
    MachineLoad,
    Offers,
    Positive,
    RunOrder,
    Seconds,
    SlaveLimits,
)

PROTOCOL_OLDEST = 1
PROTOCOL_NEWEST = 1

#: What dialled.
LinkRole = Literal["client", "slave"]
Peer = Literal["master", "slave"]

#: A SHA-256 in hex, as `drqueue.proto.lines.secret_hash` makes it.
SecretHash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Message(Struct, frozen=True, omit_defaults=True, tag_field="t", tag=str.lower):
    """Base of all messages."""


# --- handshake: the dialling side says Hi, the other answers Welcome or Rejected -------------------


class Hi(Message, frozen=True, kw_only=True):
    """First words of whoever dialled: the protocol versions it speaks and what it is.

    Over TLS it proves who it is: to a master with its account's `secret`, to a slave with a `ticket`.
    """

    oldest: Positive = PROTOCOL_OLDEST
    newest: Positive = PROTOCOL_NEWEST
    role: LinkRole
    software: str = ""
    name: str = ""
    secret: str = ""
    ticket: bytes = b""


class Join(Message, frozen=True, kw_only=True):
    """First words, in place of Hi, of whoever has no account yet: make me one for the secret of this hash.

    `token` is the line's; without one a node asks to be approved. `identity` and `fingerprint` are a slave's.
    Asking again with the same hash is free.
    """

    role: LinkRole
    secret_hash: SecretHash
    token: str = ""
    name: str = ""
    identity: str = ""
    fingerprint: str = ""
    software: str = ""


class Joined(Message, frozen=True, kw_only=True):
    """The account stands: its name, its role. A slave gets certificate and key (PEM) for its control port."""

    farm: str
    account: str
    name: str
    role: str
    certificate: str = ""
    key: str = ""


class Welcome(Message, frozen=True, kw_only=True):
    """The version agreed on, and who answers: a master (its farm and epoch) or a slave's control port.

    `life` is random for each start of a master: two of one epoch are two, of which one runs on a copy.
    """

    version: Positive
    peer: Peer = "master"
    software: str = ""
    farm: str = ""
    epoch: Natural = 0
    life: str = ""


class Rejected(Message, frozen=True, kw_only=True):
    """No. With `retry`, trying again later may help; without, it cannot."""

    code: str
    text: str
    retry: bool = False


# --- both ways on every link ----------------------------------------------------------------------


class Beat(Message, frozen=True):
    """Nothing new, but alive. With `echo`, the other side answers at once with a Beat.

    A slave says `at` (its own seconds since boot) when it said this; its master says, as `seen`, the latest
    of them that came: from there on the slave counts its leases, however late this is read. 0: not told.
    """

    echo: bool = False
    at: Seconds = 0
    seen: Seconds = 0


# --- slave to master ------------------------------------------------------------------------------


class Held(Struct, frozen=True, array_like=True):
    """One attempt a slave holds: still running (or about to), or ended and not yet noted."""

    key: AttemptKey
    ended: bool = False


class Hello(Message, frozen=True, kw_only=True):
    """A slave introduces itself with all it holds; with `more`, HelloMore parts follow. `at`: see Beat."""

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
    offers: Offers = Offers()
    at: Seconds = 0


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
    """News of attempts, in the order it happened; the `nth` on this link, from 1 (0: not counted).

    Where one is missing or comes again, the receiver cuts the link: the next Hello tells all anew. What tells
    of progress alone is not counted: it may be lost.
    """

    started: tuple[Started, ...] = ()
    exited: tuple[Exited, ...] = ()
    progressed: tuple[Progressed, ...] = ()
    nth: Natural = 0


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


class Acted(Message, frozen=True, kw_only=True):
    """Somebody did, or was refused, something at the slave's own port: for the master's audit."""

    at: Seconds
    who: str
    role: str
    peer: str
    what: str
    outcome: str = "done"


class SecretTaken(Message, frozen=True, kw_only=True):
    """Answer to NewSecret: from now on the slave shows the secret of this hash."""

    secret_hash: SecretHash


# --- master to slave ------------------------------------------------------------------------------


class Registered(Message, frozen=True, kw_only=True):
    """Answer to Hello: the slave's number and the name it goes by (a taken one got a suffix).

    `seen` is the Hello's `at`: whoever tells it tells it with every Beat from now on.
    """

    slave: Natural
    name: str
    beat_s: Seconds = 10
    silence_s: Seconds = 30
    seen: Seconds = 0


class Stop(Struct, frozen=True, array_like=True):
    """End this attempt: TERM, KILL after `grace_s` (None: the node's); `unstarted`: unless it has begun."""

    key: AttemptKey
    why: str
    grace_s: Seconds | None = None
    unstarted: bool = False


class Orders(Message, frozen=True, kw_only=True):
    """What to run, what to stop, which exits are noted (and may be forgotten), under this epoch.

    The `nth` on this link, from 1 (0: not counted); one that is missing or comes again ends the link.
    """

    epoch: Natural
    run: tuple[RunOrder, ...] = ()
    stop: tuple[Stop, ...] = ()
    noted: tuple[AttemptKey, ...] = ()
    nth: Natural = 0


class Grant(Message, frozen=True, kw_only=True):
    """The master goes away in good order: leases are at least this long until the next Welcome."""

    lease_s: Seconds


class TicketKey(Message, frozen=True, kw_only=True):
    """The key that tickets for this slave are made with from now on; `now` is the master's clock.

    The key before it stays good, but with `only`: then links that it opened are cut, too.
    """

    key: bytes
    now: Seconds
    only: bool = False


class NewSecret(Message, frozen=True, kw_only=True):
    """Make yourself a new secret, keep it, and say its hash."""
