"""Older database files: what becomes of their rows, and that a file is copied before it is changed."""

from contextlib import closing
from pathlib import Path

import pytest
from msgspec.msgpack import encode as pack

from drqueue.master.core.records import FrameRecord, LayerRecord
from drqueue.master.storage import StorageError
from drqueue.master.storage.migrations import MIGRATIONS
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from tests.master.test_storage import job, slave, taken
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
