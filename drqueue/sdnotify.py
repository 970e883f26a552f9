"""What a daemon tells systemd: ready, alive, busy, leaving. Without systemd every call does nothing.

Rules of this file: standard library only; nothing here blocks and nothing here can end a daemon.
"""

import os
import socket


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
