"""Checks of the helper functions: words for numbers, a job object, variables, this process, this machine."""

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import psutil
import pytest

import drqueue
from drqueue import mail
from tests.binding.checks import checks

WRONG = "DEFAULT (ERROR)"


def printed(print_it: Callable[[], object]) -> str:
    """What a function prints; it returns None."""
    with redirect_stdout(StringIO()) as out:
        assert print_it() is None
    return out.getvalue()


# -- words for numbers ------------------------------------------------------------------------------------


@checks("job_status_string")
def job_status_string() -> None:
    words = [drqueue.job_status_string(status) for status in range(5)]
    assert words == ["Waiting", "Active", "Stopped", "Finished", WRONG]


@checks("job_frame_status_string")
def job_frame_status_string() -> None:
    words = [drqueue.job_frame_status_string(status) for status in range(5)]
    assert words == ["Waiting", "Running", "Error", "Finished", WRONG]


@checks("task_status_string")
def task_status_string() -> None:
    words = [drqueue.task_status_string(status) for status in range(4)]
    assert words == ["Loading", "Running", "Finished", "UNKNOWN"]


@checks("job_koj_string")
def job_koj_string() -> None:
    job, words = drqueue.job(), []
    for koj in range(20):
        job.koj = koj
        words.append(drqueue.job_koj_string(job))
    assert words == [
        "General", "Maya", "Blender", WRONG, "3delight", "Pixie", "Mental Ray", "Lightwave",
        "After Effects", "Shake", WRONG, "Terragen", "Nuke", "Turtle", "Mantra/Houdini", "XSI", "Luxrender",
        WRONG, WRONG, WRONG,
    ]  # fmt: skip


@checks("osstring")
def osstring() -> None:
    words = ["UNKNOWN", "Irix", "Linux", "Windows", "Windows", "Mac OSX", "FreeBSD", WRONG]
    assert [drqueue.osstring(number) for number in range(8)] == words


@checks("archstring")
def archstring() -> None:
    words = ["UNKNOWN", "Intel", "Mips", "PowerPC", "Sparc", "Power", WRONG]
    assert [drqueue.archstring(number) for number in range(7)] == words


@checks("proctypestring")
def proctypestring() -> None:
    assert [drqueue.proctypestring(number) for number in range(19)] == [
        "UNKNOWN", "Intel (not listed)", "Pentium", "Pentium II", "Pentium III", "Pentium 4", "Xeon", "IA-64",
        "Pentium M", "Athlon", "Opteron", "R5000", "R10000", "R12000", "PPC", WRONG, "Ultrasparc",
        "Cell Broadband Engine", WRONG,
    ]  # fmt: skip


@checks("bitsstring")
def bitsstring() -> None:
    assert [drqueue.bitsstring(bits) for bits in (0, 32, 64)] == ["Unknown", "32bit", "64bit"]


@checks("time_str")
def time_str() -> None:
    assert drqueue.time_str(0) == "0 seconds"
    assert drqueue.time_str(59) == "59 seconds"
    assert drqueue.time_str(61) == "1 minutes 1 seconds"
    assert drqueue.time_str(3600) == "1 hours 0 minutes 0 seconds"
    assert drqueue.time_str(360_001) == "100 hours 0 minutes 1 seconds"


@checks("error_text")
def error_text() -> None:
    assert drqueue.error_text(drqueue.DRE_CONNMASTER) == "Could not connect to master"
    assert drqueue.error_text(drqueue.DRE_NOTCOMPLETE) == "Information not complete."
    assert drqueue.error_text(drqueue.DRE_NETWORKINIT) == drqueue.error_text(-1) == "drerrno NOT listed !!"


# -- a job object -----------------------------------------------------------------------------------------


def job_of(start: int, end: int, step: int, block: int) -> drqueue.job:
    job = drqueue.job()
    job.frame_start, job.frame_end, job.frame_step, job.block_size = start, end, step, block
    return job


