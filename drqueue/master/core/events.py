"""What happens to the master. Times: `wall` is seconds since 1970, stamped by the shell, for people."""

from msgspec import Struct

from drqueue.proto.link_messages import (
    Acted,
    Held,
    Hello,
    Join,
    LimitsNow,
    LogKept,
    Report,
    SecretTaken,
    Status,
)
from drqueue.proto.messages import Request
from drqueue.proto.roles import Who


class SlaveLinked(Struct, frozen=True):
    """A slave introduced itself on a fresh link, with all that it holds; `who` is proven by the link."""

    link: int
    hello: Hello
    held: tuple[Held, ...]
    who: Who


class SlaveUnlinked(Struct, frozen=True):
    """A slave's link is gone; its last message came at `heard` (the core's clock)."""

    link: int
    heard: float


class SlaveSaid(Struct, frozen=True):
    """A message on a slave's link."""

    link: int
    message: Report | Status | LimitsNow | LogKept | Acted | SecretTaken


class ClientAsked(Struct, frozen=True):
    """A request on a client's link, to be answered with the same `rq`.

    `who` is proven by the link. `fresh` is a new random token, for requests that make a line.
    """

    client: int
    request: Request
    who: Who
    fresh: str = ""


class JoinAsked(Struct, frozen=True):
    """Somebody at `peer` asks for an account; `pin` is of the control certificate made for a slave."""

    link: int
    join: Join
    peer: str
    pin: str = ""


class SecretShown(Struct, frozen=True):
    """A link was opened with the secret of this hash, which is the account's next one."""

    account: str
    secret_hash: str


class Noticed(Struct, frozen=True):
    """The shell did or met something that the audit should know, `count` times.

    Done for somebody: outcome "done", a row of its own. Anything else is counted with what is the same.
    """

    who: Who
    what: str
    outcome: str
    text: str = ""
    count: int = 1


class ClockRead(Struct, frozen=True):
    """What the wall clock says now: read at each start, then every few seconds."""

    wall: float


class Stopping(Struct, frozen=True):
    """The master is about to stop in good order: leases are stretched to `grant_s`."""

    grant_s: float


Event = (
    SlaveLinked
    | SlaveUnlinked
    | SlaveSaid
    | ClientAsked
    | JoinAsked
    | SecretShown
    | Noticed
    | ClockRead
    | Stopping
)
