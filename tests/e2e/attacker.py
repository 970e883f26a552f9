"""A hostile peer as a process of its own: `attacker.py PORT SOURCE WHAT [WORD...]`; prints as JSON what came.

What it throws is counted by how that ended: the code of a Rejected or Refusal, `closed` (without a word),
`open` (it was still open when this side gave up).
"""

import json
import secrets
import select
import socket
import ssl
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import msgpack

HOST = "127.0.0.1"
PATIENCE_S = 30.0
THREADS = 8
LARGEST, LARGEST_EARLY = 256 * 1024, 4096


def framed(body: bytes) -> bytes:
    """A packet."""
    return struct.pack(">I", len(body)) + body


def packet(**fields: object) -> bytes:
    """A message as it goes over a link."""
    return framed(msgpack.packb(fields))


def hi(secret: str) -> bytes:
    """First words of a client."""
    return packet(t="hi", role="client", oldest=1, newest=1, software="attacker", secret=secret)


def bombs(size: int, *, answered: bool) -> Iterator[bytes]:
    """Bodies of about that size, cheap to send and dear where somebody is careless. `answered`: also such as
    a peer may hear to the end, since they are messages, or will be some day."""
    room = size - 64
    # Maps with one more entry, whose value is the bomb.
    known = b"\x83\xa1t\xa8farminfo\xa2rq\x01\xa1x"
    starts = [b"", known, known.replace(b"farminfo", b"whatever")]
    for start in starts if answered else starts[:1]:
        # Nested: arrays and maps, each in the former.
        yield start + b"\x91" * room + b"\xc0"
        yield start + b"\x81\xa1k" * (room // 3) + b"\xc0"
        # Wide: as many small things as fit, flat and two deep, in arrays and in maps.
        yield start + b"\xdd" + struct.pack(">I", room) + b"\xc0" * room
        few = min(20_000, room // 12)
        yield start + b"\xdc" + struct.pack(">H", few) + (b"\x9b" + b"\x90" * 11) * few
        few = min(20_000, room)
        yield start + b"\xdc" + struct.pack(">H", few) + b"\x90" * few
        few = min(2000, room // 6)
        pairs = b"".join(b"\xa4%04d\x90" % n for n in range(few))
        yield start + b"\xde" + struct.pack(">H", few) + pairs
        # Lengths that are lies: arrays, maps, texts, bytes and extensions of 4 GB.
        for kind in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
            yield start + kind + b"\xff\xff\xff\xff" + b"\x01" * 16
        # The same in every one of many.
        yield start + b"\xdc\x4e\x20" + b"\xdd\xff\xff\xff\xff" * (room // 5)
    # Numbers, texts and times that are none.
    yield msgpack.packb({"t": "farminfo", "rq": 2**64 - 1})
    yield msgpack.packb({"t": "farminfo", "rq": "1" * room})
    yield b"\x82\xa1t\xa8farminfo\xa2rq\xd6\xff\x00\x00\x00\x00"
    yield b"\x82\xa1t\xff\xa2rq\x01"
    yield b"\xc1" * room


class Attacker:
    """Throws things at a port from an address."""

    def __init__(self, port: int, source: str) -> None:
        self._port = port
        self._source = source
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.ends: Counter[str] = Counter()

    def plain(self) -> socket.socket:
        """A connection before TLS."""
        return socket.create_connection(
            (HOST, self._port), timeout=PATIENCE_S, source_address=(self._source, 0)
        )

    def link(self) -> ssl.SSLSocket:
        """A connection past TLS."""
        plain = self.plain()
        try:
            return self._context.wrap_socket(plain)
        except OSError:
            plain.close()
            raise

    def throw(self, *words: bytes) -> None:
        """Say this on a new link and count how that ends."""
        try:
            with self.link() as link:
                for word in words:
                    link.sendall(word)
                self.ends[self.end_of(link)] += 1
        except TimeoutError:
            self.ends["open"] += 1
        except OSError:
            self.ends["closed"] += 1

    def throw_plain(self, words: bytes) -> None:
        """Say this without TLS and count how that ends."""
        heard = b""
        try:
            with self.plain() as link:
                link.sendall(words)
                while part := link.recv(65536):
                    heard += part
        except TimeoutError:
            self.ends["open"] += 1
            return
        except OSError:
            pass
        # An alert of TLS is a record of type 21 that says which.
        alert = heard[:1] == b"\x15" and len(heard) < 20
        self.ends["answered" if heard and not alert else "closed"] += 1

    def old(self) -> None:
        """Offer TLS 1.2 and nothing newer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.plain() as plain:
            try:
                context.wrap_socket(plain)
            except (ssl.SSLError, ConnectionError):
                self.ends["closed"] += 1
            else:
                self.ends["answered"] += 1

    def end_of(self, link: ssl.SSLSocket) -> str:
        """How a link ends: its last packet that says no, if any."""
        heard = b""
        try:
            while part := link.recv(65536):
                heard += part
        except TimeoutError:
            return "open"
        except OSError:
            pass
        end = "closed"
        while len(heard) >= 4:
            (length,) = struct.unpack(">I", heard[:4])
            message = msgpack.unpackb(heard[4 : 4 + length])
            end = message.get("code", end)
            heard = heard[4 + length :]
        return end

    def many(self, times: int, one: Callable[[], None]) -> None:
        """Do something so often, in several threads."""

        def work(share: int) -> None:
            for _ in range(share):
                one()

        shares = [times // THREADS + (n < times % THREADS) for n in range(THREADS)]
        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def bad_logins(attacker: Attacker, times: str, cheap: str) -> None:
    """So many logins with secrets that nobody has, and so many that never get as far as TLS."""
    attacker.many(int(times), lambda: attacker.throw(hi(secrets.token_hex(26))))
    attacker.many(int(cheap), lambda: attacker.throw_plain(hi(secrets.token_hex(26))))


def other_tongues(attacker: Attacker) -> None:
    """What is not TLS 1.3."""
    attacker.throw_plain(hi("a" * 52))
    attacker.throw_plain(b"GET / HTTP/1.0\r\n\r\n" * 100)
    attacker.throw_plain(secrets.token_bytes(4096))
    # The beginning of a handshake that claims to be long.
    attacker.throw_plain(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16384))
    attacker.old()
    attacker.throw(hi("a" * 52))
    attacker.throw(packet(t="farminfo", rq=1))
    attacker.throw(b"GET / HTTP/1.0\r\n\r\n" * 10)


def early(attacker: Attacker) -> None:
    """As first words: bombs, and packets that claim to be larger than they may be."""
    for size in (LARGEST_EARLY + 1, LARGEST, 2**31, 2**32 - 1):
        attacker.throw(struct.pack(">I", size), b"\xc0" * 1024)
    for bomb in bombs(LARGEST_EARLY, answered=False):
        attacker.throw(framed(bomb))


def trusted(attacker: Attacker, secret: str, times: str) -> None:
    """The same, larger, from somebody who may look."""
    for size in (LARGEST + 1, 2**31, 2**32 - 1):
        attacker.throw(hi(secret), struct.pack(">I", size), b"\xc0" * 65536)
    for bomb in bombs(LARGEST, answered=True):
        # What ends the link for certain is said last.
        attacker.throw(hi(secret), framed(bomb) * int(times), packet(t="hi", role="client"))


def slow(attacker: Attacker, silent: str, slowly: str) -> None:
    """So many links that say nothing, and so many that say a good handshake byte by byte; each is begun anew
    when it is ended, until stdin ends."""
    hello = ssl_hello()
    links = [attacker.plain() for _ in range(int(silent) + int(slowly))]
    said = [0] * len(links)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        for n, link in enumerate(links):
            try:
                link.setblocking(False)
                if n >= int(silent):
                    link.send(hello[said[n] : said[n] + 1])
                    said[n] += 1
                over = not link.recv(1)
            except BlockingIOError:
                continue
            except OSError:
                over = True
            if over:
                attacker.ends["closed"] += 1
                link.close()
                links[n], said[n] = attacker.plain(), 0
    for link in links:
        link.close()


def ssl_hello() -> bytes:
    """The first words of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    link = context.wrap_bio(incoming, outgoing)
    try:
        link.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake with nobody")


WHAT: dict[str, Callable[..., None]] = {
    "bad-logins": bad_logins,
    "other-tongues": other_tongues,
    "early": early,
    "trusted": trusted,
    "slow": slow,
}


def main(port: str, source: str, what: str, *words: str) -> None:
    attacker = Attacker(int(port), source)
    WHAT[what](attacker, *words)
    print(json.dumps(attacker.ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