@checks("job_nframes")
def job_nframes() -> None:
    for numbers, count in (
        ((1, 10, 3, 1), 4),
        ((1, 10, 3, 2), 2),
        ((1, 10, 1, 4), 3),
        ((5, 5, 7, 9), 1),
        ((5, 4, 1, 1), 0),
        ((5, 1, 1, 1), 0),
        ((1, 10, 0, 1), 0),
        ((1, 10, 1, 0), 0),
    ):
        assert drqueue.job_nframes(job_of(*numbers)) == count, numbers


@checks("job_frame_index_to_number")
@checks("job_frame_number_to_index")
def job_frame_indices_and_numbers() -> None:
    """Not checked against the range; any number of a block has the block's index."""
    for numbers, members in (
        ((1, 10, 3, 1), [1, 4, 7, 10, 13]),
        ((1, 10, 3, 2), [1, 7, 13]),
        ((1, 10, 1, 4), [1, 5, 9, 13]),
    ):
        job = job_of(*numbers)
        assert [drqueue.job_frame_index_to_number(job, i) for i in range(len(members))] == members
        assert [drqueue.job_frame_number_to_index(job, n) for n in members] == list(range(len(members)))
    assert [drqueue.job_frame_number_to_index(job_of(1, 10, 1, 4), n) for n in range(1, 11)] == [
        *[0] * 4,
        *[1] * 4,
        *[2] * 2,
    ]


@checks("job_frame_number_correct")
def job_frame_number_correct() -> None:
    right = [n for n in range(14) if drqueue.job_frame_number_correct(job_of(1, 10, 3, 2), n) == 1]
    assert right == [1, 4, 7, 10]
    assert drqueue.job_frame_number_correct(job_of(1, 10, 3, 2), 2) == 0


def filled_job() -> drqueue.job:
    job = job_of(1, 3, 1, 1)
    job.name, job.cmd, job.status, job.limits.pool = "shot", "true", 3, "gpu"
    job.environment_variable_add("A", "1")
    drqueue.job_block_host_add_by_name(job, "s1")
    return job


def is_new(job: drqueue.job) -> bool:
    texts = (job.name, job.cmd, job.limits.pool) == ("", "", drqueue.DEFAULT_POOL)
    return texts and (job.status, job.frame_end, job.envvars.nvariables, job.nblocked) == (0, 1, 0, 0)


@checks("job_init")
@checks("job_delete")
def job_init_and_delete() -> None:
    for empty in (drqueue.job_init, drqueue.job_delete):
        job = filled_job()
        assert not is_new(job)
        empty(job)
        assert is_new(job)


@checks("job_copy")
def job_copy() -> None:
    """All of it, and nothing is shared."""
    job, other = filled_job(), drqueue.job()
    assert drqueue.job_copy(job, other) == 1
    assert (other.name, other.limits.pool, other.environment_variable_find("A")) == ("shot", "gpu", "1")
    assert [host.name for host in other.blocked_host.ptr] == ["s1"]
    other.limits.pool = "cpu"
    other.environment_variable_add("A", "2")
    other.blocked_host.ptr[0].name = "s2"
    assert (job.limits.pool, job.environment_variable_find("A")) == ("gpu", "1")
    assert job.blocked_host.ptr[0].name == "s1"


@checks("job_report")
def job_report() -> None:
    job = filled_job()
    job.koj = drqueue.KOJ_BLENDER
    job.koji.blender.scene = "/p/a.blend"
    said = printed(lambda: drqueue.job_report(job))
    for part in ("shot", "Finished", "Blender", "true", "1 to 3", "gpu", "/p/a.blend", "A=1", "s1"):
        assert part in said, part


@checks("job_limits_init")
def job_limits_init() -> None:
    """Of limits; or of a job, as in 2006."""
    for of_a_job in (False, True):
        job = filled_job()
        job.limits.nmaxcpus, job.limits.memory = 1, 1
        drqueue.job_limits_init(job if of_a_job else job.limits)
        assert (job.limits.nmaxcpus, job.limits.memory, job.limits.pool) == (65535, 0, "Default")
        assert job.name == "shot"


