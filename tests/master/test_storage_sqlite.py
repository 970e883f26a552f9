"""The database file: who may open it, what survives, and what happens when it is damaged or full."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drqueue.master.core.records import (
    AnyRecord,
    AttemptRecord,
    FramesForget,
    JobForget,
    LayerTotals,
    LimitRecord,
    LogRecord,
    MetaRecord,
    PoolRecord,
    ShareRecord,
)
from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.backups import BACKUPS
from drqueue.master.storage.migrations import APPLICATION_ID, MIGRATIONS
from drqueue.master.storage.rows import ATTEMPT_COLUMNS, REST_FIELDS
from drqueue.master.storage.sqlite import META_BACKUP, SqliteStorage
from drqueue.proto.model import Limit, LogEnds, Share
from tests.master.test_storage import attempt, big, frame, job, slave, taken
from tests.master.test_storage_sums import sum_up


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def some_rows() -> list[AnyRecord]:
    """A few pages' worth of every kind."""
    frames = [frame(1, n, state="FAILED", attempt=1) for n in range(300)]
    tries = [attempt(1, n, outcome="done" if n % 2 else "", text="word " * 5) for n in range(300)]
    logs = [LogRecord(row.key, LogEnds(size=9, head=b"head" * 30)) for row in tries[:50]]
    limit, share = LimitRecord(Limit(name="nuke", amount=3)), ShareRecord(Share(of="user", name="anna"))
    set_ = [limit, share, PoolRecord("x", "fifo"), LayerTotals(1, 0, 150, 1.0, 1.0)]
    return [job(1), MetaRecord("a", "b"), slave(0), *set_, *frames, *tries, *logs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(str(path))) as storage:
        yield storage


def test_the_packed_row_has_every_field_of_an_attempt() -> None:
    """A new field must be added at the end of both, and have a default; rows are cut out of the record's."""
    fields = [name for name in AttemptRecord.__struct_fields__ if name not in ATTEMPT_COLUMNS.split(", ")]
    assert tuple(fields) == REST_FIELDS


def test_its_files_are_private_whatever_they_were(path: Path, storage: SqliteStorage) -> None:
    storage.commit([job(1)])
    assert mode(path) == mode(path.with_name("master.db-wal")) == 0o600
    storage.close()
    path.chmod(0o644)
    with closing(SqliteStorage(str(path))):
        assert mode(path) == 0o600


def test_it_writes_through_to_the_disk_with_one_private_log(path: Path, storage: SqliteStorage) -> None:
    def ask(name: str) -> object:
        return storage._connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert (ask("journal_mode"), ask("synchronous"), ask("locking_mode")) == ("wal", 2, "exclusive")
    assert ask("application_id") == APPLICATION_ID
    assert not path.with_name("master.db-shm").exists()


def test_a_second_opener_is_told_so(path: Path, storage: SqliteStorage) -> None:
    with pytest.raises(StorageError, match="in use by another program"):
        SqliteStorage(str(path))
    code = "import sys; from drqueue.master.storage.sqlite import SqliteStorage; SqliteStorage(sys.argv[1])"
    other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert f"StorageError: {path} is in use by another program" in other.stderr
    storage.commit([job(1)])


def test_a_commit_that_fails_leaves_nothing_of_itself(path: Path, storage: SqliteStorage) -> None:
    with pytest.raises(OverflowError):
        storage.commit([job(1), frame(1, 0), frame(1, 1 << 70)])
    with pytest.raises(TypeError, match="str is no row"):
        storage.commit([job(1), "nonsense"])  # type: ignore[list-item]
    assert taken(storage.load())["jobs"] == []
    storage.commit([job(2)])
    assert taken(storage.load())["jobs"] == [job(2)]


