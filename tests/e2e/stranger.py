"""Somebody who was not let in tries a port: `stranger.py HOST PORT WHAT [WORD]`; says what became of it.

closed: the other side ended it without a word. alert: with a TLS alert. rejected: with a Rejected. answered:
it said something else. no handshake: TLS did not come about.
"""

import socket
import ssl
import struct
import sys

import msgpack

#: Well below the ten seconds after which whoever says nothing is turned out anyway.
PATIENCE_S = 6.0


def packet(message: object) -> bytes:
    """A message as it goes over a link."""
    body: bytes = msgpack.packb(message)
    return struct.pack(">I", len(body)) + body


def hi(**fields: object) -> bytes:
    """First words of a client."""
    return packet({"t": "hi", "role": "client", "oldest": 1, "newest": 1, "software": "stranger", **fields})


def received(link: socket.socket) -> bytes:
    """All that comes until the end, of which there must be one."""
    parts = []
    try:
        while part := link.recv(65536):
            parts.append(part)
    except TimeoutError:
        sys.exit("it is still open")
    except OSError:
        parts.append(b"")
    return b"".join(parts)


def verdict(said: bytes) -> str:
    """What the bytes amount to."""
    if not said:
        return "closed"
    try:
        message = msgpack.unpackb(said[4:])
    except ValueError:
        return "answered"
    return "rejected" if message.get("t") == "rejected" else "answered"


def main(host: str, port: str, what: str, *words: str) -> str:
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain:
        if what in ("garbage", "plain-hi"):
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n" * 400 if what == "garbage" else hi())
            said = received(plain)
            # A TLS alert is a record of type 21, of a few bytes.
            return "closed" if not said else "alert" if said[0] == 21 and len(said) < 20 else "answered"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if what == "old-tls":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            link = context.wrap_socket(plain)
        except (ssl.SSLError, ConnectionError):
            return "no handshake"
        with link:
            link.sendall(
                {
                    "old-tls": b"",
                    "nothing-shown": hi(),
                    "wrong-secret": hi(secret="a" * 52, ticket=b"\0" * 80),
                    "secret": hi(secret="".join(words)),
                    # The body is never sent: who says that so much comes is not waited for.
                    "claims-4097": struct.pack(">I", 4097),
                    "garbage-inside": struct.pack(">I", 64) + b"\xc1" * 64,
                    "asks-first": packet({"t": "listjobs", "rq": 0}),
                }[what]
            )
            return verdict(received(link))


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
