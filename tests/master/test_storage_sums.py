"""Every row's sum: what is read is what was written, or it is refused with the way back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drqueue.master.core.records import (
    AccountRecord,
    AnyRecord,
    AttemptRecord,
    AuditRecord,
    FrameRecord,
    JobForget,
    LayerRecord,
    LayerTotals,
    LimitRecord,
    LineRecord,
    LogRecord,
    MetaRecord,
    PoolRecord,
    ShareRecord,
)
from drqueue.master.storage import StorageCorrupt
from drqueue.master.storage.integrity import check_start
from drqueue.master.storage.migrations import MIGRATIONS, migrate
from drqueue.master.storage.rows import PUT
from drqueue.master.storage.sqlite import META_BACKUP, SqliteStorage
from drqueue.master.storage.sums import TABLES, check_sums, row_sum, summed_columns
from drqueue.proto.model import Limit, LogEnds, Share
from tests.master.test_storage import attempt, frame, job, slave, taken

UNFIT = r"master.db is damaged: the row of {} that begins with .* does not fit its sum; no backup was found"


def every_table() -> list[AnyRecord]:
    """Some rows of each; ends of job 3, which is gone, are left."""
    tries = [attempt(1, n, k, outcome="done", ended_at=50.0) for n in range(1, 9) for k in (1, 2)]
    logs = [LogRecord(row.key, LogEnds(size=9, head=b"head", tail=b"tail")) for row in tries]
    account = AccountRecord(
        id="a", kind="user", name="anna", role="artist", secret_hash="h", created_at=5.0, created_by=""
    )
    line = LineRecord(
        token_hash="t",
        kind="node",
        name="",
        role="node",
        created_at=5.0,
        created_by="root",
        expires_at=9.0,
        uses_left=1,  # type: ignore[arg-type]
    )
    audit = [
        AuditRecord(id=n, at=float(n), who="root", role="admin", peer="", what="stop", outcome="done")
        for n in range(1, 6)
    ]
    return [
        *(job(1), job(2), job(3), slave(1), account, line, *audit, MetaRecord("next_job", "4")),
        *(LayerRecord(job=1, layer=0, done=b"\1"), LayerTotals(1, 0, 4, 2.5, 1.5)),
        *(frame(1, n, state="DONE") for n in range(4)),
        *(frame(1, n, state="FAILED", avoid=(1, 2)) for n in range(4, 8)),
        *(*tries, attempt(1, 9), *logs, frame(3, 1), attempt(3, 1, outcome="done"), JobForget(3)),
        *(LimitRecord(Limit(name="nuke", amount=3)), PoolRecord("x", "fifo")),
        ShareRecord(Share(of="user", name="anna", weight=1.5)),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(str(path))) as storage:
        storage.commit(every_table())
        yield storage


def statements() -> list[tuple[str, str]]:
    """For every column of every table, one that gives it another value of its kind, in one row."""
    found = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        migrate(empty, "", 0, MIGRATIONS)
        for table in TABLES:
            columns = summed_columns(empty, table)
            kinds = {row[1]: row[2] for row in empty.execute(f"PRAGMA table_info({table})")}
            where = " AND ".join(f"{name} IS (SELECT {name} FROM {table} LIMIT 1)" for name in columns)
            for name in columns:
                value = {
                    "TEXT": f"{name} || 'x'",
                    "BLOB": f"CAST(ifnull({name}, '') || x'01' AS BLOB)",
                    "REAL": f"{name} + 0.25",
                }.get(kinds[name], f"ifnull({name}, 0) + 64")
                found.append((table, f"UPDATE {table} SET {name} = {value} WHERE {where}"))
    return found


def sum_up(storage: SqliteStorage) -> None:
    """Give every row the sum that fits what it says now."""
    for table in TABLES:
        *columns, _ = summed_columns(storage._connection, table)
        row = f"row_sum('{table}', {', '.join(columns)})"
        storage._connection.execute(f"UPDATE {table} SET crc = {row}")


def test_any_other_value_in_any_column_is_found(path: Path, storage: SqliteStorage) -> None:
    """And a log's number is the only column that no sum is over."""
    ask = storage._connection.execute
    check_sums(storage._connection, str(path))
    tried = statements()
    for table, statement in tried:
        ask("BEGIN")
        assert ask(statement).rowcount == 1, statement
        with pytest.raises(StorageCorrupt, match=f"the row of {table} that begins with .* does not fit"):
            check_sums(storage._connection, str(path))
        ask("ROLLBACK")
    tables = ask("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert {table for (table,) in tables} == set(TABLES) == {table for table, _ in tried}
    columns = sum(len(ask(f"PRAGMA table_info({table})").fetchall()) for table in TABLES)
    assert len(tried) == columns - 1


@pytest.mark.parametrize("table", TABLES)
def test_a_start_refuses_a_changed_row_of_any_table(path: Path, storage: SqliteStorage, table: str) -> None:
    storage._connection.execute([statement for name, statement in statements() if name == table][-1])
    storage.close()
    with pytest.raises(StorageCorrupt, match=UNFIT.format(table)):
        SqliteStorage(str(path))


def load(storage: SqliteStorage) -> None:
    taken(storage.load())


def purge_all(storage: SqliteStorage) -> None:
    while storage.purge(1000.0, 100):
        pass


#: What an attempt says that still runs.
RUNS = "(SELECT rest FROM attempt WHERE number = 9)"

READERS: dict[str, tuple[str, Callable[[SqliteStorage], Any]]] = {
    "meta": ("UPDATE meta SET value = '5'", lambda s: s.meta()),
    "job": ("UPDATE job SET stopped = 1 WHERE id = 1", load),
    "layer": ("UPDATE layer SET done = x'02'", load),
    "totals": ("UPDATE totals SET failed = 1", load),
    "slave": ("UPDATE slave SET cores = 9", load),
    "account": ("UPDATE account SET role = 'admin'", load),
    "line": ("UPDATE line SET role = 'admin'", load),
    "limit": ("UPDATE limits SET amount = 4", load),
    "share": ("UPDATE share SET weight = 2.5", load),
    "pool": ("UPDATE pool SET name = 'y'", load),
    "live": ("UPDATE attempt SET rest = CAST(rest || x'00' AS BLOB) WHERE number = 9", load),
    "alive no longer": ("UPDATE attempt SET live = 0 WHERE number = 9", lambda s: s.attempts(1, 0, 9)),
    "alive again": ("UPDATE attempt SET live = 1 WHERE number = 2 AND attempt = 2", load),
    "the last audited": ("UPDATE audit SET id = 69 WHERE id = 5", load),
    "frame": ("UPDATE frame SET requeued = 1 WHERE frame = 7", load),
    "done": ("UPDATE frame SET attempt = 2 WHERE frame = 2", load),
    "done, another": ("UPDATE frame SET frame = 9 WHERE frame = 2", load),
    "done, of another job": ("UPDATE frame SET job = 2 WHERE frame = 2", load),
    "frames in other places": ("UPDATE frame SET frame = 100 + frame WHERE frame IN (1, 5)", load),
    "attempts": (f"UPDATE attempt SET rest = {RUNS} WHERE number = 2", lambda s: s.attempts(1, 0, 2)),
    "of another": ("UPDATE attempt SET number = 20 WHERE number = 2", lambda s: s.attempts(1, 0, 20)),
    "the latest": (
        "UPDATE attempt SET attempt = 9 WHERE number = 2 AND attempt = 2",
        lambda s: s.latest_attempts(1, 0, [2]),
    ),
    "log": ("UPDATE log SET head = x'00' WHERE frame = 2", lambda s: s.log(attempt(1, 3).key)),
    "another's log": (
        "UPDATE log SET attempt = 5 WHERE frame = 2 AND attempt = 1",
        lambda s: s.log(attempt(1, 3, 5).key),
    ),
    "audit": ("UPDATE audit SET who = 'toor' WHERE id = 3", lambda s: s.audit(0, 10)),
    "latest audit": ("UPDATE audit SET who = 'toor' WHERE id = 3", lambda s: s.audit_latest(4)),
    "old audit": ("UPDATE audit SET at = 1.0 WHERE id = 4", lambda s: s.purge_audit(1.5, 10)),
    "forgotten": ("UPDATE forgotten SET job = 2", purge_all),
    "a forgotten job's": ("UPDATE frame SET job = 3 WHERE frame = 2", purge_all),
    "old attempts": (f"UPDATE attempt SET rest = {RUNS} WHERE number = 2", lambda s: s.purge(200.0, 100)),
    "another's, with its sum": (
        "UPDATE attempt SET (rest, crc) = (SELECT rest, crc FROM attempt WHERE number = 3) WHERE number = 2",
        lambda s: s.attempts(1, 0, 2),
    ),
    "a later attempt": (
        "UPDATE attempt SET number = 3, attempt = 3 WHERE number = 4 AND attempt = 1",
        lambda s: s.purge(200.0, 100),
    ),
}


@pytest.mark.parametrize("what", READERS)
def test_who_reads_a_row_that_changed_meanwhile_is_told_and_nothing_goes(
    storage: SqliteStorage, what: str
) -> None:
    """Also where rows are only counted, or purged for what they say."""
    statement, read = READERS[what]
    ask = storage._connection.execute
    if what != "forgotten":
        storage.commit([LayerTotals(1, 0, 4, 2.5, 1.5)])
    if "old attempts" in what or "later" in what:
        while ask("SELECT count(*) FROM forgotten").fetchone()[0]:
            storage.purge(0.0, 1000)
    assert ask(statement).rowcount > 0

    def rows() -> int:
        return int(sum(ask(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES))

    before = rows()
    with pytest.raises(StorageCorrupt, match=r"does not fit its sum; no backup was found"):
        read(storage)
    assert rows() == before


def test_a_row_of_one_table_is_none_of_another() -> None:
    assert len({row_sum(table, (1, 2, 3, 4, b"5", 0)) for table in TABLES}) == len(TABLES)


def test_the_history_of_a_large_file_is_proven_by_who_reads_it_and_by_its_backup(
    path: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage._connection.execute(f"UPDATE attempt SET rest = {RUNS} WHERE number = 2")
    storage.close()
    start = partial(check_start, whole_bytes=0)
    monkeypatch.setattr("drqueue.master.storage.sqlite.check_start", start)
    with closing(SqliteStorage(str(path))) as large:
        assert not large.checked
        load(large)
        copy = path.with_name("copy.db")
        with pytest.raises(StorageCorrupt, match=r"master.db is damaged, so no backup was made: .* its sum"):
            large.backup(str(copy))
        assert not copy.exists()
        large._connection.execute("UPDATE frame SET requeued = 1 WHERE frame = 7")
    with pytest.raises(StorageCorrupt, match=UNFIT.format("frame")):
        SqliteStorage(str(path))


def test_the_mark_of_a_backup_has_a_sum(path: Path, storage: SqliteStorage) -> None:
    storage.backup(str(path.with_name("copy.db")))
    with closing(SqliteStorage(str(path.with_name("copy.db")))) as copy:
        assert copy.meta()[META_BACKUP] == "yes"


@pytest.mark.parametrize("version", [1, 3, 6])
def test_a_file_that_says_an_older_version_than_its_tables_are_of_is_damaged(
    path: Path, storage: SqliteStorage, version: int
) -> None:
    """One bit makes 6 of 7; it must not be migrated, nor copied as if it were good."""
    storage._connection.execute(f"PRAGMA user_version = {version}")
    storage.close()
    with pytest.raises(StorageCorrupt, match=f"it says version {version}"):
        SqliteStorage(str(path))
    assert [name.name for name in path.parent.iterdir()] == ["master.db"]


#: Integers where records say `float`, truths where tables say INTEGER, zeros with a sign.
numbers = st.one_of(st.floats(allow_nan=False), st.integers(-(1 << 40), 1 << 40), st.just(-0.0))
naturals = st.one_of(st.integers(0, (1 << 63) - 1), st.integers(0, 9))
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
amounts = st.one_of(st.integers(0, 99), st.floats(0, 1e9), st.just(-0.0))
rows = st.one_of(
    st.builds(
        AttemptRecord,
        job=st.just(1),
        layer=st.just(0),
        number=st.just(1),
        attempt=st.just(1),
        frame=naturals,
        slave=naturals,
        slave_name=words,
        assigned_at=numbers,
        started_at=numbers,
        ended_at=numbers,
        cpu_s=numbers,
        text=words,
        disk_mb=naturals,
        peak_mb=numbers,
        amounts=st.dictionaries(words, amounts, max_size=2),
        outcome=st.sampled_from(["", "done", "failed"]),
    ),
    st.builds(LayerTotals, st.just(1), st.just(0), naturals, numbers, numbers, naturals),
    st.builds(
        FrameRecord,
        job=st.just(1),
        layer=st.just(0),
        frame=st.just(7),
        attempt=naturals,
        requeued=naturals,
        returned=naturals,
        avoid=st.tuples(naturals),
        state=st.sampled_from(["WAITING", "DONE", "FAILED"]),
    ),
    st.builds(
        lambda a, b, c, d, w: job(1, submitted_at=a, started_at=b, finished_at=c, stopped=d, user=w),
        *(numbers, numbers, numbers, st.booleans(), words),
    ),
    st.builds(lambda at, w: slave(1, last_heard_at=at, name=w), numbers, words),
    st.builds(
        lambda at, p: AccountRecord(
            id="a",
            kind="user",
            name="n",
            role="admin",
            secret_hash="",
            created_at=at,
            created_by="",
            pending=p,
        ),
        *(numbers, st.booleans()),
    ),
    st.builds(
        lambda at, until: LineRecord(
            token_hash="t",
            kind="node",
            name="",
            role="node",
            created_at=at,
            created_by="",
            expires_at=until,
            uses_left=1,
        ),
        *(numbers, numbers),
    ),
    st.builds(
        lambda at, w: AuditRecord(
            id=1, at=at, who=w, role="admin", peer="", what="\0", outcome="done", text=w
        ),
        *(numbers, words),
    ),
    st.builds(MetaRecord, st.just("a"), words),
    st.builds(lambda a: LimitRecord(Limit(name="nuke", amount=a)), amounts),
    st.builds(
        lambda a, b: ShareRecord(Share(of="user", name="anna", weight=1, minimum=a, burst=b)),
        amounts,
        amounts,
    ),
    st.builds(
        lambda b, c: LogRecord(attempt(1, 1).key, LogEnds(size=3, head=b, tail=c, packed=True)),
        *(st.binary(max_size=20), st.binary(max_size=20)),
    ),
)


@pytest.fixture(scope="module")
def any_rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(str(tmp_path_factory.mktemp("any") / "any.db"))) as storage:
        storage.commit([job(1)])
        yield storage


@settings(max_examples=150)
@given(row=rows)
def test_whatever_is_written_fits_its_sum(any_rows: SqliteStorage, row: AnyRecord) -> None:
    """A row that did not would keep a master from starting."""
    any_rows.commit([row])
    check_sums(any_rows._connection, any_rows.path)
    any_rows.attempts(1, 0, 1)


@given(row=rows)
def test_a_sum_is_of_32_bits_with_a_sign(row: AnyRecord) -> None:
    """As SQLite keeps them in four bytes."""
    assert -(1 << 31) <= PUT[type(row)][1](row)[-1] < 1 << 31
