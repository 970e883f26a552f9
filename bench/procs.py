"""What the daemons' processes cost: CPU and resident memory, read from the kernel."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from drqueue.client.farm import LocalFarm

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds used so far and resident MB (in all, and anonymous) of one kind of process."""

    cpu_s: float
    resident_mb: float
    anonymous_mb: float
    processes: int


def keepers(farm: LocalFarm) -> list[int]:
    """Pids of the keepers of a farm's slaves: each holds the lock of its slave's state directory."""
    found = []
    for slave in farm.slaves:
        lock = Path(slave.state_dir, "keeper.lock")
        if lock.exists() and (text := lock.read_text().strip()):
            pid = int(text.split()[-1])
            if psutil.pid_exists(pid):
                found.append(pid)
    return found


def sample(farm: LocalFarm) -> dict[str, Sample]:
    """One sample of master, slaves and keepers."""
    return {
        "master": _sum([farm.master.pid]),
        "slaves": _sum([slave.pid for slave in farm.slaves]),
        "keepers": _sum(keepers(farm)),
    }


def resident_mb(pid: int) -> float:
    """Resident MB of one process."""
    return _kilobytes(pid, "VmRSS") / 1024


def _kilobytes(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(values[name].split()[0])


def _sum(pids: list[int]) -> Sample:
    cpu_s = resident = anonymous = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # utime and stime of the process alone: its children's time stands in the next two fields.
        cpu_s += (int(fields[11]) + int(fields[12])) * TICK_S
        resident += resident_mb(pid)
        anonymous += _kilobytes(pid, "RssAnon") / 1024
    return Sample(cpu_s, resident, anonymous, len(pids))
