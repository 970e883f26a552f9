"""What this machine is and how busy it is: psutil, /proc, cgroups, and NVIDIA's driver where there is one.

Rules: what cannot be measured is 0 or empty, never an error: containers hide much. Nothing here waits,
but reading may take milliseconds: call it in a thread. NVML is loaded only where a driver is.
"""

import math
import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from drqueue.proto.model import Gpu, MachineInfo, MachineLoad
from drqueue.slave.identity import boot_id

_MB = 1 << 20
#: Stands for a GPU whose driver gives no figure.
UNKNOWN_PERCENT = -1.0


def measure_hardware(state_dir: str) -> MachineInfo:
    """This machine, as far as this process may use it (CPU affinity and its cgroup's limits count)."""
    uname = os.uname()
    logical = _usable_cores()
    physical = psutil.cpu_count(logical=False) or logical
    swap = psutil.swap_memory()
    memory = _memory_limit(psutil.virtual_memory().total)
    return MachineInfo(
        hostname=uname.nodename,
        os=uname.sysname.lower(),
        os_release=_os_release() or uname.release,
        arch=uname.machine,
        cpu_model=_cpu_model(),
        cpu_mhz=_cpu_mhz(),
        cores_physical=min(physical, logical),
        cores_logical=logical,
        memory_mb=memory // _MB,
        swap_mb=swap.total // _MB,
        disk_total_mb=_disk(state_dir)[0] // _MB,
        boot_id=boot_id(),
        gpus=_Nvml().describe(),
    )


def disk_free_mb(path: str) -> int:
    """Room that is free to an ordinary user where a path lies, or will once it is made (MB)."""
    path = os.path.abspath(path)
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return _disk(path)[1] // _MB


