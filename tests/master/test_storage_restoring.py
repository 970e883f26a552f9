"""`drqueue-master restore`: a backup takes the database's place, whole or not at all; nothing is guessed."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from drqueue.master.core.records import MetaRecord
from drqueue.master.storage import StorageCorrupt, StorageError, StorageFull
from drqueue.master.storage.farmfile import UNKNOWN_GRANT_S
from drqueue.master.storage.migrations import MIGRATIONS
from drqueue.master.storage.restoring import LEAP, restore
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import OpenState, open_state
from drqueue.statefile import StateError
from tests.master.test_storage import job


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A killed master's: ten jobs; seven were saved after the backup, four of them are in the log."""
    state = tmp_path / "state"
    with closing(open_state(str(state))) as opened:
        commit(opened, range(3))
        opened.storage.backup(str(tmp_path / "backup.db"))
        commit(opened, range(3, 6))
    with closing(open_state(str(state))) as opened:
        commit(opened, range(6, 10))
        shutil.copytree(state, tmp_path / "copy")
    shutil.rmtree(state)
    (tmp_path / "copy").rename(state)
    return state


@pytest.fixture
def backup(state: Path) -> Path:
    return state.with_name("backup.db")


def commit(opened: OpenState, jobs: range) -> None:
    for n in jobs:
        opened.storage.commit([job(n), MetaRecord("next_job", str(n + 1))])


def jobs(state: Path) -> tuple[bool, list[int]]:
    """Start on it: was it restored, and which jobs are there?"""
    with closing(open_state(str(state))) as opened:
        return opened.restored, [row.id for row in opened.storage.load().jobs]


def files(folder: Path) -> dict[str, bytes]:
    """All that lies there; who holds the lock says so in it."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def farm_file(state: Path) -> dict[str, object]:
    return dict(json.loads((state / "farm.json").read_text()))


def test_a_backup_takes_the_place_of_the_database_and_its_log(state: Path, backup: Path) -> None:
    """The log of another database is replayed into none; what was there is whole beside it."""
    before = farm_file(state)
    done = restore(str(state), str(backup))
    assert (done.farm, done.epoch, done.kept) == (before["farm"], 3, f"{state}/master.db.replaced-1")
    assert not (state / "master.db-wal").exists()
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}
    assert jobs(state) == (True, [0, 1, 2])
    assert farm_file(state)["epoch"] == 4
    assert jobs(state) == (False, [0, 1, 2])
    with closing(SqliteStorage(done.kept)) as replaced:
        assert [row.id for row in replaced.load().jobs] == list(range(10))
    assert restore(str(state), str(backup)).kept.endswith("replaced-2")


def test_a_copy_of_a_stopped_masters_database_is_a_backup_too(state: Path, tmp_path: Path) -> None:
    """Even one of the last epoch, of which nothing but the command knows that it is not the latest."""
    jobs(state)
    shutil.copy(state / "master.db", tmp_path / "copy.db")
    before = (tmp_path / "copy.db").read_bytes()
    restore(str(state), str(tmp_path / "copy.db"))
    assert (tmp_path / "copy.db").read_bytes() == before
    assert jobs(state) == (True, list(range(10)))


def test_an_older_versions_backup_is_restored_and_then_migrated(state: Path, backup: Path) -> None:
    backup.unlink()
    with closing(SqliteStorage(str(backup), MIGRATIONS[:6])) as old:
        farm = farm_file(state)["farm"]
        old._connection.execute("INSERT INTO meta VALUES ('farm', ?), ('epoch', '1')", (farm,))
    restore(str(state), str(backup))
    assert (state / "master.db").stat().st_size > 0
    assert jobs(state) == (True, [])


def test_a_lost_database_is_restored(state: Path, backup: Path) -> None:
    for name in ("master.db", "master.db-wal"):
        (state / name).unlink()
    with pytest.raises(StateError, match=r"is empty, but .*no backup was found"):
        open_state(str(state))
    assert restore(str(state), str(backup)).kept.endswith("replaced-1"), "the empty file that this made"
    assert jobs(state) == (True, [0, 1, 2])


# -- what is refused ---------------------------------------------------------------------------------------


def flipped(backup: Path) -> None:
    with closing(sqlite3.connect(backup)) as other:
        other.execute("UPDATE job SET stopped = 1 WHERE id = 2")
        other.commit()


def torn(backup: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:9000])


def of_another(backup: Path) -> None:
    backup.unlink()
    with closing(open_state(str(backup.with_name("other")))) as opened:
        opened.storage.backup(str(backup))


def of_another_program(backup: Path) -> None:
    backup.unlink()
    with closing(sqlite3.connect(backup)) as other:
        other.execute("CREATE TABLE their (own)")


def newer(backup: Path) -> None:
    with closing(sqlite3.connect(backup)) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def a_folder(backup: Path) -> None:
    backup.unlink()
    backup.mkdir()


def with_its_log(backup: Path) -> None:
    backup.with_name("backup.db-wal").write_bytes(b"x")


REFUSED: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "damaged": (flipped, StorageCorrupt, r"backup.db is damaged: the row of job .*; nothing was changed"),
    "torn": (torn, StorageCorrupt, r"backup.db is damaged: .*; nothing was changed: take another backup"),
    "another farm's": (of_another, StateError, r"backup.db is of farm \w{8}, and .*farm.json of farm"),
    "another program's": (of_another_program, StorageError, "is not a DrQueue master's database"),
    "a newer one's": (newer, StorageError, "was written by a newer DrQueue"),
    "missing": (Path.unlink, StorageError, "cannot read .*: No such file or directory"),
    "a folder": (a_folder, StorageError, "it is no file"),
    "empty": (lambda path: path.write_bytes(b"") and None, StorageError, "is empty"),
    "a letter": (
        lambda path: path.write_text("a" * 5000) and None,
        StorageCorrupt,
        "is damaged: file is not",
    ),
    "half of a pair": (with_its_log, StorageError, "backup.db-wal belongs to it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_restored_changes_nothing(state: Path, backup: Path, what: str) -> None:
    how, kind, sentence = REFUSED[what]
    how(backup)
    before = files(state)
    with pytest.raises(kind, match=sentence):
        restore(str(state), str(backup))
    assert files(state) == before
    assert jobs(state) == (False, list(range(10)))


def test_a_running_master_and_its_own_database_are_left_alone(state: Path, backup: Path) -> None:
    with pytest.raises(StorageError, match=r"master.db is the database itself"):
        restore(str(state), str(state / "master.db"))
    with closing(open_state(str(state))) as opened:
        with pytest.raises(StateError, match=r"in use by a master, pid \d+: a backup is restored while no"):
            restore(str(state), str(backup))
        commit(opened, range(10, 11))
    assert jobs(state) == (False, list(range(11)))


def test_a_lost_farm_file_is_not_guessed(state: Path, backup: Path) -> None:
    """With an epoch above all, ids go on far above those of the backup, and a day may have been granted."""
    farm = farm_file(state)["farm"]
    (state / "farm.json").unlink()
    before = files(state)
    with pytest.raises(StateError, match=r"farm.json is missing.* --farm-epoch-above N.* is of epoch 1\)"):
        restore(str(state), str(backup))
    assert files(state) == before
    assert restore(str(state), str(backup), 70).epoch == 71
    assert farm_file(state) == {
        "farm": farm,
        "epoch": 71,
        "jobs": 3 + LEAP,
        "slaves": LEAP,
        "granted_s": UNKNOWN_GRANT_S,
    }
    with closing(open_state(str(state))) as opened:
        assert (opened.epoch, opened.granted_s) == (72, UNKNOWN_GRANT_S)
        assert opened.storage.meta()["next_job"] == str(3 + LEAP)


def test_an_epoch_that_is_named_counts_only_upwards(state: Path, backup: Path) -> None:
    """Two masters that went on from one state: the epoch is raised above the other's."""
    assert restore(str(state), str(backup), 1).epoch == 3
    assert restore(str(state), str(backup), 900).epoch == 901


