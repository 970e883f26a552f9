"""Bytes to messages: whatever comes, it is a message, an unknown one, or the peer's fault."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto import codec
from drqueue.proto.codec import MAX_BODY, decode, encode
from drqueue.proto.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from drqueue.proto.link_messages import Beat, Grant, Message
from drqueue.proto.messages import LogPart, Refusal, Submit
from tests.proto.examples import EXAMPLES


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def harmless(body: bytes) -> Message | None:
    """What these bytes mean; None also where they are refused, as they may only be."""
    try:
        return decode(body)
    except RemoteProtocolError as error:
        if len(str(error)) > 200:
            raise AssertionError("the peer's words fill the log") from error
        return None


@given(st.binary(max_size=300))
def test_random_bytes_are_harmless(body: bytes) -> None:
    harmless(body)


@given(st.sampled_from(EXAMPLES), st.data())
def test_damaged_messages_are_harmless(example: Message, data: st.DataObject) -> None:
    body = bytearray(encode(example))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    message = harmless(bytes(body[: data.draw(st.integers(0, len(body)))]))
    assert message is None or decode(encode(message)) == message


@given(st.sampled_from(EXAMPLES), st.data())
def test_both_ways_of_reading_mean_the_same(example: Message, data: st.DataObject) -> None:
    """Small bodies are read in one go; whatever that takes, the careful way takes alike, or refuses."""
    body = bytearray(encode(example))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        careful = codec._decode_carefully(body)
    except RemoteProtocolError:
        return
    assert decode(body) == careful


def test_what_one_go_cannot_read_is_read_carefully() -> None:
    """The last of two tags counts, wherever the first stands."""
    assert decode(b"\x83\xa1t\xa4beat\xa1t\xa5grant\xa7lease_s\x05") == Grant(lease_s=5)
    assert decode(b"\x82\xa7lease_s\x05\xa1t\xa5grant") == Grant(lease_s=5)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(EXAMPLES), st.data())
def test_any_value_in_any_field_is_harmless(example: Message, data: st.DataObject) -> None:
    raw = msgpack.unpackb(encode(example))
    raw[data.draw(st.sampled_from(sorted(raw)))] = data.draw(values)
    message = harmless(pack(raw))
    assert message is None or decode(encode(message)) == message


#: Keys in the examples that users chose: of variables, parameters, limits, amounts, attributes.
OWN_NAMES = {"A", "B", "width", "nuke", "tapes", "io", "rack"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_unknown_keys_are_ignored_everywhere(example: Message) -> None:
    def with_more(value: Any) -> Any:
        if isinstance(value, dict) and not value.keys() <= OWN_NAMES:
            return {**{k: with_more(v) for k, v in value.items()}, "of-the-future": [1, {"x": None}]}
        if isinstance(value, list):
            return [with_more(item) for item in value]
        return value

    assert decode(pack(with_more(msgpack.unpackb(encode(example))))) == example


def test_an_unknown_type_is_skipped() -> None:
    assert decode(pack({"t": "of-the-future", "rq": "x"})) is None


@pytest.mark.parametrize(
    "raw",
    [
        None,
        1,
        "beat",
        [],
        ["beat"],
        {},
        {"t": None},
        {"t": 1},
        {"t": b"beat"},
        {"t": ["beat"]},
        {"t": "beat", "echo": 1},
        {"t": "beat", "echo": "yes"},
        {"t": "beat", "echo": None},
        {"t": "getjob", "rq": 1},
        {"t": "getjob", "rq": -1, "job": 1},
        {"t": "getjob", "rq": 1, "job": "1"},
        {"t": "getjob", "rq": 1, "job": True},
        {"t": "getjob", "rq": 1, "job": 2**64 - 1},
        {"t": "listjobs", "rq": 1, "limit": 0},
        {"t": "listjobs", "rq": 1, "limit": 1001},
        {"t": "jobverb", "rq": 1, "job": 1, "verb": "explode"},
        {"t": "hi", "role": "king"},
        {"t": "grant", "lease_s": float("nan")},
        {"t": "grant", "lease_s": float("inf")},
        {"t": "grant", "lease_s": -1.0},
        {"t": "orders", "epoch": 1, "noted": [[1, 2, 3]]},
        {"t": "orders", "epoch": 1, "noted": {"a": 1}},
        {"t": "orders", "epoch": 1, "stop": [[[1, 0, 0, 1], 5]]},
        {"t": "logpart", "rq": 1, "data": "dGV4dA==", "next": 1, "size": 1},
        {"t": "refusal", "rq": 1, "code": b"x", "text": "y"},
        {"t": "submit", "rq": 1, "token": "short", "spec": {"name": "n", "layers": []}},
        {"t": "submit", "rq": 1, "token": "long-enough", "spec": {"name": "", "layers": []}},
        {
            "t": "submit",
            "rq": 1,
            "token": "long-enough",
            "spec": {"name": "n", "layers": [], "priority": 2**32},
        },
        {
            "t": "submit",
            "rq": 1,
            "token": "long-enough",
            "spec": {"name": "n", "layers": [], "env": {"a": 1}},
        },
        {1: 2, "t": "beat"},
    ],
    ids=repr,
)
def test_wrong_types_are_the_peers_fault(raw: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(pack(raw))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        pack({"t": "beat"}) + b"\x00",
        pack({"t": "beat"})[:-1],
        b"\x81\xa1t\xa4\xff\xfe\xfd\xfc",
        b"\x81\xa1t\xc7\x04\x01beat",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\x81\xa1t" * 5000,
        pack({"t": "beat", "of-the-future": [None] * 30_000}),
        pack({"t": "beat", "of-the-future": dict.fromkeys(map(str, range(3000)))}),
    ],
    ids=lambda body: f"{body[:6].hex()} of {len(body)}",
)
def test_hostile_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(body)


def test_bytes_in_any_shape_are_read() -> None:
    body = encode(LogPart(rq=1, data=b"\x00\xff", next=2, size=2))
    for shape in (body, bytearray(body), memoryview(body)):
        assert decode(shape) == LogPart(rq=1, data=b"\x00\xff", next=2, size=2)


def test_defaults_are_not_sent() -> None:
    assert msgpack.unpackb(encode(Beat())) == {"t": "beat"}


def test_a_message_above_the_limit_is_a_bug_of_the_sender() -> None:
    small = Refusal(rq=1, code="c", text="x" * 100)
    with pytest.raises(LocalProtocolError, match=r"Refusal of [0-9]+ bytes exceeds 100"):
        encode(small, 100)
    exact = len(encode(small))
    assert len(encode(small, exact)) == exact
    with pytest.raises(LocalProtocolError):
        encode(Refusal(rq=1, code="c", text="x" * MAX_BODY))


def test_errors_say_whose_fault_it_is() -> None:
    with pytest.raises(TypeError):
        ProtocolError("somebody's")
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)


def test_an_example_that_must_be_rich_is() -> None:
    assert any(isinstance(example, Submit) and len(encode(example)) > 300 for example in EXAMPLES)
