"""The farm as the master knows it: jobs, slaves, live attempts, and the indexes over them.

Nothing here decides anything; it counts, and keeps every index true. What frames go through is in
`layer`; what the current step gathers (rows to save, keys that changed) is on FarmState, too.
"""

from collections.abc import Iterator
from math import exp, inf

from drqueue.master.core.audit import AuditTrail
from drqueue.master.core.layer import Attempt, Layer
from drqueue.master.core.records import AnyRecord, JobRecord, SlaveRecord
from drqueue.master.core.register import Register
from drqueue.master.core.tokens import GoneTokens
from drqueue.proto.ids import AttemptKey, FrameKey
from drqueue.proto.messages import AccountKind
from drqueue.proto.model import (
    JobSpec,
    JobStateName,
    LimitsChange,
    MachineInfo,
    MachineLoad,
    SlaveLimits,
)

#: Seconds after which the system's mean load has all but a third of what was before.
LOAD_S = 60.0


class Job:
    """One job."""

    __slots__ = (
        "blocked_slaves",
        "deleted",
        "finished",
        "finished_at",
        "hungry",
        "id",
        "layers",
        "live",
        "moved_at",
        "on_slave",
        "served",
        "spec",
        "started_at",
        "state",
        "stopped",
        "submitted_at",
        "submitter",
        "token",
        "waits_for",
    )

    def __init__(self, state: "FarmState", record: JobRecord) -> None:
        self.state = state
        self.id = record.id
        self.token = record.token
        self.spec: JobSpec = record.spec
        self.submitted_at = record.submitted_at
        self.started_at = record.started_at
        self.finished_at = record.finished_at
        #: When a frame of it last started, ended or was sent back, on the wall clock.
        self.moved_at = max(record.submitted_at, record.started_at, record.finished_at)
        self.stopped = record.stopped
        self.deleted = record.deleted
        self.submitter = record.submitter
        self.finished = record.finished_at > 0
        self.live = 0
        #: Live attempts of this job by slave id.
        self.on_slave: dict[int, int] = {}
        #: The farm's dispatch count when this job was last served: fair turns among equals.
        self.served = 0
        self.hungry = False
        #: Why no frame of it may start now: "", or a sentence on its dependencies or its start time.
        self.waits_for = ""
        self.blocked_slaves = frozenset(record.spec.blocked)
        self.layers = [Layer(self, index, spec) for index, spec in enumerate(record.spec.layers)]

    def note_waiting(self) -> None:
        """Keep the farm's index of jobs with waiting frames true."""
        hungry = any(layer.waiting for layer in self.layers)
        if hungry != self.hungry:
            self.hungry = hungry
            if hungry:
                self.state.hungry[self.id] = self
            else:
                self.state.hungry.pop(self.id, None)

    def take_spec(self, spec: JobSpec) -> None:
        """Use this spec from now on; ranges are changed by `rerange` alone."""
        self.spec = spec
        self.blocked_slaves = frozenset(spec.blocked)
        for layer, layer_spec in zip(self.layers, spec.layers, strict=True):
            layer.spec = layer_spec
            layer.env = {**spec.env, **layer_spec.env}

    @property
    def unfinished(self) -> int:
        """Frames WAITING or live."""
        return sum(layer.unfinished for layer in self.layers)

    @property
    def all_done(self) -> bool:
        """Every frame of every layer is DONE."""
        return all(len(layer.done) == layer.size for layer in self.layers)

    @property
    def shown_state(self) -> JobStateName:
        """The derived state that people see."""
        if not self.unfinished:
            return "FINISHED"
        if self.stopped:
            return "STOPPED"
        return "ACTIVE" if self.live else "WAITING"

    def layer_named(self, name: str) -> Layer | None:
        """The layer of that name; the first one for ""."""
        if not name:
            return self.layers[0]
        return next((layer for layer in self.layers if layer.spec.name == name), None)

    def record(self) -> JobRecord:
        """The job's row."""
        return JobRecord(
            id=self.id,
            token=self.token,
            spec=self.spec,
            submitted_at=self.submitted_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            stopped=self.stopped,
            deleted=self.deleted,
            submitter=self.submitter,
        )


