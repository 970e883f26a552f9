"""The farm as clients see it: pages of views, made from the state. Nothing here changes anything.

Frames that ended leave no more than their state in memory; the shell fills in their latest attempt
from the history (`FrameView.attempt` is 0 until it does).
"""

from collections.abc import Iterator

import msgspec

from drqueue.master.core import holdback
from drqueue.master.core.amounts import plain
from drqueue.master.core.attempt import Attempt
from drqueue.master.core.layer import FrameState, Layer
from drqueue.master.core.slave import Slave
from drqueue.master.core.state import FarmState, Job
from drqueue.proto.messages import Farm, Frames, Jobs, SlaveInfo, Slaves
from drqueue.proto.messages import Job as JobAnswer
from drqueue.proto.views import Counts, FrameView, JobView, LayerView, SlaveView

#: What slaves on the master's own machine may be called, where there is but one.
_HERE = ("localhost", "127.0.0.1", "::1")
#: Frames listed of a slave.
_MOST = 500
#: Jobs listed of those that depend on one.
_DEPENDENTS = 500
#: A page ends, whatever the limit asked for, before its views take more bytes than this ...
_PAGE_BYTES = 224 * 1024
#: ... of which so many are set aside for what the history adds to a frame that has been tried.
_HISTORY_BYTES = 800
#: An answer about one job takes no more than this. Characters shown of a command, and the fewest of
#: them for which it is worth to show less.
_ANSWER_BYTES = 250 * 1024
_COMMAND_MOST = 2000
_COMMAND_LEAST = 100
#: Frames looked at for one page; a page of a rare state may be short, with a cursor to go on from.
_LOOK_AT = 20_000
_packed = msgspec.msgpack.Encoder().encode


def shown_jobs(state: FarmState) -> Iterator[Job]:
    """Jobs that are not deleted, by id."""
    return (state.jobs[number] for number in sorted(state.jobs) if not state.jobs[number].deleted)


def find_job(state: FarmState, number: int) -> Job | None:
    """A job that is not deleted."""
    job = state.jobs.get(number)
    return None if job is None or job.deleted else job


def find_slaves(state: FarmState, who: str) -> list[Slave]:
    """Slaves of that name, else of that host name, else of that address, else of that number."""
    every = list(state.slaves.values())
    for match in (
        [s for s in every if s.name == who],
        [s for s in every if s.machine.hostname == who],
        [s for s in every if s.control and who and _address(s.control) == who],
        [s for s in every if who in _HERE and s.control.startswith("unix:")],
        [s for s in every if str(s.id) == who],
    ):
        if match:
            return match
    return []


def find_hosts(state: FarmState, name: str) -> list[Slave]:
    """Slaves that a blocked host's name means."""
    return [s for s in state.slaves.values() if name in (s.name, s.machine.hostname)]


def _address(control: str) -> str:
    return control.rpartition(":")[0] if not control.startswith("unix:") else control


def chunk_counts(layer: Layer) -> Counts:
    """A layer's frames (chunks, where it has such) by state."""
    running = sum(attempt.running for attempt in layer.live.values())
    ahead = sum(attempt.waits for attempt in layer.live.values())
    return _counts(
        layer,
        waiting=len(layer.waiting) + len(layer.delayed) + ahead,
        held=len(layer.held),
        assigned=len(layer.live) - running - ahead,
        running=running,
        done=len(layer.done),
        failed=len(layer.failed),
        cancelled=len(layer.cancelled),
    )


def picture_counts(layer: Layer) -> Counts:
    """A layer's pictures by state: people count these, whatever they are rendered in."""
    if layer.spec.chunk == 1:
        return chunk_counts(layer)
    pictures = layer.chunks.pictures
    sizes = [(shown_state(a), pictures(index, index + 1)) for index, a in layer.live.items()]
    return _counts(
        layer,
        waiting=sum(pictures(a, b) for a, b in layer.waiting.intervals())
        + sum(pictures(index, index + 1) for index in layer.delayed)
        + sum(size for state, size in sizes if state == "WAITING"),
        held=sum(pictures(a, b) for a, b in layer.held.intervals()),
        assigned=sum(size for state, size in sizes if state == "ASSIGNED"),
        running=sum(size for state, size in sizes if state == "RUNNING"),
        done=sum(pictures(a, b) for a, b in layer.done.intervals()),
        failed=sum(pictures(a, b) for a, b in layer.failed.intervals()),
        cancelled=sum(pictures(a, b) for a, b in layer.cancelled.intervals()),
    )


