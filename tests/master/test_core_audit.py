"""The audit: one row for everything that was done or refused, no secret, and no flood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from drqueue.master.core.audit import (
    DIFFERENT_MOST,
    FURTHER,
    STRANGERS_MOST,
    WINDOWS_MOST,
    AuditTrail,
    audit_page,
)
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Audited
from drqueue.master.core.events import Noticed
from drqueue.master.core.records import AnyRecord, AuditRecord
from drqueue.master.core.turn import Policy
from drqueue.master.core.wording import described
from drqueue.proto.codec import encode
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Acted
from drqueue.proto.messages import (
    AddLine,
    ChangeJob,
    FrameVerb,
    GetJob,
    JobVerb,
    KillAttempts,
    ListJobs,
    Request,
    SetLimits,
    SlaveVerb,
    Submit,
)
from drqueue.proto.model import JobChange, LimitsChange, Needs
from drqueue.proto.roles import LEAST, Who
from tests.builders import WALL, CoreFarm, a_job, a_layer
from tests.master.access import AccessFarm, token
from tests.proto.examples import EXAMPLES

ANNA = Who(name="anna", role="artist", peer="uid 1000")
VIC = Who(name="vic", role="viewer", peer="192.0.2.5")


def whats(farm: CoreFarm) -> list[str]:
    return [row.what for row in farm.audited()]


def test_what_was_done_is_told_with_who_and_from_where() -> None:
    farm = CoreFarm()
    farm.submit_as(ANNA, a_job("1-100", name="shot42"))
    assert farm.audited() == [
        AuditRecord(
            id=1,
            at=WALL + 100,
            who="anna",
            role="artist",
            peer="uid 1000",
            what="submit job 0 'shot42', 100 frames",
            outcome="done",
        )
    ]


def test_every_change_has_a_row_in_the_same_commit_and_no_look_has() -> None:
    farm = CoreFarm()
    job = farm.submit_as(ANNA, a_job(name="shot6"))
    farm.link("s1")
    changes: list[tuple[Request, str]] = [
        (JobVerb(rq=0, job=job, verb="stop"), "stop job 0 'shot6'"),
        (
            FrameVerb(rq=0, job=job, frames="1-5", verb="requeue", now=True),
            "frames 1-5 of job 0 'shot6': requeue now",
        ),
        (
            FrameVerb(rq=0, job=job, layer="main", frames="1", verb="kill"),
            "frames 1 of job 0 'shot6' layer main: kill",
        ),
        (
            ChangeJob(rq=0, job=job, change=JobChange(name="shot7", retries=1)),
            "change job 0 'shot6': name=shot7, retries=1",
        ),
        (
            SetLimits(rq=0, slave="s1", change=LimitsChange(max_cpus=2, enabled=False, join=("a", "b"))),
            "slave s1: set enabled=no, max_cpus=2, join=a+b",
        ),
        (JobVerb(rq=0, job=job, verb="delete"), "delete job 0 'shot7'"),
    ]
    for request, what in changes:
        before = len(farm.saved)
        effects = farm.step_of(request)
        assert Audited() in effects
        rows = [row for row in farm.saved[before:] if isinstance(row, AuditRecord)]
        assert [(row.what, row.outcome, row.who) for row in rows] == [(what, "done", "admin")]
    before = len(farm.saved)
    assert Audited() not in farm.step_of(ListJobs(rq=0))
    assert Audited() not in farm.step_of(GetJob(rq=0, job=99))
    assert farm.saved[before:] == []


def test_a_submission_that_is_tried_again_is_not_told_again() -> None:
    farm = CoreFarm()
    request = Submit(rq=0, token="token-1234", spec=a_job())
    farm.ask(request, ANNA)
    farm.ask(request, ANNA)
    assert len(farm.audited()) == 1


def test_a_refusal_has_a_row_even_of_a_look() -> None:
    farm = CoreFarm()
    farm.refusal(AddLine(rq=0, kind="node"), VIC)
    farm.refusal(SlaveVerb(rq=0, slave="none", verb="forget"))
    assert [(row.who, row.what, row.outcome, row.text) for row in farm.audited()] == [
        ("vic", "node: add a line for 3600 s", "not-allowed", "this takes an admin, you are a viewer"),
        ("admin", "slave none: forget", "no-such-slave", ""),
    ]


def test_values_and_commands_are_nowhere_in_the_audit() -> None:
    farm = CoreFarm()
    hush = {"KEY": "hush", "X": "hush"}
    good = a_job(env=hush, params=hush, layers=(a_layer(argv=("hush",), env=hush),))
    farm.ask(Submit(rq=0, token="hush-hush", spec=good))
    farm.ask(Submit(rq=0, token="hush-more", spec=structs.replace(good, env={"hush=": "hush"})))
    farm.ask(Submit(rq=0, token="hush-most", spec=structs.replace(good, layers=(a_layer(argv=("{hush",)),))))
    assert len(farm.audited()) == 3
    assert "hush" not in str(farm.audited())


def test_what_nobody_has_proven_is_not_believed() -> None:
    """Control characters, and a text as long as a packet."""
    farm = CoreFarm()
    farm.step(
        Noticed(Who(name="", role="viewer", peer="192.0.2.1\x1b[31m"), "x" * 10_000, "bad\n", "\x07" * 9)
    )
    (row,) = farm.audited()
    assert len(row.what) == 200
    assert all(char.isprintable() for char in row.what + row.peer + row.outcome + row.text)


# -- floods ------------------------------------------------------------------------------------------------


def test_the_same_refusal_within_a_minute_is_one_row() -> None:
    farm = CoreFarm()
    writes = 0
    for _ in range(500):
        farm.refusal(AddLine(rq=0, kind="node"), VIC)
        writes += any(isinstance(row, AuditRecord) for row in farm.saved)
        farm.saved.clear()
        farm.now += 0.1
    (row,) = farm.audited()
    assert writes <= 6, "the count is written every ten seconds at most"
    farm.now += 20
    farm.read_clock()
    (row,) = farm.audited()
    assert row.count == 500
    farm.restart()
    farm.refusal(AddLine(rq=0, kind="node"), VIC)
    assert [row.count for row in farm.audited()] == [500, 1], "and a new row in the next minute"


def test_a_minute_ends() -> None:
    farm = CoreFarm()
    for seconds in (0, 59, 3, 59):
        farm.wait(seconds)
        farm.refusal(AddLine(rq=0, kind="node"), VIC)
    farm.wait(70)
    farm.read_clock()
    assert [row.count for row in farm.audited()] == [2, 2]


def test_others_and_other_things_have_rows_of_their_own() -> None:
    farm = CoreFarm()
    for who in (VIC, structs.replace(VIC, peer="192.0.2.6"), structs.replace(VIC, name="val")):
        for kind in ("node", "user"):
            farm.refusal(AddLine(rq=0, kind=kind, name="x"), who)
    assert len(farm.audited()) == 6


def test_a_flood_of_different_refusals_is_soon_told_of_as_one() -> None:
    farm = CoreFarm()
    for number in range(DIFFERENT_MOST + 100):
        farm.refusal(JobVerb(rq=0, job=number, verb="stop"), VIC)
    rows = farm.audited()
    assert len(rows) == DIFFERENT_MOST + 1
    farm.wait(15)
    farm.read_clock()
    assert (farm.audited()[-1].what, farm.audited()[-1].count) == (FURTHER, 100)
    assert farm.audited()[-1].text == ""
    farm.refusal(JobVerb(rq=0, job=1, verb="stop"), ANNA)
    assert farm.audited()[-1].who == "anna", "others are told of as ever"


def test_a_flood_from_everywhere_is_bounded_too() -> None:
    trail = AuditTrail()
    save: list[AnyRecord] = []
    for number in range(WINDOWS_MOST + 500):
        trail.count(Who(name="u", role="viewer", peer=f"peer {number}"), "x", "no", "", 0.0, save, now=1.0)
    assert len(save) == WINDOWS_MOST + 1
    trail.flush(12.0, save)
    last = save[-1]
    assert isinstance(last, AuditRecord)
    assert (last.peer, last.count) == ("many", 500)
    trail.flush(80.0, save)
    trail.count(VIC, "x", "no", "", 0.0, save, now=80.0)
    assert trail._windows.keys() == {("vic", "192.0.2.5", "x", "no")}
    assert trail._different == {"192.0.2.5": 1}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.floats(0, 30)), max_size=60))
def test_nothing_is_counted_twice_or_lost(refusals: list[tuple[int, int, float]]) -> None:
    trail, now = AuditTrail(), 0.0
    save: list[AnyRecord] = []
    for what, times, pause in refusals:
        now += pause
        trail.count(VIC, f"thing {what}", "no", "", now, save, now=now, times=times)
    trail.flush(now + 100, save)
    rows = {row.id: row for row in save if isinstance(row, AuditRecord)}
    for what in range(4):
        told = sum(row.count for row in rows.values() if row.what == f"thing {what}")
        assert told == sum(times for other, times, _ in refusals if other == what)


# -- what slaves say ---------------------------------------------------------------------------------------


def test_a_slaves_word_is_marked_as_its_own() -> None:
    farm = AccessFarm()
    link = farm.link("n1", who=farm.node("n1"))
    farm.wait(30)
    acted = Acted(at=farm.core.turn.wall, who="root", role="admin", peer="uid 0", what="set enabled=no")
    farm.says(link, acted)
    row = farm.audited()[-1]
    assert (row.who, row.role, row.peer) == ("root", "admin", "slave n1 says: uid 0")
    assert (row.what, row.outcome, row.text) == ("slave n1: set enabled=no", "done", "")


def test_a_slave_tells_no_time_and_no_flood() -> None:
    farm = AccessFarm()
    link = farm.link("n1", who=farm.node("n1"))
    before = len(farm.audited())
    late = farm.core.turn.wall - 500
    for number in range(300):
        farm.says(link, Acted(at=late, who=f"x{number}", role="admin", peer=f"p{number}", what="did"))
    rows = farm.audited()[before:]
    assert len(rows) <= DIFFERENT_MOST + 1
    assert all(row.at >= late + 500 for row in rows)
    assert rows[0].text == "500 s before this was written"


def test_nobody_hides_what_they_did_at_a_slave_behind_what_they_were_refused() -> None:
    """A flood of refusals at a slave's own port takes no room from what was done there."""
    farm = AccessFarm()
    link = farm.link("n1", who=farm.node("n1"))
    at = farm.core.turn.wall
    for number in range(2 * DIFFERENT_MOST):
        what = f"set max_cpus={number}"
        farm.says(link, Acted(at=at, who="ann", role="artist", peer="p", what=what, outcome="not-allowed"))
    farm.says(link, Acted(at=at, who="ann", role="artist", peer="p", what="kill all frames of job 3"))
    row = farm.audited()[-1]
    assert (row.who, row.what, row.outcome) == ("ann", "slave n1: kill all frames of job 3", "done")


