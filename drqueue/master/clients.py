"""Clients' links: requests in, answers out. Decides nothing.

Most requests are events for the core. What only the history knows is added on the way out, and what
concerns a slave itself (limits, kills, logs) is passed on to it where it is linked. Rights are asked of the
core's table at the moment at which something is done here, and what somebody may not see is taken out of the
answer as it leaves, by what they are then. While the disk is full, reads are answered from the state and
writes refused. A client that does not read its answers is not read either; whatever it does, or this side
does wrong about it, ends its own link at most.
"""

import secrets
from collections import Counter
from itertools import count
from math import inf
from typing import TypeVar

import trio
from msgspec import structs

from drqueue import log
from drqueue.channel import Channel, LinkClosed
from drqueue.engine import Inbox
from drqueue.lag import LagProbe
from drqueue.master.core import queries
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Answer, AskHistory, CutClients
from drqueue.master.core.events import ClientAsked, Event, Noticed
from drqueue.master.core.on_look import READS
from drqueue.master.core.rights import NOT_ALLOWED, Refused, current
from drqueue.master.core.wording import described
from drqueue.master.desk import Desk, seen
from drqueue.master.hub import Hub, TooManyWatches
from drqueue.master.past import Reader, attempt_view, fill_frames, latest, wants_history
from drqueue.master.places import Places
from drqueue.master.slaves import NotLinked, SlaveLinks
from drqueue.proto import lines
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.link_messages import Beat, Hi, Message
from drqueue.proto.messages import (
    Accounts,
    AccountVerb,
    AddLine,
    Attempts,
    BackUp,
    Done,
    Examine,
    Farm,
    FindLog,
    Frames,
    KillAttempts,
    ListAudit,
    LogPlace,
    ReadLog,
    Refusal,
    Request,
    SetLimits,
    Unwatch,
    Watch,
    Watching,
)
from drqueue.proto.model import LogEnds
from drqueue.proto.roles import Who

#: Requests of one client under way at once; its reader waits beyond that.
_UNDER_WAY = 256
#: Links of one person at once: with them alone nobody shall fill the master's room for links.
_LINKS_OF_ONE = 2000
#: Of these, so many whose answers may fill a packet: together they fit into a link's outbox.
_READS_UNDER_WAY = 24
#: Looks at the state that the core is asked for at once, by all clients together: it answers all that it has
#: been asked in one step, and everybody else waits for that.
_LOOKS_AT_ONCE = 8
_LARGE = (*READS, ListAudit, Examine, BackUp)
#: A client with this many bytes of answers unsent is not read until it has fetched them.
_LAG_BYTES = 1024 * 1024
#: A client says a word every 10 s; one that says none for so long is gone.
_SILENCE_S = 30.0


M = TypeVar("M", bound=Message)

#: Somebody whose account is gone, until their link is.
NOBODY = Who(name="", role="viewer")


class _Client:
    def __init__(self, channel: Channel, nursery: trio.Nursery, who: Who) -> None:
        self.channel = channel
        self.who = who
        self.nursery = nursery
        self.room = trio.Semaphore(_UNDER_WAY)
        self.reads = trio.Semaphore(_READS_UNDER_WAY)
        #: Requests under way, and what each gives back when it is answered.
        self.open: dict[int, trio.Semaphore] = {}

    async def admit(self, request: Request) -> None:
        """Return once there is room for one more request."""
        if self.channel.queued > _LAG_BYTES:
            await self.channel.wait_flushed(inf)
        room = self.reads if isinstance(request, _LARGE) else self.room
        await room.acquire()
        self.open[request.rq] = room

    def answer(self, message: Request) -> None:
        room = self.open.pop(message.rq, None)
        if room is not None:
            room.release()
        try:
            self.channel.send(message)
        except LocalProtocolError as error:
            self.channel.send(
                Refusal(rq=message.rq, code="too-large", text=f"the answer is too large: {error}")
            )


