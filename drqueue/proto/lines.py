"""The one line that brings a node or a person to a farm, and what secrets look like.

    drqueue1:node:192.168.1.10:1234:PIN:TOKEN          drqueue1:user:[fd00::1]:1234:PIN:TOKEN

PIN is the SHA-256 of the master's certificate (DER), TOKEN the one-time token, both in base32 of lower-case
letters without padding. Rules: a token or secret is kept by its owner alone; all others keep its SHA-256,
in hex. An account's id is the beginning of its first secret's hash.
"""

import hashlib
import re
from base64 import b32decode, b32encode
from typing import Literal

from msgspec import Struct

LineKind = Literal["node", "user"]

TOKEN_BYTES = 20
SECRET_BYTES = 32
PIN_BYTES = 32
_PREFIX = "drqueue1"
#: What every line begins with.
BEGINNING = f"{_PREFIX}:"


class LineError(ValueError):
    """Not a line of ours; the text is one sentence for whoever pasted it."""


class Line(Struct, frozen=True, kw_only=True):
    """What a line says. `pin` and `token` are as printed."""

    kind: LineKind
    host: str
    port: int
    pin: str
    token: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_PREFIX}:{self.kind}:{host}:{self.port}:{self.pin}:{self.token}"


def parse_line(text: str, kind: LineKind) -> Line:
    """The line in a text, of the kind that is wanted here; LineError otherwise."""
    text = "".join(text.split())
    found = re.fullmatch(
        _PREFIX + r":(node|user):(\[[0-9a-fA-F:.%a-z]+\]|[^:\[\]/]+):(\d{1,5}):([a-z2-7]+):([a-z2-7]+)", text
    )
    if found is None:
        raise LineError(
            f"this is no line of a farm: it begins with {_PREFIX}:{kind}: and has six parts; paste it whole"
        )
    what, host, port, pin, token = found.groups()
    if what != kind:
        use = "drqueue-slave join" if what == "node" else "drqueue login"
        raise LineError(f"this line is for a {what}: use it with {use}")
    if not 0 < int(port) < 65536 or len(decoded(pin)) != PIN_BYTES or len(decoded(token)) != TOKEN_BYTES:
        raise LineError("this line is damaged: paste it again, whole")
    return Line(kind=what, host=host.strip("[]"), port=int(port), pin=pin, token=token)


def is_whole(text: str) -> bool:
    """Whether a text is a line, of whatever kind, and not just the beginning of one."""
    kind: LineKind = "user" if text.startswith(f"{BEGINNING}user:") else "node"
    try:
        parse_line(text, kind)
    except LineError:
        return False
    return True


def encoded(data: bytes) -> str:
    """Bytes as they stand in a line."""
    return b32encode(data).decode().rstrip("=").lower()


def decoded(text: str) -> bytes:
    """The bytes of a text from a line; b"" where it is none."""
    try:
        return b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError:
        return b""


def pin_of(certificate: bytes) -> str:
    """The pin of a certificate (DER)."""
    return encoded(hashlib.sha256(certificate).digest())


def secret_hash(secret: str) -> str:
    """What everybody but the owner keeps of a token or a secret, as printed: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def account_id(first_hash: str) -> str:
    """The id of the account whose first secret has this hash."""
    return first_hash[:16]


def approval_code(pin: str, asked_hash: str) -> str:
    """What a node that asks without a line shows, and `drqueue node pending` too: alike where nobody sits
    between them, since it is made from the certificate that each side sees."""
    code = encoded(hashlib.sha256(f"{pin} {asked_hash}".encode()).digest())[:12].upper()
    return "-".join((code[:4], code[4:8], code[8:]))
