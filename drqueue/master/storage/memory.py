"""Storage in a process, for tests and the simulator: it behaves as the one in a file does.

Rule: it outlives `close`, so that a simulated master can be started on it again.
"""

from collections import defaultdict
from collections.abc import Sequence

from drqueue.master.core.records import (
    AccountForget,
    AccountRecord,
    AnyRecord,
    AttemptRecord,
    AuditRecord,
    DoneFrames,
    FrameRecord,
    FramesForget,
    JobForget,
    JobRecord,
    LayerRecord,
    LayerTotals,
    LimitForget,
    LimitRecord,
    LineForget,
    LineRecord,
    LogRecord,
    MetaRecord,
    PoolForget,
    PoolRecord,
    Saved,
    ShareForget,
    ShareRecord,
    SlaveForget,
    SlaveRecord,
)
from drqueue.master.storage import StorageError
from drqueue.proto.ids import AttemptKey
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import LogEnds


class MemoryStorage:
    """Rows in dicts. While `refuse` is an error, commits raise it and change nothing."""

    def __init__(self) -> None:
        self.refuse: StorageError | None = None
        self._meta: dict[str, str] = {}
        self._jobs: dict[int, JobRecord] = {}
        self._slaves: dict[int, SlaveRecord] = {}
        self._layers: dict[int, dict[int, LayerRecord]] = defaultdict(dict)
        self._frames: dict[int, dict[int, dict[int, FrameRecord]]] = defaultdict(lambda: defaultdict(dict))
        self._attempts: dict[int, dict[tuple[int, int], dict[int, AttemptRecord]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        #: Oldest first.
        self._logs: dict[AttemptKey, LogEnds] = {}
        self._totals: dict[tuple[int, int], LayerTotals] = {}
        self._accounts: dict[str, AccountRecord] = {}
        self._lines: dict[str, LineRecord] = {}
        self._audit: dict[int, AuditRecord] = {}
        self._limits: dict[str, LimitRecord] = {}
        self._shares: dict[tuple[str, str, str], ShareRecord] = {}
        self._pools: dict[str, PoolRecord] = {}

    def load(self) -> Saved:
        """All rows, as lists, by key."""
        jobs = sorted(self._jobs)
        attempts = [_in_order(self._attempts[job]) for job in jobs if job in self._attempts]
        frames = [
            row
            for job in jobs
            if job in self._frames
            for _, rows in sorted(self._frames[job].items())
            for _, row in sorted(rows.items())
        ]
        return Saved(
            meta=dict(self._meta),
            jobs=[self._jobs[job] for job in jobs],
            layers=[
                row for job in jobs if job in self._layers for _, row in sorted(self._layers[job].items())
            ],
            frames=[row for row in frames if not _only_done(row)],
            done=_done(frames),
            live=[row for rows in attempts for row in rows if row.outcome == ""],
            totals=[row for key, row in sorted(self._totals.items()) if key[0] in self._jobs],
            slaves=[row for _, row in sorted(self._slaves.items())],
            accounts=[row for _, row in sorted(self._accounts.items())],
            lines=[row for _, row in sorted(self._lines.items())],
            limits=[row for _, row in sorted(self._limits.items())],
            shares=[row for _, row in sorted(self._shares.items())],
            pools=[row for _, row in sorted(self._pools.items())],
            audited=max(self._audit, default=0),
        )

    def commit(self, records: Sequence[AnyRecord]) -> None:
        """Apply the rows, or none of them where `refuse` says so."""
        if self.refuse is not None:
            raise self.refuse
        for record in records:
            self._apply(record)

    def _apply(self, record: AnyRecord) -> None:
        match record:
            case AttemptRecord():
                self._attempts[record.job][record.layer, record.number][record.attempt] = record
            case FrameRecord():
                self._frames[record.job][record.layer][record.frame] = record
            case LogRecord():
                self._logs.pop(record.key, None)
                self._logs[record.key] = record.ends
            case LayerRecord():
                self._layers[record.job][record.layer] = record
            case LayerTotals():
                self._totals[record.job, record.layer] = record
            case JobRecord():
                self._jobs[record.id] = record
            case SlaveRecord():
                self._slaves[record.id] = record
            case MetaRecord():
                self._meta[record.name] = record.value
            case FramesForget():
                rows = self._frames[record.job][record.layer]
                for frame in [frame for frame in rows if record.start <= frame < record.end]:
                    del rows[frame]
            case AccountRecord():
                self._accounts[record.id] = record
            case AccountForget():
                self._accounts.pop(record.id, None)
            case LineRecord():
                self._lines[record.token_hash] = record
            case LineForget():
                self._lines.pop(record.token_hash, None)
            case AuditRecord():
                self._audit[record.id] = record
            case LimitRecord():
                self._limits[record.limit.name] = record
            case LimitForget():
                self._limits.pop(record.name, None)
            case ShareRecord(share=share):
                self._shares[share.of, share.name, share.pool] = record
            case ShareForget():
                self._shares.pop((record.of, record.name, record.pool), None)
            case PoolRecord():
                self._pools[record.name] = record
            case PoolForget():
                self._pools.pop(record.name, None)
            case SlaveForget():
                self._slaves.pop(record.slave, None)
            case JobForget():
                self._totals = {key: row for key, row in self._totals.items() if key[0] != record.job}
                for table in (self._jobs, self._layers, self._frames, self._attempts):
                    table.pop(record.job, None)
                for key in [key for key in self._logs if key.job == record.job]:
                    del self._logs[key]

    def attempts(self, job: int, layer: int, number: int) -> list[AttemptRecord]:
        """The history of one frame, oldest first."""
        if job not in self._jobs or (layer, number) not in self._attempts[job]:
            return []
        return [row for _, row in sorted(self._attempts[job][layer, number].items())]

    def latest_attempts(self, job: int, layer: int, numbers: Sequence[int]) -> dict[int, AttemptRecord]:
        """The last attempt of each of these frame numbers that has one."""
        found = ((number, self.attempts(job, layer, number)) for number in numbers)
        return {number: rows[-1] for number, rows in found if rows}

    def log(self, key: AttemptKey) -> LogEnds | None:
        """The ends of an attempt's log, if they are kept."""
        return self._logs.get(key) if key.job in self._jobs else None

    def purge(self, before_wall: float, limit: int) -> int:
        """Drop at most `limit` old attempts with their logs; returns how many."""
        dropped = 0
        for job, row in self._jobs.items():
            if row.submitted_at >= before_wall or job not in self._attempts:
                continue
            for rows in self._attempts[job].values():
                for attempt in sorted(rows)[:-1]:
                    old = rows[attempt]
                    if dropped < limit and old.outcome != "" and old.ended_at < before_wall:
                        del rows[attempt]
                        self._logs.pop(old.key, None)
                        dropped += 1
        return dropped

    def purge_logs(self, keep_bytes: int, limit: int) -> int:
        """Drop at most `limit` of the oldest logs; returns how many."""
        left = sum(len(ends.head) + len(ends.tail) for ends in self._logs.values())
        dropped = 0
        while left > keep_bytes and dropped < limit:
            ends = self._logs.pop(next(iter(self._logs)))
            left -= len(ends.head) + len(ends.tail)
            dropped += 1
        return dropped

    def audit(self, after_id: int, limit: int) -> list[AuditRecord]:
        """Rows of the audit after that one, oldest first."""
        return [row for number, row in sorted(self._audit.items()) if number > after_id][:limit]

    def audit_latest(self, count: int) -> list[AuditRecord]:
        """The last rows of the audit, oldest first."""
        rows = [row for _, row in sorted(self._audit.items())]
        return rows[max(len(rows) - count, 0) :]

    def purge_audit(self, before_wall: float, limit: int) -> int:
        """Drop at most `limit` old rows, but the latest one; returns how many."""
        last = max(self._audit, default=0)
        old = sorted((row.at, row.id) for row in self._audit.values() if row.at < before_wall)
        gone = [number for _, number in old if number != last][:limit]
        for number in gone:
            del self._audit[number]
        return len(gone)

    def backup(self, path: str) -> None:
        """There is no file to copy: always a StorageError."""
        raise StorageError(f"cannot back up to {path}: this farm is kept in memory only")

    def close(self) -> None:
        """Nothing to release; the rows stay."""


def _in_order(attempts: dict[tuple[int, int], dict[int, AttemptRecord]]) -> list[AttemptRecord]:
    return [row for _, rows in sorted(attempts.items()) for _, row in sorted(rows.items())]


def _only_done(row: FrameRecord) -> bool:
    return row.state == "DONE" and not (row.requeued or row.returned or row.avoid)


def _done(rows: list[FrameRecord]) -> list[DoneFrames]:
    """The rows that say nothing but DONE, by layer."""
    found: dict[tuple[int, int], list[FrameRecord]] = defaultdict(list)
    for row in filter(_only_done, rows):
        found[row.job, row.layer].append(row)
    return [
        DoneFrames(
            *key, IntervalSet((row.frame, row.frame + 1) for row in some), max(r.attempt for r in some)
        )
        for key, some in found.items()
    ]
