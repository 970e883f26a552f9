"""Where a slave dials its master, and with what it proves itself: looked up anew for each dial.

Rules: a master that is named in the settings is dialled and no other; else the one that was joined last; else
the ones on this machine. TCP is dialled only where the farm was joined, since nobody else could prove
anything. A farm joined earlier is never tried because the latest is silent: going over stops frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

from drqueue.access import Access, AccessError, read_access, same_place
from drqueue.address import Address
from drqueue.slave.credentials import access_file, same_door, stamp

HOW = "drqueue-slave join LINE"


class NotJoined(Exception):  # noqa: N818  (how things are, not a fault)
    """There is nowhere to dial yet; the text is one sentence that says what to do."""


class Route(NamedTuple):
    """One master to try, and, over TCP, the way in."""

    address: Address
    access: Access | None = None


class Routes:
    """`addresses` are the master's that was `named`, else those on this machine."""

    def __init__(self, state_dir: str, addresses: Sequence[Address], *, named: bool) -> None:
        self.state_dir = state_dir
        self._addresses = addresses
        self._named = named

    def now(self) -> list[Route]:
        """The routes to try, in order. Raises NotJoined, AccessError."""
        local = [Route(address) for address in self._addresses if address.kind == "unix"]
        if self._named and len(local) == len(self._addresses):
            return local
        try:
            ways = read_access(access_file(self.state_dir))
        except AccessError:
            if not self._named or not local:
                raise
            return local
        if not self._named and ways:
            return [Route(way.address, way) for way in ways if same_door(way, ways[0])]
        found: list[Route] = []
        for address in self._addresses:
            if address.kind == "unix":
                found.append(Route(address))
            else:
                found += [Route(address, way) for way in ways if same_place(way.address, address)]
        if not found:
            but = f" (but to {ways[0].address})" if ways else ""
            raise NotJoined(f"not joined to {self._addresses[0]}{but}: {HOW}")
        return found

    def silence(self) -> str:
        """What to say where none of them answers, and none was ever named."""
        if self._named or stamp(self.state_dir):
            return ""
        return f"no master answers on this machine: waiting for one, or to be joined ({HOW})"

    def stamp(self) -> tuple[int, ...]:
        """Something that differs once there may be other routes."""
        return stamp(self.state_dir)
