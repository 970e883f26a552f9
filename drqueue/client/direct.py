"""Links to slaves themselves: by Unix sockets on this machine, over TLS with tickets from everywhere else.

Rules: a port that cannot be reached within `CONNECT_S` is left alone for `AVOID_S`, and the master passes on
what is asked meanwhile. A ticket that a slave does not take is got anew once. The path of a Unix socket
counts only for whoever talks to the master over one: elsewhere it would be another machine's.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable

import trio

from drqueue.channel import LinkClosed
from drqueue.client.errors import NotFound, Refused
from drqueue.client.link import Link, dial
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import HandshakeRejected
from drqueue.proto.messages import Ticket
from drqueue.settings import Address, SettingsError, parse_address
from drqueue.tls import PinMismatch

CONNECT_S = 2.0
AVOID_S = 30.0
#: How a slave says that another ticket might open its port.
_RENEW = frozenset({"old-ticket", "bad-ticket"})

#: Gets the ticket for the slave of a name; True with it: the master was asked over a Unix socket.
GetTicket = Callable[[str], Awaitable[tuple[Ticket, bool]]]


class SlaveLinks:
    """Links to slaves, each kept as long as it stands."""

    def __init__(self, get_ticket: GetTicket, nursery: trio.Nursery) -> None:
        self._get_ticket = get_ticket
        self._nursery = nursery
        self._links: dict[str, Link] = {}
        self._dialling: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self._avoided: dict[str, float] = {}

    async def to(self, name: str) -> Link | None:
        """A link to the slave of that name; None where the master has to pass things on.

        Raises NotFound, and what asking the master raises.
        """
        for _ in range(2):
            try:
                ticket, local = await self._get_ticket(name)
            except NotFound:
                raise
            except Refused:
                # Whatever is wrong, the master says so of what is really asked.
                return None
            if ticket.control.startswith("unix:"):
                return await self.at(ticket.control) if local else None
            try:
                return await self._by_ticket(ticket)
            except HandshakeRejected as error:
                if error.code not in _RENEW:
                    return None
        return None

    async def at(self, control: str) -> Link | None:
        """A link to the Unix socket of a slave on this machine; None where none answers there."""
        if not control.startswith("unix:"):
            return None
        async with self._dialling[control]:
            link = self._standing(control)
            if link is None:
                address = Address("unix", path=control.removeprefix("unix:"))
                try:
                    link = await dial(address, "slave")
                except (OSError, LinkClosed, RemoteProtocolError, HandshakeRejected):
                    return None
                self._keep(control, link)
            return link

    async def _by_ticket(self, ticket: Ticket) -> Link | None:
        """A link over TLS; None where the port cannot be reached. Raises HandshakeRejected."""
        try:
            address = parse_address(ticket.control)
        except SettingsError:
            return None
        key = f"{ticket.control} {ticket.pin}"
        async with self._dialling[key]:
            link = self._standing(key)
            if link is not None or trio.current_time() < self._avoided.get(key, 0.0):
                return link
            try:
                with trio.fail_after(CONNECT_S):
                    link = await dial(address, "slave", pin=ticket.pin, ticket=ticket.ticket)
            except (OSError, trio.TooSlowError, LinkClosed, RemoteProtocolError, PinMismatch):
                self._avoided[key] = trio.current_time() + AVOID_S
                return None
            self._keep(key, link)
            return link

    def _standing(self, key: str) -> Link | None:
        link = self._links.get(key)
        if link is not None and link.over:
            del self._links[key]
            return None
        return link

    def _keep(self, key: str, link: Link) -> None:
        self._avoided.pop(key, None)
        self._links[key] = link
        self._nursery.start_soon(link.serve)
