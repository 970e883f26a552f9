"""The original's numbers for processors, architectures and systems, from what a machine says. PURE."""

import re
from typing import Final

from drqueue.client.binding import constants as c

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
