"""Checks of the requests about computers, of those that go to a slave itself, and of computers' methods."""

import logging
import os
import subprocess
import sys
import time

import pytest

import drqueue
from tests.binding.checks import UNKNOWN, Bench, C, checks
from tests.e2e.helpers import wait_until

NOBODY = "nobody"


@checks("request_computer_list")
@checks("get_computer_list")
def request_computer_list(bench: Bench) -> None:
    """Ids ascending from 0: the place in the list is the id."""
    for found in (drqueue.request_computer_list(C), drqueue.get_computer_list(C)):
        assert [type(each) for each in found] == [drqueue.computer] * 2
        assert [each.hwinfo.id for each in found] == [0, 1]
        assert {each.hwinfo.name for each in found} == {"s1", "s2"}
    _is_this_machine(found[0])
    job = bench.running_job(7, 7)
    (frame,) = job.request_frame_list(C)
    busy = drqueue.request_computer_list(C)[frame.icomp]
    assert (busy.status.ntasks, busy.status.nrunning) == (1, 1)
    task = busy.status.get_task(frame.itask)
    assert (task.used, task.ijob, task.frame, task.icomp) == (1, job.id, 7, frame.icomp)
    assert (task.jobname, task.jobcmd, task.owner) == ("check", job.cmd, job.owner)
    assert task.status == drqueue.TASKSTATUS_RUNNING
    assert task.pid > 1
    assert abs(task.start_loading_time - time.time()) < 60


def _is_this_machine(computer: drqueue.computer) -> None:
    here = drqueue.computer_hwinfo()
    drqueue.get_hwinfo(here)
    for name in ("arch", "os", "proctype", "nnbits"):
        assert getattr(computer.hwinfo, name) == getattr(here, name), name
    assert computer.hwinfo.speedindex == drqueue.get_speedindex(computer.hwinfo)
    assert computer.hwinfo.ncpus == 2
    assert 0 < computer.hwinfo.memory <= here.memory
    assert (computer.used, computer.limits.enabled, computer.limits.nmaxcpus) == (1, 1, 2)
    assert [pool.name for pool in computer.list_pools()] == [drqueue.DEFAULT_POOL]
    assert abs(computer.lastconn - time.time()) < 60
    assert all(0 <= load < 65535 for load in computer.status.loadavg)


@checks("request_comp_xfer")
def request_comp_xfer(bench: Bench) -> None:
    found = drqueue.computer()
    for each in drqueue.request_computer_list(C):
        assert drqueue.request_comp_xfer(each.hwinfo.id, found, C) == 1
        assert (found.hwinfo.id, found.hwinfo.name) == (each.hwinfo.id, each.hwinfo.name)
    last = found.hwinfo.name
    assert drqueue.request_comp_xfer(UNKNOWN, found, C) == 0
    assert found.hwinfo.name == last
    _is_this_machine(found)


@checks("request_slavexit")
def request_slavexit(bench: Bench) -> None:
    """A computer that is there stays on the table; one that is gone leaves it."""
    assert drqueue.request_slavexit(0, C) == 0
    assert drqueue.last_error().startswith("Received request answer value not appropiate")
    assert drqueue.request_slavexit(UNKNOWN, C) == 0
    words = ("--name", "s9", "--cores", "1", "--state-dir", bench.folder / "s9")
    argv = [sys.executable, "-m", "drqueue.slave", "--master", os.environ["DRQUEUE_MASTER"], *map(str, words)]
    with open(bench.folder / "s9.log", "wb") as log, subprocess.Popen(argv, stderr=log) as slave:

        def linked() -> int | None:
            assert slave.poll() is None
            found = drqueue.request_computer_list(C)
            return next((each.hwinfo.id for each in found if each.hwinfo.name == "s9"), None)

        try:
            icomp = wait_until("s9 is linked", linked)
        finally:
            slave.terminate()
    wait_until("it is gone", lambda: drqueue.request_slavexit(icomp, C) == 1)
    assert [each.hwinfo.id for each in drqueue.request_computer_list(C)] == [0, 1]
    assert drqueue.request_slavexit(icomp, C) == 0


# -- to a slave, by name and by address -------------------------------------------------------------------


def _names(bench: Bench) -> tuple[str, str]:
    """A slave's name and its address."""
    return "s1", bench.computer("s1").hwinfo.address


@checks("request_slave_killtask")
def request_slave_killtask(bench: Bench) -> None:
    """The task of a slot in use; an idle slave is left alone."""
    job = bench.running_job()
    (frame,) = bench.frames(job)
    host = drqueue.request_computer_list(C)[frame.icomp].hwinfo.name
    assert drqueue.request_slave_killtask(host, 31, C) == 0
    assert drqueue.request_slave_killtask(host, frame.itask, C) == 1
    bench.until_computer("killed", lambda _: bench.frames(job)[0].requeued == 1)
    job.request_delete(C)
    for name in ("s1", "s2"):
        bench.until_computer("idle", lambda computer: computer.status.ntasks == 0, name)
        assert drqueue.request_slave_killtask(name, 0, C) == 0
    assert drqueue.request_slave_killtask(NOBODY, 0, C) == 0


