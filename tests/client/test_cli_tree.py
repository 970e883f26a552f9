"""`drqueue job --tree`: who waits for whom, how far that is, and what of it will not come by itself."""

import json
import sys
from typing import Any

import pytest
from msgspec import structs

from drqueue.client.cli import jobtree
from drqueue.proto import messages
from drqueue.proto.model import Depend, LayerDepend
from drqueue.proto.views import Counts, JobView, LayerView
from tests.client.conftest import LAYER, Command
from tests.client.peer import Peer, job_view


def layer(name: str, *depends: LayerDepend, total: int = 10, **fields: Any) -> LayerView:
    """A layer of which 3 frames are done, if nothing else is said."""
    counts = fields.pop("counts", Counts(total=total, done=3, blocked=total - 3))
    return structs.replace(LAYER, name=name, depends=depends, counts=counts, chunk_counts=counts, **fields)


def have(master: Peer, *jobs: tuple[JobView, tuple[LayerView, ...]]) -> None:
    """Let the master know these jobs alone."""
    known = {view.id: (view, layers) for view, layers in jobs}

    def answer(_link: object, asked: messages.GetJob) -> messages.Request:
        if asked.job not in known:
            return messages.Refusal(rq=asked.rq, code="no-such-job", text=f"there is no job {asked.job}")
        view, layers = known[asked.job]
        return messages.Job(rq=asked.rq, job=view, layers=layers)

    master.on[messages.GetJob] = answer


def a_farm(master: Peer) -> None:
    sim = (job_view(11, name="sim", dependents=(12,)), (layer("main"),))
    render = (
        job_view(12, state="WAITING", depends=(Depend(11),), dependents=(13, 14)),
        (
            layer("main", LayerDepend(job=11, frames="each", offset=-1), total=20),
            layer("comp", LayerDepend(layer="main", frames="percent", percent=33.4), after=("main",)),
            layer("encode", LayerDepend(frames="previous"), LayerDepend(layer="comp", frames="any")),
        ),
    )
    final = (job_view(13, state="WAITING", dependents=(15,), name="f" * 90), (layer("main"),))
    other = (job_view(14, state="WAITING", dependents=(15,)), (layer("main"),))
    last = (job_view(15, state="WAITING"), (layer("main"),))
    have(master, sim, render, final, other, last)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout is a terminal of 80 columns, without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def test_what_a_job_waits_for_and_who_waits_for_it(master: Peer, drqueue: Command) -> None:
    a_farm(master)
    assert drqueue("job", "12", "--tree").out.splitlines() == [
        "job 12 job12  WAITING  10: 3 done, 2 running",
        "├─ after job 11: 3 of 10 done",
        "│  └─ job 11 sim  ACTIVE  10: 3 done, 2 running",
        "│     └─ layer main  10: 3 done, 7 blocked",
        "├─ layer main  20: 3 done, 17 blocked",
        "│  └─ each frame n after n-1 of job 11: 3 of 10 done",
        "├─ layer comp  10: 3 done, 7 blocked",
        "│  ├─ after main: 3 of 20 done",
        "│  └─ after 33.4% of main: 3 of 7 done",
        "├─ layer encode  10: 3 done, 7 blocked",
        "│  ├─ each frame after the one before it: 3 of 10 done",
        "│  └─ after any frame of comp: met",
        "└─ waited for by",
        "   ├─ job 13 fffffffffffffffffffffff…  WAITING  10: 3 done, 2 running",
        "   │  └─ job 15 job15  WAITING  10: 3 done, 2 running",
        "   └─ job 14 job14  WAITING  10: 3 done, 2 running",
        "      └─ job 15",
    ]


def test_the_same_for_programs(master: Peer, drqueue: Command) -> None:
    a_farm(master)
    root = json.loads(drqueue("job", "12", "--tree", "--json").out)
    assert (root["id"], root["name"], root["state"], root["counts"]["done"]) == (12, "job12", "WAITING", 3)
    (whole,) = root["depends"]
    assert whole.pop("of")["layers"][0]["name"] == "main"
    assert whole == {
        "depend": "11", "job": 11, "layer": "", "frames": "all", "offset": 0, "percent": 100, "until": "done",
        "over": 3, "wanted": 10, "total": 10, "lost": 0, "met": False, "never": False,
        "chunks": False,
    }  # fmt: skip
    main, comp, encode = root["layers"]
    assert [(d["depend"], d["met"], "of" in d) for d in main["depends"]] == [("11:each-1", None, False)]
    assert [(d["over"], d["wanted"], d["met"]) for d in comp["depends"]] == [(3, 20, False), (3, 7, False)]
    assert [(d["layer"], d["met"]) for d in encode["depends"]] == [("encode", None), ("comp", True)]
    assert [(each["id"], len(each["dependents"])) for each in root["dependents"]] == [(13, 1), (14, 1)]
    assert root["dependents"][1]["dependents"] == [{"id": 15}]