def _counts(
    layer: Layer,
    waiting: int,
    held: int,
    assigned: int,
    running: int,
    done: int,
    failed: int,
    cancelled: int,
) -> Counts:
    blocked = waiting if is_blocked(layer) else 0
    return Counts(
        total=waiting + held + assigned + running + done + failed + cancelled,
        waiting=waiting - blocked,
        blocked=blocked + held,
        assigned=assigned,
        running=running,
        done=done,
        failed=failed,
        cancelled=cancelled,
    )


def is_blocked(layer: Layer) -> bool:
    """Whether all of a layer waits for other frames: of another layer, or of another job."""
    return bool(layer.blocked) or layer.job.waits_for.startswith("job ")


def _sum(counts: list[Counts]) -> Counts:
    return Counts(
        total=sum(c.total for c in counts),
        waiting=sum(c.waiting for c in counts),
        blocked=sum(c.blocked for c in counts),
        assigned=sum(c.assigned for c in counts),
        running=sum(c.running for c in counts),
        done=sum(c.done for c in counts),
        failed=sum(c.failed for c in counts),
        cancelled=sum(c.cancelled for c in counts),
    )


def job_view(job: Job, wall: float) -> JobView:
    """One job. The time left is that of its running and waiting frames at the mean frame time so far."""
    counts = _sum([picture_counts(layer) for layer in job.layers])
    chunks = _sum([chunk_counts(layer) for layer in job.layers])
    ended = sum(layer.ended for layer in job.layers)
    wall_s = sum(layer.wall_s for layer in job.layers)
    mean = wall_s / ended if ended else 0.0
    over = chunks.done + chunks.failed + chunks.cancelled
    partly = sum(a.progress for layer in job.layers for a in layer.live.values())
    eta = 0.0
    if mean and job.live and not job.finished:
        left = chunks.total - over - partly
        eta = wall + mean * max(left, 0.0) / job.live
    spec = job.spec
    return JobView(
        id=job.id,
        name=spec.name,
        owner=spec.owner,
        project=spec.project,
        state=job.shown_state,
        priority=spec.priority,
        pool=spec.pool,
        counts=counts,
        chunk_counts=chunks,
        progress=min(1.0, (over + partly) / chunks.total) if chunks.total else 0.0,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        eta_at=eta,
        mean_frame_s=mean,
        cpu_s=sum(layer.cpu_s for layer in job.layers),
        max_running=spec.max_running,
        max_per_slave=spec.max_per_slave,
        not_before=spec.not_before,
        depends=spec.depends,
        blocked_hosts=spec.blocked,
        on_unreachable=spec.on_unreachable,
        layers=tuple(layer.spec.name for layer in job.layers),
        waits_for=job.waits_for if not job.finished else "",
        kind=spec.kind,
        moved_at=job.moved_at,
        submitter=job.submitter,
        dependents=tuple(sorted(job.state.dependents.get(job.id, ()))[:_DEPENDENTS]),
        user=job.user,
        max_failures=spec.max_failures,
        failures=job.failures,
        stopped_for=job.stopped_for,
    )


def layer_view(layer: Layer, most: int = _COMMAND_MOST) -> LayerView:
    """One layer; of its command at most so many characters."""
    spec = layer.spec
    command = spec.shell or " ".join(quoted(word) for word in spec.argv)
    return LayerView(
        index=layer.index,
        name=spec.name,
        command=command if len(command) <= most else command[: most - 1] + "…",
        frames=layer.range.text,
        chunk=spec.chunk,
        needs=spec.needs,
        retries=spec.retries,
        timeout_s=spec.timeout_s,
        cwd=spec.cwd,
        outputs=spec.outputs,
        after=spec.after,
        counts=picture_counts(layer),
        chunk_counts=chunk_counts(layer),
        mean_frame_s=layer.wall_s / layer.ended if layer.ended else 0.0,
        depends=spec.depends,
        order=spec.order,
        next=spec.next,
        limits=spec.limits,
    )