# -- numbers and pages -------------------------------------------------------------------------------------


def test_numbers_go_on_after_a_restart_and_beyond_a_backups() -> None:
    farm = CoreFarm()
    farm.submit()
    farm.restart()
    farm.submit()
    assert [row.id for row in farm.audited()] == [1, 2]
    restored = Core(Policy(epoch=7), farm.storage.load(), 0.0, WALL, from_backup=True)
    again = Core(Policy(epoch=8), farm.storage.load(), 0.0, WALL, from_backup=True)
    assert 2 < restored.state.audit.last < again.state.audit.last


def test_a_page_of_the_longest_rows_fits_into_a_packet() -> None:
    rows = [
        AuditRecord(
            id=number,
            at=1,
            who="ü" * 100,
            role="r" * 100,
            peer="p" * 100,
            what="w" * 200,
            outcome="no",
            text="t" * 300,
        )
        for number in range(5, 1005)
    ]
    cursor, seen = 5, 0
    while True:
        page = audit_page([row for row in rows if row.id >= cursor], 1, cursor)
        encode(page)
        if not page.rows:
            break
        assert page.rows[0].id == cursor
        seen += len(page.rows)
        cursor = page.next
    assert (seen, cursor) == (1000, 1005)


def test_an_empty_page_is_where_it_was() -> None:
    assert audit_page([], 1, 9).next == 9


