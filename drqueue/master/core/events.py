"""What happens to the master. Times: `wall` is seconds since 1970, stamped by the shell, for people."""

from dataclasses import dataclass

from drqueue.proto.link_messages import Held, Hello, LimitsNow, LogKept, Report, Status
from drqueue.proto.messages import Request


@dataclass(frozen=True, slots=True)
class SlaveLinked:
    """A slave introduced itself on a fresh link, with all that it holds."""

    link: int
    hello: Hello
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class SlaveUnlinked:
    """A slave's link is gone; its last message came at `heard` (the core's clock)."""

    link: int
    heard: float


@dataclass(frozen=True, slots=True)
class SlaveSaid:
    """A message on a slave's link."""

    link: int
    message: Report | Status | LimitsNow | LogKept


@dataclass(frozen=True, slots=True)
class ClientAsked:
    """A request on a client's link, to be answered with the same `rq`."""

    client: int
    request: Request


@dataclass(frozen=True, slots=True)
class ClockRead:
    """What the wall clock says now: read at each start, then every few seconds."""

    wall: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """The master is about to stop in good order: leases are stretched to `grant_s`."""

    grant_s: float


Event = SlaveLinked | SlaveUnlinked | SlaveSaid | ClientAsked | ClockRead | Stopping
