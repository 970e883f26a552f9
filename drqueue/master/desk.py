"""What clients ask that the core does not answer (the audit, how this machine does), and what they may see.

Rules: who may ask was looked at before; nothing is changed here. A Unix socket's path is told only to those
who are on this machine themselves.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from msgspec import structs

from drqueue.master.core.audit import audit_page
from drqueue.master.core.rights import NOT_ALLOWED, Refused
from drqueue.master.past import Reader
from drqueue.master.storage import StorageError, StorageFull
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import (
    Audit,
    BackedUp,
    BackUp,
    Changed,
    Examine,
    Findings,
    ListAudit,
    LogPlace,
    SlaveInfo,
    Slaves,
)
from drqueue.proto.roles import Who
from drqueue.proto.shown import shown
from drqueue.proto.views import Finding, SlaveView

#: Clients that may wait for news of the audit at once, and how long one request may (seconds).
_WAITING_MOST = 64
_WAIT_MOST_S = 60.0

M = TypeVar("M", bound=Message)

Look = Callable[[], Awaitable[tuple[Finding, ...]]]
#: Makes a backup for somebody: its file's name and bytes. Raises StorageError.
BackUpNow = Callable[[], Awaitable[tuple[str, int]]]


class Desk:
    """Answers of the shell's own. `look` examines the master and its machine."""

    def __init__(self, history: Reader, look: Look, back_up: BackUpNow) -> None:
        self._history = history
        self._look = look
        self._back_up = back_up
        self._news = trio.Event()
        self._waiting = 0
        self._looking = trio.Lock()

    # -- the audit ------------------------------------------------------------------------------------

    def audited(self) -> None:
        """There are new rows."""
        self._news.set()
        self._news = trio.Event()

    async def audit(self, request: ListAudit) -> Audit:
        """Rows of the audit, waited for where there are none yet. Raises Refused."""
        deadline = trio.current_time() + min(request.wait_s, _WAIT_MOST_S)
        while True:
            # Before the look: what comes while it is under way is no less news.
            news = self._news
            answer = await self._rows(request)
            left = deadline - trio.current_time()
            if answer.rows or request.latest or left <= 0:
                return answer
            if self._waiting >= _WAITING_MOST:
                raise Refused("too-many", f"{_WAITING_MOST} others wait for news of the audit: ask later")
            self._waiting += 1
            try:
                with trio.move_on_after(left):
                    await news.wait()
            finally:
                self._waiting -= 1

    async def _rows(self, request: ListAudit) -> Audit:
        if request.latest:
            most = min(request.latest, request.limit)
            rows = await self._history.read(lambda storage: storage.audit_latest(most))
        else:
            rows = await self._history.read(lambda storage: storage.audit(request.cursor - 1, request.limit))
        return audit_page(rows, request.rq, request.cursor)

    # -- examination ----------------------------------------------------------------------------------

    async def examine(self, request: Examine) -> Findings:
        """How the master and its machine do."""
        # One look costs threads and seconds, and several at once tell no more.
        async with self._looking:
            return Findings(rq=request.rq, findings=await self._look())

    # -- backups --------------------------------------------------------------------------------------

    async def back_up(self, request: BackUp, who: Who) -> BackedUp:
        """Make a backup for whoever is on this machine and can fetch it. Raises Refused."""
        if not is_local(who):
            text = "a backup is made for those on the master's machine, with drqueue-master backup FILE"
            raise Refused(NOT_ALLOWED, text)
        try:
            name, size = await self._back_up()
        except StorageFull as error:
            raise Refused("disk-full", str(error)) from None
        except StorageError as error:
            raise Refused("backup-failed", str(error)) from None
        return BackedUp(rq=request.rq, name=name, size=size)


def seen(message: M, who: Who) -> M:
    """A message as somebody may see it, by their role and by where they are."""
    message = shown(message, who.role)
    if is_local(who):
        return message
    match message:
        case Slaves():
            return structs.replace(message, slaves=tuple(map(_away, message.slaves)))
        case Changed() if message.slaves:
            return structs.replace(message, slaves=tuple(map(_away, message.slaves)))
        case SlaveInfo():
            return structs.replace(message, slave=_away(message.slave))
        case LogPlace() if message.control.startswith("unix:"):
            return structs.replace(message, control="")
        case _:
            return message


def is_local(who: Who) -> bool:
    """Whether somebody is on the master's own machine, on its Unix socket."""
    return who.peer.startswith("uid ")


def _away(view: SlaveView) -> SlaveView:
    return structs.replace(view, control="") if view.control.startswith("unix:") else view
