"""The binding against a real farm: what is asked happens, and what is read is what is."""

import os
import pwd
from collections.abc import Callable, Iterator

import pytest

import drqueue as d
from drqueue.client.binding import session
from tests.client.binding.farmwork import C, computers, frames, known, once, running, sent
from tests.e2e.helpers import Up, farm_up, wait_until

pytestmark = pytest.mark.slow
NOBODY = 99999
GONE = "Structure (job,computer,task...) not registered"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with farm_up(tmp_path_factory.mktemp("binding"), slaves=2, cores=2) as up:
        yield up


@pytest.fixture
def farm(up: Up, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    """A farm of two slaves, s1 and s2, with two cores each; without jobs, and as it was when it began."""
    monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{up.state_dir}/master.sock")
    monkeypatch.chdir(up.cli.cwd)
    yield up
    for job in d.request_job_list(C):
        job.request_delete(C)
    for each in d.request_computer_list(C):
        each.request_enable(C)
        each.set_pools([d.pool("Default")])
        d.request_slave_limits_nmaxcpus_set(each.hwinfo.name, 2, C)
        known("nothing runs", each, lambda each=each: not each.status.ntasks)  # type: ignore[misc]
    session.close()


# -- jobs -----------------------------------------------------------------------------------------------


def test_a_job_from_submission_to_its_end(farm: Up) -> None:
    job = sent("exit 0", 10, frame_step=3, block_size=2, priority=700, email="a@b")
    assert job.send_to_queue() == 1
    (first, second) = d.request_job_list(C)
    assert (first.id + 1, second.id) == (job.id, job.id)
    once("done", job, status=d.JOBSTATUS_FINISHED, fdone=2, fleft=0, ffailed=0, nprocs=0)
    assert (job.name, job.cmd, job.owner, job.priority) == ("binding", "exit 0", "ann", 700)
    assert (job.frame_start, job.frame_end, job.frame_step, job.block_size) == (1, 10, 3, 2)
    assert [job.job_frame_index_to_number(i) for i in range(2)] == [1, 7]
    assert job.est_finish_time >= job.submit_time > 0
    for frame in frames(job):
        assert (frame.status, frame.exitcode, frame.requeued) == (d.FS_FINISHED, 0, 0)
        assert frame.end_time >= frame.start_time >= job.submit_time


def test_an_exit_code_that_is_a_failure_and_one_that_is_none(farm: Up) -> None:
    failed = sent("exit 7", autoRequeue=0)
    once("failed", failed, status=d.JOBSTATUS_FINISHED, ffailed=1, fdone=0)
    assert [(each.status, each.exitcode) for each in frames(failed)] == [(d.FS_ERROR, 7)]
    fine = sent("exit 7", autoRequeue=0, success_exit_codes="any")
    once("done", fine, status=d.JOBSTATUS_FINISHED, fdone=1)
    assert fine.success_exit_codes == "any"
    assert [(each.status, each.exitcode) for each in frames(fine)] == [(d.FS_FINISHED, 7)]


def test_the_command_is_the_shells(farm: Up) -> None:
    """Also where it has a variable by the name of a placeholder."""
    cmd = f'frame=x$DRQUEUE_PADFRAME; echo "${{frame}} $A" > "{farm.cli.cwd}/$DRQUEUE_JOBNAME"'
    job = sent(cmd, frame_pad=6)
    assert d.request_job_envvars(job.id, job.envvars, C) == 1
    with_env = d.job()
    with_env.name, with_env.cmd = "env", cmd
    with_env.environment_variable_add("A", "b c")
    with_env.send_to_queue()
    for each in (job, with_env):
        once("done", each, fdone=1)
    assert (farm.cli.cwd / job.name).read_text() == "x000001 \n"
    assert (farm.cli.cwd / with_env.name).read_text() == "x0001 b c\n"
    assert with_env.environment_variable_find("A") == "b c"
    got = d.envvars()
    assert d.request_job_envvars(with_env.id, got, C) == 1
    assert [(each.name, each.value) for each in got.variables.ptr] == [("A", "b c")]


def test_it_runs_in_the_home_of_the_slaves_user(farm: Up) -> None:
    """As the original's ran where the slave did: the folder of whoever submits may not be there."""
    out = farm.cli.cwd / "where"
    job = sent(f'pwd -P > "{out}"')
    once("done", job, fdone=1)
    assert out.read_text() == os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir) + "\n"


