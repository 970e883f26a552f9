"""Into a farm over the network: what is dialled with which login, what goes wrong; `login` and its kin."""

import fcntl
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from drqueue.access import Access, read_access, write_access
from drqueue.client import (
    DrQueueError,
    MasterUnreachable,
    NotAllowed,
    NotLoggedIn,
    Refused,
    WrongCertificate,
    connect,
    entrance,
    login,
)
from drqueue.client.login import PENDING_FILE, log_in
from drqueue.master.certificate import make_certificate
from drqueue.proto import lines, messages
from drqueue.proto.link_messages import Join, Joined, Rejected
from drqueue.settings import Address
from drqueue.tls import server_context_from
from tests import secured
from tests.client.conftest import Command
from tests.client.peer import Peer, in_thread, job_view, served_in_thread, serving, soon
from tests.client.secured_peer import SECRET, SecuredPeer, keep, way_in

OTHER_PIN = lines.encoded(bytes(32))


def answers(peer: Peer) -> Peer:
    peer.on[messages.GetJob] = lambda _, asked: messages.Job(rq=asked.rq, job=job_view(asked.job), layers=())
    return peer


@pytest.fixture
def master() -> SecuredPeer:
    peer = SecuredPeer()
    answers(peer)
    return peer


# -- being let in -----------------------------------------------------------------------------------------


async def test_a_master_on_the_network_is_shown_the_secret_and_nobody_else(
    master: SecuredPeer, tmp_path: Path
) -> None:
    async with serving(master):
        env = keep(tmp_path, way_in(1, secret="other"), way_in(master.port))
        async with connect(master.address, env=env) as farm:
            assert (await soon(farm.job(3)))[0].id == 3
    assert [hi.secret for hi in master.greetings] == [SECRET]


async def test_without_a_login_nothing_is_dialled(master: SecuredPeer, tmp_path: Path) -> None:
    async with serving(master):
        with pytest.raises(NotLoggedIn) as caught:
            async with connect(master.address, env=keep(tmp_path, way_in(1)), patience_s=20):
                raise AssertionError("let in")
    assert str(caught.value) == (
        f"there is no login for {master.address} in {tmp_path}/access.json, only for 127.0.0.1:1:"
        " ask an admin for a line (drqueue user add NAME) and use it: drqueue login LINE"
    )
    assert master.links == []


async def test_another_certificate_is_no_master_and_hears_no_secret(
    master: SecuredPeer, tmp_path: Path
) -> None:
    async with serving(master):
        env = keep(tmp_path, way_in(master.port, pin=OTHER_PIN))
        with pytest.raises(WrongCertificate, match="another certificate than the one you logged in with"):
            async with connect(master.address, env=env, patience_s=20):
                raise AssertionError("let in")
    assert master.greetings == []


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("no-account", NotLoggedIn, "your account was taken away; ask an admin for a line"),
        ("not-allowed", NotAllowed, "your account was taken away"),
    ],
)
async def test_a_revoked_account_is_told_at_once_and_what_to_do(
    master: SecuredPeer, tmp_path: Path, code: str, kind: type[Exception], words: str
) -> None:
    master.judge = lambda hi: Rejected(code=code, text="your account was taken away")
    async with serving(master):
        with pytest.raises(kind, match=words):
            async with connect(master.address, env=keep(tmp_path, way_in(master.port)), patience_s=20):
                raise AssertionError("let in")
    assert len(master.greetings) == 1


async def test_a_login_that_others_can_read_is_not_used(master: SecuredPeer, tmp_path: Path) -> None:
    async with serving(master):
        env = keep(tmp_path, way_in(master.port))
        os.chmod(env["DRQUEUE_ACCESS"], 0o640)
        with pytest.raises(NotLoggedIn, match=r"can be read by others.*chmod 600"):
            async with connect(master.address, env=env):
                raise AssertionError("let in")
    assert master.links == []


