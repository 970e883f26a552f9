"""What admins do about lines and accounts, and what becomes of the links that these opened."""

from dataclasses import replace
from typing import get_args

import msgspec
import pytest

from drqueue.master.core.accounts import NAME
from drqueue.master.core.core import Core
from drqueue.master.core.invariants import check
from drqueue.master.core.rights import NOT_ALLOWED
from drqueue.master.core.turn import Policy
from drqueue.proto.lines import Line, parse_line
from drqueue.proto.link_messages import Joined, NewSecret, SecretTaken, TicketKey
from drqueue.proto.messages import AddLine, Done, JobVerb, ListJobs, Refusal, TheLine
from drqueue.proto.roles import Who
from drqueue.proto.views import AccountView
from drqueue.settings import Name
from tests.builders import WALL, CoreFarm
from tests.master.access import PIN, POLICY, AccessFarm, hash_of, token


def test_a_line_says_where_the_master_is() -> None:
    farm = AccessFarm()
    answer = farm.ask(AddLine(rq=0, kind="node", ttl_s=60), fresh=token(1))
    assert isinstance(answer, TheLine)
    wanted = Line(kind="node", host="192.0.2.1", port=1234, pin=PIN, token=token(1))
    assert parse_line(answer.line, "node") == wanted
    assert answer.expires_at == farm.core.turn.wall + 60


def test_a_master_that_does_not_listen_makes_no_line() -> None:
    refusal = CoreFarm().refusal(AddLine(rq=0, kind="node"), fresh=token(1))
    assert refusal.code == "not-listening"
    assert refusal.text == (
        'the master does not listen on the network: set listen = "0.0.0.0:1234", '
        "or start it with --listen 0.0.0.0:1234"
    )


def test_a_line_without_a_fresh_token_is_none() -> None:
    farm = AccessFarm()
    assert farm.refusal(AddLine(rq=0, kind="node")).code == "no-token"
    farm.ask(AddLine(rq=0, kind="node"), fresh=token(1))
    assert farm.refusal(AddLine(rq=0, kind="node"), fresh=token(1)).code == "no-token"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"kind": "user"}, "bad-name"),
        ({"kind": "user", "name": "-x"}, "bad-name"),
        ({"kind": "user", "name": "a b"}, "bad-name"),
        ({"kind": "node", "name": "x" * 64}, "bad-name"),
        ({"kind": "node", "name": "n1\n"}, "bad-name"),
        ({"kind": "node", "net": "10.0.0.0/99"}, "bad-net"),
        ({"kind": "node", "net": "here"}, "bad-net"),
    ],
)
def test_what_a_line_says_is_looked_at(fields: dict[str, str], code: str) -> None:
    farm = AccessFarm()
    request = msgspec.convert({"rq": 0, **fields}, AddLine, strict=False)
    assert farm.refusal(request, fresh=token(1)).code == code
    assert farm.core.state.register.lines == {}


def test_names_are_those_that_slaves_may_have() -> None:
    (meta,) = [part for part in get_args(Name) if isinstance(part, msgspec.Meta)]
    assert meta.pattern == rf"\A{NAME.pattern}\Z"


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drqueue.master.core.on_account.LINES_MOST", 2)
    farm = AccessFarm()
    farm.add_line()
    farm.add_line()
    assert farm.refusal(AddLine(rq=0, kind="node"), fresh=token(99)).code == "too-many"


def test_a_person_has_one_role_wherever_they_log_in() -> None:
    farm = AccessFarm()
    farm.person("ada", "supervisor")
    refusal = farm.refusal(AddLine(rq=0, kind="user", name="ada", role="artist"), fresh=token(99))
    assert refusal.code == "bad-role"
    assert "ada is a supervisor" in refusal.text
    answer = farm.ask(AddLine(rq=0, kind="user", name="ada", role="supervisor"), fresh=token(99))
    assert isinstance(answer, TheLine)
    assert answer.note == (
        "ada has one login already: this makes a further one of the same person, a supervisor"
    )
    assert farm.refusal(AddLine(rq=0, kind="user", name="bea", role="admin")).code == "no-token"


def test_without_a_role_a_person_stays_what_they_are() -> None:
    farm = AccessFarm()
    farm.person("ada", "supervisor")
    made = farm.add_line(kind="user", name="ada")
    assert farm.joins("ada", made, role="client", secret="second").role == "supervisor"
    farm.add_line(kind="user", name="bea", role="viewer")
    assert farm.joins("bea", farm.add_line(kind="user", name="bea"), role="client").role == "viewer"
    assert farm.joins("cid", farm.add_line(kind="user", name="cid"), role="client").role == "artist"
    assert "user ada: add a line as a supervisor for 3600 s" in [row.what for row in farm.audited()]