def shown_state(attempt: Attempt) -> FrameState:
    """What the frame of a live attempt is to people: one that was sent ahead waits, as all others do."""
    if attempt.running:
        return "RUNNING"
    return "WAITING" if attempt.waits else "ASSIGNED"


def quoted(word: str) -> str:
    """A word as a shell would need it."""
    plain = word and all(char.isalnum() or char in "@%+=:,./-_#{}" for char in word)
    return word if plain else "'" + word.replace("'", "'\"'\"'") + "'"


def frame_view(layer: Layer, index: int) -> FrameView:
    """One frame as far as memory knows it."""
    members = layer.chunks.members(index)
    attempt = layer.live.get(index)
    state = layer.state_of(index) if attempt is None else shown_state(attempt)
    past = layer.history.get(index)
    blocked = state == "WAITING" and (is_blocked(layer) or index in layer.held)
    view = FrameView(
        job=layer.job.id,
        layer=layer.index,
        layer_name=layer.spec.name,
        index=index,
        number=members[0],
        last=members[-1],
        count=len(members),
        state="BLOCKED" if blocked else state,
        attempt=past.attempt if past is not None else 0,
        requeued=past.requeued if past is not None else 0,
        returned=layer.reruns + (past.returned if past is not None else 0),
    )
    return view if attempt is None else _with_attempt(view, attempt)


def _with_attempt(view: FrameView, attempt: Attempt) -> FrameView:
    return FrameView(
        job=view.job,
        layer=view.layer,
        layer_name=view.layer_name,
        index=view.index,
        number=view.number,
        last=view.last,
        count=view.count,
        state=view.state,
        attempt=attempt.key.attempt,
        requeued=attempt.requeued,
        slave=attempt.slave.name,
        slave_id=attempt.slave.id,
        started_at=attempt.started_at or attempt.row.assigned_at,
        progress=attempt.progress,
        activity=attempt.said,
        stop=attempt.stop or ("requeue" if attempt.again else ""),
        returned=attempt.layer.reruns + attempt.returned,
        slot=attempt.slot,
        pid=attempt.pid,
        gpus=attempt.gpus,
    )


def slave_view(slave: Slave, *, running: bool = False) -> SlaveView:
    """One slave; with `running`, the frames on it."""
    if slave.link is None:
        state = "lost" if slave.lost else "unlinked"
    elif not slave.limits.enabled:
        state = "disabled"
    elif slave.sick:
        state = "sick"
    elif slave.live:
        state = "busy"
    else:
        state = "loaded" if 0 < slave.cores_offered <= slave.foreign else "idle"
    frames: tuple[FrameView, ...] = ()
    if running:
        held = sorted(slave.live.values(), key=lambda attempt: attempt.key)[:_MOST]
        frames = tuple(frame_view(a.layer, a.index) for a in held if not a.orphan)
    return SlaveView(
        id=slave.id,
        name=slave.name,
        state=state,
        linked=slave.link is not None,
        cores=slave.cores_offered,
        memory_mb=slave.memory_mb,
        cores_used=slave.cores_used,
        memory_used_mb=slave.used_memory_mb,
        limits=slave.limits,
        machine=slave.machine,
        load=slave.load,
        control=slave.control,
        last_heard_at=slave.heard_at,
        running=frames,
        frames_done=slave.frames_done,
        frames_failed=slave.frames_failed,
        offers=slave.offers,
        sick=slave.sick,
        gpus_used=tuple(i for i in range(slave.used_gpus.bit_length()) if slave.used_gpus >> i & 1),
        disk_used_mb=slave.used_disk_mb,
        amounts_used={name: plain(amount) for name, amount in sorted(slave.used_amounts.items())},
    )