def test_stop_continue_hard_stop_rerun(farm: Up) -> None:
    job = sent("sleep 600", 9)
    running(job, 4)
    assert (job.status, job.fleft) == (d.JOBSTATUS_ACTIVE, 5)
    assert job.request_stop(C) == 1
    once("stopped", job, status=d.JOBSTATUS_STOPPED, nprocs=4)
    assert job.request_hard_stop(C) == 1
    once("killed", job, status=d.JOBSTATUS_STOPPED, nprocs=0, fleft=9)
    assert [each.requeued for each in frames(job)] == [1] * 4 + [0] * 5
    assert job.request_rerun(C) == 1
    once("still stopped", job, status=d.JOBSTATUS_STOPPED, fleft=9)
    assert all(each.requeued >= 1 for each in frames(job))
    assert job.request_continue(C) == 1
    running(job, 4)


def test_deleting(farm: Up) -> None:
    job = sent("sleep 600")
    running(job, 1)
    assert job.request_delete(C) == 1
    assert d.request_job_list(C) == []
    with pytest.raises(IOError, match=GONE.replace("(", r"\(").replace(")", r"\)")):
        job.update(C)


@pytest.mark.parametrize(
    ("call", "more"),
    [
        (d.request_job_stop, ()),
        (d.request_job_hstop, ()),
        (d.request_job_continue, ()),
        (d.request_job_rerun, ()),
        (d.request_job_delete, ()),
        (d.request_job_frame_waiting, (1,)),
        (d.request_job_frame_kill, (1,)),
        (d.request_job_frame_finish, (1,)),
        (d.request_job_frame_kill_finish, (1,)),
        (d.request_job_frame_reset_requeued, (1,)),
        (d.request_job_sesupdate, (1, 2, 1, 1)),
        (d.request_job_limits_nmaxcpus_set, (1,)),
        (d.request_job_limits_nmaxcpuscomputer_set, (1,)),
        (d.request_job_limits_memory_set, (1,)),
        (d.request_job_limits_pool_set, ("a",)),
        (d.request_job_priority_update, (1,)),
        (d.request_job_add_blocked_host, (0,)),
        (d.request_job_delete_blocked_host, (0,)),
        (d.request_job_block_host_by_name, ("a",)),
        (d.request_job_unblock_host_by_name, ("a",)),
        (d.request_job_xfer, (d.job(),)),
        (d.request_job_xferfi, ([], 0)),
        (d.request_job_xferfi, ([d.frame_info()], 1)),
        (d.request_job_frame_info, (1, d.frame_info())),
        (d.request_job_envvars, (d.envvars(),)),
        (d.request_comp_xfer, (d.computer(),)),
        (d.request_slavexit, ()),
    ],
)
def test_what_names_nothing_gives_0(farm: Up, call: object, more: tuple[object, ...]) -> None:
    assert callable(call)
    assert call(NOBODY, *more, C) == 0
    assert d.last_error().startswith(f"{GONE}: there is no ")


# -- changing a job ---------------------------------------------------------------------------------------


def test_priority_limits_pool_and_memory(farm: Up) -> None:
    job = sent("sleep 600", 4, priority=1)
    running(job, 4)
    assert d.request_job_priority_update(job.id, 4294967295, C) == 1
    assert d.request_job_limits_nmaxcpus_set(job.id, 7, C) == 1
    assert d.request_job_limits_nmaxcpuscomputer_set(job.id, 65535, C) == 1
    assert d.request_job_limits_memory_set(job.id, 12, C) == 1
    assert d.request_job_limits_pool_set(job.id, "night", C) == 1
    job.update(C)
    limits = job.limits
    assert (job.priority, limits.nmaxcpus, limits.nmaxcpuscomputer) == (4294967295, 7, 65535)
    assert (limits.memory, limits.pool) == (12, "night")
    assert d.request_job_limits_nmaxcpus_set(job.id, 0, C) == 0
    assert "With nmaxcpus 0 nothing would run" in d.last_error()
    assert d.request_job_limits_nmaxcpus_set(job.id, 65535, C) == 1
    assert (job.update(C), job.limits.nmaxcpus) == (1, 65535)


