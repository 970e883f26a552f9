"""A master's state after a kill: nothing acknowledged is lost without a word, nothing whole is refused."""

import gc
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from drqueue import log
from drqueue.master.core.records import MetaRecord
from drqueue.master.storage import StorageCorrupt, StorageFull
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import FarmStorage, OpenState, open_state
from tests.master.test_daemon import run_master
from tests.master.test_storage import job

NAMES = ("master.db", "master.db-wal", "farm.json", "master.open")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def commit(opened: OpenState, rows: range) -> None:
    for n in rows:
        opened.storage.commit([MetaRecord("n", str(n + 1)), job(n)])


def rows(opened: OpenState) -> int:
    """How many there are; the named value was written along with each."""
    found = [row.id for row in opened.storage.load().jobs]
    assert opened.storage.meta().get("n", "0") == str(len(found))
    assert found == list(range(len(found)))
    return len(found)


def left_by_a_kill(state: Path, target: Path) -> Path:
    """The files as they are found when the master that has them open is killed now."""
    target.mkdir(mode=0o700)
    for name in NAMES:
        if (state / name).exists():
            shutil.copy(state / name, target / name)
    return target


@pytest.fixture
def killed(state: Path, tmp_path: Path) -> Path:
    """Five rows in the database, five more in the log beside it."""
    with closing(open_state(str(state))) as opened:
        commit(opened, range(5))
    with closing(open_state(str(state))) as opened:
        commit(opened, range(5, 10))
        return left_by_a_kill(state, tmp_path / "killed")


def start(state: Path) -> int:
    with closing(open_state(str(state))) as opened:
        return rows(opened)


def test_a_killed_masters_state_is_whole(killed: Path) -> None:
    assert json.loads((killed / "master.open").read_text()) == {"epoch": 2}
    assert [start(killed) for _ in range(2)] == [10, 10]


def test_a_master_that_ended_leaves_no_log_and_no_note(state: Path) -> None:
    with closing(open_state(str(state))) as opened:
        assert (state / "master.open").exists()
        opened.storage.close()
        assert sorted(path.name for path in state.iterdir()) == ["farm.json", "lock", "master.db"]


def test_a_log_that_is_gone_is_missed(killed: Path) -> None:
    """At every start, until it is back, or somebody says that it is no loss."""
    wal = (killed / "master.db-wal").read_bytes()
    for emptied in (False, True, False):
        (killed / "master.db-wal").unlink(missing_ok=True)
        if emptied:
            (killed / "master.db-wal").write_bytes(b"")
        with pytest.raises(
            StorageCorrupt, match=r"master.db-wal, which is gone.*no backup was found in .*delete"
        ):
            open_state(str(killed))
    (killed / "master.db-wal").write_bytes(wal)
    assert start(killed) == 10


def test_whoever_knows_better_may_go_on_without_the_log(killed: Path) -> None:
    """As after the sqlite3 program, which copied it into the database and removed it."""
    with closing(sqlite3.connect(killed / "master.db")) as other:
        assert other.execute("SELECT count(*) FROM job").fetchone() == (10,)
    assert not (killed / "master.db-wal").exists()
    with pytest.raises(StorageCorrupt, match=f"or delete {killed}/master.open to go on"):
        open_state(str(killed))
    (killed / "master.open").unlink()
    assert start(killed) == 10


@pytest.mark.parametrize("note", [None, {}, {"epoch": 1}, {"epoch": 3}, {"epoch": "2"}])
def test_a_state_of_a_version_without_the_note_is_accepted(
    killed: Path, note: dict[str, object] | None
) -> None:
    """Or one that such a version has had since."""
    (killed / "master.db-wal").unlink()
    (killed / "master.open").unlink()
    if note is not None:
        (killed / "master.open").write_text(json.dumps(note))
    assert start(killed) == 5


