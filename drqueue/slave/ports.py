"""The slave's control port on the network: when it is opened, where, and how others are told.

Rules: there is none before the slave joined, for then it has neither certificate nor anybody who makes
tickets. It listens where the settings say, else at port 2345, else at any that is free, before the master is
told. The address told is that of this machine's end of the link to the master.
"""

import errno
import socket
from typing import TYPE_CHECKING

import trio

from drqueue import log
from drqueue.access import Access
from drqueue.address import Address, SettingsError, parse_address
from drqueue.slave.control import Control
from drqueue.slave.requests import Requests
from drqueue.slave.ticketing import Tickets

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

PORT = 2345
_BACKLOG = 128
_WILDCARDS = ("0.0.0.0", "::")


class NetworkPort:
    """One slave's TLS port. `listen` is the setting, `slave` gives this slave's number."""

    def __init__(
        self,
        listen: str,
        requests: Requests,
        software: str,
        tickets: Tickets,
        slave: "Callable[[], int | None]",
    ) -> None:
        self._listen = listen
        self._requests = requests
        self._software = software
        self._tickets = tickets
        self._slave = slave
        self._listener: socket.socket | None = None
        self._port = 0
        self._shown = ("", "")
        self._context: ssl.SSLContext | None = None
        self._opened = trio.Event()
        self._said = ""

    async def run(self) -> None:
        """Serve clients once the port is open, until cancelled."""
        await self._opened.wait()
        assert self._listener is not None
        control = Control(
            self._listener,
            self._requests,
            self._software,
            tickets=self._tickets,
            context=self._current,
            slave=self._slave,
        )
        await control.run()

    def address(self, access: Access | None, own_host: str) -> str:
        """Where clients reach it, HOST:PORT, opened now if it was not; "" where there is none."""
        if access is None or not access.certificate or not own_host or not self._open(access):
            return ""
        host = own_host.removeprefix("::ffff:")
        named = parse_address(self._listen).host if self._listen else ""
        if named and named not in _WILDCARDS:
            host = named
        return str(Address("tcp", host=host, port=self._port))

    def _open(self, access: Access) -> bool:
        try:
            if self._shown != (access.certificate, access.key):
                from drqueue.tls import server_context_from  # only a slave that joined needs it

                self._context = server_context_from(access.certificate, access.key)
                self._shown = access.certificate, access.key
            if self._listener is None:
                self._listener = self._bind()
                self._port = self._listener.getsockname()[1]
                self._opened.set()
                log.event("clients may come with tickets", port=self._port)
        except (OSError, ValueError, SettingsError) as error:
            text = str((isinstance(error, OSError) and error.strerror) or error)
            if text != self._said:
                log.error("there is no control port on the network", why=text)
            self._said = text
            return False
        self._said = ""
        return True

    def _current(self) -> "ssl.SSLContext":
        assert self._context is not None
        return self._context

    def _bind(self) -> socket.socket:
        """Raises OSError, SettingsError."""
        if self._listen:
            address = parse_address(self._listen)
            if address.kind != "tcp":
                raise SettingsError(f"control_listen is a HOST:PORT, not {self._listen!r}")
            try:
                return _bound(address.host, address.port)
            except OSError as error:
                text = f"cannot listen at {address}: {error.strerror or error}"
                raise OSError(error.errno, text) from error
        # Both families, so that it is reached by whichever address the master sees.
        host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
        try:
            return _bound(host, PORT)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            return _bound(host, 0)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, number, _, where = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