def test_limits_hold(farm: Up) -> None:
    """Of 9 frames, 1 runs on each computer; more memory or another system than there is: none."""
    job = d.job()
    job.name, job.cmd, job.frame_end = "limited", "sleep 600", 9
    job.limits.nmaxcpuscomputer = 1
    job.send_to_queue()
    running(job, 2)
    assert sorted(each.icomp for each in frames(job)[:2]) == [0, 1]
    for field, value in (("memory", 2**31), ("os_flags", d.OSF_IRIX)):
        other = d.job()
        other.name, other.cmd = "nowhere", "true"
        setattr(other.limits, field, value)
        other.send_to_queue()
        assert d.request_job_limits_nmaxcpus_set(job.id, 2, C) == 1
        other.update(C)
        assert (other.status, other.fleft, getattr(other.limits, field)) == (0, 1, value)


def test_another_range(farm: Up) -> None:
    job = sent("sleep 600", 4)
    running(job, 4)
    assert d.request_job_sesupdate(job.id, 3, 20, 1, 1, C) == 1
    once("the rest is gone", job, frame_start=3, frame_end=20, nprocs=4, fleft=14)
    assert [each.status for each in frames(job)[:3]] == [d.FS_ASSIGNED] * 3
    assert d.request_job_sesupdate(job.id, 1, 20, 0, 7, C) == 1
    job.update(C)
    assert (job.frame_step, job.block_size, len(frames(job))) == (1, 7, 3)
    assert d.request_job_sesupdate(job.id, 5, 4, 1, 1, C) == 0
    assert d.last_error() == "Information not complete. The range from 5 to 4 has no frame"
    assert d.request_job_sesupdate(job.id, 1, 4, 1, 0, C) == 0
    assert d.request_job_sesupdate(job.id, 0, 4294967295, 1, 1, C) == 0
    assert "10,000,000" in d.last_error()


def test_blocked_hosts(farm: Up) -> None:
    names = computers()
    job = sent("sleep 600", 9)
    running(job, 4)
    assert d.request_job_list_blocked_host(job.id, C) == []
    assert d.request_job_add_blocked_host(job.id, names["s2"].hwinfo.id, C) == 1
    assert d.request_job_block_host_by_name(job.id, "nosuch", C) == 0
    assert d.last_error() == f"{GONE}: no slave and no host is called 'nosuch'"
    assert d.request_job_block_host_by_name(job.id, names["s1"].hwinfo.address, C) == 0
    assert d.request_job_block_host_by_name(job.id, os.uname().nodename, C) == 1
    assert d.request_job_add_blocked_host(job.id, NOBODY, C) == 0
    assert d.last_error() == f"{GONE}: there is no computer {NOBODY}"
    assert [host.name for host in d.request_job_list_blocked_host(job.id, C)] == [
        "s2",
        os.uname().nodename,
    ]
    assert d.request_job_unblock_host_by_name(job.id, os.uname().nodename, C) == 1
    assert d.request_job_block_host_by_name(job.id, "s2", C) == 1
    job.request_hard_stop(C)
    once("stopped", job, nprocs=0)
    job.request_continue(C)
    running(job, 2)
    assert {each.icomp for each in frames(job) if each.status == d.FS_ASSIGNED} == {names["s1"].hwinfo.id}
    assert d.request_job_delete_blocked_host(job.id, 2, C) == 0
    assert d.last_error() == f"{GONE}: job {job.id} has 1 blocked host"
    assert d.request_job_delete_blocked_host(job.id, 0, C) == 1
    assert d.request_job_unblock_host_by_name(job.id, "s2", C) == 0
    assert d.last_error() == f"{GONE}: job {job.id} does not block 's2'"
    assert d.request_job_list_blocked_host(job.id, C) == []
    running(job, 4)
    with pytest.raises(IOError, match="not registered"):
        d.request_job_list_blocked_host(NOBODY, C)


