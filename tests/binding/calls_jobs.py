"""Checks of the requests about whole jobs: what they return, and what a fresh record then says."""

import time

import pytest

import drqueue
from tests.binding.checks import UNKNOWN, Bench, C, checks
from tests.e2e.helpers import wait_until

WAITING, RUNNING = drqueue.FS_WAITING, drqueue.FS_ASSIGNED
FINISHED = drqueue.FS_FINISHED


@checks("register_job")
def register_job(bench: Bench) -> None:
    """The id is set, and every field arrives at the master."""
    job = bench.unsent("echo $GREETING", 3, 11, pool="nowhere", priority=750, frame_step=2, block_size=2)
    job.owner, job.email, job.frame_pad, job.koj = "anna", "anna@example.com", 6, drqueue.KOJ_BLENDER
    job.koji.blender.scene = "/p/a b.blend"
    job.flags = drqueue.JF_MAILNOTIFY | drqueue.JF_MNDIFEMAIL
    job.limits.nmaxcpus, job.limits.nmaxcpuscomputer, job.limits.memory = 5, 2, 64
    job.limits.os_flags = drqueue.OSF_LINUX | drqueue.OSF_OSX
    job.environment_variable_add("GREETING", "hello = you")
    first = bench.waiting_job().id
    assert drqueue.register_job(job) == 1
    assert job.id == first + 1
    found = bench.fresh(job)
    for name in ("name", "cmd", "owner", "email", "priority", "koj", "flags", "autoRequeue"):
        assert getattr(found, name) == getattr(job, name), name
    for name in ("frame_start", "frame_end", "frame_pad", "frame_step", "block_size"):
        assert getattr(found, name) == getattr(job, name), name
    for name in drqueue.job_limits.fields:
        assert getattr(found.limits, name) == getattr(job.limits, name), name
    assert found.koji.blender.scene == "/p/a b.blend"
    assert found.environment_variable_find("GREETING") == "hello = you"
    assert (found.used, found.status, found.nprocs) == (1, drqueue.JOBSTATUS_WAITING, 0)
    assert (found.fleft, found.fdone, found.ffailed) == (3, 0, 0)
    assert abs(found.submit_time - time.time()) < 60
    assert found.avg_frame_time == drqueue.DFLTAVGFTIME
    assert abs(found.est_finish_time - found.submit_time - 3 * drqueue.DFLTAVGFTIME) <= 1


@checks("register_job")
def register_job_refuses(bench: Bench) -> None:
    """What nothing could run: no name, no command, a range that ends before it starts. A step of 0 is 1."""
    for name, value in (("name", ""), ("cmd", ""), ("frame_end", 0), ("block_size", 0)):
        job = bench.unsent()
        setattr(job, name, value)
        assert drqueue.register_job(job) == 0, name
        assert drqueue.last_error().startswith("Information not complete.")
        assert job.id == 0
    step = bench.unsent(start=1, end=3, frame_step=0, pool="nowhere")
    assert drqueue.register_job(step) == 1
    assert bench.fresh(step).frame_step == 1
    assert max(job.id for job in drqueue.request_job_list(C)) == step.id


@checks("register_job")
def register_job_with_flags(bench: Bench) -> None:
    """A job waits for another one, runs only on its systems, is deleted once it is finished."""
    parent = bench.waiting_job()
    child = bench.job(flags=drqueue.JF_JOBDEPEND, dependid=parent.id)
    assert (bench.fresh(child).flags, bench.fresh(child).dependid) == (drqueue.JF_JOBDEPEND, parent.id)
    elsewhere = bench.job(os_flags=drqueue.OSF_IRIX | drqueue.OSF_CYGWIN)
    kept = bench.job("false", flags=drqueue.JF_JOBDELETE, autoRequeue=0)
    bench.until_status(kept, drqueue.JOBSTATUS_FINISHED)
    gone = bench.job(flags=drqueue.JF_JOBDELETE)
    wait_until("it is deleted", lambda: drqueue.request_job_xfer(gone.id, drqueue.job(), C) == 0)
    assert bench.fresh(child).status == bench.fresh(elsewhere).status == drqueue.JOBSTATUS_WAITING
    assert bench.fresh(kept).ffailed == 1
    drqueue.request_job_limits_pool_set(parent.id, drqueue.DEFAULT_POOL, C)
    assert bench.until_status(child, drqueue.JOBSTATUS_FINISHED).fdone == 1
    parent = bench.waiting_job()
    child = bench.job(flags=drqueue.JF_JOBDEPEND, dependid=parent.id)
    assert drqueue.request_job_delete(parent.id, C) == 1
    assert bench.until_status(child, drqueue.JOBSTATUS_FINISHED).ffailed == 1
    assert drqueue.register_job(bench.unsent(flags=drqueue.JF_JOBDEPEND, dependid=UNKNOWN)) == 0
    assert drqueue.register_job(bench.unsent(os_flags=0)) == 0