def test_what_will_not_be_met_by_itself(master: Peer, drqueue: Command) -> None:
    bad = layer("sim", counts=Counts(total=10, done=4, failed=5, cancelled=1))
    layers = (
        bad,
        layer("a", after=("sim",)),
        layer("b", LayerDepend(layer="sim", frames="percent", percent=40)),
        layer("c", LayerDepend(layer="sim", frames="percent", percent=41)),
        layer("d", LayerDepend(layer="sim", until="ended")),
    )
    have(master, (job_view(7), layers))
    lines = [line for line in drqueue("job", "7", "--tree").out.splitlines() if "after" in line]
    assert [line.partition("└─ ")[2] for line in lines] == [
        "after sim: 4 of 10 done, 6 failed or cancelled",
        "after 40% of sim: met",
        "after 41% of sim: 4 of 5 done, 6 failed or cancelled",
        "after sim: met",
    ]


def test_chunks_are_called_so_where_they_are_counted(master: Peer, drqueue: Command) -> None:
    chunked = structs.replace(
        layer("sim"), chunk=5, chunk_counts=Counts(total=2, done=1), counts=Counts(total=10, done=5)
    )
    have(master, (job_view(7), (chunked, layer("a", LayerDepend(layer="sim", frames="each", offset=2)))))
    text = drqueue("job", "7", "--tree").out
    assert "each frame n after n+2 of sim: 1 of 2 chunks done" in text


def test_jobs_that_went_meanwhile_and_jobs_in_a_ring(master: Peer, drqueue: Command) -> None:
    """What changes while it is looked at makes no tree wrong, or endless."""
    one = (job_view(1, depends=(Depend(2), Depend(9)), dependents=(2,)), (layer("main"),))
    two = (job_view(2, depends=(Depend(1),), dependents=(1, 9)), (layer("main"),))
    have(master, one, two)
    assert drqueue("job", "1", "--tree").out.splitlines() == [
        "job 1 job1  ACTIVE  10: 3 done, 2 running",
        "├─ after job 2: 3 of 10 done",
        "│  └─ job 2 job2  ACTIVE  10: 3 done, 2 running",
        "│     ├─ after job 1: 3 of 10 done",
        "│     └─ layer main  10: 3 done, 7 blocked",
        "├─ after job 9: met",
        "├─ layer main  10: 3 done, 7 blocked",
        "└─ waited for by",
        "   └─ job 2",
    ]
    said = drqueue("job", "9", "--tree")
    assert (said.status, "no job 9" in said.err) == (3, True)


def test_a_long_chain_is_looked_at_in_part(master: Peer, drqueue: Command) -> None:
    chain = [
        (job_view(n, depends=(Depend(n + 1),), dependents=(n - 1,)), (layer("main"),)) for n in range(1, 300)
    ]
    have(master, *chain)
    lines = drqueue("job", "1", "--tree").out.splitlines()
    assert len([kind for kind in master.kinds() if kind == "GetJob"]) == jobtree.MOST
    assert any(line.endswith(f"after job {jobtree.MOST + 1}") for line in lines)
    assert json.loads(drqueue("job", "1", "--tree", "--json").out)["id"] == 1


def test_frames_that_are_to_go_next(master: Peer, drqueue: Command) -> None:
    master.on[messages.FrameVerb] = lambda _, asked: messages.Done(rq=asked.rq, count=3)
    said = drqueue("frame", "next", "12", "comp:5-7")
    (asked,) = [request for request in master.heard if isinstance(request, messages.FrameVerb)]
    assert (asked.verb, asked.job, asked.layer, asked.frames) == ("next", 12, "comp", "5-7")
    assert said.err == "3 frames\n"
