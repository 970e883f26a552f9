"""The slave's own port: clients enable, limit, ask and kill directly, whether the master is there or not.

Rules: on the Unix socket (0600, in the state directory) the kernel says who calls: root and the slave's own
user, as admins, nobody else. By TCP it is TLS and a ticket of the slave's master. TLS handshake and first
message together have HANDSHAKE_S; no more than UNKNOWN_MAX links have not shown a ticket yet, the oldest of
which makes room. At most MAX_CLIENTS links; one more is told to come back later. Whatever one client does,
others are served: one that says nothing for SILENCE_S is closed, one that does not read its answers is not
read either.
"""

import os
import pwd
import socket
import struct
from collections.abc import Callable
from itertools import count
from math import inf
from typing import TYPE_CHECKING

import trio

from drqueue import log
from drqueue.channel import HANDSHAKE_S, Channel, LinkClosed
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import PROTOCOL_NEWEST, Beat, Hi, Message, Welcome
from drqueue.proto.messages import Request
from drqueue.proto.roles import Who
from drqueue.slave.requests import NOT_ALLOWED, Requests
from drqueue.slave.ticketing import TicketError, Tickets

if TYPE_CHECKING:
    import ssl

SOCKET = "control.sock"
MAX_CLIENTS = 64
#: Links by TCP that have not shown a ticket yet; one of them keeps its place for so long at least.
UNKNOWN_MAX = 16
UNKNOWN_S = 1.0
#: A client says a word every 10 s; one that says none for so long is gone.
SILENCE_S = 30.0
#: A client with this many bytes of answers unsent is not read until it has fetched them.
LAG_BYTES = 1024 * 1024
#: Pause after the system had no descriptor or memory left for a new link.
EXHAUSTED_S = 1.0
#: What went wrong before trust is logged this often.
FAILURES_S = 60.0
_CREDENTIALS = struct.Struct("iII")


