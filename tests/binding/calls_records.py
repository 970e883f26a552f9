"""Checks of the helper functions about computers' and tasks' records in this process."""

import os
import subprocess

import drqueue
from tests.binding.calls_helpers import printed
from tests.binding.checks import checks

LOADING, RUNNING = drqueue.TASKSTATUS_LOADING, drqueue.TASKSTATUS_RUNNING
OVER = drqueue.TASKSTATUS_FINISHED


def a_task(task: drqueue.task, status: int, ijob: int = 1, pid: int = 0) -> drqueue.task:
    task.used, task.status, task.ijob, task.pid = 1, status, ijob, pid
    return task


def a_computer() -> drqueue.computer:
    """Four slots used: one loads, two run, one is over."""
    computer = drqueue.computer()
    for slot, status, ijob in ((0, LOADING, 1), (1, RUNNING, 1), (5, RUNNING, 2), (31, OVER, 1)):
        a_task(computer.status.get_task(slot), status, ijob)
    return computer


@checks("computer_ntasks")
@checks("computer_nrunning")
@checks("computer_nrunning_job")
def counts_of_tasks() -> None:
    computer = a_computer()
    assert (drqueue.computer_ntasks(computer), drqueue.computer_nrunning(computer)) == (4, 3)
    assert [drqueue.computer_nrunning_job(computer, ijob) for ijob in (0, 1, 2)] == [0, 2, 1]
    assert drqueue.computer_ntasks(drqueue.computer()) == drqueue.computer_nrunning(drqueue.computer()) == 0


@checks("computer_init")
@checks("computer_status_init")
def computer_init() -> None:
    computer = a_computer()
    computer.used, computer.hwinfo.name, computer.limits.nmaxcpus = 1, "s1", 2
    computer.status.loadavg = (1, 2, 3)
    drqueue.computer_status_init(computer.status)
    assert (drqueue.computer_ntasks(computer), tuple(computer.status.loadavg)) == (0, (0, 0, 0))
    assert computer.hwinfo.name == "s1"
    drqueue.computer_init(computer)
    assert (computer.used, computer.hwinfo.name, computer.limits.nmaxcpus) == (0, "", 0)


@checks("computer_limits_init")
@checks("computer_limits_cpu_init")
def computer_limits_init() -> None:
    computer = drqueue.computer()
    drqueue.computer_limits_init(computer.limits)
    limits = computer.limits
    assert (limits.enabled, limits.maxfreeloadcpu) == (1, drqueue.MAXLOADAVG)
    assert (limits.autoenable.h, limits.autoenable.m) == (drqueue.AE_HOUR, drqueue.AE_MIN)
    assert [pool.name for pool in computer.list_pools()] == [drqueue.DEFAULT_POOL]
    computer.hwinfo.ncpus = 8
    drqueue.computer_limits_cpu_init(computer)
    assert (limits.nmaxcpus, limits.maxfreeloadcpu) == (8, 8 * drqueue.MAXLOADAVG)


@checks("task_init")
@checks("task_init_all")
@checks("task_is_running")
def tasks() -> None:
    found = [a_task(drqueue.task(), status) for status in (LOADING, RUNNING, OVER)]
    found.append(drqueue.task())
    assert [drqueue.task_is_running(task) for task in found] == [1, 1, 0, 0]
    drqueue.task_init(found[0])
    assert (found[0].used, found[0].ijob, found[0].jobname) == (0, 0, "EMPTY")
    drqueue.task_init_all(found)
    assert [task.used for task in found] == [0] * 4
    assert (found[1].jobcmd, found[1].owner, found[1].status) == ("NONE", "NOBODY", LOADING)


@checks("task_set_to_job_frame")
@checks("task_environment_set")
@checks("task_report")
def task_of_a_job() -> None:
    job, task = drqueue.job(), drqueue.task()
    job.id, job.name, job.cmd, job.owner = 12, "shot", "render", "anna"
    job.frame_start, job.frame_end, job.frame_step, job.block_size, job.frame_pad = 1, 10, 3, 2, 5
    task.itask, task.icomp, task.pid = 3, 1, 99
    drqueue.task_set_to_job_frame(task, job, 7)
    assert (task.ijob, task.jobname, task.jobcmd, task.owner, task.frame) == (12, "shot", "render", "anna", 7)
    for name in ("frame_start", "frame_end", "frame_step", "block_size", "frame_pad"):
        assert getattr(task, name) == getattr(job, name), name
    assert (task.itask, task.icomp, task.pid) == (3, 1, 99)
    drqueue.task_environment_set(task)
    wanted = {
        "FRAME": "7", "PADFRAME": "00007", "PADFRAMES": "00007 00010", "STARTFRAME": "1", "ENDFRAME": "10",
        "STEPFRAME": "3", "BLOCKSIZE": "2", "OWNER": "anna", "JOBNAME": "shot", "JOBID": "12", "COMPID": "1",
    }  # fmt: skip
    assert {name: os.environ.get(f"DRQUEUE_{name}") for name in wanted} == wanted
    said = printed(lambda: drqueue.task_report(task))
    for part in ("shot", "anna", "render", "7", "99"):
        assert part in said, part


@checks("check_tasks")
@checks("get_computer_status")
@checks("report_computer_status")
def status_of_this_machine() -> None:
    """The slots of processes that are gone are free; what loads has none yet."""
    status = drqueue.computer_status()
    gone = subprocess.Popen(["true"])
    gone.wait()
    for slot, state, pid in ((0, RUNNING, os.getpid()), (1, RUNNING, gone.pid), (2, LOADING, 0)):
        a_task(status.get_task(slot), state, pid=pid)
    drqueue.check_tasks(status, 0)
    assert [status.get_task(slot).used for slot in range(3)] == [1, 0, 1]
    assert (status.ntasks, status.nrunning) == (2, 2)
    drqueue.get_computer_status(status, 0)
    for load, now in zip(status.loadavg, drqueue.get_loadavg(), strict=True):
        assert abs(load - now) < 500
    assert status.ntasks == 2
    said = printed(lambda: drqueue.report_computer_status(status))
    assert f"{os.getpid()}" in said
    assert "2" in said
