"""A scripted master, or slave's control port, by TLS on the loopback; and ways in for it."""

import socket
from collections.abc import Callable
from pathlib import Path

from drqueue.access import Access, write_access
from drqueue.channel import Channel
from drqueue.proto import lines
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import Hi, Join, Joined, Message, Rejected, Welcome
from drqueue.settings import Address
from drqueue.tls import TlsSession
from tests import secured
from tests.client.peer import Peer

SECRET = lines.encoded(bytes(range(32)))
TOKEN = lines.encoded(bytes(range(20)))


class SecuredPeer(Peer):
    """As `Peer`. `judge` says no to a Hi; `admit` answers a Join; `greetings` and `joins` keep them."""

    def __init__(self, peer: str = "master") -> None:
        super().__init__("", peer)
        self.port = 0
        self.greetings: list[Hi] = []
        self.joins: list[Join] = []
        self.judge: Callable[[Hi], Rejected | None] = lambda hi: None
        self.admit: Callable[[Join], Message | None] = lambda join: Joined(
            farm="f00", account=lines.account_id(join.secret_hash), name="anna", role="artist"
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def place(self) -> Address:
        return Address("tcp", host="127.0.0.1", port=self.port)

    def line(self, *, kind: lines.LineKind = "user", token: str = TOKEN, pin: str = "") -> str:
        """The line that brings somebody here."""
        return str(
            lines.Line(kind=kind, host="127.0.0.1", port=self.port, pin=pin or secured.pin(), token=token)
        )

    def listen(self) -> socket.socket:
        # The same port again after a restart.
        sock = socket.create_server(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        return sock

    async def greet(self, channel: Channel) -> bool:
        await channel.secure(TlsSession(secured.server(), server_side=True))
        message = await channel.first_message()
        if isinstance(message, Join):
            self.joins.append(message)
            answer = self.admit(message)
            if answer is not None:
                channel.send(answer)
            return False
        assert isinstance(message, Hi)
        self.greetings.append(message)
        no = self.judge(message)
        if no is not None:
            channel.send(no)
            return False
        welcome = Welcome(version=1, peer=self.peer, software="test")  # type: ignore[arg-type]
        return channel.greet(Answerer(welcome, ["client"]), message) is not None


def way_in(port: int, *, pin: str = "", secret: str = SECRET, host: str = "127.0.0.1") -> Access:
    """A way into the farm whose master is there."""
    return Access(
        host=host,
        port=port,
        pin=pin or secured.pin(),
        farm=f"farm{host}{port}",
        account="0123456789abcdef",
        name="anna",
        role="artist",
        secret=secret,
    )


def keep(folder: Path, *ways: Access) -> dict[str, str]:
    """The environment of somebody who has these ways in, and no farm of their own."""
    path = folder / "access.json"
    write_access(str(path), ways)
    return {
        "DRQUEUE_ACCESS": str(path),
        "DRQUEUE_STATE_DIR": str(folder / "nothing"),
        "XDG_STATE_HOME": str(folder),
    }