# -- pages ------------------------------------------------------------------------------------------------


def page_of_jobs(
    state: FarmState, wall: float, rq: int, cursor: int, limit: int, every: bool, owner: str
) -> Jobs:
    """Jobs with id >= cursor; finished ones only with `every`."""
    found: list[JobView] = []
    room = _PAGE_BYTES
    following: int | None = None
    for number in sorted(n for n in state.jobs if n >= cursor):
        job = state.jobs[number]
        if job.deleted or (job.finished and not every) or (owner and job.spec.owner != owner):
            continue
        view = job_view(job, wall)
        room -= len(_packed(view))
        if len(found) == limit or (found and room < 0):
            following = number
            break
        found.append(view)
    return Jobs(rq=rq, jobs=tuple(found), next=following)


def one_job(job: Job, wall: float, rq: int) -> JobAnswer:
    """A job and its layers. Of long commands less is shown where a job has so many that no packet fits."""
    view = job_view(job, wall)
    most = _COMMAND_MOST
    while True:
        answer = JobAnswer(rq=rq, job=view, layers=tuple(layer_view(x, most) for x in job.layers))
        if most < _COMMAND_LEAST or len(_packed(answer)) <= _ANSWER_BYTES:
            return answer
        most //= 4


def page_of_frames(layers: list[Layer], rq: int, cursor: int, limit: int, states: frozenset[str]) -> Frames:
    """Frames of these layers in order; the cursor counts positions over all of them. WAITING shows both."""
    found: list[FrameView] = []
    room = _PAGE_BYTES
    offset = looked_at = 0
    for layer in layers:
        blocked = is_blocked(layer)
        for index in range(max(0, cursor - offset), layer.size):
            if len(found) == limit or looked_at == _LOOK_AT or room < 0:
                return Frames(rq=rq, frames=tuple(found), next=offset + index)
            looked_at += 1
            attempt = layer.live.get(index)
            state = layer.state_of(index) if attempt is None else shown_state(attempt)
            if (
                not states
                or state in states
                or ("BLOCKED" in states and state == "WAITING" and (blocked or index in layer.held))
            ):
                found.append(view := frame_view(layer, index))
                room -= len(_packed(view)) + (
                    0 if state == "WAITING" and not view.attempt else _HISTORY_BYTES
                )
        offset += layer.size
    return Frames(rq=rq, frames=tuple(found))


def page_of_slaves(state: FarmState, rq: int, cursor: int, limit: int) -> Slaves:
    """Slaves with id >= cursor."""
    numbers = sorted(n for n in state.slaves if n >= cursor)
    found: list[SlaveView] = []
    room = _PAGE_BYTES
    for number in numbers:
        view = slave_view(state.slaves[number])
        room -= len(_packed(view))
        if len(found) == limit or (found and room < 0):
            return Slaves(rq=rq, slaves=tuple(found), next=number)
        found.append(view)
    return Slaves(rq=rq, slaves=tuple(found))


def one_slave(slave: Slave, rq: int) -> SlaveInfo:
    """A slave with what runs on it."""
    return SlaveInfo(rq=rq, slave=slave_view(slave, running=True))


def farm_info(state: FarmState, rq: int, farm: str, epoch: int, software: str) -> Farm:
    """The farm in numbers."""
    linked = [s for s in state.slaves.values() if s.link is not None]
    jobs = list(shown_jobs(state))
    waiting = sum(layer.unfinished - len(layer.live) for job in jobs for layer in job.layers)
    return Farm(
        rq=rq,
        farm=farm,
        epoch=epoch,
        software=software,
        started_at=state.started_wall,
        jobs=len(jobs),
        slaves=len(state.slaves),
        slaves_linked=len(linked),
        cores=sum(s.cores_offered for s in linked if s.limits.enabled),
        cores_used=plain(sum(s.used_cores for s in state.slaves.values())),
        frames_running=len(state.attempts),
        frames_waiting=waiting,
        holdback=holdback.view(state),
        clock=state.dates.doubt(state.now),
    )
