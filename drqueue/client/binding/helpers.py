"""The original's helper functions, all under one roof; what is longer has a file of its own.

Rules of this file: names, arguments and results are the original's. Nothing here removes a file: what the
original had for that was switched off there, too, and answers 0, "nothing was removed".
"""

import os
import sys
from collections.abc import Sequence

import drqueue
from drqueue.client.binding import constants as c
from drqueue.client.binding.computer_helpers import (
    check_tasks,
    computer_init,
    computer_limits_cpu_init,
    computer_limits_init,
    computer_nrunning,
    computer_nrunning_job,
    computer_ntasks,
    computer_status_init,
    get_computer_status,
    report_computer_status,
    report_hwinfo,
    task_init,
    task_init_all,
    task_is_running,
    task_report,
    task_set_to_job_frame,
)
from drqueue.client.binding.environment import (
    DEFAULT_VIEW_COMMANDS,
    common_environment_check,
    job_environment_set,
    set_default_env,
    task_environment_set,
    view_command,
)
from drqueue.client.binding.fields import text, whole
from drqueue.client.binding.job_helpers import (
    envvars_empty,
    envvars_free,
    envvars_init,
    envvars_variable_add,
    envvars_variable_delete,
    envvars_variable_find,
    job_block_host_add_by_name,
    job_block_host_exists_by_name,
    job_block_host_remove_by_name,
    job_continue,
    job_copy,
    job_delete,
    job_frame_info_init,
    job_init,
    job_limits_init,
    job_report,
    job_stop,
    priority_job_compare,
)
from drqueue.client.binding.numbering import (
    job_frame_index_to_number,
    job_frame_number_correct,
    job_frame_number_to_index,
    job_nframes,
)
from drqueue.client.binding.strings import (
    archstring,
    bitsstring,
    job_frame_status_string,
    job_koj_string,
    job_status_string,
    osstring,
    proctypestring,
    task_status_string,
    time_str,
)
from drqueue.client.binding.structures import job
from drqueue.client.binding.this_machine import (
    computer_info_nnbits,
    get_hwinfo,
    get_loadavg,
    get_memory,
    get_numproc,
    get_procspeed,
    get_proctype,
    get_speedindex,
)

__all__ = [
    "DEFAULT_VIEW_COMMANDS",
    "archstring",
    "bitsstring",
    "check_tasks",
    "common_date_check",
    "common_environment_check",
    "computer_info_nnbits",
    "computer_init",
    "computer_limits_cpu_init",
    "computer_limits_init",
    "computer_nrunning",
    "computer_nrunning_job",
    "computer_ntasks",
    "computer_status_init",
    "dr_copy_path",
    "envvars_empty",
    "envvars_free",
    "envvars_init",
    "envvars_variable_add",
    "envvars_variable_delete",
    "envvars_variable_find",
    "get_computer_status",
    "get_hwinfo",
    "get_loadavg",
    "get_memory",
    "get_numproc",
    "get_procspeed",
    "get_proctype",
    "get_revision_string",
    "get_speedindex",
    "get_version_complete",
    "get_version_prepost",
    "job_block_host_add_by_name",
    "job_block_host_exists_by_name",
    "job_block_host_remove_by_name",
    "job_continue",
    "job_copy",
    "job_delete",
    "job_environment_set",
    "job_frame_index_to_number",
    "job_frame_info_init",
    "job_frame_number_correct",
    "job_frame_number_to_index",
    "job_frame_status_string",
    "job_init",
    "job_koj_string",
    "job_limits_init",
    "job_logs_remove",
    "job_nframes",
    "job_report",
    "job_status_string",
    "job_stop",
    "mn_job_finished",
    "osstring",
    "priority_job_compare",
    "proctypestring",
    "remove_dir",
    "report_computer_status",
    "report_hwinfo",
    "rmdir_check_str",
    "set_default_env",
    "show_version",
    "task_environment_set",
    "task_init",
    "task_init_all",
    "task_is_running",
    "task_report",
    "task_set_to_job_frame",
    "task_status_string",
    "time_str",
    "view_command",
]


def get_version_prepost() -> str:
    """What stands behind a version that is not yet, or no longer, the release: nothing."""
    return ""


def get_revision_string() -> str:
    """Which program this really is, as "drqueue 1.0.0"."""
    return f"drqueue {drqueue.__version__}"


def get_version_complete() -> str:
    """The version of the original that this is compatible with, and which program this is."""
    version = f"{c.VERSION_MAJOR}.{c.VERSION_MINOR}.{c.VERSION_PATCH}{get_version_prepost()}"
    return f"{version} ({get_revision_string()})"


def show_version(argv: Sequence[str]) -> None:
    """Print the program's name (`argv[0]`) and the version."""
    name = os.path.basename(argv[0]) if argv else os.path.basename(sys.argv[0])
    print(f"{name} version {get_version_complete()}")


def common_date_check() -> int:
    """1: the original's licence once had a last day."""
    return 1


def mn_job_finished(job: job) -> int:
    """Send the mail that says that a job is finished, to `job.email` or else its owner, by sendmail.

    1, or OSError.
    """
    from drqueue import mail  # starts programs: only who mails loads it

    try:
        mail.send_finished(
            "",
            to=job.email or job.owner,
            name=job.name,
            frames=job_nframes(job),
            mean_s=float(job.avg_frame_time),
            failed=job.ffailed,
            job=job.id,
        )
    except mail.MailError as error:
        raise OSError(str(error)) from error
    return 1


def job_logs_remove(job: job) -> int:
    """Remove nothing, as the original; 0."""
    return 0


def remove_dir(dir: str) -> int:
    """Remove nothing, as the original; 0."""
    text(dir, "dir", c.PATH_MAX)
    return 0


def rmdir_check_str(path: str) -> int:
    """Whether a folder may be removed by `remove_dir`: never; 0."""
    text(path, "path", c.PATH_MAX)
    return 0


def dr_copy_path(dst: object, src: str, n: int) -> str:
    """The path `src` as a C buffer of `n` bytes would hold it: returned, since no str can be written to.

    `dst` is there for the original's order of arguments. On Windows a back-slash is doubled.
    """
    whole(n, 1, 2**31 - 1, "n")
    path = text(src, "src", 2**31 - 1)
    if os.sep == "\\":
        path = path.replace("\\", "\\\\")
    return path.encode("utf-8", "surrogateescape")[: n - 1].decode("utf-8", "ignore")