def test_frames_are_read_in_parts_without_a_gap(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drqueue.master.storage.loading._FRAMES_AT_ONCE", 4)
    rows = [frame(j, n, layer=layer) for j in (1, 2, 4) for layer in (0, 1) for n in range(4 + layer)]
    storage.commit([job(1), job(2), job(3), job(4), *rows])
    assert list(storage.load().frames) == rows


def test_the_log_beside_the_file_stays_small(path: Path, storage: SqliteStorage) -> None:
    storage.commit([job(1)])
    log = path.with_name("master.db-wal")
    for n in range(60):
        storage.commit([attempt(1, n * 100 + k, text="x" * 1000) for k in range(100)])
    assert path.stat().st_size > 5 << 20
    assert log.stat().st_size < 6 << 20


def test_a_forgotten_jobs_rows_are_really_dropped_in_batches(storage: SqliteStorage) -> None:
    def left() -> int:
        ask = storage._connection.execute
        tables = ("job", "layer", "totals", "frame", "attempt", "log", "forgotten")
        counts = (ask(f"SELECT count(*) FROM {table}") for table in tables)
        return int(sum(count.fetchone()[0] for count in counts))

    storage.commit(some_rows())
    before = left()
    storage.commit([JobForget(1)])
    assert left() == (before := before - 1)
    for _ in range(20):
        assert 0 < storage.purge(0, 40) <= 40
        assert before - left() <= 40
        before = left()
        if before == 0:
            break
    assert before == 0
    assert storage.purge(0, 40) == 0


# Damaged, not ours


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"this is a letter, not a database\n" * 300)
    before = path.read_bytes()
    with pytest.raises(
        StorageCorrupt, match=r"is damaged: file is not a database; no backup was found in .*backups"
    ):
        SqliteStorage(str(path))
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE their (own)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is not a DrQueue master's database"):
        SqliteStorage(str(path))
    assert path.read_bytes() == before
    assert not path.with_name("master.db-wal").exists()


def test_a_newer_programs_database_is_refused(path: Path) -> None:
    newer = [*MIGRATIONS, ["CREATE TABLE news (id)"]]
    with closing(SqliteStorage(str(path), newer)) as storage:
        storage.commit([job(1)])
    with pytest.raises(StorageError, match=rf"version {len(newer)}, this one knows {len(MIGRATIONS)}"):
        SqliteStorage(str(path))
    with closing(SqliteStorage(str(path), newer)) as storage:
        assert taken(storage.load())["jobs"] == [job(1)]


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    mode = tmp_path.stat().st_mode
    with pytest.raises(StorageError, match="cannot open"):
        SqliteStorage(str(tmp_path))
    assert tmp_path.stat().st_mode == mode
    with pytest.raises(StorageError, match=r"cannot open .*No such file"):
        SqliteStorage(str(tmp_path / "none" / "master.db"))


def damaged(path: Path, how: Callable[[bytearray], None]) -> str:
    """Damage a copy and open it: "refused", or "whole" with every row there; anything else fails."""
    broken = path.with_name("broken.db")
    data = bytearray(path.read_bytes())
    how(data)
    broken.write_bytes(data)
    try:
        with closing(SqliteStorage(str(broken))) as storage:
            saved = taken(storage.load())
            history = sum(len(storage.attempts(1, 0, n)) for n in range(300))
    except StorageError:
        return "refused"
    assert [len(saved[name]) for name in ("jobs", "slaves", "frames", "live")] == [1, 1, 300, 150]  # type: ignore[arg-type]
    assert history == 300
    return "whole"


