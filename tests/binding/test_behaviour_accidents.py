"""Accidents: no master, a master or a slave that is killed, a job that is gone."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import drqueue
from drqueue.client.binding import session
from tests.binding.conftest import Gated
from tests.binding.farm import (
    C,
    Farm,
    a_farm,
    a_job,
    clear,
    eventually,
    frame,
    fresh,
    sent,
    statuses,
    until_finished,
    until_frames,
    until_runs,
)

pytestmark = pytest.mark.slow
WAITING, ASSIGNED, FINISHED = drqueue.FS_WAITING, drqueue.FS_ASSIGNED, drqueue.FS_FINISHED
NOT_REGISTERED = r"^Structure \(job,computer,task\.\.\.\) not registered"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with a_farm(tmp_path_factory.mktemp("accidents") / "farm", ["s1"], cores=3) as farm:
        yield farm


@pytest.fixture(autouse=True)
def _cleared(farm: Farm) -> Iterator[None]:
    yield
    clear()


def pids() -> dict[int, int]:
    """The processes of what runs, by frame number."""
    slots = [each.status.get_task(slot) for each in drqueue.request_computer_list(C) for slot in range(32)]
    return {task.frame: task.pid for task in slots if task.used}


# -- no master ----------------------------------------------------------------------------------------------


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DRQUEUE_MASTER names a place where no master is; it is looked at with each call."""
    monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{tmp_path}/nobody.sock")
    monkeypatch.setattr(session, "PATIENCE_S", 0.05)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    "call",
    [
        lambda job, computer: drqueue.request_job_list(C),
        lambda job, computer: drqueue.request_computer_list(C),
        lambda job, computer: job.send_to_queue(),
        lambda job, computer: job.update(C),
        lambda job, computer: job.request_frame_list(C),
        lambda job, computer: job.request_stop(C),
        lambda job, computer: job.request_hard_stop(C),
        lambda job, computer: job.request_continue(C),
        lambda job, computer: job.request_rerun(C),
        lambda job, computer: job.request_delete(C),
        lambda job, computer: computer.update(C),
        lambda job, computer: computer.request_enable(C),
    ],
)
def test_ioerror_without_a_master(call: Callable[[drqueue.job, drqueue.computer], object]) -> None:
    computer = drqueue.computer()
    computer.hwinfo.name = "unheard-of"
    with pytest.raises(IOError, match=r"^Could not connect to master"):
        call(a_job("true"), computer)


@pytest.mark.usefixtures("nobody")
def test_plain_functions_return_0_without_a_master() -> None:
    assert drqueue.register_job(a_job("true")) == 0
    assert drqueue.request_job_stop(0, C) == 0
    assert drqueue.request_job_xfer(0, drqueue.job(), C) == 0
    assert drqueue.request_slavexit(0, C) == 0


# -- jobs that are gone -------------------------------------------------------------------------------------


def test_update_after_delete(gated: Gated) -> None:
    """The local record stays as it was; every verb fails; ids are not used again."""
    job, _ = gated(2)
    until_frames(job, [ASSIGNED, ASSIGNED])
    fresh(job)
    running = pids()
    assert job.request_delete(C) == 1
    for call in (
        job.update, job.request_frame_list, job.request_stop, job.request_hard_stop, job.request_continue,
        job.request_rerun, job.request_delete,
    ):  # fmt: skip
        with pytest.raises(IOError, match=NOT_REGISTERED):
            call(C)
    assert (job.name, job.nprocs, job.frame_end) == ("job", 2, 2)
    eventually("its processes are gone", lambda: not any(alive(pid) for pid in running.values()))
    assert sent(a_job("true")).id == job.id + 1


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


# -- a master that is started anew --------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL], ids=["in order", "killed"])
def test_master_restart_with_running_frames(sign: signal.Signals, farm: Farm, gated: Gated) -> None:
    """Nothing is lost and nothing is done twice: what ran goes on, what ended meanwhile is known."""
    job, gates = gated(5, priority=700)
    until_frames(job, [ASSIGNED] * 3 + [WAITING] * 2)
    assert drqueue.request_job_frame_kill(job.id, 3, C) == 1
    until_runs(job, 3, 1)
    other = sent(a_job("true", limits__pool="nowhere"))
    before = pids()
    farm.master.end(sign)
    gates.end(1)
    eventually("its process is gone", lambda: not alive(before[1]))
    farm.master.start()
    eventually("one is done", lambda: master_knows(job, 1, FINISHED))
    assert fresh(job).priority == 700
    assert job.environment_variable_find("GATES")
    until_runs(job, 4)
    after = pids()
    assert (after[2], after[3]) == (before[2], before[3])
    assert [info.requeued for info in job.request_frame_list(C)] == [0, 0, 1, 0, 0]
    gates.end_all()
    assert until_finished(job).fdone == 5
    assert [info.requeued for info in job.request_frame_list(C)] == [0, 0, 1, 0, 0]
    assert fresh(other).status == drqueue.JOBSTATUS_WAITING