async def test_a_master_that_comes_back_is_dialled_anew(master: SecuredPeer, tmp_path: Path) -> None:
    async with serving(master) as nursery:
        env = keep(tmp_path, way_in(master.port))
        async with connect(master.address, env=env, patience_s=20) as farm:
            master.stop()
            await soon(master.stopped.wait())
            await nursery.start(master.serve)
            assert (await soon(farm.job(5)))[0].id == 5
    assert len(master.greetings) == 2


async def test_another_in_the_place_of_a_master_that_went_is_not_trusted(
    master: SecuredPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(master) as nursery:
        env = keep(tmp_path, way_in(master.port))
        async with connect(master.address, env=env, patience_s=20) as farm:
            master.stop()
            await soon(master.stopped.wait())
            other = server_context_from(*make_certificate("other"))
            monkeypatch.setattr(secured, "server", lambda: other)
            await nursery.start(master.serve)
            with pytest.raises(WrongCertificate):
                await soon(farm.job(5))
    assert len(master.greetings) == 1


# -- where a master is looked for -------------------------------------------------------------------------


class Dialled(Exception):  # noqa: N818
    """Stands for a link."""


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The places that are dialled; nobody answers there."""
    places: list[Address] = []

    async def dial(place: Address, **_: Any) -> Any:
        places.append(place)
        raise FileNotFoundError if place.kind == "unix" else ConnectionRefusedError

    monkeypatch.setattr(entrance, "dial", dial)
    return places


async def places_tried(named: str, env: dict[str, str], dialled: list[Address]) -> list[str]:
    with pytest.raises(MasterUnreachable):
        async with connect(named, env=env):
            raise AssertionError("let in")
    return [str(place) for place in dialled if place.kind == "tcp"]


async def test_where_none_is_named_the_newest_login_comes_after_the_sockets(
    tmp_path: Path, dialled: list[Address]
) -> None:
    env = keep(tmp_path, way_in(4000, host="10.0.0.1"), way_in(1234), way_in(4001))
    assert await places_tried("", env, dialled) == ["10.0.0.1:4000", "127.0.0.1:1234"]
    assert [place.kind for place in dialled][-2:] == ["tcp", "tcp"]
    assert len(dialled) > 3


async def test_without_a_login_for_it_the_port_of_this_machine_is_left_alone(
    tmp_path: Path, dialled: list[Address]
) -> None:
    assert await places_tried("", keep(tmp_path), dialled) == []
    assert await places_tried("", keep(tmp_path, way_in(1234, host="10.0.0.1")), dialled) == ["10.0.0.1:1234"]


async def test_this_machine_is_entered_by_the_name_that_a_line_gave_it(
    tmp_path: Path, dialled: list[Address]
) -> None:
    """Where somebody may not open the master's socket, their login for its port counts."""
    own = os.uname().nodename.upper()
    env = keep(tmp_path, way_in(1234, host="10.9.9.9"), way_in(1234, host=own), way_in(1235, host=own))
    assert await places_tried("localhost", env, dialled) == [f"{own}:1234"]


async def test_localhost_is_no_other_machine_however_new_its_login(
    tmp_path: Path, dialled: list[Address]
) -> None:
    env = keep(tmp_path, way_in(4000, host="10.0.0.1"), way_in(1234))
    assert await places_tried("localhost", env, dialled) == ["127.0.0.1:1234"]


async def test_a_socket_of_this_machine_is_preferred_to_a_login(master: SecuredPeer, tmp_path: Path) -> None:
    here = Peer(str(tmp_path / "nothing" / "master.sock"))
    (tmp_path / "nothing").mkdir()
    answers(here)
    async with serving(master, here):
        env = keep(tmp_path, way_in(master.port))
        async with connect(env=env) as farm:
            await soon(farm.job(1))
    assert here.kinds() == ["GetJob"]
    assert master.links == []


# -- logging in -------------------------------------------------------------------------------------------


async def test_a_login_is_private_and_its_secret_stays_here(master: SecuredPeer, tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    async with serving(master):
        way = await soon(log_in(master.line(), env))
    path = tmp_path / "config" / "drqueue" / "access.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_access(str(path)) == [way]
    assert (way.name, way.role, way.farm, way.pin) == ("anna", "artist", "f00", secured.pin())
    (join,) = master.joins
    assert (join.role, join.secret_hash) == ("client", lines.secret_hash(way.secret))
    assert len(lines.decoded(way.secret)) == lines.SECRET_BYTES
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


async def test_a_line_may_be_used_again_after_a_link_that_broke(master: SecuredPeer, tmp_path: Path) -> None:
    """The secret is on the disk before the master hears of it, and is the same the next time."""
    env = keep(tmp_path)
    kept: list[str] = []

    def go_away(join: Join) -> None:
        kept.extend(way.secret for way in read_access(str(tmp_path / PENDING_FILE)))

    admit, master.admit = master.admit, go_away
    async with serving(master):
        with pytest.raises(MasterUnreachable, match="use the same line again"):
            await soon(log_in(master.line(), env))
        other = lines.encoded(bytes(20))
        with pytest.raises(MasterUnreachable):
            await soon(log_in(master.line(token=other), env))
        assert read_access(env["DRQUEUE_ACCESS"]) == []
        master.admit = admit
        way = await soon(log_in(master.line(), env))
    first, second, third = master.joins
    assert first.secret_hash == third.secret_hash == lines.secret_hash(way.secret)
    assert second.secret_hash != first.secret_hash
    assert kept[0] == way.secret
    assert [lines.secret_hash(each.secret) for each in read_access(str(tmp_path / PENDING_FILE))] == [
        second.secret_hash
    ]


def test_no_secret_is_meant_for_two_certificates(tmp_path: Path) -> None:
    """One of two farms could come into the other with it."""
    path, line = str(tmp_path / "access.json"), lines.Line(kind="user", host="h", port=1, pin="o", token="t")
    assert login._pending(path, line).secret != login._pending(path, structs.replace(line, pin="p")).secret


async def test_two_that_log_in_at_once_do_not_lose_each_others_login(
    master: SecuredPeer, tmp_path: Path
) -> None:
    """Whatever is written is written under the file's lock, so that no other process read it meanwhile."""
    env = keep(tmp_path)
    written: list[str] = []

    def held(path: str, ways: Sequence[Access]) -> None:
        with (tmp_path / "access.json.lock").open("rb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        written.append(os.path.basename(path))
        write_access(path, ways)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(login, "write_access", held)
        async with serving(master):
            await soon(log_in(master.line(), env))
        login.log_out(None, env)
    assert written == [PENDING_FILE, "access.json", "access.json"]


async def test_a_line_that_one_came_in_by_before_is_known(master: SecuredPeer, tmp_path: Path) -> None:
    env = keep(tmp_path)
    async with serving(master):
        way = await soon(log_in(master.line(), env))
        master.admit = lambda join: Rejected(code="bad-line", text="this line was used up")
        with pytest.raises(Refused, match=r"used up \(you came in by it before, as anna\)"):
            await soon(log_in(master.line(), env))
        with pytest.raises(Refused, match=r"used up$"):
            await soon(log_in(master.line(token=lines.encoded(bytes(20))), env))
    assert read_access(env["DRQUEUE_ACCESS"]) == [way]


async def test_a_line_that_is_refused_changes_nothing(master: SecuredPeer, tmp_path: Path) -> None:
    env = keep(tmp_path, way_in(1))
    master.admit = lambda join: Rejected(code="bad-line", text="this line was used up")
    async with serving(master):
        with pytest.raises(Refused, match="this line was used up"):
            await soon(log_in(master.line(), env))
    assert read_access(env["DRQUEUE_ACCESS"]) == [way_in(1)]
    assert not (tmp_path / PENDING_FILE).exists()


async def test_a_token_is_not_spent_where_the_login_could_not_be_kept(
    master: SecuredPeer, tmp_path: Path
) -> None:
    """Others can read the file, or it is damaged, or its folder cannot be made."""
    env = keep(tmp_path, way_in(1))
    path = tmp_path / "access.json"
    async with serving(master):
        path.chmod(0o644)
        with pytest.raises(DrQueueError, match="chmod 600"):
            await soon(log_in(master.line(), env))
        path.chmod(0o600)
        path.write_text("{}")
        with pytest.raises(DrQueueError, match="is damaged"):
            await soon(log_in(master.line(), env))
        with pytest.raises(DrQueueError, match="cannot write"):
            await soon(log_in(master.line(), {"DRQUEUE_ACCESS": f"{path}/access.json"}))
    assert master.joins == []
    assert path.read_text() == "{}"


async def test_a_token_is_shown_to_the_master_of_the_line_alone(master: SecuredPeer, tmp_path: Path) -> None:
    async with serving(master):
        with pytest.raises(WrongCertificate, match="than the one that the line names"):
            await soon(log_in(master.line(pin=OTHER_PIN), keep(tmp_path)))
    assert master.joins == []


async def test_a_new_login_comes_first_and_replaces_an_old_one_of_the_same_farm(
    master: SecuredPeer, tmp_path: Path
) -> None:
    async with serving(master):
        env = keep(tmp_path, way_in(1), way_in(master.port))
        way = await soon(log_in(master.line(), env))
    assert read_access(env["DRQUEUE_ACCESS"]) == [way, way_in(1)]


# -- the commands -----------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecuredPeer]:
    """A master on the network for commands, and nobody else."""
    for name, value in keep(tmp_path).items():
        monkeypatch.setenv(name, value)
    with served_in_thread(SecuredPeer) as peer:
        peer.on[messages.WhoAmI] = lambda _, asked: messages.You(
            rq=asked.rq, name="anna", role="artist", account="aa55", peer="10.0.0.9"
        )
        yield peer


def access() -> list[str]:
    return [str(way.address) for way in read_access(os.environ["DRQUEUE_ACCESS"])]


def test_login_whoami_logout(network: SecuredPeer, drqueue: Command) -> None:
    said = drqueue("login", network.line())
    assert said == (0, f"logged in to {network.address} as anna (artist)\n", "")
    said = drqueue("whoami")
    assert said.status == 0
    assert dict(line.split(None, 1) for line in said.out.splitlines()) == {
        "name": "anna",
        "role": "artist",
        "may": "submit jobs, and change what you submitted",
        "account": "aa55",
        "from": "10.0.0.9",
        "master": network.address,
    }
    assert json.loads(drqueue("whoami", "--json").out)["account"] == "aa55"
    said = drqueue("logout")
    assert said == (
        0,
        "",
        f"drqueue: logged out of {network.address}, where you were anna\n".removeprefix("drqueue: "),
    )
    assert access() == []
    assert drqueue("logout").status == 3
    assert drqueue("--master", network.address, "whoami").status == 3


@pytest.mark.parametrize("words", [(), ("-",)])
def test_a_line_can_come_by_stdin(
    network: SecuredPeer, drqueue: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{network.line()}\n"))
    said = drqueue("login", "--json", *words)
    assert json.loads(said.out)["name"] == "anna"
    assert access() == [network.address]


def test_a_line_may_come_broken_over_two_rows(
    network: SecuredPeer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stdin, as two words, and at a terminal, where nothing is shown and the rest is asked for."""
    line = network.line()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{line[:60]}\n  {line[60:]}\nmore\n"))
    assert drqueue("login").status == 0
    assert drqueue("login", line[:60], line[60:]).status == 0
    rows, prompts = [line[:9], line[9:60], line[60:]], []

    def hidden(prompt: str) -> str:
        prompts.append(prompt)
        return rows.pop(0)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", hidden)
    assert drqueue("login").status == 0
    assert prompts == ["the line (it is not shown): ", "go on: ", "go on: "]
    assert len(network.joins) == 3


def test_what_was_pasted_ends_with_an_empty_row_or_the_end(
    drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("", "\n", "drqueue1:user:h:1:aa\n", "drqueue1:user:h:1:aa\n\nbb\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert drqueue("login").status == 2


def test_an_address_is_no_line(network: SecuredPeer, drqueue: Command) -> None:
    said = drqueue("login", network.address)
    assert said.status == 2
    assert "ask an admin for a line: drqueue user add NAME" in said.err


def test_whoever_is_not_let_in_hears_status_3_and_nobody_there_is_69(
    network: SecuredPeer, drqueue: Command
) -> None:
    assert drqueue("login", network.line(pin=OTHER_PIN)).status == 3
    for code in ("bad-line", "bad-net", "revoked", "something-new"):
        network.admit = lambda join, code=code: Rejected(code=code, text="no")  # type: ignore[misc]
        assert drqueue("login", network.line()).status == 3
    nobody = str(lines.Line(kind="user", host="127.0.0.1", port=1, pin=OTHER_PIN, token="a" * 32))
    said = drqueue("login", nobody)
    assert said.status == 69
    assert said.err == (
        "drqueue: no master answers at 127.0.0.1:1: Connection refused;"
        " if the farm has another address, its admin sets `address`\n"
    )


def test_a_login_beside_a_master_of_this_machine_says_where_commands_go(
    network: SecuredPeer, drqueue: Command
) -> None:
    folder = os.environ["DRQUEUE_STATE_DIR"]
    os.mkdir(folder)
    with in_thread(f"{folder}/master.sock", {}) as here:
        said = drqueue("login", network.line())
    assert said.status == 0
    assert f"commands here go to the master at {here.address} while it runs" in said.err
    assert f"--master {network.address}" in said.err


def test_what_is_no_line_is_wrong_usage(network: SecuredPeer, drqueue: Command) -> None:
    for line, words in (
        ("hello", "this is no line of a farm"),
        (network.line(kind="node"), "this line is for a node: use it with drqueue-slave join"),
        (network.line()[:-1], "this line is damaged"),
    ):
        said = drqueue("login", line)
        assert (said.status, said.err.count("\n")) == (2, 1)
        assert words in said.err
    assert network.links == []


def test_names_of_others_cannot_steer_the_terminal(network: SecuredPeer, drqueue: Command) -> None:
    network.admit = lambda join: Joined(farm="f", account="a", name="\x1b[2Jx", role="artist")
    assert "\x1b" not in drqueue("login", network.line()).out


def test_which_farm_to_leave_is_said_where_there_are_several(drqueue: Command, network: SecuredPeer) -> None:
    write_access(os.environ["DRQUEUE_ACCESS"], [way_in(1), way_in(2)])
    said = drqueue("logout")
    assert (said.status, "127.0.0.1:1 or 127.0.0.1:2" in said.err) == (1, True)
    assert drqueue("logout", "127.0.0.1:3").status == 3
    assert drqueue("logout", "127.0.0.1:2").status == 0
    assert access() == ["127.0.0.1:1"]


def test_statuses_of_commands_over_the_network(network: SecuredPeer, drqueue: Command) -> None:
    """3 for who is not let in, 69 for where nobody answers."""
    write_access(os.environ["DRQUEUE_ACCESS"], [way_in(network.port), way_in(1)])
    network.judge = lambda hi: Rejected(code="not-allowed", text="nodes ask nothing")
    assert drqueue("jobs", "--master", network.address).status == 3
    said = drqueue("jobs", "--master", "127.0.0.1:1")
    assert said.status == 69
    assert said.err.startswith("drqueue: no master answers at 127.0.0.1:1: ")
    assert "drqueue up" not in said.err
