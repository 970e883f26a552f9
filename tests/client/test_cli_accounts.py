"""`drqueue node` and `drqueue user`: what they ask, what they print, what they refuse to ask."""

import io
import json
from typing import Any

import pytest

from drqueue.client import BadState
from drqueue.client.asking import Did
from drqueue.client.sync_client import Client
from drqueue.proto import messages
from drqueue.proto.views import AccountView
from tests.client.conftest import Command
from tests.client.peer import Peer

LINE = "drqueue1:node:10.0.0.1:1234:pin:token"


def view(number: int, **changed: Any) -> AccountView:
    given: dict[str, Any] = {
        "id": f"{number:016x}",
        "kind": "node",
        "name": f"node{number}",
        "role": "node",
        "state": "active",
        "created_at": 1000.0,
        "created_by": "admin",
        "peer": "10.0.0.9",
    }
    return AccountView(**{**given, **changed})


@pytest.fixture
def farm(master: Peer) -> Peer:
    """A master with accounts."""
    master.on[messages.AddLine] = lambda _, asked: messages.TheLine(
        rq=asked.rq, line=LINE, expires_at=5000.0, note="as you wish"
    )
    master.on[messages.AccountVerb] = lambda _, asked: messages.Done(rq=asked.rq, count=1)
    return master


def last(master: Peer, kind: type[messages.Request]) -> Any:
    return [message for message in master.heard if isinstance(message, kind)][-1]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks at stderr."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


# -- lines ------------------------------------------------------------------------------------------------


def test_the_line_stands_alone_on_stdout(farm: Peer, drqueue: Command) -> None:
    assert drqueue("node", "add") == (0, f"{LINE}\n", "as you wish\n")
    asked = last(farm, messages.AddLine)
    assert asked == messages.AddLine(rq=asked.rq, kind="node", ttl_s=3600, uses=1)


def test_people_are_told_where_to_paste_it(
    farm: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drqueue.client.cli.accounts.sys.stderr.isatty", lambda: True)
    said = drqueue("node", "add")
    assert said.out == f"{LINE}\n"
    assert "paste it on the node: drqueue-slave join LINE" in said.err
    assert "drqueue login LINE" in drqueue("user", "add", "anna").err


@pytest.mark.parametrize(
    ("words", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800), ("60", 60)]
)
def test_how_long_a_line_is_good(farm: Peer, drqueue: Command, words: str, seconds: float) -> None:
    drqueue("user", "add", "anna", "--ttl", words)
    assert last(farm, messages.AddLine).ttl_s == seconds


def test_everything_that_a_line_can_be_told(farm: Peer, drqueue: Command) -> None:
    said = drqueue("user", "add", "anna", "--role", "viewer", "--uses", "3", "--net", "10.1.2.3/8", "--json")
    assert json.loads(said.out) == {"line": LINE, "expires_at": 5000.0, "note": "as you wish"}
    asked = last(farm, messages.AddLine)
    wanted = messages.AddLine(rq=asked.rq, kind="user", name="anna", role="viewer", uses=3, net="10.0.0.0/8")
    assert asked == wanted
    drqueue("user", "add", "anna")
    assert last(farm, messages.AddLine).role is None, "whatever she is already"
    drqueue("node", "add", "--name", "n1", "--net", "fd00::/16")
    asked = last(farm, messages.AddLine)
    assert (asked.name, asked.net, asked.kind) == ("n1", "fd00::/16", "node")


@pytest.mark.parametrize(
    "words",
    [
        ("--ttl", "0"),
        ("--ttl", "366d"),
        ("--ttl", "1y"),
        ("--uses", "0"),
        ("--uses", "10001"),
        ("--net", "10.0.0"),
        ("--net", "everywhere"),
    ],
)
def test_what_no_line_can_be_is_wrong_usage(farm: Peer, drqueue: Command, words: tuple[str, str]) -> None:
    said = drqueue("node", "add", *words)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert farm.heard == []


def test_a_role_that_there_is_not(farm: Peer, drqueue: Command) -> None:
    assert drqueue("user", "add", "anna", "--role", "node").status == 2
    assert drqueue("user", "role", "anna", "king").status == 2
    assert farm.heard == []


# -- lists ------------------------------------------------------------------------------------------------


