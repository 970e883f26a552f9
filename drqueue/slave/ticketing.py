"""What a slave knows of tickets: the keys that its master gave it, and the master's clock.

Rules: the latest key and the one before it are good, of one farm only. With `only`, everything older than
that very key ends: the former key, and the links that it opened. The master's clock is reckoned from what it
said with a key and CLOCK_BOOTTIME, so that this machine's own wall clock does not matter.
"""

import time
from collections.abc import Callable, Hashable

from drqueue.proto import tickets
from drqueue.proto.link_messages import TicketKey
from drqueue.proto.tickets import Claim, TicketError

__all__ = ["Claim", "TicketError", "Tickets"]


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Tickets:
    """The keys of one slave, and the links that they opened."""

    def __init__(self, boottime: Callable[[], float] = _boottime) -> None:
        self._boottime = boottime
        self._keys: list[bytes] = []
        self._farm = ""
        self._master_now = 0.0
        self._heard_at: float | None = None
        self._opened: dict[Hashable, tuple[bytes, Callable[[], None]]] = {}

    def take(self, message: TicketKey, farm: str) -> None:
        """A key from the master of a farm; links that may no longer be are cut."""
        self._master_now, self._heard_at = message.now, self._boottime()
        if farm != self._farm or message.only:
            self._farm, self._keys = farm, [message.key]
            for key, cut in list(self._opened.values()):
                if key != message.key:
                    cut()
        elif self._keys[:1] != [message.key]:
            self._keys = [message.key, *self._keys[:1]]

    @property
    def now(self) -> float | None:
        """The master's clock, None where it was never heard."""
        if self._heard_at is None:
            return None
        return self._master_now + (self._boottime() - self._heard_at)

    def check(self, ticket: bytes, slave: int | None) -> tuple[Claim, bytes]:
        """What a ticket for this slave says, and the key that it was made with. Raises TicketError."""
        now = self.now
        if slave is None or now is None:
            raise TicketError("bad-ticket", "this slave has not met its master since it was started")
        for key in self._keys[1:]:
            try:
                return tickets.check(ticket, [key], slave, now), key
            except TicketError:
                continue  # the latest key says what is wrong with it
        return tickets.check(ticket, self._keys[:1], slave, now), self._keys[0]

    def opened(self, link: Hashable, key: bytes, cut: Callable[[], None]) -> None:
        """A link stands because of this key; `cut` ends it."""
        self._opened[link] = key, cut

    def closed(self, link: Hashable) -> None:
        """That link is gone."""
        self._opened.pop(link, None)
