"""Join lines, secrets and approval codes: what is printed is read back, and damage is noticed."""

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drqueue.proto.lines import (
    PIN_BYTES,
    SECRET_BYTES,
    TOKEN_BYTES,
    Line,
    LineError,
    LineKind,
    account_id,
    approval_code,
    decoded,
    encoded,
    parse_line,
    pin_of,
    secret_hash,
)

PIN = encoded(b"p" * PIN_BYTES)
TOKEN = encoded(b"t" * TOKEN_BYTES)
GOOD = Line(kind="node", host="192.168.1.10", port=1234, pin=PIN, token=TOKEN)
#: Of what follows, a line cut where the terminal ended, with blanks between its parts.
FOLDED = f"  drqueue1:node:192.168.1.10:\n  1234:{PIN[:10]}\r\n{PIN[10:]}:\t{TOKEN} \n"

hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z][a-z0-9.-]{0,30}", fullmatch=True),
)
whole = st.builds(
    Line,
    kind=st.sampled_from(["node", "user"]),
    host=hosts,
    port=st.integers(1, 65535),
    pin=st.binary(min_size=PIN_BYTES, max_size=PIN_BYTES).map(encoded),
    token=st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES).map(encoded),
)


@given(whole)
def test_a_line_that_is_printed_is_read(line: Line) -> None:
    assert parse_line(str(line), line.kind) == line


def test_a_line_may_come_folded() -> None:
    assert parse_line(FOLDED, "node") == GOOD


@pytest.mark.parametrize(
    ("kind", "use"), [("user", "use it with drqueue-slave join"), ("node", "use it with drqueue login")]
)
def test_a_line_of_the_other_kind_says_where_it_belongs(kind: LineKind, use: str) -> None:
    other: LineKind = "node" if kind == "user" else "user"
    line = Line(kind=other, host="h", port=1, pin=PIN, token=TOKEN)
    with pytest.raises(LineError, match=use):
        parse_line(str(line), kind)


@given(whole, st.data())
def test_a_line_that_lost_something_is_refused(line: Line, data: st.DataObject) -> None:
    """One cut anywhere in its last two parts, where nobody would see it."""
    text = str(line)
    start = len(text) - len(line.pin) - len(line.token) - 1
    at = data.draw(st.integers(start, len(text) - 1))
    with pytest.raises(LineError):
        parse_line(text[:at] + text[at + 1 :], line.kind)


@given(st.text(max_size=200) | st.text("drqueue1:nodsr0123456789[].", max_size=200))
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(LineError) as error:
        parse_line(text, "node")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        str(GOOD).replace(":1234:", ":0:"),
        str(GOOD).replace(":1234:", ":65536:"),
        str(GOOD).replace("drqueue1", "drqueue2"),
        str(GOOD).upper(),
        str(GOOD) + "a",
        str(GOOD).rpartition(":")[0],
    ],
)
def test_a_damaged_line_is_refused(text: str) -> None:
    with pytest.raises(LineError):
        parse_line(text, "node")


@given(st.binary(max_size=64))
def test_bytes_stand_in_a_line_and_come_back(data: bytes) -> None:
    text = encoded(data)
    assert decoded(text) == data
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz234567")


@given(st.text(max_size=40))
def test_no_text_breaks_decoding(text: str) -> None:
    decoded(text)


def test_a_secret_is_known_by_its_hash() -> None:
    text = encoded(b"s" * SECRET_BYTES)
    assert secret_hash(text) == hashlib.sha256(text.encode()).hexdigest()
    assert account_id(secret_hash(text)) == secret_hash(text)[:16]
    assert pin_of(b"certificate") == encoded(hashlib.sha256(b"certificate").digest())


@given(st.text(max_size=60), st.text(max_size=64), st.text(max_size=60), st.text(max_size=64))
def test_codes_differ_with_the_certificate_and_with_the_secret(a: str, b: str, c: str, d: str) -> None:
    assume((a, b) != (c, d) and " " not in a + c)
    one, two = (
        approval_code(*(text.encode(errors="replace").decode() for text in pair)) for pair in ((a, b), (c, d))
    )
    assert len(one) == 14
    assert (one == two) == (
        (a.encode(errors="replace"), b.encode(errors="replace"))
        == (c.encode(errors="replace"), d.encode(errors="replace"))
    )
