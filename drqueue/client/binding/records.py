"""Between the farm's jobs and frames and the attributes that the binding's objects have for them.

Rules of this file: a job shows its first layer, whose frames (chunks) are the units that are counted. Where
the range of that layer cannot be said with a start, an end and a step, these are its lowest and its highest
number and 1, and `job.chunks` counts. What the farm would take in another way than the original is refused.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from drqueue.client.binding import constants as c
from drqueue.client.binding.fields import Struct, put
from drqueue.client.binding.koji import MEMBERS
from drqueue.client.binding.session import RequestError
from drqueue.proto.model import NODE_HOME, Depend, JobSpec, LayerSpec, Needs
from drqueue.proto.placeholders import NAMES
from drqueue.proto.range_text import written
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.proto.views import Counts, FrameView, JobView

MOST_PAD: Final = 99
NOT_COMPLETE: Final = c.error_text(c.DRE_NOTCOMPLETE)
#: In a limit of a job: none.
NO_LIMIT: Final = 65535
#: Retries of a job that requeues its frames.
RETRIES: Final = c.MAX_REQUEUES

JOB_STATES: Final = {
    "WAITING": c.JOBSTATUS_WAITING,
    "ACTIVE": c.JOBSTATUS_ACTIVE,
    "STOPPED": c.JOBSTATUS_STOPPED,
    "FINISHED": c.JOBSTATUS_FINISHED,
}
FRAME_STATES: Final = {
    "WAITING": c.FS_WAITING,
    "BLOCKED": c.FS_WAITING,
    "ASSIGNED": c.FS_ASSIGNED,
    "RUNNING": c.FS_ASSIGNED,
    "DONE": c.FS_FINISHED,
    "FAILED": c.FS_ERROR,
    "CANCELLED": c.FS_ERROR,
}
#: What the systems of a job's limits call themselves.
SYSTEMS: Final = {
    "irix": c.OSF_IRIX,
    "irix64": c.OSF_IRIX,
    "linux": c.OSF_LINUX,
    "darwin": c.OSF_OSX,
    "freebsd": c.OSF_FREEBSD,
    "cygwin": c.OSF_CYGWIN,
}
#: The farm's names for the kinds of job.
KINDS: Final = {**MEMBERS, c.KOJ_3DELIGHT: "3delight", c.KOJ_3DSMAX: "3dsmax"}
_KIND_OF = {kind: koj for koj, kind in KINDS.items()}

# `${frame}` is a shell's variable, and the farm would put the frame's number in the place of its braces.
_VARIABLE = re.compile(rf"\$(\{{(?:{'|'.join(NAMES)})(?::[^{{}}]*)?\}})")
_ESCAPED = re.compile(rf"\$\{{(\{{(?:{'|'.join(NAMES)})(?::[^{{}}]*)?\}})\}}")


@dataclass(frozen=True)
class KnownJob:
    """A job as the master knows it; `counts` are its first layer's units, whose mean time is `mean_s`."""

    view: JobView
    spec: JobSpec
    counts: Counts
    mean_s: float


@dataclass(frozen=True)
class Numbers:
    """A layer's range as a job's fields say it; `chunks` where they cannot."""

    start: int
    end: int
    step: int
    chunks: Chunks | None


# -- from the farm ------------------------------------------------------------------------------------------


