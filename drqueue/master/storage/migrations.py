"""The database's tables, by version, and how a file gets from one version to the next.

Rules: a migration that was released is never changed; a new one is added at the end. All that are
missing run in one transaction, after the file as it was is copied to `NAME.before-N` (N: the first of
them). A file of a newer program, or of another one, is refused untouched. No foreign keys: a job's
rows go in batches, long after the job. Errors of SQLite pass through; `sqlite` words them.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from drqueue import failpoints
from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.integrity import check_integrity
from drqueue.master.storage.sums import add_functions, check_sums, summed_columns
from drqueue.statefile import sync_dir

#: Statements, and what no statement can do.
Migration = Sequence[str | Callable[[sqlite3.Connection], None]]

#: Tells our files from others' ("DrQu").
APPLICATION_ID = 0x44725175

#: An attempt is found by the frame number it renders, a log by its attempt's key on the wire. Columns
#: of `attempt` are what SQL asks for; `rest` is the whole row (see `sqlite`), since binding a value
#: costs more than packing it. `forgotten`: jobs whose rows are still to be purged. Checks would cost
#: a third of a commit; what is read is checked instead.
_VERSION_1 = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE job (
        id INTEGER PRIMARY KEY, token TEXT NOT NULL, spec BLOB NOT NULL, submitted_at REAL NOT NULL,
        started_at REAL NOT NULL, finished_at REAL NOT NULL, stopped INTEGER NOT NULL,
        deleted INTEGER NOT NULL) STRICT""",
    """CREATE TABLE layer (
        job INTEGER NOT NULL, layer INTEGER NOT NULL, floor INTEGER NOT NULL, done BLOB NOT NULL,
        failed BLOB NOT NULL, cancelled BLOB NOT NULL, PRIMARY KEY (job, layer)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE frame (
        job INTEGER NOT NULL, layer INTEGER NOT NULL, frame INTEGER NOT NULL, state TEXT NOT NULL,
        attempt INTEGER NOT NULL, requeued INTEGER NOT NULL, avoid TEXT NOT NULL,
        PRIMARY KEY (job, layer, frame)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE attempt (
        job INTEGER NOT NULL, layer INTEGER NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL,
        outcome TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL NOT NULL, cpu_s REAL NOT NULL,
        rest BLOB NOT NULL, PRIMARY KEY (job, layer, number, attempt)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX attempt_live ON attempt (job) WHERE outcome = ''",
    """CREATE TABLE log (
        job INTEGER NOT NULL, layer INTEGER NOT NULL, frame INTEGER NOT NULL, attempt INTEGER NOT NULL,
        size INTEGER NOT NULL, head BLOB NOT NULL, tail BLOB NOT NULL, packed INTEGER NOT NULL,
        PRIMARY KEY (job, layer, frame, attempt)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE slave (
        id INTEGER PRIMARY KEY, identity TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL,
        machine BLOB NOT NULL, limits BLOB NOT NULL, cores INTEGER NOT NULL, memory_mb INTEGER NOT NULL,
        control TEXT NOT NULL, last_heard_at REAL NOT NULL, wish BLOB) STRICT""",
    "CREATE TABLE forgotten (job INTEGER PRIMARY KEY) STRICT",
)

#: `nth` tells which log is the oldest: those go first where there are too many. Rows this long would
#: fill the inner pages of a tree without row numbers.
_VERSION_2 = (
    "ALTER TABLE log RENAME TO log_1",
    """CREATE TABLE log (
        nth INTEGER PRIMARY KEY, job INTEGER NOT NULL, layer INTEGER NOT NULL, frame INTEGER NOT NULL,
        attempt INTEGER NOT NULL, size INTEGER NOT NULL, head BLOB NOT NULL, tail BLOB NOT NULL,
        packed INTEGER NOT NULL, UNIQUE (job, layer, frame, attempt)) STRICT""",
    """INSERT INTO log (job, layer, frame, attempt, size, head, tail, packed)
        SELECT job, layer, frame, attempt, size, head, tail, packed FROM log_1
        ORDER BY job, layer, frame, attempt""",
    "DROP TABLE log_1",
)

#: `counted`: a layer's sums are those of its attempts above this number.
_VERSION_3 = ("ALTER TABLE layer ADD COLUMN counted INTEGER NOT NULL DEFAULT 0",)

#: What came back without a failure or a kill is told, too: of a layer, and of a frame.
_VERSION_4 = (
    "ALTER TABLE layer ADD COLUMN reruns INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE frame ADD COLUMN returned INTEGER NOT NULL DEFAULT 0",
)

#: Who has a way in, who did what, whose job and whose slave it is. Only hashes of secrets are in here.
_VERSION_5 = (
    """CREATE TABLE account (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
        secret_hash TEXT NOT NULL, created_at REAL NOT NULL, created_by TEXT NOT NULL,
        pending INTEGER NOT NULL, next_hash TEXT NOT NULL, pin TEXT NOT NULL, peer TEXT NOT NULL,
        identity TEXT NOT NULL, fingerprint TEXT NOT NULL, code TEXT NOT NULL, line TEXT NOT NULL)
        STRICT, WITHOUT ROWID""",
    """CREATE TABLE line (
        token_hash TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
        created_at REAL NOT NULL, created_by TEXT NOT NULL, expires_at REAL NOT NULL,
        uses_left INTEGER NOT NULL, net TEXT NOT NULL, replaces TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL,
        peer TEXT NOT NULL, what TEXT NOT NULL, outcome TEXT NOT NULL, text TEXT NOT NULL,
        count INTEGER NOT NULL) STRICT""",
    "CREATE INDEX audit_at ON audit (at)",
    "ALTER TABLE job ADD COLUMN submitter TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE slave ADD COLUMN account TEXT NOT NULL DEFAULT ''",
)


def _name_users(connection: sqlite3.Connection) -> None:
    """An older job runs for whoever submitted it or, where nobody knows that any more, for its owner."""
    connection.execute("UPDATE job SET user = submitter WHERE submitter != ''")
    for job, spec in connection.execute("SELECT id, spec FROM job WHERE user = ''").fetchall():
        owner = msgspec.msgpack.decode(spec, type=_Owned).owner
        connection.execute("UPDATE job SET user = ? WHERE id = ?", (owner, job))


class _Owned(msgspec.Struct):
    """What the specs of all versions have of an owner."""

    owner: str = ""


#: Whom a job runs for, what stopped it; what slaves offer; what admins set. x'80' is an empty map. A layer's
#: sums are kept as they change, since a start would take a second for each million attempts to sum them up.
_VERSION_6 = (
    "ALTER TABLE job ADD COLUMN user TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE job ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN stopped_for TEXT NOT NULL DEFAULT ''",
    _name_users,
    "ALTER TABLE slave ADD COLUMN offers BLOB NOT NULL DEFAULT x'80'",
    "ALTER TABLE slave ADD COLUMN sick TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE limits (name TEXT PRIMARY KEY, amount ANY NOT NULL, scope TEXT NOT NULL)
        STRICT, WITHOUT ROWID""",
    """CREATE TABLE share (
        sharer TEXT NOT NULL, name TEXT NOT NULL, pool TEXT NOT NULL, weight ANY NOT NULL,
        minimum ANY NOT NULL, burst ANY, PRIMARY KEY (sharer, name, pool)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE pool (name TEXT PRIMARY KEY, policy TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "ALTER TABLE layer ADD COLUMN top INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE totals (
        job INTEGER NOT NULL, layer INTEGER NOT NULL, done INTEGER NOT NULL, wall_s REAL NOT NULL,
        cpu_s REAL NOT NULL, failed INTEGER NOT NULL, PRIMARY KEY (job, layer)) STRICT, WITHOUT ROWID""",
    """INSERT INTO totals
        SELECT job, layer, sum(latest AND outcome = 'done'),
            total((latest AND outcome = 'done') * max(ended_at - started_at, 0)), total(latest * cpu_s),
            sum(outcome = 'failed')
        FROM (SELECT *, attempt > ifnull(counted, 0) AS latest
            FROM attempt LEFT JOIN layer USING (job, layer) WHERE outcome != '')
        GROUP BY job, layer""",
)

