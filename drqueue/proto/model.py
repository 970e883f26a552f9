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
#: Amounts are whole numbers or fractions, counted in thousandths.
Amount = Annotated[int, Meta(ge=0, le=BIG)] | Annotated[float, Meta(ge=0, le=1e12)]
Cores = Annotated[int, Meta(ge=1, le=BIG)] | Annotated[float, Meta(gt=0, le=1e6)]
Weight = Annotated[int, Meta(ge=1, le=1000)] | Annotated[float, Meta(ge=0.001, le=1000)]
Percent = Annotated[int, Meta(ge=1, le=100)] | Annotated[float, Meta(gt=0, le=100)]

#: How frames that are waited for must have ended: well, or anyhow.
Until = Literal["done", "ended"]
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


class Alternative(Value, frozen=True, kw_only=True):
    """Amounts that do in place of the first ones of `Needs`. None: as much as those ask."""

    cores: Cores = 1
    memory_mb: Natural | None = None
    gpus: Natural = 0
    gpu_memory_mb: Natural = 0
    disk_mb: Natural | None = None
    amounts: dict[str, Amount] = {}


class Needs(Value, frozen=True):
    """What one attempt asks of a slave. Empty `os` means any.

    `memory_mb` and `disk_mb` are set aside for it; `machine_memory_mb` is what the slave must offer in all.
    `gpus` are whole devices with at least `gpu_memory_mb` each; `amounts` are named ones that slaves offer.
    It runs where the slave has all of `tags` and `where` (see `expressions`) is true. `alternatives` are
    tried in their order where a slave cannot give the first amounts.
    """

    cores: Cores = 1
    memory_mb: Natural = 0
    os: tuple[str, ...] = ()
    machine_memory_mb: Natural = 0
    gpus: Natural = 0
    gpu_memory_mb: Natural = 0
    disk_mb: Natural = 0
    amounts: dict[str, Amount] = {}
    tags: tuple[str, ...] = ()
    where: str = ""
    alternatives: tuple[Alternative, ...] = ()


class Depend(Value, frozen=True):
    """Wait for another job, or (`layer`) for one layer of it: for all its frames, for any one of them, or for
    `percent` of them; until they are DONE, or (`ended`) DONE, FAILED or CANCELLED.
    """

    job: Natural
    until: Until = "done"
    layer: str = ""
    frames: Literal["all", "any", "percent"] = "all"
    percent: Percent = 100


class LayerDepend(Value, frozen=True, kw_only=True):
    """What frames of a layer wait for: another layer, of the same job or of another (`job`).

    `each`: frame n waits for that layer's n + `offset`, where it has that; a chunk waits for all its
    numbers'. `previous`: for the frame before it in its own layer's range. The others are as in `Depend`;
    `layer` "" is the first one of another job.
    """

    layer: str = ""
    job: Natural | None = None
    frames: Literal["all", "any", "percent", "each", "previous"] = "all"
    offset: Whole = 0
    percent: Percent = 100
    until: Until = "done"


class LayerSpec(Value, frozen=True, kw_only=True):
    """One command over a frame range.

    Either `argv` (a list of words, no shell) or `shell` (a string for `/bin/sh -c`) is given.
    `after` names layers of the same job that must be wholly DONE first, `depends` says more of whom its
    frames wait for. `pad`: digits of a frame number in DRQUEUE_PADFRAME. A command that ends by itself with
    one of `success_exit_codes` did its work. `order` is forward, reverse, coarse (the ends, then the
    middles), or frames that come first; those of `next` come before all. `limits`: how much of which limits
    an attempt takes.
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
    depends: tuple[LayerDepend, ...] = ()
    order: str = "forward"
    next: str = ""
    limits: dict[str, Positive] = {}


class JobSpec(Value, frozen=True, kw_only=True):
    """What a user submits. 0 in a limit means none; `lease_s` 0 means the farm's. It stops by itself after
    `max_failures` failed attempts.

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
    max_failures: Natural = 0


class JobChange(Value, frozen=True, kw_only=True):
    """What may be changed on a live job; what is left out stays as it is.

    From `frames` on it is one layer's: the one named `layer`, or the first.
    """

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
    project: str | UnsetType = UNSET
    max_failures: Natural | UnsetType = UNSET
    after: tuple[str, ...] | UnsetType = UNSET
    layer_depends: tuple[LayerDepend, ...] | UnsetType = UNSET
    order: str | UnsetType = UNSET
    next: str | UnsetType = UNSET
    limits: dict[str, Positive] | UnsetType = UNSET


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


class Offers(Value, frozen=True, kw_only=True):
    """What a slave's settings offer beside cores and memory.

    `gpus`: indexes of devices of its MachineInfo; `amounts`, `tags` and `attributes` are named by the studio.
    """

    gpus: tuple[Natural, ...] = ()
    disk_mb: Natural = 0
    amounts: dict[str, Amount] = {}
    tags: tuple[str, ...] = ()
    attributes: dict[str, str] = {}


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
    {"no-command", "no-cwd", "spawn-failed", "timeout", "missing-output", "log-limit", "bad-order", "oom"}
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
    `submitter` is who submitted the job, as the master knows them. `gpus`: indexes of the devices that are
    its.
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
    cores: Cores = 1
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
    gpus: tuple[Natural, ...] = ()
    disk_mb: Natural = 0
    amounts: dict[str, Amount] = {}


class LogEnds(Value, frozen=True, kw_only=True):
    """The first and last part of an attempt's log; `packed`: each is zlib-compressed, as that is smaller."""

    size: Natural
    head: bytes = b""
    tail: bytes = b""
    packed: bool = False


# --- what admins set -----------------------------------------------------------------------------------

LimitScope = Literal["attempts", "cores", "slaves"]
PoolPolicy = Literal["fair", "fifo"]
Sharer = Literal["user", "project"]


class Limit(Value, frozen=True, kw_only=True):
    """A counter of what runs: attempts, their cores, or machines (one seat for all attempts on a machine).

    Jobs name it, but for those of everybody: `user:NAME`, `project:NAME` and `pool:NAME` count what runs of
    that user, project or pool, and `user:*` and so on each one that has none of its own.
    """

    name: str
    amount: Amount
    scope: LimitScope = "attempts"


class Share(Value, frozen=True, kw_only=True):
    """What a user or a project gets of a pool ("": of all pools that have none of their own).

    Cores are shared among equals by `weight`. A project below `minimum` cores goes before all others, and it
    never has more than `burst` cores.
    """

    of: Sharer
    name: str
    pool: str = ""
    weight: Weight = 1
    minimum: Amount = 0
    burst: Amount | None = None
