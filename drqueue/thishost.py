"""Whether a name, as people write it, is that of the machine that this runs on."""

import os
import re


def is_named(host: str) -> bool:
    """Whether `host`, a name or address without a port, means this machine, by its own names and addresses.

    The name service is asked only about what begins with the own name and a dot; that may take its time.
    """
    host, own = host.lower(), os.uname().nodename.lower()
    short = own.partition(".")[0]
    if host in ("localhost", own, short) or re.fullmatch(r"127(\.[0-9]{1,3}){3}|::1|\[::1\]", host):
        return True
    return bool(re.fullmatch(rf"{re.escape(short)}\.[a-z0-9._-]+", host)) and _resolves_here(host)


def _resolves_here(host: str) -> bool:
    import socket  # only who writes the own name with a domain pays for it

    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as probe:
            try:
                # Only a machine's own addresses can be bound; nothing is sent.
                probe.bind(address)
            except OSError:
                continue
            return True
    return False