def test_a_pool_that_no_slave_can_be_in(farm: Up) -> None:
    """It is refused at once; the job would wait for ever."""
    job = sent("sleep 600", limits__pool="nowhere")
    for pool, said in (("night shift", "'night shift'"), ("a,b", "'a,b'"), ("x" * 64, "1 to 63 characters")):
        assert d.request_job_limits_pool_set(job.id, pool, C) == 0
        assert said in d.last_error()
        with pytest.raises(IOError, match=said):
            sent(limits__pool=pool)
    assert d.request_job_limits_pool_set(job.id, "", C) == 0
    assert d.last_error() == "Information not complete. No pool is named"
    with pytest.raises(IOError, match=r"^Information not complete\. No pool is named$"):
        sent(limits__pool="")
    job.update(C)
    assert job.limits.pool == "nowhere"
    assert len(d.request_job_list(C)) == 1


def test_a_job_waits_for_another(farm: Up) -> None:
    parent = sent("exit 1", autoRequeue=0, name="parent")
    child = sent("true", flags=d.JF_JOBDEPEND, dependid=parent.id)
    once("failed, so ended", parent, ffailed=1)
    once("done", child, fdone=1)
    assert (child.flags, child.dependid) == (d.JF_JOBDEPEND, parent.id)
    orphan = d.job()
    orphan.name, orphan.cmd, orphan.flags, orphan.dependid = "orphan", "true", d.JF_JOBDEPEND, NOBODY
    with pytest.raises(IOError, match="not registered"):
        orphan.send_to_queue()


# -- frames -----------------------------------------------------------------------------------------------


def test_verbs_on_frames(farm: Up) -> None:
    job = sent("sleep 600", 3, frame_start=1)
    running(job, 3)
    assert {each.itask for each in frames(job)} <= {0, 1}
    assert d.request_job_frame_kill(job.id, 1, C) == 1

    def requeued() -> bool:
        first = frames(job)[0]
        return (first.requeued, first.status) == (1, d.FS_ASSIGNED)

    wait_until("killed and run again", requeued)
    assert d.request_job_frame_reset_requeued(job.id, 1, C) == 1
    assert frames(job)[0].requeued == 0
    assert d.request_job_frame_waiting(job.id, 2, C) == 1
    assert [each.flags for each in frames(job)] == [0, d.FF_REQUEUE, 0]
    assert d.request_job_frame_kill_finish(job.id, 3, C) == 1
    assert d.request_job_frame_finish(job.id, 2, C) == 1
    once("two are finished", job, fdone=2, nprocs=1)
    assert d.request_job_frame_waiting(job.id, 3, C) == 1
    once("one again", job, fdone=1, nprocs=2)
    for call in (d.request_job_frame_kill, d.request_job_frame_finish, d.request_job_frame_waiting):
        assert call(job.id, 4, C) == 0
        assert d.last_error().startswith(f"{GONE}: job {job.id} has nothing of 4 in its range 1-3")


def test_finishing_only_what_runs(farm: Up) -> None:
    job = sent("sleep 600", 9)
    running(job, 4)
    assert d.request_job_frame_kill_finish(job.id, 9, C) == 1
    job.update(C)
    assert (job.fdone, job.fleft) == (0, 5)
    assert d.request_job_frame_finish(job.id, 9, C) == 1
    once("finished", job, fdone=1, fleft=4)


