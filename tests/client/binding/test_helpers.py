"""The original's helper functions about jobs and computers in this process, and the rest of them."""

import functools
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import drqueue
from drqueue import mail
from drqueue.client.binding import constants as c
from drqueue.client.binding import helpers
from drqueue.client.binding.fields import put
from drqueue.client.binding.structures import (
    computer,
    computer_hwinfo,
    computer_status,
    envvars,
    frame_info,
    job,
    job_limits,
    task,
    tpol,
)
from drqueue.proto.ranges import Chunks, FrameRange


def a_job() -> job:
    each = job()
    each.name, each.cmd, each.owner, each.id = "shot", "true", "ann", 12
    each.frame_start, each.frame_end, each.frame_step, each.block_size = 1, 10, 3, 2
    return each


def test_a_copy_shares_nothing() -> None:
    one, other = a_job(), job()
    one.koji.maya.scene, one.limits.pool = "s.ma", "gpu"
    one.environment_variable_add("A", "1")
    helpers.job_block_host_add_by_name(one, "bad")
    put(one, "chunks", Chunks(FrameRange("10-1"), 2))
    other.environment_variable_add("B", "2")
    other.email = "gone"
    assert helpers.job_copy(one, other) == 1
    one.koji.maya.scene = "t.ma"
    one.environment_variable_add("A", "3")
    helpers.job_block_host_remove_by_name(one, "bad")
    assert (other.name, other.id, other.email, other.limits.pool) == ("shot", 12, "", "gpu")
    assert other.koji.maya.scene == "s.ma"
    assert other.environment_variable_find("A") == "1"
    assert (other.envvars.nvariables, other.nblocked) == (1, 1)
    assert helpers.job_nframes(other) == 5


@pytest.mark.parametrize("empty", [helpers.job_init, helpers.job_delete])
def test_a_job_is_made_new(empty: Callable[[job], None]) -> None:
    each = a_job()
    each.limits.memory = 5
    each.environment_variable_add("A", "1")
    helpers.job_block_host_add_by_name(each, "bad")
    empty(each)
    assert (each.name, each.id, each.frame_end, each.limits.memory) == ("", 0, 1, 0)
    assert (each.envvars.nvariables, each.nblocked) == (0, 0)


def test_limits_and_frames_are_made_new() -> None:
    limits, each, frame = job_limits(), job(), frame_info()
    limits.pool = each.limits.pool = "gpu"
    frame.itask = 3
    helpers.job_limits_init(limits)
    helpers.job_limits_init(each)
    helpers.job_frame_info_init(frame)
    assert (limits.pool, each.limits.pool, frame.itask) == ("Default", "Default", 0)


def test_stop_and_continue_change_the_local_state_only() -> None:
    waiting, active, stopped, finished = range(4)
    for before, after in ((waiting, stopped), (active, stopped), (stopped, stopped), (finished, finished)):
        each = job()
        each.status = before
        helpers.job_stop(each)
        assert each.status == after
    for before, after in ((waiting, waiting), (active, active), (stopped, waiting), (finished, waiting)):
        each = job()
        each.status = before
        helpers.job_continue(each)
        assert each.status == after


def test_the_local_list_of_blocked_hosts() -> None:
    each = job()
    assert helpers.job_block_host_add_by_name(each, "bad") == 1
    assert helpers.job_block_host_add_by_name(each, "bad") == 0
    assert helpers.job_block_host_exists_by_name(each, "bad") == 1
    assert [host.name for host in each.blocked_host.ptr] == ["bad"]
    assert helpers.job_block_host_remove_by_name(each, "bad") == 1
    assert helpers.job_block_host_remove_by_name(each, "bad") == 0
    assert helpers.job_block_host_exists_by_name(each, "bad") == 0
    assert each.nblocked == 0