@checks("request_slave_limits_enabled_set")
def request_slave_limits_enabled_set(bench: Bench) -> None:
    for host in _names(bench):
        for enabled in (0, 1):
            assert drqueue.request_slave_limits_enabled_set(host, enabled, C) == 1
            bench.until_computer("told", lambda c, wanted=enabled: c.limits.enabled == wanted)
    assert bench.computer("s2").limits.enabled == 1
    assert drqueue.request_slave_limits_enabled_set(NOBODY, 0, C) == 0
    assert drqueue.request_slave_limits_enabled_set("", 0, C) == 0


@checks("request_slave_limits_nmaxcpus_set")
def request_slave_limits_nmaxcpus_set(bench: Bench) -> None:
    """No more than there are."""
    for host in _names(bench):
        for nmaxcpus, becomes in ((1, 1), (0, 0), (99, 2)):
            assert drqueue.request_slave_limits_nmaxcpus_set(host, nmaxcpus, C) == 1
            bench.until_computer("told", lambda c, wanted=becomes: c.limits.nmaxcpus == wanted)
    assert drqueue.request_slave_limits_nmaxcpus_set(NOBODY, 1, C) == 0


@checks("request_slave_limits_maxfreeloadcpu_set")
def request_slave_limits_maxfreeloadcpu_set(bench: Bench) -> None:
    for host in _names(bench):
        for load in (4999, 65535):
            assert drqueue.request_slave_limits_maxfreeloadcpu_set(host, load, C) == 1
            bench.until_computer("told", lambda c, wanted=load: c.limits.maxfreeloadcpu == wanted)
    assert drqueue.request_slave_limits_maxfreeloadcpu_set(NOBODY, 1, C) == 0


@checks("request_slave_limits_autoenable_set")
def request_slave_limits_autoenable_set(bench: Bench) -> None:
    def when(computer: drqueue.computer) -> tuple[int, int, int]:
        each = computer.limits.autoenable
        return each.h, each.m, each.flags

    assert when(bench.computer()) == (drqueue.AE_HOUR, drqueue.AE_MIN, 0)
    for host in _names(bench):
        assert drqueue.request_slave_limits_autoenable_set(host, 25, 61, drqueue.AEF_ACTIVE, C) == 1
        bench.until_computer("at 1:01", lambda c: when(c) == (1, 1, drqueue.AEF_ACTIVE))
        assert drqueue.request_slave_limits_autoenable_set(host, 1, 1, 0, C) == 1
        bench.until_computer("no more", lambda c: when(c)[2] == 0)
    assert drqueue.request_slave_limits_autoenable_set(NOBODY, 1, 1, 0, C) == 0


@checks("request_slave_limits_pool_add")
@checks("request_slave_limits_pool_remove")
def request_slave_limits_pools(bench: Bench) -> None:
    """Joining twice is joining once; leaving a pool that one is not in fails; the last one can be left."""
    for host in _names(bench):
        for _ in range(2):
            assert drqueue.request_slave_limits_pool_add(host, "gpu", C) == 1
        bench.until_computer("joined", lambda _: bench.pools() == ["Default", "gpu"])
        assert drqueue.request_slave_limits_pool_remove(host, "other", C) == 0
        for pool, left in (("Default", ["gpu"]), ("gpu", [])):
            assert drqueue.request_slave_limits_pool_remove(host, pool, C) == 1
            bench.until_computer("left", lambda _, wanted=left: bench.pools() == wanted)
        assert drqueue.request_slave_limits_pool_add(host, "Default", C) == 1
        bench.until_computer("as before", lambda _: bench.pools() == ["Default"])
    assert drqueue.request_slave_limits_pool_add(NOBODY, "gpu", C) == 0
    assert drqueue.request_slave_limits_pool_remove(NOBODY, "Default", C) == 0


@checks("request_slave_job_available")
def request_slave_job_available(bench: Bench) -> None:
    for host in _names(bench):
        assert drqueue.request_slave_job_available(host, C) == 1
    assert drqueue.request_slave_job_available(NOBODY, C) == 0


# -- methods of computer and what it holds ----------------------------------------------------------------


@checks("computer.request_enable")
@checks("computer.request_disable")
def computer_request_enable_and_disable(bench: Bench) -> None:
    """None; a disabled computer gets no frames, what runs there goes on."""
    one, two = bench.computer("s1"), bench.computer("s2")
    running = bench.running_job(1, 4)
    assert one.request_disable(C) is None
    assert one.limits.enabled == 1
    bench.until_computer("disabled", lambda c: c.limits.enabled == 0)
    assert bench.fresh(running).nprocs == 4
    running.request_delete(C)
    bench.until_computer("idle", lambda c: c.status.ntasks == 0)
    job = bench.job("true", 1, 6)
    bench.until_status(job, drqueue.JOBSTATUS_FINISHED)
    assert {frame.icomp for frame in bench.frames(job)} == {two.hwinfo.id}
    assert one.request_enable(C) is None
    bench.until_computer("enabled", lambda c: c.limits.enabled == 1)
    for method in (drqueue.computer().request_enable, drqueue.computer().request_disable):
        with pytest.raises(OSError, match=r"^Information not complete\. No slave is named"):
            method(C)


