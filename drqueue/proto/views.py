"""What clients are shown: snapshots of jobs, layers, frames, attempts and slaves.

Field names are what `--json` prints: stable, people script against them.
"""

from drqueue.proto.model import (
    Depend,
    FrameStateName,
    JobStateName,
    MachineInfo,
    MachineLoad,
    Needs,
    OnUnreachable,
    SlaveLimits,
    Value,
)


class Counts(Value, frozen=True, kw_only=True):
    """Frames by state. `total` is their sum; `blocked` ones are part of `waiting` no more."""

    total: int = 0
    waiting: int = 0
    blocked: int = 0
    assigned: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class LayerView(Value, frozen=True, kw_only=True):
    """One layer of a job."""

    index: int
    name: str
    command: str
    frames: str
    chunk: int
    needs: Needs
    retries: int
    timeout_s: float
    cwd: str
    outputs: tuple[str, ...]
    after: tuple[str, ...]
    counts: Counts


class JobView(Value, frozen=True, kw_only=True):
    """One job. `eta_at` is 0 while nothing can be said."""

    id: int
    name: str
    owner: str
    project: str
    state: JobStateName
    priority: int
    pool: str
    counts: Counts
    progress: float
    submitted_at: float
    started_at: float
    finished_at: float
    eta_at: float
    mean_frame_s: float
    cpu_s: float
    max_running: int
    max_per_slave: int
    not_before: float
    depends: tuple[Depend, ...]
    blocked_hosts: tuple[str, ...]
    on_unreachable: OnUnreachable
    layers: tuple[str, ...]
    waits_for: str = ""


class FrameView(Value, frozen=True, kw_only=True):
    """One frame (or chunk): its numbers, where it stands, and its latest attempt."""

    job: int
    layer: int
    layer_name: str
    index: int
    number: int
    last: int
    count: int
    state: FrameStateName
    attempt: int = 0
    requeued: int = 0
    slave: str = ""
    slave_id: int | None = None
    started_at: float = 0
    ended_at: float = 0
    code: int | None = None
    signal: int | None = None
    reason: str = ""
    text: str = ""
    progress: float = 0
    activity: str = ""
    cpu_s: float = 0
    peak_mb: float = 0
    stop: str = ""


class AttemptView(Value, frozen=True, kw_only=True):
    """One try at a frame, running or over. `outcome` is "" while it runs."""

    job: int
    layer: int
    frame: int
    number: int
    attempt: int
    slave: str
    slave_id: int
    assigned_at: float
    started_at: float
    ended_at: float
    outcome: str
    code: int | None = None
    signal: int | None = None
    reason: str = ""
    text: str = ""
    cpu_s: float = 0
    peak_mb: float = 0
    log_bytes: int = 0


class SlaveView(Value, frozen=True, kw_only=True):
    """One slave. `state` is idle, busy, disabled, unlinked or lost."""

    id: int
    name: str
    state: str
    linked: bool
    cores: int
    memory_mb: int
    cores_used: int
    memory_used_mb: int
    limits: SlaveLimits
    machine: MachineInfo
    load: MachineLoad
    control: str
    last_heard_at: float
    running: tuple[FrameView, ...] = ()
    frames_done: int = 0
    frames_failed: int = 0


class Reason(Value, frozen=True, kw_only=True):
    """One reason why a frame waits: a code to script against, a sentence, how many slaves or frames."""

    code: str
    text: str
    count: int = 0