class Slave:
    """One slave, linked or not."""

    __slots__ = (
        "account",
        "ahead",
        "control",
        "cores",
        "ends_tickets",
        "fingerprint",
        "frames_done",
        "frames_failed",
        "generation",
        "greeted",
        "heard",
        "heard_at",
        "id",
        "identity",
        "limits",
        "link",
        "live",
        "load",
        "lost",
        "machine",
        "may_keep",
        "memory_mb",
        "name",
        "own_load",
        "own_load_at",
        "slots",
        "told_end_at",
        "used_cores",
        "used_memory_mb",
        "wish",
    )

    def __init__(self, record: SlaveRecord) -> None:
        self.id = record.id
        self.identity = record.identity
        self.name = record.name
        self.fingerprint = record.fingerprint
        self.machine: MachineInfo = record.machine
        self.limits: SlaveLimits = record.limits
        self.cores = record.cores
        self.memory_mb = record.memory_mb
        self.control = record.control
        self.heard_at = record.last_heard_at
        self.wish: LimitsChange | None = record.wish
        #: The account of its node, "" where it is of the master's own machine.
        self.account = record.account
        #: How often a key for tickets was told since this master started.
        self.generation = 0
        #: Whether its next key ends all tickets before it: somebody may have been revoked while it was away.
        self.ends_tickets = True
        #: When it was last told such a key, on the core's clock.
        self.told_end_at = -inf
        #: Exits that were applied on this very link, of which the logs may come.
        self.may_keep: dict[AttemptKey, None] = {}
        self.link: int | None = None
        self.load = MachineLoad()
        #: What its frames' cores amount to in `load1`, and when that was reckoned (the core's clock).
        self.own_load = 0.0
        self.own_load_at = 0.0
        #: When its last message came, on the core's clock; the core's own start before the first one.
        self.heard = 0.0
        #: It said Hello since this master started.
        self.greeted = False
        #: Its attempts were given up (end of lease, or declared dead) since it was last linked.
        self.lost = False
        self.live: dict[AttemptKey, Attempt] = {}
        #: Those of them that were sent ahead and wait for a place there, in order.
        self.ahead: dict[AttemptKey, Attempt] = {}
        #: Slots that its live attempts have, as the bits of a number.
        self.slots = 0
        self.used_cores: float = 0
        self.used_memory_mb = 0
        self.frames_done = 0
        self.frames_failed = 0

    @property
    def cores_offered(self) -> int:
        """Cores that the farm may use: what it offers, within its own limit."""
        limit = self.limits.max_cpus
        return self.cores if limit is None else min(limit, self.cores)

    @property
    def was_revoked(self) -> bool:
        """Whether its node's account is gone: of slaves without one, only such have a port on the network."""
        far = bool(self.control) and not self.control.startswith("unix:")
        return self.link is None and not self.account and far

    def loaded(self, load: MachineLoad, now: float) -> None:
        """It tells its load, a mean over the last minute; reckon its own frames' share in it likewise."""
        self.load = load
        old = exp((self.own_load_at - now) / LOAD_S)
        self.own_load = self.own_load * old + self.used_cores * (1 - old)
        self.own_load_at = now

    def record(self) -> SlaveRecord:
        """The slave's row."""
        return SlaveRecord(
            id=self.id,
            identity=self.identity,
            name=self.name,
            fingerprint=self.fingerprint,
            machine=self.machine,
            limits=self.limits,
            cores=self.cores,
            memory_mb=self.memory_mb,
            control=self.control,
            last_heard_at=self.heard_at,
            wish=self.wish,
            account=self.account,
        )


