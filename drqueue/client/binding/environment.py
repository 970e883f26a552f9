"""The environment of a frame's command or view command, and the original's folders.

Rules of this file: variables and values are the original's, with one change: DRQUEUE_PADFRAMES names the
block's real frames, step and all. They are only ever set, never removed, in this process. What a job adds by
itself comes last and wins.
"""

import os
import platform
import stat
from collections.abc import Iterator
from typing import Final

from drqueue.client.binding import constants as c
from drqueue.client.binding.hardware import os_of
from drqueue.client.binding.koji import MEMBERS
from drqueue.client.binding.numbering import job_unit_members
from drqueue.client.binding.structures import job, task

#: Characters of DRQUEUE_PADFRAMES; longer ones would keep any command from being started, and are left out.
_LONGEST: Final = 120_000
#: The variables of each kind, without DRQUEUE_, and the fields that they show. Two scenes are a SCRIPT, and a
#: terrain file is a CD, as in the original; V-Ray and 3ds Max have none.
_VIEW: Final = {
    c.KOJ_MAYA: (
        ("SCENE", "scene"),
        ("RD", "renderdir"),
        ("PD", "projectdir"),
        ("PRE", "precommand"),
        ("POST", "postcommand"),
        ("IMAGE", "image"),
    ),
    c.KOJ_MENTALRAY: (("SCENE", "scene"), ("RD", "renderdir"), ("IMAGE", "image")),
    c.KOJ_BLENDER: (("SCENE", "scene"),),
    c.KOJ_BMRT: (("SCENE", "scene"),),
    c.KOJ_PIXIE: (("SCENE", "scene"),),
    c.KOJ_3DELIGHT: (("SCENE", "scene"),),
    c.KOJ_NUKE: (("SCENE", "scene"),),
    c.KOJ_LUXRENDER: (("SCENE", "scene"),),
    c.KOJ_LIGHTWAVE: (("SCENE", "scene"), ("PD", "projectdir"), ("CD", "configdir")),
    c.KOJ_AFTEREFFECTS: (("PROJECT", "project"), ("COMP", "comp")),
    c.KOJ_SHAKE: (("SCRIPT", "script"),),
    c.KOJ_AQSIS: (("SCRIPT", "scene"),),
    c.KOJ_MANTRA: (("SCRIPT", "scene"), ("RD", "renderdir")),
    c.KOJ_TERRAGEN: (("SCENE", "scriptfile"), ("WF", "worldfile"), ("CD", "terrainfile")),
    c.KOJ_TURTLE: (("SCENE", "scene"), ("RD", "renderdir"), ("PD", "projectdir"), ("IMAGE", "image")),
    c.KOJ_XSI: (
        ("SCENE", "scene"),
        ("PASS", "xsipass"),
        ("RD", "renderdir"),
        ("IMAGE", "image"),
        ("IMAGEEXT", "imageExt"),
    ),
}
_FCHECK: Final = "fcheck $DRQUEUE_RD/$DRQUEUE_IMAGE.$DRQUEUE_PADFRAME"
_IMF_DISP: Final = "imf_disp $DRQUEUE_RD/$DRQUEUE_IMAGE.$DRQUEUE_FRAME.iff"
_DISPLAY_TIF: Final = "display $DRQUEUE_RD/$DRQUEUE_IMAGE.$DRQUEUE_FRAME.tif"
_DISPLAY_JPG: Final = "display image.$DRQUEUE_FRAME.jpg"

DEFAULT_VIEW_COMMANDS: Final = {
    c.KOJ_MAYA: f"{_FCHECK}.sgi",
    c.KOJ_TURTLE: f"{_FCHECK}.sgi",
    c.KOJ_LIGHTWAVE: f"{_FCHECK}.tif",
    c.KOJ_NUKE: f"{_FCHECK}.tif",
    c.KOJ_TERRAGEN: f"{_FCHECK}.tif",
    c.KOJ_MENTALRAY: _IMF_DISP,
    c.KOJ_3DELIGHT: _IMF_DISP,
    c.KOJ_AQSIS: _DISPLAY_TIF,
    c.KOJ_MANTRA: _DISPLAY_TIF,
    c.KOJ_BLENDER: _DISPLAY_JPG,
    c.KOJ_PIXIE: _DISPLAY_JPG,
    c.KOJ_SHAKE: _DISPLAY_JPG,
    c.KOJ_LUXRENDER: _DISPLAY_JPG,
    c.KOJ_XSI: "$DRQUEUE_BIN/viewcmd/imf_batch",
}
"""What shows a frame of each kind of job where the job does not say; kinds that are not here have nothing."""

_FOLDERS: Final = {
    "DRQUEUE_TMP": "tmp",
    "DRQUEUE_ETC": "etc",
    "DRQUEUE_BIN": "bin",
    "DRQUEUE_LOGS": "logs",
    "DRQUEUE_DB": "db",
}


def view_command(job: job) -> str:
    """What shows a frame of the job, for a shell with `job_environment_set`: its own, its kind's, or ""."""
    member = getattr(job.koji, MEMBERS.get(job.koj, "general"))
    return getattr(member, "viewcmd", "") or DEFAULT_VIEW_COMMANDS.get(job.koj, "")


