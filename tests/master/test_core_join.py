"""How nodes and people come to have an account: with a line, or by being approved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.master.core import register
from drqueue.master.core.accounts import NAME, PENDING_S, host_of, tidy_name
from drqueue.proto.lines import account_id, approval_code
from drqueue.proto.link_messages import Joined, Rejected
from drqueue.proto.messages import Done, Refusal, SlaveVerb
from drqueue.proto.roles import Who
from tests.master.access import PIN, AccessFarm, hash_of, token


def test_a_node_joins_with_a_line_and_shows_its_secret_from_then_on() -> None:
    farm = AccessFarm()
    answer = farm.joins("n1", farm.add_line(), pin="slave-pin", identity="i", fingerprint="f")
    assert answer == Joined(farm="farm", account=account_id(hash_of("n1")), name="n1", role="node")
    account = farm.core.authenticate(hash_of("n1"))
    assert account is not None
    assert (account.kind, account.pin, account.identity, account.fingerprint) == (
        "node",
        "slave-pin",
        "i",
        "f",
    )
    assert (account.created_by, account.peer) == ("admin", "192.0.2.7:5000")
    farm.restart()
    assert farm.core.authenticate(hash_of("n1")) == account
    assert farm.core.authenticate(hash_of("n2")) is None


def test_a_line_is_used_up() -> None:
    farm = AccessFarm()
    made = farm.add_line(uses=2)
    farm.joins("n1", made)
    farm.joins("n2", made)
    assert farm.rejected("n3", made) == "bad-line"
    assert [view.name for view in farm.accounts()] == ["n1", "n2"]


def test_asking_again_is_free_also_after_the_line_is_gone() -> None:
    """An answer may get lost: the same hash with the same token is the same account."""
    farm = AccessFarm()
    made = farm.add_line(uses=2)
    first = farm.joins("n1", made)
    saved = len(farm.saved)
    assert farm.joins("n1", made) == first
    assert len(farm.saved) == saved, "nothing is written for that"
    farm.joins("n2", made)
    assert farm.joins("n1", made, pin="new") == first
    assert farm.core.state.register.accounts[first.account].pin == "new"


def test_a_secret_that_is_known_needs_its_own_line() -> None:
    farm = AccessFarm()
    farm.joins("n1", farm.add_line())
    assert farm.rejected("n1") == "bad-line"
    assert farm.rejected("n1", farm.add_line(name="other")) == "wrong-line"
    assert farm.rejected("n1", farm.add_line(kind="user", name="ada")) == "wrong-line"
    assert farm.rejected("n1", farm.add_line(kind="user", name="ada"), role="client") == "wrong-line"
    farm.joins("n1", farm.add_line())
    assert [view.name for view in farm.accounts() if view.state == "active"] == ["n1"]


def test_a_line_that_a_known_secret_came_with_is_used_up() -> None:
    farm = AccessFarm()
    farm.joins("n1", farm.add_line())
    made = farm.add_line()
    farm.joins("n1", made)
    assert farm.rejected("n2", made) == "bad-line"


@pytest.mark.parametrize("made", ["", "nonsense", "a" * 32])
def test_without_a_line_nobody_logs_in(made: str) -> None:
    farm = AccessFarm()
    assert farm.rejected("ada", made, role="client") in ("no-line", "bad-line")
    assert farm.core.state.register.pending == {}


def test_a_line_is_good_for_its_time() -> None:
    farm = AccessFarm()
    made = farm.add_line(ttl_s=60)
    farm.wait(59)
    farm.joins("n1", made)
    made = farm.add_line(ttl_s=60)
    farm.wait(61)
    assert farm.rejected("n2", made) == "bad-line"
    farm.read_clock()
    assert [view.state for view in farm.accounts()] == ["active"], "it is dropped, too"
    assert farm.core.state.register.lines == {}


@pytest.mark.parametrize(
    ("peer", "well"),
    [
        ("10.1.2.3:999", True),
        ("10.1.2.3", True),
        ("[::ffff:10.1.2.3]:999", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1:999", False),
        ("[fd00::1]:999", False),
        ("uid 0", False),
        ("", False),
    ],
)
def test_a_line_may_be_bound_to_a_network(peer: str, well: bool) -> None:
    farm = AccessFarm()
    made = farm.add_line(net="10.1.0.0/16")
    answer = farm.tries("n1", made, peer)
    assert isinstance(answer, Joined) == well
    if not well:
        assert isinstance(answer, Rejected)
        assert answer.code == "wrong-net"


def test_a_line_for_a_node_makes_no_person_nor_the_other_way_round() -> None:
    farm = AccessFarm()
    assert farm.rejected("ada", farm.add_line(), role="client") == "wrong-line"
    assert farm.rejected("n1", farm.add_line(kind="user", name="ada")) == "wrong-line"
    assert farm.core.state.register.accounts == {}


def test_nodes_have_names_of_their_own_and_people_keep_theirs() -> None:
    farm = AccessFarm()
    made = farm.add_line(uses=3, name="render")
    assert [farm.joins(n, made).name for n in ("a", "b", "c")] == ["render", "render-2", "render-3"]
    farm.person("ada", login="home")
    farm.person("ada", login="work")
    assert [view.name for view in farm.accounts("user")] == ["ada", "ada"]


@given(st.text(max_size=300))
def test_whatever_a_node_calls_itself_becomes_a_name(text: str) -> None:
    assert NAME.fullmatch(tidy_name(text))


@given(st.text(max_size=60))
def test_whatever_a_peer_is_called_is_an_address_or_none(text: str) -> None:
    host_of(text)


# -- without a line ----------------------------------------------------------------------------------------


def test_a_node_without_a_line_waits_until_it_is_approved() -> None:
    farm = AccessFarm()
    answer = farm.tries("n1", identity="i", fingerprint="f")
    code = approval_code(PIN, hash_of("n1"))
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.retry) == ("pending", True)
    assert code in answer.text
    assert farm.core.authenticate(hash_of("n1")) is None, "a pending one opens nothing"
    assert [(view.state, view.code, view.name) for view in farm.accounts(pending=True)] == [
        ("pending", code, "n1")
    ]
    assert farm.accounts() == []
    saved = len(farm.saved)
    assert farm.rejected("n1") == "pending"
    assert len(farm.saved) == saved, "asking again writes nothing"
    farm.restart()
    assert isinstance(farm.ask(farm.account_verb(code.lower(), "approve")), Done)
    joined = farm.joins("n1", pin="p")
    assert joined.name == "n1"
    account = farm.core.authenticate(hash_of("n1"))
    assert account is not None
    assert (account.pin, account.created_by, account.pending) == ("p", "admin", False)
    assert farm.accounts(pending=True) == []


def test_a_rejected_node_is_told_so_and_asks_in_vain() -> None:
    farm = AccessFarm()
    farm.tries("n1")
    farm.ask(farm.account_verb("n1", "reject"))
    answer = farm.tries("n1")
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.retry) == ("rejected", False)
    assert farm.accounts(pending=True) == []
    assert isinstance(farm.joins("n1", farm.add_line()), Joined), "a line is another matter"


def test_a_node_that_waits_may_use_a_line_after_all() -> None:
    farm = AccessFarm()
    farm.tries("n1")
    farm.joins("n1", farm.add_line())
    assert farm.accounts(pending=True) == []
    assert [view.name for view in farm.accounts()] == ["n1"]


def test_of_two_that_wait_by_one_name_the_code_says_which() -> None:
    farm = AccessFarm()
    farm.tries("n1")
    farm.tries("n1", peer="192.0.2.9:1", secret="other")
    refusal = farm.refusal(farm.account_verb("n1", "approve"))
    assert refusal.code == "ambiguous"
    for name in ("n1", "other"):
        assert approval_code(PIN, hash_of(name)) in refusal.text
        farm.ask(farm.account_verb(approval_code(PIN, hash_of(name)), "approve"))
    assert [view.name for view in farm.accounts()] == ["n1", "n1-2"]


def test_those_that_wait_too_long_go() -> None:
    farm = AccessFarm()
    farm.tries("n1")
    farm.wait(PENDING_S - 10)
    farm.read_clock()
    assert len(farm.accounts(pending=True)) == 1
    farm.wait(20)
    farm.read_clock()
    assert farm.accounts(pending=True) == []


def test_one_address_cannot_fill_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = AccessFarm()
    codes = [farm.rejected(f"n{n}", peer=f"192.0.2.7:{n + 1}") for n in range(60)]
    assert codes == ["pending"] * 50 + ["too-many"] * 10
    assert farm.rejected("other", peer="192.0.2.8:1") == "pending"
    monkeypatch.setattr("drqueue.master.core.on_join.PENDING_MOST", 51)
    assert farm.rejected("third", peer="192.0.2.9:1") == "too-many"
    assert farm.rejected("n1") == "pending", "who waits already waits on"


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert register.ACCOUNTS_MOST < 100_000
    monkeypatch.setattr("drqueue.master.core.on_join.ACCOUNTS_MOST", 2)
    farm = AccessFarm()
    made = farm.add_line(uses=9)
    farm.joins("n1", made)
    farm.joins("n2", made)
    assert farm.rejected("n3", made) == "too-many"


# -- the same node again -----------------------------------------------------------------------------------


def test_a_node_that_joins_anew_takes_its_old_place() -> None:
    """The same identity on the same machine: the old account ends, the name and the slave stay."""
    farm = AccessFarm()
    old = farm.node("n1", identity="id-n1", fingerprint="f")
    link = farm.link("n1", who=old, fingerprint="f")
    number = farm.slave("n1").id
    new = farm.joins("n1", farm.add_line(), secret="new", identity="id-n1", fingerprint="f")
    assert new.name == "n1"
    assert farm.core.authenticate(hash_of("n1")) is None
    assert farm.unlinked[link].code == "revoked"
    who = Who(name="n1", role="node", account=new.account)
    farm.link("n1", who=who, fingerprint="f")
    assert farm.slave("n1").id == number
    assert [view.slave for view in farm.accounts()] == ["n1"]


@pytest.mark.parametrize("fingerprint", ["other", ""])
def test_another_machine_takes_nobodys_place(fingerprint: str) -> None:
    farm = AccessFarm()
    farm.node("n1", identity="id-n1", fingerprint="f" if fingerprint else "")
    new = farm.joins("n1", farm.add_line(), secret="new", identity="id-n1", fingerprint=fingerprint)
    assert new.name == "n1-2"
    assert farm.core.authenticate(hash_of("n1")) is not None


def test_approval_takes_the_old_place_too() -> None:
    farm = AccessFarm()
    farm.node("n1", identity="id-n1", fingerprint="f")
    farm.tries("n1", secret="new", identity="id-n1", fingerprint="f")
    assert farm.core.authenticate(hash_of("n1")) is not None, "to ask for it is not enough"
    farm.ask(farm.account_verb(approval_code(PIN, hash_of("new")), "approve"))
    assert farm.core.authenticate(hash_of("n1")) is None
    assert [view.name for view in farm.accounts()] == ["n1"]


def test_a_forgotten_slave_leaves_its_account() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    farm.unlink(farm.link("n1", who=who))
    assert not isinstance(farm.ask(SlaveVerb(rq=0, slave="n1", verb="forget")), Refusal)
    assert [(view.name, view.slave) for view in farm.accounts()] == [("n1", "")]
    farm.link("n1", who=who)
    assert [(view.name, view.slave) for view in farm.accounts()] == [("n1", "n1")]


def test_the_hash_of_an_approved_node_is_no_way_to_its_certificate() -> None:
    """It stands in backups; asking again is for nodes whose answer was lost."""
    farm = AccessFarm()
    farm.tries("n1")
    (waiting,) = farm.accounts(pending=True)
    farm.ask(farm.account_verb(waiting.code, "approve"))
    for pin in ("first", "second"):
        assert isinstance(farm.tries("n1", pin=pin), Joined)
    farm.link("n1", who=Who(name="n1", role="node", account=waiting.id, peer="192.0.2.7"))
    answer = farm.tries("n1", peer="198.51.100.6:1", pin="theirs")
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.retry) == ("no-line", False)
    assert farm.core.state.register.accounts[waiting.id].pin == "second"
    assert isinstance(farm.tries("n1", farm.add_line(), pin="third"), Joined), "with a line it is in again"
    assert farm.core.state.register.accounts[waiting.id].pin == "third"


def test_revoking_one_login_takes_the_line_in_its_place_along() -> None:
    farm = AccessFarm()
    farm.person("ada", login="home")
    work = farm.person("ada", login="work")
    farm.ask(farm.account_verb(work.account, "rotate", "user"), fresh=token(50))
    farm.ask(farm.account_verb(work.account, "revoke", "user"))
    assert farm.rejected("ada", token(50), role="client", secret="new") == "bad-line"


def test_a_line_in_place_of_an_account_takes_another_secret_than_its() -> None:
    farm = AccessFarm()
    farm.node("n1")
    farm.ask(farm.account_verb("n1", "rotate"), fresh=token(50))
    assert farm.rejected("n1", token(50)) == "wrong-line"
    assert farm.joins("n1", token(50), secret="new").name == "n1"
