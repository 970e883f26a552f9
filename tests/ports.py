"""Ports for daemons that tests start."""

import errno
import secrets
import socket

#: Below those that the kernel gives to links that are dialled: nobody can come in between who asked for none.
_FIRST, _LAST = 12_000, 31_999


def free_port() -> int:
    """A port of this machine that nobody has, and that nobody gets by chance."""
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST + 1)
        try:
            # All addresses, so that nobody listens at one of them alone.
            with socket.create_server(("0.0.0.0", port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
