"""What the simulated farm promises, seen from outside of the cores.

The oracle sees what every process really did, and every row at the moment it is durable. It shares no code
with the cores' decisions: who may overlap, what counts as done, how long things may take is said anew here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drqueue.master.core.attempt import Attempt
from drqueue.master.core.core import Core
from drqueue.master.core.events import ClientAsked
from drqueue.master.core.explain import why
from drqueue.master.core.layer import Layer
from drqueue.master.core.records import AnyRecord, AttemptRecord, JobRecord
from drqueue.master.core.state import FarmState
from drqueue.master.core.turn import Policy
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, SlaveVerb
from drqueue.proto.model import NOBODYS
from drqueue.proto.ranges import Chunks, FrameRange
from drqueue.slave.core.core import HEARD_KEPT_S
from drqueue.slave.core.records import Record, StopAsked

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.hosts import Host, Process

#: Linked again, told, TERM, grace, KILL, and KILL again: a disowned process is gone after that.
DISOWNED_S = 60.0
#: The engine's longest nap, TERM, grace, KILL, and a disk that is slow to note it.
LEASE_KILL_S = 60.0

LayerKey = tuple[int, int]


class Violation(AssertionError):  # noqa: N818 - what it is called
    """A promise was broken."""


class Oracle:
    """The ledger of one farm."""

    def __init__(self, farm: "Farm") -> None:
        self._farm = farm
        self._processes: dict[AttemptKey, Process] = {}
        self._by_layer: dict[LayerKey, list[Process]] = {}
        self._rows: dict[AttemptKey, AttemptRecord] = {}
        self._tokens: dict[str, int] = {}
        self._specs: dict[int, JobRecord] = {}
        self._divisions: dict[LayerKey, Chunks] = {}
        #: Frame numbers that are DONE and by right so.
        self._done: dict[LayerKey, set[int]] = {}
        self._dead_at: dict[str, float] = {}
        self._disowned: dict[AttemptKey, float] = {}
        self._ordered_at: dict[AttemptKey, float] = {}

    # -- what processes do ------------------------------------------------------------------------------

    def started(self, process: "Process") -> None:
        """P4: nobody else runs any of its frames, unless the promise allows for it.

        An operator who declares a slave dead vouches for all that was ordered there, read or unread.
        """
        key = process.key
        self._farm.trace("started", process.host.name, key)
        if key in self._processes:
            raise Violation(f"attempt {key} was started twice")
        self._processes[key] = process
        mine = _numbers(process)
        others = self._by_layer.setdefault((key.job, key.layer), [])
        for other in others:
            if not other.alive or not self._forbidden(other, mine):
                continue
            raise Violation(
                f"attempt {key} starts on {process.host.name} while {other.key} runs on {other.host.name}"
            )
        others[:] = [other for other in others if other.alive]
        others.append(process)

    def _forbidden(self, other: "Process", mine: set[int]) -> bool:
        """Whether no other may start while this one lives: finish, rerun and new ranges are no excuse."""
        order, host = other.order, other.host
        if mine.isdisjoint(_numbers(other)):
            return False
        if order.on_unreachable == "requeue-fast":
            return False
        if self._dead_at.get(host.name, -1.0) >= self._ordered_at.get(other.key, other.started):
            return False
        if order.on_unreachable == "hold":
            return True
        ends = host.heard + max(order.lease_s, host.granted_s)
        if host.boot_clock() < ends:
            return True
        # Its lease is over: there must have been nobody awake to end it, or it is dying.
        return host.can_act() and host.boot_clock() - max(ends, host.up_since) > LEASE_KILL_S

    def output_there(self, key: AttemptKey) -> bool:
        """Whether the process wrote what it was to write."""
        return self._processes[key].will.outputs

    # -- what the master writes down --------------------------------------------------------------------

    def committed(self, records: Sequence[AnyRecord], asked: Sequence[ClientAsked], state: FarmState) -> None:
        """These rows are durable, and with them what these clients asked for."""
        new = []
        for record in records:
            if isinstance(record, AttemptRecord):
                if record.key not in self._rows:
                    new.append(record)
                self._attempt(record)
            elif isinstance(record, JobRecord):
                self._job(record)
        for event in asked:
            match event.request:
                case FrameVerb() | JobVerb() | ChangeJob():
                    self._asked(event.request)
                case SlaveVerb(slave=name, verb="declare-dead"):
                    self._dead_at[name] = self._farm.now
                case _:
                    pass
        for row in new:
            self._may_start(row)

    def _may_start(self, row: AttemptRecord) -> None:
        job = self._specs[row.job]
        if job.stopped or job.deleted:
            raise Violation(f"attempt {row.key} of a job that is stopped or deleted")
        names = [layer.name for layer in job.spec.layers]
        for name in job.spec.layers[row.layer].after:
            other = (row.job, names.index(name))
            chunks, done = self._divisions[other], self._done.get(other, set())
            if not all(done.issuperset(chunks.members(index)) for index in range(len(chunks))):
                raise Violation(f"attempt {row.key} before layer {name} is done")

    def slave_saved(self, host: "Host", records: Sequence[Record]) -> None:
        """P12: a slave ends no frame for its lease before that is over."""
        for record in records:
            process = self._processes.get(record.key) if isinstance(record, StopAsked) else None
            if process is not None and isinstance(record, StopAsked) and record.reason == "lease":
                lease = max(process.order.lease_s, host.granted_s)
                # Words read after a sleep are old: they stretch no lease that ended in it.
                slept = host.boot_clock() - host.woke_at < 1.0
                if not slept and host.boot_clock() - host.heard < lease - HEARD_KEPT_S:
                    raise Violation(f"{host.name} ends {record.key} before its lease is over")

    def _attempt(self, row: AttemptRecord) -> None:
        key = row.key
        before = self._rows.get(key)
        if before is not None and before.outcome:
            raise Violation(f"attempt {key} was over ({before.outcome}), now there is {row.outcome!r} of it")
        self._rows[key] = row
        self._ordered_at.setdefault(key, self._farm.now)
        process = self._processes.get(key)
        if row.code is not None and (process is None or process.alive or process.code != row.code):
            raise Violation(f"attempt {key}: exit status {row.code} on record is not what happened")
        if row.outcome == "failed" and row.reason in NOBODYS:
            raise Violation(f"attempt {key} counts as failed: {row.reason}")
        denied = (
            row.reason == "lost" and "silent too long" not in row.text and "declared dead" not in row.text
        )
        if denied and process is not None and process.boot == process.host.boot:
            raise Violation(f"attempt {key} ran, its machine was never off, and yet: {row.text}")
        if row.outcome == "done":
            self._accepted(key, process)

    def _accepted(self, key: AttemptKey, process: "Process | None") -> None:
        if process is None or process.alive or process.code != 0:
            raise Violation(f"attempt {key} counts as done and did not end well")
        if process.order.outputs and not process.will.outputs:
            raise Violation(f"attempt {key} counts as done without its outputs")
        done, numbers = self._done.setdefault((key.job, key.layer), set()), _numbers(process)
        if not done.isdisjoint(numbers):
            raise Violation(f"attempt {key}: a frame that was done is accepted once more")
        done.update(numbers)

    def _job(self, record: JobRecord) -> None:
        known = self._tokens.setdefault(record.token, record.id)
        if known != record.id:
            raise Violation(f"{record.token} was submitted as job {known} and again as job {record.id}")
        if record.id not in self._specs:
            for index, layer in enumerate(record.spec.layers):
                self._divisions[record.id, index] = Chunks(FrameRange.parse(layer.frames), layer.chunk)
        self._specs[record.id] = record

    def acknowledged(self, token: str, job: int) -> None:
        """P1: a client was told that its job is queued."""
        if self._tokens.get(token) != job:
            raise Violation(
                f"a client was told that {token} is job {job}: {self._tokens.get(token)} is on disk"
            )

    def _asked(self, request: FrameVerb | JobVerb | ChangeJob) -> None:
        record = self._specs[request.job]
        layers = [(record.id, index) for index in range(len(record.spec.layers))]
        match request:
            case JobVerb(verb="rerun"):
                for layer in layers:
                    self._done.pop(layer, None)
            case FrameVerb(frames=frames, verb=verb):
                chunks = self._divisions[layers[0]]
                hit = {chunks.chunk_of(number) for number in FrameRange.parse(frames)} - {None}
                numbers = {n for index in hit if index is not None for n in chunks.members(index)}
                done = self._done.setdefault(layers[0], set())
                if verb == "finish":
                    done |= numbers
                elif verb == "requeue":
                    done -= numbers
            case ChangeJob(change=change) if isinstance(change.frames, str):
                chunk = change.chunk if isinstance(change.chunk, int) else record.spec.layers[0].chunk
                chunks = self._divisions[layers[0]] = Chunks(FrameRange.parse(change.frames), chunk)
                done = self._done.setdefault(layers[0], set())
                whole = [
                    members for i in range(len(chunks)) if done.issuperset(members := [*chunks.members(i)])
                ]
                self._done[layers[0]] = {number for members in whole for number in members}

    # -- looking around ---------------------------------------------------------------------------------

    def disowned(self) -> None:
        """Convergence: what runs on a linked slave is what the master knows of, and wants."""
        master = self._farm.master
        for host in self._farm.hosts:
            well = host.is_well()
            for key in host.processes:
                attempt = master.core.state.attempts.get(key) if master is not None else None
                wanted = master is None or (attempt is not None and not attempt.stop)
                if wanted or not well:
                    self._disowned.pop(key, None)
                    continue
                since = max(self._disowned.setdefault(key, self._farm.now), host.linked_at)
                if self._farm.now - since > DISOWNED_S:
                    raise Violation(f"{host.name} still runs {key}, which the master does not want")

    def reloaded(self) -> None:
        """What a master would know that started now is what this one knows."""
        farm = self._farm
        if farm.master is None or not farm.master.committed:
            return
        live = farm.master.core.state
        fresh = Core(Policy(farm="farm"), farm.storage.load(), 0.0, farm.wall()).state
        if live.jobs.keys() != fresh.jobs.keys() or live.slaves.keys() != fresh.slaves.keys():
            raise Violation(f"jobs or slaves differ on disk: {sorted(live.jobs)}, {sorted(fresh.jobs)}")
        if vars(live.gone_tokens) != vars(fresh.gone_tokens):
            raise Violation("the tokens of jobs that are gone differ on disk")
        if (live.next_job, live.next_slave) != (fresh.next_job, fresh.next_slave):
            raise Violation("the next job or slave number differs on disk")
        for number, job in live.jobs.items():
            other = fresh.jobs[number]
            if job.record() != other.record():
                raise Violation(f"job {number} differs on disk: {job.record()}, {other.record()}")
            for layer, again in zip(job.layers, other.layers, strict=True):
                for index in range(layer.size):
                    if (a := _frame(layer, index)) != (b := _frame(again, index)):
                        raise Violation(f"frame {number}/{layer.index}/{index}: {a} lives, {b} on disk")
        for key, attempt in live.attempts.items():
            kept = fresh.attempts.get(key)
            if kept is None or _attempt(attempt) != _attempt(kept):
                raise Violation(
                    f"attempt {key}: {_attempt(attempt)} lives, {kept and _attempt(kept)} on disk"
                )
        if len(live.attempts) != len(fresh.attempts):
            raise Violation("there are more attempts on disk")

    def unsettled(self) -> str:
        """What is not yet at rest, "" for nothing."""
        farm = self._farm
        if farm.master is None or farm.pending_submits:
            return "no master, or submissions on their way"
        state = farm.master.core.state
        for host in farm.hosts:
            if host.daemon is None or host.processes or host.daemon.core.state.held:
                return f"{host.name} is down, runs {[*host.processes]}, or holds what is not noted"
        if state.attempts:
            return f"attempts live on: {[*state.attempts]}"
        for job in state.jobs.values():
            blocked = job.waits_for.startswith("job ")
            for layer in job.layers:
                if layer.unfinished and not (blocked or layer.blocked):
                    reasons = [reason.text for reason in why(farm.master.core.turn, job, layer, None)]
                    return f"layer {job.id}/{layer.index}: {layer.unfinished} frames unfinished: {reasons}"
            if not job.unfinished and not job.finished:
                return f"job {job.id} does not know that it is finished"
            if job.deleted:
                return f"job {job.id} was deleted and is still there"
        return ""

    # -- the end ----------------------------------------------------------------------------------------

    def final(self) -> None:
        """Truth, once all is at rest."""
        assert self._farm.master is not None
        state = self._farm.master.core.state
        for slave in state.slaves.values():
            if slave.used_cores or slave.used_memory_mb:
                raise Violation(f"slave {slave.name} has resources booked and runs nothing")
        deleted = {number for number, record in self._specs.items() if record.deleted}
        for number in self._specs:
            if (number in state.jobs) == (number in deleted):
                raise Violation(f"job {number}: deleted and there, or neither")
        for job in state.jobs.values():
            self._waits_by_right(state, job.id)
            for layer in job.layers:
                done = self._done.get((job.id, layer.index), set())
                for index in range(layer.size):
                    members = [*layer.chunks.members(index)]
                    if (layer.state_of(index) == "DONE") != done.issuperset(members):
                        name = f"frame {job.id}/{layer.index}/{index}"
                        raise Violation(f"{name} is {layer.state_of(index)}, and {done} were done")
        for key, row in self._rows.items():
            if not row.outcome and key.job not in deleted:
                raise Violation(f"attempt {key} never ended on record")

    def _waits_by_right(self, state: FarmState, number: int) -> None:
        """A job that is blocked waits for something that has indeed not come."""
        job = state.jobs[number]
        if job.waits_for.startswith("job "):
            parent = state.jobs.get(int(job.waits_for.split()[1]))
            if parent is None or parent.all_done:
                raise Violation(f"job {number} waits for {job.waits_for}, which is done or gone")
        for layer in job.layers:
            if layer.blocked and not job.waits_for:
                other = job.layer_named(layer.blocked)
                if other is None or len(other.done) == other.size:
                    raise Violation(f"layer {number}/{layer.index} waits for a layer that is done")


def _numbers(process: "Process") -> set[int]:
    order = process.order
    return {order.start + order.step * i for i in range(order.count)}


def _frame(layer: Layer, index: int) -> tuple[str, int, int, tuple[int, ...]]:
    state = layer.state_of(index)
    past = layer.history.get(index)
    kept = past if state in ("WAITING", "FAILED") else None
    return (
        "LIVE" if state in ("ASSIGNED", "RUNNING") else state,
        layer.next_attempt(index) if state != "DONE" else 0,
        kept.requeued if kept else 0,
        kept.avoid if kept else (),
    )


def _attempt(attempt: Attempt) -> tuple[str, bool, bool, int, int, int]:
    # What an orphan's frame was does not matter any more; a frame that goes again begins to count anew.
    index = attempt.index if not attempt.orphan else 0
    requeued = attempt.requeued if not attempt.orphan and not attempt.again else 0
    return attempt.stop, attempt.again, attempt.orphan, attempt.slave.id, index, requeued
