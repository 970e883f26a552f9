"""Where links come in: limits before trust, for the master's Unix socket and its TLS port.

Rules: TLS handshake and first message together have `HANDSHAKE_S`; how much is taken until then is the
wire's business, who may wait here (TCP alone) the doorstep's. Whoever is over a limit waits unaccepted. Links
leave descriptors for the master's own files, without which it could not go on.
From the moment that `admit` has said yes nothing here touches a link any more. One task per listener runs
`accept`, one runs `tell`.
"""

import errno
import ipaddress
import itertools
import os
import resource
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn

import trio
from msgspec import Struct

from drqueue import log
from drqueue.channel import CLOSED_BY_PEER, HANDSHAKE_S, Channel, LinkClosed
from drqueue.master.doorstep import SILENT_S, Doorstep
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.link_messages import Message
from drqueue.tls import TlsSession

#: Links at once, where descriptors allow so many; far above what a farm has.
_LINKS_MOST = 20_000
#: Descriptors that are left for all else, but no more than half of them.
_RESERVED = 256
#: Of them, so many of one user of this machine (but root and the master's own) that have said nothing yet.
LOCAL_MOST = 256
#: Seconds for the master's own part: an account that is made waits for the disk.
JUDGING_S = 10.0
_GOODBYE_S = 2.0
_PAUSE_S = 0.1
#: Of the kernel's struct tcp_info: the connection's state is its first byte, and later comes how many
#: milliseconds ago the last data came. The state of a connection that the peer alone has closed.
_INFO_BYTES, _INFO_HEARD_AT = 56, 52
_CLOSE_WAIT = 8
#: Milliseconds that nobody stands in line where this side keeps up.
IN_LINE_MS = 1000
#: Links accepted before others have their turn.
_ACCEPTED_IN_A_ROW = 4


class Caller(Struct, frozen=True):
    """Where a link comes from: `address` is an IP address, or "uid 1000" on a Unix socket."""

    kind: Literal["unix", "tcp"]
    address: str
    uid: int = -1


Serve = Callable[[], Awaitable[None]]
#: Judges a first message, answers it through the channel (`greet`, `send` or `refuse`; it must not close)
#: and returns how the link is served: `nothing_more` where that was all, None where it was refused.
Admit = Callable[[Channel, Message, Caller], Awaitable[Serve | None]]
#: Hears of failures before trust: the address, what (the latest), how many.
Noticed = Callable[[str, str, int], None]


async def nothing_more() -> None:
    """How a link is served whose first message was all that it had to say."""


