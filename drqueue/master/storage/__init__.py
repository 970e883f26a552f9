"""What survives: the rows of `drqueue.master.core.records`, kept durably for the master.

`Storage` is all that the master needs; `sqlite` keeps the rows in a file, `memory` in a process (tests,
the simulator). Rules: a commit is all or none, and durable when it returns; job and slave ids are never
used again; the rows of a job without a JobRecord are invisible. Methods block and are called one at a
time, from a worker thread; only `backup` may run beside the others, in a thread of its own.
"""

from collections.abc import Sequence
from typing import Protocol

from drqueue.master.core.records import AnyRecord, AttemptRecord, AuditRecord, Saved
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds


class StorageError(Exception):
    """The storage cannot go on; the text is one sentence for people. The master stops."""


class StorageFull(StorageError):  # noqa: N818 - it says a state
    """No room on the disk, or no file can be opened: nothing was written. The same may be tried again."""


class StorageCorrupt(StorageError):  # noqa: N818 - it says a state
    """What is stored is damaged; the sentence says how to restore the latest backup."""


class Storage(Protocol):
    """Where the rows are kept. Every method raises StorageError, and those that write StorageFull."""

    def load(self) -> Saved:
        """All that the core starts from, by key, ascending. Take it whole before the first commit."""

    def commit(self, records: Sequence[AnyRecord]) -> None:
        """Write and drop rows in order, all or none; they are durable when this returns."""

    def attempts(self, job: int, layer: int, number: int) -> list[AttemptRecord]:
        """The history of the frame that starts at this frame number, oldest first."""

    def latest_attempts(self, job: int, layer: int, numbers: Sequence[int]) -> dict[int, AttemptRecord]:
        """The last attempt of each of these frame numbers that has one (a page: at most some 1000)."""

    def log(self, key: AttemptKey) -> LogEnds | None:
        """The ends of an attempt's log, if they are kept."""

    def purge(self, before_wall: float, limit: int) -> int:
        """One small batch of housekeeping, of about `limit` rows looked at or dropped.

        Drops what is left of forgotten jobs, then attempts that ended before `before_wall` (seconds
        since 1970) with their logs, except the last one of each frame. Returns how many rows it dealt
        with; 0 says that a whole round is over, and the next call begins another.
        """

    def purge_logs(self, keep_bytes: int, limit: int) -> int:
        """Drop up to `limit` of the oldest logs, as long as all of them take more than `keep_bytes`.

        Returns how many went; 0 says that the rest fits. Cheap where it does: it may be asked often.
        """

    def audit(self, after_id: int, limit: int) -> list[AuditRecord]:
        """Rows of the audit with higher ids than this, the oldest of them first."""

    def audit_latest(self, count: int) -> list[AuditRecord]:
        """The last so many rows of the audit, oldest first."""

    def purge_audit(self, before_wall: float, limit: int) -> int:
        """Drop up to `limit` rows of the audit from before that time (seconds since 1970); how many went."""

    def backup(self, path: str) -> None:
        """Write a checked copy to `path` (0600), replacing an older one once it is whole."""

    def close(self) -> None:
        """Release everything; closing twice is harmless."""