class Control:
    """Serves clients on a listening socket: a Unix one, or, with `tickets`, one for TLS.

    `context` gives the TLS context of the moment, `slave` the number of this slave, None while it has none.
    """

    def __init__(
        self,
        listener: socket.socket,
        requests: Requests,
        software: str,
        *,
        tickets: Tickets | None = None,
        context: "Callable[[], ssl.SSLContext] | None" = None,
        slave: Callable[[], int | None] = lambda: None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._requests = requests
        self._welcome = Welcome(version=PROTOCOL_NEWEST, peer="slave", software=software)
        self._tickets = tickets
        self._context = context
        self._slave = slave
        self._clients = 0
        self._numbers = count()
        self._unknown: dict[int, tuple[float, Channel]] = {}
        self._failures = _Failures()

    async def run(self) -> None:
        """Accept links until cancelled; the listening socket is closed then."""
        try:
            await self._accept()
        finally:
            self._listener.close()

    async def _accept(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._listener)
                try:
                    sock, _ = self._listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as error:
                    log.warning("a client's link was not taken", error=os.strerror(error.errno or 0))
                    await trio.sleep(EXHAUSTED_S)
                    continue
                channel = Channel(sock, "client")
                if self._tickets is not None and not self._room(channel, sock):
                    continue
                if self._tickets is None and self._clients >= MAX_CLIENTS:
                    channel.reject("busy", f"{MAX_CLIENTS} clients are linked already", retry=True)
                    continue
                self._clients += 1
                number = next(self._numbers)
                if self._tickets is not None:
                    self._unknown[number] = trio.current_time(), channel
                nursery.start_soon(self._serve, number, channel, sock)

    def _room(self, channel: Channel, sock: socket.socket) -> bool:
        """Whether there is a place for one more that is not known; it is closed where there is none."""
        if len(self._unknown) >= UNKNOWN_MAX:
            since, oldest = next(iter(self._unknown.values()))
            if trio.current_time() - since >= UNKNOWN_S:
                oldest.close("others waited")
                del self._unknown[next(iter(self._unknown))]
        if len(self._unknown) < UNKNOWN_MAX and self._clients < MAX_CLIENTS:
            return True
        # Without a word: a TLS handshake is what it may have come for.
        self._failures.note(_address(sock), "too many links at once")
        channel.close("too many links")
        return False

    async def _serve(self, number: int, channel: Channel, sock: socket.socket) -> None:
        try:
            async with channel:
                if self._tickets is None:
                    who = await self._by_credentials(channel, sock)
                else:
                    try:
                        who = await self._by_ticket(channel, _address(sock), self._tickets)
                    finally:
                        self._unknown.pop(number, None)
                if who is not None:
                    await self._converse(channel, who)
        except Exception as error:  # noqa: BLE001  (a bug met on one link must not take the slave down)
            log.error("a bug ended a client's link", exc=error)
        finally:
            self._clients -= 1
            if self._tickets is not None:
                self._tickets.closed(channel)

    # -- who it is ------------------------------------------------------------------------------------

    async def _by_credentials(self, channel: Channel, sock: socket.socket) -> Who | None:
        """Whoever is at the other end of a Unix socket, greeted; None where they are turned away."""
        uid: int = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[1]
        if uid not in (0, os.geteuid()):
            text = "this socket is for root and the slave's own user: ask through the master"
            channel.reject(NOT_ALLOWED, text, retry=False)
            self._failures.note(f"uid {uid}", "this user may not use the control socket")
            return None
        try:
            if await channel.answer(Answerer(self._welcome, {"client"})) is None:
                return None
        except LinkClosed:
            return None
        except RemoteProtocolError as error:
            log.warning("a client broke the protocol in the handshake", error=error)
            return None
        return Who(name=_login(uid), role="admin", peer=f"uid {uid}")

    async def _by_ticket(self, channel: Channel, address: str, tickets: Tickets) -> Who | None:
        """Whoever shows a ticket by TLS, greeted; None where they are turned away."""
        problem = f"no ticket within {HANDSHAKE_S:.0f} s"
        with trio.move_on_after(HANDSHAKE_S):
            try:
                return await self._hear_ticket(channel, address, tickets)
            except LinkClosed:
                problem = "gone before it showed a ticket"
            except RemoteProtocolError as error:
                problem = str(error)
            except TicketError as error:
                problem = str(error)
                channel.reject(error.code, problem, retry=True)
        self._failures.note(address, problem)
        return None

    async def _hear_ticket(self, channel: Channel, address: str, tickets: Tickets) -> Who | None:
        from drqueue.tls import TlsSession  # slaves that are not on the network have no such port

        assert self._context is not None
        await channel.secure(TlsSession(self._context(), server_side=True))
        message = await channel.first_message()
        answerer = Answerer(self._welcome, {"client"})
        if not isinstance(message, Hi) or message.role != "client":
            channel.greet(answerer, message)
            return None
        claim, key = tickets.check(message.ticket, self._slave())
        if channel.greet(answerer, message) is None:
            return None
        tickets.opened(
            channel,
            key,
            lambda: channel.reject("old-ticket", "tickets made before now are no longer good", retry=True),
        )
        return Who(name=claim.name, role=claim.role, account=claim.account, peer=address)

    # -- what they ask ----------------------------------------------------------------------------------

    async def _converse(self, channel: Channel, who: Who) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.pump)
            nursery.start_soon(channel.watch_silence, SILENCE_S)
            await self._read(channel, nursery, who)
            nursery.cancel_scope.cancel()

    async def _read(self, channel: Channel, nursery: trio.Nursery, who: Who) -> None:
        requests = self._requests.for_link(nursery, channel.send, who)
        try:
            while True:
                message: Message = await channel.receive()
                if isinstance(message, Request):
                    requests.handle(message)
                    await self._requests.wait_room()
                elif isinstance(message, Beat):
                    if message.echo:
                        channel.send(Beat())
                else:
                    raise RemoteProtocolError(f"a client does not say {type(message).__name__}")
                if channel.queued > LAG_BYTES:
                    await channel.wait_flushed(inf)
        except LinkClosed:
            return
        except RemoteProtocolError as error:
            log.warning("a client broke the protocol", error=error)


class _Failures:
    """Logs what went wrong before trust: the first at once, then once a minute, with how often."""

    def __init__(self) -> None:
        self._told_at = -inf
        self._more = 0

    def note(self, address: str, problem: str) -> None:
        now = trio.current_time()
        if now - self._told_at < FAILURES_S:
            self._more += 1
            return
        log.warning("a link to the control port was refused", peer=address, why=problem, others=self._more)
        self._told_at, self._more = now, 0


def _address(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0]).removeprefix("::ffff:")
    except OSError:
        return "?"


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