def test_nodes_and_their_lines(farm: Peer, drqueue: Command) -> None:
    """Page by page; a line only with --all."""
    pages = {
        0: messages.Accounts(
            rq=0, accounts=(view(1, linked=True, slave="s1"), view(2, name="x\x1b[2Jy")), next=2
        ),
        2: messages.Accounts(
            rq=0, accounts=(view(3, state="line", name="", uses_left=2, expires_at=1500.0, net="10.0.0.0/8"),)
        ),
    }

    def page(channel: Any, asked: messages.ListAccounts) -> messages.Accounts:
        assert (asked.kind, asked.pending) == ("node", False)
        found = pages[asked.cursor]
        return messages.Accounts(rq=asked.rq, accounts=found.accounts, next=found.next)

    farm.on[messages.ListAccounts] = page
    said = drqueue("node", "list")
    titles, first, second = said.out.splitlines()
    assert titles.split() == ["NAME", "STATE", "SLAVE", "FROM", "SINCE", "BY", "ID"]
    assert first.split()[:3] == ["node1", "linked", "s1"]
    assert "away" in second
    assert "\x1b" not in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    said = drqueue("node", "list", "--all")
    assert len(said.out.splitlines()) == 6
    assert "2 uses" in said.out.splitlines()[-1]
    assert "(any)" in said.out.splitlines()[-1]
    assert [each["state"] for each in json.loads(drqueue("node", "list", "--json", "--all").out)] == [
        "active",
        "active",
        "line",
    ]
    assert len(json.loads(drqueue("node", "list", "--json").out)) == 2


def test_people_with_their_roles(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.ListAccounts] = lambda _, asked: messages.Accounts(
        rq=asked.rq,
        accounts=(
            view(1, kind=asked.kind, name="anna", role="viewer", linked=True),
            view(2, kind=asked.kind, name="bert", role="supervisor"),
        ),
    )
    _, one, two = drqueue("user", "list").out.splitlines()
    assert one.split()[:4] == ["anna", "viewer", "linked", "10.0.0.9"]
    assert two.split()[:3] == ["bert", "supervisor", "away"]
    assert max(len(one), len(two)) <= 80


def test_empty_lists_say_so(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.ListAccounts] = lambda _, asked: messages.Accounts(rq=asked.rq, accounts=())
    assert drqueue("node", "list") == (0, "", "no nodes\n")
    assert drqueue("node", "pending") == (0, "", "no node waits to be approved\n")
    said = drqueue("user", "list", "--all")
    assert (said.status, said.out, said.err.startswith("nobody")) == (0, "", True)
    assert json.loads(drqueue("user", "list", "--json").out) == []


def test_nodes_that_wait_are_shown_with_their_codes(farm: Peer, drqueue: Command) -> None:
    def waiting(_: Any, asked: messages.ListAccounts) -> messages.Accounts:
        assert asked.pending
        return messages.Accounts(rq=asked.rq, accounts=(view(1, state="pending", code="ABCD-EFGH-2345"),))

    farm.on[messages.ListAccounts] = waiting
    _, line = drqueue("node", "pending").out.splitlines()
    assert line.split()[:3] == ["ABCD-EFGH-2345", "node1", "10.0.0.9"]


# -- verbs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kind", "verb"),
    [
        (("node", "revoke", "x"), "node", "revoke"),
        (("node", "rotate", "x"), "node", "rotate"),
        (("node", "approve", "x", "--yes"), "node", "approve"),
        (("node", "reject", "x"), "node", "reject"),
        (("user", "revoke", "x"), "user", "revoke"),
        (("user", "rotate", "x"), "user", "rotate"),
        (("user", "role", "x", "admin"), "user", "set-role"),
    ],
)
def test_verbs(farm: Peer, drqueue: Command, words: tuple[str, ...], kind: str, verb: str) -> None:
    assert drqueue(*words) == (0, "", "")
    asked = last(farm, messages.AccountVerb)
    assert (asked.kind, asked.name, asked.verb) == (kind, "x", verb)
    assert asked.role == ("admin" if verb == "set-role" else "artist")
    assert json.loads(drqueue(*words, "--json").out) == {"name": "x", "count": 1, "note": ""}


CODE = "ABCD-EFGH-2345"