def job_environment_set(job: job, iframe: int) -> None:
    """Put the variables of the frame at index `iframe`, and those of the job's kind, into this process.

    IndexError where the job has no such frame; ValueError for a variable of the job that no process can have.
    """
    members = job_unit_members(job, iframe)
    variables = _frame_variables(
        members,
        pad=job.frame_pad,
        start=job.frame_start,
        end=job.frame_end,
        step=job.frame_step,
        block=job.block_size,
    )
    variables |= {
        "DRQUEUE_OWNER": job.owner,
        "DRQUEUE_JOBNAME": job.name,
        "DRQUEUE_JOBID": str(job.id),
        "DRQUEUE_BASE": job.name,
    }
    if job.koj in _VIEW:
        info = getattr(job.koji, MEMBERS[job.koj])
        variables |= {f"DRQUEUE_{name}": getattr(info, field) for name, field in _VIEW[job.koj]}
    os.environ.update(variables)
    os.environ.update({each.name: each.value for each in job.envvars.variables.ptr})


def task_environment_set(task: task) -> None:
    """Put the variables of a task's frame into this process."""
    step, block = max(1, task.frame_step), max(1, task.block_size)
    last = min(task.frame_end, task.frame + (block - 1) * step)
    os.environ.update(
        _frame_variables(
            range(task.frame, max(last, task.frame) + 1, step),
            pad=task.frame_pad,
            start=task.frame_start,
            end=task.frame_end,
            step=task.frame_step,
            block=task.block_size,
        )
        | {
            "DRQUEUE_OWNER": task.owner,
            "DRQUEUE_JOBNAME": task.jobname,
            "DRQUEUE_JOBID": str(task.ijob),
            "DRQUEUE_COMPID": str(task.icomp),
        }
    )


def _frame_variables(
    members: range, *, pad: int, start: int, end: int, step: int, block: int
) -> dict[str, str]:
    variables = {
        "DRQUEUE_FRAME": str(members[0]),
        "DRQUEUE_PADFRAME": str(members[0]).zfill(pad),
        "DRQUEUE_STARTFRAME": str(start),
        "DRQUEUE_ENDFRAME": str(end),
        "DRQUEUE_STEPFRAME": str(step),
        "DRQUEUE_BLOCKSIZE": str(block),
        "DRQUEUE_OS": _os_name(os_of(platform.system())),
    }
    if len(members) * (max(pad, len(str(members[-1]))) + 1) <= _LONGEST:
        variables["DRQUEUE_PADFRAMES"] = " ".join(str(number).zfill(pad) for number in members)
    return variables


def _os_name(system: int) -> str:
    names = {
        c.OS_LINUX: "LINUX",
        c.OS_FREEBSD: "FREEBSD",
        c.OS_OSX: "OSX",
        c.OS_WINDOWS: "WINDOWS",
        c.OS_CYGWIN: "WINDOWS",
    }
    return names.get(system, "IRIX")


def set_default_env() -> None:
    """Set DRQUEUE_TMP, _ETC, _BIN, _LOGS and _DB to folders of DRQUEUE_ROOT, where they are not set.

    Ends the program (SystemExit, status 1) where DRQUEUE_ROOT is not set.
    """
    root = os.environ.get("DRQUEUE_ROOT")
    if not root:
        raise SystemExit(c.error_text(c.DRE_NOENVROOT))
    for name, folder in _FOLDERS.items():
        os.environ.setdefault(name, os.path.join(root, folder))


def common_environment_check() -> int:
    """1 where DRQUEUE_MASTER and DRQUEUE_ROOT are set and the original's folders are fit for use, else 0.

    Everybody may write to the folder tmp, its owner to db and logs; bin and etc are there.
    """
    return int(next(environment_problems(), None) is None)


def environment_problems() -> Iterator[int]:
    """What `common_environment_check` finds, as DRE_* codes."""
    root = os.environ.get("DRQUEUE_ROOT", "")
    if not os.environ.get("DRQUEUE_MASTER"):
        yield c.DRE_NOENVMASTER
    if not root:
        yield c.DRE_NOENVROOT
        return
    checks: tuple[tuple[str, int, int], ...] = (
        ("DRQUEUE_TMP", stat.S_IWOTH, c.DRE_NOTMPDIR),
        ("DRQUEUE_DB", stat.S_IWUSR, c.DRE_NODBDIR),
        ("DRQUEUE_LOGS", stat.S_IWUSR, c.DRE_NOLOGDIR),
        ("DRQUEUE_BIN", 0, c.DRE_NOBINDIR),
        ("DRQUEUE_ETC", 0, c.DRE_NOETCDIR),
    )
    for name, writable, code in checks:
        folder = os.environ.get(name) or os.path.join(root, _FOLDERS[name])
        try:
            mode = os.stat(folder).st_mode
        except OSError:
            yield code
            continue
        if not stat.S_ISDIR(mode) or mode & writable != writable:
            yield code
