"""From the farm's slaves to the attributes of the binding's `computer`.

Rules of this file: a computer has the cores and the memory that its slave offers, which need not be all that
the machine has. Each running frame is a task in the slot that the master counts for it. Where its job is
deleted already and it only has to end, the task tells no more than which frame it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from drqueue.client.binding import constants as c
from drqueue.client.binding.hardware import arch_of, nnbits_of, os_of, proctype_of
from drqueue.client.binding.records import NO_LIMIT, command_of, numbers_of, put_all
from drqueue.proto.model import JobSpec, SlaveLimits
from drqueue.proto.views import FrameView, SlaveView

_U16: Final = 65535


@dataclass(frozen=True)
class KnownComputer:
    """A slave as the master knows it, and the jobs of the frames that run on it."""

    view: SlaveView
    jobs: Mapping[int, JobSpec]


def fill_computer(computer: Any, known: KnownComputer) -> None:
    """Give a `computer` all that the master knows of one."""
    view = known.view
    put_all(computer, {"used": 1, "lastconn": int(view.last_heard_at)})
    _fill_hwinfo(computer.hwinfo, view)
    _fill_limits(computer.limits, view.limits, view.cores)
    _fill_status(computer.status, known)


def address_of(view: SlaveView) -> str:
    """Where a slave is called directly: its host, or the `unix:PATH` of its control port."""
    if view.control.startswith("unix:"):
        return view.control
    return view.control.rpartition(":")[0].strip("[]") or view.machine.hostname


def _fill_hwinfo(hwinfo: Any, view: SlaveView) -> None:
    machine = view.machine
    proctype = proctype_of(machine.cpu_model)
    put_all(
        hwinfo,
        {
            "name": view.name,
            "address": address_of(view),
            "id": view.id,
            "arch": arch_of(machine.arch),
            "os": os_of(machine.os),
            "proctype": proctype,
            "procspeed": machine.cpu_mhz,
            "ncpus": view.cores,
            "speedindex": (proctype + 1) * machine.cpu_mhz,
            "memory": view.memory_mb,
            "nnbits": nnbits_of(machine.arch),
        },
    )


def _fill_limits(target: Any, limits: SlaveLimits, cores: int) -> None:
    most = NO_LIMIT if limits.max_load is None else min(round(limits.max_load * 100), NO_LIMIT)
    put_all(
        target,
        {
            "enabled": int(limits.enabled),
            "nmaxcpus": cores if limits.max_cpus is None else min(limits.max_cpus, cores),
            "maxfreeloadcpu": most,
        },
    )
    hour, _, minute = (limits.autoenable or f"{c.AE_HOUR}:{c.AE_MIN}").partition(":")
    put_all(
        target.autoenable,
        {
            "h": int(hour),
            "m": int(minute),
            "flags": 0 if limits.autoenable is None else c.AEF_ACTIVE,
        },
    )
    target.fill_pools(limits.pools)


def _fill_status(status: Any, known: KnownComputer) -> None:
    load = known.view.load
    # What was sent ahead waits for a place there and has none yet.
    begun = [frame for frame in known.view.running if frame.state != "WAITING"]
    tasks = [_task(frame, known.jobs.get(frame.job), known.view.id) for frame in begun]
    loads = (load.load1, load.load5, load.load15)
    put_all(
        status,
        {
            "loadavg": tuple([max(0, min(round(each * 100), _U16)) for each in loads]),
            "ntasks": len(tasks),
            "nrunning": len(tasks),
        },
    )
    status.clear_tasks()
    free = iter(sorted(set(range(len(tasks) * 2)) - {task["itask"] for task in tasks}))
    for task in tasks:
        slot = task["itask"]
        if slot is None:
            slot = next(free)
        put_all(status.slot(slot), {**task, "itask": slot})


def _task(frame: FrameView, spec: JobSpec | None, computer: int) -> dict[str, Any]:
    task = {
        "used": 1,
        "jobname": "",
        "ijob": frame.job,
        "icomp": computer,
        "itask": frame.slot,
        "jobcmd": "",
        "owner": "",
        "frame": frame.number,
        "frame_start": frame.number,
        "frame_end": frame.last,
        "frame_pad": 4,
        "frame_step": 1,
        "block_size": frame.count,
        "pid": frame.pid,
        "exitstatus": 0,
        "status": c.TASKSTATUS_RUNNING if frame.state == "RUNNING" else c.TASKSTATUS_LOADING,
        "start_loading_time": int(frame.started_at),
    }
    if spec is not None and frame.layer < len(spec.layers):
        layer = spec.layers[frame.layer]
        numbers = numbers_of(layer)
        task |= {
            "jobname": spec.name,
            "jobcmd": command_of(layer),
            "owner": spec.owner,
            "frame_start": numbers.start,
            "frame_end": numbers.end,
            "frame_pad": layer.pad,
            "frame_step": numbers.step,
            "block_size": layer.chunk,
        }
    return task