@pytest.mark.parametrize(
    ("words", "typed", "status", "approved"),
    [
        (("node1",), None, 2, []),
        (("node1", "--yes"), None, 0, ["node1"]),
        ((CODE,), None, 0, [CODE]),
        ((CODE.lower(),), None, 0, [CODE.lower()]),
        (("nobody",), None, 3, []),
        (("node1",), "y\n", 0, [CODE]),
        (("node1",), "\n", 130, []),
    ],
)
def test_a_node_is_approved_by_the_code_that_it_shows(
    farm: Peer,
    drqueue: Command,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    typed: str | None,
    status: int,
    approved: list[str],
) -> None:
    """`typed`: at a terminal, where the code is shown; a name alone proves nothing."""
    farm.on[messages.ListAccounts] = lambda _, asked: messages.Accounts(
        rq=asked.rq, accounts=(view(1, state="pending", code=CODE),)
    )
    if typed is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        for stream in ("stdin", "stderr"):
            monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    said = drqueue("node", "approve", *words)
    assert said.status == status
    assert (CODE in said.err) is (typed is not None)
    assert [each.name for each in farm.heard if isinstance(each, messages.AccountVerb)] == approved


def test_who_looks_at_nodes_that_wait_is_told_what_to_compare(
    farm: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    farm.on[messages.ListAccounts] = lambda _, asked: messages.Accounts(
        rq=asked.rq, accounts=(view(1, state="pending", code=CODE),)
    )
    assert "compare the code with what the node shows" in drqueue("node", "pending").err


def test_rotating_may_take_a_line(farm: Peer, drqueue: Command) -> None:
    farm.on[messages.AccountVerb] = lambda _, asked: messages.TheLine(
        rq=asked.rq, line=LINE, expires_at=5000.0
    )
    assert drqueue("user", "rotate", "anna") == (0, f"{LINE}\n", "")
    # Elsewhere a line has no place; what was done is known all the same.
    assert drqueue("user", "revoke", "anna") == (0, "", "")


def test_a_refusal_is_one_sentence_and_status_3(farm: Peer, drqueue: Command) -> None:
    for kind in (messages.AddLine, messages.AccountVerb, messages.ListAccounts):
        farm.on[kind] = lambda _, asked: messages.Refusal(
            rq=asked.rq, code="not-allowed", text="that takes an admin, and you are artist"
        )
    for words in (("node", "add"), ("user", "revoke", "x"), ("node", "rotate", "x"), ("user", "list")):
        assert drqueue(*words) == (3, "", "drqueue: that takes an admin, and you are artist\n")


def test_a_verb_is_not_said_twice(farm: Peer, drqueue: Command) -> None:
    """It may have been done, and a second line would be a second door."""
    for kind in (messages.AddLine, messages.AccountVerb):
        farm.on[kind] = lambda channel, _: channel.close()
    assert drqueue("node", "add").status == 69
    assert drqueue("node", "revoke", "x").status == 69
    assert farm.kinds() == ["AddLine", "AccountVerb"]


# -- as a library -----------------------------------------------------------------------------------------


def test_the_blocking_client_does_it_all(farm: Peer) -> None:
    farm.on[messages.WhoAmI] = lambda _, asked: messages.You(rq=asked.rq, name="anna", role="admin")
    farm.on[messages.ListAccounts] = lambda _, asked: messages.Accounts(rq=asked.rq, accounts=(view(1),))
    farm.on[messages.Examine] = lambda _, asked: messages.Findings(rq=asked.rq, findings=())
    with Client(farm.address) as client:
        assert client.whoami().role == "admin"
        assert client.add_line("user", name="bert", uses=2).line == LINE
        assert client.accounts("node") == (view(1),)
        assert client.revoke_account("node", "n") == Did(1)
        assert client.rotate_account("node", "n") == Did(1)
        assert client.approve_node("n") == Did(1)
        assert client.reject_node("n") == Did(1)
        assert client.set_role("anna", "viewer") == Did(1)
        assert client.examine() == ()
        farm.on[messages.AccountVerb] = lambda _, asked: messages.Refusal(
            rq=asked.rq, code="bad-state", text="the last admin"
        )
        with pytest.raises(BadState):
            client.revoke_account("user", "anna")