@checks("job_frame_info_init")
def job_frame_info_init() -> None:
    frame = drqueue.frame_info()
    frame.status, frame.requeued = 3, 2
    drqueue.job_frame_info_init(frame)
    assert (frame.status, frame.requeued) == (0, 0)


@checks("job_stop")
@checks("job_continue")
def job_stop_and_continue() -> None:
    """The local status, as the master would have it."""
    for call, becomes in ((drqueue.job_stop, [2, 2, 2, 3]), (drqueue.job_continue, [0, 1, 0, 0])):
        job, found = drqueue.job(), []
        for status in range(4):
            job.status = status
            call(job)
            found.append(job.status)
        assert found == becomes


@checks("job_block_host_add_by_name")
@checks("job_block_host_remove_by_name")
@checks("job_block_host_exists_by_name")
def job_block_hosts() -> None:
    job = drqueue.job()
    assert drqueue.job_block_host_exists_by_name(job, "s1") == 0
    assert [drqueue.job_block_host_add_by_name(job, name) for name in ("s1", "s2", "s1")] == [1, 1, 0]
    assert drqueue.job_block_host_exists_by_name(job, "s1") == 1
    assert [host.name for host in job.blocked_host.ptr] == ["s1", "s2"]
    assert [drqueue.job_block_host_remove_by_name(job, name) for name in ("s1", "s3", "s2")] == [1, 0, 1]
    assert job.nblocked == 0


@checks("priority_job_compare")
def priority_job_compare() -> None:
    """Higher priorities, then earlier ones, then lower places."""
    rows = [(0, 500, 20), (1, 900, 30), (2, 500, 10), (3, 500, 10)]
    jobs, places = [], []
    for index, priority, submitted in rows:
        jobs.append(job := drqueue.job())
        job.id, job.priority, job.submit_time = index, priority, submitted
        places.append(place := drqueue.tpol())
        place.index, place.pri, place.submit_time = index, priority, submitted
    order = functools.cmp_to_key(drqueue.priority_job_compare)
    assert [job.id for job in sorted(jobs, key=order)] == [1, 2, 3, 0]
    assert [place.index for place in sorted(places, key=order)] == [1, 2, 3, 0]
    assert drqueue.priority_job_compare(jobs[0], jobs[0]) == 0


@checks("mn_job_finished")
def mn_job_finished() -> None:
    """The mail goes to the job's address, or else its owner, through the machine's sendmail."""
    job = filled_job()
    job.email, job.avg_frame_time = "anna@example.com", 60
    with tempfile.TemporaryDirectory() as folder:
        program, box = Path(folder, "sendmail"), Path(folder, "box")
        program.write_text(f"#!/bin/sh\nexec {shutil.which('cat')} > {box}\n")
        program.chmod(0o755)
        with mock.patch.object(mail, "SENDMAIL_AT", (str(program),)), mock.patch.dict(os.environ, PATH=""):
            assert drqueue.mn_job_finished(job) == 1
            text = box.read_text()
            assert "Subject: Your job (shot) is finished" in text
            assert "To: anna@example.com" in text
            assert "Total number of frames: 3" in text
            job.email, job.owner = "", "bert"
            assert drqueue.mn_job_finished(job) == 1
            assert "To: bert" in box.read_text()
            job.email = "; rm -rf /"
            with pytest.raises(OSError, match="rm -rf"):
                drqueue.mn_job_finished(job)


# -- variables --------------------------------------------------------------------------------------------


