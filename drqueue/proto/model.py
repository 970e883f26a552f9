"""Values that both ends know: what a job is, what a slave offers, how an attempt ended.

Every struct is checked field by field when it comes from the wire. Sizes that people may reach
are checked by `drqueue.proto.checks`, which answers in sentences; what stands here as `Meta` only
keeps nonsense out. Units are in the names: `_s` seconds, `_mb` MiB, `_at` seconds since 1970.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from drqueue.proto.ids import BIG, AttemptKey, Natural

Positive = Annotated[int, Meta(ge=1, le=BIG)]
Whole = Annotated[int, Meta(ge=-BIG, le=BIG)]
Priority = Annotated[int, Meta(ge=0, le=2**32 - 1)]
#: Bounds keep NaN and infinity out, too.
Seconds = Annotated[float, Meta(ge=0, le=1e15)]
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Name = Annotated[str, Meta(min_length=1, max_length=127)]

OnUnreachable = Literal["lease", "hold", "requeue-fast"]
FrameStateName = Literal["WAITING", "BLOCKED", "ASSIGNED", "RUNNING", "DONE", "FAILED", "CANCELLED"]
JobStateName = Literal["WAITING", "ACTIVE", "STOPPED", "FINISHED"]

DEFAULT_POOL = "Default"
SCRATCH = "scratch"
#: In place of a working directory: the home of the node's own frames.
NODE_HOME = "~"
#: The kind of a job that is a command and nothing more.
GENERAL = "general"
#: What may stand in the place of exit codes: however a command exits, its frame is done.
ANY = "any"

ExitCodes = tuple[Annotated[int, Meta(ge=0, le=255)], ...] | Literal["any"]


class Value(Struct, frozen=True, omit_defaults=True):
    """Base of all values: immutable, unknown keys ignored (they are the future's)."""


class Needs(Value, frozen=True):
    """What one attempt asks of a slave. Empty `os` means any.

    `memory_mb` is set aside for it; `machine_memory_mb` is what the slave must offer in all.
    """

    cores: Positive = 1
    memory_mb: Natural = 0
    os: tuple[str, ...] = ()
    machine_memory_mb: Natural = 0


class LayerSpec(Value, frozen=True, kw_only=True):
    """One command over a frame range.

    Either `argv` (a list of words, no shell) or `shell` (a string for `/bin/sh -c`) is given.
    `after` names layers of the same job that must be wholly DONE first. `pad`: digits of a frame number in
    DRQUEUE_PADFRAME. A command that ends by itself with one of `success_exit_codes` did its work.
    """

    name: Name = "main"
    argv: tuple[str, ...] = ()
    shell: str = ""
    frames: str = "1"
    chunk: Positive = 1
    needs: Needs = Needs()
    retries: Natural = 3
    timeout_s: Seconds = 0
    cwd: str = ""
    env: dict[str, str] = {}
    outputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    progress: str = ""
    pad: Annotated[int, Meta(ge=0, le=99)] = 4
    success_exit_codes: ExitCodes = (0,)


class Depend(Value, frozen=True):
    """Wait for another job: until all its frames are DONE, or (`ended`) until it is FINISHED anyhow."""

    job: Natural
    until: Literal["done", "ended"] = "done"


class JobSpec(Value, frozen=True, kw_only=True):
    """What a user submits. 0 in a limit means none; `lease_s` 0 means the farm's.

    `kind` and `params` say what the commands were made from; nothing is run from them. The mail goes to
    `email`, or to the owner where that is empty.
    """

    name: Name
    owner: str = ""
    project: str = ""
    priority: Priority = 500
    pool: Name = DEFAULT_POOL
    env: dict[str, str] = {}
    layers: tuple[LayerSpec, ...]
    depends: tuple[Depend, ...] = ()
    not_before: Seconds = 0
    max_running: Natural = 0
    max_per_slave: Natural = 0
    blocked: tuple[str, ...] = ()
    lease_s: Seconds = 0
    on_unreachable: OnUnreachable = "lease"
    stopped: bool = False
    delete_when_finished: bool = False
    mail_when_finished: bool = False
    email: str = ""
    kind: Name = GENERAL
    params: dict[str, str] = {}


class JobChange(Value, frozen=True, kw_only=True):
    """What may be changed on a live job; what is left out stays as it is."""

    name: Name | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    pool: Name | UnsetType = UNSET
    max_running: Natural | UnsetType = UNSET
    max_per_slave: Natural | UnsetType = UNSET
    not_before: Seconds | UnsetType = UNSET
    on_unreachable: OnUnreachable | UnsetType = UNSET
    depends: tuple[Depend, ...] | UnsetType = UNSET
    block: tuple[str, ...] = ()
    unblock: tuple[str, ...] = ()
    layer: str | UnsetType = UNSET
    frames: str | UnsetType = UNSET
    chunk: Positive | UnsetType = UNSET
    retries: Natural | UnsetType = UNSET
    needs: Needs | UnsetType = UNSET
    machine_memory_mb: Natural | UnsetType = UNSET


class Gpu(Value, frozen=True):
    """One GPU as its driver names it."""

    index: Natural
    name: str
    memory_mb: Natural
    uuid: str = ""


class MachineInfo(Value, frozen=True, kw_only=True):
    """A slave's hardware, measured once at its start."""

    hostname: str
    os: str
    os_release: str = ""
    arch: str = ""
    cpu_model: str = ""
    cpu_mhz: Natural = 0
    cores_physical: Natural = 0
    cores_logical: Natural = 0
    memory_mb: Natural = 0
    swap_mb: Natural = 0
    disk_total_mb: Natural = 0
    boot_id: str = ""
    gpus: tuple[Gpu, ...] = ()


class MachineLoad(Value, frozen=True, kw_only=True):
    """How busy a slave's machine is, sampled at a calm rate."""

    load1: Number = 0
    load5: Number = 0
    load15: Number = 0
    cpu_percent: Number = 0
    memory_free_mb: Natural = 0
    swap_free_mb: Natural = 0
    disk_free_mb: Natural = 0
    net_rx_bytes_s: Number = 0
    net_tx_bytes_s: Number = 0
    disk_read_bytes_s: Number = 0
    disk_write_bytes_s: Number = 0
    gpu_percent: tuple[Number, ...] = ()


class SlaveLimits(Value, frozen=True, kw_only=True):
    """What a slave lets the farm use. None: no limit beyond what it offers. The slave owns these."""

    enabled: bool = True
    max_cpus: Natural | None = None
    max_load: Seconds | None = None
    pools: tuple[str, ...] = (DEFAULT_POOL,)
    autoenable: str | None = None


class LimitsChange(Value, frozen=True, kw_only=True):
    """A wish to change a slave's limits; what is left out stays as it is.

    `pools` replaces them all; then it joins and leaves single ones.
    """

    enabled: bool | UnsetType = UNSET
    max_cpus: Natural | UnsetType | None = UNSET
    max_load: Seconds | UnsetType | None = UNSET
    pools: tuple[str, ...] | UnsetType = UNSET
    autoenable: str | UnsetType | None = UNSET
    join: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


class Exit(Value, frozen=True, kw_only=True):
    """How an attempt ended.

    `code` or `signal` is the process's own status; both None with a `reason` means that it never
    ran, or that its status is unknown. `reason` is "" for a plain exit, else one of REASONS;
    `text` is the sentence for people.
    """

    code: Whole | None = None
    signal: Whole | None = None
    reason: str = ""
    text: str = ""
    started_at: Seconds = 0
    ended_at: Seconds = 0
    cpu_s: Seconds = 0
    peak_mb: Seconds = 0
    log_bytes: Natural = 0


#: Reasons that count as the frame's own failure ...
FAILURES = frozenset(
    {"no-command", "no-cwd", "spawn-failed", "timeout", "missing-output", "log-limit", "bad-order"}
)
#: ... that are nobody's failure: the frame is simply WAITING again ...
NOBODYS = frozenset({"keeper-died", "lease", "stopped", "shutdown", "lost"})
#: ... a kill asked for at the slave itself, which counts as a frame kill does ...
KILLED = "killed"
#: ... and all of them.
REASONS = FAILURES | NOBODYS | {KILLED, ""}


class RunOrder(Value, frozen=True, kw_only=True):
    """All that a slave needs to run one attempt. The frame's numbers are start, start+step ... (count).

    `slot` is the lowest number that none of the slave's other attempts had when this one was ordered.
    `submitter` is who submitted the job, as the master knows them.
    """

    key: AttemptKey
    start: Whole
    step: Whole = 1
    count: Positive = 1
    argv: tuple[str, ...] = ()
    shell: str = ""
    cwd: str = ""
    env: dict[str, str] = {}
    outputs: tuple[str, ...] = ()
    progress: str = ""
    timeout_s: Seconds = 0
    cores: Positive = 1
    memory_mb: Natural = 0
    lease_s: Seconds = 1800
    on_unreachable: OnUnreachable = "lease"
    job_name: str = ""
    owner: str = ""
    pool: str = ""
    layer_name: str = ""
    range_start: Whole = 0
    range_end: Whole = 0
    range_step: Whole = 1
    block: Positive = 1
    pad: Natural = 4
    slot: Natural = 0
    success_exit_codes: ExitCodes = (0,)
    submitter: str = ""


class LogEnds(Value, frozen=True, kw_only=True):
    """The first and last part of an attempt's log; `packed`: each is zlib-compressed, as that is smaller."""

    size: Natural
    head: bytes = b""
    tail: bytes = b""
    packed: bool = False
