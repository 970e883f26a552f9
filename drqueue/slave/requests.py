"""What a slave answers, whoever asks: a client at its control port, or the master for a client.

Rules: what changes something goes through the core and is answered once it is kept; what only looks is
answered from here. A reply may be sent long after its link is gone; then it goes nowhere. One that fits
into no packet is a refusal that says so. What the master passes on it has checked; of everybody else it is
known who they are, and they may do and see what their role may. What they change, and are refused, is noted.
"""

import os
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from drqueue.engine import Inbox
from drqueue.proto.errors import LocalProtocolError
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Message
from drqueue.proto.messages import (
    Done,
    Examine,
    Findings,
    GetSlave,
    KillAttempts,
    LogPart,
    ReadLog,
    Refusal,
    Request,
    SetLimits,
    SlaveInfo,
)
from drqueue.proto.roles import LEAST, OWN, Who, may_ask, reaches
from drqueue.proto.shown import shown
from drqueue.proto.views import Finding, SlaveView
from drqueue.slave import logs
from drqueue.slave.acts import Acts
from drqueue.slave.core.events import Asked, Event

#: Bytes of a log in one answer, well below the packet's limit; seconds that a reader may wait at most.
PART_MAX = 128 * 1024
WAIT_MAX_S = 60.0
#: A growing log is looked at this often, by those who wait for it.
LOOK_S = 0.25
#: Readers of one link that may wait at a time.
WAITING_MAX = 32

Reply = Callable[[Message], None]
Look = Callable[[], Awaitable[tuple[Finding, ...]]]

NOT_ALLOWED = "not-allowed"


class Requests:
    """Answers requests; `for_link` gives the part that serves one link. `look` examines this slave."""

    def __init__(
        self,
        state_dir: str,
        inbox: Inbox[Event],
        view: Callable[[], SlaveView],
        is_over: Callable[[AttemptKey], bool],
        *,
        look: Look | None = None,
        acts: Acts | None = None,
        wrote_nothing: Callable[[AttemptKey], bool] = lambda key: False,
    ) -> None:
        self._state_dir = state_dir
        self._inbox = inbox
        self._view = view
        self._is_over = is_over
        self._wrote_nothing = wrote_nothing
        self._look = look
        self._looking = trio.Lock()
        self.acts = acts

    def for_link(self, nursery: trio.Nursery, reply: Reply, who: Who | None = None) -> "LinkRequests":
        """The requests of one link: what takes long lives in `nursery`, answers go to `reply`.

        `who` is at its other end; None: the master, which checks what it passes on.
        """
        return LinkRequests(self, nursery, reply, who)

    def ask_core(self, request: Request, reply: Reply, only_of: str | None = None) -> None:
        """Let the core decide; the answer comes after the commit. `only_of`: what they submitted alone."""
        self._inbox.put(Asked(reply, request, only_of))

    async def wait_room(self) -> None:
        """Return once the core is not too far behind."""
        await self._inbox.wait_room()

    def slave_info(self, request: GetSlave) -> SlaveInfo:
        """This slave as it is now."""
        return SlaveInfo(rq=request.rq, slave=self._view())

    async def examine(self, request: Examine) -> Findings | Refusal:
        """How this slave and its machine do; one look at a time."""
        if self._look is None:
            return _refusal(request, "bad-request", "this slave cannot be examined")
        async with self._looking:
            return Findings(rq=request.rq, findings=await self._look())

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
            if over and size < 0 and not self._wrote_nothing(request.key):
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

    def __init__(self, requests: Requests, nursery: trio.Nursery, reply: Reply, who: Who | None) -> None:
        self._requests = requests
        self._nursery = nursery
        self._send = reply
        self._who = who
        self._reading = 0
        self._examining = False

    def _reply(self, message: Message) -> None:
        if self._who is not None:
            message = shown(message, self._who.role)
        try:
            self._send(message)
        except LocalProtocolError as error:
            if isinstance(message, Request):
                self._send(_refusal(message, "too-large", f"the answer is too large: {error}"))

    def handle(self, request: Request) -> None:
        """Answer now or later; never waits."""
        who = self._who
        if who is not None and type(request) in LEAST and not may_ask(who.role, request):
            text = f"this takes {_article(LEAST[type(request)])}, you are {_article(who.role)}"
            self._refuse(request, NOT_ALLOWED, text)
            return
        match request:
            case SetLimits() if (problem := _wrong_limits(request)) is not None:
                self._refuse(request, "bad-limits", problem)
            case SetLimits() | KillAttempts():
                own = who is not None and type(request) in OWN and not reaches(who.role, "supervisor")
                answered = partial(self._answered, request)
                self._requests.ask_core(request, answered, who.name if who is not None and own else None)
            case GetSlave():
                self._reply(self._requests.slave_info(request))
            case ReadLog() if self._reading >= WAITING_MAX:
                self._reply(_refusal(request, "busy", f"{WAITING_MAX} logs are being read over this link"))
            case ReadLog():
                self._reading += 1
                self._nursery.start_soon(self._read_log, request)
            case Examine() if self._examining:
                self._reply(_refusal(request, "busy", "this slave is being examined over this link already"))
            case Examine():
                self._examining = True
                self._nursery.start_soon(self._examine, request)
            case _:
                text = f"a slave does not answer {type(request).__name__}"
                self._reply(_refusal(request, "bad-request", text))

    def _refuse(self, request: Request, code: str, text: str) -> None:
        self._noted(request, code)
        self._reply(_refusal(request, code, text))

    def _answered(self, request: Request, answer: Message) -> None:
        """The core's answer to a change."""
        if isinstance(answer, Refusal):
            self._noted(request, answer.code)
        elif isinstance(answer, Done) and answer.count:
            self._noted(request)
        self._reply(answer)

    def _noted(self, request: Request, code: str = "") -> None:
        acts = self._requests.acts
        if self._who is None or acts is None:
            return
        if code:
            acts.refused(self._who, request, code)
        else:
            acts.done(self._who, request)

    async def _examine(self, request: Examine) -> None:
        try:
            self._reply(await self._requests.examine(request))
        finally:
            self._examining = False

    async def _read_log(self, request: ReadLog) -> None:
        try:
            self._reply(await self._requests.read_log(request))
        finally:
            self._reading -= 1


def _wrong_limits(request: SetLimits) -> str | None:
    from drqueue.proto.checks import check_limits  # with all that is said of jobs: seldom wanted here

    return check_limits(request.change)


def _refusal(request: Request, code: str, text: str) -> Refusal:
    return Refusal(rq=request.rq, code=code, text=text)


def _article(role: str) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} {role}"
