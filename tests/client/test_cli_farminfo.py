"""`drqueue farm` and `drqueue farm resume`, against a scripted master."""

import json
from typing import Any

import pytest
from msgspec import structs

from drqueue.client.cli import output
from drqueue.proto import messages
from drqueue.proto.views import HoldbackView
from tests.client.conftest import Command
from tests.client.peer import Peer

JOBS = "jobs of the restored backup"
RESUME = "until drqueue farm resume"


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (None, ""),
        (HoldbackView(jobs=1, for_operator=1), f"1 job of the restored backup {RESUME}"),
        (
            HoldbackView(jobs=3, until_at=1e9, for_operator=1, slaves_away=2),
            f"3 {JOBS}, until {output.moment(1e9)} at most, 1 of them {RESUME}; 2 slaves not linked since",
        ),
    ],
)
def test_f16_farm_says_what_is_held_back(
    master: Peer, drqueue: Command, view: HoldbackView | None, shown: str
) -> None:
    answer: Any = master.on[messages.FarmInfo]
    master.on[messages.FarmInfo] = lambda number, asked: structs.replace(
        answer(number, asked), holdback=view, clock="the clock is ahead"
    )
    said = " ".join(drqueue("farm").out.split())
    assert (f"held back {shown} clock the clock is ahead" in said) == bool(view)
    found = json.loads(drqueue("farm", "--json").out)
    assert found["clock"] == "the clock is ahead"
    assert (found["holdback"] or {}).get("jobs", 0) == (view.jobs if view else 0)


def test_f16_farm_resume_vouches(master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    master.on[messages.ResumeFarm] = lambda _, asked: messages.Done(rq=asked.rq, count=2)
    assert drqueue("farm", "resume") == (0, "", "")
    assert isinstance(master.heard[-1], messages.ResumeFarm)
    assert json.loads(drqueue("farm", "resume", "--json").out) == {"count": 2, "note": ""}
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert drqueue("farm", "resume").err == "2 jobs of the backup go on\n"
    note = "1 job waits until slave s1 has stopped"
    master.on[messages.ResumeFarm] = lambda _, asked: messages.Done(rq=asked.rq, count=1, note=note)
    assert drqueue("farm", "resume").err == f"1 job of the backup goes on; {note}\n"
    assert (
        drqueue("farm", "resme").err
        == "drqueue: there is no command 'resme': did you mean 'resume'? (see `drqueue farm --help`)\n"
    )