def test_a_damaged_farm_file_is_refused(state: Path, backup: Path) -> None:
    (state / "farm.json").write_text("{")
    with pytest.raises(StateError, match=r"farm.json is damaged"):
        restore(str(state), str(backup), 70)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_without_room_nothing_is_changed(
    state: Path, backup: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    before = files(state)
    with monkeypatch.context() as patch:
        patch.setattr("drqueue.master.storage.restoring.shutil.copyfileobj", fail)
        with pytest.raises(StorageError, match=r"cannot restore .*backup.db into ") as caught:
            restore(str(state), str(backup))
    assert isinstance(caught.value, StorageFull) == (code != errno.EIO)
    assert files(state) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into others' folders")
def test_what_root_restores_belongs_to_whom_the_folder_does(state: Path, backup: Path) -> None:
    os.chown(state, 12345, 12346)
    restore(str(state), str(backup))
    made = {path.name: path.stat() for path in state.iterdir() if "replaced" not in path.name}
    assert made.keys() == {"farm.json", "lock", "master.db"}
    assert {(info.st_uid, info.st_gid) for info in made.values()} == {(12345, 12346)}


# -- sudden death ------------------------------------------------------------------------------------------

KILLED = """
import os, shutil, sys
from drqueue.master.storage.restoring import restore
state, backup, folder = sys.argv[1:]
def dying(real):
    def call(*args, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return real(*args, **more)
    return call
for step in range(1, 100):
    tried = f"{folder}/tried-{step}"
    shutil.copytree(state, tried)
    child = os.fork()
    if child == 0:
        left = step
        for name in ("open", "rename", "unlink", "fsync"):
            setattr(os, name, dying(getattr(os, name)))
        restore(tried, backup)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(step, status)
    if status == 0:
        break
"""


def test_f11_a_kill_at_any_moment_of_a_restore_loses_nothing(
    state: Path, backup: Path, tmp_path: Path
) -> None:
    """The next start has all there was, or the backup, or says to restore again, and that works."""
    argv = [sys.executable, "-c", KILLED, str(state), str(backup), str(tmp_path)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    *killed, last = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert {status for _, status in killed} == {-signal.SIGKILL}
    assert last[1] == 0
    outcomes = [after_a_restore(tmp_path / f"tried-{step}", backup) for step, _ in (*killed, last)]
    assert outcomes == sorted(outcomes, key=["as before", "cut short", "restored"].index)
    assert set(outcomes) == {"as before", "cut short", "restored"}


def after_a_restore(state: Path, backup: Path) -> str:
    try:
        restored, found = jobs(state)
    except StateError as error:
        sentence = str(error)
    else:
        assert found == ([0, 1, 2] if restored else list(range(10)))
        return "restored" if restored else "as before"
    assert f"was cut short: say `drqueue-master restore {backup}` again" in sentence
    restore(str(state), str(backup))
    assert jobs(state) == (True, [0, 1, 2])
    with closing(SqliteStorage(str(state / "master.db.replaced-1"))) as replaced:
        assert [row.id for row in replaced.load().jobs] == list(range(10))
    return "cut short"