def test_a_line_says_where_its_host_is_one_of_several() -> None:
    note = "it names 192.0.2.1, one of this machine's addresses"
    farm = AccessFarm(replace(POLICY, line_note=note))
    answer = farm.ask(AddLine(rq=0, kind="node"), fresh=token(98))
    assert isinstance(answer, TheLine)
    assert answer.note == note
    farm.person("ada")
    answer = farm.ask(AddLine(rq=0, kind="user", name="ada"), fresh=token(99))
    assert isinstance(answer, TheLine)
    assert answer.note.endswith(f"of the same person, an artist; {note}")


def test_accounts_are_listed_with_what_hangs_on_them_in_pages() -> None:
    farm = AccessFarm()
    who = farm.node("n2")
    farm.node("n1")
    farm.add_line(name="n9", net="10.0.0.0/8", uses=3)
    link = farm.link("box", who=who)
    views = farm.accounts()
    assert [(v.name, v.state, v.slave, v.linked) for v in views] == [
        ("n1", "active", "", False),
        ("n2", "active", "box", True),
        ("n9", "line", "", False),
    ]
    assert (views[2].uses_left, views[2].net, views[2].created_by) == (3, "10.0.0.0/8", "admin")
    farm.unlink(link)
    assert [(v.slave, v.linked) for v in farm.accounts()][1] == ("box", False)
    found: list[AccountView] = []
    cursor: int | None = 0
    while cursor is not None:
        page = farm.page("node", cursor, 2)
        assert len(page.accounts) <= 2
        found += page.accounts
        cursor = page.next
    assert [view.name for view in found] == ["n1", "n2", "n9"]


# -- revoke ------------------------------------------------------------------------------------------------


def test_revoking_a_person_cuts_every_login_and_all_tickets() -> None:
    farm = AccessFarm()
    home, work = farm.person("ada", login="home"), farm.person("ada", login="work")
    farm.person("bob")
    farm.add_line(kind="user", name="ada")
    link = farm.link("n1", who=farm.node("n1"))
    farm.said[link].clear()
    answer = farm.ask(farm.account_verb("ada", "revoke", "user"))
    assert isinstance(answer, Done)
    assert (answer.count, answer.note) == (2, "1 line not used yet went, too")
    assert [view.name for view in farm.accounts("user")] == ["bob"]
    assert [cut.accounts for cut in farm.cuts] == [{home.account, work.account}]
    (key,) = [said for said in farm.said[link] if isinstance(said, TicketKey)]
    assert key.only
    assert farm.core.authenticate(hash_of("home")) is None


def test_what_was_asked_before_but_comes_after_a_revocation_is_refused() -> None:
    """Both in one step: what counts is the account at the moment of doing."""
    farm = AccessFarm()
    who = farm.person("ada", "supervisor")
    job = farm.submit()
    farm.ask(farm.account_verb("ada", "revoke", "user"))
    refusal = farm.refusal(JobVerb(rq=0, job=job, verb="delete"), who)
    assert (refusal.code, refusal.text) == (
        NOT_ALLOWED,
        "your access was revoked: ask an admin for a new line",
    )
    assert farm.refusal(ListJobs(rq=0), who).code == NOT_ALLOWED


def test_one_login_of_several_is_revoked_by_its_id() -> None:
    farm = AccessFarm()
    home, work = farm.person("ada", login="home"), farm.person("ada", login="work")
    farm.ask(farm.account_verb(home.account, "revoke", "user"))
    assert [view.id for view in farm.accounts("user")] == [work.account]


def test_a_line_is_revoked_by_its_id() -> None:
    farm = AccessFarm()
    made = farm.add_line()
    (view,) = farm.accounts()
    farm.ask(farm.account_verb(view.id, "revoke"))
    assert farm.accounts() == []
    assert farm.rejected("n1", made) == "bad-line"


