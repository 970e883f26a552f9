"""Every constant of DrQueue under its name and with its value, and the text of every error code.

Rules of this file: values never change: people's programs hold them as numbers. They say what the
original was built with; where this farm has no such limit (MAXJOBS, MAXCOMPUTERS, MAXTASKS, MAXCMDLEN)
the number stays for programs that read it, and nothing here obeys it.
"""

from typing import Final

# Who calls
MASTER: Final = 0
SLAVE: Final = 10
SLAVE_CHANDLER: Final = 11
SLAVE_LAUNCHER: Final = 12
CLIENT: Final = 20

# States of jobs
JOBSTATUS_WAITING: Final = 0
JOBSTATUS_ACTIVE: Final = 1
JOBSTATUS_STOPPED: Final = 2
JOBSTATUS_FINISHED: Final = 3

# States of frames
FS_WAITING: Final = 0
FS_ASSIGNED: Final = 1
FS_ERROR: Final = 2
FS_FINISHED: Final = 3

# Flags of frames
FF_REQUEUE: Final = 1

# States of tasks
TASKSTATUS_LOADING: Final = 0
TASKSTATUS_RUNNING: Final = 1
TASKSTATUS_FINISHED: Final = 2

# Flags of jobs
JF_MAILNOTIFY: Final = 1
JF_MNDIFEMAIL: Final = 2
JF_JOBDEPEND: Final = 4
JF_JOBDELETE: Final = 8

# Operating systems that a job is limited to (flags)
OSF_IRIX: Final = 1
OSF_LINUX: Final = 2
OSF_OSX: Final = 4
OSF_FREEBSD: Final = 8
OSF_CYGWIN: Final = 16
OSF_ALL: Final = 65535

# Autoenable
AEF_ACTIVE: Final = 1
AE_DELAY: Final = 120
AE_HOUR: Final = 21
AE_MIN: Final = 0

# Kinds of job
KOJ_GENERAL: Final = 0
KOJ_MAYA: Final = 1
KOJ_BLENDER: Final = 2
KOJ_BMRT: Final = 3
KOJ_3DELIGHT: Final = 4
KOJ_PIXIE: Final = 5
KOJ_MENTALRAY: Final = 6
KOJ_LIGHTWAVE: Final = 7
KOJ_AFTEREFFECTS: Final = 8
KOJ_SHAKE: Final = 9
KOJ_AQSIS: Final = 10
KOJ_TERRAGEN: Final = 11
KOJ_NUKE: Final = 12
KOJ_TURTLE: Final = 13
KOJ_MANTRA: Final = 14
KOJ_XSI: Final = 15
KOJ_LUXRENDER: Final = 16
KOJ_VRAY: Final = 17
KOJ_3DSMAX: Final = 18

# Operating systems
OS_UNKNOWN: Final = 0
OS_IRIX: Final = 1
OS_LINUX: Final = 2
OS_CYGWIN: Final = 3
OS_WINDOWS: Final = 4
OS_OSX: Final = 5
OS_FREEBSD: Final = 6

# Architectures
ARCH_UNKNOWN: Final = 0
ARCH_INTEL: Final = 1
ARCH_MIPS: Final = 2
ARCH_PPC: Final = 3
ARCH_SPARC: Final = 4
ARCH_POWER: Final = 5

# Processors
PROCTYPE_UNKNOWN: Final = 0
PROCTYPE_INTEL_UNKNOWN: Final = 1
PROCTYPE_PENTIUM: Final = 2
PROCTYPE_PENTIUMII: Final = 3
PROCTYPE_PENTIUMIII: Final = 4
PROCTYPE_PENTIUM4: Final = 5
PROCTYPE_INTELXEON: Final = 6
PROCTYPE_INTELIA64: Final = 7
PROCTYPE_PENTIUMM: Final = 8
PROCTYPE_ATHLON: Final = 9
PROCTYPE_OPTERON: Final = 10
PROCTYPE_MIPSR5000: Final = 11
PROCTYPE_MIPSR10000: Final = 12
PROCTYPE_MIPSR12000: Final = 13
PROCTYPE_PPC: Final = 14
PROCTYPE_INTEL_CORE2: Final = 15
PROCTYPE_ULTRASPARC: Final = 16
PROCTYPE_CELLBE: Final = 17

# How a task's exit status is written: one of these, and the exit code or the signal
DR_EXITEDFLAG: Final = 0x100
DR_SIGNALEDFLAG: Final = 0x200

# Sizes
MAXNAMELEN: Final = 128
MAXCMDLEN: Final = 1024
BUFFERLEN: Final = 4096
PATH_MAX: Final = 4096
MAXJOBS: Final = 100
MAXCOMPUTERS: Final = 100
MAXTASKS: Final = 32
MAX_REQUEUES: Final = 3
MAXLISTEN: Final = 300

# Times in seconds, load in hundredths, ports
SLAVEDELAY: Final = 15
MAXTIMECONNECTION: Final = 30
MASTERCCHECKSDELAY: Final = 10
MAXTIMENOCONN: Final = 240
MAXTASKLOADINGTIME: Final = 60
MAXLOADAVG: Final = 160
DFLTAVGFTIME: Final = 120
MASTERNCHILDREN: Final = 10
MASTERPORT: Final = 1234
SLAVEPORT: Final = 2345

# Texts
DEFAULT_POOL: Final = "Default"
SHELL_NAME: Final = "sh"
SHELL_PATH: Final = "/bin/sh"
BASE_CONF_PATH: Final = "/etc/drqueue"
BASE_CONF_EXT: Final = "conf"
DIR_SEPARATOR_CHAR: Final = "/"
DIR_SEPARATOR_STR: Final = "/"
PATH_SEPARATOR_CHAR: Final = ":"
PATH_SEPARATOR_STR: Final = ":"