def test_single_frames_and_parts_of_the_list(farm: Up) -> None:
    job = sent("exit 3", 20, frame_step=2, block_size=5, autoRequeue=0)
    once("failed", job, ffailed=2)
    one = d.frame_info()
    assert d.request_job_frame_info(job.id, 11, one, C) == 1
    assert (one.status, one.exitcode) == (d.FS_ERROR, 3)
    # 13 is in the block that begins at 11; 12 is in none.
    assert d.request_job_frame_info(job.id, 13, one, C) == 1
    assert d.request_job_frame_info(job.id, 12, one, C) == 0
    assert d.last_error() == f"{GONE}: job {job.id} has no frame 12"
    lone = d.frame_info()
    assert d.request_job_xferfi(job.id, lone, 1, C) == 1
    assert lone.status == d.FS_ERROR
    several = [d.frame_info() for _ in range(4)]
    assert d.request_job_xferfi(job.id, several, 10, C) == 1
    assert [each.status for each in several] == [d.FS_ERROR] * 2 + [d.FS_WAITING] * 2
    few = [d.frame_info() for _ in range(4)]
    assert d.request_job_xferfi(job.id, few, 1, C) == 1
    assert [each.status for each in few] == [d.FS_ERROR] + [d.FS_WAITING] * 3


def test_long_lists_come_whole_and_in_order(farm: Up) -> None:
    for each in computers().values():
        each.request_disable(C)
        known("disabled", each, lambda each=each: not each.limits.enabled)  # type: ignore[misc]
    job = sent("true", 1800)
    with farm.cli.client() as client:
        # Of finished frames fewer fit into an answer than are asked for.
        client.frame_finish(job.id, "2-1200,1777")
    got = frames(job)
    finished = [index + 1 for index, each in enumerate(got) if each.status == d.FS_FINISHED]
    assert finished == [*range(2, 1201), 1777]
    assert len(got) == 1800
    for number in range(150):
        sent("true", name=f"j{number}")
    listed = d.request_job_list(C)
    assert [each.name for each in listed] == ["binding", *[f"j{number}" for number in range(150)]]
    assert [each.id for each in listed] == sorted(each.id for each in listed)


# -- computers ----------------------------------------------------------------------------------------------


def test_computers_and_what_they_run(farm: Up) -> None:
    job = sent("sleep 600", 3)
    running(job, 3)
    s1, s2 = d.request_computer_list(C)
    assert {s1.hwinfo.name, s2.hwinfo.name} == {"s1", "s2"}
    assert (s1.hwinfo.id, s2.hwinfo.id) == (0, 1)
    assert (s1.hwinfo.ncpus, s1.hwinfo.os, s1.limits.enabled) == (2, d.OS_LINUX, 1)
    assert s1.hwinfo.memory > 0
    assert s1.lastconn >= job.submit_time - 60
    tasks = [each.status.get_task(i) for each in (s1, s2) for i in range(2) if each.status.get_task(i).used]
    assert sorted(task.frame for task in tasks) == [1, 2, 3]
    for task in tasks:
        assert (task.jobname, task.ijob, task.jobcmd, task.owner) == ("binding", job.id, "sleep 600", "ann")
        assert os.path.exists(f"/proc/{task.pid}")
        frame = frames(job)[task.frame - 1]
        assert (frame.icomp, frame.itask) == (task.icomp, task.itask)
    assert s1.status.ntasks + s2.status.ntasks == 3
    other = d.computer()
    assert d.request_comp_xfer(1, other, C) == 1
    assert other.hwinfo.name == s2.hwinfo.name


def test_a_slave_goes_by_name_and_by_address(farm: Up) -> None:
    s1 = computers()["s1"]
    for host, most in (("s1", 1), (s1.hwinfo.address, 2), ("s1", 0), (s1.hwinfo.address, 4294967295)):
        assert d.request_slave_limits_nmaxcpus_set(host, most, C) == 1
        known("the limit", s1, lambda most=most: s1.limits.nmaxcpus == min(most, 2))  # type: ignore[misc]
    # The slave itself keeps no number beyond what it has.
    assert farm.cli.run("slave", "s1", "--json").json["limits"]["max_cpus"] == 2
    assert d.request_slave_limits_nmaxcpus_set("nobody", 1, C) == 0
    assert d.last_error().startswith(f"{GONE}: there is no slave 'nobody'")
    assert d.request_slave_limits_nmaxcpus_set("", 1, C) == 0
    assert d.last_error() == "Information not complete. No slave is named"


