"""Tickets: only what the master made for this slave, now, opens it."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drqueue.proto.roles import PEOPLE, Role
from drqueue.proto.tickets import KEY_BYTES, LIFE_S, Claim, TicketError, check, issue, slave_key

NOW = 1_000_000.0
KEY = slave_key(b"seed", 3, 1)
CLAIM = Claim("ada", "artist", "0123456789abcdef", 3, NOW + LIFE_S)

claims = st.builds(
    Claim,
    name=st.text(max_size=20),
    role=st.sampled_from(PEOPLE),
    account=st.text(max_size=16),
    slave=st.just(3),
    expires_at=st.floats(NOW, NOW + 2 * LIFE_S),
)


def code(ticket: bytes, keys: list[bytes], slave: int = 3, now: float = NOW) -> str:
    """Why it opens nothing."""
    with pytest.raises(TicketError) as error:
        check(ticket, keys, slave, now)
    return error.value.code


@given(claims)
def test_a_ticket_says_what_was_claimed(claim: Claim) -> None:
    assert check(issue(claim, KEY), [KEY], 3, NOW) == claim


def test_the_key_before_is_good_too_and_no_other() -> None:
    ticket = issue(CLAIM, KEY)
    following = slave_key(b"seed", 3, 2)
    assert check(ticket, [following, KEY], 3, NOW) == CLAIM
    assert code(ticket, [following]) == "bad-ticket"
    assert code(ticket, []) == "bad-ticket"


@given(claims, st.data())
def test_no_changed_byte_is_accepted(claim: Claim, data: st.DataObject) -> None:
    ticket = bytearray(issue(claim, KEY))
    at = data.draw(st.integers(0, len(ticket) - 1))
    ticket[at] ^= data.draw(st.integers(1, 255))
    assert code(bytes(ticket), [KEY]) == "bad-ticket"


@given(st.binary(max_size=200))
def test_no_made_up_bytes_are_accepted(ticket: bytes) -> None:
    assert code(ticket, [KEY]) == "bad-ticket"


@given(claims, st.integers(0, 200))
def test_no_part_of_a_ticket_is_accepted(claim: Claim, length: int) -> None:
    ticket = issue(claim, KEY)
    assume(length < len(ticket))
    assert code(ticket[:length], [KEY]) == "bad-ticket"
    assert code(ticket + b"x", [KEY]) == "bad-ticket"


@given(st.integers(0, 1 << 53))
def test_a_ticket_opens_one_slave(slave: int) -> None:
    assume(slave != 3)
    ticket = issue(CLAIM, KEY)
    assert code(ticket, [KEY], slave) == "bad-ticket", "also where two had one key"
    assert code(ticket, [slave_key(b"seed", slave, 1)], slave) == "bad-ticket"


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_a_ticket_is_good_for_its_time(now: float) -> None:
    ticket = issue(CLAIM, KEY)
    if NOW - LIFE_S <= now <= NOW + LIFE_S:
        assert check(ticket, [KEY], 3, now) == CLAIM
    else:
        assert code(ticket, [KEY], now=now) == "old-ticket", "too old, or too far in the future"


@pytest.mark.parametrize("role", ["node", "god", ""])
def test_a_ticket_is_for_people(role: Role) -> None:
    ticket = issue(Claim("x", role, "", 3, NOW), KEY)
    assert code(ticket, [KEY]) == "bad-ticket"


def test_what_is_signed_but_no_claim_is_refused() -> None:
    import hmac

    not_utf8, deep = b"\x95\xa1\xff\xa6artist\xa0\x03\x00", b"\x91" * 5000
    for body in (b"", b"\x00", b"\x95\xa0\xa0\xa0\x00", not_utf8, deep):
        assert code(hmac.digest(KEY, body, "sha256") + body, [KEY]) == "bad-ticket"


@given(
    st.tuples(st.binary(max_size=9), st.integers(0, 1 << 53), st.integers(0, 1 << 53)),
    st.tuples(st.binary(max_size=9), st.integers(0, 1 << 53), st.integers(0, 1 << 53)),
)
def test_keys_differ_by_seed_slave_and_generation(
    one: tuple[bytes, int, int], two: tuple[bytes, int, int]
) -> None:
    assume(one[0].rstrip(b"\0") != two[0].rstrip(b"\0") or one[1:] != two[1:])
    assert slave_key(*one) != slave_key(*two)
    assert len(slave_key(*one)) == KEY_BYTES
