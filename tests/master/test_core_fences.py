"""What the master counts of a link: reports that are missing or come twice, links that are to be cut."""

import pytest

from drqueue.master.core.events import SlaveSaid, SlaveUnlinked
from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Held, Progressed, Registered, Report, Started
from tests.builders import CoreFarm, a_job, well

LEASE = 1800.0
GIVEN_UP = LEASE * 1.01 + 120


@pytest.fixture
def farm() -> CoreFarm:
    return CoreFarm()


def reports(
    farm: CoreFarm, link: int, nth: int, *exited: AttemptKey, started: tuple[AttemptKey, ...] = ()
) -> None:
    """The nth Report of a link."""
    report = Report(
        started=tuple(Started(key, 5.0) for key in started),
        exited=tuple(Exited(key, well()) for key in exited),
        nth=nth,
    )
    farm.step(SlaveSaid(link, report))


# -- what a slave's leases count from ----------------------------------------------------------------


@pytest.mark.parametrize("at", [0.0, 1234.5])
def test_i3_a_slave_is_told_which_hello_came(farm: CoreFarm, at: float) -> None:
    """0 for one that does not say when it said it."""
    link = farm.link(at=at)
    (registered,) = [m for m in farm.said[link] if isinstance(m, Registered)]
    assert registered.seen == at


# -- reports that are missing or come twice -----------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 3, 9])
def test_i4_f6_a_report_that_is_missing_or_comes_twice_ends_the_link(farm: CoreFarm, nth: int) -> None:
    farm.submit(a_job("1-2"))
    link = farm.link(cores=2)
    one, two = farm.keys(link).values()
    reports(farm, link, 1, started=(one, two))
    reports(farm, link, nth, one)
    refused = farm.unlinked[link]
    assert (refused.code, refused.retry) == ("start-over", True)
    assert refused.text == f"start over: report {nth} of this link came after 1"
    assert farm.noted(link) == []
    reports(farm, link, 2, two)
    assert farm.states() == {1: "RUNNING", 2: "RUNNING"}, "of that link nothing counts any more"
    assert farm.slave().state == "unlinked"
    farm.step(SlaveUnlinked(link, farm.now))
    link = farm.link(cores=2, held=[Held(one, ended=True), Held(two)])
    reports(farm, link, 1, one, started=(two,))
    reports(farm, link, 2, two)
    assert farm.job().state == "FINISHED"
    assert sorted(farm.noted(link)) == sorted([one, two])


def test_f6_a_report_that_was_lost_strands_no_frame(farm: CoreFarm) -> None:
    """P2: the next one tells that it is missing, and the next link tells it again."""
    farm.submit(a_job("1-2"))
    link = farm.link(cores=2)
    one, two = farm.keys(link).values()
    reports(farm, link, 1, started=(one, two))
    reports(farm, link, 3, two)  # the second said that the other one is over
    farm.step(SlaveUnlinked(link, farm.now))
    link = farm.link(cores=2, held=[Held(one, ended=True), Held(two, ended=True)])
    reports(farm, link, 1, one, two)
    assert farm.job().state == "FINISHED"


def test_f6_reports_are_counted_anew_on_each_link_and_those_of_an_older_slave_not_at_all(
    farm: CoreFarm,
) -> None:
    farm.submit(a_job("1-4"))
    link = farm.link(cores=4)
    keys = list(farm.keys(link).values())
    reports(farm, link, 1, keys[0])
    reports(farm, link, 2, keys[1])
    held = [Held(key) for key in keys[2:]]
    link = farm.relink(link, cores=4, held=held)
    reports(farm, link, 0, keys[2])
    reports(farm, link, 0, started=(keys[3],))
    farm.step(SlaveSaid(link, Report(progressed=(Progressed(keys[3], 0.5),))))
    reports(farm, link, 1, keys[3])
    assert farm.unlinked == {}
    assert farm.job().state == "FINISHED"


# -- links that are to be cut -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lease", "requeue-fast"])
def test_i3_f9_nothing_is_given_away_while_a_link_that_is_to_be_cut_may_still_stand(how: str) -> None:
    """While the disk is full for hours the decision to cut it is not done, and beats go to and fro on it."""
    farm = CoreFarm(Policy(farm="farm", lease_s=LEASE))
    link = farm.link()
    farm.submit(a_job("1", on_unreachable=how))
    key = farm.order(link).key
    reports(farm, link, 7)  # cut
    farm.wait(10 * GIVEN_UP)
    assert farm.states() == {1: "ASSIGNED"}
    last = farm.now
    farm.wait(20.0)
    farm.step(SlaveUnlinked(link, last))
    patience = GIVEN_UP if how == "lease" else 60.0
    farm.wait(patience - 20.0 - 0.1)
    assert farm.states() == {1: "ASSIGNED"}
    farm.wait(0.2)
    assert farm.states() == {1: "WAITING"}
    assert key not in farm.core.state.attempts


def test_a_slave_that_comes_back_before_its_former_link_is_gone_is_at_home(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    key = farm.order(link).key
    reports(farm, link, 7)
    again = farm.link(held=[Held(key)])
    farm.step(SlaveUnlinked(link, farm.now - 50.0))
    assert farm.slave().linked
    farm.wait(GIVEN_UP * 2)
    assert farm.states() == {1: "ASSIGNED"}
    farm.unlink(again)
    farm.wait(GIVEN_UP + 0.1)
    assert farm.states() == {1: "WAITING"}


def test_a_cut_link_is_forgotten_with_the_master(farm: CoreFarm) -> None:
    link = farm.link()
    farm.submit(a_job("1"))
    farm.order(link)
    reports(farm, link, 7)
    farm.wait(GIVEN_UP)
    farm.restart()
    farm.wait(GIVEN_UP + 0.1)
    assert farm.states() == {1: "WAITING"}


def test_what_comes_over_a_link_that_is_to_be_cut_is_not_answered(farm: CoreFarm) -> None:
    """It is told once to start over, not with each of the words that were under way."""
    link = farm.link()
    reports(farm, link, 7)
    del farm.unlinked[link]
    reports(farm, link, 8)
    assert farm.unlinked == {}
    farm.step(SlaveUnlinked(link, farm.now))
    reports(farm, link, 9)
    assert farm.unlinked[link].code == "say-hello"
