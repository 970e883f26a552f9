"""The interactive session of the old how-to of the binding, against a real master and two real slaves.

One session in one farm, step by step: each test goes on where the one before left off, so that they stand or
fall together, as somebody's session at a prompt does.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import drqueue
from tests.binding.farm import (
    GATED,
    Gates,
    a_farm,
    eventually,
    frame,
    fresh,
    statuses,
    until_finished,
    until_frames,
    until_runs,
)

pytestmark = pytest.mark.slow


class Session:
    """What somebody at a prompt has in their variables."""

    job_list: list[drqueue.job]
    job: drqueue.job
    computer_list: list[drqueue.computer]
    gates: Gates

    def computer(self, name: str) -> drqueue.computer:
        """A computer as the master has it now."""
        return next(c for c in drqueue.request_computer_list(drqueue.CLIENT) if c.hwinfo.name == name)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder: Path = tmp_path_factory.mktemp("wiki")
    session = Session()
    session.gates = Gates(folder / "gates", range(1, 6))
    with a_farm(folder / "farm", ["slave0001", "slave0002"], cores=2):
        yield session
    session.gates.close()


def test_01_the_list_of_jobs_is_empty(session: Session) -> None:
    session.job_list = drqueue.request_job_list(drqueue.CLIENT)
    assert session.job_list == []
    assert len(session.job_list) == 0


def test_02_a_new_job_has_its_defaults(session: Session) -> None:
    session.job = job = drqueue.job()
    assert (job.id, job.name, job.cmd, job.priority) == (0, "", "", 500)
    assert (job.frame_start, job.frame_end, job.frame_step, job.block_size) == (1, 1, 1, 1)


def test_03_what_is_set_reads_back(session: Session) -> None:
    job = session.job
    job.name = "testing"
    job.frame_start = 1
    job.frame_end = 5
    job.cmd = GATED
    job.priority = 600
    # Not on the page: how the command finds out when it is to end.
    job.environment_variable_add("GATES", str(session.gates.folder))
    assert (job.name, job.frame_start, job.frame_end, job.cmd, job.priority) == ("testing", 1, 5, GATED, 600)


def test_04_sending_it_returns_1_and_gives_it_an_id(session: Session) -> None:
    other = drqueue.job()
    other.name, other.cmd = "earlier", "true"
    assert other.send_to_queue() == 1
    assert other.id == 0
    assert session.job.send_to_queue() == 1
    assert session.job.id == 1
    until_finished(other)


def test_05_it_is_in_the_list(session: Session) -> None:
    session.job_list = drqueue.request_job_list(drqueue.CLIENT)
    assert [each.id for each in session.job_list] == [0, 1]
    assert [each.name for each in session.job_list] == ["earlier", "testing"]
    assert session.job_list[1].cmd == GATED
    assert session.job_list[1].priority == 600


def test_06_the_list_of_frames(session: Session) -> None:
    """Four run, as many as there are processors; the fifth waits."""
    assigned, waiting = drqueue.FS_ASSIGNED, drqueue.FS_WAITING
    until_frames(session.job, [assigned, assigned, assigned, assigned, waiting])
    frame_list = session.job.request_frame_list(drqueue.CLIENT)
    assert len(frame_list) == 5
    assert all(frame.start_time > 1_600_000_000 for frame in frame_list[:4])
    assert [frame.end_time for frame in frame_list] == [0] * 5
    assert [frame.requeued for frame in frame_list] == [0] * 5
    assert sorted(frame.icomp for frame in frame_list[:4]) == [0, 0, 1, 1]
    assert sorted((frame.icomp, frame.itask) for frame in frame_list[:4]) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_07_the_number_of_a_frame(session: Session) -> None:
    assert session.job.job_frame_index_to_number(0) == 1
    assert session.job.job_frame_index_to_number(4) == 5
    for index in (-1, 5):
        with pytest.raises(IndexError, match=r"^frame index out of range$"):
            session.job.job_frame_index_to_number(index)


def test_08_continue_changes_nothing_in_a_job_that_runs(session: Session) -> None:
    assert session.job.request_continue(drqueue.CLIENT) == 1
    assert fresh(session.job).status == drqueue.JOBSTATUS_ACTIVE


def test_09_the_local_job_is_as_it_was_until_it_is_updated(session: Session) -> None:
    job = session.job_list[1]
    session.gates.end(1)
    eventually("one is done", lambda: fresh(session.job).fdone == 1)
    assert job.fdone == 0
    assert job.update(drqueue.CLIENT) == 1
    assert (job.fdone, job.fleft, job.nprocs, job.ffailed) == (1, 0, 4, 0)
    assert job.status == drqueue.JOBSTATUS_ACTIVE
    assert drqueue.job_status_string(job.status) == "Active"
    info = job.request_frame_list(drqueue.CLIENT)[0]
    assert (info.status, info.exitcode) == (drqueue.FS_FINISHED, 0)
    assert info.end_time >= info.start_time > 0


def test_10_stop_lets_running_frames_end(session: Session) -> None:
    until_runs(session.job, 5)
    assert session.job.request_stop(drqueue.CLIENT) == 1
    assert session.job.status == drqueue.JOBSTATUS_ACTIVE
    assert fresh(session.job).status == drqueue.JOBSTATUS_STOPPED
    assert session.job.nprocs == 4
    session.gates.end(2)
    eventually("two are done", lambda: fresh(session.job).fdone == 2)
    assert session.job.nprocs == 3
    assert session.job.status == drqueue.JOBSTATUS_STOPPED


def test_11_hard_stop_sends_them_back(session: Session) -> None:
    finished, waiting = drqueue.FS_FINISHED, drqueue.FS_WAITING
    assert session.job.request_hard_stop(drqueue.CLIENT) == 1
    until_frames(session.job, [finished, finished, waiting, waiting, waiting])
    frame_list = session.job.request_frame_list(drqueue.CLIENT)
    assert [frame.requeued for frame in frame_list] == [0, 0, 1, 1, 1]
    assert fresh(session.job).status == drqueue.JOBSTATUS_STOPPED
    assert (session.job.fdone, session.job.fleft, session.job.nprocs) == (2, 3, 0)


def test_12_continue_goes_on(session: Session) -> None:
    assert session.job.request_continue(drqueue.CLIENT) == 1
    for number in (3, 4, 5):
        until_runs(session.job, number)
    assert fresh(session.job).status == drqueue.JOBSTATUS_ACTIVE
    for number in (3, 4, 5):
        session.gates.end(number)
    until_finished(session.job)
    assert statuses(session.job) == [drqueue.FS_FINISHED] * 5
    assert (session.job.fdone, session.job.fleft, session.job.nprocs, session.job.ffailed) == (5, 0, 0, 0)


def test_13_rerun_runs_all_of_it_again(session: Session) -> None:
    """And counts it, for every frame."""
    before = [info.requeued for info in session.job.request_frame_list(drqueue.CLIENT)]
    assert session.job.request_rerun(drqueue.CLIENT) == 1
    assert fresh(session.job).status in (drqueue.JOBSTATUS_WAITING, drqueue.JOBSTATUS_ACTIVE)
    for number in (1, 2, 3, 4):
        until_runs(session.job, number)
    session.gates.end_all()
    until_finished(session.job)
    assert statuses(session.job) == [drqueue.FS_FINISHED] * 5
    assert before == [0, 0, 1, 1, 1]
    assert [info.requeued for info in session.job.request_frame_list(drqueue.CLIENT)] == [1, 1, 2, 2, 2]


def test_14_the_list_of_computers(session: Session) -> None:
    session.computer_list = drqueue.request_computer_list(drqueue.CLIENT)
    assert len(session.computer_list) == 2
    assert [each.hwinfo.id for each in session.computer_list] == [0, 1]
    assert sorted(each.hwinfo.name for each in session.computer_list) == ["slave0001", "slave0002"]


def test_15_the_hardware_of_a_computer(session: Session) -> None:
    for each in session.computer_list:
        assert each.hwinfo.ncpus == 2
        assert each.hwinfo.memory == 1000
        assert each.hwinfo.os == drqueue.OS_LINUX
        assert drqueue.osstring(each.hwinfo.os) == "Linux"
        assert each.hwinfo.nnbits == 64
        assert each.hwinfo.speedindex == (each.hwinfo.proctype + 1) * each.hwinfo.procspeed
        assert each.hwinfo.address


def test_16_a_frame_names_its_computer(session: Session) -> None:
    """`computer_list[frame.icomp]`, as scripts write it."""
    for each in session.job.request_frame_list(drqueue.CLIENT):
        assert session.computer_list[each.icomp].hwinfo.id == each.icomp


def test_17_disable_goes_to_the_slave(session: Session) -> None:
    computer = session.computer("slave0001")
    assert computer.limits.enabled == 1
    assert computer.request_disable(drqueue.CLIENT) is None  # type: ignore[func-returns-value]
    assert computer.limits.enabled == 1

    def disabled() -> bool:
        assert computer.update(drqueue.CLIENT) is None  # type: ignore[func-returns-value]
        return computer.limits.enabled == 0

    eventually("the master knows", disabled)
    assert session.computer("slave0002").limits.enabled == 1


def test_18_a_disabled_computer_gets_no_frames(session: Session) -> None:
    assert session.job.request_rerun(drqueue.CLIENT) == 1
    here = session.computer("slave0002").hwinfo.id
    running = [until_runs(session.job, number).icomp for number in (1, 2)]
    assert running == [here, here]
    assert [frame(session.job, number).status for number in (3, 4, 5)] == [drqueue.FS_WAITING] * 3


def test_19_enable_brings_it_back(session: Session) -> None:
    computer = session.computer("slave0001")
    assert computer.request_enable(drqueue.CLIENT) is None  # type: ignore[func-returns-value]
    for number in (3, 4):
        assert until_runs(session.job, number).icomp == computer.hwinfo.id
    computer.update(drqueue.CLIENT)
    assert computer.limits.enabled == 1
    assert computer.status.nrunning == 2


def test_20_what_runs_is_seen_on_the_computer(session: Session) -> None:
    computer = session.computer("slave0001")
    tasks = [computer.status.get_task(slot) for slot in range(2)]
    assert sorted(task.frame for task in tasks) == [3, 4]
    for task in tasks:
        assert (task.used, task.ijob, task.jobname) == (1, session.job.id, "testing")
        assert task.status == drqueue.TASKSTATUS_RUNNING
    session.gates.end_all()
    until_finished(session.job)


def test_21_processors_by_the_name_of_the_slave(session: Session) -> None:
    """More than there are is as many as there are."""
    for asked, wanted in ((1, 1), (4, 2)):
        assert drqueue.request_slave_limits_nmaxcpus_set("slave0001", asked, drqueue.CLIENT) == 1
        eventually(
            "the master knows",
            lambda wanted=wanted: session.computer("slave0001").limits.nmaxcpus == wanted,  # type: ignore[misc]
        )
    assert session.computer("slave0002").limits.nmaxcpus == 2


def test_22_processors_by_the_address_of_the_slave(session: Session) -> None:
    address = session.computer("slave0002").hwinfo.address
    assert drqueue.request_slave_limits_nmaxcpus_set(address, 1, drqueue.CLIENT) == 1
    eventually("the master knows", lambda: session.computer("slave0002").limits.nmaxcpus == 1)
    assert session.computer("slave0001").limits.nmaxcpus == 2


def test_23_no_slave_of_that_name(session: Session) -> None:
    assert drqueue.request_slave_limits_nmaxcpus_set("slave0003", 4, drqueue.CLIENT) == 0


def test_24_the_limit_holds(session: Session) -> None:
    assert session.job.request_rerun(drqueue.CLIENT) == 1
    for number in (1, 2, 3):
        until_runs(session.job, number)
    counts = {
        each.hwinfo.name: each.status.nrunning for each in drqueue.request_computer_list(drqueue.CLIENT)
    }
    assert counts == {"slave0001": 2, "slave0002": 1}
    assert fresh(session.job).nprocs == 3


def test_25_delete_ends_it_and_strikes_it_off(session: Session) -> None:
    """What runs is killed; an update of the job fails from then on, and so does all else."""
    assert session.job.request_delete(drqueue.CLIENT) == 1
    assert [each.id for each in drqueue.request_job_list(drqueue.CLIENT)] == [0]
    eventually(
        "nothing runs",
        lambda: not any(each.status.nrunning for each in drqueue.request_computer_list(drqueue.CLIENT)),
    )
    registered = r"^Structure \(job,computer,task\.\.\.\) not registered"
    with pytest.raises(IOError, match=registered):
        session.job.update(drqueue.CLIENT)
    with pytest.raises(IOError, match=registered):
        session.job.request_stop(drqueue.CLIENT)
    assert drqueue.request_job_stop(session.job.id, drqueue.CLIENT) == 0
