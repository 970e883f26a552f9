"""The farm as the master knows it: jobs, slaves, live attempts, and the indexes over them.

Nothing here decides anything; it counts, and keeps every index true. What frames go through is in
`layer`; what the current step gathers (rows to save, keys that changed) is on FarmState, too.
"""

from typing import TYPE_CHECKING

from drqueue.master.core.attempt import Attempt
from drqueue.master.core.audit import AuditTrail
from drqueue.master.core.dates import Dates
from drqueue.master.core.demand import Demands
from drqueue.master.core.fairness import Sharing, change
from drqueue.master.core.lanes import Lanes
from drqueue.master.core.layer import Layer
from drqueue.master.core.limits import Limits
from drqueue.master.core.records import AnyRecord, JobRecord, SlaveRecord
from drqueue.master.core.register import Register
from drqueue.master.core.rooms import Rooms
from drqueue.master.core.slave import Slave
from drqueue.master.core.tokens import GoneTokens
from drqueue.master.core.waits import PoolWaits
from drqueue.proto.ids import AttemptKey, FrameKey
from drqueue.proto.messages import AccountKind
from drqueue.proto.model import (
    JobSpec,
    JobStateName,
)

if TYPE_CHECKING:
    from drqueue.master.core.depends import Goal, Scope, Wait
    from drqueue.master.core.holdback import Holdback


class Job:
    """One job."""

    __slots__ = (
        "avoids",
        "blocked_slaves",
        "deleted",
        "failed_on",
        "finished",
        "finished_at",
        "forgiven",
        "goals",
        "hungry",
        "id",
        "layers",
        "live",
        "moved_at",
        "picky",
        "served",
        "spec",
        "started_at",
        "state",
        "stopped",
        "stopped_for",
        "submitted_at",
        "submitter",
        "token",
        "user",
        "waits",
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
        #: For whose share, and within whose limits, it runs.
        self.user = record.user
        self.forgiven = record.forgiven
        self.stopped_for = record.stopped_for
        #: By slave id: attempts that failed since one ended well there.
        self.failed_on: dict[int, int] = {}
        #: Slaves that it avoids, and until when, on the core's clock.
        self.avoids: dict[int, float] = {}
        self.finished = record.finished_at > 0
        self.live = 0
        #: The farm's dispatch count when this job was last served: fair turns among equals.
        self.served = 0
        self.hungry = False
        #: What all of it waits for; why no frame of it may start now: "", or words on the first of those that
        #: is not met, or on its start time.
        self.waits: tuple[Wait, ...] = ()
        self.waits_for = ""
        #: What others, or its own layers, wait for it to reach.
        self.goals: dict[Scope, Goal] = {}
        self.blocked_slaves = frozenset(record.spec.blocked)
        #: Whether it takes not every slave that can run its frames.
        self.picky = bool(record.spec.blocked or record.spec.max_per_slave)
        self.layers = [Layer(self, index, spec) for index, spec in enumerate(record.spec.layers)]

    @property
    def open(self) -> bool:
        """Whether frames of it may start, as far as the job itself is concerned."""
        if self.stopped or self.deleted or self.waits_for:
            return False
        most = self.spec.max_running
        return not most or self.live < most

    def note_waiting(self) -> None:
        """Keep the farm's indexes of what waits true."""
        lanes = self.state.lanes
        hungry = False
        for layer in self.layers:
            lanes.refresh(layer)
            hungry = hungry or bool(layer.waiting)
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
        self.picky = bool(spec.blocked or spec.max_per_slave)
        for layer, layer_spec in zip(self.layers, spec.layers, strict=True):
            layer.use_spec(layer_spec)
        self.note_waiting()

    @property
    def unfinished(self) -> int:
        """Frames WAITING or live."""
        return sum(layer.unfinished for layer in self.layers)

    @property
    def failures(self) -> int:
        """Attempts that failed since it was submitted, or last went on."""
        return max(0, sum(layer.failures for layer in self.layers) - self.forgiven)

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
            user=self.user,
            forgiven=self.forgiven,
            stopped_for=self.stopped_for,
        )


