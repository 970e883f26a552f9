"""Checks of the requests about frames, and of the methods of `job`."""

from collections.abc import Callable

import pytest

import drqueue
from tests.binding.checks import UNKNOWN, Bench, C, checks

WAITING, RUNNING = drqueue.FS_WAITING, drqueue.FS_ASSIGNED
ERROR, FINISHED = drqueue.FS_ERROR, drqueue.FS_FINISHED


@checks("request_job_frame_info")
def request_job_frame_info(bench: Bench) -> None:
    """By number; any number of a block names the block."""
    job, gate = bench.gated_job(10, 13, block_size=2)
    found = drqueue.frame_info()
    assert drqueue.request_job_frame_info(job.id, 12, found, C) == 1
    assert (found.status, found.end_time, found.exitcode, found.flags) == (RUNNING, 0, 0, 0)
    computer = drqueue.computer()
    assert drqueue.request_comp_xfer(found.icomp, computer, C) == 1
    task = computer.status.get_task(found.itask)
    assert (task.used, task.ijob, task.frame, task.itask) == (1, job.id, 12, found.itask)
    start = found.start_time
    gate.touch()
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert drqueue.request_job_frame_info(job.id, 13, found, C) == 1
    assert (found.status, found.start_time) == (FINISHED, start)
    assert found.end_time >= start > 0
    for ijob, number in ((job.id, 14), (job.id, 9), (UNKNOWN, 10)):
        assert drqueue.request_job_frame_info(ijob, number, found, C) == 0


@checks("request_job_frame_info")
def exit_codes_and_requeues(bench: Bench) -> None:
    """A frame that fails is tried four times, and is in error then; its exit code is told."""
    job = bench.job("exit 7")
    found = bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert (found.ffailed, found.fdone, found.fleft) == (1, 0, 0)
    (frame,) = bench.frames(job)
    assert (frame.status, frame.exitcode, frame.requeued) == (ERROR, 7, drqueue.MAX_REQUEUES)
    once = bench.job("exit 7", autoRequeue=0)
    bench.until_status(once, drqueue.JOBSTATUS_FINISHED)
    (frame,) = bench.frames(once)
    assert (frame.status, frame.exitcode, frame.requeued) == (ERROR, 7, 0)
    well = bench.job("exit 7", success_exit_codes="any")
    assert bench.until_status(well, drqueue.JOBSTATUS_FINISHED).fdone == 1
    (frame,) = bench.frames(well)
    assert (frame.status, frame.exitcode, frame.requeued) == (FINISHED, 7, 0)


@checks("request_job_frame_waiting")
def request_job_frame_waiting(bench: Bench) -> None:
    """What is over waits again; what runs does so once more after this run; what waits does so already."""
    job, gate = bench.gated_job()
    assert drqueue.request_job_frame_waiting(job.id, 1, C) == 1
    (frame,) = bench.frames(job)
    assert (frame.status, frame.flags) == (RUNNING, drqueue.FF_REQUEUE)
    gate.touch()
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    (frame,) = bench.frames(job)
    assert (frame.status, frame.flags, frame.requeued) == (FINISHED, 0, 1)
    gate.unlink()
    assert drqueue.request_job_frame_waiting(job.id, 1, C) == 1
    (frame,) = bench.until_frames(job, [RUNNING])
    assert frame.requeued == 2
    waiting = bench.waiting_job()
    assert drqueue.request_job_frame_waiting(waiting.id, 1, C) == 1
    assert [(f.status, f.requeued) for f in bench.frames(waiting)] == [(WAITING, 0)]
    _refuses_unknown(drqueue.request_job_frame_waiting, waiting)


@checks("request_job_frame_kill")
def request_job_frame_kill(bench: Bench) -> None:
    """A killed frame waits and is run again, three times; the fourth kill leaves it in error."""
    job = bench.running_job()
    for requeued in (1, 2, 3):
        since = bench.frames(job)[0].start_time
        assert drqueue.request_job_frame_kill(job.id, 1, C) == 1
        bench.until_computer("it runs again", lambda _, n=requeued: bench.frames(job)[0].requeued == n)
        (frame,) = bench.until_frames(job, [RUNNING], loaded=True)
        assert frame.start_time >= since
    assert drqueue.request_job_frame_kill(job.id, 1, C) == 1
    found = bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert (found.ffailed, bench.frames(job)[0].status, bench.frames(job)[0].requeued) == (1, ERROR, 3)
    waiting = bench.waiting_job()
    assert drqueue.request_job_frame_kill(waiting.id, 1, C) == 1
    assert [(f.status, f.requeued) for f in bench.frames(waiting)] == [(WAITING, 0)]
    _refuses_unknown(drqueue.request_job_frame_kill, waiting)


