"""What tests of the command line share: a scripted master, and running one in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from drqueue.client.cli.main import run
from drqueue.proto import messages
from drqueue.proto.model import JobSpec, LayerSpec, Needs
from drqueue.proto.views import Counts, LayerView, Reason
from tests.client.peer import Peer, Reply, frame_view, in_thread, job_view, slave_view

LAYER = LayerView(
    index=0,
    name="main",
    command="true",
    frames="1-10",
    chunk=1,
    needs=Needs(cores=2, memory_mb=50),
    retries=3,
    timeout_s=0,
    cwd="/c",
    outputs=(),
    after=(),
    counts=Counts(total=10, done=3),
    chunk_counts=Counts(total=10, done=3),
)
SPEC = JobSpec(name="job", layers=(LayerSpec(argv=("true",), frames="1-10", cwd="/c"),))


class Said(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Said]


def _done(_: Any, asked: Any) -> messages.Request:
    return messages.Done(rq=asked.rq, count=1)


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    def job(_: Any, asked: messages.GetJob) -> messages.Request:
        if asked.job > 100:
            return messages.Refusal(rq=asked.rq, code="no-such-job", text=f"there is no job {asked.job}")
        return messages.Job(rq=asked.rq, job=job_view(asked.job, "FINISHED"), layers=(LAYER,))

    def verb(_: Any, asked: messages.JobVerb) -> messages.Request:
        if asked.job > 100:
            return messages.Refusal(rq=asked.rq, code="no-such-job", text=f"there is no job {asked.job}")
        return messages.Done(rq=asked.rq, count=3)

    on: dict[type, Reply] = {
        messages.WhoAmI: lambda _, asked: messages.You(
            rq=asked.rq, name="anna", role="artist", account="", peer="uid 1"
        ),
        messages.Submit: lambda _, asked: messages.Submitted(rq=asked.rq, job=42),
        messages.GetJob: job,
        messages.GetSpec: lambda _, asked: messages.Spec(rq=asked.rq, spec=SPEC),
        messages.ListJobs: lambda _, asked: messages.Jobs(rq=asked.rq, jobs=(job_view(1), job_view(2))),
        messages.JobVerb: verb,
        messages.FrameVerb: _done,
        messages.ChangeJob: _done,
        messages.SetLimits: _done,
        messages.SlaveVerb: _done,
        messages.Watch: lambda _, asked: messages.Watching(rq=asked.rq, watch=1),
        messages.ListFrames: lambda _, asked: messages.Frames(
            rq=asked.rq, frames=(frame_view(1, "DONE"), frame_view(2, "FAILED", text="exit 1"))
        ),
        messages.ListSlaves: lambda _, asked: messages.Slaves(rq=asked.rq, slaves=(slave_view("s1"),)),
        messages.GetTicket: lambda _, asked: messages.Ticket(rq=asked.rq, slave=0, name=asked.slave),
        messages.GetSlave: lambda _, asked: messages.SlaveInfo(rq=asked.rq, slave=slave_view(asked.slave)),
        messages.Why: lambda _, asked: messages.Reasons(
            rq=asked.rq, reasons=(Reason(code="stopped", text="it is stopped"),)
        ),
        messages.FarmInfo: lambda _, asked: messages.Farm(
            rq=asked.rq,
            farm="f00",
            epoch=3,
            software="drqueue 1",
            started_at=1000.0,
            jobs=2,
            slaves=1,
            slaves_linked=1,
            cores=4,
            cores_used=1,
            frames_running=1,
            frames_waiting=5,
        ),
    }
    with in_thread(str(tmp_path / "master.sock"), on) as peer:
        monkeypatch.setenv("DRQUEUE_MASTER", peer.address)
        yield peer


@pytest.fixture
def drqueue(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def command(*words: str) -> Said:
        status = run(list(words))
        out, err = capsys.readouterr()
        return Said(status, out, err)

    return command