def test_limits_of_a_slave(farm: Up) -> None:
    s1 = computers()["s1"]
    assert d.request_slave_limits_maxfreeloadcpu_set("s1", 250, C) == 1
    assert d.request_slave_limits_autoenable_set("s1", 30, 61, d.AEF_ACTIVE, C) == 1
    s1.add_pool("night", C)
    s1.add_pool("night", C)
    s1.remove_pool("Default", C)

    def all_of_it() -> bool:
        times = (s1.limits.autoenable.h, s1.limits.autoenable.m, s1.limits.autoenable.flags)
        pools = [each.name for each in s1.list_pools()]
        return (s1.limits.maxfreeloadcpu, times, pools) == (250, (6, 1, d.AEF_ACTIVE), ["night"])

    known("all of it", s1, all_of_it)
    assert d.request_slave_limits_pool_remove("s1", "day", C) == 0
    assert d.last_error() == f"{GONE}: s1 is not in the pool 'day'"
    assert d.request_slave_limits_maxfreeloadcpu_set("s1", 65535, C) == 1
    assert d.request_slave_limits_autoenable_set("s1", 6, 1, 0, C) == 1
    known("off", s1, lambda: not s1.limits.autoenable.flags)
    assert (s1.limits.maxfreeloadcpu, s1.limits.autoenable.h) == (65535, 21)
    assert d.request_slave_limits_pool_add("s1", "no pool", C) == 0
    assert d.request_slave_job_available("s1", C) == 1


def test_text_that_is_no_utf_8_fails_like_anything_else_that_cannot_be_done(farm: Up) -> None:
    """Python reads odd bytes of file names and arguments as such text."""
    job = sent("sleep 600")
    calls: list[Callable[[], int]] = [
        lambda: d.request_job_limits_pool_set(job.id, "a\udcff", C),
        lambda: d.request_slave_limits_pool_add("s1", "a\udcff", C),
        lambda: d.request_slave_limits_enabled_set("a\udcff", 1, C),
        lambda: d.request_slave_job_available("a\udcff", C),
    ]
    for call in calls:
        assert call() == 0
        assert d.last_error().startswith("Received request answer value not appropiate for this query: ")
        assert "UTF-8" in d.last_error()
    assert d.request_job_block_host_by_name(job.id, "a\udcff", C) == 0
    with pytest.raises(OSError, match="UTF-8"):
        computers()["s1"].set_pools([d.pool("a\udcff")])


def test_set_pools_goes_by_the_slave_and_not_by_an_old_record(farm: Up) -> None:
    """What others did meanwhile is undone, and what the record names in vain stops nothing."""
    s1 = computers()["s1"]
    s1.limits.fill_pools(["Default", "left-long-ago"])
    assert d.request_slave_limits_pool_add("s1", "joined-meanwhile", C) == 1
    assert [each.name for each in s1.set_pools([d.pool("night")])] == ["night"]
    known("only these", s1, lambda: [each.name for each in s1.list_pools()] == ["night"])
    assert s1.set_pools([]) == []
    known("none at all", s1, lambda: s1.limits.npools == 0)


def test_enable_and_disable(farm: Up) -> None:
    s1, s2 = d.request_computer_list(C)
    s1.request_disable(C)
    known("disabled", s1, lambda: not s1.limits.enabled)
    job = sent("sleep 600", 4)
    running(job, 2)
    assert {each.icomp for each in frames(job) if each.status == d.FS_ASSIGNED} == {s2.hwinfo.id}
    s1.request_enable(C)
    running(job, 4)


def test_killing_a_task(farm: Up) -> None:
    job = sent("sleep 600", autoRequeue=0)
    running(job, 1)
    (frame,) = frames(job)
    host = d.request_computer_list(C)[frame.icomp].hwinfo
    assert d.request_slave_killtask(host.name, frame.itask + 1, C) == 0
    assert d.last_error() == f"{GONE}: {host.name} runs nothing in slot {frame.itask + 1}"
    assert d.request_slave_killtask(host.address, frame.itask, C) == 1
    once("killed for good", job, ffailed=1)


def test_a_computer_that_is_there_stays(farm: Up) -> None:
    assert d.request_slavexit(0, C) == 0
    assert "is linked" in d.last_error()
    assert len(d.request_computer_list(C)) == 2
