"""Reasons why frames wait: their codes, and the words that several of them are made of.

Codes are stable: people script against them. `docs/operations.md` has this table.
"""

from collections.abc import Mapping
from typing import Final

from drqueue.master.core.amounts import Ask, plain

#: What each code means, and what to do about it.
CODES: Final[Mapping[str, tuple[str, str]]] = {
    "stopped": ("somebody stopped the job, or submitted it so", "`drqueue continue ID`"),
    "max-failures": (
        "the job stopped by itself, because so many attempts failed",
        "read `drqueue log`, mend the cause, `drqueue continue ID`",
    ),
    "restored": (
        "it came back with a backup, and frames of it that began since may still run out of reach",
        "see [backup and restore](#backup-and-restore)",
    ),
    "not-before": ("its start time has not come", "wait, or give it another"),
    "dependency": ("it waits for frames of another layer or job", "look at those"),
    "back-off": ("it failed and is tried again soon", "`drqueue log ID FRAME`, `drqueue attempts ID FRAME`"),
    "ending": ("an earlier attempt at the same frame is still being stopped", "wait for its grace"),
    "unreachable": (
        "it may still run on a slave that cannot be reached",
        "see [when a node dies](#when-a-node-dies)",
    ),
    "failed": (
        "nothing waits, but frames failed and their retries are used up",
        "read `drqueue log`, mend the cause, `drqueue frame requeue`",
    ),
    "max-running": ("the job's own limit is reached", "`drqueue set ID --max-running N`"),
    "limit": ("a limit that its layer names is reached", "wait, or `drqueue limit set NAME N`"),
    "limit-unset": ("a limit that its layer names was never set", "`drqueue limit set NAME N`"),
    "limit-user": ("its user's limit is reached", "wait, or `drqueue limit set user:NAME N`"),
    "limit-project": ("its project's limit is reached", "wait, or `drqueue limit set project:NAME N`"),
    "limit-pool": ("its pool's limit is reached", "wait, or `drqueue limit set pool:NAME N`"),
    "burst": ("its project has all the cores that it may have of the pool", "wait, or `drqueue share set`"),
    "no-slaves": ("no slave has ever linked to this master", "start one; look at its log"),
    "pool": ("no slave is in the job's pool", "`drqueue slave set NAME --pools A,B`, or the job's pool"),
    "slaves": ("how many slaves cannot take it for which cause", "each cause follows with its own code"),
    "unlinked": ("slaves are not linked", "look at their logs"),
    "lost": ("slaves were given up as lost", "start them again, or forget them"),
    "disabled": ("slaves are disabled", "`drqueue slave enable NAME`"),
    "autoenable": ("slaves are disabled, and will enable themselves", "wait, or `drqueue slave enable NAME`"),
    "sick": (
        "frames of several users failed on slaves in a row",
        "`drqueue slave NAME`, mend it, `drqueue slave heal NAME`",
    ),
    "os": ("slaves run another system", "the job's `--os`"),
    "tag": ("slaves lack a tag", "the slave's settings, or the job's `--tag`"),
    "where": ("what the job says of its slaves is not true of them", "the job's `--where`"),
    "blocked": ("slaves are blocked for this job", "`drqueue set ID --unblock HOST`"),
    "avoided": (
        "frames of the job, or this one, failed on slaves and try others first",
        "wait, or `drqueue slave heal NAME`",
    ),
    "cores-never": ("slaves offer fewer cores than a frame asks for", "`drqueue set ID --cores N`"),
    "memory-never": ("slaves offer less memory than a frame asks for", "`drqueue set ID --memory MB`"),
    "gpu-never": ("slaves offer fewer GPUs, or smaller ones, than a frame asks for", "the job's `--gpus`"),
    "disk-never": ("slaves offer less disk than a frame asks for", "the job's `--disk`"),
    "amount-never": ("slaves offer less of a named amount than a frame asks for", "the slave's settings"),
    "cores": ("slaves have not enough free cores", "wait"),
    "memory": ("slaves have not enough free memory", "wait"),
    "gpu": ("slaves have not enough free GPUs", "wait"),
    "disk": ("slaves have not enough disk that nobody has", "wait"),
    "amount": ("slaves have not enough left of a named amount", "wait"),
    "load": (
        "what else loads slaves leaves them no room, by their `--max-load`",
        "wait, or `drqueue slave set NAME --max-load none`",
    ),
    "max-per-slave": ("the job's limit per slave is reached", "`drqueue set ID --max-per-slave N`"),
    "seat": (
        "a limit that counts machines is reached, and slaves are not among them",
        "wait, or `drqueue limit set NAME N`",
    ),
    "turn": ("others go first, or it is about to start", "`drqueue set ID --priority P`"),
}
#: Codes of slaves that could take it some day as they are: others need somebody to do something.
BUSY: Final = frozenset(
    {"cores", "memory", "gpu", "disk", "amount", "load", "max-per-slave", "seat", "avoided"}
)
#: Codes of slaves that could never run it, whatever becomes free.
NEVER: Final = frozenset(
    {"os", "tag", "where", "cores-never", "memory-never", "gpu-never", "disk-never", "amount-never"}
)


def many(count: float, what: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def span(seconds: float) -> str:
    """A time to wait in words, rounded up: `45 s`, `31 min`, `24 h`, `5 days`."""
    left = max(0, -int(-seconds // 1))
    for size, word, unit in ((96 * 3600, "days", 24 * 3600), (7200, "h", 3600), (120, "min", 60)):
        if left >= size:
            return f"{-(-left // unit)} {word}"
    return f"{left} s"


def megabytes(count: int) -> str:
    """`500 MB`, `24 GB`, `1.5 GB`, `97.7 TB`."""
    if count < 1024:
        return f"{count} MB"
    return f"{count / 1024:.4g} GB" if count < 9999 * 1024 else f"{count / 1024**2:,.1f} TB"


def asked(ask: Ask, *, machine_memory_mb: int = 0) -> str:
    """What an attempt takes: `4 cores, 32 GB memory, 2 GPUs of 24 GB`."""
    parts = [many(plain(ask.cores), "core")]
    if ask.memory_mb or machine_memory_mb:
        parts.append(f"{megabytes(max(ask.memory_mb, machine_memory_mb))} memory")
    if ask.gpus:
        parts.append(gpus(ask))
    if ask.disk_mb:
        parts.append(f"{megabytes(ask.disk_mb)} disk")
    parts += [f"{plain(amount)} {name}" for name, amount in ask.amounts]
    return ", ".join(parts)


def gpus(ask: Ask) -> str:
    """`2 GPUs of 24 GB`."""
    of = f" of {megabytes(ask.gpu_memory_mb)}" if ask.gpu_memory_mb else ""
    return many(ask.gpus, "GPU") + of


def listed(names: list[str], most: int = 3, last: str = "and") -> str:
    """`a, b and c`, `a, b, c and 5 more`."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""
