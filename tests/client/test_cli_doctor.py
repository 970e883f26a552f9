"""`drqueue doctor`: useful when things are broken, quiet when they are not, and fit for scripts."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drqueue.access import Access, write_access
from drqueue.client.cli import probes
from drqueue.client.link import SOFTWARE
from drqueue.proto import messages
from drqueue.proto.link_messages import Rejected
from drqueue.proto.views import Finding
from tests.client.conftest import Command
from tests.client.peer import Peer, slave_view
from tests.test_checkup import CERTIFICATE, KEY, PIN

NOBODY = "127.0.0.1:9"

Findings = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def own_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's logins are kept."""
    path = tmp_path / "config" / "access.json"
    monkeypatch.setenv("DRQUEUE_ACCESS", str(path))
    monkeypatch.delenv("DRQUEUE_MASTER", raising=False)
    return path


def an_access(port: int, pin: str = PIN) -> Access:
    return Access(
        host="127.0.0.1", port=port, pin=pin, farm="f", account="a", name="anna", role="artist", secret="s"
    )


def finding(state: str = "ok", what: str = "clock", text: str = "fine", advice: str = "") -> Finding:
    return Finding(what=what, state=state, text=text, advice=advice)  # type: ignore[arg-type]


@pytest.fixture
def farm(master: Peer, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """A master that answers an admin, with one slave that is well."""
    monkeypatch.setattr("tests.client.peer.Welcome", _welcome)
    monkeypatch.setenv("DRQUEUE_MASTER", master.address)
    master.on[messages.WhoAmI] = lambda _, asked: messages.You(rq=asked.rq, name="root", role="admin")
    master.on[messages.Examine] = lambda _, asked: messages.Findings(
        rq=asked.rq, findings=(finding(text=asked.slave or "the master"),)
    )
    return master


def _welcome(**given: Any) -> Any:
    from drqueue.proto.link_messages import Welcome

    return Welcome(**{**given, "software": SOFTWARE, "farm": "f00dfeed1234", "epoch": 7})


def by(found: Findings, what: str, where: str = "this machine") -> Findings:
    return [each for each in found if (each["what"], each["where"]) == (what, where)]


def asked_in_json(drqueue: Command, status: int, *words: str) -> Findings:
    import json

    said = drqueue("doctor", "--json", *words)
    assert said.status == status, said
    found: Findings = json.loads(said.out)
    assert all(set(each) == {"where", "what", "state", "text", "advice"} for each in found)
    return found


@contextmanager
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A port that shakes hands by TLS with the certificate of PIN, and says nothing more."""
    (tmp_path / "both.pem").write_text(CERTIFICATE + KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer = listener.accept()[0]
            except OSError:
                return
            try:
                with context.wrap_socket(peer, server_side=True) as link:
                    link.recv(1)
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


# -- a farm that is well ------------------------------------------------------------------------------------


def test_all_is_well(farm: Peer, drqueue: Command) -> None:
    said = drqueue("doctor")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "this machine"
    assert "master" in lines
    assert lines[-2:] == ["slave s1: 3 ok", "all is well"]
    assert any(line.startswith("  ok    clock            the master") for line in lines)
    assert "farm f00dfeed" in said.out
    assert all(len(line) <= 80 for line in lines)


def test_a_slave_that_is_named_is_shown_whole(farm: Peer, drqueue: Command) -> None:
    said = drqueue("doctor", "s1")
    assert said.status == 0
    below = said.out.split("slave s1\n")[1].splitlines()
    assert [line.split()[0] for line in below[:3]] == ["ok", "ok", "ok"]
    assert not [each for each in farm.heard if isinstance(each, messages.ListSlaves)]


def test_bad_is_a_word_and_a_status_and_advice_stands_below(farm: Peer, drqueue: Command) -> None:
    worse = finding("bad", "disk", "full " * 30, "make room")
    farm.on[messages.Examine] = lambda _, asked: messages.Findings(
        rq=asked.rq, findings=(worse, finding("warn", "clock", "3 s off", "set it")) if asked.slave else ()
    )
    said = drqueue("doctor")
    assert said.status == 1
    lines = said.out.split("slave s1: 2 ok\n")[1].splitlines()
    assert lines[0].startswith("  BAD   disk             full full")
    assert lines[3].strip() == "→ make room"
    assert lines[4] == "  warn  clock            3 s off"
    assert lines[-1].startswith("1 BAD, 1 to look at,")
    assert all(len(line) <= 80 for line in said.out.splitlines())
    found = asked_in_json(drqueue, 1)
    assert by(found, "disk", "slave s1")[0]["advice"] == "make room"


def test_a_warning_alone_is_no_failure(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.Examine] = lambda _, asked: messages.Findings(rq=asked.rq, findings=(finding("warn"),))
    assert drqueue("doctor").status == 0


def test_what_others_wrote_cannot_steer_the_terminal(farm: Peer, drqueue: Command) -> None:
    steering = finding("bad", "a\x1b[2J", "b\x1b]0;x\x07\nc", "d\x1b[1A")
    farm.on[messages.Examine] = lambda _, asked: messages.Findings(rq=asked.rq, findings=(steering,))
    out = drqueue("doctor").out
    assert not set("\x1b\x07") & set(out)


def test_slaves_that_are_away_are_bad_but_asked_nothing(farm: Peer, drqueue: Command) -> None:
    away = slave_view("s2", id=1, linked=False, state="unlinked")
    farm.on[messages.ListSlaves] = lambda _, asked: messages.Slaves(
        rq=asked.rq, slaves=(slave_view("s1"), away)
    )
    found = asked_in_json(drqueue, 1)
    (only,) = [each for each in found if each["where"] == "slave s2"]
    assert only["state"] == "bad"
    assert "drqueue slave forget s2" in only["advice"]
    assert [each.slave for each in farm.heard if isinstance(each, messages.Examine)] == ["", "s1"]


def test_slaves_are_asked_at_once_and_one_that_is_silent_holds_nobody_up(
    farm: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SLAVE_S", 0.5)
    names = [f"s{number}" for number in range(20)]
    farm.on[messages.ListSlaves] = lambda _, asked: messages.Slaves(
        rq=asked.rq, slaves=tuple(slave_view(name, id=n) for n, name in enumerate(names))
    )
    answers = farm.on[messages.Examine]
    farm.on[messages.Examine] = lambda link, asked: (
        None if asked.slave in names[:19] else answers(link, asked)
    )
    began = time.monotonic()
    found = asked_in_json(drqueue, 1)
    assert time.monotonic() - began < 19 * 0.5
    silent = [each["where"] for each in found if each["what"] == "examination"]
    assert silent == [f"slave {name}" for name in names[:19]]
    assert by(found, "clock", "slave s19")[0]["text"] == "s19"


def test_how_a_slave_is_reached_is_said(farm: Peer, drqueue: Command, tmp_path: Path) -> None:
    farm.on[messages.ListSlaves] = lambda _, asked: messages.Slaves(
        rq=asked.rq,
        slaves=(
            slave_view("closed", id=0),
            slave_view("far", id=1, control=NOBODY),
            slave_view("local", id=2, control=f"unix:{tmp_path}/none.sock"),
        ),
    )
    farm.on[messages.GetTicket] = lambda _, asked: messages.Ticket(
        rq=asked.rq, slave=1, name=asked.slave, control=NOBODY if asked.slave == "far" else "", pin=PIN
    )
    found = asked_in_json(drqueue, 0)
    ways = [by(found, "from here", f"slave {name}")[0] for name in ("closed", "far", "local")]
    assert [way["state"] for way in ways] == ["ok", "warn", "ok"]
    assert all("through the master" in way["text"] for way in ways)


def test_somebody_who_is_no_admin_is_told_what_they_may_know(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.WhoAmI] = lambda _, asked: messages.You(rq=asked.rq, name="anna", role="artist")
    farm.on[messages.Examine] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="not-allowed", text="that takes an admin"
    )
    found = asked_in_json(drqueue, 0)
    assert by(found, "you are", "master")[0]["text"] == "anna, artist"
    assert by(found, "examination", "master")[0]["state"] == "warn"
    assert by(found, "to its master", "slave s1")[0]["state"] == "ok"
    # A refusal would stand in the master's audit.
    assert not any(isinstance(each, messages.Examine) for each in farm.heard)


def test_somebody_who_was_an_admin_a_moment_ago(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.Examine] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="not-allowed", text="that takes an admin"
    )
    found = asked_in_json(drqueue, 0)
    assert by(found, "examination", "master")[0]["state"] == "warn"


def test_a_slave_that_nobody_knows_is_not_found(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.GetSlave] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code="no-such-slave", text=f"there is no slave {asked.slave!r}"
    )
    said = drqueue("doctor", "nobody")
    assert said.status == 3
    assert said.out.startswith("this machine\n")
    assert "nobody" in said.err


# -- what is broken -----------------------------------------------------------------------------------------


def test_without_a_master_the_local_part_is_shown(drqueue: Command) -> None:
    said = drqueue("doctor", "--state-dir", "/nowhere")
    assert said.status == 69
    assert "nobody listens at unix:/nowhere/master.sock" in said.out
    assert "BAD   master" in said.out
    found = asked_in_json(drqueue, 69, "--master", "unix:/nowhere/master.sock")
    assert [each["state"] for each in by(found, "master")] == ["warn", "bad"]


def test_an_access_file_that_others_may_read_is_bad(own_access: Path, drqueue: Command) -> None:
    write_access(str(own_access), [an_access(1)])
    own_access.chmod(0o644)
    (access,) = by(asked_in_json(drqueue, 69, "--master", NOBODY), "access")
    assert (access["state"], access["advice"]) == ("bad", f"chmod 600 {own_access}")


def test_a_damaged_access_file_is_bad(own_access: Path, drqueue: Command) -> None:
    own_access.parent.mkdir()
    own_access.write_text("{")
    own_access.chmod(0o600)
    (access,) = by(asked_in_json(drqueue, 69, "--master", NOBODY), "access")
    assert access["state"] == "bad"
    assert "drqueue login" in access["advice"]


def test_no_secret_is_told(own_access: Path, drqueue: Command) -> None:
    from msgspec.structs import replace

    write_access(str(own_access), [replace(an_access(1), secret="verysecretword", key="alsosecretword")])
    found = asked_in_json(drqueue, 69, "--master", NOBODY)
    assert "anna at 127.0.0.1:1" in by(found, "access")[0]["text"]
    assert "secretword" not in str(found)


def test_a_farm_without_a_login_says_how_to_get_one(tmp_path: Path, drqueue: Command) -> None:
    with tls_port(tmp_path) as port:
        found = asked_in_json(drqueue, 1, "--master", f"127.0.0.1:{port}")
    (master,) = by(found, "master")
    assert (master["state"], PIN[:12] in master["text"]) == ("bad", True)
    assert "drqueue login" in master["advice"]


def test_another_certificate_is_bad(tmp_path: Path, own_access: Path, drqueue: Command) -> None:
    with tls_port(tmp_path) as port:
        write_access(str(own_access), [an_access(port, pin="a" * 52)])
        # The newest login is tried, as every command does.
        found = asked_in_json(drqueue, 1)
    assert "another certificate" in by(found, "master")[-2]["text"] + by(found, "master")[-1]["text"]


def test_a_master_that_says_no_is_bad(farm: Peer, drqueue: Command) -> None:
    farm.reject = Rejected(code="version", text="this master speaks protocol 9: upgrade the client")
    (master,) = by(asked_in_json(drqueue, 1), "master")
    assert master["state"] == "bad"
    assert "upgrade" in master["text"]


def test_another_version_is_worth_a_word(farm: Peer, drqueue: Command, monkeypatch: Any) -> None:
    monkeypatch.setattr(probes, "SOFTWARE", "drqueue 99")
    (found,) = by(asked_in_json(drqueue, 0), "master")
    assert (found["state"], "one version" in found["advice"]) == ("warn", True)


def test_a_master_that_answers_nothing_is_bad(
    farm: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SLAVE_S", 0.3)
    del farm.on[messages.WhoAmI], farm.on[messages.ListSlaves]
    found = asked_in_json(drqueue, 1)
    assert by(found, "examination", "master")[0]["state"] == "bad"
    assert by(found, "slaves", "master")[0]["state"] == "bad"


def test_places_that_do_not_matter_are_not_bad(farm: Peer, drqueue: Command, monkeypatch: Any) -> None:
    monkeypatch.delenv("DRQUEUE_MASTER")
    monkeypatch.setenv("DRQUEUE_STATE_DIR", str(Path(farm.path).parent))
    found = by(asked_in_json(drqueue, 0), "master")
    assert len(found) >= 3
    assert {each["state"] for each in found} == {"ok"}
    # To dial a port without a login is a failure in somebody's audit.
    assert not [each for each in found if "127.0.0.1" in each["text"]]


def test_the_place_that_commands_go_to_is_marked(
    farm: Peer, drqueue: Command, own_access: Path, monkeypatch: Any
) -> None:
    found = by(asked_in_json(drqueue, 0), "master")
    assert [each["text"].startswith("commands go here: answers at") for each in found] == [True]
    monkeypatch.delenv("DRQUEUE_MASTER")
    monkeypatch.setenv("DRQUEUE_STATE_DIR", str(Path(farm.path).parent))
    write_access(str(own_access), [an_access(1)])
    found = by(asked_in_json(drqueue, 0), "master")
    assert [farm.path in each["text"] for each in found if "commands go" in each["text"]] == [True]


@pytest.mark.parametrize("login", [True, False])
def test_up_is_no_advice_beside_a_login(
    own_access: Path, drqueue: Command, tmp_path: Path, monkeypatch: Any, login: bool
) -> None:
    for name in ("DRQUEUE_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    if login:
        write_access(str(own_access), [an_access(1)])
    found = by(asked_in_json(drqueue, 69), "master")
    assert ("drqueue up" in found[-1]["advice"]) is not login


def test_a_socket_that_may_not_be_opened_says_so(tmp_path: Path, drqueue: Command, monkeypatch: Any) -> None:
    async def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(probes, "dial", denied)
    (master,) = by(asked_in_json(drqueue, 1, "--master", f"unix:{tmp_path}/m.sock"), "master")
    assert "group" in master["advice"]
