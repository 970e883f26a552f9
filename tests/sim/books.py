"""The book of one master's database: what it wrote down, held against what processes really did.

A copy of the database has a book of its own from the moment it is made, and so has a restored backup: each
knows what stood in the former one then. No code is shared with the core's decisions: what counts as done, and
what follows from a request, is said anew here.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from drqueue.master.core.events import ClientAsked
from drqueue.master.core.records import AnyRecord, AttemptRecord, AuditRecord, JobRecord, LayerTotals
from drqueue.master.core.state import FarmState
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, SlaveVerb
from drqueue.proto.model import NOBODYS
from drqueue.proto.ranges import Chunks, FrameRange

if TYPE_CHECKING:
    from tests.sim.farm import Farm
    from tests.sim.keepers import Process

LayerKey = tuple[int, int]


class Violation(AssertionError):  # noqa: N818 - what it is called
    """A promise was broken."""


class Book:
    """One database. `line`: two masters at one time are of two lines, whichever they come from."""

    def __init__(self, farm: "Farm", line: int = 0) -> None:
        self.farm = farm
        self.line = line
        self.former: Book | None = None
        self.processes: dict[AttemptKey, Process] = {}
        self.rows: dict[AttemptKey, AttemptRecord] = {}
        self.specs: dict[int, JobRecord] = {}
        self.dead_at: dict[str, float] = {}
        self.ordered_at: dict[AttemptKey, float] = {}
        self._inherited: frozenset[AttemptKey] = frozenset()
        self._tokens: dict[str, int] = {}
        self._divisions: dict[LayerKey, Chunks] = {}
        #: Frame numbers that are DONE and by right so.
        self._done: dict[LayerKey, set[int]] = {}
        self._audited = 0
        self._unwanted: set[int] = set()

    def copied(self, line: int) -> "Book":
        """The book of a copy of this database as it is now."""
        book = Book(self.farm, line)
        book.former = self
        book._inherited = frozenset(self.rows)
        book.rows, book.specs = dict(self.rows), dict(self.specs)
        book.dead_at, book.ordered_at = dict(self.dead_at), dict(self.ordered_at)
        book._tokens, book._divisions = dict(self._tokens), dict(self._divisions)
        book._done = {layer: set(numbers) for layer, numbers in self._done.items()}
        book._audited, book._unwanted = self._audited, set(self._unwanted)
        return book

    def process(self, key: AttemptKey) -> "Process | None":
        """What ran by this master's order, or by that of one whose order it knows of."""
        found = self.processes.get(key)
        if found is None and self.former is not None and key in self._inherited:
            return self.former.process(key)
        return found

    def committed(
        self,
        records: Sequence[AnyRecord],
        asked: Iterable[ClientAsked],
        state: FarmState,
    ) -> None:
        """These rows are durable, and with them what these clients asked for."""
        new = []
        asked = list(asked)
        for event in asked:
            if isinstance(event.request, JobVerb) and event.request.verb == "delete":
                self._unwanted.add(event.request.job)
        for record in records:
            match record:
                case AttemptRecord():
                    if record.key not in self.rows:
                        new.append(record)
                    self._attempt(record, state)
                case JobRecord():
                    self._job(record)
                case AuditRecord():
                    self._audit(record)
                case _:
                    pass
        for event in asked:
            match event.request:
                case FrameVerb() | JobVerb() | ChangeJob():
                    self._asked(event.request, state)
                case SlaveVerb(slave=name, verb="declare-dead"):
                    self.dead_at[name] = self.farm.now
                case _:
                    pass
        for row in new:
            self._may_start(row)

    def acknowledged(self, token: str, job: int) -> None:
        """P1: a client is told that its job is queued."""
        if self._tokens.get(token) != job:
            raise Violation(
                f"a client was told that {token} is job {job}: {self._tokens.get(token)} is on disk"
            )

    # -- attempts -------------------------------------------------------------------------------------

    def _may_start(self, row: AttemptRecord) -> None:
        job = self.specs[row.job]
        if job.stopped or job.deleted:
            raise Violation(f"attempt {row.key} of a job that is stopped or deleted")
        for depend in job.spec.depends:
            parent = self.specs.get(depend.job)
            if depend.until == "done" and parent is not None and not self._is_done(parent):
                raise Violation(f"attempt {row.key} before job {depend.job} is done")
        names = [layer.name for layer in job.spec.layers]
        spec = job.spec.layers[row.layer]
        for name in spec.after:
            if not self._is_layer_done((row.job, names.index(name))):
                raise Violation(f"attempt {row.key} before layer {name} is done")
        for waits in spec.depends:
            if waits.frames == "each" and waits.job is None and waits.until == "done":
                other = (row.job, names.index(waits.layer))
                wanted = {number + waits.offset for number in _members(row)}
                there = {n for i in range(len(self._divisions[other])) for n in self._members(other, i)}
                if not self._done.get(other, set()) >= wanted & there:
                    raise Violation(f"attempt {row.key} before its frames of layer {waits.layer} are done")

    def _is_done(self, job: JobRecord) -> bool:
        if job.deleted:
            return True
        return all(self._is_layer_done((job.id, index)) for index in range(len(job.spec.layers)))

    def _is_layer_done(self, layer: LayerKey) -> bool:
        done = self._done.get(layer, set())
        return all(done.issuperset(self._members(layer, i)) for i in range(len(self._divisions[layer])))

    def _members(self, layer: LayerKey, index: int) -> range:
        return self._divisions[layer].members(index)

    def _attempt(self, row: AttemptRecord, state: FarmState) -> None:
        key = row.key
        before = self.rows.get(key)
        if before is not None and before.outcome:
            raise Violation(f"attempt {key} was over ({before.outcome}), now there is {row.outcome!r} of it")
        self.rows[key] = row
        self.ordered_at.setdefault(key, self.farm.now)
        process = self.process(key)
        if row.code is not None and (process is None or process.alive or process.code != row.code):
            raise Violation(f"attempt {key}: exit status {row.code} on record is not what happened")
        if row.outcome == "failed" and row.reason in NOBODYS:
            raise Violation(f"attempt {key} counts as failed: {row.reason}")
        if row.reason == "lost":
            self._lost(row, process, state)
        if row.outcome == "done":
            self._accepted(key, process)

    def _lost(self, row: AttemptRecord, process: "Process | None", state: FarmState) -> None:
        """Given up: by right so."""
        key = row.key
        if "declared dead" in row.text:
            return
        if "silent too long" in row.text:
            waits = self.farm.lease_s if row.on_unreachable == "lease" else self.farm.requeue_fast_s
            slave = state.slaves[row.slave]
            silent = self.farm.now - self.farm.said_at.get((self.line, slave.identity), 0.0)
            if silent < min(waits, row.lease_s) - 1.0:
                raise Violation(f"attempt {key} is given up, its slave was silent for {silent:.0f} s only")
            if row.on_unreachable == "hold":
                raise Violation(f"attempt {key} is given up, though it is to be held")
        elif process is not None and process.boot == process.host.boot:
            if not process.alive and process.host.noted_by.get(key, self) is not self:
                # Its end was told to a master of which this one knows nothing.
                return
            raise Violation(f"attempt {key} ran, its machine was never off, and yet: {row.text}")

    def _accepted(self, key: AttemptKey, process: "Process | None") -> None:
        if process is None or process.alive or process.code != 0:
            raise Violation(f"attempt {key} counts as done and did not end well")
        if process.order.outputs and not process.will.outputs:
            raise Violation(f"attempt {key} counts as done without its outputs")
        done, numbers = self._done.setdefault((key.job, key.layer), set()), process.numbers
        if not done.isdisjoint(numbers):
            raise Violation(f"attempt {key}: a frame that was done is accepted once more")
        done.update(numbers)

    # -- jobs -----------------------------------------------------------------------------------------

    def _job(self, record: JobRecord) -> None:
        known = self._tokens.setdefault(record.token, record.id)
        if known != record.id:
            raise Violation(f"{record.token} was submitted as job {known} and again as job {record.id}")
        if record.id not in self.specs:
            for index, layer in enumerate(record.spec.layers):
                self._divisions[record.id, index] = Chunks(FrameRange.parse(layer.frames), layer.chunk)
        if record.deleted and not (record.id in self._unwanted or record.spec.delete_when_finished):
            raise Violation(f"job {record.id} is deleted, and nobody asked for that")
        self.specs[record.id] = record

    def _asked(self, request: FrameVerb | JobVerb | ChangeJob, state: FarmState) -> None:
        record = self.specs[request.job]
        layers = [(record.id, index) for index in range(len(record.spec.layers))]
        match request:
            case JobVerb(verb="rerun"):
                for layer in layers:
                    self._done.pop(layer, None)
            case FrameVerb(frames=frames, verb=verb):
                chunks = self._divisions[layers[0]]
                found = (chunks.chunk_of(number) for number in FrameRange.parse(frames))
                hit = {index for index in found if index is not None}
                numbers = {n for index in hit for n in chunks.members(index)}
                done = self._done.setdefault(layers[0], set())
                if verb == "finish":
                    # What was cancelled, as the job that it waited for was deleted, stays so.
                    first = state.jobs[record.id].layers[0] if record.id in state.jobs else None
                    left = [i for i in hit if first is not None and first.state_of(i) == "CANCELLED"]
                    done |= numbers.difference(*(chunks.members(index) for index in left))
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
            case _:
                pass

    def _audit(self, record: AuditRecord) -> None:
        """I18: rows are numbered one by one, but for the leap of a restored database."""
        if record.id > self._audited + 1 and self.former is None:
            raise Violation(f"row {record.id} of the audit follows {self._audited}")
        self._audited = max(self._audited, record.id)

    # -- the end --------------------------------------------------------------------------------------

    def final(self, state: FarmState) -> None:
        """Truth, once all is at rest."""
        for slave in state.slaves.values():
            if slave.used_cores or slave.used_memory_mb:
                raise Violation(f"slave {slave.name} has resources booked and runs nothing")
        deleted = {number for number, record in self.specs.items() if record.deleted}
        for number in self.specs:
            if (number in state.jobs) == (number in deleted):
                raise Violation(f"job {number}: deleted and there, or neither")
        for job in state.jobs.values():
            _waits_by_right(state, job.id)
            for layer in job.layers:
                done = self._done.get((job.id, layer.index), set())
                for index in range(layer.size):
                    members = [*layer.chunks.members(index)]
                    if (layer.state_of(index) == "DONE") != done.issuperset(members):
                        name = f"frame {job.id}/{layer.index}/{index}"
                        raise Violation(f"{name} is {layer.state_of(index)}, and {done} were done")
        for key, row in self.rows.items():
            if not row.outcome and key.job not in deleted:
                raise Violation(f"attempt {key} never ended on record")
        self._sums(state, deleted)

    def _sums(self, state: FarmState, deleted: set[int]) -> None:
        """I10: what is counted of a layer is what its attempts come to."""
        for job in state.jobs.values():
            for layer in job.layers:
                rows = [row for key, row in self.rows.items() if key[:2] == (job.id, layer.index)]
                failures = sum(row.outcome == "failed" for row in rows)
                totals: LayerTotals = layer.totals()
                if totals.failed != failures:
                    name = f"layer {job.id}/{layer.index}"
                    raise Violation(f"{name} counts {totals.failed} failures, there are {failures}")


def _members(row: AttemptRecord) -> range:
    return range(row.number, row.number + row.step * row.count, row.step)


def _waits_by_right(state: FarmState, number: int) -> None:
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
