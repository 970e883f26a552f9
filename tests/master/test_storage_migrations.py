"""Older database files: what becomes of their rows, and that a file is copied before it is changed."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.msgpack import encode as pack
from msgspec.structs import replace

from drqueue.master.core.records import FrameRecord, LayerRecord, LayerTotals
from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.migrations import MIGRATIONS, REST_6
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.sums import TABLES, check_sums
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from tests.master.test_storage import attempt, job, slave, taken
from tests.master.test_storage_sqlite import mode, path, some_rows, storage

__all__ = ["path", "storage"]  # fixtures


def test_logs_are_kept_through_their_new_table(path: Path) -> None:
    """Version 2 tells the oldest log; those of version 1 are as old as their jobs."""
    with closing(SqliteStorage(str(path), MIGRATIONS[:1])) as old:
        old._connection.execute("INSERT INTO log VALUES (2, 0, 0, 1, 7, x'aaaa', x'bb', 1)")
        old._connection.execute("INSERT INTO log VALUES (1, 0, 5, 2, 3, x'cc', x'', 0)")
    with closing(SqliteStorage(str(path))) as new:
        new.commit([job(1), job(2)])
        assert new.log(AttemptKey(2, 0, 0, 1)) == LogEnds(size=7, head=b"\xaa\xaa", tail=b"\xbb", packed=True)
        assert new.log(AttemptKey(1, 0, 5, 2)) == LogEnds(size=3, head=b"\xcc")
        assert new.purge_logs(3, 10) == 1
        assert new.log(AttemptKey(1, 0, 5, 2)) is None
        assert new.purge_logs(3, 10) == 0


def test_rows_of_version_3_came_back_for_no_reason_that_was_not_counted(path: Path) -> None:
    with closing(SqliteStorage(str(path), MIGRATIONS[:3])) as old:
        old._connection.execute("INSERT INTO layer VALUES (1, 0, 4, x'', x'', x'', 2)")
        old._connection.execute("INSERT INTO frame VALUES (1, 0, 7, 'FAILED', 4, 3, '5')")
    with closing(SqliteStorage(str(path))) as new:
        new.commit([job(1)])
        saved = taken(new.load())
        assert saved["layers"] == [LayerRecord(job=1, layer=0, floor=4, counted=2)]
        failed = FrameRecord(job=1, layer=0, frame=7, state="FAILED", attempt=4, requeued=3, avoid=(5,))
        assert saved["frames"] == [failed]


def test_rows_of_version_4_belong_to_nobody(path: Path) -> None:
    """Nobody knows who submitted an older job; an older slave is one of the master's own machine."""
    row = (3, "i", "node", "f", pack(slave(3).machine), pack(slave(3).limits), 8, 16_000, "", 0.0, None)
    with closing(SqliteStorage(str(path), MIGRATIONS[:4])) as old:
        query = old._connection.execute
        query("INSERT INTO job VALUES (1, 'token 1', ?, 100.0, 0.0, 0.0, 0, 0)", (pack(job(1).spec),))
        query("INSERT INTO slave VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    with closing(SqliteStorage(str(path))) as new:
        saved = taken(new.load())
        assert saved["jobs"] == [job(1, submitter="")]
        assert saved["slaves"] == [slave(3, identity="i", account="")]
        assert (saved["accounts"], saved["lines"], saved["audited"]) == ([], [], 0)
    with closing(SqliteStorage(f"{path}.before-5", MIGRATIONS[:4])) as copy:
        assert columns(copy, "job")[-1] == "deleted"


def version_5(path: Path) -> None:
    """A file as version 5 left it: jobs that somebody, nobody known and nobody at all submitted."""
    spec = {"name": "shot", "layers": [{"argv": ["render"], "frames": "1-100"}]}
    slave_row = (3, "i", "node", "f", pack(slave(3).machine), pack(slave(3).limits), 8, 16_000, "", 0.0, None)
    values = (1, 0, 7, 2, 3, 3, "node", 5.0, 1, 0, 1800.0, "lease", "", False, False, 6.5, 9.0, "failed")
    with closing(SqliteStorage(str(path), MIGRATIONS[:5])) as old:
        query = old._connection.execute
        for number, owner, submitter in ((1, "anna", "farmer"), (2, "anna", ""), (4, "", "")):
            packed = pack({**spec, "owner": owner, "unheard_of": [1]} if owner else spec)
            row = (number, f"token {number}", packed, submitter)
            query("INSERT INTO job VALUES (?, ?, ?, 100.0, 0.0, 0.0, 0, 0, ?)", row)
        query("INSERT INTO slave VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'account')", slave_row)
        rest = pack((*values, 1, None, "exit", "", 2.5, 10.0, 99, 1, 1, 0))
        query("INSERT INTO attempt VALUES (1, 0, 3, 2, 'failed', 6.5, 9.0, 2.5, ?)", (rest,))


def test_jobs_of_version_5_run_for_whoever_submitted_them_or_their_owner(path: Path) -> None:
    version_5(path)
    with closing(SqliteStorage(str(path))) as new:
        saved = new.load()
        users = [(row.id, row.submitter, row.user) for row in saved.jobs]
        assert users == [(1, "farmer", "farmer"), (2, "", "anna"), (4, "", "")]
        assert [(row.forgiven, row.stopped_for, row.spec.name) for row in saved.jobs] == [(0, "", "shot")] * 3
        assert list(saved.slaves) == [slave(3, identity="i", account="account")]
        assert (list(saved.limits), list(saved.shares), list(saved.pools)) == ([], [], [])
        (row,) = new.attempts(1, 0, 3)
        assert row == attempt(
            *(1, 3, 2),
            frame=7,
            lease_s=1800.0,
            started_at=6.5,
            ended_at=9.0,
            outcome="failed",
            code=1,
            reason="exit",
            cpu_s=2.5,
            peak_mb=10.0,
            log_bytes=99,
        )
    with closing(SqliteStorage(f"{path}.before-6", MIGRATIONS[:5])) as copy:
        assert columns(copy, "job")[-1] == "submitter"


def test_a_damaged_job_of_version_5_is_refused_and_nothing_is_changed(path: Path) -> None:
    """Also by what is no statement."""
    version_5(path)
    with closing(SqliteStorage(str(path), MIGRATIONS[:5])) as old:
        old._connection.execute("UPDATE job SET spec = x'93' WHERE id = 2")
    for _ in range(2):
        with pytest.raises(StorageCorrupt, match=r"is damaged: .*before-6"):
            SqliteStorage(str(path))
    with closing(SqliteStorage(str(path), MIGRATIONS[:5])) as old:
        assert columns(old, "job")[-1] == "submitter"
        assert old._connection.execute("PRAGMA user_version").fetchone()[0] == 5


def test_sums_of_version_5_are_those_of_its_attempts(path: Path) -> None:
    """Of those of the latest run that are over; failed ones are counted of all."""
    done = ("done", 10.0, 12.5, 1.5)
    rows = [
        (0, 1, 1, "failed", 1.0, 9.0, 7.0),
        (0, 1, 2, *done),
        (0, 3, 1, "done", 10.0, 4.0, 1.0),  # the wall clock was set back meanwhile
        (2, 1, 1, *done),
        (3, 1, 3, "failed", 1.0, 9.0, 7.0),
        (3, 1, 4, "lost", 1.0, 9.0, 2.0),
        (4, 1, 2, "failed", 1.0, 9.0, 2.0),
    ]
    with closing(SqliteStorage(str(path), MIGRATIONS[:5])) as old:
        query = old._connection.execute
        for layer, counted in ((0, 0), (3, 3), (4, 2)):
            query("INSERT INTO layer VALUES (1, ?, 0, x'', x'', x'', ?, 0)", (layer, counted))
        for row in rows:
            layer, number, nth, outcome, started_at, ended_at, cpu_s = row
            one = attempt(1, number, nth, layer=layer, outcome=outcome, cpu_s=cpu_s)
            one = replace(one, started_at=started_at, ended_at=ended_at)
            rest = pack([getattr(one, name) for name in REST_6[:28]])
            query("INSERT INTO attempt VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, rest))
        live = [attempt(1, 4, layer=n) for n in (0, 5)]
        for one in live:
            values = [getattr(one, name) for name in REST_6[:28]]
            query("INSERT INTO attempt VALUES (1, ?, 4, 1, '', 0.0, 0.0, 0.0, ?)", (one.layer, pack(values)))
    with closing(SqliteStorage(str(path))) as new:
        new.commit([job(1)])
        assert list(new.load().live) == live
        assert list(new.load().totals) == [
            LayerTotals(1, 0, done=2, wall_s=2.5, cpu_s=9.5, failed=1),
            LayerTotals(1, 2, done=1, wall_s=2.5, cpu_s=1.5),
            LayerTotals(1, 3, done=0, wall_s=0.0, cpu_s=2.0, failed=1),
            LayerTotals(1, 4, done=0, wall_s=0.0, cpu_s=0.0, failed=1),
        ]


def version_6(path: Path) -> None:
    """A file as version 6 left it, with a row in every table, and attempts of each of its times."""
    version_5(path)
    with closing(SqliteStorage(str(path), MIGRATIONS[:6])) as old:
        query = old._connection.execute
        spare = attempt(1, 3, 3, frame=7, assigned_at=5.0, slot=2, gpus=(1,), amounts={"mem": 1.5})
        values = [getattr(spare, name) for name in REST_6]
        for at in (15, 16, 17, 22):
            values[at] = None
        query("INSERT INTO attempt VALUES (1, 0, 3, 3, '', 0.0, 0.0, 0.0, ?)", (pack(values),))
        query("INSERT INTO forgotten VALUES (9)")
        query("INSERT INTO meta VALUES ('farm', 'f')")
        query("INSERT INTO log VALUES (5, 1, 0, 7, 2, 3, x'cc', x'', 0)")
        query("INSERT INTO layer VALUES (1, 0, 4, x'', x'', x'', 2, 0, 3)")
        query("INSERT INTO frame VALUES (1, 0, 7, 'FAILED', 4, 3, '5', 0)")
        query("INSERT INTO account VALUES ('a', 'user', 'anna', 'admin', 'h', 5, '', 0" + ", ''" * 7 + ")")
        query("INSERT INTO line VALUES ('t', 'node', '', 'node', 5, '', 9, 1, '', '')")
        query("INSERT INTO audit VALUES (4, 5, 'root', 'admin', '', 'stop', 'done', '', 1)")
        query("INSERT INTO limits VALUES ('nuke', 2.0, 'attempts')")
        query("INSERT INTO share VALUES ('user', 'anna', '', 1, 0, NULL)")
        query("INSERT INTO pool VALUES ('x', 'fifo')")


def test_rows_of_version_6_get_their_sums_and_say_what_they_said(path: Path) -> None:
    version_6(path)
    with closing(sqlite3.connect(path)) as file:
        tables = {table: file.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    with closing(SqliteStorage(str(path))) as new:
        ask = new._connection.execute
        check_sums(new._connection, str(path))
        for table, rows in tables.items():
            assert rows, table
            if table != "attempt":
                assert [row[:-1] for row in ask(f"SELECT * FROM {table}")] == rows
        assert ask("SELECT attempt, live FROM attempt").fetchall() == [(2, 0), (3, 1)]
        first, second = new.attempts(1, 0, 3)
        assert (first.text, first.code, first.started_at, first.ended_at, first.cpu_s) == (
            "",
            1,
            6.5,
            9.0,
            2.5,
        )
        assert second == attempt(1, 3, 3, frame=7, assigned_at=5.0, slot=2, gpus=(1,), amounts={"mem": 1.5})
        assert list(new.load().live) == [second]
        assert new.purge(0.0, 10) == 1, "the forgotten job"
    with closing(SqliteStorage(f"{path}.before-7", MIGRATIONS[:6])) as copy:
        assert columns(copy, "forgotten") == ["job"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE attempt SET rest = x'93' WHERE attempt = 3",
        "UPDATE attempt SET rest = x'05' WHERE attempt = 3",
        "UPDATE attempt SET rest = (SELECT rest FROM attempt WHERE attempt = 2) WHERE attempt = 3",
    ],
)
def test_a_damaged_attempt_of_version_6_is_refused_and_nothing_is_changed(path: Path, statement: str) -> None:
    """Before there are sums, what stands twice has to be the same."""
    version_6(path)
    with closing(sqlite3.connect(path)) as old:
        old.execute(statement)
        old.commit()
    for _ in range(2):
        with pytest.raises(StorageCorrupt, match=r"master.db is damaged: .*before-7"):
            SqliteStorage(str(path))
    with closing(SqliteStorage(str(path), MIGRATIONS[:6])) as old:
        assert columns(old, "forgotten") == ["job"]


KILLED = """
import os, sqlite3, sys
from drqueue.master.storage.migrations import MIGRATIONS
from drqueue.master.storage.sqlite import SqliteStorage
def die(connection):
    connection.execute("PRAGMA cache_spill = 1")
    os.kill(os.getpid(), 9)
path, version, statements = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
half = [*MIGRATIONS[version][:statements], die]
SqliteStorage(path, [*MIGRATIONS[:version], half])
"""


@pytest.mark.parametrize(
    ("version", "statements"),
    [*((5, n) for n in (0, 1, 4, len(MIGRATIONS[5]))), *((6, n) for n in (1, 7, 12, len(MIGRATIONS[6])))],
)
def test_f17_a_kill_half_way_through_a_migration_changes_nothing(
    path: Path, version: int, statements: int
) -> None:
    """The next start does all of it."""
    (version_5 if version == 5 else version_6)(path)
    argv = [sys.executable, "-c", KILLED, path, str(version), str(statements)]
    dead = subprocess.run(argv, check=False)
    assert dead.returncode == -signal.SIGKILL
    last = "submitter" if version == 5 else "stopped_for"
    with closing(sqlite3.connect(path)) as old:
        assert [row[1] for row in old.execute("PRAGMA table_info(job)")][-1] == last
        assert old.execute("PRAGMA user_version").fetchone()[0] == version
    with closing(SqliteStorage(str(path))) as new:
        assert [row.user for row in new.load().jobs] == ["farmer", "anna", ""]


COLUMN = [
    "ALTER TABLE forgotten ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",
    "CREATE TABLE notes (id INTEGER)",
]


def columns(storage: SqliteStorage, table: str) -> list[str]:
    return [row[1] for row in storage._connection.execute(f"PRAGMA table_info({table})")]


def test_an_older_database_is_migrated_after_a_copy(path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    before = taken(storage.load())
    storage.close()
    with closing(SqliteStorage(str(path), [*MIGRATIONS, COLUMN, ["CREATE TABLE more (id INTEGER)"]])) as new:
        assert columns(new, "forgotten")[-1] == "note"
        assert columns(new, "more") == ["id"]
        assert taken(new.load()) == before
    copy = path.with_name(f"master.db.before-{len(MIGRATIONS) + 1}")
    assert mode(copy) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == ["master.db", copy.name]
    with closing(SqliteStorage(str(copy))) as old:
        assert taken(old.load()) == before


def test_a_migration_that_fails_changes_nothing(path: Path, storage: SqliteStorage) -> None:
    storage.commit([job(1)])
    storage.close()
    with pytest.raises(StorageError, match=r"cannot open .*no such table: nowhere"):
        SqliteStorage(str(path), [*MIGRATIONS, COLUMN, ["DROP TABLE nowhere"]])
    with closing(SqliteStorage(str(path))) as old:
        assert "note" not in columns(old, "forgotten")
        assert taken(old.load())["jobs"] == [job(1)]