def test_lists_of_variables() -> None:
    variables = envvars()
    assert helpers.envvars_init(variables) == 1
    assert helpers.envvars_variable_add(variables, "A", "1") == 1
    assert helpers.envvars_variable_add(variables, "B", "2") == 1
    found = helpers.envvars_variable_find(variables, "A")
    assert found is not None
    assert found.value == "1"
    assert helpers.envvars_variable_find(variables, "C") is None
    assert helpers.envvars_variable_delete(variables, "A") == 1
    assert variables.nvariables == 1
    assert helpers.envvars_empty(variables) == 1
    assert variables.nvariables == 0
    assert helpers.envvars_free(variables) == 1


def test_a_report_names_what_the_job_says(capsys: pytest.CaptureFixture[str]) -> None:
    each = a_job()
    each.koj, each.koji.blender.scene = c.KOJ_BLENDER, "a.blend"
    each.environment_variable_add("A", "1")
    helpers.job_report(each)
    said = capsys.readouterr().out
    for text in ("Job 12: shot", "Waiting", "Owner: ann", "1 to 10 step 3", "blender.scene: a.blend", "A=1"):
        assert text in said


def test_the_order_of_jobs() -> None:
    places = []
    for index, (priority, submitted) in enumerate([(500, 9), (500, 3), (900, 9), (500, 3)]):
        place = tpol()
        place.index, place.pri, place.submit_time = index, priority, submitted
        places.append(place)
    for some in itertools.permutations(places):
        ordered = sorted(some, key=functools.cmp_to_key(helpers.priority_job_compare))
        assert [place.index for place in ordered] == [2, 1, 3, 0]
    assert helpers.priority_job_compare(places[0], places[0]) == 0
    low, high = job(), job()
    high.priority = 501
    assert helpers.priority_job_compare(high, low) == -1


def test_the_mail_goes_to_the_address_or_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def send(command: str, *, to: str, name: str, frames: int, mean_s: float, **more: object) -> None:
        sent.append((command, to, name, frames, mean_s))

    monkeypatch.setattr(mail, "send_finished", send)
    each = a_job()
    each.avg_frame_time = 30
    assert helpers.mn_job_finished(each) == 1
    each.email = "ann@example.org"
    assert helpers.mn_job_finished(each) == 1
    assert sent == [("", "ann", "shot", 2, 30.0), ("", "ann@example.org", "shot", 2, 30.0)]


def test_a_mail_that_cannot_be_sent_is_an_oserror() -> None:
    each = a_job()
    each.email = "-oQ/tmp no address"
    with pytest.raises(OSError, match="no address"):
        helpers.mn_job_finished(each)


def a_task(status: computer_status, slot: int, ijob: int, state: int) -> task:
    each = status.slot(slot)
    each.used, each.ijob, each.status, each.pid = 1, ijob, state, os.getpid()
    return each


def test_tasks_are_counted_by_the_local_record() -> None:
    each = computer()
    a_task(each.status, 0, 7, c.TASKSTATUS_LOADING)
    a_task(each.status, 5, 7, c.TASKSTATUS_RUNNING)
    a_task(each.status, 6, 8, c.TASKSTATUS_RUNNING)
    a_task(each.status, 40, 7, c.TASKSTATUS_FINISHED)
    each.status.get_task(9).status = c.TASKSTATUS_RUNNING
    assert helpers.computer_ntasks(each) == 4
    assert helpers.computer_nrunning(each) == 3
    assert helpers.computer_nrunning_job(each, 7) == 2
    assert helpers.task_is_running(each.status.get_task(9)) == 0, "a free slot"


def test_a_task_whose_process_is_gone_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    status = computer_status()
    a_task(status, 0, 7, c.TASKSTATUS_RUNNING)
    a_task(status, 1, 7, c.TASKSTATUS_RUNNING).pid = 4321
    a_task(status, 2, 7, c.TASKSTATUS_LOADING).pid = 0
    monkeypatch.setattr("psutil.pid_exists", lambda pid: pid == os.getpid())
    helpers.get_computer_status(status)
    assert (status.ntasks, status.nrunning) == (2, 2)
    assert status.get_task(1).jobname == "EMPTY"
    assert status.get_task(1).used == 0