#: What `attempt.rest` held up to version 6; what stood in columns, too, was the same or nothing there.
REST_6 = (
    *("job", "layer", "frame", "attempt", "number", "slave", "slave_name", "assigned_at", "cores"),
    *("memory_mb", "lease_s", "on_unreachable", "stop", "again", "orphan", "started_at", "ended_at"),
    *("outcome", "code", "signal", "reason", "text", "cpu_s", "peak_mb", "log_bytes", "step", "count"),
    *("slot", "eligible_at", "gpus", "disk_mb", "amounts", "limits"),
)
_COLUMNS_6 = ("job", "layer", "number", "attempt", "outcome", "started_at", "ended_at", "cpu_s")
_AT_6 = tuple(REST_6.index(name) for name in _COLUMNS_6)
_KEYS_6 = frozenset(_AT_6[:4])


def _say_once(connection: sqlite3.Connection) -> None:
    """Keys stand in columns alone, and all else in `rest`."""
    trouble: list[ValueError | msgspec.MsgspecError] = []

    def say_once(*row: Any) -> bytes:
        try:
            return _rest_of(row[:-1], row[-1])
        except (ValueError, msgspec.MsgspecError) as error:
            trouble.append(error)
            raise

    connection.create_function("say_once", 9, say_once, deterministic=True)
    try:
        connection.execute(f"UPDATE attempt SET rest = say_once({', '.join(_COLUMNS_6)}, rest)")
    except sqlite3.OperationalError:
        if trouble:
            raise trouble[0] from None
        raise