class ClientLinks:
    """All linked clients."""

    def __init__(
        self,
        inbox: Inbox[Event],
        core: Core,
        slaves: SlaveLinks,
        hub: Hub,
        history: Reader,
        desk: Desk,
        lag: LagProbe,
    ) -> None:
        self._lag = lag
        self._inbox = inbox
        self._desk = desk
        self._core = core
        self._slaves = slaves
        self._hub = hub
        self._history = history
        self._clients: dict[int, _Client] = {}
        self._links_of: Counter[str] = Counter()
        self._numbers = count(1)
        self._looks = Places(_LOOKS_AT_ONCE)
        #: Clients and numbers of the requests that have a place there: until the core has answered them,
        #: whatever became of the client.
        self._looking: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        """How many are linked."""
        return len(self._clients)

    # -- in -----------------------------------------------------------------------------------------

    async def serve(self, channel: Channel, hi: Hi, who: Who) -> None:
        """One client's link, from after the handshake to its end."""
        number = next(self._numbers)
        channel.label = f"{who.name} {hi.name[:64]}".strip() or f"client {number}"
        if self._links_of[who.name] >= _LINKS_OF_ONE:
            text = f"{who.name} has {_LINKS_OF_ONE} links already: end some"
            self._inbox.put_if_room(Noticed(who, "link", "too-many", text))
            channel.reject("too-many", text, retry=True)
            return
        self._links_of[who.name] += 1
        try:
            await self._converse(number, channel, who)
        except Exception as error:  # noqa: BLE001  (a bug met on one link must not take the farm down)
            log.error("a bug ended a client's link", client=channel.label, exc=error)
        finally:
            self._links_of[who.name] -= 1
            if not self._links_of[who.name]:
                del self._links_of[who.name]

    async def _converse(self, number: int, channel: Channel, who: Who) -> None:
        async with trio.open_nursery() as nursery:
            client = self._clients[number] = _Client(channel, nursery, who)
            if current(self._core.turn, who) is None:
                # Revoked between the handshake and here, when nothing was there to be cut yet.
                channel.reject(NOT_ALLOWED, "your account was revoked", retry=False)
            nursery.start_soon(channel.watch_silence, _SILENCE_S)
            try:
                while True:
                    await self._hear(number, client, await channel.receive())
            except LinkClosed as end:
                log.debug("client left", client=channel.label, why=end)
            except RemoteProtocolError as error:
                log.warning("client broke the protocol", client=channel.label, error=error)
            finally:
                channel.close()
                del self._clients[number]
                self._hub.drop(channel)
                nursery.cancel_scope.cancel()

    async def _hear(self, number: int, client: _Client, message: Message) -> None:
        if isinstance(message, Beat):
            if message.echo:
                client.channel.send(Beat())
            return
        if not isinstance(message, Request):
            raise RemoteProtocolError(f"a client does not say {type(message).__name__}")
        if client.channel.deaf and isinstance(message, READS):
            return  # what it asked for before it went may be thousands of pages, and nobody is there to read
        if message.rq in client.open:
            raise RemoteProtocolError(f"request {message.rq} is open already")
        await client.admit(message)
        match message:
            case Watch() | Unwatch():
                try:
                    self._say(client, self._answered(client, message))
                except Refused as error:
                    self._refuse(client, message, error.code, str(error))
            case ListAudit() | Examine(slave="") | BackUp():
                client.nursery.start_soon(self._look_up, client, message)
            case ReadLog() | KillAttempts() | Examine():
                client.nursery.start_soon(self._relay, client, message)
            case SetLimits() if self._linked(message.slave) is not None:
                client.nursery.start_soon(self._relay, client, message)
            case _ if self._history.alarm:
                self._ask_in_alarm(number, client, message)
            case _ if isinstance(message, READS):
                if await self._looks.take(lambda: bool(self._history.alarm)):
                    self._looking.add((number, message.rq))
                    self._inbox.put(ClientAsked(number, message, client.who))
                    await self._inbox.wait_room()
                else:
                    self._ask_in_alarm(number, client, message)
            case _:
                fresh = ""
                if isinstance(message, AddLine | AccountVerb):
                    fresh = lines.encoded(secrets.token_bytes(lines.TOKEN_BYTES))
                self._inbox.put(ClientAsked(number, message, client.who, fresh))
                await self._inbox.wait_room()

    def _allowed(self, client: _Client, request: Request) -> Who:
        """Whoever asks, as they are now, where they may ask this. Raises Refused, which is audited."""
        refused = self._core.refusal(client.who, request)
        if refused is not None:
            what = described(request, self._core.state)
            self._inbox.put_if_room(Noticed(client.who, what, *refused))
            raise Refused(*refused)
        return current(self._core.turn, client.who) or client.who

    def _answered(self, client: _Client, request: Watch | Unwatch) -> Request:
        """The answer to what needs nothing but the state. Raises Refused."""
        self._allowed(client, request)
        match request:
            case Watch():
                try:
                    watch = self._hub.watch(client.channel, request, lambda news: self._seen(client, news))
                except TooManyWatches as error:
                    raise Refused("too-many", str(error)) from None
                return Watching(rq=request.rq, watch=watch)
            case Unwatch():
                found = self._hub.unwatch(request.watch, client.channel)
                return Done(rq=request.rq, count=int(found))

    async def _look_up(self, client: _Client, request: ListAudit | Examine | BackUp) -> None:
        try:
            who = self._allowed(client, request)
            match request:
                case Examine():
                    self._say(client, await self._desk.examine(request))
                case BackUp():
                    made = await self._desk.back_up(request, who)
                    self._inbox.put_if_room(Noticed(who, described(request, self._core.state), "done"))
                    self._say(client, made)
                case ListAudit():
                    self._say(client, await self._desk.audit(request))
        except Refused as error:
            self._refuse(client, request, error.code, str(error))

    def _ask_in_alarm(self, number: int, client: _Client, message: Request) -> None:
        if not isinstance(message, READS):
            self._refuse(client, message, "disk-full", self._history.alarm)
            return
        for effect in self._core.peek(number, message, client.who):
            if isinstance(effect, Answer):
                self.answer(effect)
            elif isinstance(effect, AskHistory):
                self.ask_history(effect)

    # -- out ----------------------------------------------------------------------------------------

    def answer(self, effect: Answer) -> None:
        """Bring an answer to its client, completed from the history where memory does not hold it all."""
        self._looked(effect.client, effect.message.rq)
        client = self._clients.get(effect.client)
        if client is None:
            return
        message = effect.message
        if isinstance(message, Frames) and any(wants_history(view) for view in message.frames):
            client.nursery.start_soon(self._answer_frames, client, message)
        elif isinstance(message, Farm):
            self._say(client, structs.replace(message, alarm=self._history.alarm, lag=self._lag.seen()))
        elif isinstance(message, Accounts):
            self._say(client, self._with_links(message))
        else:
            self._say(client, message)

    def _looked(self, number: int, rq: int) -> None:
        """The core has answered: others may ask it."""
        if (number, rq) in self._looking:
            self._looking.remove((number, rq))
            self._looks.give_back()

    def _with_links(self, message: Accounts) -> Accounts:
        """People with whether they are linked, and from where they came last."""
        newest = {client.who.account: client.who.peer for client in self._clients.values()}
        views = [
            structs.replace(view, linked=True, peer=newest[view.id])
            if view.kind == "user" and view.state == "active" and view.id in newest
            else view
            for view in message.accounts
        ]
        return structs.replace(message, accounts=tuple(views))

    def _say(self, client: _Client, message: Request) -> None:
        client.answer(self._seen(client, message))

    def _seen(self, client: _Client, message: M) -> M:
        """What is left of a message for this client, as they are now."""
        return seen(message, current(self._core.turn, client.who) or NOBODY)

    def _refuse(self, client: _Client, request: Request, code: str, text: str) -> None:
        client.answer(Refusal(rq=request.rq, code=code, text=text))

    def cut(self, effect: CutClients) -> None:
        """Tell the clients of these accounts why they go, and close their links at once."""
        for client in list(self._clients.values()):
            if client.who.account in effect.accounts:
                log.event("client cut off", client=client.channel.label, why=effect.text)
                client.channel.reject(NOT_ALLOWED, effect.text, retry=False)

    async def _answer_frames(self, client: _Client, message: Frames) -> None:
        views = await fill_frames(self._history, message.frames)
        self._say(client, structs.replace(message, frames=views))

    def ask_history(self, effect: AskHistory) -> None:
        """Answer from the history of attempts."""
        self._looked(effect.client, effect.request.rq)
        client = self._clients.get(effect.client)
        if client is not None:
            client.nursery.start_soon(self._answer_from_history, client, effect)

    async def _answer_from_history(self, client: _Client, effect: AskHistory) -> None:
        request = effect.request
        rows = await self._history.read(
            lambda storage: storage.attempts(request.job, effect.layer, effect.number)
        )
        if not isinstance(request, FindLog):
            views = tuple(attempt_view(row) for row in rows)
            self._say(client, Attempts(rq=request.rq, attempts=latest(views)))
            return
        rows = [row for row in rows if request.attempt in (None, row.attempt)]
        if not rows:
            which = "no attempt yet" if request.attempt is None else f"no attempt {request.attempt}"
            text = f"frame {request.number} of job {request.job} has {which}"
            self._refuse(client, request, "no-such-attempt", text)
            return
        row = rows[-1]
        kept = await self._history.read(lambda storage: storage.log(row.key))
        if kept is None and not row.log_bytes and (row.code is not None or row.signal is not None):
            kept = LogEnds(size=0)  # nothing was written: its slave may have no file of it
        slave = self._core.state.slaves.get(row.slave)
        place = LogPlace(
            rq=request.rq,
            key=row.key,
            number=row.number,
            slave=row.slave_name if slave is None else slave.name,
            control="" if slave is None else slave.control,
            linked=slave is not None and slave.link is not None,
            over=bool(row.outcome),
            kept=kept,
        )
        self._say(client, place)

    # -- to slaves ------------------------------------------------------------------------------------

    def _linked(self, who: str) -> int | None:
        """The link of the one slave meant, None where there is none, or none alone."""
        found = queries.find_slaves(self._core.state, who)
        return found[0].link if len(found) == 1 else None

    async def _relay(self, client: _Client, request: ReadLog | KillAttempts | SetLimits | Examine) -> None:
        try:
            who = self._allowed(client, request)
            link = self._linked(request.slave)
            if link is None and isinstance(request, ReadLog) and not request.slave:
                attempt = self._core.state.attempts.get(request.key)
                link = attempt.slave.link if attempt is not None else None
            if link is None:
                raise NotLinked
            self._say(client, await self._passed_on(who, link, request))
        except Refused as error:
            self._refuse(client, request, error.code, str(error))
        except NotLinked:
            whose = request.slave or "that attempt's"
            self._refuse(client, request, "not-linked", f"slave {whose} is not linked to the master")

    async def _passed_on(self, who: Who, link: int, request: Request) -> Request:
        """A slave's answer; what changes something there is audited, whatever becomes of the answer."""
        if not isinstance(request, KillAttempts | SetLimits):
            wait_s = request.wait_s if isinstance(request, ReadLog) else 0.0
            return await self._slaves.ask(link, request, wait_s)
        outcome, text = "unknown", "the slave did not say whether it did it"
        try:
            answer = await self._slaves.ask(link, request)
            outcome, text = "done", ""
            if isinstance(answer, Refusal):
                outcome, text = answer.code, answer.text
            return answer
        finally:
            self._inbox.put(Noticed(who, described(request, self._core.state), outcome, text))

    async def flush(self, timeout_s: float) -> None:
        """Return once the last words are with the kernel."""
        with trio.move_on_after(timeout_s):
            for client in list(self._clients.values()):
                await client.channel.wait_flushed(inf)
