"""Who may do what: every role against every request, and what is somebody's own."""

import msgspec
import pytest
from msgspec import structs

from drqueue.master.core.rights import NOT_ALLOWED
from drqueue.master.core.turn import Policy
from drqueue.proto import messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import (
    ChangeJob,
    FrameVerb,
    GetJob,
    GetSpec,
    Jobs,
    JobVerb,
    KillAttempts,
    ListAudit,
    ListJobs,
    Reasons,
    Refusal,
    Request,
    SlaveInfo,
    Spec,
    Submit,
    Submitted,
    WhoAmI,
    You,
)
from drqueue.proto.model import Depend, JobChange
from drqueue.proto.roles import HIDDEN_VALUE, LEAST, PEOPLE, Role, Who
from drqueue.proto.shown import shown
from drqueue.proto.tags import BY_TAG
from tests.builders import CoreFarm, a_job, a_layer, badly
from tests.proto.examples import BY_NAME

ANNA = Who(name="anna", role="artist", peer="uid 1000")
BOB = Who(name="bob", role="artist", peer="uid 1001")
VIC = Who(name="vic", role="viewer", peer="uid 1002")
SUE = Who(name="sue", role="supervisor", peer="uid 1003")

#: The whole table, once more and by hand: what each role may ask beyond what the one before may.
VIEWER = (
    "FarmInfo WhoAmI ListJobs GetJob ListFrames ListAttempts ListSlaves GetSlave Why Watch Unwatch GetTicket"
    " ListLimits ListShares ListPools"
)
ARTIST = "GetSpec FindLog ReadLog Submit JobVerb FrameVerb ChangeJob KillAttempts"
SUPERVISOR = "SetLimits SlaveVerb ResumeFarm"
ADMIN = (
    "AddLine ListAccounts AccountVerb ListAudit Examine BackUp PutLimit DropLimit PutShare DropShare PutPool"
)
MAY = {
    "viewer": {*VIEWER.split()},
    "artist": {*VIEWER.split(), *ARTIST.split()},
    "supervisor": {*VIEWER.split(), *ARTIST.split(), *SUPERVISOR.split()},
    "admin": {*VIEWER.split(), *ARTIST.split(), *SUPERVISOR.split(), *ADMIN.split()},
    "node": set[str](),
}
ROLES: tuple[Role, ...] = (*PEOPLE, "node")

#: Requests that are answers: nobody asks them.
ANSWERS = {
    *("Done", "Refusal", "Submitted", "Jobs", "Job", "Spec", "Frames", "Attempts", "Slaves", "SlaveInfo"),
    *("Reasons", "LogPlace", "LogPart", "Farm", "Watching", "You", "Ticket", "TheLine", "Accounts", "Audit"),
    *("BackedUp", "Findings", "Limits", "Shares", "Pools"),
}


def requests() -> list[type[Request]]:
    return [cls for cls in BY_TAG.values() if issubclass(cls, Request)]


def test_every_request_is_in_the_table_or_is_an_answer() -> None:
    asked = {cls.__name__ for cls in requests()} - ANSWERS
    assert {cls.__name__ for cls in LEAST} == asked
    assert asked == MAY["admin"]


def example(name: str) -> Request:
    """A request that is right in all but perhaps who asks it."""
    request = BY_NAME[name]
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in requests()))
def test_every_role_is_let_in_as_the_table_says(role: Role, name: str) -> None:
    """Asked of an empty farm by somebody whose own nothing is: what is let in may fail for other reasons."""
    farm = CoreFarm()
    who = Who(name="x", role=role)
    found = farm.core.refusal(who, example(name))
    if name in ANSWERS:
        assert found is not None
        assert found[0] == "bad-request"
    elif name not in MAY[role]:
        assert found is not None
        assert found[0] == NOT_ALLOWED
        assert found[1].startswith("this takes a")
        assert found[1].endswith(f"you are a{'n' if role[0] == 'a' else ''} {role}")
    elif role == "artist" and name in ("KillAttempts", "Submit"):
        # Of a job that is not theirs; with a priority beyond theirs.
        assert found is not None
        assert not found[1].startswith("this takes a")
    else:
        assert found is None


def test_a_refusal_is_a_sentence_for_whoever_asked() -> None:
    farm = CoreFarm()
    job = farm.submit_as(BOB)
    refusal = farm.refusal(JobVerb(rq=0, job=job, verb="stop"), ANNA)
    assert (refusal.code, refusal.text) == (
        NOT_ALLOWED,
        "job 0 was submitted by bob: only they or a supervisor may do that",
    )
    refusal = farm.refusal(JobVerb(rq=0, job=job, verb="stop"), VIC)
    assert refusal.text == "this takes an artist, you are a viewer"
    refusal = farm.refusal(ListAudit(rq=0), SUE)
    assert refusal.text == "this takes an admin, you are a supervisor"