def test_revoking_a_node_cuts_its_slave_whose_frames_wait_for_their_leases() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    link = farm.link("n1", who=who)
    farm.submit()
    order = farm.orders(link)[0]
    farm.ask(farm.account_verb("n1", "revoke"))
    assert (farm.unlinked[link].code, farm.unlinked[link].retry) == ("revoked", False)
    assert farm.unlinked[link].text == (
        "an admin revoked this node's access: join again with a new line: drqueue-slave join LINE"
    )
    (slave,) = farm.core.state.slaves.values()
    assert (slave.link, slave.account) == (None, "")
    farm.exited(link, order.key)
    assert farm.states()[1] == "ASSIGNED", "what a revoked node says counts no longer"
    farm.unlink(link)
    again = farm.link("n1", who=who)
    assert farm.unlinked[again].code == "revoked"
    farm.wait(farm.policy.lease_s * 1.01 + 121)
    assert farm.states()[1] == "WAITING"


def test_a_slave_without_an_account_was_revoked_where_its_port_is_on_the_network() -> None:
    farm = AccessFarm()
    here = farm.link("here", control="unix:/run/s.sock")
    farm.unlink(farm.link("there", who=farm.node("there"), control="192.0.2.7:2345"))
    farm.unlink(here)
    assert not any(slave.was_revoked for slave in farm.core.state.slaves.values())
    farm.ask(farm.account_verb("there", "revoke"))
    farm.restart()
    assert [slave.name for slave in farm.core.state.slaves.values() if slave.was_revoked] == ["there"]


def test_revoking_a_node_tells_what_slaves_it_is_about() -> None:
    farm = AccessFarm()
    farm.link("box", who=farm.node("n1"))
    farm.link("n1", who=farm.node("n2"))
    answer = farm.ask(farm.account_verb("n1", "revoke"))
    assert isinstance(answer, Done)
    assert answer.note == (
        "its slave is called box; the slave called n1 is another's, of node n2, which stays"
    )
    farm.link("n3", who=farm.node("n3"))
    answer = farm.ask(farm.account_verb("n3", "revoke"))
    assert isinstance(answer, Done)
    assert answer.note == ""


def test_revoking_a_person_tells_of_their_jobs_that_go_on() -> None:
    farm = AccessFarm()
    home, work = farm.person("ada", login="home"), farm.person("ada", login="work")
    farm.submit_as(home)
    farm.submit_as(work)
    farm.submit_as(farm.person("bob"))
    answer = farm.ask(farm.account_verb(work.account, "revoke", "user"))
    assert isinstance(answer, Done)
    assert answer.note == "", "she has another login"
    answer = farm.ask(farm.account_verb("ada", "revoke", "user"))
    assert isinstance(answer, Done)
    assert answer.note == "2 of their jobs are not finished and go on"


def test_a_revoked_nodes_slave_is_taken_up_by_the_same_machines_next_account() -> None:
    farm = AccessFarm()
    farm.unlink(farm.link("n1", who=farm.node("n1"), fingerprint="f"))
    farm.ask(farm.account_verb("n1", "revoke"))
    stranger = farm.link("n1", who=farm.node("x"), fingerprint="other")
    assert farm.unlinked[stranger].code == "not-yours"
    link = farm.link("n1", who=farm.node("n1", secret="new"), fingerprint="f")
    assert link not in farm.unlinked
    assert farm.slave("n1").id == 0


@pytest.mark.parametrize("verb", ["revoke", "rotate", "approve", "reject", "set-role"])
def test_whoever_is_not_there_is_not_there(verb: str) -> None:
    farm = AccessFarm()
    farm.node("n1")
    assert farm.refusal(farm.account_verb("n1", verb, "user"), fresh=token(9)).code == "no-such-account"


# -- rotate ------------------------------------------------------------------------------------------------


def test_a_linked_node_makes_itself_a_new_secret() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    link = farm.link("n1", who=who)
    assert isinstance(farm.ask(farm.account_verb("n1", "rotate")), Done)
    assert NewSecret() in farm.said[link]
    farm.says(link, SecretTaken(secret_hash=hash_of("next")))
    assert (farm.unlinked[link].code, farm.unlinked[link].retry) == ("new-secret", True), "to show it at once"
    farm.restart()
    for name in ("n1", "next"):
        account = farm.core.authenticate(hash_of(name))
        assert account is not None, "either, until the new one is shown"
        assert account.id == who.account
    farm.show(who.account, "next")
    assert farm.core.authenticate(hash_of("n1")) is None
    assert farm.core.authenticate(hash_of("next")) is not None
    farm.restart()
    assert farm.core.authenticate(hash_of("n1")) is None
    link = farm.link("n1", who=who)
    assert link not in farm.unlinked, "it is still the same account"


