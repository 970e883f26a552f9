"""TLS as an automaton: bytes cut anywhere, garbage, old versions, pins. No sockets."""

import contextlib
import itertools
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue import tls
from drqueue.proto import lines
from drqueue.proto.errors import RemoteProtocolError
from drqueue.tls import PinMismatch
from tests.secured import certificate, pin, server, sessions, shaken

OTHER = lines.pin_of(b"another")


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at those places."""
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


@given(
    said=st.lists(st.binary(max_size=200), max_size=5), cuts=st.lists(st.integers(0, 100_000), max_size=20)
)
def test_bytes_come_whole_and_in_order_however_they_are_cut(said: list[bytes], cuts: list[int]) -> None:
    near, far = shaken()
    sealed = b"".join(near.seal(part) for part in said)
    assert b"".join(far.unseal(piece) for piece in pieces(sealed, cuts) if piece) == b"".join(said)


@given(cuts=st.lists(st.integers(0, 100_000), max_size=30))
def test_a_handshake_may_come_in_any_pieces(cuts: list[int]) -> None:
    near, far = sessions()
    near.shake(b"")
    for piece in pieces(near.to_send(), cuts):
        assert not far.shake(piece)
    flight = pieces(far.to_send(), cuts)
    assert [near.shake(piece) for piece in flight if piece][-1]
    done = [far.shake(piece) for piece in pieces(near.to_send(), cuts) if piece]
    assert done[-1]
    assert not any(done[:-1])


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 300_000])
def test_long_words_come_back_as_they_were(size: int) -> None:
    near, far = shaken()
    said = os.urandom(size)
    sealed = far.seal(said)
    assert near.unseal(sealed) == said
    # A byte or two may well occur by chance.
    assert size < 16 or said[:16] not in sealed


def test_first_words_may_come_with_the_end_of_the_handshake() -> None:
    near, far = sessions()
    near.shake(b"")
    far.shake(near.to_send())
    near.shake(far.to_send())
    assert far.shake(near.to_send() + near.seal(b"hello"))
    assert far.unseal(b"") == b"hello"


def test_the_peers_farewell_is_heard_and_its_words_before_it() -> None:
    near, far = shaken()
    last = near.seal(b"bye")
    with pytest.raises(ssl.SSLWantReadError):
        near._ssl.unwrap()
    assert far.unseal(last + near.to_send()) == b"bye"
    assert far.ended
    assert far.unseal(b"anything") == b""


# -- hostile bytes ---------------------------------------------------------------------------------------


@given(data=st.binary(min_size=1, max_size=300))
def test_garbage_for_a_handshake_is_the_peers_fault(data: bytes) -> None:
    _near, far = sessions()
    with contextlib.suppress(RemoteProtocolError):
        assert not far.shake(data)


@given(data=st.binary(min_size=1, max_size=300))
def test_garbage_after_the_handshake_is_the_peers_fault(data: bytes) -> None:
    _near, far = shaken()
    try:
        assert far.unseal(data) == b""
    except RemoteProtocolError:
        assert far.seal(b"words into the void") == b""


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_never_taken_for_words(at: int, bit: int) -> None:
    near, far = shaken()
    sealed = bytearray(near.seal(b"x" * 100))
    sealed[at % len(sealed)] ^= 1 << bit
    with contextlib.suppress(RemoteProtocolError):
        assert far.unseal(bytes(sealed)) == b""


def test_who_breaks_tls_is_told_so() -> None:
    near, far = shaken()
    with pytest.raises(RemoteProtocolError):
        far.unseal(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(RemoteProtocolError, match="alert"):
        near.unseal(far.to_send())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\x00\x00\x0a\x81\xa1t\xa2hi\xa4role", "it does not speak TLS"),
        (b"GET / HTTP/1.1\r\nHost: farm\r\n\r\n", "it speaks HTTP, not TLS"),
        (b"\xff\xff\xff\xff" * 4, "it does not speak TLS"),
    ],
)
def test_other_protocols_are_called_by_their_names(data: bytes, words: str) -> None:
    _near, far = sessions()
    with pytest.raises(RemoteProtocolError, match=words):
        far.shake(data)


def test_tls_1_2_is_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    near, (_, far) = tls.TlsSession(old, server_side=False), sessions()
    near.shake(b"")
    with pytest.raises(RemoteProtocolError, match=r"no TLS 1\.3"):
        far.shake(near.to_send())
    with pytest.raises(RemoteProtocolError, match=r"no TLS 1\.3"):
        near.shake(far.to_send())


def test_a_server_of_tls_1_2_is_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    near, far = sessions()[0], tls.TlsSession(old, server_side=True)
    near.shake(b"")
    with pytest.raises(RemoteProtocolError):
        far.shake(near.to_send())
    with pytest.raises(RemoteProtocolError, match=r"no TLS 1\.3"):
        near.shake(far.to_send())


def test_what_is_spoken_is_tls_1_3_without_tickets() -> None:
    near, far = shaken()
    assert near._ssl.version() == far._ssl.version() == "TLSv1.3"
    assert near._ssl.compression() is None
    # Tickets would have come by now.
    near.unseal(far.seal(b"x"))
    assert not near._ssl.session.has_ticket


# -- pins and contexts -----------------------------------------------------------------------------------


def test_the_pin_of_a_file_is_that_of_the_link() -> None:
    near, far = shaken()
    assert near.peer_pin() == pin()
    near.check_pin(pin(), "here")
    assert far.peer_pin() == ""


@pytest.mark.parametrize("wrong", [OTHER, "", "\N{SNOWMAN}"])
def test_another_pin_is_named_with_the_one_that_was_seen(wrong: str) -> None:
    near, _far = shaken()
    with pytest.raises(PinMismatch, match="another machine") as caught:
        near.check_pin(wrong, "10.0.0.1:1234")
    assert (caught.value.trusted, caught.value.seen) == (wrong, pin())
    assert all(part in str(caught.value) for part in (wrong, pin(), "10.0.0.1:1234"))


def test_who_shows_no_certificate_is_not_trusted() -> None:
    _near, far = shaken()
    with pytest.raises(PinMismatch):
        far.check_pin("", "here")


def test_no_pin_without_a_certificate() -> None:
    for text in ("", "-----BEGIN CERTIFICATE-----", "drivel"):
        with pytest.raises(ValueError):  # noqa: PT011
            tls.pin_of_pem(text)


def test_a_context_from_texts_touches_no_file_and_keeps_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = os.listdir("/proc/self/fd")
    tls.server_context_from(*certificate())
    assert os.listdir("/proc/self/fd") == before
    assert not list(tmp_path.iterdir())


def test_a_key_of_another_certificate_is_refused() -> None:
    from drqueue.master.certificate import make_certificate

    with pytest.raises(ssl.SSLError):
        tls.server_context_from(certificate()[0], make_certificate("other")[1])


def test_an_encrypted_key_asks_nobody() -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(certificate()[1].encode(), None)
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    with pytest.raises(ValueError, match="passphrase"):
        tls.server_context_from(certificate()[0], text.decode())


def test_a_link_without_tls_loads_none() -> None:
    """Slaves on the master's own machine stay small."""
    code = "import sys, drqueue.channel; sys.exit('drqueue.tls' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_server_has_no_renegotiation_and_no_older_version() -> None:
    for context in (server(), tls.client_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert server().num_tickets == 0
