"""Getting a login for a farm by a line, and giving it up: what stands in `access.json`.

Rules: the secret is on the disk before the master hears of it, so that the same line may be used again after
a link that broke: it then is the same request, and free. At that time the master gets its hash only.
"""

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence

from msgspec import structs

from drqueue.access import (
    Access,
    AccessError,
    access_lock,
    access_path,
    came_by,
    find_access,
    read_access,
    with_access,
    write_access,
)
from drqueue.channel import LinkClosed
from drqueue.client.entrance import shortened
from drqueue.client.errors import (
    DrQueueError,
    MasterUnreachable,
    NotAllowed,
    NotLoggedIn,
    Refused,
    WrongCertificate,
)
from drqueue.client.link import SOFTWARE
from drqueue.dialling import open_channel
from drqueue.proto import lines
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.link_messages import Join, Joined, Message, Rejected
from drqueue.settings import Address
from drqueue.tls import PinMismatch

#: Beside `access.json` and like it: secrets whose line may have been used; `account` is its token's hash.
PENDING_FILE = "access-pending.json"
_PENDING = 16


async def log_in(text: str, env: Mapping[str, str]) -> Access:
    """Trade a line for a login, which is on the disk on return.

    Raises LineError, Refused, MasterUnreachable, WrongCertificate, DrQueueError.
    """
    line = lines.parse_line(text, "user")
    path = access_path(env)
    try:
        # What cannot be read could not be kept either: the token must not be spent on it.
        with access_lock(path):
            read_access(path)
            wanted = _pending(path, line)
    except AccessError as error:
        raise DrQueueError(str(error)) from None
    try:
        joined = await _join(line, lines.secret_hash(wanted.secret))
    except Refused as no:
        # The master answered, and knows no account of this secret.
        former = None
        with contextlib.suppress(AccessError), access_lock(path):
            _forget(path, wanted)
            former = came_by(read_access(path), line.pin, line.token)
        if former is not None:
            raise NotAllowed(no.code, f"{no.text} (you came in by it before, as {former.name})") from None
        raise
    way = structs.replace(
        wanted,
        farm=joined.farm,
        account=joined.account,
        name=joined.name,
        role=joined.role,
        line=wanted.account,
    )
    try:
        with access_lock(path):
            write_access(path, with_access(read_access(path), way))
            _forget(path, wanted)
    except AccessError as error:
        raise DrQueueError(str(error)) from None
    return way


def log_out(address: Address | None, env: Mapping[str, str]) -> Access:
    """Forget the login for a master, by default the only one there is. Raises NotLoggedIn, DrQueueError."""
    path = access_path(env)
    try:
        if not read_access(path):
            raise NotLoggedIn(f"there is no login in {shortened(path)}")
        with access_lock(path):
            ways = read_access(path)
            way = _meant(ways, address, path)
            write_access(path, [each for each in ways if each is not way])
    except AccessError as error:
        raise DrQueueError(str(error)) from None
    return way


def _meant(ways: Sequence[Access], address: Address | None, path: str) -> Access:
    """The login to forget. Raises NotLoggedIn, DrQueueError."""
    names = [str(way.address) for way in ways]
    if address is not None:
        way = find_access(ways, address)
        if way is None:
            others = ", ".join(names)
            raise NotLoggedIn(f"there is no login for {address} in {shortened(path)}, only for {others}")
        return way
    if len(ways) != 1:
        raise DrQueueError(f"there are {len(ways)} logins: say which one, {' or '.join(names)}")
    return ways[0]


async def _join(line: lines.Line, secret_hash: str) -> Joined:
    address = Address("tcp", host=line.host, port=line.port)
    try:
        channel = await open_channel(address, pin=line.pin)
    except PinMismatch:
        raise WrongCertificate(
            f"the master at {address} shows another certificate than the one that the line names:"
            " the line is an old one, or somebody sits in between; ask an admin for a new line"
        ) from None
    except OSError as error:
        raise MasterUnreachable(
            f"no master answers at {address}: {error.strerror or error};"
            " if the farm has another address, its admin sets `address`"
        ) from None
    async with channel:
        channel.send(Join(role="client", secret_hash=secret_hash, token=line.token, software=SOFTWARE))
        try:
            answer: Message = await channel.first_message()
        except (LinkClosed, RemoteProtocolError) as error:
            raise MasterUnreachable(
                f"the link to {address} broke before the answer ({error}): use the same line again"
            ) from None
    if isinstance(answer, Joined):
        return answer
    if not isinstance(answer, Rejected):
        raise DrQueueError(f"the master at {address} answered with {type(answer).__name__}")
    if answer.retry:
        raise MasterUnreachable(f"{address}: {answer.text}: use the same line again")
    # Whatever the reason: who asks is not let in.
    raise NotAllowed(answer.code, f"{address}: {answer.text}")


def _pending(path: str, line: lines.Line) -> Access:
    """The way in that this line is to open: the one begun with it before, else a new one, already kept."""
    token = lines.secret_hash(line.token)
    begun = _read_pending(path)
    for way in begun:
        if way.account == token and way.pin == line.pin:
            return structs.replace(way, host=line.host, port=line.port)
    secret = lines.encoded(secrets.token_bytes(lines.SECRET_BYTES))
    new = Access(
        host=line.host,
        port=line.port,
        pin=line.pin,
        farm="",
        account=token,
        name="",
        role="",
        secret=secret,
    )
    write_access(_pending_path(path), [new, *begun][:_PENDING])
    return new


def _forget(path: str, done: Access) -> None:
    left = [way for way in _read_pending(path) if way.secret != done.secret]
    if left:
        write_access(_pending_path(path), left)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_pending_path(path))


def _read_pending(path: str) -> list[Access]:
    return read_access(_pending_path(path))


def _pending_path(path: str) -> str:
    return os.path.join(os.path.dirname(path), PENDING_FILE)