def master_knows(job: drqueue.job, number: int, status: int) -> bool:
    info = drqueue.frame_info()
    return bool(drqueue.request_job_frame_info(job.id, number, info, C)) and info.status == status


def test_slave_calls_work_without_a_master(farm: Farm) -> None:
    """A slave is told directly, by its address; the master hears of it when it is back."""
    (computer,) = drqueue.request_computer_list(C)
    farm.master.end(signal.SIGKILL)
    try:
        assert drqueue.request_slave_limits_nmaxcpus_set(computer.hwinfo.address, 1, C) == 1
    finally:
        farm.master.start()
    eventually("the master knows", lambda: drqueue.request_computer_list(C)[0].limits.nmaxcpus == 1)
    assert drqueue.request_slave_limits_nmaxcpus_set("s1", 3, C) == 1
    eventually("the master knows", lambda: drqueue.request_computer_list(C)[0].limits.nmaxcpus == 3)


# -- a slave that crashes -----------------------------------------------------------------------------------


def test_slave_crash_and_frames_survive(farm: Farm, gated: Gated) -> None:
    """The daemon is killed: its frames go on without it, and it takes them up again when it is back."""
    job, gates = gated(3)
    until_frames(job, [ASSIGNED] * 3)
    before = pids()
    farm.slaves["s1"].end(signal.SIGKILL)
    assert statuses(job) == [ASSIGNED] * 3
    gates.end(1)
    eventually("its process is gone", lambda: not alive(before[1]))
    assert all(alive(before[number]) for number in (2, 3))
    farm.slaves["s1"].start()
    eventually("one is done", lambda: fresh(job).fdone == 1)
    assert {number: pid for number, pid in pids().items() if number != 1} == {2: before[2], 3: before[3]}
    gates.end_all()
    until_finished(job)
    assert [(info.status, info.requeued) for info in job.request_frame_list(C)] == [(FINISHED, 0)] * 3
    assert len(drqueue.request_computer_list(C)) == 1


def test_frames_of_a_crashed_slave_can_be_killed(farm: Farm, gated: Gated) -> None:
    """It is told when it is back; until then they are shown as running."""
    job, _ = gated(2)
    until_frames(job, [ASSIGNED] * 2)
    before = pids()
    farm.slaves["s1"].end(signal.SIGKILL)
    assert drqueue.request_job_frame_kill(job.id, 1, C) == 1
    assert drqueue.request_job_frame_finish(job.id, 2, C) == 1
    assert statuses(job) == [ASSIGNED, FINISHED]
    farm.slaves["s1"].start()
    until_runs(job, 1, 1)
    eventually("their processes are gone", lambda: not any(alive(pid) for pid in before.values()))
    assert statuses(job) == [ASSIGNED, FINISHED]


def test_a_frame_whose_process_is_killed_from_outside_is_requeued(gated: Gated) -> None:
    job, gates = gated()
    until_runs(job, 1)
    os.kill(pids()[1], signal.SIGKILL)
    until_runs(job, 1, 1)
    gates.end(1)
    assert until_finished(job).fdone == 1


def test_a_slave_that_ends_in_order_gives_its_frames_back(farm: Farm, gated: Gated) -> None:
    """Requeued, but that is no failure of theirs."""
    job, gates = gated(1, autoRequeue=0)
    until_runs(job, 1)
    farm.slaves["s1"].end()
    eventually("it waits", lambda: statuses(job) == [WAITING])
    assert frame(job, 1).requeued == 1
    farm.slaves["s1"].start()
    until_runs(job, 1)
    gates.end(1)
    assert until_finished(job).fdone == 1


def test_a_command_that_ignores_signals_is_killed_all_the_same(tmp_path: Path) -> None:
    """INT alone was asked for in the original, which left such commands running."""
    job = sent(a_job(f"trap '' INT TERM HUP; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"))
    until_runs(job, 1)
    pid = int((tmp_path / "pid").read_text())
    began = time.monotonic()
    assert job.request_hard_stop(C) == 1
    eventually("it waits", lambda: statuses(job) == [WAITING])
    assert not alive(pid)
    assert time.monotonic() - began < 10
