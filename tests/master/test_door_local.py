"""Who somebody is on the master's Unix socket: by user id and `local_roles`, and by nothing that they say."""

import os
import socket
from typing import Any

import pytest
import trio
import trio.testing

from drqueue.channel import Channel
from drqueue.engine import Inbox
from drqueue.master import door
from drqueue.master.core.events import Event
from drqueue.master.core.register import Register
from drqueue.master.door import Door
from drqueue.master.gate import Caller
from drqueue.proto.handshake import Answerer
from drqueue.proto.link_messages import Hi, Welcome

#: Neither root nor the master's own.
UID = os.geteuid() + 4242
ROLES = ("vera=viewer", "sue=supervisor", "ada=admin", "slave=node", f"{UID + 1}=admin")


def a_door(roles: tuple[str, ...] = ROLES) -> Door:
    return Door(Answerer(Welcome(version=1), ("client", "slave")), Register, Inbox[Event](), roles)


def role_of(name: str, link: Any, uid: int = UID, *, allowed: bool = True) -> str:
    """The role that somebody gets, "" where they are turned away, as they must be unless `allowed`."""
    hi = Hi(role=link, software="test", name="root", secret="no matter")
    judged = a_door()
    if not allowed:
        with pytest.raises(door._NotIn) as caught:
            judged._local(hi, Caller("unix", f"uid {uid}", uid), name)
        assert (caught.value.code, caught.value.retry) == ("not-allowed", False)
        return ""
    who = judged._local(hi, Caller("unix", f"uid {uid}", uid), name)
    assert (who.name, who.account, who.peer) == (name, "", f"uid {uid}")
    return who.role


@pytest.mark.parametrize(
    ("name", "client", "slave"),
    [
        ("anna", "artist", ""),
        ("vera", "viewer", ""),
        ("sue", "supervisor", ""),
        ("ada", "admin", ""),
        ("slave", "", "node"),
    ],
)
def test_a_link_of_a_slave_takes_the_role_of_a_node_and_that_role_nothing_else(
    name: str, client: str, slave: str
) -> None:
    assert role_of(name, "client", allowed=bool(client)) == client
    assert role_of(name, "slave", allowed=bool(slave)) == slave


def test_a_role_may_be_a_user_ids() -> None:
    assert role_of("anna", "client", UID + 1) == "admin"


@pytest.mark.parametrize("uid", [0, os.geteuid()])
@pytest.mark.parametrize("name", ["anna", "vera", "slave"])
def test_root_and_the_masters_own_user_are_admins_and_may_run_a_slave(uid: int, name: str) -> None:
    assert (role_of(name, "client", uid), role_of(name, "slave", uid)) == ("admin", "node")


async def test_a_login_name_is_looked_up_again_after_a_minute(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user id may be somebody else's by then."""
    made = a_door()
    names = iter(["anna", "bob"])
    monkeypatch.setattr(door, "login_name", lambda _uid: next(names))
    assert [await made._login_name(UID) for _ in range(2)] == ["anna", "anna"]
    await trio.sleep(61)
    assert await made._login_name(UID) == "bob"


async def test_no_secret_goes_further_than_the_door() -> None:
    """What comes after it logs, and hands on, whatever stands in a Hi."""
    one, two = socket.socketpair()
    uid = os.geteuid()
    async with Channel(one, "one") as channel, Channel(two, "two"):
        hi = Hi(role="client", software="test", secret="s" * 52, ticket=b"t")
        entered = await a_door().enter(channel, hi, Caller("unix", f"uid {uid}", uid))
    assert entered is not None
    assert (entered.hi.secret, entered.hi.ticket) == ("", b"")
