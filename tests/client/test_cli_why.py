"""`drqueue why`: reasons for people, and for programs."""

import json

import pytest

from drqueue.client.cli.output import cells, moment
from drqueue.proto import messages
from drqueue.proto.views import Reason
from tests.client.conftest import Command
from tests.client.peer import Peer

REASONS = (
    Reason(code="limit", text="limit nuke 20/20", count=5, name="nuke"),
    Reason(
        code="slaves",
        text="212 slaves of pool Default: 180 lack free memory (needs 32 GB, the largest free is 24 GB), "
        "30 on the avoid list for 58 min, 2 disabled",
        count=212,
    ),
    Reason(
        code="memory",
        text="180 of 212 slaves lack free memory (needs 32 GB, the largest free is 24 GB)",
        count=180,
    ),
    Reason(code="avoided", text="30 of 212 slaves are on the avoid list", count=30, until_at=1.5e9),
    Reason(code="disabled", text="2 of 212 slaves (a and b) are disabled", count=2),
    Reason(code="back-off", text="it failed, and is tried again in 5 s", count=1),
)


@pytest.fixture
def waiting(master: Peer) -> Peer:
    master.on[messages.Why] = lambda _, asked: messages.Reasons(rq=asked.rq, reasons=REASONS)
    return master


def test_a_pipe_gets_a_line_for_each_reason(waiting: Peer, drqueue: Command) -> None:
    said = drqueue("why", "3", "--each")
    assert said.status == 0
    assert said.out.splitlines() == [
        REASONS[0].text,
        REASONS[1].text,
        f"  {REASONS[2].text}",
        f"  {REASONS[3].text} (until {moment(1.5e9)})",
        f"  {REASONS[4].text}",
        REASONS[5].text,
    ]


def test_what_a_summary_counts_is_told_one_by_one_only_when_asked_for(
    waiting: Peer, drqueue: Command
) -> None:
    assert drqueue("why", "3").out.splitlines() == [REASONS[0].text, REASONS[1].text, REASONS[5].text]


def test_a_terminal_gets_lines_that_fit(
    waiting: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = drqueue("why", "3", "comp:7", "--each").out.splitlines()
    assert all(cells(line) <= 80 for line in lines)
    assert [line for line in lines if not line.startswith("  ")] == [
        "limit nuke 20/20",
        "212 slaves of pool Default: 180 lack free memory (needs 32 GB, the largest",
        "it failed, and is tried again in 5 s",
    ]
    whole = " ".join(" ".join(lines).split())
    assert all(reason.text in whole for reason in REASONS)
    asked = next(message for message in waiting.heard if isinstance(message, messages.Why))
    assert (asked.layer, asked.number) == ("comp", 7)


def test_programs_get_codes_and_all_else(waiting: Peer, drqueue: Command) -> None:
    found = json.loads(drqueue("why", "3", "--json").out)
    assert [reason["code"] for reason in found] == [reason.code for reason in REASONS]
    assert found[0]["name"] == "nuke"
    assert found[3]["until_at"] == 1.5e9


def test_what_waits_for_nothing_is_said(master: Peer, drqueue: Command) -> None:
    master.on[messages.Why] = lambda _, asked: messages.Reasons(rq=asked.rq, reasons=())
    assert drqueue("why", "3").out == "job 3 does not wait for anything\n"
    assert drqueue("why", "3", "7").out == "frame 7 of job 3 does not wait for anything\n"


def test_a_reason_reaches_no_terminal_with_what_steers_it(master: Peer, drqueue: Command) -> None:
    reason = Reason(code="where", text="is not such that \x1b[31m")
    master.on[messages.Why] = lambda _, asked: messages.Reasons(rq=asked.rq, reasons=(reason,))
    assert "\x1b" not in drqueue("why", "3").out
