"""What a daemon tells systemd (ready, alive, busy, leaving), and the sockets that systemd hands to it.

Rules of this file: standard library only; nothing here blocks. Without systemd every call does nothing.
"""

import os
import socket

#: Descriptors that systemd hands over begin here; nobody has that many of them.
_HANDED_FROM = 3
_HANDED_MOST = 64


def notify(*lines: str) -> bool:
    """Send assignments such as "READY=1" or "STATUS=4 slaves" in one datagram; False if nobody reads them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    name: str | bytes = "\0" + address[1:] if address[0] == "@" else address
    # A line break inside a value would start a forged assignment.
    message = "\n".join(" ".join(line.splitlines()) for line in lines)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(message.encode("utf-8", "backslashreplace"), name)
        except OSError:
            # A full or vanished socket is no reason to end; a missing watchdog ping is noticed over there.
            return False
    return True


def watchdog_interval() -> float | None:
    """Seconds between pings (half of what systemd allows), or None when no watchdog watches this process."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit()) or int(usec) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def handed_over() -> list[tuple[str, socket.socket]]:
    """The listening sockets that socket units opened for this process, each with its unit's name for it.

    They are the caller's from now on; a second call finds none. Raises OSError (one sentence) where something
    else than a listening socket was handed over.
    """
    given = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    count = given["LISTEN_FDS"]
    if given["LISTEN_PID"] != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    names = given["LISTEN_FDNAMES"].split(":")
    found: list[tuple[str, socket.socket]] = []
    try:
        found.extend(
            (names[number] if number < len(names) else "", _taken_over(_HANDED_FROM + number))
            for number in range(min(int(count), _HANDED_MOST))
        )
    except OSError:
        for _, sock in found:
            sock.close()
        raise
    return found


def _taken_over(descriptor: int) -> socket.socket:
    try:
        # What this process starts later must not hold it open.
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise OSError(f"descriptor {descriptor}, handed over by systemd, is no socket") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise OSError(f"descriptor {descriptor}, handed over by systemd, is no listening stream socket")
    return sock