def test_computers_and_tasks_are_made_new() -> None:
    each = computer()
    each.hwinfo.name, each.hwinfo.ncpus = "s", 500
    helpers.computer_limits_init(each.limits)
    limits = each.limits
    assert (limits.enabled, limits.autoenable.h, limits.autoenable.m, limits.autoenable.flags) == (
        1,
        21,
        0,
        0,
    )
    assert [pool.name for pool in each.list_pools()] == ["Default"]
    helpers.computer_limits_cpu_init(each)
    assert (limits.nmaxcpus, limits.maxfreeloadcpu) == (500, 65535)
    each.hwinfo.ncpus = 4
    helpers.computer_limits_cpu_init(each)
    assert (limits.nmaxcpus, limits.maxfreeloadcpu) == (4, 640)
    a_task(each.status, 3, 1, c.TASKSTATUS_RUNNING)
    helpers.task_init_all(each.status.task)
    assert helpers.computer_ntasks(each) == 0
    a_task(each.status, 3, 1, c.TASKSTATUS_RUNNING)
    helpers.task_init(each.status.get_task(3))
    assert helpers.computer_ntasks(each) == 0
    each.status.loadavg = (1, 1, 1)
    helpers.computer_status_init(each.status)
    assert each.status.loadavg == (0, 0, 0)
    helpers.computer_init(each)
    assert (each.hwinfo.name, each.limits.npools) == ("", 0)


def test_a_task_names_a_frame_of_a_job() -> None:
    each, frame = a_job(), task()
    frame.itask = 5
    put(each, "frame_start", -10)
    helpers.task_set_to_job_frame(frame, each, -7)
    assert (frame.itask, frame.ijob, frame.jobname, frame.jobcmd, frame.owner) == (
        5,
        12,
        "shot",
        "true",
        "ann",
    )
    assert (frame.frame, frame.frame_start, frame.frame_end, frame.frame_step) == (-7, -10, 10, 3)
    assert (frame.block_size, frame.frame_pad) == (2, 4)


def test_reports_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    hwinfo, status = computer_hwinfo(), computer_status()
    hwinfo.name, hwinfo.os, hwinfo.memory = "slave001", c.OS_LINUX, 2048
    status.loadavg = (150, 0, 0)
    a_task(status, 40, 7, c.TASKSTATUS_RUNNING).jobname = "shot"
    helpers.report_hwinfo(hwinfo)
    helpers.report_computer_status(status)
    said = capsys.readouterr().out
    for text in ("slave001", "Linux", "2048 MB", "1.50", "shot", "Running"):
        assert text in said


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert helpers.get_version_prepost() == ""
    assert helpers.get_revision_string() == f"drqueue {drqueue.__version__}"
    assert helpers.get_version_complete() == f"0.64.4 (drqueue {drqueue.__version__})"
    helpers.show_version(["/usr/bin/cjob", "-v"])
    assert capsys.readouterr().out == f"cjob version 0.64.4 (drqueue {drqueue.__version__})\n"


def test_nothing_is_removed(tmp_path: Path) -> None:
    assert helpers.remove_dir(str(tmp_path)) == 0
    assert helpers.rmdir_check_str(str(tmp_path)) == 0
    assert helpers.job_logs_remove(a_job()) == 0
    assert tmp_path.is_dir()
    assert helpers.common_date_check() == 1


def test_a_path_is_copied_into_so_many_bytes() -> None:
    assert helpers.dr_copy_path(None, "/a/b", 100) == "/a/b"
    assert helpers.dr_copy_path(None, "/a/ü", 5) == "/a/"
    assert helpers.dr_copy_path(None, "/a/b", 1) == ""
    with pytest.raises(OverflowError):
        helpers.dr_copy_path(None, "/a/b", 0)


def test_every_name_is_there() -> None:
    for name in helpers.__all__:
        assert getattr(helpers, name) is not None