def test_who_has_the_old_secret_gets_nowhere_with_it_once_there_is_a_new_one() -> None:
    """They may be quicker than the node on its way back."""
    farm = AccessFarm()
    who = farm.node("n1")
    farm.says(farm.link("n1", who=who), SecretTaken(secret_hash=hash_of("next")))
    thief = farm.link("n1", who=who)
    farm.says(thief, SecretTaken(secret_hash=hash_of("thief")))
    assert farm.core.authenticate(hash_of("thief")) is None
    assert farm.audited()[-1].outcome == "bad-secret"
    farm.show(who.account, "next")
    assert (farm.unlinked[thief].code, farm.unlinked[thief].retry) == ("new-secret", True)
    assert farm.core.authenticate(hash_of("n1")) is None
    link = farm.link("n1", who=who)
    assert link not in farm.unlinked
    farm.says(link, SecretTaken(secret_hash=hash_of("third")))
    assert farm.core.authenticate(hash_of("third")) is not None


def test_a_new_secret_that_was_never_shown_gives_way_to_an_admins_word() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    farm.says(farm.link("n1", who=who), SecretTaken(secret_hash=hash_of("lost")))
    link = farm.link("n1", who=who)
    assert isinstance(farm.ask(farm.account_verb("n1", "rotate")), Done)
    assert farm.core.authenticate(hash_of("lost")) is None
    farm.says(link, SecretTaken(secret_hash=hash_of("next")))
    farm.show(who.account, "next")
    assert farm.core.authenticate(hash_of("next")) is not None


def test_a_secret_that_is_shown_is_the_next_one_or_changes_nothing() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    farm.show(who.account, "something")
    farm.show("nobody", "something")
    assert farm.core.authenticate(hash_of("n1")) is not None
    assert farm.core.authenticate(hash_of("something")) is None


def test_a_node_takes_no_others_secret() -> None:
    farm = AccessFarm()
    farm.node("n2")
    link = farm.link("n1", who=farm.node("n1"))
    farm.says(link, SecretTaken(secret_hash=hash_of("n2")))
    account = farm.core.authenticate(hash_of("n2"))
    assert account is not None
    assert account.name == "n2"
    assert farm.audited()[-1].outcome == "bad-secret"


def test_a_slave_of_this_machine_has_no_secret_to_change() -> None:
    farm = AccessFarm()
    link = farm.link("n1")
    farm.says(link, SecretTaken(secret_hash=hash_of("n1")))
    assert farm.core.authenticate(hash_of("n1")) is None


def test_a_person_gets_a_line_in_place_of_their_account() -> None:
    farm = AccessFarm()
    old = farm.person("ada", "supervisor")
    answer = farm.ask(farm.account_verb("ada", "rotate", "user"), fresh=token(50))
    assert isinstance(answer, TheLine)
    assert farm.core.authenticate(hash_of("ada")) is not None, "until the line is used"
    joined = farm.joins("ada", token(50), role="client", secret="new")
    assert isinstance(joined, Joined)
    assert (joined.name, joined.role) == ("ada", "supervisor")
    assert farm.core.authenticate(hash_of("ada")) is None
    assert [cut.accounts for cut in farm.cuts] == [{old.account}]
    assert farm.rejected("eve", token(50), role="client", secret="eve") == "bad-line"


def test_which_of_a_persons_logins_must_be_said() -> None:
    farm = AccessFarm()
    home, work = farm.person("ada", login="home"), farm.person("ada", login="work")
    refusal = farm.refusal(farm.account_verb("ada", "rotate", "user"), fresh=token(50))
    assert refusal.code == "ambiguous"
    assert home.account in refusal.text
    farm.ask(farm.account_verb(work.account, "rotate", "user"), fresh=token(50))
    farm.joins("ada", token(50), role="client", secret="new")
    assert farm.core.authenticate(hash_of("home")) is not None
    assert farm.core.authenticate(hash_of("work")) is None


def test_a_node_that_is_away_gets_a_line_and_keeps_its_slave() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    farm.unlink(farm.link("n1", who=who))
    answer = farm.ask(farm.account_verb("n1", "rotate"), fresh=token(50))
    assert isinstance(answer, TheLine)
    joined = farm.joins("n1", token(50), secret="new")
    assert joined.name == "n1"
    link = farm.link("n1", who=Who(name="n1", role="node", account=joined.account))
    assert link not in farm.unlinked
    assert farm.slave("n1").id == 0
    assert [view.id for view in farm.accounts()] == [joined.account]


