"""The original's functions about a job object in this process; none of them asks the farm.

Rules of this file: names, arguments and results are the original's. Reports are printed for people to read.
"""

import time
from typing import Protocol

from drqueue.client.binding import constants as c
from drqueue.client.binding.fields import copy_fields, reset, text
from drqueue.client.binding.koji import MEMBERS
from drqueue.client.binding.numbering import job_nframes
from drqueue.client.binding.strings import job_koj_string, job_status_string, time_str
from drqueue.client.binding.structures import blocked_host, envvar, envvars, frame_info, job, job_limits


def job_init(job: job) -> None:
    """Give a job the values of a new one."""
    reset(job)


def job_copy(src: job, dst: job) -> int:
    """Make `dst` equal to `src`, its lists included; nothing is shared. 1."""
    copy_fields(src, dst)
    return 1


def job_delete(job: job) -> None:
    """Empty a job object; the farm's job stays (`request_job_delete`)."""
    reset(job)


def job_limits_init(limits: job_limits | job) -> None:
    """Set no limits, the default pool; takes a job, too, as it did in 2006."""
    reset(limits.limits if isinstance(limits, job) else limits)


def job_frame_info_init(fi: frame_info) -> None:
    """Give a frame's record the values of a new one."""
    reset(fi)


def job_stop(job: job) -> None:
    """Have this object say that the job is stopped, where it says that it waits or runs."""
    if job.status in (c.JOBSTATUS_WAITING, c.JOBSTATUS_ACTIVE):
        job.status = c.JOBSTATUS_STOPPED


def job_continue(job: job) -> None:
    """Have this object say that the job waits, where it says that it is stopped or finished."""
    if job.status in (c.JOBSTATUS_STOPPED, c.JOBSTATUS_FINISHED):
        job.status = c.JOBSTATUS_WAITING


def job_report(job: job) -> None:
    """Print all that a job object says."""
    lines = [
        f"Job {job.id}: {job.name}",
        f"Status: {job_status_string(job.status)}",
        f"Kind: {job_koj_string(job)}",
        f"Owner: {job.owner}",
        f"Email: {job.email}",
        f"Command: {job.cmd}",
        f"Priority: {job.priority}",
        f"Frames: {job.frame_start} to {job.frame_end} step {job.frame_step}, blocks of {job.block_size}",
        f"Blocks: {job_nframes(job)} ({job.fleft} left, {job.fdone} done, {job.ffailed} failed)",
        f"Running: {job.nprocs}",
        f"Submitted: {_date(job.submit_time)}",
        f"Average time: {time_str(max(0, job.avg_frame_time))}",
        f"Estimated end: {_date(job.est_finish_time)}",
        f"Pool: {job.limits.pool}",
        f"Limits: {job.limits.nmaxcpus} in all, {job.limits.nmaxcpuscomputer} on one computer",
        f"Needs: {job.limits.memory} MB, systems {job.limits.os_flags:#06x}",
        f"Flags: {job.flags}",
    ]
    if job.flags & c.JF_JOBDEPEND:
        lines.append(f"Depends on: {job.dependid}")
    member = MEMBERS.get(job.koj)
    info = getattr(job.koji, member) if member else None
    if info is not None:
        lines += [f"{member}.{name}: {getattr(info, name)}" for name in info.fields if getattr(info, name)]
    lines += [f"Variable: {each.name}={each.value}" for each in job.envvars.variables.ptr]
    lines += [f"Blocked: {each.name}" for each in job.blocked_host.ptr]
    print("\n".join(lines))


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "never"


def job_block_host_add_by_name(job: job, name: str) -> int:
    """Add to the local list of blocked computers; 1, or 0 where it is there already."""
    name = text(name, "name")
    if job_block_host_exists_by_name(job, name):
        return 0
    host = blocked_host()
    host.name = name
    job.blocked_host.ptr.append(host)
    return 1


def job_block_host_remove_by_name(job: job, name: str) -> int:
    """Take off the local list of blocked computers; 1, or 0 where it is not there."""
    if not job_block_host_exists_by_name(job, name):
        return 0
    job.blocked_host.ptr[:] = [each for each in job.blocked_host.ptr if each.name != name]
    return 1


def job_block_host_exists_by_name(job: job, name: str) -> int:
    """1 where a computer is on the local list of blocked ones, else 0."""
    return int(any(each.name == name for each in job.blocked_host.ptr))


def envvars_init(envvars: envvars) -> int:
    """Make it a new list of variables; 1."""
    reset(envvars)
    return 1


def envvars_empty(envvars: envvars) -> int:
    """Remove all variables; 1."""
    envvars.variables.ptr.clear()
    return 1


def envvars_free(envvars: envvars) -> int:
    """The same; 1."""
    return envvars_empty(envvars)


def envvars_variable_add(envvars: envvars, name: str, value: str) -> int:
    """Add a variable, or give it another value; 1."""
    envvars.add(name, value)
    return 1


def envvars_variable_delete(envvars: envvars, name: str) -> int:
    """Remove a variable; 1, also where there is none of that name."""
    envvars.delete(name)
    return 1


def envvars_variable_find(envvars: envvars, name: str) -> envvar | None:
    """The variable of that name, or None."""
    return envvars.find(name)


class _Placed(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def pri(self) -> int: ...
    @property
    def submit_time(self) -> int: ...


def priority_job_compare(a: "job | _Placed", b: "job | _Placed") -> int:
    """-1 where `a` comes before `b`, 1 where after, 0 where they are one; for `functools.cmp_to_key`.

    Higher priorities first, then those submitted earlier, then lower ids. Takes `tpol` or `job` objects.
    """
    one, other = _rank(a), _rank(b)
    return (one > other) - (one < other)


def _rank(each: "job | _Placed") -> tuple[int, int, int]:
    if isinstance(each, job):
        return -each.priority, each.submit_time, each.id
    return -each.pri, each.submit_time, each.index
