"""The first words on a link, as two small automata without IO.

The side that dialled says Hi with the protocol versions it speaks and its role. The other picks the
newest common version and says Welcome, or Rejected with a sentence. Nothing else may come first.
"""

from collections.abc import Collection

from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.link_messages import (
    PROTOCOL_NEWEST,
    PROTOCOL_OLDEST,
    Hi,
    LinkRole,
    Message,
    Peer,
    Rejected,
    Welcome,
)


class HandshakeRejected(Exception):  # noqa: N818  (an answer, not a fault)
    """The other side said no. `retry` False: trying again cannot help."""

    def __init__(self, code: str, text: str, retry: bool) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry = retry


class Dialler:
    """The side that dialled: send `hi`, then give the first message to `answered`."""

    def __init__(
        self,
        role: LinkRole,
        software: str,
        name: str = "",
        expect: Peer = "master",
        *,
        secret: str = "",
        ticket: bytes = b"",
    ) -> None:
        self.hi = Hi(role=role, software=software, name=name, secret=secret, ticket=ticket)
        self._expect = expect

    def answered(self, message: Message) -> Welcome:
        """The peer's Welcome; HandshakeRejected or RemoteProtocolError otherwise."""
        if isinstance(message, Rejected):
            raise HandshakeRejected(message.code, message.text, message.retry)
        if not isinstance(message, Welcome):
            raise RemoteProtocolError(f"expected Welcome, got {type(message).__name__}")
        if not self.hi.oldest <= message.version <= self.hi.newest:
            raise RemoteProtocolError(f"was offered protocol {message.version}, which was not on the list")
        if message.peer != self._expect:
            raise HandshakeRejected(
                "wrong-peer", f"this is the port of a {message.peer}, not of a {self._expect}", False
            )
        return message


class Answerer:
    """The side that was dialled: give the first message to `greeted`, send what it returns."""

    def __init__(self, welcome: Welcome, roles: Collection[LinkRole]) -> None:
        self._welcome = welcome
        self._roles = frozenset(roles)

    def greeted(self, message: Message) -> tuple[Hi | None, Welcome | Rejected]:
        """(the peer's Hi, or None where it is rejected; the answer to send)."""
        if not isinstance(message, Hi):
            raise RemoteProtocolError(f"expected Hi, got {type(message).__name__}")
        peer = self._welcome.peer
        if message.role not in self._roles:
            return None, Rejected(code="wrong-role", text=f"this {peer} has no port for a {message.role}")
        version = min(message.newest, PROTOCOL_NEWEST)
        if version < max(message.oldest, PROTOCOL_OLDEST):
            older = peer if message.oldest > PROTOCOL_NEWEST else message.role
            return None, Rejected(
                code="version",
                text=f"this {peer} ({self._welcome.software}) speaks protocol "
                f"{_span(PROTOCOL_OLDEST, PROTOCOL_NEWEST)}, the {message.role} ({message.software}) "
                f"speaks {_span(message.oldest, message.newest)}: upgrade the {older}",
            )
        return message, Welcome(
            version=version,
            peer=peer,
            software=self._welcome.software,
            farm=self._welcome.farm,
            epoch=self._welcome.epoch,
            life=self._welcome.life,
        )


def _span(oldest: int, newest: int) -> str:
    return str(oldest) if oldest == newest else f"{oldest} to {newest}"