# The original that this is compatible with
VERSION_MAJOR: Final = 0
VERSION_MINOR: Final = 64
VERSION_PATCH: Final = 4
VERSION_POST: Final = 0
VERSION_PRE: Final = 0

# Not in the original's binding: requests to the master
R_R_REGISTER: Final = 1
R_R_UCSTATUS: Final = 2
R_R_REGISJOB: Final = 3
R_R_AVAILJOB: Final = 4
R_R_TASKFINI: Final = 5
R_R_LISTJOBS: Final = 6
R_R_LISTCOMP: Final = 7
R_R_DELETJOB: Final = 8
R_R_STOPJOB: Final = 9
R_R_CONTJOB: Final = 10
R_R_HSTOPJOB: Final = 11
R_R_JOBXFER: Final = 12
R_R_JOBXFERFI: Final = 13
R_R_COMPXFER: Final = 14
R_R_JOBFWAIT: Final = 15
R_R_JOBFKILL: Final = 16
R_R_JOBFFINI: Final = 17
R_R_JOBFKFIN: Final = 18
R_R_UCLIMITS: Final = 19
R_R_SLAVEXIT: Final = 20
R_R_JOBSESUP: Final = 21
R_R_JOBLNMCS: Final = 22
R_R_JOBLNMCCS: Final = 23
R_R_JOBPRIUP: Final = 24
R_R_JOBFINFO: Final = 25
R_R_JOBFRSTRQD: Final = 26
R_R_JOBBLKHOST: Final = 27
R_R_JOBDELBLKHOST: Final = 28
R_R_JOBLSTBLKHOST: Final = 29
R_R_JOBLMS: Final = 30
R_R_JOBLPS: Final = 31
R_R_RERUNJOB: Final = 32
R_R_JOBENVVARS: Final = 33
R_R_JOBBLKHOSTNAME: Final = 34
R_R_JOBUNBLKHOSTNAME: Final = 35
R_R_JOBNAME: Final = 36

# The same: requests to a slave
RS_R_KILLTASK: Final = 1
RS_R_SETNMAXCPUS: Final = 2
RS_R_SETMAXFREELOADCPU: Final = 3
RS_R_SETAUTOENABLE: Final = 4
RS_R_JOBAVAILABLE: Final = 5
RS_R_LIMITSPOOLADD: Final = 6
RS_R_LIMITSPOOLREMOVE: Final = 7
RS_R_SETENABLED: Final = 8

# The same: answers
RERR_NOERROR: Final = 0
RERR_ALREADY: Final = 1
RERR_NOSPACE: Final = 2
RERR_NOREGIS: Final = 3
RERR_NOAVJOB: Final = 4
RERR_NOTINRA: Final = 5

# The same: causes of failures
DRE_NOERROR: Final = 0
DRE_ERROROPENING: Final = 1
DRE_NOTRESOLVE: Final = 2
DRE_NOSOCKET: Final = 3
DRE_NOCONNECT: Final = 4
DRE_ANSWERNOTLISTED: Final = 5
DRE_ANSWERNOTRIGHT: Final = 6
DRE_ERRORWRITING: Final = 7
DRE_ERRORREADING: Final = 8
DRE_NOTREGISTERED: Final = 9
DRE_NOENVMASTER: Final = 10
DRE_NOENVROOT: Final = 11
DRE_COULDNOTCREATE: Final = 12
DRE_NOTCOMPLETE: Final = 13
DRE_DIFFILEFORMAT: Final = 14
DRE_DIFVERSION: Final = 15
DRE_DIFJOBSIZE: Final = 16
DRE_GETSHMEM: Final = 17
DRE_ATTACHSHMEM: Final = 18
DRE_NOTMPDIR: Final = 19
DRE_NODBDIR: Final = 20
DRE_NOLOGDIR: Final = 21
DRE_NOBINDIR: Final = 22
DRE_NOETCDIR: Final = 23
DRE_RMSHMEM: Final = 24
DRE_NOMEMORY: Final = 25
DRE_DTSHMEM: Final = 26
DRE_CONNMASTER: Final = 27
DRE_COMMPROBLEM: Final = 28
DRE_NETWORKINIT: Final = 29

#: The original's texts, its spelling included: programs compare them.
_ERROR_TEXTS: Final = (
    "No error",
    "Could not open file or directory",
    "Could not resolve hostname",
    "Could not open socket",
    "Could not connect to master",
    "Received request answer value not listed",
    "Received request answer value not appropiate for this query",
    "Could not write on file or socket",
    "Could not read from file or socket",
    "Structure (job,computer,task...) not registered",
    "Environment variable DRQUEUE_MASTER not set",
    "Environment variable DRQUEUE_ROOT not set",
    "Could not create file or directory. Check permissions.",
    "Information not complete.",
    "Different file format than expected",
    "Different version number than expected",
    "Different number of jobs than expected",
    "Could not allocate shared memory",
    "Could not attach shared memory",
    "Directory for temporary files ($DRQUEUE_TMP) does not exist or is not writeable",
    "Directory for database files ($DRQUEUE_DB) does not exist or is not writeable",
    "Directory for log files ($DRQUEUE_LOGS) does not exist or is not writeable",
    "Directory for binary files ($DRQUEUE_BIN) does not exist",
    "Directory for configuration files ($DRQUEUE_ETC) does not exist",
    "Could not remove shared memory",
    "Not enough memory",
    "Could not detach shared memory",
    "Could not connect to master",
    "Communications error",
)


def error_text(code: int) -> str:
    """The text of a DRE_* code, as it reaches IOError."""
    return _ERROR_TEXTS[code] if 0 <= code < len(_ERROR_TEXTS) else "drerrno NOT listed !!"
