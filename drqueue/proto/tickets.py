"""Tickets: how a slave knows a client whom only the master has ever met.

The master shares a key with each slave. A ticket is a packed claim (who, with which role, at which slave,
until when) and its HMAC-SHA256 under that key. Rules: times are the master's; a slave reckons them from what
the master said with the key, so that no two machines' clocks are compared. A ticket that fails is refused
without saying which part of it was wrong, but for its age.
"""

import hashlib
import hmac
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from drqueue.proto.roles import PEOPLE, Role

#: Seconds that a ticket is good for; a link that it opened stands longer.
LIFE_S = 300.0
KEY_BYTES = 32
_MAC_BYTES = 32


class Claim(Struct, frozen=True, array_like=True):
    """What a ticket says. `account` is "" for somebody of the master's own machine."""

    name: str
    role: Role
    account: str
    slave: int
    expires_at: float


class TicketError(Exception):
    """A ticket that opens nothing: `code` for programs, one sentence for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def slave_key(seed: bytes, slave: int, generation: int) -> bytes:
    """The key that a master with this seed shares with a slave, of its nth generation."""
    return hmac.digest(seed, b"ticket key %d %d" % (slave, generation), "sha256")


def issue(claim: Claim, key: bytes) -> bytes:
    """The ticket for a claim."""
    body = msgspec.msgpack.encode(claim)
    return hmac.digest(key, body, hashlib.sha256) + body


def check(ticket: bytes, keys: Iterable[bytes], slave: int, now: float) -> Claim:
    """The claim of a ticket for this slave, made with one of these keys; raises TicketError."""
    mac, body = ticket[:_MAC_BYTES], ticket[_MAC_BYTES:]
    good = [key for key in keys if hmac.compare_digest(mac, hmac.digest(key, body, hashlib.sha256))]
    if not good:
        raise TicketError("bad-ticket", "this ticket is not of this slave's master, or not for this slave")
    try:
        claim = msgspec.msgpack.decode(body, type=Claim)
    except (ValueError, RecursionError):  # also text that is no UTF-8
        raise TicketError("bad-ticket", "this ticket cannot be read") from None
    if claim.slave != slave or claim.role not in PEOPLE:
        raise TicketError("bad-ticket", "this ticket is not of this slave's master, or not for this slave")
    if not now <= claim.expires_at <= now + 2 * LIFE_S:
        raise TicketError("old-ticket", "this ticket is no longer good: ask the master for a new one")
    return claim
