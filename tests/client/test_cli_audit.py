"""`drqueue audit`: rows as a table and as JSON, refused ones at a glance, followed over a restart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drqueue.client import connect
from drqueue.client.cli.audit import Rows
from drqueue.client.sync_client import Client
from drqueue.proto import messages
from drqueue.proto.views import AuditView
from tests.client.conftest import Command
from tests.client.peer import Peer, serving, soon


def row(number: int, **changed: Any) -> AuditView:
    given: dict[str, Any] = {
        "id": number,
        "at": 1000.0 + number,
        "who": "anna",
        "role": "artist",
        "peer": "10.0.0.9",
        "what": f"stop job {number}",
        "outcome": "done",
    }
    return AuditView(**{**given, **changed})


class Book:
    """The audit as a master keeps it; rows are numbered from 1, the cursor is the next one's number."""

    def __init__(self, size: int) -> None:
        self.rows = [row(number) for number in range(1, size + 1)]
        self.waits: list[float] = []

    def __call__(self, _: Any, asked: messages.ListAudit) -> messages.Audit | None:
        self.waits.append(asked.wait_s)
        assert asked.limit > 0
        if asked.latest:
            first = max(1, len(self.rows) + 1 - min(asked.latest, asked.limit))
        else:
            first = max(1, asked.cursor)
        rows = tuple(self.rows[first - 1 : first - 1 + min(asked.limit, 100)])
        following = rows[-1].id + 1 if rows else asked.cursor
        if not rows and asked.wait_s:
            return None
        return messages.Audit(rq=asked.rq, rows=rows, next=following)


@pytest.fixture
def book(master: Peer) -> Book:
    book = Book(250)
    master.on[messages.ListAudit] = book
    return book


# -- looking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "count"), [((), 50), (("-n", "7"), 7), (("-n", "250"), 250), (("-n", "999"), 250)]
)
def test_the_last_rows_oldest_first(book: Book, drqueue: Command, words: tuple[str, ...], count: int) -> None:
    rows = json.loads(drqueue("audit", "--json", *words).out)
    assert [each["id"] for each in rows] == list(range(251 - count, 251))
    lines = drqueue("audit", *words).out.splitlines()
    assert len(lines) == count + 1
    assert lines[-1].endswith("stop job 250")
    assert set(book.waits) == {0}


def test_an_empty_audit_says_so(book: Book, drqueue: Command) -> None:
    book.rows.clear()
    assert drqueue("audit") == (0, "", "there is nothing in the audit\n")
    assert drqueue("audit", "--json").out == "[]\n"


def test_a_number_that_is_none(book: Book, drqueue: Command) -> None:
    assert drqueue("audit", "-n", "0").status == 2
    assert book.waits == []


def printed(rows: Sequence[AuditView], capsys: pytest.CaptureFixture[str]) -> list[str]:
    Rows()(rows)
    return capsys.readouterr().out.splitlines()


def test_refused_rows_are_seen_at_a_glance(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (
        row(1),
        row(2, who="bert", what="delete job 7", outcome="not-allowed", text="job 7 is anna's", count=12),
        row(3, who="", role="", peer="10.0.0.66", what="first words", outcome="bad-secret"),
    )
    _, done, refused, nobody = printed(rows, capsys)
    assert not done.startswith("!")
    assert refused.startswith("!")
    assert refused.endswith("  delete job 7: job 7 is anna's")
    assert "bert (artist)" in refused
    assert "not-allowed x12" in refused
    assert nobody.startswith("!")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(who=st.text(max_size=20), what=st.text(max_size=40), text=st.text(max_size=40))
def test_what_others_typed_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], who: str, what: str, text: str
) -> None:
    Rows()([row(1, who=who, role="", what=what, text=text, outcome="not-allowed")])
    out = capsys.readouterr().out
    assert out.count("\n") == 2
    assert all(char == "\n" or char.isprintable() for char in out)


def test_rows_fit_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    long = row(
        1, who="a" * 60, peer="fd00:1:2:3:4:5:6:7", what="w" * 50, text="t" * 90, outcome="not-allowed"
    )
    lines = printed((long, row(2)), capsys)
    assert max(map(len, lines)) <= 80
    assert "t" * 70 in "".join(line.strip() for line in lines), "all of it is shown"


# -- following --------------------------------------------------------------------------------------------


async def test_following_goes_on_after_a_restart_of_the_master(tmp_path: Path) -> None:
    """No row is missed, none comes twice."""
    master = Peer(str(tmp_path / "master.sock"))
    book = Book(5)
    master.on[messages.ListAudit] = book
    async with serving(master) as nursery, connect(master.address) as farm:
        rows = farm.follow_audit(2)
        seen = [(await soon(anext(rows))).id for _ in range(2)]
        master.stop()
        await soon(master.stopped.wait())
        book.rows += [row(6), row(7)]
        await nursery.start(master.serve)
        seen += [(await soon(anext(rows))).id for _ in range(2)]
        await rows.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(rows)
    assert seen == [4, 5, 6, 7]
    assert book.waits[-1] > 0


async def test_following_from_now_on_shows_nothing_old(tmp_path: Path) -> None:
    master = Peer(str(tmp_path / "master.sock"))
    book = Book(5)

    def answer(channel: Any, asked: messages.ListAudit) -> messages.Audit | None:
        found = book(channel, asked)
        if asked.latest:
            book.rows.append(row(len(book.rows) + 1))
        return found

    master.on[messages.ListAudit] = answer
    async with serving(master), connect(master.address) as farm:
        assert (await soon(anext(farm.follow_audit()))).id == 6
        book.rows.clear()
        assert (await soon(anext(farm.follow_audit()))).id == 1, "the first row that there ever was"


def test_the_blocking_client_looks_and_follows(book: Book, master: Peer) -> None:
    with Client(master.address) as farm:
        assert [each.id for each in farm.audit(3)] == [248, 249, 250]
        with farm.follow_audit(2) as rows:
            assert [next(rows).id, next(rows).id] == [249, 250]


def test_the_command_shows_rows_as_they_come(book: Book, master: Peer, drqueue: Command) -> None:
    """Until it may no more: what came before is shown all the same."""

    def answer(channel: Any, asked: messages.ListAudit) -> messages.Request | None:
        if len(book.rows) == 253:
            return messages.Refusal(rq=asked.rq, code="not-allowed", text="that takes an admin")
        if asked.cursor:
            book.rows.append(row(len(book.rows) + 1))
        return book(channel, asked)

    master.on[messages.ListAudit] = answer
    said = drqueue("audit", "--follow", "-n", "2")
    assert (said.status, said.err) == (3, "drqueue: that takes an admin\n")
    assert [line.split()[-1] for line in said.out.splitlines()[1:]] == ["249", "250", "251", "252", "253"]
    del book.rows[251:]
    said = drqueue("audit", "-f", "--json")
    assert [json.loads(line)["id"] for line in said.out.splitlines()] == list(range(242, 254))
