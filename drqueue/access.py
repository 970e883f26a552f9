"""What a machine or a person keeps to get into farms: `access.json`, 0600, refused where others can read it.

Rules: the newest way in comes first; there is one for each farm's address. A slave keeps its own in its state
directory; a person's is `drqueue/access.json` in the XDG configuration folder, or where DRQUEUE_ACCESS says.
"""

import os
import stat
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from drqueue.settings import Address
from drqueue.statefile import StateError, read_json, write_json_atomic

ACCESS_FILE = "access.json"


class AccessError(Exception):
    """The file cannot be used; the text is one sentence that says what to do."""


class Access(Struct, frozen=True, kw_only=True):
    """A way into one farm. `certificate` and `key` (PEM) are for a slave's control port."""

    host: str
    port: int
    pin: str
    farm: str
    account: str
    name: str
    role: str
    secret: str
    certificate: str = ""
    key: str = ""

    @property
    def address(self) -> Address:
        """Where the farm's master is."""
        return Address("tcp", host=self.host, port=self.port)


def access_path(env: Mapping[str, str]) -> str:
    """Where a person's own file is."""
    if named := env.get("DRQUEUE_ACCESS"):
        return os.path.abspath(os.path.expanduser(named))
    base = env.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "drqueue", ACCESS_FILE)


def read_access(path: str) -> list[Access]:
    """All ways in, newest first; none where there is no file. Raises AccessError."""
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
        raise AccessError(f"{path} can be read by others, and it holds a secret: chmod 600 {path}")
    if info.st_uid not in (os.geteuid(), 0):
        raise AccessError(f"{path} belongs to somebody else (user id {info.st_uid}): it is not used")
    try:
        value = read_json(path)
        return [] if value is None else msgspec.convert(value["farms"], list[Access])
    except (StateError, KeyError, ValueError) as error:
        raise AccessError(f"{path} is damaged: {error}; log in, or join, again") from None


def write_access(path: str, ways: Sequence[Access]) -> None:
    """Write them, 0600, in a folder (0700) that is made where it is missing. Raises AccessError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_json_atomic(path, {"farms": msgspec.to_builtins(list(ways))})
    except (StateError, OSError) as error:
        raise AccessError(f"{path} cannot be written: {error}") from None


def with_access(ways: Sequence[Access], new: Access) -> list[Access]:
    """The ways in with a new one first, in place of those into the same farm or at the same address."""
    return [new, *(way for way in ways if way.farm != new.farm and way.address != new.address)]


def find_access(ways: Sequence[Access], address: Address) -> Access | None:
    """The way in at an address, None where there is none."""
    return next((way for way in ways if way.address == address), None)
