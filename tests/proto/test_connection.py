"""Packets: however the bytes are chopped, the same messages come out; limits hold before a body is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.codec import MAX_BODY, MAX_BODY_EARLY
from drqueue.proto.connection import CLOSED, NEED_DATA, Connection, Signal
from drqueue.proto.errors import LocalProtocolError, RemoteProtocolError
from drqueue.proto.link_messages import Beat, Message
from drqueue.proto.messages import Refusal
from tests.proto.examples import EXAMPLES


def established() -> Connection:
    connection = Connection()
    connection.established()
    return connection


def everything(connection: Connection) -> list[Message]:
    found = []
    while not isinstance(message := connection.next_message(), Signal):
        found.append(message)
    return found


def of_size(size: int) -> Refusal:
    """A message with a body of that many bytes."""
    empty = len(established().send(Refusal(rq=1, code="c", text="x" * 70_000))) - 4 - 70_000
    for text in range(size - empty - 8, size):
        message = Refusal(rq=1, code="c", text="x" * text)
        try:
            if len(established().send(message)) - 4 == size:
                return message
        except LocalProtocolError:
            break
    raise AssertionError(f"no message of {size} bytes")


@given(st.lists(st.sampled_from(EXAMPLES), max_size=5), st.data())
def test_chopping_changes_nothing(messages: list[Message], data: st.DataObject) -> None:
    sender, receiver = established(), established()
    stream = b"".join(sender.send(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    found: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start != end:
            receiver.receive(stream[start:end])
        if data.draw(st.booleans()):
            found += everything(receiver)
    found += everything(receiver)
    assert found == messages
    receiver.receive(b"")
    assert receiver.next_message() is CLOSED


def test_byte_by_byte() -> None:
    receiver = established()
    found = []
    for byte in established().send(EXAMPLES[4]) * 2:
        receiver.receive(bytes([byte]))
        found += everything(receiver)
    assert found == [EXAMPLES[4]] * 2


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_end_in_an_error_or_in_nothing(data: bytes, late: bool) -> None:
    receiver = established() if late else Connection()
    receiver.receive(data)
    receiver.receive(b"")
    with_end = False
    try:
        everything(receiver)
        with_end = receiver.next_message() is CLOSED
    except RemoteProtocolError:
        return
    assert with_end


def test_no_bytes_yet() -> None:
    receiver = Connection()
    assert receiver.next_message() is NEED_DATA
    receiver.receive(b"\x00\x00")
    assert receiver.next_message() is NEED_DATA


@pytest.mark.parametrize("cut", [1, 3, 4, 5])
def test_an_end_inside_a_packet_is_the_peers_fault(cut: int) -> None:
    receiver = Connection()
    receiver.receive(Connection().send(Beat())[:cut])
    receiver.receive(b"")
    with pytest.raises(RemoteProtocolError, match=f"inside a packet \\({cut} bytes"):
        receiver.next_message()


def test_whole_packets_before_the_end_are_still_read() -> None:
    receiver = Connection()
    receiver.receive(Connection().send(Beat()) * 2)
    receiver.receive(b"")
    assert everything(receiver) == [Beat(), Beat()]
    assert receiver.next_message() is CLOSED


@pytest.mark.parametrize(
    ("late", "length", "fine"),
    [
        (False, 0, False),
        (False, MAX_BODY_EARLY, True),
        (False, MAX_BODY_EARLY + 1, False),
        (True, MAX_BODY_EARLY + 1, True),
        (True, MAX_BODY, True),
        (True, MAX_BODY + 1, False),
        (True, 2**32 - 1, False),
    ],
)
def test_a_length_is_judged_before_its_body_comes(late: bool, length: int, fine: bool) -> None:
    receiver = established() if late else Connection()
    receiver.receive(length.to_bytes(4, "big"))
    if fine:
        assert receiver.next_message() is NEED_DATA
    else:
        with pytest.raises(RemoteProtocolError, match=f"{length} bytes"):
            receiver.next_message()


def test_a_sender_keeps_to_the_limits_itself() -> None:
    early, late = of_size(MAX_BODY_EARLY), of_size(MAX_BODY)
    packet = Connection().send(early)
    receiver = Connection()
    receiver.receive(packet)
    assert receiver.next_message() == early
    with pytest.raises(LocalProtocolError):
        Connection().send(of_size(MAX_BODY_EARLY + 1))
    receiver.established()
    receiver.receive(established().send(late))
    assert receiver.next_message() == late
    with pytest.raises(LocalProtocolError):
        established().send(Refusal(rq=1, code="c", text=late.text + "x"))


def test_limits_are_lifted_for_what_lies_there_already() -> None:
    """The peer may send at full size with its first words after the handshake."""
    receiver = Connection()
    big = of_size(MAX_BODY_EARLY + 1)
    receiver.receive(Connection().send(Beat()) + established().send(big))
    assert receiver.next_message() == Beat()
    receiver.established()
    assert receiver.next_message() == big


def test_unknown_messages_are_passed_over() -> None:
    unknown = b"\x81\xa1t\xa3new"
    receiver = Connection()
    beat = Connection().send(Beat())
    receiver.receive(len(unknown).to_bytes(4, "big") + unknown + beat)
    assert everything(receiver) == [Beat()]


def test_what_was_read_is_let_go() -> None:
    """A long-lived link does not grow."""
    receiver = established()
    packet = established().send(of_size(60_000))
    for _ in range(50):
        receiver.receive(packet + packet[:100])
        assert len(everything(receiver)) == 1
        receiver.receive(packet[100:])
        assert len(everything(receiver)) == 1
    assert len(receiver._buffer) == 0