OWN = [
    JobVerb(rq=0, job=0, verb="hard-stop"),
    JobVerb(rq=0, job=0, verb="delete"),
    FrameVerb(rq=0, job=0, frames="1", verb="finish"),
    ChangeJob(rq=0, job=0, change=JobChange(name="mine")),
]


@pytest.mark.parametrize("request_", OWN, ids=lambda request: type(request).__name__)
def test_an_artist_does_to_their_own_jobs_what_they_like(request_: Request) -> None:
    farm = CoreFarm()
    farm.submit_as(ANNA)
    before = farm.job()
    assert farm.refusal(request_, BOB).code == NOT_ALLOWED
    assert farm.job() == before
    assert not isinstance(farm.ask(request_, ANNA), Refusal)


@pytest.mark.parametrize("request_", OWN, ids=lambda request: type(request).__name__)
def test_a_supervisor_does_so_to_everybodys(request_: Request) -> None:
    farm = CoreFarm()
    farm.submit_as(ANNA)
    assert not isinstance(farm.ask(request_, SUE), Refusal)


def test_the_owner_that_a_job_names_has_no_rights_by_that() -> None:
    """`owner` is what somebody said; the submitter is who it was."""
    farm = CoreFarm()
    job = farm.submit_as(BOB, a_job(owner="anna"))
    assert farm.job(job).submitter == "bob"
    assert farm.refusal(JobVerb(rq=0, job=job, verb="stop"), ANNA).code == NOT_ALLOWED
    assert not isinstance(farm.ask(JobVerb(rq=0, job=job, verb="stop"), BOB), Refusal)


def test_a_job_from_before_there_were_submitters_is_nobodys() -> None:
    farm = CoreFarm()
    job = farm.submit_as(ANNA)
    farm.core.state.jobs[job].submitter = ""
    nobody = Who(name="", role="artist")
    for who in (ANNA, nobody):
        refusal = farm.refusal(JobVerb(rq=0, job=job, verb="stop"), who)
        assert refusal.text == "nobody knows who submitted job 0: only a supervisor may do that"


def test_a_job_may_wait_for_anothers() -> None:
    farm = CoreFarm()
    first = farm.submit_as(BOB)
    second = farm.submit_as(ANNA, a_job(depends=(Depend(first),)))
    assert farm.job(second).waits_for == "job 0"


def test_an_unknown_job_is_simply_not_there() -> None:
    farm = CoreFarm()
    assert farm.refusal(JobVerb(rq=0, job=7, verb="stop"), ANNA).code == "no-such-job"


@pytest.mark.parametrize(
    ("keys", "job"),
    [
        ((AttemptKey(0, 0, 0, 1), AttemptKey(1, 0, 0, 1)), None),
        ((AttemptKey(0, 0, 0, 1),), 1),
        ((), 1),
        ((), 2),
        ((AttemptKey(2, 0, 0, 1),), None),
        ((AttemptKey(0, 0, 0, 1),), 2),
        ((AttemptKey(1, 0, 0, 1),), 0),
        ((), None),
    ],
)
def test_each_attempt_to_kill_must_be_an_artists_own(keys: tuple[AttemptKey, ...], job: int | None) -> None:
    """Job 0 is anna's, job 1 bob's, job 2 does not exist yet; what names nothing names all."""
    farm = CoreFarm()
    farm.submit_as(ANNA)
    farm.submit_as(BOB)
    request = KillAttempts(rq=0, slave="s1", keys=keys, job=job)
    found = farm.core.refusal(ANNA, request)
    assert found is not None
    assert found[0] == NOT_ALLOWED
    assert farm.core.refusal(SUE, request) is None
    mine = structs.replace(request, keys=(AttemptKey(0, 0, 3, 1),), job=0)
    assert farm.core.refusal(ANNA, mine) is None


def test_priorities_beyond_a_bound_take_a_supervisor() -> None:
    farm = CoreFarm(Policy(artist_max_priority=600))
    farm.submit_as(ANNA, a_job(priority=600))
    refusal = farm.refusal(Submit(rq=0, token="token-9999", spec=a_job(priority=601)), ANNA)
    assert (refusal.code, refusal.text) == (
        NOT_ALLOWED,
        "priority 601 takes a supervisor: an artist may go up to 600",
    )
    up = ChangeJob(rq=0, job=0, change=JobChange(priority=601))
    assert farm.refusal(up, ANNA).code == NOT_ALLOWED
    assert not isinstance(farm.ask(up, SUE), Refusal)
    rename = ChangeJob(rq=0, job=0, change=JobChange(name="other"))
    assert not isinstance(farm.ask(rename, ANNA), Refusal), "a supervisor's priority binds no artist's hands"
    assert farm.job().priority == 601


