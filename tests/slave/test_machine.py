"""What is measured is plausible here, and merely absent where a machine hides it."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from drqueue.slave import machine
from drqueue.slave.machine import LoadMeter, measure_hardware


def test_this_machine_is_described(tmp_path: Path) -> None:
    info = measure_hardware(str(tmp_path))
    assert info.hostname == os.uname().nodename
    assert info.os == "linux"
    assert info.arch == os.uname().machine
    assert 1 <= info.cores_physical <= info.cores_logical <= (os.cpu_count() or 1)
    assert 64 < info.memory_mb <= psutil.virtual_memory().total >> 20
    assert info.disk_total_mb > 0
    assert len(info.boot_id) == 36


def test_a_machine_says_how_fast_it_is_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest, else as it is now, else as /proc/cpuinfo says; 0 is unknown, never an error."""

    def asked(freq: object, cpuinfo: str) -> int:
        def cpu_freq() -> object:
            if isinstance(freq, Exception):
                raise freq
            return freq

        monkeypatch.setattr(psutil, "cpu_freq", cpu_freq)
        monkeypatch.setattr(machine, "_cpuinfo", lambda *names: cpuinfo if "cpu MHz" in names else "")
        return measure_hardware(str(tmp_path)).cpu_mhz

    assert asked(SimpleNamespace(current=800.0, min=400.0, max=4200.0), "1.0") == 4200
    assert asked(SimpleNamespace(current=2445.43, min=0.0, max=0.0), "1.0") == 2445
    assert asked(None, "2399.998") == 2400
    assert asked(FileNotFoundError("/sys"), "2399.998") == 2400
    assert asked(NotImplementedError(), "") == 0
    assert asked(None, "fast") == 0
    assert asked(SimpleNamespace(current=float("nan"), min=0.0, max=0.0), "") == 0


def test_affinity_counts(tmp_path: Path) -> None:
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_cores)})
    try:
        info = measure_hardware(str(tmp_path))
    finally:
        os.sched_setaffinity(0, all_cores)
    assert (info.cores_logical, info.cores_physical) == (1, 1)


def test_a_cgroups_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "memory.max").write_text("max\n")
    (inner / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{100 << 20}\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(machine, "_cgroups", lambda: [str(inner), str(tmp_path)])
    info = measure_hardware(str(tmp_path))
    assert (info.memory_mb, info.cores_logical) == (100, 1)


def test_a_quota_of_one_and_a_half_cores_is_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(machine, "_cgroups", lambda: [str(tmp_path)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16))
    assert machine._usable_cores() == 2


def test_load_is_measured(tmp_path: Path) -> None:
    meter = LoadMeter(str(tmp_path))
    burn_until = time.thread_time() + 0.1
    while time.thread_time() < burn_until:
        pass
    load = meter.sample()
    assert 0 < load.cpu_percent <= 100
    assert load.load1 >= 0
    assert 0 < load.memory_free_mb <= psutil.virtual_memory().total >> 20
    assert load.disk_free_mb > 0


def test_rates_are_means_over_the_time_between_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    counters = [(0, 10, 0, 0)]
    cpu = [(5.0, 10.0)]
    monkeypatch.setattr(machine, "_counters", lambda: counters[0])
    monkeypatch.setattr(machine, "_cpu_seconds", lambda: cpu[0])
    meter = LoadMeter(str(tmp_path), lambda: now[0])
    now[0], counters[0], cpu[0] = 110.0, (1000, 30, 50, 0), (8.0, 20.0)
    load = meter.sample()
    assert (load.net_rx_bytes_s, load.net_tx_bytes_s, load.disk_read_bytes_s, load.disk_write_bytes_s) == (
        100,
        2,
        5,
        0,
    )
    assert load.cpu_percent == 30
    assert meter.sample().net_rx_bytes_s == 0, "no time has passed"
    now[0], counters[0] = 120.0, (0, 0, 0, 0)
    assert meter.sample().net_rx_bytes_s == 0, "an interface went away"
    now[0], counters[0] = 122.0, (500, 0, 0, 0)
    assert meter.sample().net_rx_bytes_s == 250


def test_loopback_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    nics = {
        "lo": SimpleNamespace(bytes_recv=100, bytes_sent=100),
        "eth0": SimpleNamespace(bytes_recv=1, bytes_sent=2),
    }
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: nics)
    assert machine._counters()[:2] == (1, 2)


def test_a_container_that_hides_its_counters_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(**_: object) -> None:
        raise FileNotFoundError("/proc/diskstats")

    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: None)
    monkeypatch.setattr(psutil, "disk_io_counters", lambda **_: None)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert LoadMeter(str(tmp_path)).sample().net_rx_bytes_s == 0
    assert measure_hardware(str(tmp_path)).cores_physical >= 1
    monkeypatch.setattr(psutil, "disk_io_counters", hidden)
    monkeypatch.setattr(psutil, "net_io_counters", hidden)
    assert LoadMeter(str(tmp_path)).sample().disk_read_bytes_s == 0
    assert LoadMeter(str(tmp_path / "gone")).sample().disk_free_mb == 0


class NVMLError(Exception):
    """As the library's."""


class FakeNvml:
    """Two GPUs behind NVML's calls; the second fell off the bus."""

    NVMLError = NVMLError

    def __init__(self, broken: bool = False) -> None:
        self.broken, self.open = broken, 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise NVMLError("no driver")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Card"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        if handle == 1:
            raise NVMLError("GPU is lost")
        return "GPU-0"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=8 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(gpu=37)


def test_gpus_are_described_by_their_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml()
    monkeypatch.setattr(machine, "_load_nvml", lambda: library)
    (gpu,) = measure_hardware(str(tmp_path)).gpus
    assert (gpu.index, gpu.name, gpu.memory_mb, gpu.uuid) == (0, "Card", 8192, "GPU-0")
    assert library.open == 0
    meter = LoadMeter(str(tmp_path))
    assert meter.sample().gpu_percent == (37.0, machine.UNKNOWN_PERCENT)
    meter.close()
    assert library.open == 0


def test_a_driver_that_does_not_answer_means_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_load_nvml", lambda: FakeNvml(broken=True))
    assert measure_hardware(str(tmp_path)).gpus == ()
    assert LoadMeter(str(tmp_path)).sample().gpu_percent == ()


def test_the_library_is_not_loaded_where_no_driver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert machine._load_nvml() is None


def test_a_sample_is_cheap(tmp_path: Path) -> None:
    """Every 15 s within 0.5 % of a core is 75 ms; a tenth of it is plenty."""
    meter = LoadMeter(str(tmp_path))
    meter.sample()
    cost = min(_cost(meter) for _ in range(5))
    assert cost < 0.0075


def _cost(meter: LoadMeter) -> float:
    before = time.thread_time()
    meter.sample()
    return time.thread_time() - before