@checks("computer.update")
def computer_update(bench: Bench) -> None:
    computer = bench.computer("s2")
    drqueue.request_slave_limits_nmaxcpus_set("s2", 1, C)
    bench.until_computer("told", lambda c: c.limits.nmaxcpus == 1, "s2")
    assert computer.limits.nmaxcpus == 2
    limits = computer.limits
    assert computer.update(C) is None
    assert (limits.nmaxcpus, computer.limits is limits) == (1, True)
    drqueue.request_slave_limits_nmaxcpus_set("s2", 2, C)
    bench.until_computer("as before", lambda c: c.limits.nmaxcpus == 2, "s2")
    computer.hwinfo.id = UNKNOWN
    with pytest.raises(OSError, match=r"^Structure \(job,computer,task...\) not registered"):
        computer.update(C)


@checks("computer.list_pools")
@checks("computer.set_pools")
def computer_set_pools(bench: Bench) -> None:
    """The pools are those of the list, also where it shares some with the old ones."""
    computer = bench.computer()
    pools = [drqueue.pool("Default"), drqueue.pool("gpu"), drqueue.pool("night")]
    assert [each.name for each in computer.set_pools(pools)] == ["Default", "gpu", "night"]
    assert [each.name for each in computer.list_pools()] == ["Default", "gpu", "night"]
    bench.until_computer("told", lambda _: bench.pools() == ["Default", "gpu", "night"])
    assert [each.name for each in computer.set_pools([drqueue.pool("Default")])] == ["Default"]
    bench.until_computer("as before", lambda _: bench.pools() == ["Default"])
    assert all(type(each) is drqueue.pool for each in computer.list_pools())
    for wrong in ((drqueue.pool("gpu"),), "gpu", None):
        with pytest.raises(ValueError, match=r"^Expecting a list$"):
            computer.set_pools(wrong)
    with pytest.raises(OSError, match="No slave is named"):
        drqueue.computer().set_pools(pools)


@checks("computer.add_pool")
@checks("computer.remove_pool")
@checks("computer_limits.pool_add")
@checks("computer_limits.pool_remove")
def computer_pools(bench: Bench) -> None:
    """None; the record is as old as it is."""
    computer = bench.computer()
    for add, remove in (
        (computer.add_pool, computer.remove_pool),
        (
            lambda name, who: computer.limits.pool_add("s1", name, who),
            lambda name, who: computer.limits.pool_remove("s1", name, who),
        ),
    ):
        assert add("gpu", C) is None
        assert [each.name for each in computer.list_pools()] == ["Default"]
        bench.until_computer("joined", lambda _: bench.pools() == ["Default", "gpu"])
        assert remove("gpu", C) is None
        bench.until_computer("left", lambda _: bench.pools() == ["Default"])
        with pytest.raises(OSError, match="not registered"):
            remove("gpu", C)
    with pytest.raises(OSError, match="No slave is named"):
        drqueue.computer().add_pool("gpu", C)
    with pytest.raises(OSError, match="not registered"):
        computer.limits.pool_add(NOBODY, "gpu", C)


@checks("computer_limits.get_pool")
@checks("computer_limits.pool_list")
def computer_limits_pools(bench: Bench) -> None:
    """From the local record; `pool_list` writes to the log and returns None."""
    limits = bench.computer().limits
    assert (limits.npools, limits.get_pool(0).name) == (1, "Default")
    for index in (-1, 1):
        with pytest.raises(IndexError, match=r"^Index out of range$"):
            limits.get_pool(index)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("drqueue")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        assert limits.pool_list() is None
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert said == ["pool: Default"]


@checks("computer_status.get_loadavg")
def computer_status_get_loadavg() -> None:
    status = drqueue.computer_status()
    status.loadavg = (150, 75, 3)
    assert [status.get_loadavg(index) for index in range(3)] == [150, 75, 3]
    for index in (-1, 3):
        with pytest.raises(IndexError, match=r"^Index out of range$"):
            status.get_loadavg(index)


@checks("computer_status.get_task")
def computer_status_get_task() -> None:
    """Always a task, used or not."""
    status = drqueue.computer_status()
    for index in (0, 31):
        task = status.get_task(index)
        assert (task.used, task.jobname, task.jobcmd, task.owner) == (0, "EMPTY", "NONE", "NOBODY")
        assert status.get_task(index) is task
    for index in (-1, 32):
        with pytest.raises(IndexError, match=r"^Index out of range$"):
            status.get_task(index)
