"""Asking a farm's master, and its slaves: the links, and what is done when one breaks.

Rules: reads are repeated by themselves when the link breaks, and so is what carries a token; any other
request whose link breaks before the answer raises MasterUnreachable, for it may have been done. A slave is
asked directly where it can be reached, else through the master. Patience is how long a call goes on trying
while no master answers.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from drqueue.client.direct import SlaveLinks
from drqueue.client.entrance import Entrance
from drqueue.client.errors import DrQueueError, MasterUnreachable
from drqueue.client.link import ChangeQueue, Link, LinkLost
from drqueue.proto import messages
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import Request

RESTART_PATIENCE_S = 3600.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
#: A master that restarts is back before this; only then it is worth a word.
SILENCE_S = 2.0
PAGE = 500

A = TypeVar("A", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True)
class Did:
    """What a verb did: how many things it touched, and what is worth saying about it."""

    count: int
    note: str = ""


class Asking:
    """A farm's master and slaves as something that can be asked; any number of tasks may do so at once."""

    def __init__(
        self, entrance: Entrance, nursery: trio.Nursery, patience_s: float = 0, state_dir: str = ""
    ) -> None:
        self._entrance = entrance
        self._state_dir = state_dir
        self._nursery = nursery
        self._patience_s = patience_s
        self._link: Link | None = None
        self._slaves = SlaveLinks(self._ticket, nursery)
        self._dialling = trio.Lock()
        #: Called with False when the master has been silent for SILENCE_S while somebody waits for it, and
        #: with True when it answers again.
        self.on_silence: Callable[[bool], object] | None = None
        self._silent = False

    # -- for this package's own modules -------------------------------------------------------------

    async def linked(self, patience_s: float) -> Link:
        """The link to the master, made anew where it is gone."""
        began = trio.current_time()
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self._dialling:
                    if self._link is None or self._link.over:
                        self._link = await self._entrance.dial()
                        self._nursery.start_soon(self._link.serve)
                    self._tell_silence(False)
                    return self._link
            except MasterUnreachable:
                if trio.current_time() + pause > began + patience_s:
                    raise
                if trio.current_time() - began >= SILENCE_S:
                    self._tell_silence(True)
            await trio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_S)

    async def stand_watch(self, request: messages.Watch, patience_s: float) -> tuple[Link, ChangeQueue]:
        """A watch that stands, and the link it stands on."""

        async def stand(link: Link) -> tuple[Link, ChangeQueue]:
            return link, await link.watch(request)

        return await self._retried(stand, patience_s, again=True)

    async def read(self, request: Request, kind: type[A], patience_s: float) -> A:
        """Ask for something that changes nothing, with a patience of its own."""
        return await self._ask(request, kind, again=True, patience_s=patience_s)

    async def direct(self, name: str) -> Link | None:
        """A link to a slave itself, by its name, host name, address, or the `unix:PATH` of its port.

        None where that cannot be reached from here. Without a master, one of this machine goes by its name.
        """
        if name.startswith("unix:"):
            return await self._slaves.at(name)
        try:
            return await self._slaves.to(name)
        except MasterUnreachable:
            link = await self.direct_here(name)
            if link is None:
                raise
            return link

    async def direct_here(self, name: str) -> Link | None:
        """A link to the slave of that name (or `unix:PATH`) on this machine, None where there is none."""
        if not name.startswith("unix:"):
            if not name or "/" in name:
                return None
            name = f"unix:{os.path.join(self._state_dir, f'slave-{name}', 'control.sock')}"
        return await self._slaves.at(name)

    async def direct_at(self, name: str, control: str) -> Link | None:
        """The same for a slave whose port is known: nobody has to be asked for a ticket to a Unix socket."""
        if control.startswith("unix:") and self._link is not None and self._link.local:
            return await self._slaves.at(control)
        return await self.direct(name) if control else None

    # -- asking -----------------------------------------------------------------------------------

    async def _read(self, request: Request, kind: type[A]) -> A:
        return await self._ask(request, kind, again=True)

    async def _do(self, request: Request) -> Did:
        done = await self._ask(request, messages.Done, again=False)
        return Did(done.count, done.note)

    async def _tell_slave(self, name: str, directly: Request, relayed: Request) -> Did:
        """Have a slave do something, never twice."""
        link = await self.direct(name)
        if link is not None:
            try:
                done = await link.ask(directly, messages.Done)
                return Did(done.count, done.note)
            except LinkLost as lost:
                if lost.sent:
                    raise broke_off(name, lost, ": look whether it was done") from None
        if name.startswith("unix:"):
            raise DrQueueError(f"no slave answers at {name}")
        return await self._do(relayed)

    async def _read_slave(self, name: str, directly: Request, relayed: Request, kind: type[A]) -> A:
        """What a slave says of itself."""
        link = await self.direct(name)
        if link is not None:
            try:
                return await link.ask(directly, kind)
            except LinkLost as lost:
                if name.startswith("unix:"):
                    raise broke_off(name, lost) from None
        if name.startswith("unix:"):
            raise DrQueueError(f"no slave answers at {name}")
        return await self._read(relayed, kind)

    async def _ticket(self, name: str) -> tuple[messages.Ticket, bool]:
        async def ask(link: Link) -> tuple[messages.Ticket, bool]:
            return await link.ask(messages.GetTicket(rq=0, slave=name), messages.Ticket), link.local

        return await self._retried(ask, self._patience_s, again=True)

    async def _ask(
        self, request: Request, kind: type[A], *, again: bool, patience_s: float | None = None
    ) -> A:
        patience_s = self._patience_s if patience_s is None else patience_s
        return await self._retried(lambda link: link.ask(request, kind), patience_s, again=again)

    async def _retried(self, use: Callable[[Link], Awaitable[T]], patience_s: float, *, again: bool) -> T:
        deadline = trio.current_time() + patience_s
        pause = 0.0
        while True:
            link = await self.linked(max(0.0, deadline - trio.current_time()))
            try:
                return await use(link)
            except LinkLost as lost:
                if lost.sent and not again:
                    raise MasterUnreachable(
                        f"the link to the master broke before it answered ({lost}): look whether it was done"
                    ) from None
                # Once more at once, for a master that was just restarted; from then on with pauses.
                if pause and trio.current_time() + pause > deadline:
                    raise MasterUnreachable(f"the link to the master keeps breaking ({lost})") from None
            await trio.sleep(pause)
            pause = min(max(pause * 1.5, FIRST_PAUSE_S), LONGEST_PAUSE_S)

    def _tell_silence(self, silent: bool) -> None:
        if silent != self._silent:
            self._silent = silent
            if self.on_silence is not None:
                self.on_silence(not silent)


def broke_off(name: str, lost: LinkLost, advice: str = "") -> DrQueueError:
    """The error about a slave that was asked and gave no answer."""
    return DrQueueError(f"the link to slave {name} broke before it answered ({lost}){advice}")
