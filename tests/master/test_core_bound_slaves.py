"""Which link may speak for which slave, what it may say, and the keys for tickets."""

import pytest

from drqueue.master.core.audit import DIFFERENT_MOST
from drqueue.master.core.on_slave import CORES_MOST
from drqueue.master.core.records import LogRecord
from drqueue.proto import tickets
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import LogKept, TicketKey
from drqueue.proto.messages import GetTicket, Ticket
from drqueue.proto.model import LogEnds
from drqueue.proto.roles import Who
from tests.builders import LOCAL_NODE, CoreFarm
from tests.master.access import AccessFarm

ENDS = LogEnds(size=3, head=b"log")


def test_a_slave_is_bound_to_the_account_that_it_came_by() -> None:
    farm = AccessFarm()
    one, two = farm.node("n1"), farm.node("n2")
    farm.unlink(farm.link("n1", who=one, fingerprint="f"))
    for fingerprint in ("", "f", "other"):
        link = farm.link("n1", who=two, fingerprint=fingerprint)
        assert (farm.unlinked[link].code, farm.unlinked[link].retry) == ("not-yours", False)
    assert farm.audited()[-1].outcome == "not-yours"
    farm.restart()
    link = farm.link("n1", who=two, fingerprint="f")
    assert farm.unlinked[link].code == "not-yours", "the very same machine has nothing to do with it"
    assert farm.link("n1", who=one) not in farm.unlinked


def test_a_stranger_learns_of_a_linked_slave_no_more_than_of_another() -> None:
    farm = AccessFarm()
    link = farm.link("n1", who=farm.node("n1"))
    farm.said[link].clear()
    stranger = farm.link("n1", who=farm.node("n2"))
    assert farm.unlinked[stranger].code == "not-yours"
    assert farm.said[link] == [], "and its true link is not disturbed"


@pytest.mark.parametrize(
    ("first", "then", "well"),
    [("f", "f", True), ("f", "other", False), ("", "", False), ("f", "", False)],
)
def test_a_slave_of_this_machine_moves_to_an_account_on_the_same_machine(
    first: str, then: str, well: bool
) -> None:
    farm = AccessFarm()
    farm.unlink(farm.link("n1", fingerprint=first))
    link = farm.link("n1", who=farm.node("n1"), fingerprint=then)
    assert (link not in farm.unlinked) == well
    assert (farm.slave("n1").linked) == well


def test_a_slave_with_an_account_moves_to_this_machines_socket() -> None:
    farm = AccessFarm()
    farm.unlink(farm.link("n1", who=farm.node("n1"), fingerprint="f"))
    assert farm.link("n1", fingerprint="f") not in farm.unlinked
    assert farm.accounts()[0].slave == ""


def test_an_account_has_one_slave_at_a_time() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    first = farm.link("n1", who=who)
    second = farm.link("copy", who=who)
    assert farm.unlinked[second].code == "identity-in-use"
    assert farm.unlinked[second].retry
    farm.unlink(first)
    third = farm.link("copy", who=who)
    assert third not in farm.unlinked
    assert [slave.name for slave in farm.core.state.slaves.values()] == ["copy"], "the idle one is forgotten"


def test_a_former_slave_that_may_still_run_something_stays() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    first = farm.link("n1", who=who)
    farm.submit()
    farm.unlink(first)
    farm.link("new", who=who)
    assert sorted(slave.name for slave in farm.core.state.slaves.values()) == ["n1", "new"]
    assert farm.accounts()[0].slave == "new"


def test_a_persons_secret_links_no_slave() -> None:
    farm = AccessFarm()
    link = farm.link("n1", who=farm.person("ada", "admin"))
    assert farm.unlinked[link].code == "revoked"
    assert farm.core.state.slaves == {}


def test_a_slave_that_is_new_is_in_the_audit_once() -> None:
    farm = CoreFarm()
    farm.relink(farm.link("n1"), "n1")
    assert [row.what for row in farm.audited()] == ["slave n1 is new, its number is 0"]


def test_a_node_that_comes_by_new_names_is_no_flood_of_the_audit() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    before = len(farm.audited())
    for number in range(3 * DIFFERENT_MOST):
        farm.unlink(farm.link(f"x{number}", who=who))
    assert len(farm.audited()) <= before + DIFFERENT_MOST + 1


# -- logs ----------------------------------------------------------------------------------------------------


def kept(farm: CoreFarm) -> list[AttemptKey]:
    return [row.key for row in farm.saved if isinstance(row, LogRecord)]


def test_the_log_of_an_exit_that_was_noted_here_is_kept_once() -> None:
    farm = CoreFarm()
    farm.submit()
    link = farm.link("s1", cores=1)
    key = farm.order(link).key
    farm.says(link, LogKept(key=key, ends=ENDS))
    assert kept(farm) == [], "it is not over"
    farm.exited(link, key)
    farm.says(link, LogKept(key=key, ends=ENDS))
    farm.says(link, LogKept(key=key, ends=ENDS))
    assert kept(farm) == [key]


def test_no_node_writes_anothers_log() -> None:
    farm = CoreFarm()
    farm.submit()
    link, other = farm.link("s1", cores=1), farm.link("s2", cores=1)
    key = farm.orders(link)[0].key
    farm.exited(link, key)
    farm.exited(other, key)
    farm.says(other, LogKept(key=key, ends=ENDS))
    assert kept(farm) == []
    farm.says(link, LogKept(key=key, ends=ENDS))
    assert kept(farm) == [key]


