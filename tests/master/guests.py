"""A whole master in this process, on a Unix socket and on a port, and those who come to it."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import trio

from drqueue.address import Address
from drqueue.channel import Channel, LinkClosed
from drqueue.dialling import open_channel
from drqueue.master.daemon import serve
from drqueue.master.listening import listeners
from drqueue.master.storage.statedir import open_state
from drqueue.proto.handshake import Dialler
from drqueue.proto.lines import Line, encoded, parse_line, secret_hash
from drqueue.proto.link_messages import Join, Joined, LinkRole, Message, Rejected
from drqueue.proto.messages import (
    AccountVerb,
    AddLine,
    Audit,
    ListAudit,
    Request,
    Submit,
    Submitted,
    TheLine,
)
from drqueue.proto.model import JobSpec
from drqueue.proto.views import AuditView
from drqueue.settings import MasterSettings
from tests.builders import a_job
from tests.ports import free_port

PATIENCE_S = 20.0
M = TypeVar("M", bound=Message)
_tokens = count(1)


def a_secret() -> str:
    return encoded(secrets.token_bytes(32))


class Guest:
    """Somebody's link to the master, past its handshake."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._rq = count(1)

    async def hear(self, kind: type[M]) -> M:
        """The next message of that kind; others are passed over."""
        with trio.fail_after(PATIENCE_S):
            while True:
                message = await self.channel.receive()
                if isinstance(message, kind):
                    return message

    async def ask(self, kind: type[Request], /, **fields: Any) -> Any:
        """The answer to a request."""
        rq = next(self._rq)
        self.channel.send(kind(rq=rq, **fields))
        with trio.fail_after(PATIENCE_S):
            while True:
                answer = await self.channel.receive()
                if getattr(answer, "rq", None) == rq:
                    return answer

    async def end(self) -> Rejected | None:
        """What is said last, once the link has ended."""
        last = None
        with trio.fail_after(PATIENCE_S):
            try:
                while True:
                    message = await self.channel.receive()
                    last = message if isinstance(message, Rejected) else None
            except LinkClosed:
                return last

    async def submit(self, spec: JobSpec | None = None) -> int:
        """The number of a new job."""
        answer = await self.ask(Submit, token=f"token-{next(_tokens):06d}", spec=spec or a_job("1-3"))
        assert isinstance(answer, Submitted), answer
        return answer.job

    async def line(self, kind: str, **fields: Any) -> Line:
        """A fresh line."""
        answer = await self.ask(AddLine, kind=kind, **fields)
        assert isinstance(answer, TheLine), answer
        return parse_line(answer.line, "node" if kind == "node" else "user")

    async def verb(self, kind: str, name: str, verb: str, **fields: Any) -> Any:
        """What comes of a verb on an account."""
        return await self.ask(AccountVerb, kind=kind, name=name, verb=verb, **fields)

    async def audit(self) -> list[AuditView]:
        """All rows of the audit."""
        answer = await self.ask(ListAudit)
        assert isinstance(answer, Audit), answer
        return list(answer.rows)

    async def told(self, *words: str) -> AuditView:
        """The first row of the audit, waited for, that has all these words in it."""
        cursor = 0
        while True:
            answer = await self.ask(ListAudit, cursor=cursor, wait_s=PATIENCE_S)
            assert isinstance(answer, Audit), answer
            assert answer.rows, f"nothing is told of {words}"
            for row in answer.rows:
                if all(word in str(row) for word in words):
                    return row
            cursor = answer.next


class House:
    """The running master."""

    def __init__(self, settings: MasterSettings, port: int, nursery: trio.Nursery) -> None:
        self.settings = settings
        self.unix = Address("unix", path=settings.socket)
        self.tcp = Address("tcp", host="127.0.0.1", port=port)
        self._nursery = nursery
        self._opened: list[Channel] = []

    async def _open(self, address: Address, pin: str) -> Channel:
        channel = await open_channel(address, pin=pin)
        self._opened.append(channel)
        self._nursery.start_soon(channel.pump)
        return channel

    def close(self) -> None:
        """End all links."""
        for channel in self._opened:
            channel.close()

    async def dial(self, role: LinkRole = "client", *, pin: str = "", secret: str = "") -> Guest:
        """A link over the Unix socket or, with a pin, over the port. Raises HandshakeRejected."""
        channel = await self._open(self.tcp if pin else self.unix, pin)
        with trio.fail_after(PATIENCE_S):
            await channel.dial(Dialler(role, "drqueue test", "guest", secret=secret))
        return Guest(channel)

    async def join(
        self, line: Line, secret: str, *, role: LinkRole = "client", token: str | None = None, **fields: Any
    ) -> Joined | Rejected:
        """What the master answers to this Join."""
        channel = await self._open(self.tcp, line.pin)
        channel.send(
            Join(
                role=role,
                secret_hash=secret_hash(secret),
                token=line.token if token is None else token,
                **fields,
            )
        )
        with trio.fail_after(PATIENCE_S):
            answer = await channel.receive()
            assert isinstance(answer, Joined | Rejected), answer
            # That was all: the master closes.
            try:
                await channel.receive()
            except LinkClosed:
                return answer
        raise AssertionError("the link goes on")

    async def person(self, admin: Guest, name: str, role: str) -> Guest:
        """Somebody new, by a line, on the port."""
        line, secret = await admin.line("user", name=name, role=role), a_secret()
        assert isinstance(await self.join(line, secret), Joined)
        return await self.dial(pin=line.pin, secret=secret)

    async def node(self, admin: Guest, name: str = "n1", **hello: Any) -> tuple[Guest, Line, str]:
        """A slave's link of a new node, its Hello not said yet; the line and the secret."""
        line, secret = await admin.line("node", name=name), a_secret()
        joined = await self.join(line, secret, role="slave", name=name)
        assert isinstance(joined, Joined), joined
        return await self.dial("slave", pin=line.pin, secret=secret), line, secret


@asynccontextmanager
async def a_house(state: Path, *, patient: bool = True, **settings: Any) -> AsyncIterator[House]:
    """A master that runs as long as this. Unless `patient`, it may not be up yet."""
    port = free_port()
    asked = MasterSettings(state_dir=str(state), listen=f"127.0.0.1:{port}", **settings)
    with closing(open_state(str(state))) as opened, listeners(asked) as sockets:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, asked, opened, sockets)
            house = House(asked, port, nursery)
            try:
                # What answers is up, and has made its files.
                if patient:
                    (await house.dial()).channel.close()
                yield house
            finally:
                house.close()
                nursery.cancel_scope.cancel()
