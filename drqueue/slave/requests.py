"""What a slave answers, whoever asks: a client at its control port, or the master for a client.

Rules: what changes something goes through the core and is answered once it is kept; what only looks is
answered from here. A reply may be sent long after its link is gone; then it goes nowhere. One that fits
into no packet is a refusal that says so.
"""

import os
from collections.abc import Callable
from functools import partial

import trio

from drqueue.engine import Inbox
from drqueue.proto.checks import check_limits
from drqueue.proto.errors import LocalProtocolError
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import (
    GetSlave,
    KillAttempts,
    LogPart,
    ReadLog,
    Refusal,
    Request,
    SetLimits,
    SlaveInfo,
)
from drqueue.proto.views import SlaveView
from drqueue.slave import logs
from drqueue.slave.core.events import Asked, Event

#: Bytes of a log in one answer, well below the packet's limit; seconds that a reader may wait at most.
PART_MAX = 128 * 1024
WAIT_MAX_S = 60.0
#: A growing log is looked at this often, by those who wait for it.
LOOK_S = 0.25
#: Readers of one link that may wait at a time.
WAITING_MAX = 32

Reply = Callable[[Message], None]


class Requests:
    """Answers requests; `for_link` gives the part that serves one link."""

    def __init__(
        self,
        state_dir: str,
        inbox: Inbox[Event],
        view: Callable[[], SlaveView],
        is_over: Callable[[AttemptKey], bool],
    ) -> None:
        self._state_dir = state_dir
        self._inbox = inbox
        self._view = view
        self._is_over = is_over

    def for_link(self, nursery: trio.Nursery, reply: Reply) -> "LinkRequests":
        """The requests of one link: its readers of logs live in `nursery`, answers go to `reply`."""
        return LinkRequests(self, nursery, reply)

    def ask_core(self, request: Request, reply: Reply) -> None:
        """Let the core decide; the answer comes after the commit."""
        self._inbox.put(Asked(reply, request))

    async def wait_room(self) -> None:
        """Return once the core is not too far behind."""
        await self._inbox.wait_room()

    def slave_info(self, request: GetSlave) -> SlaveInfo:
        """This slave as it is now."""
        return SlaveInfo(rq=request.rq, slave=self._view())

    async def read_log(self, request: ReadLog) -> LogPart | Refusal:
        """Bytes of a log, waited for as long as was asked."""
        path = logs.log_path(self._state_dir, request.key)
        limit = min(request.limit, PART_MAX)
        deadline = trio.current_time() + min(request.wait_s, WAIT_MAX_S)
        while True:
            # Asked before the file is looked at: what is written until an attempt's end is read then.
            over = self._is_over(request.key)
            try:
                size = os.stat(path).st_size
            except FileNotFoundError:
                size = -1
            except OSError as error:
                return _refusal(request, "unreadable", f"the log cannot be read: {error.strerror}")
            if size > request.offset:
                return await self._part(request, path, limit, over)
            if over and size < 0:
                return _refusal(request, "no-log", f"there is no log of attempt {request.key} on this slave")
            if over or trio.current_time() >= deadline:
                # A log that became shorter than the offset was replaced: go on from its end.
                size = max(size, 0)
                return LogPart(rq=request.rq, data=b"", next=min(request.offset, size), size=size, over=over)
            await trio.sleep(min(LOOK_S, max(0.0, deadline - trio.current_time())))

    async def _part(self, request: ReadLog, path: str, limit: int, over: bool) -> LogPart | Refusal:
        read = partial(logs.read_slice, path, request.offset, limit)
        try:
            data, following, size = await trio.to_thread.run_sync(read)
        except OSError as error:
            return _refusal(request, "unreadable", f"the log cannot be read: {error.strerror}")
        return LogPart(rq=request.rq, data=data, next=following, size=size, over=over and following >= size)


class LinkRequests:
    """The requests that come over one link."""

    def __init__(self, requests: Requests, nursery: trio.Nursery, reply: Reply) -> None:
        self._requests = requests
        self._nursery = nursery
        self._send = reply
        self._reading = 0

    def _reply(self, message: Message) -> None:
        try:
            self._send(message)
        except LocalProtocolError as error:
            if isinstance(message, Request):
                self._send(_refusal(message, "too-large", f"the answer is too large: {error}"))

    def handle(self, request: Request) -> None:
        """Answer now or later; never waits."""
        match request:
            case SetLimits() if (problem := check_limits(request.change)) is not None:
                self._reply(_refusal(request, "bad-limits", problem))
            case SetLimits() | KillAttempts():
                self._requests.ask_core(request, self._reply)
            case GetSlave():
                self._reply(self._requests.slave_info(request))
            case ReadLog() if self._reading >= WAITING_MAX:
                self._reply(_refusal(request, "busy", f"{WAITING_MAX} logs are being read over this link"))
            case ReadLog():
                self._reading += 1
                self._nursery.start_soon(self._read_log, request)
            case _:
                text = f"a slave does not answer {type(request).__name__}"
                self._reply(_refusal(request, "bad-request", text))

    async def _read_log(self, request: ReadLog) -> None:
        try:
            self._reply(await self._requests.read_log(request))
        finally:
            self._reading -= 1


def _refusal(request: Request, code: str, text: str) -> Refusal:
    return Refusal(rq=request.rq, code=code, text=text)
