"""F2, F9: a start that fails after a kill leaves nothing worse than it found."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from drqueue.master.core.records import AnyRecord, MetaRecord
from drqueue.master.storage import StorageFull, sqlite, statedir
from drqueue.master.storage.statedir import open_state


def killed(folder: Path) -> Path:
    """The state directory of a master that was killed: one that runs, copied."""
    opened = open_state(str(folder / "runs"))
    try:
        opened.storage.commit([MetaRecord("said", "yes")])
        shutil.copytree(folder / "runs", folder / "killed")
    finally:
        opened.close()
    return folder / "killed"


def test_a_disk_that_is_full_at_the_start_after_a_kill_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite takes the log away as the start is given up; the next one must not miss it."""
    folder = killed(tmp_path)

    def full(_storage: object, _records: Sequence[AnyRecord]) -> None:
        raise StorageFull("no space left on the disk")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(sqlite.SqliteStorage, "commit", full)
            with pytest.raises(StorageFull):
                open_state(str(folder))
    assert_all_is_there(folder)


def test_a_migration_that_fails_after_a_kill_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the database is given up before it is open."""
    folder = killed(tmp_path)

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "migrate", failing)
        with pytest.raises(sqlite.StorageError):
            open_state(str(folder))
    assert_all_is_there(folder)


def test_a_log_that_is_gone_is_missed_however_often_one_starts(tmp_path: Path) -> None:
    folder = killed(tmp_path)
    (folder / "master.db-wal").unlink()
    for _ in range(2):
        with pytest.raises(sqlite.StorageCorrupt, match="which is gone"):
            open_state(str(folder))
    assert (folder / statedir.OPEN_FILE).exists()


def assert_all_is_there(folder: Path) -> None:
    """It starts, and has what was committed."""
    opened = open_state(str(folder))
    try:
        assert opened.storage.meta()["said"] == "yes"
        assert not opened.restored
    finally:
        opened.close()
