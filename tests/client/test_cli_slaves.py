"""`drqueue slaves`, `slave`: offers, whose GPUs are whose, who is sick; `attempts`: how long it waited."""

import json
from typing import Any

import pytest

from drqueue.proto import messages
from drqueue.proto.model import Gpu, MachineInfo, Offers
from drqueue.proto.views import AttemptView
from tests.client.conftest import Command
from tests.client.peer import Peer, frame_view, slave_view

MACHINE = MachineInfo(
    hostname="host",
    os="linux",
    gpus=tuple(Gpu(index, "RTX 6000", 49152, f"uuid{index}") for index in range(4)),
)
RICH: dict[str, Any] = {
    "machine": MACHINE,
    "cores_used": 2.5,
    "offers": Offers(
        gpus=(0, 1, 3),
        disk_mb=204800,
        amounts={"tapes": 2, "io": 0.5},
        tags=("fast", "quiet"),
        attributes={"rack": "b7", "ü": "x"},
    ),
    "gpus_used": (0, 1),
    "disk_used_mb": 1000,
    "amounts_used": {"tapes": 1},
    "running": (frame_view(7, "RUNNING", gpus=(0,)), frame_view(8, "RUNNING")),
}
SICK = "5 frames of 2 users failed on it in a row, the last of job 7: exit 1"


def shown(master: Peer, drqueue: Command, **fields: Any) -> dict[str, str]:
    """The fields that `slave s1` shows."""
    master.on[messages.GetSlave] = lambda _, asked: messages.SlaveInfo(
        rq=asked.rq, slave=slave_view("s1", **fields)
    )
    lines = drqueue("slave", "s1").out.split("\n\n")[0].splitlines()
    return {line[:10].strip(): line[10:].strip() for line in lines}


def test_what_a_slave_offers_and_what_is_in_use(master: Peer, drqueue: Command) -> None:
    found = shown(master, drqueue, **RICH)
    assert found["offers"] == "4 cores, 1000M memory, 3 GPUs, 200.0G disk, 0.5 io, 2 tapes"
    assert found["in use"] == "2.5 cores, 0M memory, 2 GPUs, 1000M disk, 1 tapes"
    assert found["tags"] == "fast, quiet"
    assert found["rack ="] == "b7"
    assert found["ü ="] == "x"


def test_who_has_which_gpu(master: Peer, drqueue: Command) -> None:
    found = shown(master, drqueue, **RICH)
    assert {name: text for name, text in found.items() if name.startswith("GPU")} == {
        "GPU 0": "RTX 6000, 48.0G: job 1 frame 7",
        "GPU 1": "RTX 6000, 48.0G: in use",
        "GPU 2": "RTX 6000, 48.0G: not offered",
        "GPU 3": "RTX 6000, 48.0G: free",
    }


def test_one_that_offers_nothing_special_shows_nothing_of_it(master: Peer, drqueue: Command) -> None:
    found = shown(master, drqueue)
    assert found["offers"] == "4 cores, 1000M memory"
    assert found["in use"] == "0 cores, 0M memory"
    assert not {"tags", "sick"} & found.keys()


def test_a_sick_slave_says_why_and_how_it_is_healed(master: Peer, drqueue: Command) -> None:
    found = shown(master, drqueue, state="sick", sick=SICK)
    assert found["state"] == "sick"
    assert found["sick"] == f"{SICK} (when it is well: drqueue slave heal s1)"
    master.on[messages.ListSlaves] = lambda _, asked: messages.Slaves(
        rq=asked.rq, slaves=(slave_view("s1", state="sick", sick=SICK, cores_used=0.5),)
    )
    assert drqueue("slaves").out.splitlines()[1].split()[2:4] == ["sick", "0.5/4"]
    assert json.loads(drqueue("slaves", "--json").out)[0]["sick"] == SICK


def test_healing_a_slave(master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drqueue("slave", "heal", "s1") == (0, "", "")
    (asked,) = [message for message in master.heard if isinstance(message, messages.SlaveVerb)]
    assert (asked.slave, asked.verb) == ("s1", "heal")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert drqueue("slave", "heal", "s1").err == "slave s1 healed, it gets frames again\n"


def attempt(number: int, **fields: Any) -> AttemptView:
    given: dict[str, Any] = {"job": 1, "layer": 0, "frame": 0, "number": 5, "slave": "s1", "slave_id": 0}
    given |= {"assigned_at": 1000.0, "started_at": 1001.0, "ended_at": 1011.0, "outcome": "done"}
    return AttemptView(**{**given, "attempt": number, **fields})


def test_attempts_say_how_long_they_waited_and_what_they_had(master: Peer, drqueue: Command) -> None:
    master.on[messages.ListAttempts] = lambda _, asked: messages.Attempts(
        rq=asked.rq,
        attempts=(
            attempt(1, outcome="failed", code=1, eligible_at=925.0, cores=0.5, gpus=(0, 2)),
            attempt(2, eligible_at=1000.0, cores=4),
            attempt(3),
        ),
    )
    lines = [line.split() for line in drqueue("attempts", "1", "5").out.splitlines()]
    assert lines[0][:6] == ["TRY", "OUTCOME", "SLAVE", "CORES", "WAITED", "STARTED"]
    assert lines[1][:5] == ["1", "failed", "s1", "0.5", "1m15s"]
    assert " ".join(lines[1]).endswith("exit status 1, GPU 0, 2")
    assert lines[2][:5] == ["2", "done", "s1", "4", "0s"]
    assert lines[3][3] == "1"
    assert lines[3][4] != "0s", "nobody knows since when it might have run"
    found = json.loads(drqueue("attempts", "1", "5", "--json").out)
    assert (found[0]["eligible_at"], found[0]["cores"], found[0]["gpus"]) == (925.0, 0.5, [0, 2])


def test_attempts_fit_a_narrow_terminal(
    master: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    full = {"cpu_s": 33.0, "peak_mb": 900.0, "eligible_at": 1.0, "slave": "render-node-000017"}
    master.on[messages.ListAttempts] = lambda _, asked: messages.Attempts(
        rq=asked.rq, attempts=(attempt(1, outcome="failed", code=1, **full), attempt(2, **full))
    )
    lines = drqueue("attempts", "1", "5").out.splitlines()
    assert max(map(len, lines)) <= 80
