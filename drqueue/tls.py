"""TLS as the farm speaks it, as an automaton over bytes, and its contexts. No IO but reading PEM files.

Rules: TLS 1.3 and nothing older; no tickets, no resumption, no compression, no certificate of the client's.
Nobody asks an authority: who dials compares the SHA-256 of the certificate that it is shown (the pin) with
the one that it was given, before it says a word. Whatever a peer's bytes do wrong is a RemoteProtocolError.
"""

import functools
import hmac
import os
import ssl

from drqueue.proto import lines
from drqueue.proto.errors import RemoteProtocolError

#: Bytes given to OpenSSL, or fetched from it, at once: a record's. It never gives a larger buffer back.
_SLICE = 16 * 1024
#: What OpenSSL's reasons mean here; the others are shown as they are.
_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it speaks HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "it speaks HTTP, not TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS 1.3",
    "NO_SHARED_CIPHER": "it has no cipher in common with this side",
}


class PinMismatch(Exception):  # noqa: N818  (what was found, not a fault)
    """Another certificate than the one that is trusted; the text is one sentence that names both."""

    def __init__(self, where: str, trusted: str, seen: str) -> None:
        super().__init__(
            f"{where} shows the certificate {seen}, and {trusted} is the trusted one: this is another "
            "machine, or one sits between, or it was set up anew (then ask for a new line)"
        )
        self.trusted = trusted
        self.seen = seen


class TlsSession:
    """One side of one TLS link: encrypted bytes in and out, plain bytes in and out.

    First `shake` until it says True, then `seal` and `unseal`. After each of them, a failed one too, the
    bytes that `to_send` returns belong to the peer.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self.server_side = server_side
        #: The peer said that nothing more comes.
        self.ended = False
        self._broken = False

    def shake(self, data: bytes) -> bool:
        """Take the peer's bytes (none at first); True once the handshake is over. RemoteProtocolError."""
        self._incoming.write(data)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._failed(error) from error
        return True

    def to_send(self) -> bytes:
        """What TLS itself has to say to the peer."""
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        """The bytes to send for these; nothing once the link is broken."""
        if self._broken or not data:
            return b""
        try:
            # By far the most messages are small: no slicing for them.
            if len(data) <= _SLICE:
                self._ssl.write(data)
                return self._outgoing.read()
            sealed = []
            for start in range(0, len(data), _SLICE):
                self._ssl.write(data[start : start + _SLICE])
                sealed.append(self._outgoing.read())
            return b"".join(sealed)
        except ssl.SSLError:
            # Only its reader is told why.
            self._broken = True
            return b""

    def unseal(self, data: bytes) -> bytes:
        """What the peer said in these bytes; nothing while no record is whole. RemoteProtocolError."""
        if len(data) <= _SLICE:
            return self._unseal(data)
        slices = range(0, len(data), _SLICE)
        return b"".join([self._unseal(data[start : start + _SLICE]) for start in slices])

    def _unseal(self, data: bytes) -> bytes:
        incoming = self._incoming
        incoming.write(data)
        plain = b""
        try:
            while incoming.pending and not self.ended:
                part = self._ssl.read(_SLICE)
                plain = plain + part if plain else part
                self.ended = not part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise self._failed(error) from error
        return plain

    def peer_pin(self) -> str:
        """The pin of the certificate that the peer showed in the handshake, "" where it showed none."""
        certificate = self._ssl.getpeercert(binary_form=True)
        return lines.pin_of(certificate) if certificate else ""

    def check_pin(self, pin: str, where: str) -> None:
        """Raise PinMismatch unless the peer at `where` showed the certificate of this pin."""
        seen = self.peer_pin()
        if not seen or not hmac.compare_digest(seen.encode(), pin.encode()):
            raise PinMismatch(where, pin, seen or "none")

    def _failed(self, error: ssl.SSLError) -> RemoteProtocolError:
        self._broken = True
        reason = error.reason or str(error)
        words = _REASONS.get(reason, reason.lower().replace("_", " "))
        return RemoteProtocolError(f"TLS failed: {words}")


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """The listening side's, from two PEM files. Raises OSError (ssl.SSLError is one), ValueError."""
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    # An encrypted key would ask for its passphrase on the terminal.
    context.load_cert_chain(certificate, key, password=_no_passphrase)
    context.num_tickets = 0
    return context


def server_context_from(certificate_pem: str, key_pem: str) -> ssl.SSLContext:
    """The listening side's, from PEM texts; they touch no file system. Raises OSError, ValueError."""
    fd = os.memfd_create("tls")
    try:
        with open(fd, "w", encoding="ascii", closefd=False) as file:
            file.write(f"{certificate_pem}\n{key_pem}\n")
        path = f"/proc/self/fd/{fd}"
        return server_context(path, path)
    finally:
        os.close(fd)


@functools.cache
def client_context() -> ssl.SSLContext:
    """The dialling side's; it believes every certificate: check the pin after the handshake."""
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def pin_of_pem(certificate_pem: str) -> str:
    """The pin of the certificate in a PEM text; ValueError where there is none."""
    return lines.pin_of(ssl.PEM_cert_to_DER_cert(certificate_pem.strip()))


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    return context


def _no_passphrase() -> bytes:
    raise ValueError("the key is encrypted with a passphrase")
