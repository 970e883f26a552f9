"""What clients are shown: snapshots of jobs, layers, frames, attempts and slaves.

Field names are what `--json` prints: stable, people script against them.
"""

from typing import Literal

from msgspec import field

from drqueue.proto.model import (
    Amount,
    Cores,
    Depend,
    FrameStateName,
    JobStateName,
    LayerDepend,
    LimitScope,
    MachineInfo,
    MachineLoad,
    Needs,
    Number,
    Offers,
    OnUnreachable,
    PoolPolicy,
    Share,
    SlaveLimits,
    Value,
    Whole,
)

FindingState = Literal["ok", "warn", "bad"]


class Counts(Value, frozen=True, kw_only=True):
    """How many by state. `total` is their sum; `blocked` ones are part of `waiting` no more."""

    total: Whole = 0
    waiting: Whole = 0
    blocked: Whole = 0
    assigned: Whole = 0
    running: Whole = 0
    done: Whole = 0
    failed: Whole = 0
    cancelled: Whole = 0


class LayerView(Value, frozen=True, kw_only=True):
    """One layer of a job. `counts` are pictures, `chunk_counts` the units they are rendered in, whose mean
    time is `mean_frame_s`."""

    index: Whole
    name: str
    command: str
    frames: str
    chunk: Whole
    needs: Needs
    retries: Whole
    timeout_s: Number
    cwd: str
    outputs: tuple[str, ...]
    after: tuple[str, ...]
    counts: Counts
    chunk_counts: Counts = Counts()
    mean_frame_s: Number = 0
    depends: tuple[LayerDepend, ...] = ()
    order: str = "forward"
    next: str = ""
    limits: dict[str, Whole] = field(default_factory=dict)


class JobView(Value, frozen=True, kw_only=True):
    """One job. `counts` are pictures, `chunk_counts` the units they are rendered in, whose mean time is
    `mean_frame_s`; `eta_at` is 0 while nothing can be said; `moved_at`: when one last started or ended.
    `submitter` is who submitted it, as the master knows them; `owner` is what they said. `user`: whose share
    and limits it counts for. `failures` counts failed attempts since it last went on, `stopped_for` says why
    it stopped by itself. `dependents` are jobs that depend on it, or have a layer that does (the first 500).
    """

    id: Whole
    name: str
    owner: str
    project: str
    state: JobStateName
    priority: Whole
    pool: str
    counts: Counts
    chunk_counts: Counts = Counts()
    progress: Number
    submitted_at: Number
    started_at: Number
    finished_at: Number
    eta_at: Number
    mean_frame_s: Number
    cpu_s: Number
    max_running: Whole
    max_per_slave: Whole
    not_before: Number
    depends: tuple[Depend, ...]
    blocked_hosts: tuple[str, ...]
    on_unreachable: OnUnreachable
    layers: tuple[str, ...]
    waits_for: str = ""
    kind: str = "general"
    moved_at: Number = 0
    submitter: str = ""
    user: str = ""
    max_failures: Whole = 0
    failures: Whole = 0
    stopped_for: str = ""
    dependents: tuple[Whole, ...] = ()


class FrameView(Value, frozen=True, kw_only=True):
    """One frame (or chunk): its numbers, where it stands, and its latest attempt.

    `requeued`: how often it failed or was killed since its last fresh start; `returned`: how often it came
    back for any other reason (rerun, requeue, hard stop, a lost slave). `slot` and `gpus`: see RunOrder.
    """

    job: Whole
    layer: Whole
    layer_name: str
    index: Whole
    number: Whole
    last: Whole
    count: Whole
    state: FrameStateName
    attempt: Whole = 0
    requeued: Whole = 0
    slave: str = ""
    slave_id: Whole | None = None
    started_at: Number = 0
    ended_at: Number = 0
    code: Whole | None = None
    signal: Whole | None = None
    reason: str = ""
    text: str = ""
    progress: Number = 0
    activity: str = ""
    cpu_s: Number = 0
    peak_mb: Number = 0
    stop: str = ""
    returned: Whole = 0
    slot: Whole | None = None
    pid: Whole = 0
    gpus: tuple[Whole, ...] = ()


class AttemptView(Value, frozen=True, kw_only=True):
    """One try at a frame, running or over. `outcome` is "" while it runs. It might have been assigned from
    `eligible_at` on, was there a place (0: nobody knows)."""

    job: Whole
    layer: Whole
    frame: Whole
    number: Whole
    attempt: Whole
    slave: str
    slave_id: Whole
    assigned_at: Number
    started_at: Number
    ended_at: Number
    outcome: str
    code: Whole | None = None
    signal: Whole | None = None
    reason: str = ""
    text: str = ""
    cpu_s: Number = 0
    peak_mb: Number = 0
    log_bytes: Whole = 0
    eligible_at: Number = 0
    cores: Cores = 1
    memory_mb: Whole = 0
    gpus: tuple[Whole, ...] = ()


