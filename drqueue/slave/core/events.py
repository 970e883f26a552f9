"""What the slave's core hears of. PURE: plain data."""

from msgspec import Struct

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Orders
from drqueue.proto.messages import Request
from drqueue.slave.core.processes import LaunchFailed, ProcessEnded, ProcessStarted
from drqueue.slave.core.records import Before


class Linked(Struct, frozen=True):
    """A master answered; `link` numbers this daemon's links. `life`: which start of it this is, if told."""

    link: int
    farm: str
    epoch: int
    life: str = ""


class Unlinked(Struct, frozen=True):
    """That link is gone."""

    link: int


class RegisteredAs(Struct, frozen=True):
    """The master knows what this slave holds: news may go out. `seen` as in Heard."""

    slave: int
    name: str
    seen: float = 0.0


class Heard(Struct, frozen=True):
    """The master said something that is none of the other events.

    `seen` is when the latest of this slave's words that came was said, in seconds since boot; 0: not told.
    """

    seen: float = 0.0


class OrdersCame(Struct, frozen=True):
    """What the master wants run, stopped and forgotten."""

    orders: Orders


class Granted(Struct, frozen=True):
    """The master goes away: leases are at least this long until it is back."""

    lease_s: float


class OutputsSeen(Struct, frozen=True):
    """Answer to Prepare: the outputs as they lie there before the start."""

    key: AttemptKey
    before: Before


class Verified(Struct, frozen=True):
    """Answer to Verify: what is wrong with the outputs, "" for nothing."""

    key: AttemptKey
    problem: str


class Asked(Struct, frozen=True):
    """SetLimits or KillAttempts came in; `asker` is handed back with the answer.

    `only_of`: they may touch what they submitted themselves, and nothing else.
    """

    asker: object
    request: Request
    only_of: str | None = None


class AutoEnableDue(Struct, frozen=True):
    """The time of day has come at which a disabled slave offers itself again."""


class Ping(Struct, frozen=True):
    """Is the core alive? Answered by Alive."""


class LeaveAsked(Struct, frozen=True):
    """The daemon is to end and take its frames with it."""


Event = (
    Linked
    | Unlinked
    | RegisteredAs
    | Heard
    | OrdersCame
    | Granted
    | OutputsSeen
    | Verified
    | Asked
    | AutoEnableDue
    | LeaveAsked
    | Ping
    | ProcessStarted
    | LaunchFailed
    | ProcessEnded
)