def _rest_of(columns: tuple[Any, ...], rest: bytes) -> bytes:
    values = msgspec.msgpack.decode(rest)
    if not isinstance(values, list) or len(values) <= max(_AT_6):
        raise ValueError(f"attempt {columns[:4]} is no row")
    for at, value in zip(_AT_6, columns, strict=True):
        if values[at] not in (None, value):
            raise ValueError(f"attempt {columns[:4]} stands in the row of another")
        values[at] = value
    return msgspec.msgpack.encode([value for at, value in enumerate(values) if at not in _KEYS_6])


_SUMMED_7 = (
    *("meta", "job", "layer", "frame", "attempt", "log", "slave", "forgotten", "account", "line", "audit"),
    *("limits", "share", "pool", "totals"),
)


def _sum_up(connection: sqlite3.Connection) -> None:
    add_functions(connection)
    for table in _SUMMED_7:
        *columns, _crc = summed_columns(connection, table)
        connection.execute(f"UPDATE {table} SET crc = row_sum('{table}', {', '.join(columns)})")


#: Each row has its sum: what is read is what was written, or refused. The index of attempts that live can be
#: counted without a look at the rows, which may be lost.
_VERSION_7: Migration = (
    _say_once,
    "DROP INDEX attempt_live",
    "ALTER TABLE attempt RENAME COLUMN rest TO rest_6",
    "ALTER TABLE attempt ADD COLUMN live INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE attempt ADD COLUMN rest BLOB NOT NULL DEFAULT x''",
    "UPDATE attempt SET live = (outcome = ''), rest = rest_6",
    *(f"ALTER TABLE attempt DROP COLUMN {name}" for name in (*_COLUMNS_6[4:], "rest_6")),
    "CREATE INDEX attempt_live ON attempt (job, live) WHERE live = 1",
    *(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0" for table in _SUMMED_7),
    _sum_up,
)

#: The first version with sums, and what tells it from those before, whatever the file says of itself.
SUMMED_SINCE = 7
_HAS_SUMS = "SELECT count(*) FROM pragma_table_info('meta') WHERE name = 'crc'"

MIGRATIONS: Sequence[Migration] = (
    *(_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6),
    _VERSION_7,
)


def check_owner(connection: sqlite3.Connection, path: str, newest: int) -> int:
    """The version of an open file, 0 for an empty one; StorageError where it is none that we can use."""
    ours = number(connection, "PRAGMA application_id")
    version = number(connection, "PRAGMA user_version")
    if ours != APPLICATION_ID:
        if ours or version or number(connection, "SELECT count(*) FROM sqlite_master"):
            raise StorageError(f"{path} is not a DrQueue master's database")
        return 0
    if version > newest:
        raise StorageError(
            f"{path} was written by a newer DrQueue (its tables are of version {version}, this one knows "
            f"{newest}): update, or restore {path}.before-{newest + 1}"
        )
    if version < 1 or (version >= SUMMED_SINCE) != bool(number(connection, _HAS_SUMS)):
        raise StorageCorrupt(f"{path} is damaged: it says version {version}")
    return version


def migrate(connection: sqlite3.Connection, path: str, version: int, migrations: Sequence[Migration]) -> None:
    """Bring an open file from `version` to the newest, all or none."""
    if version == len(migrations):
        return
    if version:
        summed = version >= SUMMED_SINCE
        copy_database(connection.backup, f"{path}.before-{version + 1}", summed=summed)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations[version:]:
            for statement in statements:
                if failpoints.ACTIVE:
                    failpoints.hit("migration-step")
                if isinstance(statement, str):
                    connection.execute(statement)
                else:
                    statement(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def copy_database(
    copy: Callable[[sqlite3.Connection], None],
    path: str,
    mark: tuple[str, tuple[Any, ...]] | None = None,
    *,
    summed: bool = True,
) -> None:
    """Let `copy` fill a database at `path` (0600), check it, bring it to the disk, then rename it there.

    `mark` is a statement that the copy gets on top. `summed`: its rows have sums. Raises sqlite3.Error,
    OSError, StorageCorrupt, and whatever `copy` raises.
    """
    temporary = f"{path}.new"
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
    try:
        os.chmod(temporary, 0o600)
        target = sqlite3.connect(temporary, isolation_level=None)
        try:
            target.execute("PRAGMA synchronous=OFF")  # the whole file is synced below, once
            target.execute("PRAGMA journal_mode=OFF")
            copy(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, complete without a -wal beside it
            if mark is not None:
                target.execute(*mark)
            check_integrity(target, temporary)
            if summed:
                check_sums(target, temporary)
        finally:
            target.close()
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if failpoints.ACTIVE:
            failpoints.hit("backup-rename")
        os.rename(temporary, path)
        sync_dir(os.path.dirname(path))
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def number(connection: sqlite3.Connection, query: str) -> int:
    """The one integer that a query gives."""
    return int(connection.execute(query).fetchone()[0])