def test_revoking_takes_the_line_in_its_place_along() -> None:
    farm = AccessFarm()
    farm.node("n1")
    farm.ask(farm.account_verb("n1", "rotate"), fresh=token(50))
    farm.ask(farm.account_verb("n1", "revoke"))
    assert farm.rejected("n1", token(50), secret="new") == "bad-line"


# -- roles -------------------------------------------------------------------------------------------------


def test_a_new_role_holds_for_every_login_at_once() -> None:
    farm = AccessFarm()
    home, work = farm.person("ada", "admin", "home"), farm.person("ada", "admin", "work")
    made = farm.add_line(kind="user", name="ada", role="admin")
    link = farm.link("n1", who=farm.node("n1"))
    farm.said[link].clear()
    assert farm.ask(farm.account_verb("ada", "set-role", "user", role="viewer")) == Done(
        rq=farm.last_rq, count=2
    )
    assert {view.role for view in farm.accounts("user")} == {"viewer"}
    assert [cut.accounts for cut in farm.cuts] == [{home.account, work.account}]
    assert any(isinstance(said, TicketKey) and said.only for said in farm.said[link])
    refusal = farm.refusal(AddLine(rq=0, kind="node"), home, token(60))
    assert refusal.text == "this takes an admin, you are a viewer", "though the link began as an admin's"
    assert farm.joins("ada", made, role="client", secret="third").role == "viewer"


def test_the_role_of_who_has_not_come_yet_is_that_of_their_line() -> None:
    farm = AccessFarm()
    made = farm.add_line(kind="user", name="ada")
    answer = farm.ask(farm.account_verb("ada", "set-role", "user", role="viewer"))
    assert isinstance(answer, Done)
    assert (answer.count, answer.note) == (
        0, "nobody has joined as ada yet: 1 line not used so far is now for a viewer",
    )  # fmt: skip
    assert farm.joins("ada", made, role="client").role == "viewer"


def test_a_role_that_somebody_has_is_no_news() -> None:
    farm = AccessFarm()
    farm.person("ada")
    farm.ask(farm.account_verb("ada", "set-role", "user", role="artist"))
    assert farm.cuts == []


def test_a_node_has_no_role_that_can_be_set() -> None:
    farm = AccessFarm()
    farm.node("n1")
    assert farm.refusal(farm.account_verb("n1", "set-role", role="admin")).code == "bad-role"


@pytest.mark.parametrize("role", ["viewer", "artist", "supervisor"])
def test_accounts_are_an_admins_business(role: str) -> None:
    farm = AccessFarm()
    who = farm.person("ada", role)
    for request in (AddLine(rq=0, kind="node"), farm.account_verb("ada", "set-role", "user", role="admin")):
        assert farm.refusal(request, who, token(70)).code == NOT_ALLOWED
    assert {view.role for view in farm.accounts("user")} == {role}


def test_an_admin_who_logged_in_is_as_good_as_root() -> None:
    farm = AccessFarm(Policy(line_host="h", line_port=1, line_pin=PIN))
    who = farm.person("ada", "admin")
    assert not isinstance(farm.ask(AddLine(rq=0, kind="node"), who, token(70)), Refusal)
    assert farm.accounts()[0].created_by == "ada"


def test_who_was_revoked_does_not_come_back_with_a_backup() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    other = farm.node("n2")
    farm.unlink(farm.link("n1", who=who))
    core = Core(farm.policy, farm.storage.load(), 0.0, WALL, from_backup=True, gone=[who.account, "stranger"])
    assert core.state.register.accounts.keys() == {other.account}
    assert core.state.slaves[0].account == ""
    outcome = core.step([], 1.0)
    farm.storage.commit(outcome.save)
    check(core.state)
    assert farm.audited()[-1].what == "node n1: revoke"
    again = Core(farm.policy, farm.storage.load(), 0.0, WALL)
    assert again.state.register.accounts.keys() == {other.account}


def test_lines_that_somebody_made_before_they_were_revoked_are_told_of() -> None:
    farm = AccessFarm()
    eve = farm.person("eve", "admin")
    farm.add_line(eve, kind="user", name="mallory", role="admin", ttl_s=31_536_000)
    farm.add_line(eve, kind="user", name="eve", role="admin")
    farm.add_line(kind="node")
    answer = farm.ask(farm.account_verb("eve", "revoke", "user"))
    assert isinstance(answer, Done)
    assert answer.note == (
        "1 line not used yet went, too; "
        "1 line that they made for others stayed (drqueue user list, node list)"
    )