@checks("request_job_frame_finish")
def request_job_frame_finish(bench: Bench) -> None:
    """Waiting and running ones; what they would still have said is ignored."""
    job = bench.running_job(1, 2, nmaxcpus=1)
    for number in (2, 1):
        assert drqueue.request_job_frame_finish(job.id, number, C) == 1
        assert bench.frames(job)[number - 1].status == FINISHED
    found = bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert (found.fdone, found.nprocs) == (2, 0)
    assert [frame.exitcode for frame in bench.frames(job)] == [0, 0]
    _refuses_unknown(drqueue.request_job_frame_finish, job)


@checks("request_job_frame_kill_finish")
def request_job_frame_kill_finish(bench: Bench) -> None:
    """Only what runs; it is killed."""
    job = bench.running_job(1, 2, nmaxcpus=1)
    assert drqueue.request_job_frame_kill_finish(job.id, 2, C) == 1
    assert [frame.status for frame in bench.frames(job)] == [RUNNING, WAITING]
    assert drqueue.request_job_stop(job.id, C) == 1
    assert drqueue.request_job_frame_kill_finish(job.id, 1, C) == 1
    assert [frame.status for frame in bench.frames(job)] == [FINISHED, WAITING]
    for name in ("s1", "s2"):
        bench.until_computer("no task", lambda computer: computer.status.ntasks == 0, name)
    _refuses_unknown(drqueue.request_job_frame_kill_finish, job)


@checks("request_job_frame_reset_requeued")
def request_job_frame_reset_requeued(bench: Bench) -> None:
    job = bench.job("exit 1")
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert bench.frames(job)[0].requeued == 3
    assert drqueue.request_job_frame_reset_requeued(job.id, 1, C) == 1
    assert [(f.status, f.requeued) for f in bench.frames(job)] == [(ERROR, 0)]
    _refuses_unknown(drqueue.request_job_frame_reset_requeued, job)


def _refuses_unknown(request: Callable[[int, int, int], int], job: drqueue.job) -> None:
    before = [frame.status for frame in job.request_frame_list(C)]
    assert request(job.id, job.frame_end + 1, C) == 0
    assert request(UNKNOWN, 1, C) == 0
    assert drqueue.last_error().startswith("Structure (job,computer,task...) not registered")
    assert [frame.status for frame in job.request_frame_list(C)] == before


# -- methods of job ---------------------------------------------------------------------------------------


@checks("job.send_to_queue")
def job_send_to_queue(bench: Bench) -> None:
    job = bench.unsent(pool="nowhere")
    assert job.send_to_queue() == 1
    assert bench.fresh(job).name == "check"
    assert job.status == drqueue.JOBSTATUS_WAITING
    second = bench.unsent(pool="nowhere")
    assert second.send_to_queue() == 1
    assert second.id == job.id + 1
    for name in ("name", "cmd"):
        empty = bench.unsent()
        setattr(empty, name, "")
        with pytest.raises(OSError, match=r"^Information not complete\.$"):
            empty.send_to_queue()
    with pytest.raises(OSError, match=r"^Information not complete\. The range from 2 to 1 "):
        bench.unsent(start=2, end=1).send_to_queue()


@checks("job.update")
def job_update(bench: Bench) -> None:
    """All fields are refreshed; a job that is gone raises."""
    job = bench.unsent(pool="nowhere", end=3)
    job.environment_variable_add("KEPT", "1")
    job.send_to_queue()
    drqueue.request_job_priority_update(job.id, 7, C)
    drqueue.request_job_frame_finish(job.id, 2, C)
    drqueue.request_job_block_host_by_name(job.id, "s1", C)
    assert job.priority == 500
    job.environment_variable_add("LOCAL", "1")
    limits = job.limits
    assert job.update(C) == 1
    assert (job.priority, job.used, job.fleft, job.fdone, job.nblocked) == (7, 1, 2, 1, 1)
    assert [each.name for each in job.envvars.variables.ptr] == ["KEPT"]
    assert job.limits is limits
    assert limits.pool == "nowhere"
    job.request_delete(C)
    with pytest.raises(OSError, match=r"^Structure \(job,computer,task...\) not registered"):
        job.update(C)
    assert job.priority == 7


@checks("job.request_frame_list")
def job_request_frame_list(bench: Bench) -> None:
    """One for each unit, in order of the index; [] for an empty range, without a request."""
    job = bench.waiting_job(1, 10, frame_step=3, block_size=2)
    drqueue.request_job_frame_finish(job.id, 7, C)
    found = job.request_frame_list(C)
    assert [(type(frame), frame.status) for frame in found] == [
        (drqueue.frame_info, WAITING),
        (drqueue.frame_info, FINISHED),
    ]
    job.frame_end = 0
    assert job.request_frame_list(C) == []
    job.frame_end, job.id = 10, UNKNOWN
    with pytest.raises(OSError, match="not registered"):
        job.request_frame_list(C)