def fill_job(job: Any, known: KnownJob) -> None:
    """Give a `job` all that the master knows of one; its list of blocked hosts becomes the master's."""
    view, spec = known.view, known.spec
    layer = spec.layers[0]
    numbers = numbers_of(layer)
    average = int(known.mean_s) if known.counts.done else c.DFLTAVGFTIME
    left = known.counts.waiting + known.counts.blocked
    running = known.counts.assigned + known.counts.running
    put_all(
        job,
        {
            "used": 1,
            "id": view.id,
            "nprocs": running,
            "status": JOB_STATES[view.state],
            "priority": view.priority,
            "name": view.name,
            "cmd": command_of(layer),
            "owner": view.owner,
            "email": spec.email,
            "autoRequeue": int(layer.retries > 0),
            "koj": _KIND_OF.get(spec.kind, c.KOJ_GENERAL),
            "frame_start": numbers.start,
            "frame_end": numbers.end,
            "frame_pad": layer.pad,
            "frame_step": numbers.step,
            "fleft": left,
            "fdone": known.counts.done,
            "ffailed": known.counts.failed + known.counts.cancelled,
            "block_size": layer.chunk,
            "chunks": numbers.chunks,
            "submit_time": int(view.submitted_at),
            "avg_frame_time": average,
            "est_finish_time": _finish_time(view, average, left, running),
            "flags": _flags(spec),
            "dependid": spec.depends[0].job if spec.depends else 0,
            "success_exit_codes": layer.success_exit_codes,
        },
    )
    put_all(
        job.limits,
        {
            "nmaxcpus": spec.max_running or NO_LIMIT,
            "nmaxcpuscomputer": spec.max_per_slave or NO_LIMIT,
            "os_flags": _os_flags(layer.needs.os),
            "memory": layer.needs.machine_memory_mb,
            "pool": spec.pool,
        },
    )
    _fill_koji(getattr(job.koji, MEMBERS[job.koj]), spec.params)
    job.envvars.fill(spec.env.items())
    hosts = job.blocked_host
    hosts.ptr[:] = [_named(type(hosts).ptr.kind(), name) for name in view.blocked_hosts]


def fill_frame(frame: Any, view: FrameView) -> None:
    """Give a `frame_info` what the master knows of a frame. An exit code is that of the last normal exit."""
    begun = view.state not in ("WAITING", "BLOCKED", "ASSIGNED")
    slot = (65535 if view.slot is None else view.slot) if view.state == "RUNNING" else 0
    put_all(
        frame,
        {
            "status": FRAME_STATES[view.state],
            "start_time": int(view.started_at) if begun else 0,
            "end_time": int(view.ended_at) if begun and view.state != "RUNNING" else 0,
            "exitcode": view.code if view.code is not None and 0 <= view.code <= 255 else 0,
            "icomp": view.slave_id or 0,
            "itask": 65535 if view.state == "ASSIGNED" else slot,
            "requeued": min(view.requeued + view.returned, 65535),
            "flags": c.FF_REQUEUE if view.stop == "requeue" else 0,
        },
    )


def numbers_of(layer: LayerSpec) -> Numbers:
    """A layer's range as start, end and step, as it was written where that is possible."""
    frames = FrameRange.parse(layer.frames)
    told = written(layer.frames) or frames.single
    if told is not None and told[2] > 0:
        return Numbers(*told, None)
    return Numbers(frames.min, frames.max, 1, Chunks(frames, layer.chunk))


def command_of(layer: LayerSpec) -> str:
    """A layer's command as a string for a shell."""
    return _ESCAPED.sub(r"$\1", layer.shell) if layer.shell else shlex.join(layer.argv)


def _finish_time(view: JobView, average: int, left: int, running: int) -> int:
    if view.state == "FINISHED":
        return int(view.finished_at)
    since = view.moved_at or view.submitted_at
    return int(since + average * (left + running) / max(running, 1))


def _flags(spec: JobSpec) -> int:
    flags = 0
    if spec.mail_when_finished:
        # Its meaning is that somebody typed the address; otherwise it is made from the owner.
        flags |= c.JF_MAILNOTIFY | (c.JF_MNDIFEMAIL if spec.email not in ("", spec.owner) else 0)
    if spec.depends:
        flags |= c.JF_JOBDEPEND
    if spec.delete_when_finished:
        flags |= c.JF_JOBDELETE
    return flags


def _os_flags(systems: tuple[str, ...]) -> int:
    if not systems:
        return c.OSF_ALL
    flags = 0
    for system in systems:
        flags |= SYSTEMS.get(system.casefold(), 0)
    return flags


def _fill_koji(member: Struct, params: Mapping[str, str]) -> None:
    for name in member.fields:
        value = params.get(name, "")
        if isinstance(getattr(member, name), int):
            put(member, name, int(value) if value.isascii() and value.isdigit() else 0)
        else:
            put(member, name, value)


