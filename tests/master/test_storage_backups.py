"""The folder of backups: how many stay, which is the newest, and what is nobody's business there."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.master.storage import StorageError, StorageFull
from drqueue.master.storage.backups import BACKUPS, age_s, latest_backup, make_backup
from drqueue.master.storage.memory import MemoryStorage
from drqueue.master.storage.sqlite import SqliteStorage
from tests.master.test_storage import job, taken

NOW = 1_800_000_000.0


class Copies(MemoryStorage):
    """Its backups are empty files."""

    def backup(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(str(path))) as storage:
        yield storage


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path.with_name(BACKUPS)))


def test_a_backup_is_named_after_its_time_and_can_be_opened(path: Path, storage: SqliteStorage) -> None:
    storage.commit([job(1)])
    made = make_backup(storage, str(path), 3, NOW)
    assert made == str(path.with_name(BACKUPS) / "master-20270115-080000.db")
    assert (path.with_name(BACKUPS).stat().st_mode & 0o777, Path(made).stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    with closing(SqliteStorage(made)) as copy:
        assert taken(copy.load())["jobs"] == [job(1)]


def test_the_oldest_beyond_those_kept_go_and_what_is_not_ours_stays(
    path: Path, storage: SqliteStorage
) -> None:
    folder = path.with_name(BACKUPS)
    folder.mkdir()
    for name in ("before-the-film.db", "master-20270115-075959.db.bak", "other.db.new", "master-1.db"):
        (folder / name).touch()
    theirs = names(path)
    # What a master that was killed in the middle of one left behind.
    (folder / "master-20270115-070000.db.new").touch()
    made = [os.path.basename(make_backup(storage, str(path), 2, NOW + n)) for n in range(5)]
    assert names(path) == sorted([*theirs, *made[-2:]])


@given(ticks=st.lists(st.integers(-3, 3), min_size=1, max_size=12), keep=st.integers(1, 4))
def test_the_new_one_stays_whatever_the_clock_does(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[int], keep: int
) -> None:
    path = tmp_path_factory.mktemp("state") / "master.db"
    path.touch()
    wall = NOW
    for tick in ticks:
        wall += tick
        made = make_backup(Copies(), str(path), keep, wall)
        assert os.path.basename(made) in names(path)
        assert len(names(path)) <= keep


def test_the_age_is_that_of_the_newest(path: Path) -> None:
    assert age_s(str(path), NOW) is None
    folder = path.with_name(BACKUPS)
    folder.mkdir()
    for name, age in (("master-20270101-000000.db", 300), ("master-20270102-000000.db", 50), ("own.db", 1)):
        (folder / name).touch()
        os.utime(folder / name, (NOW - age, NOW - age))
    assert age_s(str(path), NOW) == 50
    # The clock was wrong when it was made: it must not hold up the next one for years.
    os.utime(folder / "master-20270101-000000.db", (NOW + 1e6, NOW + 1e6))
    assert age_s(str(path), NOW) == 0
    assert latest_backup(str(path)) == str(folder / "master-20270101-000000.db")


def test_a_backup_leaves_room_for_the_farm(
    path: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would fill the disk that the database lies on, and stop the farm."""
    real = os.statvfs(path)
    size = path.stat().st_size

    def free(count: int) -> None:
        wanted = os.statvfs_result((1, 1, *tuple(real)[2:4], count, *tuple(real)[5:]))
        monkeypatch.setattr("drqueue.master.storage.backups.os.statvfs", lambda _: wanted)

    free(size + (64 << 20) - 1)
    with pytest.raises(StorageFull, match="MiB must be free, and 64 MiB are"):
        make_backup(storage, str(path), 3, NOW)
    assert not path.with_name(BACKUPS).exists()
    free(size + (64 << 20))
    make_backup(storage, str(path), 3, NOW)
    assert len(names(path)) == 1


def test_a_backup_that_fails_takes_no_older_one_along(path: Path, storage: SqliteStorage) -> None:
    old = make_backup(storage, str(path), 1, NOW)
    storage.close()
    with pytest.raises(StorageError, match="it is closed"):
        make_backup(storage, str(path), 1, NOW + 10)
    assert names(path) == [os.path.basename(old)]


def test_a_file_where_the_folder_should_be_is_one_sentence(path: Path, storage: SqliteStorage) -> None:
    path.with_name(BACKUPS).write_text("")
    with pytest.raises(StorageError, match=r"cannot back up to .*: File exists"):
        make_backup(storage, str(path), 1, NOW)