@checks("envvars_init")
@checks("envvars_empty")
@checks("envvars_free")
@checks("envvars_variable_add")
@checks("envvars_variable_delete")
@checks("envvars_variable_find")
def envvars() -> None:
    each = drqueue.envvars()
    for empty in (drqueue.envvars_init, drqueue.envvars_empty, drqueue.envvars_free):
        assert [drqueue.envvars_variable_add(each, name, name * 2) for name in ("A", "B", "A")] == [1] * 3
        assert each.nvariables == 2
        found = drqueue.envvars_variable_find(each, "B")
        assert found is not None
        assert (type(found), found.name, found.value) == (drqueue.envvar, "B", "BB")
        assert drqueue.envvars_variable_add(each, "B", "new") == 1
        assert drqueue.envvars_variable_find(each, "B") is found
        assert found.value == "new"
        assert [drqueue.envvars_variable_delete(each, name) for name in ("B", "B")] == [1, 1]
        assert drqueue.envvars_variable_find(each, "B") is None
        assert empty(each) == 1
        assert each.nvariables == 0


# -- this process -----------------------------------------------------------------------------------------


@checks("job_environment_set")
def job_environment_set() -> None:
    """The variables of a frame and of the job's kind; the job's own win."""
    job = job_of(1, 10, 3, 2)
    job.name, job.owner, job.id, job.koj = "shot", "anna", 12, drqueue.KOJ_MAYA
    job.koji.maya.scene, job.koji.maya.renderdir, job.koji.maya.image = "/p/a.ma", "/p/out", "a"
    job.environment_variable_add("DRQUEUE_OWNER", "bert")
    drqueue.job_environment_set(job, 1)
    wanted = {
        "FRAME": "7", "PADFRAME": "0007", "PADFRAMES": "0007 0010", "STARTFRAME": "1", "ENDFRAME": "10",
        "STEPFRAME": "3", "BLOCKSIZE": "2", "OWNER": "bert", "JOBNAME": "shot", "JOBID": "12", "BASE": "shot",
        "SCENE": "/p/a.ma", "RD": "/p/out", "IMAGE": "a", "PD": "", "PRE": "", "POST": "",
        "OS": {"Linux": "LINUX", "Darwin": "OSX", "FreeBSD": "FREEBSD"}.get(platform.system(), "IRIX"),
    }  # fmt: skip
    assert {name: os.environ.get(f"DRQUEUE_{name}") for name in wanted} == wanted
    with pytest.raises(IndexError):
        drqueue.job_environment_set(job, 2)


@checks("view_command")
def view_command() -> None:
    """The job's own, else its kind's; with the job's variables it is what a shell runs."""
    job = drqueue.job()
    assert drqueue.view_command(job) == ""
    job.koj = drqueue.KOJ_BLENDER
    assert drqueue.view_command(job) == "display image.$DRQUEUE_FRAME.jpg"
    assert drqueue.DEFAULT_VIEW_COMMANDS[drqueue.KOJ_BLENDER] == drqueue.view_command(job)
    job.koji.blender.viewcmd = 'echo "$DRQUEUE_PADFRAME $DRQUEUE_SCENE"'
    job.koji.blender.scene = "/p/a b.blend"
    drqueue.job_environment_set(job, 0)
    said = subprocess.run(drqueue.view_command(job), shell=True, capture_output=True, text=True, check=True)
    assert said.stdout == "0001 /p/a b.blend\n"


@checks("set_default_env")
@checks("common_environment_check")
def environment_and_folders() -> None:
    """Folders of DRQUEUE_ROOT where nothing else is said; 1 once all is as it must be."""
    for name in [name for name in os.environ if name.startswith("DRQUEUE_")]:
        del os.environ[name]
    with pytest.raises(SystemExit):
        drqueue.set_default_env()
    with tempfile.TemporaryDirectory() as root:
        os.environ["DRQUEUE_ROOT"], os.environ["DRQUEUE_DB"] = root, f"{root}/elsewhere"
        drqueue.set_default_env()
        folders = {name: os.environ[f"DRQUEUE_{name}"] for name in ("TMP", "ETC", "BIN", "LOGS", "DB")}
        assert folders == {
            **{name: f"{root}/{name.lower()}" for name in ("TMP", "ETC", "BIN", "LOGS")},
            "DB": f"{root}/elsewhere",
        }
        for path in folders.values():
            assert drqueue.common_environment_check() == 0
            Path(path).mkdir()
        Path(folders["TMP"]).chmod(0o1777)
        assert drqueue.common_environment_check() == 0
        os.environ["DRQUEUE_MASTER"] = "localhost"
        assert drqueue.common_environment_check() == 1
        for name, mode in (("TMP", 0o755), ("LOGS", 0o555), ("DB", 0o555)):
            before = Path(folders[name]).stat().st_mode
            Path(folders[name]).chmod(mode)
            assert drqueue.common_environment_check() == 0, name
            Path(folders[name]).chmod(before)
        assert drqueue.common_environment_check() == 1