@checks("request_job_list")
@checks("get_job_list")
def request_job_list(bench: Bench) -> None:
    """[] for none; else all of them, also those that are finished, ids ascending."""
    assert drqueue.request_job_list(C) == drqueue.get_job_list(C) == []
    jobs = [bench.waiting_job(priority=priority) for priority in (1, 1000, 500)]
    over = bench.job()
    bench.until_status(over, drqueue.JOBSTATUS_FINISHED)
    for found in (drqueue.request_job_list(C), drqueue.get_job_list(C)):
        assert [type(job) for job in found] == [drqueue.job] * 4
        assert [job.id for job in found] == [*(job.id for job in jobs), over.id]
        assert [job.priority for job in found] == [1, 1000, 500, 500]
        assert [job.name for job in found] == ["check"] * 4
        assert found[3].status == drqueue.JOBSTATUS_FINISHED


@checks("request_job_xfer")
def request_job_xfer(bench: Bench) -> None:
    job, copy = bench.waiting_job(priority=9), drqueue.job()
    assert drqueue.request_job_xfer(job.id, copy, C) == 1
    assert (copy.id, copy.priority, copy.limits.pool) == (job.id, 9, "nowhere")
    assert drqueue.request_job_xfer(UNKNOWN, copy, C) == 0
    assert drqueue.last_error().startswith("Structure (job,computer,task...) not registered")
    assert copy.id == job.id


@checks("request_job_xferfi")
def request_job_xferfi(bench: Bench) -> None:
    """A list of frames is filled, in order of the index; a single record is a list of one."""
    job = bench.waiting_job(1, 5)
    assert drqueue.request_job_frame_finish(job.id, 2, C) == 1
    frames = [drqueue.frame_info() for _ in range(5)]
    assert drqueue.request_job_xferfi(job.id, frames, 5, C) == 1
    assert [frame.status for frame in frames] == [WAITING, FINISHED, WAITING, WAITING, WAITING]
    few = [drqueue.frame_info() for _ in range(5)]
    assert drqueue.request_job_xferfi(job.id, few, 1, C) == 1
    assert [frame.status for frame in few] == [0] * 5
    assert drqueue.request_job_frame_finish(job.id, 1, C) == 1
    alone = drqueue.frame_info()
    assert drqueue.request_job_xferfi(job.id, alone, 1, C) == 1
    assert alone.status == FINISHED
    assert drqueue.request_job_xferfi(UNKNOWN, frames, 5, C) == 0
    assert drqueue.request_job_xferfi(UNKNOWN, [], 0, C) == 0


@checks("request_job_envvars")
def request_job_envvars(bench: Bench) -> None:
    job = bench.unsent(pool="nowhere")
    job.environment_variable_add("SHOT", "12 b")
    job.environment_variable_add("EMPTY", "")
    assert drqueue.register_job(job) == 1
    found = drqueue.envvars()
    drqueue.envvars_variable_add(found, "OLD", "x")
    assert drqueue.request_job_envvars(job.id, found, C) == 1
    assert {each.name: each.value for each in found.variables.ptr} == {"SHOT": "12 b", "EMPTY": ""}
    assert found.nvariables == 2
    assert drqueue.request_job_envvars(UNKNOWN, found, C) == 0
    assert found.nvariables == 2


@checks("request_job_name")
def request_job_name(bench: Bench) -> None:
    assert drqueue.request_job_name(bench.waiting_job(name="shot 12").id, C) == "shot 12"
    with pytest.raises(OSError, match="not registered"):
        drqueue.request_job_name(UNKNOWN, C)


# -- stop, continue, rerun, delete ------------------------------------------------------------------------