def _named(target: Any, name: str) -> Any:
    put(target, "name", name)
    return target


def put_all(target: Struct, values: Mapping[str, object]) -> None:
    """Set many plain fields unchecked."""
    for name, value in values.items():
        put(target, name, value)


# -- to the farm --------------------------------------------------------------------------------------------


def job_spec(job: Any) -> JobSpec:
    """What is submitted for a `job`. Raises RequestError for what no farm could run.

    Hosts that are blocked in the local object are not part of it: block them once the job has its id.
    """
    if not job.name or not job.cmd:
        raise RequestError(NOT_COMPLETE)
    if job.chunks is not None:
        frames, chunk = job.chunks.frames.text, job.chunks.size
    else:
        frames, chunk = range_of(job.frame_start, job.frame_end, job.frame_step, job.block_size)
    limits = job.limits
    layer = LayerSpec(
        shell=_VARIABLE.sub(r"${\1}", job.cmd),
        frames=frames,
        cwd=NODE_HOME,
        chunk=chunk,
        needs=Needs(os=_systems(limits.os_flags), machine_memory_mb=limits.memory),
        retries=RETRIES if job.autoRequeue else 0,
        pad=_pad(job.frame_pad),
        success_exit_codes=job.success_exit_codes,
    )
    depends = (Depend(job.dependid, "ended"),) if job.flags & c.JF_JOBDEPEND else ()
    return JobSpec(
        name=job.name,
        owner=job.owner,
        priority=job.priority,
        pool=pool_of(limits.pool),
        env={each.name: each.value for each in job.envvars.variables.ptr},
        layers=(layer,),
        depends=depends,
        max_running=most_of(limits.nmaxcpus, "nmaxcpus"),
        max_per_slave=most_of(limits.nmaxcpuscomputer, "nmaxcpuscomputer"),
        delete_when_finished=bool(job.flags & c.JF_JOBDELETE),
        mail_when_finished=bool(job.flags & c.JF_MAILNOTIFY),
        email=job.email,
        kind=KINDS.get(job.koj, KINDS[c.KOJ_GENERAL]),
        params=_params(job),
    )


def range_of(start: int, end: int, step: int, block: int) -> tuple[str, int]:
    """A range's text and chunk size; a step of 0 is 1. Raises RequestError for a range without a frame."""
    if end < start:
        raise RequestError(NOT_COMPLETE, f"the range from {start} to {end} has no frame")
    if block < 1:
        raise RequestError(NOT_COMPLETE, "in blocks of 0 frames nothing is run")
    return f"{start}-{end}x{step or 1}", block


def pool_of(name: str) -> str:
    """The name of a job's pool. Raises RequestError for none at all; the farm says what else it may be."""
    if not name:
        raise RequestError(NOT_COMPLETE, "no pool is named")
    return name


def most_of(limit: int, what: str) -> int:
    """A limit as the farm has it, for which 0 is none. Raises RequestError for 0: nothing would ever run."""
    if limit == 0:
        raise RequestError(
            NOT_COMPLETE, f"with {what} 0 nothing would run: stop the job, or write 65535 for no limit"
        )
    return 0 if limit >= NO_LIMIT else limit


def _pad(digits: int) -> int:
    if digits > MOST_PAD:
        raise RequestError(NOT_COMPLETE, f"a frame_pad of {digits} is too much: {MOST_PAD} at most")
    return digits


def _systems(os_flags: int) -> tuple[str, ...]:
    if os_flags == c.OSF_ALL:
        return ()
    systems = tuple(system for system, flag in SYSTEMS.items() if os_flags & flag)
    if not systems:
        raise RequestError(NOT_COMPLETE, f"no system that the job may run on is named by os_flags {os_flags}")
    return systems


def _params(job: Any) -> dict[str, str]:
    member = getattr(job.koji, MEMBERS.get(job.koj, MEMBERS[c.KOJ_GENERAL]))
    return {name: str(value) for name in member.fields if (value := getattr(member, name))}
