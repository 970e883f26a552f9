"""Where a master is looked for, and what is shown to be let in.

Rules: a Unix socket needs no login, the kernel says who asks. The network is entered only with a way in of
`access.json`, and nothing is dialled for which there is none. Where no master is named, the newest way in
comes after the sockets on this machine. The file is read at each dialling: somebody may have logged in.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

from drqueue import thishost
from drqueue.access import Access, AccessError, access_path, find_access, read_access
from drqueue.address import DEFAULT_PORT
from drqueue.channel import LinkClosed
from drqueue.client.errors import (
    MasterUnreachable,
    NotLoggedIn,
    VersionMismatch,
    WrongCertificate,
    refused,
)
from drqueue.client.link import Link, dial
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import HandshakeRejected
from drqueue.settings import Address, candidates
from drqueue.tls import PinMismatch

ASK_FOR_A_LINE = "ask an admin for a line (drqueue user add NAME) and use it: drqueue login LINE"
#: Other addresses that are named where there is no login for one.
_NAMED = 3
#: Seconds that a master of this machine has to answer, where it is only looked for.
_HERE_S = 1.0


class Entrance:
    """The places where one master may be. Raises SettingsError for an address that is none."""

    def __init__(self, named: str, env: Mapping[str, str]) -> None:
        self._places = candidates(named, env)
        self._named = bool(named.strip())
        self._access_path = access_path(env)

    async def dial(self) -> Link:
        """A link to the first of them that answers; `Link.serve` is the caller's to start.

        Raises MasterUnreachable, NotLoggedIn, WrongCertificate, VersionMismatch, Refused.
        """
        tried: list[str] = []
        closed, failed = "", False
        for place, way in self._tries():
            try:
                return await _dial(place, way)
            except HandshakeRejected as error:
                if not error.retry:
                    raise rejected(place, error) from None
                why = error.text
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if way is None:
                    tried.append(str(place))
                    continue
                why = error.strerror or str(error)
            except PermissionError as error:
                why = error.strerror or str(error)
                if place.kind == "unix":
                    why = f"may be used by members of its group only{_group(place.path)}"
                    closed = closed or f"{place.path} {why}"
                    tried.append(f"{place}: {why}")
                    continue
            except OSError as error:
                why = error.strerror or str(error)
            except (LinkClosed, RemoteProtocolError) as error:
                why = str(error)
            failed = True
            tried.append(f"{place}: {why}")
        if closed and not failed:
            raise NotLoggedIn(f"{closed}: ask an admin, or log in with a line (drqueue login LINE)")
        nobody = not failed and not self._logged_in()
        raise MasterUnreachable(f"no master answers at {' or '.join(tried)}", nobody=nobody)

    def _logged_in(self) -> bool:
        try:
            return bool(read_access(self._access_path))
        except AccessError:
            return True

    def _tries(self) -> Iterator[tuple[Address, Access | None]]:
        yield from ((place, None) for place in self._places if place.kind == "unix")
        places = [place for place in self._places if place.kind != "unix"]
        if not places:
            return
        try:
            ways = read_access(self._access_path)
        except AccessError as error:
            raise NotLoggedIn(str(error)) from None
        if len(self._places) > 1:
            places = [*of_logins(ways, named=self._named), *places]
        for place in dict.fromkeys(places):
            way = find_access(ways, place)
            if way is not None:
                yield place, way
            elif len(self._places) == 1:
                others = ", ".join(str(each.address) for each in ways[:_NAMED])
                only = f", only for {others}" if others else ""
                file = shortened(self._access_path)
                raise NotLoggedIn(f"there is no login for {place} in {file}{only}: {ASK_FOR_A_LINE}")


def of_logins(ways: Sequence[Access], *, named: bool) -> list[Address]:
    """Where logins lead, where no other machine is named: by the newest one; or, where this machine is
    `named`, to its own port, whatever a line calls it."""
    if not named:
        return [way.address for way in ways[:1]]
    return [way.address for way in ways if way.port == DEFAULT_PORT and thishost.is_named(way.host)]


async def master_here(env: Mapping[str, str]) -> Address | None:
    """The socket of this machine at which a master answers, before which no login is used; None: none."""
    for place in candidates("", env):
        if place.kind == "unix":
            try:
                link = await dial(place, timeout_s=_HERE_S)
            except (OSError, LinkClosed, RemoteProtocolError, HandshakeRejected):
                continue
            link.close()
            return place
    return None


def _group(path: str) -> str:
    """The name of the group that may use a socket, in brackets, as far as it can be known."""
    import grp  # only who is shut out pays for it

    # Where the folder is closed to others, the socket's group is as a rule the folder's.
    for each in (path, os.path.dirname(path)):
        try:
            return f" ({grp.getgrgid(os.stat(each).st_gid).gr_name})"
        except (OSError, KeyError):
            continue
    return ""


async def _dial(place: Address, way: Access | None) -> Link:
    if way is None:
        return await dial(place)
    try:
        return await dial(place, pin=way.pin, secret=way.secret)
    except PinMismatch:
        raise wrong_certificate(place) from None


def wrong_certificate(place: Address) -> WrongCertificate:
    """The error about a master that is another than it was."""
    return WrongCertificate(
        f"the master at {place} shows another certificate than the one you logged in with: another farm has"
        " its address now, or somebody sits in between; ask its admin, and log in anew if it was set up anew"
    )


def rejected(place: Address, error: HandshakeRejected) -> Exception:
    """The error about a master that says no for good."""
    if error.code == "version":
        return VersionMismatch(error.text)
    if error.code == "no-account":
        return NotLoggedIn(f"{place}: {error.text}; {ASK_FOR_A_LINE}")
    return refused(error.code, f"{place}: {error.text}")


def shortened(path: str) -> str:
    """A path as people write it, with ~ for their own folder."""
    home = os.path.join(os.path.expanduser("~"), "")
    return f"~/{path.removeprefix(home)}" if path.startswith(home) else path
