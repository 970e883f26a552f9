"""The original's functions about computers and tasks in this process; none of them asks the farm.

Rules of this file: names, arguments and results are the original's; its last argument of some functions, a
semaphore, is taken and ignored. What measures processes means those of this machine.
"""

from collections.abc import Iterable

import psutil

from drqueue.client.binding import constants as c
from drqueue.client.binding.computer_structures import (
    computer,
    computer_hwinfo,
    computer_limits,
    computer_status,
    task,
)
from drqueue.client.binding.fields import frame_number, put, reset, u32
from drqueue.client.binding.strings import (
    archstring,
    bitsstring,
    osstring,
    proctypestring,
    task_status_string,
)
from drqueue.client.binding.structures import job
from drqueue.client.binding.this_machine import get_loadavg


def computer_init(computer: computer) -> None:
    """Give a computer's record the values of a new one."""
    reset(computer)


def computer_status_init(status: computer_status) -> None:
    """No load, no tasks."""
    reset(status)


def computer_limits_init(limits: computer_limits) -> None:
    """The limits of a new slave, but for those that its processors decide (`computer_limits_cpu_init`)."""
    reset(limits)
    limits.enabled = 1
    limits.nmaxcpus = 1
    limits.maxfreeloadcpu = c.MAXLOADAVG
    limits.autoenable.h = c.AE_HOUR
    limits.autoenable.m = c.AE_MIN
    limits.fill_pools([c.DEFAULT_POOL])


def computer_limits_cpu_init(computer: computer) -> None:
    """Limits by the number of processors: as many tasks, and a load of 1.6 for each."""
    computer.limits.nmaxcpus = computer.hwinfo.ncpus
    computer.limits.maxfreeloadcpu = min(65535, c.MAXLOADAVG * computer.hwinfo.ncpus)


def computer_ntasks(computer: computer) -> int:
    """How many slots are used, by the local record."""
    return sum(1 for each in computer.status.task if each.used)


def computer_nrunning(computer: computer) -> int:
    """How many tasks load or run, by the local record."""
    return sum(task_is_running(each) for each in computer.status.task)


def computer_nrunning_job(computer: computer, ijob: int) -> int:
    """How many tasks of one job load or run, by the local record."""
    u32(ijob, "ijob")
    return sum(task_is_running(each) for each in computer.status.task if each.ijob == ijob)


def task_init(task: task) -> None:
    """Make it a free slot."""
    reset(task)


def task_init_all(tasks: Iterable[task]) -> None:
    """Make them all free slots."""
    for each in tasks:
        reset(each)


def task_is_running(task: task) -> int:
    """1 where a slot is used by a task that loads or runs, else 0."""
    return int(bool(task.used) and task.status in (c.TASKSTATUS_LOADING, c.TASKSTATUS_RUNNING))


def task_set_to_job_frame(task: task, job: job, frame: int) -> None:
    """Have a task name the frame of that number of a job; its slot and its process stay as they are."""
    # Put, not set: a job of a farm may have frames that the original's fields could not hold.
    put(task, "frame", frame_number(frame, "frame"))
    put(task, "jobname", job.name)
    put(task, "jobcmd", job.cmd)
    put(task, "ijob", job.id)
    for name in ("owner", "frame_start", "frame_end", "frame_pad", "frame_step", "block_size"):
        put(task, name, getattr(job, name))


def check_tasks(status: computer_status, semid: int = -1) -> None:
    """Free the slots whose process is gone from this machine, and count the others."""
    for each in status.task:
        if each.used and each.status == c.TASKSTATUS_RUNNING and not psutil.pid_exists(each.pid):
            reset(each)
    status.ntasks = sum(1 for each in status.task if each.used)
    status.nrunning = sum(task_is_running(each) for each in status.task)


def get_computer_status(status: computer_status, semid: int = -1) -> None:
    """Measure this machine's load, and check its tasks."""
    status.loadavg = get_loadavg()
    check_tasks(status)


def task_report(task: task) -> None:
    """Print all that a task says."""
    print(
        f"Task {task.itask}: {task_status_string(task.status) if task.used else 'free'}\n"
        f"Job {task.ijob}: {task.jobname}, of {task.owner}\n"
        f"Command: {task.jobcmd}\n"
        f"Frame: {task.frame} of {task.frame_start} to {task.frame_end} step {task.frame_step}, "
        f"blocks of {task.block_size}\n"
        f"Process: {task.pid}, exit status {task.exitstatus:#x}"
    )


def report_hwinfo(hwinfo: computer_hwinfo) -> None:
    """Print all that a computer's hardware record says."""
    print(
        f"Name: {hwinfo.name}\n"
        f"Address: {hwinfo.address}\n"
        f"Id: {hwinfo.id}\n"
        f"Architecture: {archstring(hwinfo.arch)} {bitsstring(hwinfo.nnbits)}\n"
        f"Operating system: {osstring(hwinfo.os)}\n"
        f"Processor: {proctypestring(hwinfo.proctype)}\n"
        f"Speed: {hwinfo.procspeed} MHz\n"
        f"Processors: {hwinfo.ncpus}\n"
        f"Speed index: {hwinfo.speedindex}\n"
        f"Memory: {hwinfo.memory} MB"
    )


def report_computer_status(status: computer_status) -> None:
    """Print a computer's load and its tasks."""
    print(
        f"Load: {', '.join(f'{load / 100:.2f}' for load in status.loadavg)}\n"
        f"Tasks: {status.ntasks}, {status.nrunning} of them running"
    )
    for each in status.task:
        if each.used:
            task_report(each)
