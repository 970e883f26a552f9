"""What the binding's numbers are called: states, kinds, systems, processors, times.

Rules of this file: texts are the original's. A number that it had no text for gives its "DEFAULT (ERROR)",
and so do the kinds and the processor that it forgot (Aqsis, V-Ray, 3ds Max, BMRT, Core 2): programs compare.
"""

from typing import Final, Protocol

from drqueue.client.binding import constants as c
from drqueue.client.binding.fields import u8, u16, u32

_NO_TEXT: Final = "DEFAULT (ERROR)"
_JOB_STATES: Final = {
    c.JOBSTATUS_WAITING: "Waiting",
    c.JOBSTATUS_ACTIVE: "Active",
    c.JOBSTATUS_STOPPED: "Stopped",
    c.JOBSTATUS_FINISHED: "Finished",
}
_FRAME_STATES: Final = {
    c.FS_WAITING: "Waiting",
    c.FS_ASSIGNED: "Running",
    c.FS_ERROR: "Error",
    c.FS_FINISHED: "Finished",
}
_TASK_STATES: Final = {
    c.TASKSTATUS_LOADING: "Loading",
    c.TASKSTATUS_RUNNING: "Running",
    c.TASKSTATUS_FINISHED: "Finished",
}
_KINDS: Final = {
    c.KOJ_GENERAL: "General",
    c.KOJ_MAYA: "Maya",
    c.KOJ_MENTALRAY: "Mental Ray",
    c.KOJ_BLENDER: "Blender",
    c.KOJ_PIXIE: "Pixie",
    c.KOJ_3DELIGHT: "3delight",
    c.KOJ_LIGHTWAVE: "Lightwave",
    c.KOJ_NUKE: "Nuke",
    c.KOJ_TERRAGEN: "Terragen",
    c.KOJ_AFTEREFFECTS: "After Effects",
    c.KOJ_SHAKE: "Shake",
    c.KOJ_TURTLE: "Turtle",
    c.KOJ_MANTRA: "Mantra/Houdini",
    c.KOJ_XSI: "XSI",
    c.KOJ_LUXRENDER: "Luxrender",
}
_SYSTEMS: Final = {
    c.OS_UNKNOWN: "UNKNOWN",
    c.OS_IRIX: "Irix",
    c.OS_LINUX: "Linux",
    c.OS_CYGWIN: "Windows",
    c.OS_WINDOWS: "Windows",
    c.OS_OSX: "Mac OSX",
    c.OS_FREEBSD: "FreeBSD",
}
_ARCHITECTURES: Final = {
    c.ARCH_UNKNOWN: "UNKNOWN",
    c.ARCH_INTEL: "Intel",
    c.ARCH_MIPS: "Mips",
    c.ARCH_PPC: "PowerPC",
    c.ARCH_SPARC: "Sparc",
    c.ARCH_POWER: "Power",
}
_PROCESSORS: Final = {
    c.PROCTYPE_UNKNOWN: "UNKNOWN",
    c.PROCTYPE_INTEL_UNKNOWN: "Intel (not listed)",
    c.PROCTYPE_PENTIUM: "Pentium",
    c.PROCTYPE_PENTIUMII: "Pentium II",
    c.PROCTYPE_PENTIUMIII: "Pentium III",
    c.PROCTYPE_PENTIUM4: "Pentium 4",
    c.PROCTYPE_INTELXEON: "Xeon",
    c.PROCTYPE_INTELIA64: "IA-64",
    c.PROCTYPE_PENTIUMM: "Pentium M",
    c.PROCTYPE_ATHLON: "Athlon",
    c.PROCTYPE_OPTERON: "Opteron",
    c.PROCTYPE_MIPSR5000: "R5000",
    c.PROCTYPE_MIPSR10000: "R10000",
    c.PROCTYPE_MIPSR12000: "R12000",
    c.PROCTYPE_PPC: "PPC",
    c.PROCTYPE_ULTRASPARC: "Ultrasparc",
    c.PROCTYPE_CELLBE: "Cell Broadband Engine",
}


class _OfAKind(Protocol):
    @property
    def koj(self) -> int: ...


def job_status_string(status: int) -> str:
    """What a job's state (JOBSTATUS_*) is called."""
    return _JOB_STATES.get(u16(status, "status"), _NO_TEXT)


def job_frame_status_string(status: int) -> str:
    """What a frame's state (FS_*) is called."""
    return _FRAME_STATES.get(u8(status, "status"), _NO_TEXT)


def task_status_string(status: int) -> str:
    """What a task's state (TASKSTATUS_*) is called; "UNKNOWN" for any other number."""
    return _TASK_STATES.get(u8(status, "status"), "UNKNOWN")


def job_koj_string(job: _OfAKind) -> str:
    """What the kind of a job is called."""
    return _KINDS.get(job.koj, _NO_TEXT)


def osstring(os: int) -> str:
    """What an operating system (OS_*) is called."""
    return _SYSTEMS.get(u8(os, "os"), _NO_TEXT)


def archstring(arch: int) -> str:
    """What an architecture (ARCH_*) is called."""
    return _ARCHITECTURES.get(u8(arch, "arch"), _NO_TEXT)


def proctypestring(proctype: int) -> str:
    """What a processor (PROCTYPE_*) is called."""
    return _PROCESSORS.get(u8(proctype, "proctype"), _NO_TEXT)


def bitsstring(nnbits: int) -> str:
    """ "32bit" or "64bit"; "Unknown" for any other number."""
    return {32: "32bit", 64: "64bit"}.get(u8(nnbits, "nnbits"), "Unknown")


def time_str(seconds: int) -> str:
    """A length of time in words, as "1 hours 2 minutes 3 seconds"; leading zeros are left out."""
    minutes, rest = divmod(u32(seconds, "seconds"), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} hours {minutes} minutes {rest} seconds"
    return f"{minutes} minutes {rest} seconds" if minutes else f"{rest} seconds"
