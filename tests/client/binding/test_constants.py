"""Constants, and what numbers are called: all as the original's."""

import pytest

from drqueue.client.binding import constants as c
from drqueue.client.binding import helpers
from drqueue.client.binding.structures import job

#: Names with their values in order, counted from the number in front.
SERIES = """
0 JOBSTATUS_ WAITING ACTIVE STOPPED FINISHED
0 FS_ WAITING ASSIGNED ERROR FINISHED
0 TASKSTATUS_ LOADING RUNNING FINISHED
0 KOJ_ GENERAL MAYA BLENDER BMRT 3DELIGHT PIXIE MENTALRAY LIGHTWAVE AFTEREFFECTS SHAKE AQSIS TERRAGEN NUKE \
TURTLE MANTRA XSI LUXRENDER VRAY 3DSMAX
0 OS_ UNKNOWN IRIX LINUX CYGWIN WINDOWS OSX FREEBSD
0 ARCH_ UNKNOWN INTEL MIPS PPC SPARC POWER
0 PROCTYPE_ UNKNOWN INTEL_UNKNOWN PENTIUM PENTIUMII PENTIUMIII PENTIUM4 INTELXEON INTELIA64 PENTIUMM ATHLON \
OPTERON MIPSR5000 MIPSR10000 MIPSR12000 PPC INTEL_CORE2 ULTRASPARC CELLBE
1 R_R_ REGISTER UCSTATUS REGISJOB AVAILJOB TASKFINI LISTJOBS LISTCOMP DELETJOB STOPJOB CONTJOB HSTOPJOB \
JOBXFER JOBXFERFI COMPXFER JOBFWAIT JOBFKILL JOBFFINI JOBFKFIN UCLIMITS SLAVEXIT JOBSESUP JOBLNMCS JOBLNMCCS \
JOBPRIUP JOBFINFO JOBFRSTRQD JOBBLKHOST JOBDELBLKHOST JOBLSTBLKHOST JOBLMS JOBLPS RERUNJOB JOBENVVARS \
JOBBLKHOSTNAME JOBUNBLKHOSTNAME JOBNAME
1 RS_R_ KILLTASK SETNMAXCPUS SETMAXFREELOADCPU SETAUTOENABLE JOBAVAILABLE LIMITSPOOLADD \
LIMITSPOOLREMOVE SETENABLED
0 RERR_ NOERROR ALREADY NOSPACE NOREGIS NOAVJOB NOTINRA
"""
SINGLE: dict[str, object] = {
    "MASTER": 0,
    "SLAVE": 10,
    "SLAVE_CHANDLER": 11,
    "SLAVE_LAUNCHER": 12,
    "CLIENT": 20,
    "FF_REQUEUE": 1,
    "JF_MAILNOTIFY": 1,
    "JF_MNDIFEMAIL": 2,
    "JF_JOBDEPEND": 4,
    "JF_JOBDELETE": 8,
    "OSF_IRIX": 1,
    "OSF_LINUX": 2,
    "OSF_OSX": 4,
    "OSF_FREEBSD": 8,
    "OSF_CYGWIN": 16,
    "OSF_ALL": 65535,
    "AEF_ACTIVE": 1,
    "AE_DELAY": 120,
    "AE_HOUR": 21,
    "AE_MIN": 0,
    "DR_EXITEDFLAG": 0x100,
    "DR_SIGNALEDFLAG": 0x200,
    "MAXNAMELEN": 128,
    "MAXCMDLEN": 1024,
    "BUFFERLEN": 4096,
    "PATH_MAX": 4096,
    "MAXJOBS": 100,
    "MAXCOMPUTERS": 100,
    "MAXTASKS": 32,
    "MAX_REQUEUES": 3,
    "MAXLISTEN": 300,
    "SLAVEDELAY": 15,
    "MAXTIMECONNECTION": 30,
    "MASTERCCHECKSDELAY": 10,
    "MAXTIMENOCONN": 240,
    "MAXTASKLOADINGTIME": 60,
    "MAXLOADAVG": 160,
    "DFLTAVGFTIME": 120,
    "MASTERNCHILDREN": 10,
    "MASTERPORT": 1234,
    "SLAVEPORT": 2345,
    "DEFAULT_POOL": "Default",
    "SHELL_NAME": "sh",
    "SHELL_PATH": "/bin/sh",
    "BASE_CONF_PATH": "/etc/drqueue",
    "BASE_CONF_EXT": "conf",
    "DIR_SEPARATOR_CHAR": "/",
    "DIR_SEPARATOR_STR": "/",
    "PATH_SEPARATOR_CHAR": ":",
    "PATH_SEPARATOR_STR": ":",
    "VERSION_MAJOR": 0,
    "VERSION_MINOR": 64,
    "VERSION_PATCH": 4,
    "VERSION_POST": 0,
    "VERSION_PRE": 0,
}
EXTRAS = ("R_R_", "RS_R_", "RERR_", "DRE_")