@checks("get_version_prepost")
@checks("get_revision_string")
@checks("get_version_complete")
@checks("show_version")
def versions() -> None:
    revision = drqueue.get_revision_string()
    assert revision == f"drqueue {drqueue.__version__}"
    assert drqueue.get_version_prepost() == ""
    assert drqueue.get_version_complete() == f"0.64.4 ({revision})"
    assert drqueue.get_version_complete() in printed(lambda: drqueue.show_version(["/usr/bin/tool"]))


@checks("common_date_check")
def common_date_check() -> None:
    assert drqueue.common_date_check() == 1


@checks("job_logs_remove")
@checks("remove_dir")
@checks("rmdir_check_str")
def nothing_is_removed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DRQUEUE_LOGS"] = folder
        job = filled_job()
        logs = Path(folder, f"{job.id:03d}.{job.name}")
        logs.mkdir()
        assert drqueue.job_logs_remove(job) == 0
        assert drqueue.remove_dir(folder) == 0
        assert drqueue.rmdir_check_str(folder) == 0
        assert logs.is_dir()


@checks("dr_copy_path")
def dr_copy_path() -> None:
    """As much as fits, the end of a C string included."""
    assert drqueue.dr_copy_path("", "/a/path", 100) == "/a/path"
    assert drqueue.dr_copy_path("", "/a/path", 4) == "/a/"
    assert drqueue.dr_copy_path("", "/ä", 3) == "/"


# -- this machine -----------------------------------------------------------------------------------------


@checks("get_numproc")
@checks("get_memory")
@checks("get_procspeed")
@checks("get_proctype")
@checks("get_speedindex")
@checks("computer_info_nnbits")
@checks("get_hwinfo")
@checks("report_hwinfo")
def this_machine() -> None:
    assert drqueue.get_numproc() == psutil.cpu_count()
    assert drqueue.get_memory() == psutil.virtual_memory().total >> 20
    assert 0 <= drqueue.get_procspeed() < 100_000
    assert drqueue.proctypestring(drqueue.get_proctype())
    assert drqueue.computer_info_nnbits() == int(platform.architecture()[0][:2])
    found = drqueue.computer_hwinfo()
    found.address, found.id = "10.0.0.1", 4
    drqueue.get_hwinfo(found)
    assert (found.name, found.ncpus) == (platform.node().partition(".")[0], drqueue.get_numproc())
    assert (found.memory, found.nnbits) == (drqueue.get_memory(), drqueue.computer_info_nnbits())
    assert found.proctype == drqueue.get_proctype()
    assert found.speedindex == (found.proctype + 1) * found.procspeed
    assert drqueue.osstring(found.os) in (platform.system(), "Mac OSX", "Windows")
    assert (found.address, found.id) == ("10.0.0.1", 4)
    found.proctype, found.procspeed = drqueue.PROCTYPE_OPTERON, 2000
    assert drqueue.get_speedindex(found) == 22_000
    said = printed(lambda: drqueue.report_hwinfo(found))
    for part in (found.name, "10.0.0.1", "Opteron", "2000", f"{found.memory}"):
        assert part in said, part


@checks("get_loadavg")
def get_loadavg() -> None:
    """Returned, and written into the list that is given."""
    into = [0, 0, 0]
    found = drqueue.get_loadavg(into)
    assert into == found
    assert len(drqueue.get_loadavg()) == 3
    for measured, load in zip(psutil.getloadavg(), found, strict=True):
        assert abs(measured * 100 - load) < 500