@pytest.mark.parametrize(
    "request_", [e for e in EXAMPLES if isinstance(e, Request)], ids=lambda request: type(request).__name__
)
def test_every_request_can_be_put_in_words(request_: Request) -> None:
    text = described(request_)
    assert 0 < len(text) <= 400
    assert "\n" not in text
    if type(request_) in LEAST:
        assert type(request_).__name__ not in text, "which says nothing to people"


def test_a_jobs_name_is_bounded_and_cannot_pass_for_more() -> None:
    farm = CoreFarm()
    job = farm.submit_as(ANNA, a_job(name="it's '7': done, " + "n" * 90))
    farm.ask(JobVerb(rq=0, job=job, verb="stop"))
    what = farm.audited()[-1].what
    assert what.startswith("""stop job 0 "it's '7': done, nnnn""")
    assert (what.endswith('n…"'), len(what)) == (True, 53)


def test_what_is_told_by_an_id_is_called_by_its_name() -> None:
    farm = AccessFarm()
    anna, n1 = farm.person("anna"), farm.node("n1")
    farm.add_line(kind="user", name="bert")
    farm.add_line()
    (line,) = [view for view in farm.accounts("user") if view.state == "line"]
    (nobodys,) = [view for view in farm.accounts() if view.state == "line"]
    for name, kind in ((anna.account, "user"), (n1.account, "node"), (line.id, "user"), (nobodys.id, "node")):
        farm.ask(farm.account_verb(name, "revoke", kind))
    # Somebody may be called like another's id.
    assert [what.partition(" (1 line")[0] for what in whats(farm)[-4:]] == [
        f"user anna: revoke (login {anna.account})",
        f"node n1: revoke (account {n1.account})",
        f"user bert: revoke (line {line.id})",
        f"node (any): revoke (line {nobodys.id})",
    ]


