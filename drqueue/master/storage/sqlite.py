"""Storage in one SQLite file: the master's rows, durable when `commit` returns.

Rules: one connection, with the file locked for it alone (a second opener is told so, and SQLite's
races between connections are out of reach). While it is open, this process must not open the file in
any other way: closing such a descriptor would drop the lock. An error leaves no transaction behind,
so that the next commit works as soon as there is room again. What is read is checked; what does not
fit is StorageCorrupt, never a default.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Final, NoReturn, cast

import msgspec

from drqueue import failpoints
from drqueue.master.core.records import (
    AccountForget,
    AnyRecord,
    AttemptRecord,
    AuditRecord,
    FramesForget,
    JobForget,
    LimitForget,
    LineForget,
    LogRecord,
    PoolForget,
    Saved,
    ShareForget,
    SlaveForget,
)
from drqueue.master.storage import StorageCorrupt, StorageError, StorageFull
from drqueue.master.storage.backups import BACKUPS, latest_backup
from drqueue.master.storage.files import is_full, make_private
from drqueue.master.storage.integrity import check_start
from drqueue.master.storage.loading import load, load_meta
from drqueue.master.storage.migrations import (
    MIGRATIONS,
    SUMMED_SINCE,
    Migration,
    check_owner,
    copy_database,
    migrate,
)
from drqueue.master.storage.rows import (
    ATTEMPT_COLUMNS,
    LOG_COLUMNS,
    PUT,
    forgotten_row,
    meta_statement,
    read_attempt,
    read_audit,
    read_end,
    read_forgotten,
    read_log,
)
from drqueue.master.storage.sums import add_functions, prove_sums
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds

#: Pages of 4 kB: the log is copied into the file once it holds so many, and is cut to so many bytes.
_CHECKPOINT_PAGES = 1000
_LOG_BYTES = 16 << 20

#: Pages that a backup copies in one step, and the pause after it, in which commits get their turn.
_BACKUP_PAGES = 256
_BACKUP_PAUSE_S = 0.002

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
    f"journal_size_limit={_LOG_BYTES}",
    "cache_size=-8000",  # kB
    "temp_store=MEMORY",
    "secure_delete=OFF",  # overwriting what is deleted would double the cost of a purge
)

#: Is there such a job?
_EXISTS = "EXISTS (SELECT 1 FROM job WHERE id = ?)"

#: Attempts in the order that `read_attempt` takes.
_ATTEMPTS = f"SELECT {ATTEMPT_COLUMNS} FROM attempt"

#: Where a job's rows lie, by which key; the purge of old attempts starts before the first of them.
_JOB_TABLES = (
    ("frame", "layer, frame"),
    ("attempt", "layer, number, attempt"),
    ("log", "layer, frame, attempt"),
)
_START: Final = (0, -1, -(1 << 62), -1)

#: The named value that a backup has and the database it was made of has not: see `statedir`.
META_BACKUP: Final = "backup"
_MARK_BACKUP = meta_statement(META_BACKUP, "yes")

#: Bytes of a kept log.
_LOG_SIZE = "length(head) + length(tail)"


class SqliteStorage:
    """The rows in the file `path`, made where it is missing."""

    def __init__(self, path: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Lock, check and migrate it; raises StorageError: in use, not ours, newer, damaged, no room."""
        self.path = path
        #: Whether all of it was checked, or its history is left to the next backup.
        self.checked = True
        self._closing = False
        self._backing_up = threading.Lock()
        self._aged: tuple[int, int, int, int] = _START
        self._log_bytes = 0
        with self._errors("open"):
            make_private(path)
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._errors("open"):
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                version = check_owner(self._connection, path, len(migrations))
                self.checked = check_start(self._connection, path, summed=version >= SUMMED_SINCE)
                add_functions(self._connection)
                for pragma in _PRAGMAS:
                    self._connection.execute(f"PRAGMA {pragma}")
                migrate(self._connection, path, version, migrations)
                self._log_bytes = self._connection.execute(
                    f"SELECT ifnull(sum({_LOG_SIZE}), 0) FROM log"
                ).fetchone()[0]
        except BaseException:
            self._connection.close()
            raise

    def load(self) -> Saved:
        """All that the core starts from; frames come as they are asked for, the rest at once."""
        return load(self._connection, self._errors)

    def meta(self) -> dict[str, str]:
        """The named values."""
        with self._errors("read"):
            return load_meta(self._connection)

    def commit(self, records: Sequence[AnyRecord]) -> None:
        """Write the rows in one transaction, those of a kind together, in order."""
        with self._transaction("save"):
            if failpoints.ACTIVE:
                failpoints.hit("commit-before")
            waiting: dict[type, list[AnyRecord]] = {}
            for record in records:
                kind = type(record)
                if kind in PUT:
                    waiting.setdefault(kind, []).append(record)
                else:
                    # Only rows of one table can replace one another; what drops rows ends the reordering.
                    self._put_all(waiting)
                    self._forget(record)
            self._put_all(waiting)
            if failpoints.ACTIVE:
                failpoints.hit("commit-within")
        if failpoints.ACTIVE:
            failpoints.hit("commit-after")

    def _put_all(self, waiting: dict[type, list[AnyRecord]]) -> None:
        for kind, records in waiting.items():
            statement, row = PUT[kind]
            if kind is LogRecord:
                self._make_way(cast(list[LogRecord], records))
            self._connection.executemany(statement, map(row, records))
        waiting.clear()

    def _make_way(self, logs: list[LogRecord]) -> None:
        """Drop what these replace, and count them instead."""
        latest = {log.key: log.ends for log in logs}
        for key, ends in latest.items():
            self._drop_logs("job = ? AND layer = ? AND frame = ? AND attempt = ?", key)
            self._log_bytes += len(ends.head) + len(ends.tail)

    def _drop_logs(self, where: str, values: Sequence[object]) -> int:
        sizes = self._connection.execute(
            f"DELETE FROM log WHERE {where} RETURNING {_LOG_SIZE}", values
        ).fetchall()
        self._log_bytes -= sum(size for (size,) in sizes)
        return len(sizes)

    def _forget(self, record: AnyRecord) -> None:
        execute = self._connection.execute
        match record:
            case FramesForget(job, layer, start, end):
                where = "job = ? AND layer = ? AND frame >= ? AND frame < ?"
                execute(f"DELETE FROM frame WHERE {where}", (job, layer, start, end))
            case AccountForget(account):
                execute("DELETE FROM account WHERE id = ?", (account,))
            case LineForget(token_hash):
                execute("DELETE FROM line WHERE token_hash = ?", (token_hash,))
            case LimitForget(name):
                execute("DELETE FROM limits WHERE name = ?", (name,))
            case ShareForget(of, name, pool):
                execute("DELETE FROM share WHERE (sharer, name, pool) = (?, ?, ?)", (of, name, pool))
            case PoolForget(name):
                execute("DELETE FROM pool WHERE name = ?", (name,))
            case SlaveForget(slave):
                execute("DELETE FROM slave WHERE id = ?", (slave,))
            case JobForget(job):
                # A million frames take seconds to drop: without the job's row they are invisible,
                # and `purge` drops them in small batches.
                execute("DELETE FROM job WHERE id = ?", (job,))
                execute("DELETE FROM layer WHERE job = ?", (job,))
                execute("DELETE FROM totals WHERE job = ?", (job,))
                execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", forgotten_row(job))
            case _:
                raise TypeError(f"{type(record).__name__} is no row")

    def attempts(self, job: int, layer: int, number: int) -> list[AttemptRecord]:
        """The history of one frame, oldest first."""
        with self._errors("read"):
            rows = self._connection.execute(
                f"{_ATTEMPTS} WHERE job = ? AND layer = ? AND number = ? AND {_EXISTS} ORDER BY attempt",
                (job, layer, number, job),
            )
            return [read_attempt(row) for row in rows]

    def latest_attempts(self, job: int, layer: int, numbers: Sequence[int]) -> dict[int, AttemptRecord]:
        """The last attempt of each of these frame numbers that has one."""
        found: dict[int, AttemptRecord] = {}
        with self._errors("read"):
            for number in numbers:
                row = self._connection.execute(
                    f"{_ATTEMPTS} WHERE job = ? AND layer = ? AND number = ? AND {_EXISTS} "
                    "ORDER BY attempt DESC LIMIT 1",
                    (job, layer, number, job),
                ).fetchone()
                if row is not None:
                    found[number] = read_attempt(row)
        return found

    def log(self, key: AttemptKey) -> LogEnds | None:
        """The ends of an attempt's log, if they are kept."""
        with self._errors("read"):
            row = self._connection.execute(
                f"SELECT {LOG_COLUMNS} FROM log "
                f"WHERE job = ? AND layer = ? AND frame = ? AND attempt = ? AND {_EXISTS}",
                (*key, key.job),
            ).fetchone()
            return None if row is None else read_log(row)

    def purge(self, before_wall: float, limit: int) -> int:
        """One batch: of forgotten jobs first, then of old attempts. 0: a whole round is over."""
        aged = self._aged
        try:
            with self._transaction("purge"):
                first = "SELECT * FROM forgotten ORDER BY job LIMIT 1"
                forgotten = self._connection.execute(first).fetchone()
                if forgotten is not None:
                    return self._purge_job(read_forgotten(forgotten), limit)
                done = self._purge_aged(before_wall, limit)
        except BaseException:
            self._aged = aged
            raise
        if done == 0:
            self._aged = _START
        return done

    def _purge_job(self, job: int, limit: int) -> int:
        execute = self._connection.execute
        done = 0
        for table, key in _JOB_TABLES:
            last = execute(
                f"SELECT {key} FROM {table} WHERE job = ? ORDER BY {key} LIMIT 1 OFFSET ?",
                (job, limit - done - 1),
            ).fetchone()
            if last is not None:
                marks = ", ".join("?" * len(last))
                self._drop(table, f"job = ? AND ({key}) <= ({marks})", (job, *last))
                return limit
            done += self._drop(table, "job = ?", (job,))
        execute("DELETE FROM forgotten WHERE job = ?", (job,))
        return max(done, 1)

    def _drop(self, table: str, where: str, values: Sequence[object]) -> int:
        prove_sums(self._connection, table, where, values)
        if table == "log":
            return self._drop_logs(where, values)
        return self._connection.execute(f"DELETE FROM {table} WHERE {where}", values).rowcount

    def _purge_aged(self, before_wall: float, limit: int) -> int:
        """Look through up to `limit` attempts from where the last batch ended."""
        execute = self._connection.execute
        done = 0
        while done < limit:
            first = execute(
                "SELECT id FROM job WHERE id >= ? AND submitted_at < ? ORDER BY id LIMIT 1",
                (self._aged[0], before_wall),
            ).fetchone()
            if first is None:
                break
            job = int(first[0])
            after = self._aged[1:] if job == self._aged[0] else _START[1:]
            rows = execute(
                f"{_ATTEMPTS} WHERE job = ? "
                "AND (layer, number, attempt) > (?, ?, ?) ORDER BY layer, number, attempt LIMIT ?",
                (job, *after, limit - done + 1),
            ).fetchall()
            # All of them first: is what comes later really a later one?
            ends = [read_end(row) for row in rows]
            for (row, later), ended_at in zip(pairwise(rows), ends, strict=False):
                if ended_at is not None and ended_at < before_wall and later[1:3] == row[1:3]:
                    self._drop_attempt(read_attempt(row))
            if len(rows) > limit - done:
                done = limit
                self._aged = rows[-2][:4]
            else:
                done += max(len(rows), 1)
                self._aged = (job + 1, *_START[1:])
        return done

    def _drop_attempt(self, r: AttemptRecord) -> None:
        self._drop_logs("job = ? AND layer = ? AND frame = ? AND attempt = ?", r.key)
        self._connection.execute(
            "DELETE FROM attempt WHERE job = ? AND layer = ? AND number = ? AND attempt = ?",
            (r.job, r.layer, r.number, r.attempt),
        )

    def purge_logs(self, keep_bytes: int, limit: int) -> int:
        """One batch of the oldest logs, as long as all are larger than `keep_bytes`."""
        if self._log_bytes <= keep_bytes:
            return 0
        with self._transaction("purge"):
            left, dropped, last = self._log_bytes, 0, 0
            oldest = self._connection.execute(
                f"SELECT nth, {_LOG_SIZE} FROM log ORDER BY nth LIMIT ?", (limit,)
            )
            for nth, size in oldest:
                if left <= keep_bytes:
                    break
                left, dropped, last = left - size, dropped + 1, nth
            oldest.close()
            self._drop_logs("nth <= ?", (last,))
        return dropped

    def audit(self, after_id: int, limit: int) -> list[AuditRecord]:
        """Rows of the audit after that one, oldest first."""
        with self._errors("read"):
            rows = self._connection.execute(
                "SELECT * FROM audit WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit)
            )
            return [read_audit(row) for row in rows]

    def audit_latest(self, count: int) -> list[AuditRecord]:
        """The last rows of the audit, oldest first."""
        with self._errors("read"):
            rows = self._connection.execute("SELECT * FROM audit ORDER BY id DESC LIMIT ?", (count,))
            return [read_audit(row) for row in rows][::-1]

    def purge_audit(self, before_wall: float, limit: int) -> int:
        """One batch of the oldest rows; the latest one stays, since numbers go on from it."""
        with self._transaction("purge"):
            oldest = (
                "SELECT id FROM audit WHERE at < ? AND id < (SELECT max(id) FROM audit) ORDER BY at LIMIT ?"
            )
            return self._drop("audit", f"id IN ({oldest})", (before_wall, limit))

    def backup(self, path: str) -> None:
        """Write a checked copy to `path`, in small steps; commits may go on in another thread meanwhile."""
        with self._backing_up:
            try:
                if self._closing:
                    raise StorageError(f"cannot back up {self.path}: it is closed")
                os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
                copy_database(self._copy_in_steps, path, _MARK_BACKUP)
            except StorageCorrupt as error:
                self._damaged(error, f"{self.path} is damaged, so no backup was made: {error}")
            except (sqlite3.Error, OSError) as error:
                if self._closing:
                    raise StorageError(f"backup to {path} was given up: the master stops") from error
                room = f": {error.strerror}" if isinstance(error, OSError) else f": {error}"
                full = is_full(error, path)
                raise (StorageFull if full else StorageError)(f"cannot back up to {path}{room}") from error

    def _copy_in_steps(self, target: sqlite3.Connection) -> None:
        def between(*_: int) -> None:
            if self._closing:
                raise InterruptedError
            if failpoints.ACTIVE:
                failpoints.hit("backup-step")
            time.sleep(_BACKUP_PAUSE_S)  # SQLite's lock is not fair: without it commits would wait long

        # So that the check of a large copy does not hold up a stop.
        target.set_progress_handler(lambda: int(self._closing), 100_000)
        # A step that falls into a transaction is refused as busy and tried again: none copies half of one.
        self._connection.backup(target, pages=_BACKUP_PAGES, progress=between, sleep=0.005)

    def close(self) -> None:
        """End a backup that is under way and release the file."""
        self._closing = True
        with self._backing_up:
            self._release()

    def _release(self) -> None:
        self._connection.close()

    def copy_log(self) -> bool:
        """Copy what was committed from the log into the file itself; False where somebody reads meanwhile."""
        with self._errors("save"):
            try:
                busy, frames, copied = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_LOCKED:
                    return False
                raise
        return not busy and frames == copied

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[None]:
        with self._errors(doing):
            log_bytes = self._log_bytes
            self._connection.execute("BEGIN")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._log_bytes = log_bytes
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turn whatever SQLite, the disk and damaged values raise into a StorageError of one sentence."""
        try:
            yield
        except StorageCorrupt as error:
            self._damaged(error, str(error))
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            undecodable = isinstance(error, sqlite3.OperationalError) and code == 0  # text that is not UTF-8
            if undecodable or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._damaged(error, f"{self.path} is damaged: {error}")
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StorageError(f"{self.path} is in use by another program") from error
            if is_full(error, self.path):
                raise StorageFull(f"cannot {doing} {self.path}: no space left on the disk") from error
            why = error.strerror if isinstance(error, OSError) else error
            raise StorageError(f"cannot {doing} {self.path}: {why}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError, OverflowError) as error:
            if doing == "save":
                raise  # a row that cannot be written is a bug, not damage
            self._damaged(error, f"{self.path} is damaged: {error}"[:300])

    def _damaged(self, error: BaseException, what: str) -> NoReturn:
        raise StorageCorrupt(f"{what}; {how_to_restore(self.path)}") from error


def how_to_restore(path: str) -> str:
    """What to do about a damaged database, as the second half of a sentence."""
    folder, backup = os.path.dirname(path), latest_backup(path)
    if backup is None:
        return f"no backup was found in {os.path.join(folder, BACKUPS)}"
    return f"to restore, with the master stopped: drqueue-master restore --state-dir {folder} {backup}"
