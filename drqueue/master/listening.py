"""Where the master listens, and by which address others reach it.

Rules: a Unix socket always, opened by systemd's socket unit or here; what systemd opened is neither bound nor
removed here. The network only where it was asked for. What is bound here stands with its mode and options
before anybody can connect.
"""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from drqueue import sdnotify
from drqueue.address import Address, SettingsError, parse_address
from drqueue.settings import MasterSettings
from drqueue.unixpath import bind_unix

#: Links that the kernel holds until they are accepted: a whole farm that comes back at once.
_BACKLOG = 4096
#: Addresses that belong to nobody: asked which way leads there, the kernel names the own address on it.
_NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_WILDCARDS = ("0.0.0.0", "::")


@contextmanager
def listeners(settings: MasterSettings) -> Iterator[list[socket.socket]]:
    """The listening sockets, Unix first; closed at the end, and the own socket file removed.

    Raises SettingsError, and OSError where a place is taken.
    """
    with ExitStack() as stack:
        handed = [stack.enter_context(sock) for _, sock in sdnotify.handed_over()]
        opened = [sock for sock in handed if sock.family == socket.AF_UNIX]
        if not opened:
            opened = [stack.enter_context(bind_unix(settings.socket, settings.socket_mode))]
            stack.callback(_unlink, settings.socket)
        network = [sock for sock in handed if sock.family != socket.AF_UNIX]
        if settings.listen and not network:
            network = [stack.enter_context(sock) for sock in _bind_tcp(listen_address(settings))]
        for sock in (*opened, *network):
            sock.setblocking(False)
        yield [*opened, *network]


def place(sock: socket.socket) -> str:
    """Where a socket listens, as printed: unix:PATH or HOST:PORT."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return str(Address("unix", path=os.fsdecode(name)))
    return str(Address("tcp", host=name[0], port=name[1]))


def listen_address(settings: MasterSettings) -> Address:
    """The setting `listen`, read. Raises SettingsError."""
    return _read("listen must be HOST:PORT, as in 0.0.0.0:1234", settings.listen)


def _read(how: str, text: str) -> Address:
    try:
        address = parse_address(text)
    except SettingsError as error:
        # Written for those who look for a master, but for this.
        port = ": a port is a number from 1 to 65535" if "a port is" in str(error) else ""
        raise SettingsError(f"{how}, not {text!r}{port}") from None
    if address.kind != "tcp":
        raise SettingsError(f"{how}, not {text!r}")
    return address


def reached_at(settings: MasterSettings, opened: Sequence[socket.socket]) -> Address:
    """The address for others: as set, else what it listens at, else this machine's own; port 0: by none."""
    network = [sock.getsockname() for sock in opened if sock.family != socket.AF_UNIX]
    port: int = network[0][1] if network else 0
    if settings.address:
        named = _read("address must be HOST or HOST:PORT, as others dial it", settings.address)
        # Port forwarding has another port outside; who names none means the one that it listens at.
        said_port = settings.address != named.host and settings.address.endswith(f":{named.port}")
        return Address("tcp", host=named.host, port=named.port if said_port and network else port)
    if network and network[0][0] not in _WILDCARDS:
        # By its name, where it was given one: certificates are pinned, so no name has to be proven.
        asked = listen_address(settings).host if settings.listen else network[0][0]
        return Address("tcp", host=asked, port=port)
    return Address("tcp", host=_own_address(), port=port)


def other_addresses(
    settings: MasterSettings, opened: Sequence[socket.socket], reached: Address
) -> tuple[str, ...]:
    """Where `reached_at` had to take one of several addresses of this machine: the others of its family."""
    network = [sock.getsockname()[0] for sock in opened if sock.family != socket.AF_UNIX]
    if settings.address or not network or network[0] not in _WILDCARDS:
        return ()
    family = socket.AF_INET6 if ":" in reached.host else socket.AF_INET
    return tuple(host for host in dict.fromkeys(_addresses(family)) if host != reached.host)


def _own_address() -> str:
    """This machine's address on its way out, else that of any interface, else its name; sends nothing."""
    for family, nowhere in _NOWHERE:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((nowhere, 9))
            return str(probe.getsockname()[0])
    for wanted, _ in _NOWHERE:
        for address in _addresses(wanted):
            return address
    return os.uname().nodename


def _addresses(family: socket.AddressFamily) -> Iterator[str]:
    """This machine's addresses of a family that others may reach."""
    import psutil  # only a master that was not told its address pays for it

    up = psutil.net_if_stats()
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        for found in addresses:
            if found.family == family and name in up and up[name].isup and _reachable(found.address):
                yield str(found.address)


def _reachable(address: str) -> bool:
    return not (address.startswith(("127.", "169.254.", "fe80:")) or address == "::1")


def _bind_tcp(address: Address) -> list[socket.socket]:
    with ExitStack() as stack:
        opened: list[socket.socket] = []
        missing: OSError | None = None
        try:
            found = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, number, _, where in dict.fromkeys(found):
                try:
                    opened.append(stack.enter_context(_bound(family, kind, number, where)))
                except OSError as error:
                    # A name may stand for addresses of a family that this machine does without.
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    missing = error
            if missing is not None and not opened:
                raise missing
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "another program listens there already" if taken else error.strerror or str(error)
            raise OSError(f"cannot listen at {address}: {why}") from error
        except UnicodeError:
            raise OSError(f"cannot listen at {address}: this is no name of a host") from None
        stack.pop_all()
        return opened


def _bound(family: int, kind: int, number: int, where: object) -> socket.socket:
    sock = socket.socket(family, kind, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] is everything, of IPv4 too, whatever the machine is set to.
            everything = isinstance(where, tuple) and where[0] == "::"
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not everything))
        sock.bind(where)  # type: ignore[arg-type]
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _unlink(path: str) -> None:
    # Somebody may have tidied up; there is nothing left to do then.
    with suppress(FileNotFoundError):
        os.unlink(path)