@checks("get_job_frame_list")
def get_job_frame_list(bench: Bench) -> None:
    job = bench.waiting_job(1, 10, frame_step=3, block_size=2)
    drqueue.request_job_frame_finish(job.id, 7, C)
    found = drqueue.get_job_frame_list(job, C)
    assert {number: frame.status for number, frame in found.items()} == {1: WAITING, 7: FINISHED}
    job.id = UNKNOWN
    with pytest.raises(OSError, match="not registered"):
        drqueue.get_job_frame_list(job, C)


@checks("job.request_stop")
def job_request_stop(bench: Bench) -> None:
    """The object is not refreshed."""
    job = bench.waiting_job()
    assert job.request_stop(C) == 1
    assert job.status == drqueue.JOBSTATUS_WAITING
    assert bench.fresh(job).status == drqueue.JOBSTATUS_STOPPED
    _raises_for_unknown("request_stop")


@checks("job.request_hard_stop")
def job_request_hard_stop(bench: Bench) -> None:
    job = bench.running_job(1, 2)
    assert job.request_hard_stop(C) == 1
    bench.until_frames(job, [WAITING] * 2)
    assert bench.fresh(job).status == drqueue.JOBSTATUS_STOPPED
    _raises_for_unknown("request_hard_stop")


@checks("job.request_continue")
def job_request_continue(bench: Bench) -> None:
    job = bench.waiting_job()
    job.request_stop(C)
    assert job.request_continue(C) == 1
    assert bench.fresh(job).status == drqueue.JOBSTATUS_WAITING
    _raises_for_unknown("request_continue")


@checks("job.request_rerun")
def job_request_rerun(bench: Bench) -> None:
    job = bench.waiting_job(1, 2)
    drqueue.request_job_frame_finish(job.id, 1, C)
    assert job.request_rerun(C) == 1
    assert [frame.status for frame in bench.frames(job)] == [WAITING] * 2
    _raises_for_unknown("request_rerun")


@checks("job.request_delete")
def job_request_delete(bench: Bench) -> None:
    job = bench.running_job()
    assert job.request_delete(C) == 1
    assert drqueue.request_job_list(C) == []
    with pytest.raises(OSError, match="not registered"):
        job.request_delete(C)
    _raises_for_unknown("request_delete")


def _raises_for_unknown(method: str) -> None:
    job = drqueue.job()
    job.id = UNKNOWN
    with pytest.raises(OSError, match=r"^Structure \(job,computer,task...\) not registered"):
        getattr(job, method)(C)


@checks("job.job_frame_index_to_number")
def job_frame_index_to_number() -> None:
    job = drqueue.job()
    job.frame_start, job.frame_end, job.frame_step, job.block_size = 1, 10, 3, 2
    assert [job.job_frame_index_to_number(index) for index in (0, 1)] == [1, 7]
    for index in (-1, 2):
        with pytest.raises(IndexError, match=r"^frame index out of range$"):
            job.job_frame_index_to_number(index)
    with pytest.raises(TypeError):
        job.job_frame_index_to_number("0")


@checks("job.environment_variable_add")
@checks("job.environment_variable_delete")
@checks("job.environment_variable_find")
def job_environment_variables(bench: Bench) -> None:
    """Added, replaced, deleted, found; and the frame's command has what was sent."""
    job = bench.unsent('test "$SHOT" = "12 b" && test -z "$GONE"')
    assert job.environment_variable_add("SHOT", "11") == 1
    assert job.environment_variable_add("SHOT", "12 b") == 1
    assert job.environment_variable_add("GONE", "x") == 1
    assert (job.environment_variable_find("SHOT"), job.envvars.nvariables) == ("12 b", 2)
    assert job.environment_variable_delete("GONE") == 1
    assert job.environment_variable_delete("GONE") == 1
    with pytest.raises(IndexError, match=r"^No such variable$"):
        job.environment_variable_find("GONE")
    job.send_to_queue()
    assert bench.until_status(job, drqueue.JOBSTATUS_FINISHED).fdone == 1


@checks("last_error")
def last_error(bench: Bench) -> None:
    """The original's text, and what more is known; "No error" after what went well."""
    job = bench.waiting_job()
    assert drqueue.last_error() == "No error"
    assert drqueue.request_job_stop(UNKNOWN, C) == 0
    assert drqueue.last_error().startswith("Structure (job,computer,task...) not registered: ")
    assert drqueue.request_job_stop(job.id, C) == 1
    assert drqueue.last_error() == "No error"
