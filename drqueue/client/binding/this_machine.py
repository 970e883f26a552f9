"""What this machine is, in the original's numbers.

Rules of this file: what cannot be measured is 0 or "". Memory is in MB, speed in MHz, load in hundredths.
"""

import os
import platform
import socket
from collections.abc import MutableSequence
from typing import Final

import psutil

from drqueue.client.binding.computer_structures import computer_hwinfo
from drqueue.client.binding.hardware import arch_of, nnbits_of, os_of, proctype_of

_MB: Final = 1 << 20


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


def get_speedindex(hwinfo: computer_hwinfo) -> int:
    """The original's measure of a machine: (proctype + 1) * procspeed."""
    return (hwinfo.proctype + 1) * hwinfo.procspeed


def get_hwinfo(hwinfo: computer_hwinfo) -> None:
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
