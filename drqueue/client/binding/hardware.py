"""What this machine is, in the original's numbers; and these numbers from a machine's own words.

Rules of this file: the functions `..._of` are pure. What cannot be measured is 0 or "". Memory is in MB,
speed in MHz, load in hundredths.
"""

import os
import platform
import re
import socket
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Final

import psutil

from drqueue.client.binding import constants as c

if TYPE_CHECKING:
    from drqueue.client.binding.computer_structures import computer_hwinfo

#: The first that is found decides; blanks and marks such as (R) are taken out before.
_PROCESSORS: Final = (
    (r"itanium|ia-?64", c.PROCTYPE_INTELIA64),
    (r"xeon", c.PROCTYPE_INTELXEON),
    (r"core ?2|core 2", c.PROCTYPE_INTEL_CORE2),
    (r"pentium (4|iv)\b", c.PROCTYPE_PENTIUM4),
    (r"pentium (3|iii)\b", c.PROCTYPE_PENTIUMIII),
    (r"pentium (2|ii)\b", c.PROCTYPE_PENTIUMII),
    (r"pentium m\b", c.PROCTYPE_PENTIUMM),
    (r"pentium( \d+ ?mhz| 75| mmx|$)", c.PROCTYPE_PENTIUM),
    (r"athlon", c.PROCTYPE_ATHLON),
    (r"opteron", c.PROCTYPE_OPTERON),
    (r"r5000", c.PROCTYPE_MIPSR5000),
    (r"r10000", c.PROCTYPE_MIPSR10000),
    (r"r12000", c.PROCTYPE_MIPSR12000),
    (r"cell broadband|\bcell\b", c.PROCTYPE_CELLBE),
    (r"ultrasparc", c.PROCTYPE_ULTRASPARC),
    (r"powerpc|\bppc|\bpower ?\d|\bg[345]\b|\b(7[45]|97)\d\d?\b.*altivec", c.PROCTYPE_PPC),
    (r"intel|pentium|celeron", c.PROCTYPE_INTEL_UNKNOWN),
)
_ARCHITECTURES: Final = (
    (r"x86|amd64|i[3-6]86|ia64|x64", c.ARCH_INTEL),
    (r"mips|ip\d+", c.ARCH_MIPS),
    (r"ppc|powerpc|power macintosh", c.ARCH_PPC),
    (r"sparc|sun4", c.ARCH_SPARC),
    (r"power", c.ARCH_POWER),
)
_SYSTEMS: Final = (
    ("irix", c.OS_IRIX),
    ("linux", c.OS_LINUX),
    ("cygwin", c.OS_CYGWIN),
    ("windows", c.OS_WINDOWS),
    ("darwin", c.OS_OSX),
    ("freebsd", c.OS_FREEBSD),
)
_MB: Final = 1 << 20


def proctype_of(cpu_model: str) -> int:
    """The PROCTYPE_* of a processor by its model's name; newer makes have none and are PROCTYPE_UNKNOWN."""
    words = " ".join(re.sub(r"\((r|tm)\)|[™®]", " ", cpu_model.lower()).split())
    return next((number for found, number in _PROCESSORS if re.search(found, words)), c.PROCTYPE_UNKNOWN)


def arch_of(machine: str) -> int:
    """The ARCH_* of a machine by what `uname -m` says."""
    return next(
        (number for begin, number in _ARCHITECTURES if re.match(begin, machine.lower())), c.ARCH_UNKNOWN
    )


def os_of(sysname: str) -> int:
    """The OS_* of a system by what `uname -s` says."""
    return next((number for begin, number in _SYSTEMS if sysname.lower().startswith(begin)), c.OS_UNKNOWN)


def nnbits_of(machine: str) -> int:
    """32 or 64, by what `uname -m` says; 0 where that says nothing."""
    machine = machine.lower()
    if "64" in machine or machine in ("s390x", "alpha", "sun4u", "sun4v"):
        return 64
    return (
        32
        if re.fullmatch(r"i[3-6]86|x86|arm(v\d.*)?|mips(el)?|ppc|powerpc|sparc|power macintosh", machine)
        else 0
    )


def cpu_model() -> str:
    """The processor's model as the system names it, or ""."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model", "cpu model", "cpu") and value.strip():
                    return value.strip()
    except OSError:  # no Linux
        return platform.processor()
    return platform.processor()


def get_numproc() -> int:
    """How many processors this machine has (logical ones)."""
    return psutil.cpu_count() or 1


def get_memory() -> int:
    """This machine's memory in MB."""
    return int(psutil.virtual_memory().total) // _MB


def get_procspeed() -> int:
    """The speed of this machine's processors in MHz: the highest where it varies, 0 where nobody says."""
    try:
        speed = psutil.cpu_freq()
    except (OSError, RuntimeError, NotImplementedError):  # containers and some virtual machines hide it
        return 0
    return 0 if speed is None else int(speed.max or speed.current)


def get_proctype() -> int:
    """The PROCTYPE_* of this machine."""
    return proctype_of(cpu_model())


def computer_info_nnbits() -> int:
    """32 or 64 as this machine is, 0 where that is not known."""
    return nnbits_of(platform.machine())


def get_speedindex(hwinfo: "computer_hwinfo") -> int:
    """The original's measure of a machine: (proctype + 1) * procspeed."""
    return (hwinfo.proctype + 1) * hwinfo.procspeed


def get_hwinfo(hwinfo: "computer_hwinfo") -> None:
    """Measure this machine; `id` and `address` stay: the master gives them."""
    uname = os.uname()
    hwinfo.name = socket.gethostname().partition(".")[0]
    hwinfo.arch = arch_of(uname.machine)
    hwinfo.os = os_of(uname.sysname)
    hwinfo.proctype = get_proctype()
    hwinfo.procspeed = get_procspeed()
    hwinfo.ncpus = min(get_numproc(), 65535)
    hwinfo.memory = get_memory()
    hwinfo.nnbits = computer_info_nnbits()
    hwinfo.speedindex = get_speedindex(hwinfo)


def get_loadavg(loadavg: MutableSequence[int] | None = None) -> list[int]:
    """The load of 1, 5 and 15 minutes in hundredths; written into the first three of `loadavg`, too."""
    load = [min(65535, int(each * 100)) for each in psutil.getloadavg()]
    if loadavg is not None:
        loadavg[:3] = load
    return load