def test_viewers_are_told_that_frames_failed_and_not_how() -> None:
    """What a job stopped for and what a slave is sick of end with how the last frame ended."""
    farm = CoreFarm()
    link = farm.link()
    for who in (ANNA, BOB):
        for _ in range(3):
            farm.submit_as(who, a_job("1-2", max_failures=1))
    while farm.fail_all(link, badly(text="the secret of /home/anna")):
        pass
    job, slave = farm.job(), farm.slave()
    assert job.stopped_for.endswith(": the secret of /home/anna")
    assert slave.sick.endswith(": the secret of /home/anna")
    reasons = Reasons(rq=1, reasons=tuple(farm.why()))
    for message in (Jobs(rq=1, jobs=(job,)), SlaveInfo(rq=1, slave=slave), reasons):
        assert b"secret" in msgspec.msgpack.encode(message)
        assert b"secret" not in msgspec.msgpack.encode(shown(message, "viewer"))


def test_a_token_is_its_submitters() -> None:
    farm = CoreFarm()
    request = Submit(rq=0, token="token-1234", spec=a_job())
    first = farm.ask(request, ANNA)
    assert isinstance(first, Submitted)
    assert (first.job, first.again) == (0, False)
    again = farm.ask(request, ANNA)
    assert isinstance(again, Submitted)
    assert again.again
    assert farm.refusal(request, BOB).code == NOT_ALLOWED
    farm.verb(0, "delete")
    assert farm.core.state.jobs == {}
    assert farm.refusal(request, BOB).code == NOT_ALLOWED, "nor when the job is gone"
    farm.restart()
    assert farm.refusal(request, BOB).code == NOT_ALLOWED
    again = farm.ask(request, ANNA)
    assert isinstance(again, Submitted)
    assert (again.job, again.again) == (0, True)


def test_orders_name_the_submitter_also_after_a_restart() -> None:
    farm = CoreFarm()
    farm.submit_as(ANNA, a_job("1-2", owner="somebody"))
    link = farm.link("s1", cores=1)
    assert farm.order(link).submitter == "anna"
    farm.restart()
    assert farm.job().submitter == "anna"


@pytest.mark.parametrize(
    ("who", "shown"),
    [(ANNA, True), (Who(name="root", role="admin"), True), (BOB, False), (SUE, False)],
)
def test_secrets_in_a_jobs_environment_are_its_submitters(who: Who, shown: bool) -> None:
    farm = CoreFarm()
    env = {"LICENCE_KEY": "hush", "SCENE": "shot"}
    layer = a_layer(env={"api_token": "hush", "A": "1"})
    spec = a_job(env=env, params={"password": "hush", "width": "9"}, layers=(layer,))
    farm.submit_as(ANNA, spec)
    answer = farm.ask(GetSpec(rq=0, job=0), who)
    assert isinstance(answer, Spec)
    assert (b"hush" in msgspec.msgpack.encode(answer)) == shown
    assert (answer.spec == spec) == shown
    if not shown:
        assert answer.spec.env == {"LICENCE_KEY": HIDDEN_VALUE, "SCENE": "shot"}
        assert answer.spec.params == {"password": HIDDEN_VALUE, "width": "9"}
        assert answer.spec.layers[0].env == {"api_token": HIDDEN_VALUE, "A": "1"}


def test_who_am_i() -> None:
    answer = CoreFarm().ask(WhoAmI(rq=0), VIC)
    assert answer == You(rq=1, name="vic", role="viewer", peer="uid 1002")


def test_a_viewer_looks_and_a_node_does_not() -> None:
    farm = CoreFarm()
    farm.submit_as(ANNA)
    assert isinstance(farm.ask(GetJob(rq=0, job=0), VIC), messages.Job)
    assert farm.refusal(GetSpec(rq=0, job=0), VIC).code == NOT_ALLOWED
    node = Who(name="n1", role="node")
    assert farm.refusal(ListJobs(rq=0), node).text == "this takes a viewer, you are a node"


def test_rights_are_looked_at_between_steps_too() -> None:
    """While nothing can be written, reads are answered from the state: under the same table."""
    farm = CoreFarm()
    farm.submit_as(ANNA)
    rows = farm.audited()
    for request in (GetSpec(rq=5, job=0), ListAudit(rq=5)):
        (effect,) = farm.core.peek(1, request, VIC)
        assert isinstance(effect.message, Refusal)  # type: ignore[union-attr]
    farm.step()
    assert farm.audited() == rows, "nothing is written down where nothing can be"