class FarmState:
    """All jobs, slaves and live attempts, with their indexes, and what the current step gathers."""

    def __init__(self, half_life_s: float = 3600.0) -> None:
        self.jobs: dict[int, Job] = {}
        self.slaves: dict[int, Slave] = {}
        self.limits = Limits()
        self.sharing = Sharing(half_life_s)
        self.demands = Demands(self.slaves)
        self.rooms = Rooms()
        self.lanes = Lanes(self.demands, self.sharing, self.limits)
        #: Slaves at which frames wait that were sent ahead.
        self.with_ahead: dict[int, Slave] = {}
        #: The core's clock in this step.
        self.now = 0.0
        self.attempts: dict[AttemptKey, Attempt] = {}
        self.tokens: dict[str, int] = {}
        self.gone_tokens = GoneTokens()
        self.links: dict[int, Slave] = {}
        #: Links that are to be cut, until they are gone: over them slaves may still be told what is heard.
        self.closing: dict[int, Slave] = {}
        self.identities: dict[str, Slave] = {}
        #: Which slave is bound to an account: one to each.
        self.bound: dict[str, Slave] = {}
        #: Jobs with frames WAITING and not delayed.
        self.hungry: dict[int, Job] = {}
        #: Which jobs depend on a job, themselves or with one of their layers.
        self.dependents: dict[int, set[int]] = {}
        #: Unlinked slaves that may still run something.
        self.silent: dict[int, Slave] = {}
        #: (when a lease of theirs may end first, slave) on the core's clock, as a heap.
        self.silent_dues: list[tuple[float, int]] = []
        #: (when, job, layer, position) of frames in back-off, as a heap; stale entries are skipped.
        self.delays: list[tuple[float, int, int, int]] = []
        #: (when, job, slave) of jobs that avoid a slave until then, as a heap; stale entries are skipped.
        self.forgives: list[tuple[float, int, int]] = []
        self.waits = PoolWaits()
        #: Jobs that wait for their start time.
        self.timed: set[int] = set()
        #: Jobs of a backup that are held back after a restore, while there are any.
        self.holdback: Holdback | None = None
        #: Jobs of which attempts ended or frames came back in this step.
        self.unsettled: set[int] = set()
        self.register = Register()
        self.audit = AuditTrail()
        #: Jobs that are neither finished nor deleted.
        self.unfinished: set[int] = set()
        self.next_job = 0
        self.next_slave = 0
        self.served = 0
        self.started = 0.0
        #: wall clock - core's clock, as last read.
        self.wall_offset = 0.0
        self.started_wall = 0.0
        #: Which date it is where something is dropped for its age.
        self.dates = Dates(0.0, 0.0)
        #: The lease granted when the master last stopped in good order; for slaves not greeted yet.
        self.granted_s = 0.0
        #: This life ends in good order, and granted as much to all it could reach.
        self.stopping = False
        self.save: list[AnyRecord] = []
        #: Layers of which the sums changed in this step.
        self.summed: dict[Layer, None] = {}
        #: Layers with rows that their own row may say: see `folding`.
        self.foldable: dict[Layer, None] = {}
        self.changed_jobs: set[int] = set()
        self.changed_frames: set[FrameKey] = set()
        self.changed_slaves: set[int] = set()
        #: Whoever watches the frame, the job or the slave of one of these wants to know.
        self.touched: dict[Attempt, None] = {}
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
        if not job.finished and not job.deleted:
            self.unfinished.add(job.id)
        job.note_waiting()
        return job

    def drop_job(self, job: Job) -> None:
        """Forget a job without live attempts."""
        del self.jobs[job.id]
        for layer in job.layers:
            layer.go()
        self.hungry.pop(job.id, None)
        self.timed.discard(job.id)
        self.unfinished.discard(job.id)
        self.tokens.pop(job.token, None)
        self.dependents.pop(job.id, None)

    def add_slave(self, record: SlaveRecord) -> Slave:
        """Index a slave, new or restored."""
        slave = Slave(record)
        self.slaves[slave.id] = slave
        self.identities[slave.identity] = slave
        if slave.account:
            self.bound[slave.account] = slave
        self.remeasure(slave)
        return slave

    def remeasure(self, slave: Slave) -> None:
        """What a slave is or offers may be another than before."""
        able = [lane for lane in self.lanes.resting if slave.id in lane.demand.able]
        slave.measure()
        self.demands.look_again(slave)
        self.rooms.grew(slave)
        self._promote(slave)
        # What keeps away from others for as long as there was this one may go there now.
        self.lanes.wake_lanes(lane for lane in able if slave.id not in lane.demand.able)

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
        # What keeps away from others for as long as there was this one may go there now.
        self.lanes.wake_lanes([lane for lane in self.lanes.resting if slave.id in lane.demand.able])
        self.demands.gone(slave)
        self.rooms.gone(slave)
        self.silent.pop(slave.id, None)
        del self.identities[slave.identity]
        self.bound.pop(slave.account, None)

    def book(self, attempt: Attempt) -> None:
        """An attempt takes its slave's resources and its places in the limits."""
        slave = attempt.slave
        self.attempts[attempt.key] = attempt
        slave.live[attempt.key] = attempt
        if attempt.slot < 0 or slave.slots >> attempt.slot & 1:
            # The lowest bit that is not set.
            attempt.slot = (~slave.slots & slave.slots + 1).bit_length() - 1
        slave.slots |= 1 << attempt.slot
        if attempt.ahead:
            slave.ahead[attempt.key] = attempt
            self.with_ahead[slave.id] = slave
        else:
            self._take(attempt)

    def _take(self, attempt: Attempt) -> None:
        slave, cores = attempt.slave, attempt.ask.cores
        slave.take(attempt)
        self.rooms.shrank(slave)
        if not attempt.held:
            self.limits.take(attempt)
        if attempt.pool is None or attempt.parties is None:
            job = attempt.layer.job
            attempt.pool = self.sharing.pool(job.spec.pool)
            attempt.parties = self.sharing.parties(attempt.pool, job.spec.project, job.user, self.now)
        attempt.pool.running += cores
        change(attempt.parties, cores, self.now, self.sharing.half_life_s)

    def _give_back(self, attempt: Attempt) -> None:
        slave, cores = attempt.slave, attempt.ask.cores
        slave.give_back(attempt)
        self.rooms.grew(slave)
        self.limits.give(attempt)
        assert attempt.pool is not None
        assert attempt.parties is not None
        attempt.pool.running -= cores
        change(attempt.parties, -cores, self.now, self.sharing.half_life_s)

    def unbook(self, attempt: Attempt) -> None:
        """It gives them back."""
        slave = attempt.slave
        del self.attempts[attempt.key]
        del slave.live[attempt.key]
        slave.slots &= ~(1 << attempt.slot)
        if attempt.ahead:
            self._leave_ahead(attempt)
            self.rooms.grew(slave)
        else:
            self._give_back(attempt)
            if slave.ahead:
                self._promote(slave)
        self.unsettled.add(attempt.key.job)
        self.want_schedule = True

    def _leave_ahead(self, attempt: Attempt) -> None:
        slave = attempt.slave
        del slave.ahead[attempt.key]
        attempt.ahead = False
        if not slave.ahead:
            del self.with_ahead[slave.id]

    def _promote(self, slave: Slave) -> None:
        """Attempts that were sent ahead take the places that came free, in the slave's own order."""
        while slave.ahead:
            attempt = next(iter(slave.ahead.values()))
            if slave.used_cores and slave.used_cores + attempt.ask.cores > slave.cores_most:
                return
            self._leave_ahead(attempt)
            self.touched[attempt] = None
            self._take(attempt)
