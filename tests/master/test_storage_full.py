"""A full disk: nothing that was acknowledged is lost, and writing goes on once there is room."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from drqueue.master.core.records import AnyRecord
from drqueue.master.storage import StorageFull
from drqueue.master.storage.sqlite import SqliteStorage
from tests.master.test_storage import big, frame, job, taken


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(str(tmp_path / "master.db"))) as storage:
        yield storage


def refused(storage: SqliteStorage, rows: Callable[[int], Sequence[AnyRecord]]) -> int:
    """Commit until there is no room; how many went well."""
    for n in range(100_000):
        try:
            storage.commit(rows(n))
        except StorageFull:
            return n
    pytest.fail("it never got full")


def check_recovers(storage: SqliteStorage, make_room: Callable[[], None]) -> None:
    """Fill up, make room, go on with the same object; all that was said to be saved is there, no more."""
    storage.commit([job(1)])
    n = refused(storage, big)
    assert n > 5
    for _ in range(3):
        with pytest.raises(StorageFull):
            storage.commit([row for k in range(n, n + 50) for row in big(k)])
    assert len(list(storage.load().frames)) == n
    make_room()
    storage.commit(big(n))
    path = storage.path
    storage.close()
    with closing(SqliteStorage(path)) as again:
        saved = taken(again.load())
    assert saved["frames"] == [frame(1, k) for k in range(n + 1)]
    assert len(saved["live"]) == n + 1  # type: ignore[arg-type]


def test_a_full_database_goes_on_once_there_is_room(storage: SqliteStorage) -> None:
    storage._connection.execute("PRAGMA max_page_count = 100")
    check_recovers(storage, lambda: storage._connection.execute("PRAGMA max_page_count = 100000"))


def test_a_file_size_limit_is_a_full_disk(storage: SqliteStorage) -> None:
    """As a quota: SQLite calls it an I/O error, without the cause."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        check_recovers(storage, lift)
    finally:
        lift()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_goes_on_once_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with closing(SqliteStorage(str(small_disk / "master.db"))) as storage:
        check_recovers(storage, ballast.unlink)


def test_a_database_on_a_full_disk_is_not_opened(small_disk: Path) -> None:
    free = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
    with pytest.raises(StorageFull, match=r"cannot open .*no space left on the disk"):
        SqliteStorage(str(small_disk / "master.db"))


def test_a_backup_without_room_leaves_no_half_one(small_disk: Path, storage: SqliteStorage) -> None:
    storage.commit([row for n in range(2000) for row in big(n)])
    with pytest.raises(StorageFull, match="cannot back up to"):
        storage.backup(str(small_disk / "copy.db"))
    assert list(small_disk.iterdir()) == []
    storage.commit([job(3)])
