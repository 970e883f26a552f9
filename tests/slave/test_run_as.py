"""Which user a frame runs as, by settings and user database; no root is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.settings import SettingsError
from drqueue.slave import privileges
from drqueue.slave.run_as import RunAs, User, Users, system_uid_min

RENDER = User("render", 990, 990, (990, 44), "/var/lib/render")
ANNA = User("anna", 1001, 1001, (1001, 50), "/home/anna")
BEN = User("ben", 1002, 1002, (1002,), "/home/ben")
SLAVE = User("drqueue-slave", 980, 980, (980,), "/var/lib/drqueue-slave")
ROOT = User("root", 0, 0, (0,), "/root")
DAEMON = User("daemon", 2, 2, (2,), "/")
NOBODY = User("nobody", 65534, 65534, (65534,), "/")
TWIN = User("toor", 0, 0, (0,), "/root")
ALL = (RENDER, ANNA, BEN, SLAVE, ROOT, DAEMON, NOBODY, TWIN)


class Book(Users):
    """A user database of these, in which somebody may stop to exist."""

    def __init__(self, users: Sequence[User] = ALL) -> None:
        self.users = list(users)

    def by_name(self, name: str) -> User | None:
        return next((user for user in self.users if user.name == name), None)

    def by_uid(self, uid: int) -> User | None:
        return next((user for user in self.users if user.uid == uid), None)


def run_as(name: str = "", *mapped: str, own: User = SLAVE, may: bool = True, **more: Any) -> RunAs:
    more = {"users": Book(), "uid_min": 1000, **more}
    return RunAs(name, mapped, own=own.uid, may_change=may, **more)


def refused(*words: Any, **more: Any) -> str:
    """The sentence with which a start is refused."""
    with pytest.raises(SettingsError) as caught:
        run_as(*words, **more)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_render_is_the_default_where_that_can_be() -> None:
    assert run_as().user("anna") == RENDER
    assert run_as(own=ROOT).user("") == RENDER


@pytest.mark.parametrize(
    ("more"),
    [{"may": False}, {"users": Book([ANNA])}, {"own": RENDER}],
    ids=["may not change users", "no such user", "it is render itself"],
)
def test_else_an_ordinary_slaves_frames_are_its_own(more: dict[str, Any]) -> None:
    found = run_as(**more)
    assert (found.user("anna"), found.others) == (None, False)


@pytest.mark.parametrize(
    ("name", "own", "gives_up"),
    [("self", SLAVE, True), ("render", SLAVE, False), ("self", ROOT, False), ("render", ROOT, False)],
)
def test_whose_frames_are_its_own_gives_up_what_it_may(
    monkeypatch: pytest.MonkeyPatch, name: str, own: User, gives_up: bool
) -> None:
    """Those frames would have its rights, too; root's cannot be less than root."""
    done: list[bool] = []
    monkeypatch.setattr(privileges, "give_up", lambda: done.append(True))
    run_as(name, own=own).settle()
    assert done == [True] * gives_up


def test_frames_of_root_need_somebody_else() -> None:
    text = refused(own=ROOT, users=Book([ROOT, ANNA]))
    for said in ("useradd --system render", "run_as", "self"):
        assert said in text
    assert run_as("self", own=ROOT).user("anna") is None
    assert run_as("ben", own=ROOT, users=Book([ROOT, BEN])).user("anna") == BEN


def test_a_user_may_be_named() -> None:
    assert run_as("ben").user("anna") == BEN
    assert run_as("daemon").user("anna") == DAEMON


@pytest.mark.parametrize(
    ("words", "more", "text"),
    [
        (("zoe",), {}, "no user zoe on this machine"),
        (("root",), {}, "never run as root, which is uid 0"),
        (("toor",), {}, "never run as toor, which is uid 0"),
        (("drqueue-slave",), {}, "the slave's own user, whose secret frames could read"),
        (("render",), {"may": False}, "may not change users: give it CAP_SETUID, CAP_SETGID and CAP_KILL"),
        (("",), {"may": False, "own": ROOT}, "may not change users"),
        (("self", "anna"), {}, "map_users needs another user"),
        (("", "anna"), {"may": False}, "map_users: frames cannot run as other users, as this slave may not"),
        (("", "zoe"), {}, "no user zoe on this machine, for zoe"),
        (("", "anna=zoe"), {}, "no user zoe on this machine, for anna"),
        (("", "anna=root"), {}, "frames cannot run as root, for anna: that is uid 0"),
        (("", "root"), {}, "frames cannot run as root, for root: that is uid 0"),
        (("", "anna=daemon"), {}, "its uid, 2, is no person's"),
        (("", "anna=render"), {}, "its uid, 990, is no person's"),
        (("", "anna=nobody"), {}, "its uid, 65534, is no person's"),
        (("", "anna=drqueue-slave"), {}, "that is the slave's own user"),
        (("", "anna=ben"), {"own": BEN}, "that is the slave's own user"),
    ],
)
def test_a_start_that_is_refused(words: tuple[str, ...], more: dict[str, Any], text: str) -> None:
    assert text in refused(*words, **more)