class FarmState:
    """All jobs, slaves and live attempts, with their indexes, and what the current step gathers."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.slaves: dict[int, Slave] = {}
        self.attempts: dict[AttemptKey, Attempt] = {}
        self.tokens: dict[str, int] = {}
        self.gone_tokens = GoneTokens()
        self.links: dict[int, Slave] = {}
        self.identities: dict[str, Slave] = {}
        #: Which slave is bound to an account: one to each.
        self.bound: dict[str, Slave] = {}
        #: Jobs with frames WAITING and not delayed.
        self.hungry: dict[int, Job] = {}
        #: Which jobs depend on a job.
        self.dependents: dict[int, set[int]] = {}
        #: Unlinked slaves that may still run something.
        self.silent: dict[int, Slave] = {}
        #: (when, job, layer, position) of frames in back-off, as a heap; stale entries are skipped.
        self.delays: list[tuple[float, int, int, int]] = []
        #: Jobs that wait for their start time.
        self.timed: set[int] = set()
        #: Jobs of which attempts ended or frames came back in this step.
        self.unsettled: set[int] = set()
        self.register = Register()
        self.audit = AuditTrail()
        self.next_job = 0
        self.next_slave = 0
        self.served = 0
        self.started = 0.0
        #: wall clock - core's clock, as last read.
        self.wall_offset = 0.0
        self.started_wall = 0.0
        #: The lease granted when the master last stopped in good order; for slaves not greeted yet.
        self.granted_s = 0.0
        self.save: list[AnyRecord] = []
        self.changed_jobs: set[int] = set()
        self.changed_frames: set[FrameKey] = set()
        self.changed_slaves: set[int] = set()
        self.want_schedule = False

    def wall(self, now: float) -> float:
        """The wall clock at a time of the core's clock."""
        return now + self.wall_offset

    def job_name(self, number: int) -> str | None:
        """A job's name, None where there is no such job."""
        job = self.jobs.get(number)
        return None if job is None else job.spec.name

    def account_name(self, kind: AccountKind, text: str) -> tuple[str, str]:
        """As `Register.called`."""
        return self.register.called(kind, text)

    def add_job(self, record: JobRecord) -> Job:
        """Index a job, new or restored."""
        job = Job(self, record)
        self.jobs[job.id] = job
        if job.token:
            self.tokens[job.token] = job.id
        for depend in job.spec.depends:
            self.dependents.setdefault(depend.job, set()).add(job.id)
        job.note_waiting()
        return job

    def drop_job(self, job: Job) -> None:
        """Forget a job without live attempts."""
        del self.jobs[job.id]
        self.hungry.pop(job.id, None)
        self.timed.discard(job.id)
        self.tokens.pop(job.token, None)
        for depend in job.spec.depends:
            self.dependents.get(depend.job, set()).discard(job.id)
        self.dependents.pop(job.id, None)

    def add_slave(self, record: SlaveRecord) -> Slave:
        """Index a slave, new or restored."""
        slave = Slave(record)
        self.slaves[slave.id] = slave
        self.identities[slave.identity] = slave
        if slave.account:
            self.bound[slave.account] = slave
        return slave

    def bind(self, slave: Slave, account: str) -> None:
        """A slave belongs to this account from now on ("": to none), and whichever did no longer does."""
        former = self.bound.get(account)
        if former is not None and former is not slave:
            self.bind(former, "")
        self.bound.pop(slave.account, None)
        slave.account = account
        if account:
            self.bound[account] = slave
        self.save.append(slave.record())

    def drop_slave(self, slave: Slave) -> None:
        """Forget a slave without live attempts."""
        del self.slaves[slave.id]
        self.silent.pop(slave.id, None)
        del self.identities[slave.identity]
        self.bound.pop(slave.account, None)

    def book(self, attempt: Attempt) -> None:
        """An attempt takes its slave's resources and its places in the limits."""
        slave, job = attempt.slave, attempt.layer.job
        self.attempts[attempt.key] = attempt
        slave.live[attempt.key] = attempt
        if attempt.slot < 0 or slave.slots >> attempt.slot & 1:
            attempt.slot = (~slave.slots & (slave.slots + 1)).bit_length() - 1
        slave.slots |= 1 << attempt.slot
        if attempt.ahead:
            slave.ahead[attempt.key] = attempt
        else:
            slave.used_cores += attempt.cores
            slave.used_memory_mb += attempt.memory_mb
        job.on_slave[slave.id] = job.on_slave.get(slave.id, 0) + 1

    def unbook(self, attempt: Attempt) -> None:
        """It gives them back."""
        slave, job = attempt.slave, attempt.layer.job
        del self.attempts[attempt.key]
        del slave.live[attempt.key]
        slave.slots &= ~(1 << attempt.slot)
        if attempt.ahead:
            del slave.ahead[attempt.key]
        else:
            slave.used_cores -= attempt.cores
            slave.used_memory_mb -= attempt.memory_mb
            self._promote(slave)
        left = job.on_slave[slave.id] - 1
        if left:
            job.on_slave[slave.id] = left
        else:
            del job.on_slave[slave.id]
        self.unsettled.add(job.id)
        self.want_schedule = True

    def _promote(self, slave: Slave) -> None:
        """Attempts that were sent ahead take the places that came free, in the slave's own order."""
        while slave.ahead:
            attempt = next(iter(slave.ahead.values()))
            if slave.used_cores and slave.used_cores + attempt.cores > slave.cores_offered:
                return
            del slave.ahead[attempt.key]
            attempt.ahead = False
            self.touch(attempt)
            slave.used_cores += attempt.cores
            slave.used_memory_mb += attempt.memory_mb

    def touch(self, attempt: Attempt) -> None:
        """Whoever watches this attempt's frame, job or slave wants to know."""
        self.changed_frames.add(FrameKey(attempt.key.job, attempt.key.layer, attempt.index))
        self.changed_jobs.add(attempt.key.job)
        self.changed_slaves.add(attempt.slave.id)

    def runnable_layers(self, job: Job) -> Iterator[Layer]:
        """Layers of a job of which a frame could start now, as far as the job is concerned."""
        if job.stopped or job.deleted or job.waits_for:
            return
        limit = job.spec.max_running
        if limit and job.live >= limit:
            return
        for layer in job.layers:
            if layer.waiting and not layer.blocked:
                yield layer
