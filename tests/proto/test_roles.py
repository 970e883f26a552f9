"""Roles: who reaches what, which variables are secrets, and what viewers are shown."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.proto.link_messages import Message
from drqueue.proto.messages import (
    Attempts,
    Changed,
    Frames,
    Job,
    Jobs,
    ListJobs,
    Reasons,
    SetLimits,
    SlaveInfo,
    Slaves,
)
from drqueue.proto.model import LimitsChange
from drqueue.proto.roles import (
    HIDDEN_VALUE,
    LEAST,
    OWN,
    PEOPLE,
    Role,
    is_secret,
    may_ask,
    reaches,
    without_secrets,
)
from drqueue.proto.shown import shown
from tests.proto.examples import BY_NAME, EXAMPLES

ROLES: tuple[Role, ...] = (*PEOPLE, "node")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("least", ROLES)
def test_each_role_reaches_those_before_it_and_a_node_itself(role: Role, least: Role) -> None:
    expected = {
        "viewer": "viewer",
        "artist": "viewer artist",
        "supervisor": "viewer artist supervisor",
        "admin": "viewer artist supervisor admin",
        "node": "node",
    }
    assert reaches(role, least) == (least in expected[role].split())


def test_a_role_that_does_not_exist_reaches_nothing() -> None:
    assert not any(reaches("god", least) for least in ROLES)  # type: ignore[arg-type]


def test_what_is_not_in_the_table_may_be_asked_by_nobody() -> None:
    done = BY_NAME["Done"]
    assert not any(may_ask(role, done) for role in ROLES)  # type: ignore[arg-type]
    assert may_ask("viewer", ListJobs(rq=1))
    assert not may_ask("artist", SetLimits(rq=1, change=LimitsChange()))


def test_what_is_somebodys_own_may_be_asked_by_artists() -> None:
    assert {LEAST[cls] for cls in OWN} == {"artist"}


@pytest.mark.parametrize(
    "name",
    [
        *("API_KEY", "key", "Secret", "MY_PASSWORD", "passwd", "TOKEN_X", "AWS_CREDENTIALS", "SSHKEYS"),
        "GPG_PASSPHRASE",
    ],
)
def test_telling_names_are_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["PATH", "SCENE", "FRAME", "PASSES", "SEC", ""])
def test_other_names_are_none(name: str) -> None:
    assert not is_secret(name)


@given(st.dictionaries(st.text(max_size=12) | st.just("THE_KEY"), st.text(max_size=9)))
def test_secrets_are_hidden_and_nothing_else_is(env: dict[str, str]) -> None:
    seen = without_secrets(env)
    assert list(seen) == list(env)
    for name, value in env.items():
        assert seen[name] == (HIDDEN_VALUE if is_secret(name) else value)


@pytest.mark.parametrize("role", ["artist", "supervisor", "admin"])
@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_whoever_submits_is_shown_everything(message: Message, role: Role) -> None:
    assert shown(message, role) is message


#: What stands in the examples and quotes a command or a log.
TELLING = (b"too long", b"tile 3")


@pytest.mark.parametrize(
    "message",
    [BY_NAME[cls.__name__] for cls in (Job, Jobs, Frames, Attempts, Slaves, SlaveInfo, Changed, Reasons)],
    ids=lambda message: type(message).__name__,
)
def test_viewers_see_neither_commands_nor_words_of_logs(message: Message) -> None:
    packed = msgspec.msgpack.encode(shown(message, "viewer"))
    assert not any(words in packed for words in TELLING)
    told = shown(message, "viewer")
    if isinstance(told, Job):
        assert {layer.command for layer in told.layers} == {""}
        assert told.job.stopped_for == "10 attempts failed, and max_failures is 9"
    assert any(words in msgspec.msgpack.encode(message) for words in TELLING)


def test_a_viewer_is_told_what_a_job_stopped_for_and_a_slave_is_sick_of() -> None:
    job, slave = BY_NAME["Job"], BY_NAME["SlaveInfo"]
    assert isinstance(job, Job)
    assert isinstance(slave, SlaveInfo)
    told = shown(job, "viewer").job
    assert msgspec.structs.replace(told, stopped_for=job.job.stopped_for) == job.job
    assert shown(slave, "viewer").slave.sick == "5 frames of 3 users failed on it in a row"


def test_a_viewer_sees_of_a_frame_where_it_stands() -> None:
    frames = BY_NAME["Frames"]
    assert isinstance(frames, Frames)
    (frame,), (told,) = frames.frames, shown(frames, "viewer").frames
    assert msgspec.structs.replace(frame, text="", activity="") == told
