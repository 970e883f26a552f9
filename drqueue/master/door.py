"""Who is at the other end of a link: judged from its first words and from how it came.

Rules: on a Unix socket the kernel says who called, and nothing that the caller says counts; everywhere else a
secret does. Who may come in at all is decided here, what they may do is not. No secret is ever logged.
"""

import pwd
import socket
import struct
from collections.abc import Mapping, Sequence

from drqueue.proto.roles import PEOPLE, Role, Who

_CREDENTIALS = struct.Struct("iII")


def peer_uid(sock: socket.socket) -> int:
    """The user id of whoever dialled this Unix socket, as the kernel noted it."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


def login_name(uid: int) -> str:
    """The login name of a user id, "uid N" without an entry. May ask a name service, and wait for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def local_roles(entries: Sequence[str]) -> Mapping[str, Role]:
    """The setting `local_roles` as a table of login names and user ids."""
    roles: dict[str, Role] = {}
    for entry in entries:
        name, _, role = entry.partition("=")
        roles[name] = next(known for known in (*PEOPLE, "node") if known == role)
    return roles


def local_who(uid: int, name: str, own_uid: int, roles: Mapping[str, Role]) -> Who:
    """Somebody on a Unix socket: root and the master's own user are admins, others what the setting says."""
    role: Role = roles.get(name) or roles.get(str(uid)) or "artist"
    if uid in (0, own_uid):
        role = "admin"
    return Who(name=name, role=role, peer=f"uid {uid}")