class SlaveView(Value, frozen=True, kw_only=True):
    """One slave. `state` is idle, busy, loaded (by others than its frames), disabled, sick, unlinked or lost.
    `sick` says why nothing is sent to it until it is healed, `gpus_used` which of its devices are taken."""

    id: Whole
    name: str
    state: str
    linked: bool
    cores: Whole
    memory_mb: Whole
    cores_used: Amount
    memory_used_mb: Whole
    limits: SlaveLimits
    machine: MachineInfo
    load: MachineLoad
    control: str
    last_heard_at: Number
    running: tuple[FrameView, ...] = ()
    frames_done: Whole = 0
    frames_failed: Whole = 0
    offers: Offers = Offers()
    sick: str = ""
    gpus_used: tuple[Whole, ...] = ()
    disk_used_mb: Whole = 0
    amounts_used: dict[str, Amount] = field(default_factory=dict)


class Reason(Value, frozen=True, kw_only=True):
    """One reason why a frame waits: a code to script against, a sentence, how many slaves or frames.

    `name` is what it is about, where that has a name (a limit, pool, user, project, layer, amount),
    `until_at` when it will be over by itself, where that is known.
    """

    code: str
    text: str
    count: Whole = 0
    name: str = ""
    until_at: Number = 0


class LimitView(Value, frozen=True, kw_only=True):
    """One limit: how much of it is taken, and how many jobs with waiting frames ask for it.

    `amount` is None where jobs name a limit that nobody set: their frames wait. `held_by` names the machines
    of a limit that counts those.
    """

    name: str
    amount: Amount | None
    scope: LimitScope
    used: Amount = 0
    waiting_jobs: Whole = 0
    held_by: tuple[str, ...] = ()


class ShareView(Value, frozen=True, kw_only=True):
    """One user or project in one pool: what it was given (None: nothing, it counts as 1), the cores that it
    runs, those that it had on the average of late, as the usage memory has it, and its waiting frames."""

    of: str
    name: str
    pool: str
    share: Share | None
    cores: Amount = 0
    remembered: Number = 0
    waiting: Whole = 0


class Waits(Value, frozen=True, kw_only=True):
    """How long frames waited from when they might have run until they were assigned: the latest `count` of
    them."""

    count: Whole = 0
    p50_s: Number = 0
    p90_s: Number = 0
    p99_s: Number = 0
    most_s: Number = 0


class PoolView(Value, frozen=True, kw_only=True):
    """One pool: who comes first among equals, its linked and enabled slaves and their cores, what waits for
    it."""

    name: str
    policy: PoolPolicy
    slaves: Whole = 0
    cores: Amount = 0
    cores_used: Amount = 0
    jobs: Whole = 0
    waiting: Whole = 0
    running: Whole = 0
    waits: Waits = Waits()


class AccountView(Value, frozen=True, kw_only=True):
    """One account of a node or a person, or a line that nobody has used up yet.

    `state` is active, pending (waits to be approved: compare `code` with what the node shows), or line (good
    until `expires_at`, `uses_left` times, from `net`). `peer` is where it joined from; of a person who is
    linked, where their newest link comes from.
    """

    id: str
    kind: str
    name: str
    role: str
    state: str
    created_at: Number
    created_by: str
    peer: str = ""
    linked: bool = False
    slave: str = ""
    code: str = ""
    expires_at: Number = 0
    uses_left: Whole = 0
    net: str = ""


class AuditView(Value, frozen=True, kw_only=True):
    """One row of the audit: at which time who, with which role, from where, did what, and what came of it.

    `outcome` is done or the code of the refusal; `count` says how often within a minute.
    """

    id: Whole
    at: Number
    who: str
    role: str
    peer: str
    what: str
    outcome: str
    text: str = ""
    count: Whole = 1


class LoopLag(Value, frozen=True, kw_only=True):
    """How late a sleeper in a daemon's loop woke over the last minute (milliseconds)."""

    median_ms: Number
    p99_ms: Number
    most_ms: Number


class HoldbackView(Value, frozen=True, kw_only=True):
    """What is held back after a restore from a backup: how many jobs that have frames left, when the last of
    those goes on that wait for leases to end (0: none does), how many wait for an operator's word alone, and
    how many of the slaves that the backup knows have not linked since."""

    jobs: Whole
    until_at: Number = 0
    for_operator: Whole = 0
    slaves_away: Whole = 0


class Finding(Value, frozen=True, kw_only=True):
    """One thing that was looked at: what, how it is (ok, warn or bad), a sentence, what to do about it."""

    what: str
    state: FindingState
    text: str
    advice: str = ""