@checks("request_job_stop")
def request_job_stop(bench: Bench) -> None:
    """What runs ends normally; nothing else is started; a finished job stays finished."""
    job, gate = bench.gated_job(1, 6, nmaxcpus=2)
    assert drqueue.request_job_stop(job.id, C) == 1
    found = bench.fresh(job)
    assert (found.status, found.nprocs) == (drqueue.JOBSTATUS_STOPPED, 2)
    gate.touch()
    bench.until_frames(job, [FINISHED, FINISHED, *[WAITING] * 4])
    found = bench.fresh(job)
    assert (found.status, found.nprocs, found.fdone, found.fleft) == (drqueue.JOBSTATUS_STOPPED, 0, 2, 4)
    over = bench.job()
    bench.until_status(over, drqueue.JOBSTATUS_FINISHED)
    assert drqueue.request_job_stop(over.id, C) == 1
    assert bench.fresh(over).status == drqueue.JOBSTATUS_FINISHED
    last, gate = bench.gated_job()
    assert drqueue.request_job_stop(last.id, C) == 1
    gate.touch()
    assert bench.until_status(last, drqueue.JOBSTATUS_FINISHED).fdone == 1
    assert drqueue.request_job_stop(UNKNOWN, C) == 0


@checks("request_job_hstop")
def request_job_hstop(bench: Bench) -> None:
    """What runs is killed and waits again, which counts in `requeued`."""
    job = bench.running_job(1, 3)
    assert drqueue.request_job_hstop(job.id, C) == 1
    frames = bench.until_frames(job, [WAITING] * 3)
    found = bench.fresh(job)
    assert (found.status, found.nprocs, found.fleft) == (drqueue.JOBSTATUS_STOPPED, 0, 3)
    assert [(f.requeued, f.start_time, f.end_time) for f in frames] == [(1, 0, 0)] * 3
    assert drqueue.request_job_hstop(UNKNOWN, C) == 0


@checks("request_job_continue")
def request_job_continue(bench: Bench) -> None:
    """A stopped job waits again, and its frames run; others stay as they are."""
    job = bench.waiting_job(1, 2)
    assert drqueue.request_job_stop(job.id, C) == 1
    assert drqueue.request_job_limits_pool_set(job.id, drqueue.DEFAULT_POOL, C) == 1
    assert bench.fresh(job).status == drqueue.JOBSTATUS_STOPPED
    assert drqueue.request_job_continue(job.id, C) == 1
    assert bench.until_status(job, drqueue.JOBSTATUS_FINISHED).fdone == 2
    assert drqueue.request_job_continue(job.id, C) == 1
    assert bench.fresh(job).status == drqueue.JOBSTATUS_FINISHED
    waiting = bench.waiting_job()
    assert drqueue.request_job_continue(waiting.id, C) == 1
    assert bench.fresh(waiting).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_job_continue(UNKNOWN, C) == 0


@checks("request_job_rerun")
def request_job_rerun(bench: Bench) -> None:
    """Every frame once more, requeued + 1, those that run after they were killed."""
    job, gate = bench.gated_job(1, 2)
    gate.touch()
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    gate.unlink()
    assert drqueue.request_job_rerun(job.id, C) == 1
    frames = bench.until_frames(job, [RUNNING] * 2, loaded=True)
    assert [frame.requeued for frame in frames] == [1, 1]
    assert bench.fresh(job).status == drqueue.JOBSTATUS_ACTIVE
    since = [frame.start_time for frame in frames]
    assert drqueue.request_job_stop(job.id, C) == 1
    assert drqueue.request_job_rerun(job.id, C) == 1
    frames = bench.until_frames(job, [WAITING] * 2)
    assert [frame.start_time for frame in frames] == [0, 0] != since
    assert bench.fresh(job).status == drqueue.JOBSTATUS_STOPPED
    assert drqueue.request_job_rerun(UNKNOWN, C) == 0


@checks("request_job_delete")
def request_job_delete(bench: Bench) -> None:
    """What runs is killed; the job is on no list; its computers have free slots again."""
    job, other = bench.running_job(1, 4), bench.waiting_job()
    assert drqueue.request_job_delete(job.id, C) == 1
    assert [each.id for each in drqueue.request_job_list(C)] == [other.id]
    assert drqueue.request_job_xfer(job.id, drqueue.job(), C) == 0
    for name in ("s1", "s2"):
        bench.until_computer("no task", lambda computer: computer.status.ntasks == 0, name)
    assert drqueue.request_job_delete(job.id, C) == 0
    assert drqueue.request_job_delete(UNKNOWN, C) == 0
    assert bench.job().id == other.id + 1


# -- range, priority, limits ------------------------------------------------------------------------------


