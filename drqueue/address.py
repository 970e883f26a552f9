"""Where masters are: addresses as people write them, and the places that are tried where none is named.

Rules: `localhost`, this machine's own names, and nothing at all mean the first that answers of the sockets on
this machine, then the port on it. Whatever is wrong with an address is said in one sentence.
"""

import os
import re
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from drqueue import thishost

DEFAULT_PORT: Final = 1234
SERVICE_SOCKET: Final = "/run/drqueue/master.sock"


class SettingsError(Exception):
    """A value that cannot be used; its text is one sentence for the person who set it."""


def default_state_dir(env: Mapping[str, str]) -> str:
    """The folder of a person's farm: DRQUEUE_STATE_DIR, else `drqueue` in the XDG state folder."""
    if named := env.get("DRQUEUE_STATE_DIR"):
        return os.path.abspath(os.path.expanduser(named))
    return _xdg_state_dir(env)


class Address(Struct, frozen=True):
    """Where a master listens: a Unix socket's path, or a host and a port."""

    kind: Literal["unix", "tcp"]
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def master_candidates(env: Mapping[str, str]) -> list[Address]:
    """Where DRQUEUE_MASTER says that the master is: the first of these that answers. Raises SettingsError."""
    return candidates(env.get("DRQUEUE_MASTER", ""), env)


def candidates(master: str, env: Mapping[str, str]) -> list[Address]:
    """The same for a given HOST[:PORT], unix:PATH or nothing; this machine, without a port, is localhost."""
    text = master.strip()
    if text and not thishost.is_named(text):
        return [parse_address(text)]
    folders = [os.path.join(default_state_dir(env), "master.sock")]
    folders += [os.path.join(_xdg_state_dir(env), "master.sock"), SERVICE_SOCKET]
    return [
        *(Address("unix", path=path) for path in dict.fromkeys(folders)),
        Address("tcp", host="127.0.0.1", port=DEFAULT_PORT),
    ]


def parse_address(text: str) -> Address:
    """Read `unix:PATH`, `HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address. Raises SettingsError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise SettingsError(
                f"no master at {text!r:.80}: a socket's path is wanted, as in unix:{SERVICE_SOCKET}"
            )
        return Address("unix", path=os.path.abspath(os.path.expanduser(path)))
    match = (
        re.fullmatch(r"\[(?P<host>[0-9A-Fa-f:.]+(?:%\w+)?)\](?::(?P<port>.*))?", text)
        or re.fullmatch(r"(?P<host>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?P<port>(?!))?", text)
        or re.fullmatch(r"(?P<host>[^\s:/@\[\]\0]+)(?::(?P<port>.*))?", text)
    )
    if match is None:
        raise SettingsError(f"no master at {text!r:.80}: it is written HOST, HOST:PORT or unix:PATH")
    port = str(DEFAULT_PORT) if match["port"] is None else match["port"]
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise SettingsError(
            f"no master at {text!r:.80}: a port is a number from 1 to 65535, not {port!r:.80}"
        )
    return Address("tcp", host=match["host"], port=int(port))


def _xdg_state_dir(env: Mapping[str, str]) -> str:
    # The XDG specification wants relative paths ignored.
    base = env.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(env.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "drqueue")