def test_a_truncated_file_is_refused(path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    storage.close()
    size = path.stat().st_size
    assert size > 20 * 4096
    for length in (1, 50, 99, 100, 511, 512, 1000, 4095, 4096, 4097, 8192, size // 2, size - 4096):

        def cut(data: bytearray, length: int = length) -> None:
            del data[length:]

        assert damaged(path, cut) == "refused", length
    # SQLite reads the missing end of the last page as zeros, as it must after a full disk.
    damaged(path, lambda data: data.pop())


def test_a_zeroed_block_is_refused(path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    storage.close()
    for start in range(0, path.stat().st_size - 8192, 5 * 4096):

        def zero(data: bytearray, start: int = start) -> None:
            data[start : start + 8192] = bytes(8192)

        assert damaged(path, zero) == "refused", start


def test_a_flipped_bit_is_refused_or_loses_no_row(path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    storage.close()
    dice = random.Random(4)
    outcomes = []
    for _ in range(80):
        bit = dice.randrange(path.stat().st_size * 8)

        def flip(data: bytearray, bit: int = bit) -> None:
            data[bit // 8] ^= 1 << bit % 8

        outcomes.append(damaged(path, flip))
    assert outcomes.count("refused") > 8  # SQLite has no checksums: most bits lie in text


def test_an_index_that_misses_rows_is_refused(path: Path, storage: SqliteStorage) -> None:
    """Else the attempts that it misses would be forgotten while they run."""
    storage.commit(some_rows())
    storage.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'live = 1', 'live = 0') WHERE name = 'attempt_live'"
        )
        other.commit()
    with pytest.raises(StorageCorrupt, match="attempt_live"):
        SqliteStorage(str(path))


def test_damage_names_the_newest_backup(path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    folder = path.with_name(BACKUPS)
    for age, name in ((300, "b.db"), (100, "a.db"), (200, "c.db")):
        storage.backup(str(folder / name))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    (folder / "d.db.new").write_bytes(b"half of one")
    storage.close()
    path.write_bytes(path.read_bytes()[:9000])
    expected = f"with the master stopped: drqueue-master restore --state-dir {path.parent} {folder}/a.db"
    with pytest.raises(StorageCorrupt, match=re.escape(expected)):
        SqliteStorage(str(path))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET spec = x'93'",
        "UPDATE job SET spec = x'80'",
        "UPDATE slave SET machine = x'c0'",
        "UPDATE slave SET limits = x'00'",
        "UPDATE slave SET wish = x'00'",
        "UPDATE slave SET offers = x'00'",
        "UPDATE limits SET amount = 'much'",
        "UPDATE limits SET scope = 'seats'",
        "UPDATE share SET sharer = 'pool'",
        "UPDATE share SET weight = 0",
        "UPDATE pool SET policy = 'strict'",
        "UPDATE frame SET state = 'DONF' WHERE frame = 7",
        "UPDATE frame SET avoid = '1,x' WHERE frame = 7",
        "UPDATE attempt SET rest = x'00' WHERE number = 8",
        "UPDATE attempt SET rest = x'9105' WHERE number = 8",
    ],
)
def test_a_value_that_does_not_fit_is_refused(path: Path, storage: SqliteStorage, statement: str) -> None:
    storage.commit(some_rows())
    assert storage._connection.execute(statement).rowcount == 1
    sum_up(storage)
    with pytest.raises(StorageCorrupt, match=f"{path} is damaged: .*no backup was found"):
        taken(storage.load())


# Backup and migration


def test_a_backup_is_a_whole_private_database(tmp_path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    copy = tmp_path / "copy.db"
    for older in (copy, tmp_path / "copy.db.new"):
        older.write_bytes(b"an older one")
        older.chmod(0o644)
    storage.backup(str(copy))
    assert mode(copy) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.db", "master.db", "master.db-wal"]
    assert copy.read_bytes()[18:20] == b"\1\1"  # no file beside it, also while others read it
    storage.commit([JobForget(1)])
    with closing(SqliteStorage(str(copy))) as restored:
        assert taken(restored.load())["frames"] == [
            frame(1, n, state="FAILED", attempt=1) for n in range(300)
        ]
        assert restored.log(attempt(1, 49).key) == LogEnds(size=9, head=b"head" * 30)


def test_a_damaged_database_makes_no_backup(tmp_path: Path, storage: SqliteStorage) -> None:
    storage.commit(some_rows())
    storage._connection.execute("PRAGMA writable_schema = ON")
    storage._connection.execute("UPDATE sqlite_master SET rootpage = 3 WHERE name = 'attempt_live'")
    copy = tmp_path / BACKUPS / "copy.db"
    with pytest.raises(
        StorageCorrupt, match=r"master.db is damaged, so no backup was made: .*no backup was found"
    ):
        storage.backup(str(copy))
    assert list(copy.parent.iterdir()) == []


def test_commits_go_on_during_a_backup_and_each_is_whole_in_it(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    storage.commit([job(1), *(row for n in range(1500) for row in big(n))])
    copy, trouble = str(tmp_path / "copy.db"), []

    def back_up() -> None:
        try:
            storage.backup(copy)
        except StorageError as error:
            trouble.append(error)

    thread = threading.Thread(target=back_up)
    thread.start()
    during = 0
    while thread.is_alive():
        during += 1
        storage.commit([frame(1, 0, attempt=during), frame(1, 1499, attempt=during)])
    thread.join()
    assert trouble == []
    assert during > 5
    with closing(SqliteStorage(copy)) as restored:
        frames = list(restored.load().frames)
    assert len(frames) == 1500
    assert frames[0].attempt == frames[-1].attempt >= 1
    assert next(iter(storage.load().frames)).attempt == during


def test_a_backup_never_holds_half_a_commit(
    tmp_path: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where its last step falls between two statements of one."""
    storage.commit([job(1)])
    copy, copied = str(tmp_path / "copy.db"), threading.Event()

    def back_up() -> None:
        storage.backup(copy)
        copied.set()

    thread = threading.Thread(target=back_up)
    forget = storage._forget

    def forget_slowly(record: AnyRecord) -> None:
        # A backup that does not wait for the commit is done long before this ends.
        thread.start()
        copied.wait(1)
        forget(record)

    monkeypatch.setattr(storage, "_forget", forget_slowly)
    storage.commit([job(2), slave(0), FramesForget(1, 0, 0, 1), frame(2, 0), MetaRecord("whole", "yes")])
    thread.join()
    with closing(SqliteStorage(copy)) as restored:
        saved = taken(restored.load())
    assert [len(saved[name]) for name in ("jobs", "slaves", "frames")] in ([1, 0, 0], [2, 1, 1])  # type: ignore[arg-type]


def test_a_backup_says_that_it_is_one(tmp_path: Path, storage: SqliteStorage) -> None:
    storage.commit([MetaRecord("a", "b")])
    storage.backup(str(tmp_path / "copy.db"))
    assert storage.meta() == {"a": "b"}
    with closing(SqliteStorage(str(tmp_path / "copy.db"))) as copy:
        assert copy.meta() == {"a": "b", META_BACKUP: "yes"}


def test_closing_ends_a_backup(
    tmp_path: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drqueue.master.storage.sqlite._BACKUP_PAGES", 1)
    storage.commit([job(1), *(row for n in range(1000) for row in big(n))])
    begun, trouble = threading.Event(), []
    monkeypatch.setattr("drqueue.master.storage.sqlite.time.sleep", lambda _: begun.set())

    def back_up() -> None:
        try:
            storage.backup(str(tmp_path / "copy.db"))
        except StorageError as error:
            trouble.append(str(error))

    thread = threading.Thread(target=back_up)
    thread.start()
    assert begun.wait(10)
    storage.close()
    thread.join()
    assert trouble == [f"backup to {tmp_path / 'copy.db'} was given up: the master stops"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["master.db"]
    with pytest.raises(StorageError, match="closed"):
        storage.backup(str(tmp_path / "copy.db"))
    storage.close()


def test_the_room_that_logs_take_is_known_without_adding_them_up(path: Path, storage: SqliteStorage) -> None:
    """Through whatever writes and drops them, and a commit that fails."""

    def check() -> None:
        (found,) = storage._connection.execute(
            "SELECT ifnull(sum(length(head) + length(tail)), 0) FROM log"
        ).fetchone()
        assert storage._log_bytes == found

    tries = [attempt(n, k, a, outcome="failed") for n in (1, 2) for k in range(20) for a in (1, 2)]
    logs = [LogRecord(row.key, LogEnds(size=9, head=b"h" * i, tail=b"t")) for i, row in enumerate(tries)]
    storage.commit([job(1), job(2), *tries, *logs, *logs[:3]])
    check()
    assert storage._log_bytes == sum(range(80)) + 80
    storage.commit(
        [LogRecord(logs[7].key, LogEnds(size=1)), LogRecord(logs[7].key, LogEnds(size=1, head=b"x"))]
    )
    check()
    with pytest.raises(TypeError):
        storage.commit([*logs, "nonsense"])  # type: ignore[list-item]
    check()
    storage.commit([JobForget(2)])
    while storage.purge(1000.0, 7):
        check()
    check()
    before = storage._log_bytes
    assert before > 0
    storage.close()
    with closing(SqliteStorage(str(path))) as again:
        assert again._log_bytes == before


# Sudden death

WRITER = """
import sys
from drqueue.master.core.records import FrameRecord, JobRecord, MetaRecord
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto.model import JobSpec
storage = SqliteStorage(sys.argv[1])
n = int(storage.meta().get("n", "0"))
if n == 0:
    storage.commit([JobRecord(id=1, token="t", spec=JobSpec(name="j", layers=()), submitted_at=1)])
while True:
    n += 1
    places = [(n * 7 + k) % 5000 for k in range(40)]
    rows = [FrameRecord(job=1, layer=0, frame=place, state="FAILED", attempt=n) for place in places]
    storage.commit([MetaRecord("n", str(n)), *rows])
    print(n, flush=True)
"""


@pytest.mark.slow
def test_kill_9_in_the_middle_of_commits_loses_none_that_was_acknowledged(path: Path) -> None:
    dice, last = random.Random(1), 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randrange(5, 150)):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read()
        assert writer.returncode == -signal.SIGKILL
        said = rest.split("\n")[:-1]
        with closing(SqliteStorage(str(path))) as storage:
            kept = int(storage.meta()["n"])
            frames = {row.frame: row.attempt for row in storage.load().frames}
        assert kept > last
        if said:
            assert kept >= int(said[-1])
        assert max(frames.values()) == kept
        assert [frames[(kept * 7 + k) % 5000] for k in range(40)] == [kept] * 40
        last = kept