@checks("request_job_sesupdate")
def request_job_sesupdate(bench: Bench) -> None:
    """Frames whose number is in both ranges keep their record."""
    job = bench.waiting_job(1, 4)
    assert drqueue.request_job_frame_finish(job.id, 3, C) == 1
    assert drqueue.request_job_sesupdate(job.id, 3, 9, 2, 1, C) == 1
    found = bench.fresh(job)
    assert (found.frame_start, found.frame_end, found.frame_step, found.block_size) == (3, 9, 2, 1)
    assert [frame.status for frame in bench.frames(found)] == [FINISHED, WAITING, WAITING, WAITING]
    assert (found.fleft, found.fdone) == (3, 1)
    assert drqueue.request_job_sesupdate(job.id, 1, 2, 0, 1, C) == 1
    assert (bench.fresh(job).frame_step, bench.fresh(job).fleft) == (1, 2)
    assert drqueue.request_job_sesupdate(job.id, 5, 4, 1, 1, C) == 0
    assert drqueue.request_job_sesupdate(job.id, 1, 2, 1, 0, C) == 0
    assert drqueue.request_job_sesupdate(UNKNOWN, 1, 2, 1, 1, C) == 0
    assert bench.fresh(job).frame_end == 2


@checks("request_job_sesupdate")
def request_job_sesupdate_of_running_frames(bench: Bench) -> None:
    """Those that run outside the new range are killed; the others go on."""
    job = bench.running_job(1, 4)
    where = bench.frames(job)[0].start_time
    assert drqueue.request_job_sesupdate(job.id, 1, 1, 1, 1, C) == 1
    found = bench.fresh(job)
    assert (drqueue.job_nframes(found), found.nprocs) == (1, 1)
    assert bench.frames(found)[0].start_time == where

    def tasks() -> int:
        return sum(computer.status.ntasks for computer in drqueue.request_computer_list(C))

    bench.until_computer("one task in all", lambda _: tasks() == 1)


@checks("request_job_priority_update")
def request_job_priority_update(bench: Bench) -> None:
    job = bench.waiting_job()
    for priority in (0, 1000, 4294967295):
        assert drqueue.request_job_priority_update(job.id, priority, C) == 1
        assert bench.fresh(job).priority == priority
    assert drqueue.request_job_priority_update(UNKNOWN, 1, C) == 0


@checks("request_job_limits_nmaxcpus_set")
def request_job_limits_nmaxcpus_set(bench: Bench) -> None:
    """So many run; those above a lower limit go on; 65535 is no limit."""
    job = bench.running_job(1, 4, nmaxcpus=1)
    assert bench.fresh(job).nprocs == 1
    assert drqueue.request_job_limits_nmaxcpus_set(job.id, 3, C) == 1
    assert bench.fresh(job).limits.nmaxcpus == 3
    bench.until_frames(job, [RUNNING] * 3 + [WAITING])
    assert drqueue.request_job_limits_nmaxcpus_set(job.id, 2, C) == 1
    assert bench.fresh(job).nprocs == 3
    assert drqueue.request_job_limits_nmaxcpus_set(job.id, 65535, C) == 1
    bench.until_frames(job, [RUNNING] * 4)
    assert bench.fresh(job).limits.nmaxcpus == 65535
    assert drqueue.request_job_limits_nmaxcpus_set(UNKNOWN, 3, C) == 0


@checks("request_job_limits_nmaxcpuscomputer_set")
def request_job_limits_nmaxcpuscomputer_set(bench: Bench) -> None:
    job = bench.running_job(1, 4, nmaxcpus=2, nmaxcpuscomputer=1)
    frames = bench.until_frames(job, [RUNNING, RUNNING, WAITING, WAITING])
    assert drqueue.request_job_limits_nmaxcpus_set(job.id, 4, C) == 1
    assert bench.fresh(job).nprocs == 2
    assert frames[0].icomp != frames[1].icomp
    assert drqueue.request_job_limits_nmaxcpuscomputer_set(job.id, 2, C) == 1
    assert bench.fresh(job).limits.nmaxcpuscomputer == 2
    frames = bench.until_frames(job, [RUNNING] * 4)
    assert sorted(frame.icomp for frame in frames) == sorted(2 * [frame.icomp for frame in frames[:2]])
    assert drqueue.request_job_limits_nmaxcpuscomputer_set(job.id, 65535, C) == 1
    assert bench.fresh(job).limits.nmaxcpuscomputer == 65535
    assert drqueue.request_job_limits_nmaxcpuscomputer_set(UNKNOWN, 2, C) == 0