def expected_constants() -> dict[str, object]:
    found = dict(SINGLE)
    for line in SERIES.strip().splitlines():
        first, prefix, *names = line.split()
        found |= {prefix + name: int(first) + place for place, name in enumerate(names)}
    return found


def test_every_constant_has_the_original_s_value() -> None:
    here = {name: value for name, value in vars(c).items() if name.isupper() and name[0] != "_"}
    errors = {name: here.pop(name) for name in list(here) if name.startswith("DRE_")}
    assert here == expected_constants()
    # 114 that the original had at last, PATH_MAX, and KOJ_BMRT, which it once had.
    assert len([name for name in here if not name.startswith(EXTRAS)]) == 114 + 2
    assert sorted(errors.values()) == list(range(30))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (c.DRE_NOERROR, "No error"),
        (c.DRE_NOTRESOLVE, "Could not resolve hostname"),
        (c.DRE_NOCONNECT, "Could not connect to master"),
        (c.DRE_ANSWERNOTRIGHT, "Received request answer value not appropiate for this query"),
        (c.DRE_NOTREGISTERED, "Structure (job,computer,task...) not registered"),
        (c.DRE_NOENVMASTER, "Environment variable DRQUEUE_MASTER not set"),
        (c.DRE_NOTCOMPLETE, "Information not complete."),
        (c.DRE_DIFJOBSIZE, "Different number of jobs than expected"),
        (c.DRE_ATTACHSHMEM, "Could not attach shared memory"),
        (c.DRE_NOETCDIR, "Directory for configuration files ($DRQUEUE_ETC) does not exist"),
        (c.DRE_CONNMASTER, "Could not connect to master"),
        (c.DRE_COMMPROBLEM, "Communications error"),
        (c.DRE_NETWORKINIT, "drerrno NOT listed !!"),
        (-1, "drerrno NOT listed !!"),
    ],
)
def test_error_texts(code: int, text: str) -> None:
    assert c.error_text(code) == text


def test_states_have_their_names() -> None:
    assert [helpers.job_status_string(state) for state in range(5)] == [
        *("Waiting", "Active", "Stopped", "Finished", "DEFAULT (ERROR)")
    ]
    assert [helpers.job_frame_status_string(state) for state in range(5)] == [
        *("Waiting", "Running", "Error", "Finished", "DEFAULT (ERROR)")
    ]
    assert [helpers.task_status_string(state) for state in range(4)] == [
        *("Loading", "Running", "Finished", "UNKNOWN")
    ]
    with pytest.raises(OverflowError):
        helpers.job_status_string(-1)


def test_kinds_have_their_names() -> None:
    names = []
    for kind in range(19):
        each = job()
        each.koj = kind
        names.append(helpers.job_koj_string(each))
    none = "DEFAULT (ERROR)"
    assert names == [
        *(
            "General",
            "Maya",
            "Blender",
            none,
            "3delight",
            "Pixie",
            "Mental Ray",
            "Lightwave",
            "After Effects",
        ),
        *("Shake", none, "Terragen", "Nuke", "Turtle", "Mantra/Houdini", "XSI", "Luxrender", none, none),
    ]


def test_hardware_has_its_names() -> None:
    assert [helpers.osstring(number) for number in range(7)] == [
        *("UNKNOWN", "Irix", "Linux", "Windows", "Windows", "Mac OSX", "FreeBSD")
    ]
    assert [helpers.archstring(number) for number in range(6)] == [
        *("UNKNOWN", "Intel", "Mips", "PowerPC", "Sparc", "Power")
    ]
    assert [helpers.proctypestring(number) for number in range(18)] == [
        *(
            "UNKNOWN",
            "Intel (not listed)",
            "Pentium",
            "Pentium II",
            "Pentium III",
            "Pentium 4",
            "Xeon",
            "IA-64",
        ),
        *("Pentium M", "Athlon", "Opteron", "R5000", "R10000", "R12000", "PPC", "DEFAULT (ERROR)"),
        *("Ultrasparc", "Cell Broadband Engine"),
    ]
    assert [helpers.bitsstring(bits) for bits in (0, 32, 64, 7)] == ["Unknown", "32bit", "64bit", "Unknown"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (59, "59 seconds"),
        (60, "1 minutes 0 seconds"),
        (3599, "59 minutes 59 seconds"),
        (3600, "1 hours 0 minutes 0 seconds"),
        (90061, "25 hours 1 minutes 1 seconds"),
    ],
)
def test_lengths_of_time(seconds: int, text: str) -> None:
    assert helpers.time_str(seconds) == text
