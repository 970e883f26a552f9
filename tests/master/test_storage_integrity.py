"""What of a large database is checked at a start, and what is left to its next backup."""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from drqueue import log
from drqueue.master.daemon import serve
from drqueue.master.listening import listeners
from drqueue.master.storage import StorageCorrupt
from drqueue.master.storage.backups import BACKUPS
from drqueue.master.storage.integrity import check_start
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import open_state
from drqueue.settings import MasterSettings
from tests.master.test_daemon import PATIENCE_S
from tests.master.test_storage import attempt, frame, job, taken

OPEN = "drqueue.master.storage.sqlite.check_start"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with some hundred frames that were rendered."""
    path = tmp_path / "master.db"
    with closing(SqliteStorage(str(path))) as storage:
        frames = [frame(1, n) for n in range(1000)]
        storage.commit([job(1), *frames, *(attempt(1, n, outcome="done") for n in range(1000))])
    return path


def zero_root(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        root = other.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = other.execute("PRAGMA page_size").fetchone()[0]
    data = bytearray(path.read_bytes())
    data[(root - 1) * size : root * size] = bytes(size)
    path.write_bytes(data)


def test_a_file_of_usual_size_is_checked_whole(path: Path) -> None:
    with closing(SqliteStorage(str(path))) as storage:
        assert storage.checked
    zero_root(path, "attempt")
    with pytest.raises(StorageCorrupt, match="is damaged"):
        SqliteStorage(str(path))


@pytest.mark.parametrize("table", ["frame", "job", "layer", "totals", "audit_at", "forgotten"])
def test_of_a_large_file_all_is_checked_but_its_history(
    path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    zero_root(path, table)
    monkeypatch.setattr(OPEN, partial(check_start, whole_bytes=0))
    with pytest.raises(StorageCorrupt, match="is damaged"):
        SqliteStorage(str(path))


def test_attempts_that_live_are_checked_as_they_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero_root(path, "attempt_live")
    monkeypatch.setattr(OPEN, partial(check_start, whole_bytes=0))
    with closing(SqliteStorage(str(path))) as storage, pytest.raises(StorageCorrupt, match="is damaged"):
        storage.load()


def test_an_attempt_that_lives_and_cannot_be_found_is_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frame would be handed out once more: what its index names is counted, whatever the size."""
    with closing(SqliteStorage(str(path))) as storage:
        storage.commit([attempt(1, n, nth=2) for n in range(3)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        (index,) = other.execute("SELECT * FROM sqlite_master WHERE name = 'attempt_live'").fetchall()
        other.execute("DELETE FROM sqlite_master WHERE name = 'attempt_live'")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM attempt WHERE number = 1 AND attempt = 2")
        other.execute("PRAGMA writable_schema = ON")
        other.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
    monkeypatch.setattr(OPEN, partial(check_start, whole_bytes=0))
    with (
        closing(SqliteStorage(str(path))) as storage,
        pytest.raises(StorageCorrupt, match="of 3 attempts that live 2 are found"),
    ):
        storage.load()


def test_the_history_of_a_large_file_is_left_to_a_backup(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero_root(path, "attempt")
    monkeypatch.setattr(OPEN, partial(check_start, whole_bytes=0))
    with closing(SqliteStorage(str(path))) as storage:
        assert not storage.checked
        assert len(taken(storage.load())["frames"]) == 1000  # type: ignore[arg-type]
        with pytest.raises(StorageCorrupt, match="is damaged"):
            storage.attempts(1, 0, 5)
        with pytest.raises(StorageCorrupt, match="is damaged, so no backup was made"):
            storage.backup(str(path.with_name("copy.db")))


async def test_a_master_on_a_large_database_makes_that_backup_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trio.Event()
    monkeypatch.setattr(log, "event", lambda what, **_: made.set() if what == "backup made" else None)
    settings = MasterSettings(state_dir=str(tmp_path))
    with closing(open_state(settings.state_dir)) as opened, listeners(settings) as sockets:
        opened.storage.checked = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, settings, opened, sockets)
            with trio.fail_after(PATIENCE_S):
                await made.wait()
            nursery.cancel_scope.cancel()
    assert len(list((tmp_path / BACKUPS).iterdir())) == 1
