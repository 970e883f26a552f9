"""What lets this slave into a farm: access.json, and joining.json while it still asks. Both are 0600.

Rules: a secret is on the disk before anybody hears its hash. In access.json a secret that was never accepted
stands before the one that was; that one goes once the new one is. What came with a cloned disk is another
machine's: it is set aside, and this one asks anew, with a secret of its own.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct, structs

from drqueue.access import ACCESS_FILE, Access, AccessError, read_access, with_access, write_access
from drqueue.address import Address
from drqueue.proto.lines import SECRET_BYTES, encoded, secret_hash
from drqueue.proto.link_messages import Joined
from drqueue.statefile import StateError, read_json, sync_dir, write_json_atomic

JOINING_FILE = "joining.json"
CLONED_FILE = ACCESS_FILE + ".cloned"
_ASKING, _WRITING = "joining.lock", "access.lock"


class Joining(Struct, frozen=True, kw_only=True):
    """A secret that its farm does not know yet. `token` is a line's; `refused` says that the farm said no."""

    host: str
    port: int
    pin: str
    secret: str
    token: str = ""
    refused: bool = False

    @property
    def address(self) -> Address:
        """Where the farm's master is."""
        return Address("tcp", host=self.host, port=self.port)


def new_secret() -> str:
    """A secret that nobody knows."""
    return encoded(secrets.token_bytes(SECRET_BYTES))


def access_file(state_dir: str) -> str:
    """The path of a slave's own access.json."""
    return os.path.join(state_dir, ACCESS_FILE)


def stamp(state_dir: str) -> tuple[int, ...]:
    """Something that differs whenever access.json was written anew; () where there is none."""
    try:
        info = os.stat(access_file(state_dir))
    except OSError:
        return ()
    return info.st_ino, info.st_size, info.st_mtime_ns


# -- joining --------------------------------------------------------------------------------------------


def read_joining(state_dir: str) -> Joining | None:
    """What is asked for, None for nothing; raises AccessError."""
    path = os.path.join(state_dir, JOINING_FILE)
    try:
        value = read_json(path)
        return None if value is None else msgspec.convert(value, Joining)
    except StateError as error:
        raise AccessError(f"{error}; then join again") from None
    except ValueError as error:  # also of text that is no Unicode
        raise AccessError(f"{path} is damaged: {error}; delete it, and join again") from None


def write_joining(state_dir: str, joining: Joining) -> None:
    """Keep what is asked for; raises AccessError."""
    try:
        write_json_atomic(os.path.join(state_dir, JOINING_FILE), msgspec.to_builtins(joining))
    except StateError as error:
        raise AccessError(str(error)) from None


def drop_joining(state_dir: str) -> None:
    """Nothing is asked for any more; raises AccessError."""
    path = os.path.join(state_dir, JOINING_FILE)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AccessError(f"cannot delete {path}: {error.strerror}") from None


def keep_joined(state_dir: str, joining: Joining, joined: Joined) -> Access:
    """Keep the way in that was given, and ask no more. Raises AccessError."""
    way = Access(
        host=joining.host,
        port=joining.port,
        pin=joining.pin,
        farm=joined.farm,
        account=joined.account,
        name=joined.name,
        role=joined.role,
        secret=joining.secret,
        certificate=joined.certificate,
        key=joined.key,
        line=secret_hash(joining.token) if joining.token else "",
    )
    path = access_file(state_dir)
    with _writing(state_dir):
        try:
            former = read_access(path)
        except AccessError:
            # It could not be used, and what replaces it can.
            former = []
        write_access(path, with_access(former, way))
    drop_joining(state_dir)
    return way


@contextlib.contextmanager
def joining_lock(state_dir: str) -> Iterator[bool]:
    """Whether nobody else (the daemon, or the command) is asking now; nobody else will, until the end.

    Raises AccessError.
    """
    fd = _open_lock(state_dir, _ASKING)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


@contextlib.contextmanager
def _writing(state_dir: str) -> Iterator[None]:
    """Nobody else changes access.json until the end; others do it within milliseconds. Raises AccessError."""
    fd = _open_lock(state_dir, _WRITING)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _open_lock(state_dir: str, name: str) -> int:
    path = os.path.join(state_dir, name)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AccessError(f"cannot use {path}: {error.strerror}") from None


# -- rotating ---------------------------------------------------------------------------------------------


def rotate(state_dir: str, used: Access) -> str:
    """Keep a new secret before the one that opened the link; the new one's hash. Raises AccessError.

    A new one that was kept earlier and was not accepted since is as good: its hash may have been told.
    """
    path = access_file(state_dir)
    with _writing(state_dir):
        ways = read_access(path)
        newest = newest_of(ways, used)
        if newest is None:
            raise AccessError("the farm that asks for a new secret is no longer in access.json")
        if newest.secret == used.secret:
            newest = structs.replace(used, secret=new_secret())
            at = ways.index(next(way for way in ways if same_door(way, used)))
            write_access(path, [*ways[:at], newest, *ways[at:]])
    return secret_hash(newest.secret)


def accepted(state_dir: str, used: Access) -> str:
    """This secret opened a link: those after it have had their day. Raises AccessError.

    Where a newer one was kept that may not have been told in time: its hash, to be told again; else "".
    """
    path = access_file(state_dir)
    with _writing(state_dir):
        ways = read_access(path)
        doors = [way for way in ways if same_door(way, used)]
        at = next((n for n, way in enumerate(doors) if way.secret == used.secret), None)
        if at is None:
            return ""
        spent = doors[at + 1 :]
        if spent:
            write_access(path, [way for way in ways if way not in spent])
    return "" if at == 0 else secret_hash(doors[0].secret)


def newest_of(ways: Sequence[Access], used: Access) -> Access | None:
    """The first way in through the same door."""
    return next((way for way in ways if same_door(way, used)), None)


def same_door(way: Access, other: Access) -> bool:
    """Whether two ways lead to the same master by the same account."""
    return (way.address, way.account) == (other.address, other.account)


# -- cloned disks -----------------------------------------------------------------------------------------


def set_aside_cloned(state_dir: str) -> None:
    """Give up what another machine got in by, and ask anew. Done twice, it is done. Raises StateError."""
    path = access_file(state_dir)
    try:
        ways = read_access(path)
    except AccessError:
        # Whatever it says, it is not this machine's.
        ways = []
    try:
        asked = read_joining(state_dir)
    except AccessError:
        asked = None
    fresh: Joining | None = None
    if ways:
        way = ways[0]
        fresh = Joining(host=way.host, port=way.port, pin=way.pin, secret=new_secret())
    elif asked is not None:
        fresh = structs.replace(asked, secret=new_secret(), refused=False)
    try:
        if fresh is not None:
            write_joining(state_dir, fresh)
        if os.path.lexists(path):
            os.rename(path, os.path.join(state_dir, CLONED_FILE))
            sync_dir(state_dir)
    except AccessError as error:
        raise StateError(str(error)) from None
    except OSError as error:
        raise StateError(f"cannot set {path} aside: {error.strerror}") from error