def test_who_joins_as_a_person_has_no_name_but_their_lines() -> None:
    farm = AccessFarm()
    farm.rejected("", token(9), role="client", secret="x")
    assert whats(farm)[-1] == "join as user"
    farm.rejected("n1", token(9))
    assert whats(farm)[-1] == "join as node n1"


def test_words_of_what_is_changed() -> None:
    change = JobChange(
        needs=Needs(cores=2), frames="1-" + "9" * 90, not_before=5.5, block=("h1",), depends=()
    )
    assert described(ChangeJob(rq=0, job=1, change=change)).startswith("change job 1: not_before=5.5, ")
    assert "needs=(cores 2)" in described(ChangeJob(rq=0, job=1, change=change))
    off = SetLimits(rq=0, slave="s", change=LimitsChange(max_load=None))
    assert described(off) == "slave s: set max_load=off"
    keys = (AttemptKey(1, 0, 0, 1), AttemptKey(2, 0, 0, 1))
    assert described(KillAttempts(rq=0, slave="s", keys=keys)) == "slave s: kill 2 frames"
    assert described(KillAttempts(rq=0, slave="s", keys=keys[:1])) == "slave s: kill 1 frame of job 1"
    assert described(KillAttempts(rq=0, slave="s", job=3)) == "slave s: kill all frames of job 3"


def test_strangers_at_many_addresses_neither_fill_the_disk_nor_hide_anybody() -> None:
    farm = AccessFarm()
    before = len(farm.audited())
    strangers = [
        Noticed(Who(name="", role="viewer", peer=f"192.0.2.{at}"), f"join as user n{number}", "bad-line")
        for at in range(100)
        for number in range(30)
    ]
    farm.step(*strangers)
    assert len(farm.audited()) == before + STRANGERS_MOST + 1
    farm.wait(11.0)
    farm.step(Noticed(strangers[0].who, "once more", "bad-line"))
    farm.step(Noticed(strangers[-1].who, "once more", "bad-line"))
    assert sum(row.count for row in farm.audited()[before:]) >= len(strangers)
    farm.refusal(AddLine(rq=0, kind="node"), ANNA)
    assert farm.audited()[-1].who == "anna"
    farm.wait(61.0)
    farm.read_clock()
    assert (farm.core.state.audit._strangers, farm.core.state.audit._different) == (0, {})
