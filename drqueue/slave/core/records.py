"""What the slave's core wants kept. PURE: plain data.

Each record is a small array on disk whose first item names it. The spool keeps those of attempts; the
last three go to files of their own (identity and limits), which outlive a spool that is set aside.
A record may only ever gain fields at its end, with defaults: older journals stay readable.
"""

import msgspec
from msgspec import Struct

from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Exit, RunOrder, SlaveLimits

#: What is remembered of a declared output before the start: inode, size, mtime in ns; None: no such file.
Stamp = tuple[int, int, int] | None
#: The outputs as they were, by file name.
Before = dict[str, Stamp]


class Boot(Struct, frozen=True, array_like=True, tag="boot"):
    """The boot in which what follows happened; another boot runs none of it."""

    boot_id: str


class Accepted(Struct, frozen=True, array_like=True, tag="accept"):
    """An order was taken on."""

    order: RunOrder


class Prepared(Struct, frozen=True, array_like=True, tag="before"):
    """How the attempt's declared outputs were before it started."""

    key: AttemptKey
    before: Before


class Running(Struct, frozen=True, array_like=True, tag="run"):
    """The command runs; `birth` in clock ticks since boot, `at` on the wall clock."""

    key: AttemptKey
    pid: int
    birth: int
    at: float


class StopAsked(Struct, frozen=True, array_like=True, tag="stop"):
    """The attempt is to end: the reason its exit will give, the sentence, the grace."""

    key: AttemptKey
    reason: str
    text: str
    grace_s: float


class Ended(Struct, frozen=True, array_like=True, tag="end"):
    """The attempt is over; to be reported until it is noted."""

    key: AttemptKey
    exit: Exit


class Noted(Struct, frozen=True, array_like=True, tag="noted"):
    """The master has it on disk: forgotten here."""

    key: AttemptKey


class MasterHeard(Struct, frozen=True, array_like=True, tag="heard"):
    """Leases count from `at` (seconds since boot) and are at least as long as the master granted, `grant_s`.

    `hello_at`: since then a master may have heard that this slave is there, and forget that grant; 0: none.
    """

    at: float
    grant_s: float = 0
    hello_at: float = 0


class MasterSeen(Struct, frozen=True, array_like=True, tag="master"):
    """The farm this slave belongs to, the newest epoch seen in it, and the life of the master that had it."""

    farm: str
    epoch: int
    life: str = ""


class FarmLeft(Struct, frozen=True, array_like=True, tag="left"):
    """The farm `old` is left: its spool is set aside and the slave takes a new identity."""

    old: str


class LimitsSet(Struct, frozen=True, array_like=True, tag="limits"):
    """The slave's limits from now on."""

    limits: SlaveLimits


SpoolRecord = Boot | Accepted | Prepared | Running | StopAsked | Ended | Noted | MasterHeard
_encode = msgspec.msgpack.Encoder().encode
Record = SpoolRecord | MasterSeen | FarmLeft | LimitsSet


def to_bytes(record: SpoolRecord) -> bytes:
    """The record as it stands in the spool: msgpack of what `to_plain` makes of it."""
    return _encode(record)


def to_plain(record: SpoolRecord) -> object:
    """The record as lists, maps, numbers and strings."""
    return msgspec.to_builtins(record)


def from_plain(plain: object) -> SpoolRecord:
    """The record again; raises ValueError (msgspec.ValidationError) for anything else."""
    record: SpoolRecord = msgspec.convert(plain, SpoolRecord)
    return record
