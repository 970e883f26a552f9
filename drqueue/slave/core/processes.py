"""What the slave's core and the supervisor tell each other about frames' processes. PURE: plain data.

Events are told by a keeper as JSON, in which they and their fields are called as they say at the top of each.
"""

from collections.abc import Mapping

from msgspec import Struct

from drqueue.proto.ids import AttemptKey

# Reasons of LaunchFailed.
NO_COMMAND = "no-command"
NO_CWD = "no-cwd"
SPAWN_FAILED = "spawn-failed"

# Reasons of ProcessEnded, besides "" for a process that ended by itself or by a signal.
LOG_LIMIT = "log-limit"
OOM = "oom"
PERHAPS_OOM = "perhaps-oom"  # it was killed, by nobody here, and memory ran out sometime while it ran
KEEPER_DIED = "keeper-died"


# --- effects: what the core wants done


class Launch(Struct, frozen=True):
    """Start an attempt's command in a session of its own, its output appended to `log_path`.

    The environment is `base_env` and `env` over it, which must hold DRQUEUE_ATTEMPT=str(key), by which strays
    are known. The very same `base_env` as before travels to the keeper once, and must not change.
    `log_cap` is in bytes; with `reuse_log` a log that stayed empty may be gone in the end. With `scratch` the
    working directory is made first (0700) where it is missing; whoever asked for it removes it. `user` is
    another user that it runs as (uid, gid, further groups); then a scratch directory must not be there yet.
    `group`: it gets a cgroup of its own where it can, with the most processes and threads and the most memory
    in bytes that it may have (0: any amount).
    """

    key: AttemptKey
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    log_path: str
    log_cap: int
    umask: int = 0o022
    scratch: bool = False
    user: tuple[int, int, tuple[int, ...]] | None = None
    reuse_log: bool = False
    base_env: Mapping[str, str] = {}
    group: tuple[int, int] | None = None


class SignalTree(Struct, frozen=True):
    """Send TERM, or with `kill` KILL until nothing is left, to all processes of an attempt."""

    key: AttemptKey
    kill: bool


class ForgetProcess(Struct, frozen=True):
    """The end of this attempt is noted; the keeper need not remember it any longer."""

    key: AttemptKey


ProcessEffect = Launch | SignalTree | ForgetProcess


# --- events: what came of it


class ProcessStarted(Struct, frozen=True, tag_field="is", tag="started"):
    """The command runs. `birth` is in clock ticks since boot, `at` in seconds of wall clock.

    Told again after each re-attachment to a living keeper; not told where the end came soon after.
    """

    key: AttemptKey
    pid: int
    birth: int
    at: float


class LaunchFailed(Struct, frozen=True, tag_field="is", tag="failed"):
    """The command never ran: `reason` is NO_COMMAND, NO_CWD or SPAWN_FAILED, `text` one sentence."""

    key: AttemptKey
    reason: str
    text: str


class ProcessEnded(
    Struct,
    frozen=True,
    tag_field="is",
    tag="ended",
    rename={
        "cpu_s": "cpu",
        "peak_bytes": "peak",
        "started_at": "start",
        "ended_at": "end",
        "log_bytes": "log",
    },
):
    """The command and all it started are gone.

    Either `code` or `signal` is set; both are None where the status is unknown (`reason` KEEPER_DIED: then
    cpu_s, peak_bytes and log_bytes are 0 too). `cpu_s` is user and system time of the tree, `peak_bytes` the
    larger of the biggest process and the biggest sum over the tree that was seen (shared pages count once
    per process), `log_bytes` the log's length, punched holes included; times are wall clock.
    """

    key: AttemptKey
    code: int | None
    signal: int | None
    cpu_s: float
    peak_bytes: int
    started_at: float
    ended_at: float
    log_bytes: int
    reason: str


ProcessEvent = ProcessStarted | LaunchFailed | ProcessEnded