def test_a_log_comes_on_the_link_that_the_exit_came_on() -> None:
    farm = CoreFarm()
    farm.submit()
    link = farm.link("s1", cores=1)
    key = farm.order(link).key
    farm.exited(link, key)
    link = farm.relink(link, "s1")
    farm.says(link, LogKept(key=key, ends=ENDS))
    assert kept(farm) == []


# -- tickets -------------------------------------------------------------------------------------------------


def keys(farm: CoreFarm, link: int) -> list[TicketKey]:
    return [said for said in farm.said[link] if isinstance(said, TicketKey)]


def the_ticket(farm: CoreFarm, who: Who, slave: str = "n1") -> Ticket:
    answer = farm.ask(GetTicket(rq=0, slave=slave), who)
    assert isinstance(answer, Ticket), answer
    return answer


def test_a_ticket_opens_the_slave_that_it_is_for() -> None:
    farm = AccessFarm()
    who = farm.node("n1", pin="the-pin")
    farm.link("n2", who=farm.node("n2", pin="x"), control="192.0.2.9:2345")
    link = farm.link("n1", who=who, control="192.0.2.7:2345")
    ada = farm.person("ada", "supervisor")
    (told,) = keys(farm, link)
    assert told.now == farm.core.turn.wall
    ticket = the_ticket(farm, ada)
    assert (ticket.slave, ticket.control, ticket.pin) == (1, "192.0.2.7:2345", "the-pin")
    claim = tickets.check(ticket.ticket, [told.key], 1, told.now)
    assert claim == tickets.Claim("ada", "supervisor", ada.account, 1, told.now + tickets.LIFE_S)
    with pytest.raises(tickets.TicketError):
        tickets.check(the_ticket(farm, ada, "n2").ticket, [told.key], 1, told.now)


def test_tickets_from_before_a_revocation_end_for_slaves_that_were_away_too() -> None:
    """The first key of a master's life ends older ones: who knows what was revoked in the life before?"""
    farm = AccessFarm()
    who = farm.node("n1")
    link = farm.link("n1", who=who)
    assert [key.only for key in keys(farm, link)] == [True]
    farm.wait(farm.policy.silence_s)
    farm.unlink(link)
    link = farm.link("n1", who=who)
    assert [key.only for key in keys(farm, link)] == [False], "nothing happened meanwhile: it stays good"
    farm.person("ada", "supervisor")
    farm.unlink(link)
    farm.ask(farm.account_verb("ada", "revoke", "user"))
    link = farm.link("n1", who=who)
    assert [key.only for key in keys(farm, link)] == [True]


def test_the_end_of_tickets_is_told_again_where_it_may_have_been_lost_with_the_link() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    link = farm.link("n1", who=who)
    farm.person("ada", "supervisor")
    farm.wait(farm.policy.silence_s)
    farm.ask(farm.account_verb("ada", "revoke", "user"))
    farm.wait(5.0)
    link = farm.relink(link, "n1", who=who)
    assert [key.only for key in keys(farm, link)] == [True], "said into a link that was dead by then"


def test_a_far_node_has_no_path_of_this_machine() -> None:
    """Clients here would go wherever it wants them to, and take it for the slave of this machine."""
    farm = AccessFarm()
    farm.link("far", who=farm.node("far"), control="unix:/tmp/trap")
    assert farm.slave("far").control == ""
    farm.refusal(GetTicket(rq=0, slave="localhost"))
    farm.link("here", control="unix:/run/drqueue/slave.sock")
    assert farm.slave("localhost").name == "here"


def test_a_slave_is_not_believed_any_number_of_cores() -> None:
    """Frames for all of them are placed in one step."""
    farm = AccessFarm()
    who = farm.node("n1")
    for cores in (2**50, CORES_MOST, CORES_MOST - 1):
        farm.unlink(farm.link("n1", who=who, cores=cores))
        assert farm.slave("n1").cores == min(cores, CORES_MOST)


def test_every_link_has_a_key_of_its_own_and_every_master_too() -> None:
    farm = AccessFarm()
    who = farm.node("n1")
    link = farm.link("n1", who=who)
    again = farm.relink(link, "n1", who=who)
    assert keys(farm, link)[0].key != keys(farm, again)[0].key
    assert tickets.slave_key(b"seed", 0, 1) == keys(farm, link)[0].key


def test_without_a_seed_no_key_is_told() -> None:
    farm = CoreFarm()
    assert keys(farm, farm.link("n1")) == []


def test_paths_are_for_this_machine_and_take_no_ticket() -> None:
    farm = AccessFarm()
    farm.link("n1", control="unix:/run/x", who=LOCAL_NODE)
    here = the_ticket(farm, Who(name="ada", role="artist", peer="uid 1000"))
    assert (here.control, here.pin, here.ticket) == ("unix:/run/x", "", b"")
    away = the_ticket(farm, farm.person("ada"))
    assert (away.control, away.ticket) == ("", b"")


def test_a_slave_that_cannot_be_reached_has_no_ticket() -> None:
    farm = AccessFarm()
    ada = farm.person("ada")
    who = farm.node("n1", pin="p")
    link = farm.link("n1", who=who, control="")
    assert the_ticket(farm, ada).ticket == b""
    link = farm.relink(link, "n1", who=who, control="192.0.2.7:2345")
    assert the_ticket(farm, ada).ticket
    farm.unlink(link)
    assert the_ticket(farm, ada) == Ticket(rq=farm.last_rq, slave=0, name="n1")
    local = farm.link("n2", control="192.0.2.1:2345")
    assert local not in farm.unlinked
    assert the_ticket(farm, ada, "n2").control == "", "nobody knows which certificate it shows"