class Gate:
    """All links that come in. `context` (TLS) is needed where a listener is no Unix socket."""

    def __init__(self, admit: Admit, noticed: Noticed, context: ssl.SSLContext | None = None) -> None:
        self._admit = admit
        self._noticed = noticed
        self._context = context
        self._doorstep = Doorstep()
        self._waiting: dict[int, Channel] = {}
        self._numbers = itertools.count()
        #: Links on Unix sockets that have said nothing yet, by number, and how many each user has.
        self._uids: dict[int, int] = {}
        self._of_uid: Counter[int] = Counter()
        self._trusted = (0, os.geteuid())
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._allowed = max(descriptors - _RESERVED, descriptors // 2)
        self._open = 0
        self._left = trio.Event()
        self._failed_first = trio.Event()

    @property
    def most(self) -> int:
        """Links at once."""
        return min(_LINKS_MOST, self._allowed)

    async def accept(self, listener: socket.socket, links: trio.Nursery) -> NoReturn:
        """Take every link that comes; each is served in a task of `links`."""
        unix = listener.family == socket.AF_UNIX
        in_a_row = 0
        while True:
            if not in_a_row:
                await trio.lowlevel.wait_readable(listener)
            if not unix:
                await self._make_room()
            # A farm that comes back stands in line: one in each turn of a busy loop would take too long.
            in_a_row = (in_a_row + 1) % _ACCEPTED_IN_A_ROW
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                in_a_row = 0
                continue
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                # Out of descriptors: those in use come back when links close.
                log.warning("cannot accept a link", why=error)
                await trio.sleep(_PAUSE_S)
                continue
            if self._open >= self.most or (not unix and _gave_up(sock)):
                sock.close()
                continue
            caller = _local(sock) if unix else Caller("tcp", plain_address(address[0]))
            if not unix and not self._has_share(caller.address):
                self._note(caller, "too many links at once, after failures", counts=False)
                sock.close()
                continue
            if unix and caller.uid not in self._trusted:
                most = min(LOCAL_MOST, self._allowed // 4)
                if self._of_uid[caller.uid] >= most:
                    self._note(caller, f"more than {most} links that say nothing")
                    sock.close()
                    continue
                self._of_uid[caller.uid] += 1
            number = next(self._numbers)
            channel = Channel(sock, caller.address)
            if unix:
                self._uids[number] = caller.uid
            else:
                self._doorstep.came(number, caller.address, trio.current_time())
                self._waiting[number] = channel
            links.start_soon(self._link, number, channel, caller)

    async def tell(self) -> NoReturn:
        """Tell of failures that were only counted, once a minute for each address."""
        while True:
            for notice in self._doorstep.due(trio.current_time()):
                self._noticed(*notice)
            with trio.move_on_at(self._doorstep.due_at()):
                await self._failed_first.wait()
            self._failed_first = trio.Event()

    # -- places -----------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        """Return once there is a place."""
        while self._doorstep.full:
            now = self._listen()
            silent = self._doorstep.silent(now)
            if silent is not None:
                self._turn_out(silent)
                continue
            with trio.move_on_at(self._doorstep.silent_at()):
                await self._left.wait()

    def _has_share(self, address: str) -> bool:
        """Whether there is a place for this address, which one of its own silent links may have to leave."""
        now = trio.current_time()
        if not self._doorstep.crowded(address, now):
            return True
        silent = self._doorstep.silent(self._listen(), address)
        if silent is None:
            return False
        self._turn_out(silent)
        return True

    def _listen(self) -> float:
        """Bring the doorstep up to date with what came on the links; returns the time."""
        now = trio.current_time()
        for number, channel in self._waiting.items():
            # A busy master is no silent peer: what lies unread counts as said just now.
            self._doorstep.heard(number, now if channel.unread else channel.last_received)
        return now

    def _turn_out(self, number: int) -> None:
        self._waiting[number].close("silent while others waited")
        self._free(number)

    def _free(self, number: int) -> None:
        uid = self._uids.pop(number, None)
        if uid is not None and uid in self._of_uid:
            self._of_uid[uid] -= 1
            if not self._of_uid[uid]:
                del self._of_uid[uid]
        self._doorstep.left(number)
        self._waiting.pop(number, None)
        self._left.set()
        self._left = trio.Event()

    # -- one link ---------------------------------------------------------------------------------

    async def _link(self, number: int, channel: Channel, caller: Caller) -> None:
        self._open += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.pump)
                try:
                    await self._attend(number, channel, caller)
                finally:
                    channel.close()
        except Exception as error:  # noqa: BLE001  (a bug met on one link must not take the farm down)
            log.error("a bug ended a link", exc=error)
        finally:
            self._free(number)
            self._open -= 1

    async def _attend(self, number: int, channel: Channel, caller: Caller) -> None:
        came = trio.current_time()
        try:
            serve = await self._before_trust(number, channel, caller)
        except RemoteProtocolError as error:
            self._note(caller, str(error))
            return
        except LinkClosed as end:
            # Whoever soon went again took no place from others: perhaps it gave up on a slow master.
            self._note(caller, str(end), counts=trio.current_time() - came >= SILENT_S)
            return
        self._free(number)
        if serve is None:
            # Whoever refused it has told of it, and better.
            self._note(caller, "refused", told=True)
        else:
            try:
                await serve()
            except LinkClosed as end:
                log.debug("a link ended", peer=caller.address, why=end)
            except RemoteProtocolError as error:
                log.warning("a peer broke the protocol", peer=caller.address, error=error)
        await channel.wait_flushed(_GOODBYE_S)

    async def _before_trust(self, number: int, channel: Channel, caller: Caller) -> Serve | None:
        """TLS, the first message, the verdict. Raises LinkClosed, RemoteProtocolError."""
        message = None
        came = trio.current_time()
        with trio.move_on_after(HANDSHAKE_S):
            if caller.kind == "tcp":
                assert self._context is not None, "a TCP listener needs a TLS context"
                await channel.secure(TlsSession(self._context, server_side=True))
            try:
                message = await channel.first_message()
            except LinkClosed as end:
                looked = caller.kind == "tcp" and str(end) == CLOSED_BY_PEER
                if looked and trio.current_time() - came < SILENT_S:
                    # It came for the certificate alone: so does whoever joins without a line, or examines.
                    return nothing_more
                raise
        if message is None:
            raise RemoteProtocolError(f"did not say who it is within {HANDSHAKE_S:.0f} s")
        self._doorstep.judged(number)
        self._waiting.pop(number, None)
        with trio.move_on_after(JUDGING_S):
            return await self._admit(channel, message, caller)
        channel.refuse("busy", "the master is too busy to answer: try again", retry=True)
        return nothing_more

    def _note(self, caller: Caller, what: str, *, counts: bool = True, told: bool = False) -> None:
        log.debug("a link came to nothing", peer=caller.address, why=what)
        notice = self._doorstep.failed(caller.address, what, trio.current_time(), counts=counts, told=told)
        if notice is not None:
            self._noticed(*notice)
        if notice is not None or told:
            self._failed_first.set()


def plain_address(host: str) -> str:
    """An IP address as people write it: that of an IPv4 peer at an IPv6 socket as IPv4's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _gave_up(sock: socket.socket) -> bool:
    """Whether its peer went while it stood in line: where many do, nothing but their handshakes is done."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return True
    (heard_ms,) = struct.unpack_from("I", info, _INFO_HEARD_AT)
    return info[0] == _CLOSE_WAIT and bool(heard_ms >= IN_LINE_MS)


def _local(sock: socket.socket) -> Caller:
    """Who is at the other end of a Unix socket, as the kernel says."""
    _pid, uid, _gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Caller("unix", f"uid {uid}", uid)