class LoadMeter:
    """Measures load; rates are means since the sample before (the first: since the meter was made)."""

    def __init__(self, state_dir: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._nvml = _Nvml()
        self._at = clock()
        self._counters = _counters()
        self._cpu = _cpu_seconds()

    def sample(self) -> MachineLoad:
        """The load now; a GPU whose driver does not answer is UNKNOWN_PERCENT."""
        now, counters, cpu = self._clock(), _counters(), _cpu_seconds()
        seconds = now - self._at
        # A counter goes backwards when a disk or an interface is taken away.
        rates = [
            max(0, new - old) / seconds if seconds > 0 else 0.0
            for new, old in zip(counters, self._counters, strict=True)
        ]
        busy, total = cpu[0] - self._cpu[0], cpu[1] - self._cpu[1]
        self._at, self._counters, self._cpu = now, counters, cpu
        load1, load5, load15 = os.getloadavg()
        return MachineLoad(
            load1=load1,
            load5=load5,
            load15=load15,
            cpu_percent=min(100.0, max(0.0, 100 * busy / total)) if total > 0 else 0.0,
            memory_free_mb=max(0, psutil.virtual_memory().available) // _MB,
            swap_free_mb=max(0, psutil.swap_memory().free) // _MB,
            disk_free_mb=_disk(self._state_dir)[1] // _MB,
            net_rx_bytes_s=rates[0],
            net_tx_bytes_s=rates[1],
            disk_read_bytes_s=rates[2],
            disk_write_bytes_s=rates[3],
            gpu_percent=self._nvml.utilisation(),
        )

    def close(self) -> None:
        """Let go of the GPU driver; the meter is not used afterwards."""
        self._nvml.close()


def _counters() -> tuple[int, int, int, int]:
    """Bytes received, sent, read and written by this machine, loopback left out."""
    received = sent = read = written = 0
    try:
        for name, nic in (psutil.net_io_counters(pernic=True, nowrap=False) or {}).items():
            if name != "lo":
                received += nic.bytes_recv
                sent += nic.bytes_sent
    except (OSError, RuntimeError):  # no /proc/net/dev
        received = sent = 0
    try:
        disks = psutil.disk_io_counters(nowrap=False)
    except (OSError, RuntimeError, NotImplementedError):  # no /proc/diskstats
        disks = None
    if disks is not None:
        read, written = disks.read_bytes, disks.write_bytes
    return received, sent, read, written


def _cpu_seconds() -> tuple[float, float]:
    """CPU seconds since the boot that were spent busy, and all of them."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Guests' time is contained in user and nice.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total


def _disk(path: str) -> tuple[int, int]:
    """Bytes in all, and free to an ordinary user, where a path lies."""
    try:
        info = os.statvfs(path)
    except OSError:
        return 0, 0
    return info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    for folder in _cgroups():
        quota, _, period = _first_line(os.path.join(folder, "cpu.max")).partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def _memory_limit(total: int) -> int:
    """Bytes of memory, or fewer where a cgroup allows fewer."""
    for folder in _cgroups():
        limit = _first_line(os.path.join(folder, "memory.max"))
        if limit.isdigit():
            total = min(total, int(limit))
    return total


def _cgroups(root: str = "/sys/fs/cgroup") -> list[str]:
    """This process's cgroup v2 folder and all above it; empty where there is no v2."""
    line = _first_line("/proc/self/cgroup")
    if not line.startswith("0::/"):
        return []
    parts = [part for part in line[4:].split("/") if part and part != ".."]
    return [os.path.join(root, *parts[:count]) for count in range(len(parts), -1, -1)]


def _cpu_model() -> str:
    return _cpuinfo("model name", "Model", "cpu model")


def _cpu_mhz() -> int:
    """The fastest that a core goes, or else how fast one goes now; 0 where the machine does not say."""
    try:
        found = psutil.cpu_freq()
    except (OSError, RuntimeError, NotImplementedError, ValueError):  # a container hides what it reads
        found = None
    mhz = (found.max or found.current) if found is not None else 0.0
    try:
        mhz = mhz or float(_cpuinfo("cpu MHz", "CPU MHz") or 0)
    except ValueError:
        mhz = 0.0
    return round(mhz) if math.isfinite(mhz) and mhz > 0 else 0


def _cpuinfo(*names: str) -> str:
    """The first value in /proc/cpuinfo that goes by one of these names."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in names and value.strip():
                    return value.strip()
    except OSError:
        return ""
    return ""


def _os_release() -> str:
    """The distribution's name and version, as "Debian GNU/Linux 12 (bookworm)"."""
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip().strip("\"'")
    except OSError:
        return ""
    return ""


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(4096).strip()
    except OSError:
        return ""


class _Nvml:
    """NVIDIA's management library, or nothing: every answer is empty where it does not work."""

    def __init__(self, load: Callable[[], Any] | None = None) -> None:
        self._library: Any = None
        self._handles: list[Any] = []
        library = (load or _load_nvml)()
        if library is None:
            return
        try:
            library.nvmlInit()
        except library.NVMLError:
            return
        self._library = library
        try:
            self._handles = [
                library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())
            ]
        except library.NVMLError:
            self.close()

    def describe(self) -> tuple[Gpu, ...]:
        """The GPUs; closes the library."""
        found = []
        for index, handle in enumerate(self._handles):
            try:
                found.append(
                    Gpu(
                        index=index,
                        name=_text(self._library.nvmlDeviceGetName(handle)),
                        memory_mb=int(self._library.nvmlDeviceGetMemoryInfo(handle).total) // _MB,
                        uuid=_text(self._library.nvmlDeviceGetUUID(handle)),
                    )
                )
            except self._library.NVMLError:
                continue
        self.close()
        return tuple(found)

    def utilisation(self) -> tuple[float, ...]:
        """Percent busy of each GPU."""
        found = []
        for handle in self._handles:
            try:
                found.append(float(self._library.nvmlDeviceGetUtilizationRates(handle).gpu))
            except self._library.NVMLError:
                found.append(UNKNOWN_PERCENT)
        return tuple(found)

    def close(self) -> None:
        if self._library is not None:
            try:
                self._library.nvmlShutdown()
            except self._library.NVMLError:
                self._handles = []  # the driver went away first; there is nothing left to let go of
        self._library, self._handles = None, []


def has_gpu_driver() -> bool:
    """Whether NVIDIA's driver is here."""
    return any(map(os.path.exists, ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")))


def _load_nvml() -> Any:
    if not has_gpu_driver():
        return None
    try:
        import pynvml  # some MB of memory, and absent on most machines
    except ImportError:
        return None
    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