@checks("request_job_limits_memory_set")
def request_job_limits_memory_set(bench: Bench) -> None:
    """A job that no computer is big enough for runs once the limit is gone."""
    job = bench.job(memory=4_000_000_000)
    assert bench.fresh(job).limits.memory == 4_000_000_000
    assert bench.fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_job_limits_memory_set(job.id, 3_000_000_000, C) == 1
    assert bench.fresh(job).limits.memory == 3_000_000_000
    assert bench.fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_job_limits_memory_set(job.id, 0, C) == 1
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert drqueue.request_job_limits_memory_set(UNKNOWN, 0, C) == 0


@checks("request_job_limits_pool_set")
def request_job_limits_pool_set(bench: Bench) -> None:
    job = bench.waiting_job()
    assert drqueue.request_job_limits_pool_set(job.id, "elsewhere", C) == 1
    assert drqueue.request_job_limits_pool_set(job.id, "night shift", C) == 0
    assert "'night shift'" in drqueue.last_error()
    assert bench.fresh(job).limits.pool == "elsewhere"
    assert bench.fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_job_limits_pool_set(job.id, drqueue.DEFAULT_POOL, C) == 1
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert drqueue.request_job_limits_pool_set(UNKNOWN, "elsewhere", C) == 0


# -- blocked hosts ----------------------------------------------------------------------------------------


@checks("request_job_add_blocked_host")
@checks("request_job_delete_blocked_host")
@checks("request_job_list_blocked_host")
def blocked_hosts_by_id(bench: Bench) -> None:
    """Added by the computer's id, listed by name, struck off by position."""
    job = bench.waiting_job()
    one, two = (bench.computer(name).hwinfo.id for name in ("s1", "s2"))
    assert drqueue.request_job_list_blocked_host(job.id, C) == []
    assert drqueue.request_job_add_blocked_host(job.id, two, C) == 1
    assert drqueue.request_job_add_blocked_host(job.id, one, C) == 1
    assert _blocked(job) == ["s2", "s1"]
    assert bench.fresh(job).nblocked == 2
    assert drqueue.request_job_limits_pool_set(job.id, drqueue.DEFAULT_POOL, C) == 1
    assert bench.fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_job_delete_blocked_host(job.id, 2, C) == 0
    assert drqueue.request_job_delete_blocked_host(job.id, 0, C) == 1
    assert _blocked(job) == ["s1"]
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert [frame.icomp for frame in bench.frames(job)] == [two]
    assert drqueue.request_job_delete_blocked_host(job.id, 0, C) == 1
    assert _blocked(job) == []
    assert drqueue.request_job_add_blocked_host(job.id, UNKNOWN, C) == 0
    assert drqueue.request_job_add_blocked_host(UNKNOWN, one, C) == 0
    assert drqueue.request_job_delete_blocked_host(UNKNOWN, 0, C) == 0
    with pytest.raises(OSError, match="not registered"):
        drqueue.request_job_list_blocked_host(UNKNOWN, C)


@checks("request_job_block_host_by_name")
@checks("request_job_unblock_host_by_name")
def blocked_hosts_by_name(bench: Bench) -> None:
    """0 for a computer that nobody knows; the last one can be unblocked."""
    job = bench.waiting_job()
    for name in ("s1", "s2"):
        assert drqueue.request_job_block_host_by_name(job.id, name, C) == 1
    assert drqueue.request_job_block_host_by_name(job.id, "not yet bought", C) == 0
    assert "'not yet bought'" in drqueue.last_error()
    assert _blocked(job) == ["s1", "s2"]
    assert drqueue.request_job_limits_pool_set(job.id, drqueue.DEFAULT_POOL, C) == 1
    assert bench.fresh(job).status == drqueue.JOBSTATUS_WAITING
    assert drqueue.request_job_unblock_host_by_name(job.id, "s3", C) == 0
    assert drqueue.request_job_unblock_host_by_name(job.id, "s1", C) == 1
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert [frame.icomp for frame in bench.frames(job)] == [bench.computer("s1").hwinfo.id]
    assert drqueue.request_job_unblock_host_by_name(job.id, "s2", C) == 1
    assert drqueue.request_job_unblock_host_by_name(job.id, "s2", C) == 0
    assert _blocked(job) == []
    assert drqueue.request_job_block_host_by_name(job.id, "", C) == 0
    assert drqueue.request_job_block_host_by_name(UNKNOWN, "s1", C) == 0
    assert drqueue.request_job_unblock_host_by_name(UNKNOWN, "s1", C) == 0


def _blocked(job: drqueue.job) -> list[str]:
    found = drqueue.request_job_list_blocked_host(job.id, C)
    assert all(type(host) is drqueue.blocked_host for host in found)
    return [host.name for host in found]