def test_mapped_submitters_run_as_themselves_or_as_told() -> None:
    found = run_as("", "anna", "carl=ben")
    assert found.user("anna") == ANNA
    assert found.user("carl") == BEN
    for other in ("ben", "zoe", "root", ""):
        assert found.user(other) == RENDER, other


def test_everybody_is_mapped_who_is_a_person_here() -> None:
    found = run_as("", "*", "carl=ben")
    assert (found.user("anna"), found.user("ben"), found.user("carl")) == (ANNA, BEN, BEN)
    for other in ("zoe", "root", "toor", "daemon", "nobody", "drqueue-slave", "render", "", "a\0b"):
        assert found.user(other) == RENDER, other


def test_a_user_who_is_gone_is_told_and_everybodys_rule_falls_back() -> None:
    now = [0.0]
    book = Book()
    named = run_as("", "anna", users=book, clock=lambda: now[0])
    anybody = run_as("", "*", users=book, clock=lambda: now[0])
    assert named.user("anna") == anybody.user("anna") == ANNA
    book.users.remove(ANNA)
    assert named.user("anna") == ANNA  # believed for a while
    now[0] = 61.0
    with pytest.raises(SettingsError, match="frames of anna cannot run as anna on this machine any more"):
        named.user("anna")
    assert anybody.user("anna") == RENDER


def test_a_user_who_becomes_root_is_not_served() -> None:
    now = [0.0]
    book = Book()
    found = run_as("", "*", users=book, clock=lambda: now[0])
    assert found.user("anna") == ANNA
    book.users[book.users.index(ANNA)] = ANNA._replace(uid=0)
    now[0] = 61.0
    assert found.user("anna") == RENDER


@given(
    st.lists(st.sampled_from(["anna", "*", "carl=ben", "ben"]), max_size=4),
    st.one_of(st.sampled_from([user.name for user in ALL]), st.text()),
    st.sampled_from(["", "render", "ben", "daemon"]),
)
def test_no_frame_is_ever_roots_or_the_slaves(mapped: list[str], submitter: str, name: str) -> None:
    user = run_as(name, *mapped).user(submitter)
    assert user is not None
    assert user.uid not in (0, SLAVE.uid)
    assert user.uid >= 1000 or user.name == (name or "render")


def test_whose_leftovers_may_be_removed() -> None:
    found = run_as()
    assert found.owner(RENDER.uid, RENDER.gid) == RENDER.ids
    assert found.owner(ANNA.uid, 5) == ANNA.ids
    assert found.owner(4242, 4343) == (4242, 4343, ())
    for uid in (0, SLAVE.uid, DAEMON.uid, NOBODY.uid):
        assert found.owner(uid, 0) is None
    assert run_as(own=BEN).owner(BEN.uid, BEN.gid) is None
    assert run_as("self").owner(ANNA.uid, ANNA.gid) is None


def test_name_and_home() -> None:
    found = run_as()
    assert found.name_and_home(RENDER) == ("render", "/var/lib/render")
    assert found.name_and_home(None) == ("drqueue-slave", "/var/lib/drqueue-slave")
    assert run_as(users=Book([RENDER])).name_and_home(None) == ("980", "/")


def test_the_real_user_database() -> None:
    """root is there everywhere; a name that no user can have is none."""
    root = Users().by_name("root")
    assert root is not None
    assert (root.uid, root.gid in root.groups, Users().by_uid(0)) == (0, True, root)
    assert Users().by_name("a\0b") is None
    assert Users().by_name("no such user") is None
    assert Users().by_uid(2**31 - 7) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("#UID_MIN 7\nUID_MIN\t\t 500\nUID_MAX 60000\n", 500),
        ("", 1000),
        ("UID_MIN many\n", 1000),
        ("UID_MIN 0\n", 1),
        (None, 1000),
    ],
)
def test_where_people_begin(tmp_path: Path, text: str | None, first: int) -> None:
    path = tmp_path / "login.defs"
    if text is not None:
        path.write_text(text)
    assert system_uid_min(str(path)) == first