@pytest.mark.parametrize("at", [3, 9, 13, 20, 30, 32 + 8, 32 + 2000, 32 + 3 * 4120 + 300])
def test_a_flipped_bit_in_the_log_is_refused_and_left_alone(killed: Path, at: int) -> None:
    data = bytearray((killed / "master.db-wal").read_bytes())
    data[at] ^= 16
    (killed / "master.db-wal").write_bytes(data)
    (killed / "backups").mkdir()
    backup = killed / "backups" / "master-20260131-030000.db"
    shutil.copy(killed / "master.db", backup)
    before = [(killed / name).read_bytes() for name in NAMES]
    for _ in range(2):
        with pytest.raises(StorageCorrupt) as caught:
            open_state(str(killed))
        database = f"{killed}/master.db"
        assert re.fullmatch(
            rf"{database}-wal is damaged at byte \d+, and what was saved behind it would be lost; to "
            rf"restore, with the master stopped: drqueue-master restore --state-dir {killed} {backup}",
            str(caught.value),
        )
        assert [(killed / name).read_bytes() for name in NAMES] == before


def test_a_torn_last_transaction_is_left_out_and_told(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", lambda what, **_: told.append(what))
    data = bytearray((killed / "master.db-wal").read_bytes())
    data[-3] ^= 16
    (killed / "master.db-wal").write_bytes(data)
    assert start(killed) == 9
    assert len(told) == 1
    assert told[0].startswith("the last transaction in the database's log is not whole")
    assert start(killed) == 9
    assert len(told) == 1


@pytest.mark.parametrize("how", ["backup", "copy", "of this life"])
@pytest.mark.parametrize("damage", ["none", "gone", "bit"])
def test_a_backup_restored_after_a_kill_is_accepted(
    state: Path, tmp_path: Path, how: str, damage: str
) -> None:
    """As the operations page tells: copied over the database, the log deleted; whatever made it necessary."""
    copy = tmp_path / "copy.db"
    with closing(open_state(str(state))) as opened:
        commit(opened, range(3))
        if how == "backup":
            opened.storage.backup(str(copy))
    if how == "copy":
        shutil.copy(state / "master.db", copy)
    with closing(open_state(str(state))) as opened:
        commit(opened, range(3, 7))
        if how == "of this life":
            opened.storage.backup(str(copy))
        killed = left_by_a_kill(state, tmp_path / "killed")
    wal = killed / "master.db-wal"
    if damage == "gone":
        wal.unlink()
    elif damage == "bit":
        wal.write_bytes(b"\0" + wal.read_bytes()[1:])
    if damage != "none":
        with pytest.raises(StorageCorrupt):
            open_state(str(killed))
    shutil.copy(copy, killed / "master.db")
    wal.unlink(missing_ok=True)
    with closing(open_state(str(killed))) as opened:
        assert opened.restored
        assert rows(opened) == (7 if how == "of this life" else 3)


class Died(BaseException):
    """A kill in the middle of something."""


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_kill_at_any_step_of_a_start_or_an_end_is_no_damage(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The files as they are before each step; one more life on them, with and without the log then copied."""
    with closing(open_state(str(state))) as opened:
        commit(opened, range(4))
        before = left_by_a_kill(state, tmp_path / "before")
    shots: list[Path] = []

    def shoot(step: Callable[..., object]) -> Callable[..., object]:
        def shot(*args: object) -> object:
            shots.append(left_by_a_kill(before, tmp_path / f"shot{len(shots)}"))
            done = step(*args)
            shots.append(left_by_a_kill(before, tmp_path / f"shot{len(shots)}"))
            return done

        return shot

    def take_shots(patch: pytest.MonkeyPatch) -> None:
        for name in ("copy_log", "keep", "commit", "_forget_open"):
            patch.setattr(FarmStorage, name, shoot(getattr(FarmStorage, name)))
        patch.setattr(SqliteStorage, "_release", shoot(SqliteStorage._release))

    if where == "start":
        with monkeypatch.context() as patch:
            take_shots(patch)
            opened = open_state(str(before))
        opened.close()
    else:
        opened = open_state(str(before))
        with monkeypatch.context() as patch:
            take_shots(patch)
            opened.close()
    assert len(shots) >= 6
    for shot in shots:
        assert start(shot) == 4, shot


def test_an_end_while_something_is_read_is_one_in_good_order(state: Path) -> None:
    with closing(open_state(str(state))) as opened:
        commit(opened, range(3))
        reader = opened.storage._connection.execute("SELECT * FROM job")
        reader.fetchone()
    assert not (state / "master.open").exists()
    # SQLite closes, and removes the log, only now.
    del reader
    gc.collect()
    assert not (state / "master.db-wal").exists()
    assert start(state) == 3


def test_an_end_that_leaves_the_log_leaves_the_note(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: what is in the log alone is still needed."""

    def full(_: object) -> bool:
        raise StorageFull("no room")

    opened = open_state(str(state))
    commit(opened, range(3))
    with monkeypatch.context() as patch:
        patch.setattr(FarmStorage, "copy_log", full)
        patch.setattr(SqliteStorage, "_release", lambda _: None)
        opened.close()
    assert (state / "master.open").exists()
    opened.storage.close()
    (state / "master.db-wal").unlink(missing_ok=True)
    with pytest.raises(StorageCorrupt, match="is gone"):
        open_state(str(state))


def test_an_end_that_copies_the_log_after_all_takes_the_note_away(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> bool:
        raise StorageFull("no room")

    with closing(open_state(str(state))) as opened:
        commit(opened, range(3))
        monkeypatch.setattr(FarmStorage, "copy_log", full)
    monkeypatch.undo()
    assert start(state) == 3


def test_a_log_begins_anew_with_every_life(killed: Path) -> None:
    """Else a torn last transaction would leave older pages over newer ones that were copied already."""
    before = (killed / "master.db-wal").read_bytes()[16:24]
    with closing(open_state(str(killed))):
        data = (killed / "master.db-wal").read_bytes()
        assert data[16:24] != before
        commits = [
            at
            for at in range(32, len(data), 4120)
            if data[at + 8 : at + 16] == data[16:24] and any(data[at + 4 : at + 8])
        ]
        assert len(commits) == 1


WRITER = """
import sys
from drqueue.master.storage.statedir import open_state
from tests.master.test_storage import attempt, job
from drqueue.master.core.records import MetaRecord
def rows(n):
    return [job(1), *(attempt(1, n * 4 + k, text="x" * 3000) for k in range(4))]
opened = open_state(sys.argv[1])
opened.storage._connection.execute("PRAGMA wal_autocheckpoint=12")
for n in range(int(opened.storage.meta().get("n", "0")) + 1, 100000):
    opened.storage.commit([MetaRecord("n", str(n)), *rows(n)])
    print(n, flush=True)
"""


@pytest.mark.slow
def test_kill_9_of_a_writer_is_never_damage(state: Path) -> None:
    """Again and again on one state, whose log begins anew every few commits."""
    dice, last = random.Random(2), 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, state], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randrange(3, 60)):
                last = int(writer.stdout.readline() or last)
            writer.send_signal(signal.SIGKILL)
            said = writer.stdout.read().split("\n")[:-1]
        assert writer.returncode == -signal.SIGKILL
        last = int(said[-1]) if said else last
    with closing(open_state(str(state))) as opened:
        kept = int(opened.storage.meta()["n"])
        assert last <= kept <= last + 1
        for n in range(1, kept + 1):
            assert all(len(opened.storage.attempts(1, 0, n * 4 + k)) == 1 for k in range(4))


@pytest.mark.slow
def test_a_master_on_a_damaged_log_ends_with_a_sentence(killed: Path) -> None:
    data = bytearray((killed / "master.db-wal").read_bytes())
    data[32 + 100] ^= 1
    (killed / "master.db-wal").write_bytes(data)
    status, said = run_master(killed)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"drqueue-master: {killed}/master.db-wal is damaged at byte 32")
    os.unlink(killed / "master.db-wal")
    status, said = run_master(killed)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"drqueue-master: {killed}/master.db is damaged: what was saved last")
