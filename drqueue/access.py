"""What a machine or a person keeps to get into farms: `access.json`, 0600, refused where others can read it.

Rules: the newest way in comes first; there is one for each farm's address. A slave keeps its own in its state
directory; a person's is `drqueue/access.json` in the XDG configuration folder, or where DRQUEUE_ACCESS says.
Whoever changes what stands there reads and writes it under its lock.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from drqueue.proto.lines import secret_hash
from drqueue.settings import Address
from drqueue.statefile import StateError, read_json, write_json_atomic

ACCESS_FILE = "access.json"


class AccessError(Exception):
    """The file cannot be used; the text is one sentence that says what to do."""


class Access(Struct, frozen=True, kw_only=True):
    """A way into one farm. `certificate` and `key` (PEM) are for a slave's control port.

    `line` is the hash of the token that it came by, "" where it came by none.
    """

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
    line: str = ""

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
        home = env.get("HOME") or os.path.expanduser("~")
        # A user that no database knows has no home: whatever folder this is, it is not theirs.
        base = os.path.join(home if os.path.isabs(home) else "/", ".config")
    return os.path.join(base, "drqueue", ACCESS_FILE)


def read_access(path: str) -> list[Access]:
    """All ways in, newest first; none where there is no file. Raises AccessError."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):
        raise AccessError(f"{path} is no ordinary file: it is not used; put the file itself there")
    if info.st_mode & 0o077:
        raise AccessError(f"{path} can be read by others, and it holds a secret: chmod 600 {path}")
    if info.st_uid not in (os.geteuid(), 0):
        raise AccessError(f"{path} belongs to somebody else (user id {info.st_uid}): it is not used")
    try:
        value = read_json(path)
        return [] if value is None else msgspec.convert(value["farms"], list[Access])
    except StateError as error:
        raise AccessError(f"{error}; then log in, or join, again") from None
    except (KeyError, ValueError) as error:
        raise AccessError(f"{path} is damaged: {error}; move it away, then log in, or join, again") from None


def write_access(path: str, ways: Sequence[Access]) -> None:
    """Write them, 0600, in a folder (0700) that is made where it is missing. Raises AccessError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_json_atomic(path, {"farms": msgspec.to_builtins(list(ways))})
    except StateError as error:
        raise AccessError(str(error)) from None
    except OSError as error:
        raise AccessError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def access_lock(path: str) -> Iterator[None]:
    """No other process that takes this lock changes the file until the end. Raises AccessError."""
    lock = f"{path}.lock"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AccessError(f"cannot write {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            # A home on a network disk may know no locks; two logins at once are rare.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise AccessError(f"cannot lock {path}: {error.strerror}") from None
        yield
    finally:
        os.close(fd)


def with_access(ways: Sequence[Access], new: Access) -> list[Access]:
    """The ways in with a new one first, in place of those into the same farm or at the same address."""
    return [new, *(way for way in ways if way.farm != new.farm and way.address != new.address)]


def came_by(ways: Sequence[Access], pin: str, token: str) -> Access | None:
    """The way in that the line of this pin and token opened, None where it opened none of them."""
    line = secret_hash(token)
    return next((way for way in ways if (way.pin, way.line) == (pin, line)), None)


def find_access(ways: Sequence[Access], address: Address) -> Access | None:
    """The way in at an address, None where there is none."""
    return next((way for way in ways if same_place(way.address, address)), None)


def same_place(one: Address, other: Address) -> bool:
    """Whether two addresses are one, however people write names and IPv6."""
    return one == other or (one.kind == other.kind == "tcp" and _place(one) == _place(other))


def _place(address: Address) -> tuple[str, int]:
    host = address.host.lower()
    if ":" in host:
        import ipaddress  # seldom needed, and slow to load

        with contextlib.suppress(ValueError):
            host = str(ipaddress.ip_address(host))
    return host.removesuffix("."), address.port
