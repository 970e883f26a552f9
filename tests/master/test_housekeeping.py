"""When backups are made and old things go, on a virtual clock."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from drqueue.master.core.records import AuditRecord, LogRecord
from drqueue.master.history import History
from drqueue.master.housekeeping import AGAIN_S, FIRST_BACKUP_S, HISTORY_S, LOGS_S, Housekeeping
from drqueue.master.storage import Storage, StorageCorrupt, StorageError, StorageFull
from drqueue.master.storage.backups import BACKUPS
from drqueue.master.storage.memory import MemoryStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LogEnds
from drqueue.settings import MasterSettings
from tests.master.test_storage import attempt, job

WALL = 1_800_000_000.0
HOUR = 3600.0


class Here(History):
    """Without threads, which virtual clocks do not wait for."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._on = storage

    async def read(self, ask: Callable[[Storage], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return ask(self._on)

    beside = read


class Copying(MemoryStorage):
    """Notes when a backup is made, or fails as told."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[float] = []
        self.tried = 0
        self.trouble: StorageError | None = None
        self.purged: list[float] = []

    def backup(self, path: str) -> None:
        self.tried += 1
        if self.trouble is not None:
            raise self.trouble
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()
        self.made.append(trio.current_time())

    def purge(self, before_wall: float, limit: int) -> int:
        self.purged.append(trio.current_time())
        if self.trouble is not None:
            raise self.trouble
        return super().purge(before_wall, limit)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory, whose wall clock goes with the virtual one."""
    monkeypatch.setattr("drqueue.master.housekeeping.time", lambda: WALL + trio.current_time())
    (tmp_path / "master.db").touch()
    return tmp_path


def keeping(state: Path, storage: Storage, **settings: Any) -> Housekeeping:
    today = lambda: WALL + trio.current_time()  # noqa: E731
    return Housekeeping(MasterSettings(state_dir=str(state), **settings), Here(storage), today)


async def backups_within(state: Path, seconds: float, storage: Copying, **settings: Any) -> list[float]:
    """When backups are made within that time, in seconds from now."""
    begun = trio.current_time()
    with trio.move_on_after(seconds):
        await keeping(state, storage, **settings).backups()
    return [round(when - begun) for when in storage.made]


async def test_a_farm_without_a_backup_gets_one_soon_and_then_at_its_pace(
    state: Path, autojump_clock: trio.testing.MockClock
) -> None:
    made = await backups_within(state, 50 * HOUR, Copying(), backups_keep=2)
    assert made == [FIRST_BACKUP_S, FIRST_BACKUP_S + 24 * HOUR, FIRST_BACKUP_S + 48 * HOUR]
    assert len(os.listdir(state / BACKUPS)) == 2


@pytest.mark.parametrize(("age_h", "first_h"), [(0.0, 24.0), (20.0, 4.0), (23.999, 0.0), (30.0, 0.0)])
async def test_a_restart_neither_hurries_nor_forgets_the_next_one(
    state: Path, autojump_clock: trio.testing.MockClock, age_h: float, first_h: float
) -> None:
    folder = state / BACKUPS
    folder.mkdir()
    newest = folder / "master-20270101-000000.db"
    newest.touch()
    made_at = WALL + trio.current_time() - age_h * HOUR
    os.utime(newest, (made_at, made_at))
    made = await backups_within(state, 25 * HOUR, Copying())
    assert made[0] == pytest.approx(max(first_h * HOUR, FIRST_BACKUP_S), abs=1)


async def test_none_by_itself_where_it_is_off_but_on_demand(
    state: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    storage = Copying()
    housekeeping = keeping(state, storage, backup_hours=0)
    nursery.start_soon(housekeeping.backups)
    await trio.sleep(1000 * HOUR)
    assert storage.made == []
    for count in (1, 2):
        housekeeping.back_up_now()
        await trio.testing.wait_all_tasks_blocked()
        assert len(storage.made) == count
    await trio.sleep(1000 * HOUR)
    assert storage.tried == 2


async def test_one_on_demand_is_made_at_once(
    state: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Even in the first minute, and however often it was asked for meanwhile; the next is a day later."""
    storage = Copying()
    housekeeping = keeping(state, storage)
    nursery.start_soon(housekeeping.backups)
    await trio.testing.wait_all_tasks_blocked()
    begun = trio.current_time()
    for _ in range(3):
        housekeeping.back_up_now()
    await trio.sleep(47 * HOUR)
    assert [round(when - begun) for when in storage.made] == [0, 24 * HOUR]


@pytest.mark.parametrize("trouble", [StorageFull("no room"), StorageCorrupt("damaged"), StorageError("odd")])
async def test_a_backup_that_fails_is_said_and_tried_again(
    state: Path,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    trouble: StorageError,
) -> None:
    said: list[object] = []
    monkeypatch.setattr("drqueue.log.error", lambda text, **fields: said.append((text, fields["why"])))
    storage = Copying()
    storage.trouble = trouble
    nursery.start_soon(keeping(state, storage).backups)
    await trio.sleep(FIRST_BACKUP_S + 2 * AGAIN_S + 1)
    assert storage.tried == 3
    assert said == [("backup failed", trouble)] * 3
    storage.trouble = None
    await trio.sleep(AGAIN_S)
    assert len(storage.made) == 1


async def test_logs_go_within_a_minute_and_history_within_an_hour(
    state: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    storage = Copying()
    storage.commit([job(1)])
    nursery.start_soon(keeping(state, storage, logs_keep_mb=1).purge)
    await trio.sleep(1)
    rows = [attempt(1, 1, n, outcome="failed", ended_at=5.0) for n in range(1, 5)]
    storage.commit([*rows, *(LogRecord(row.key, LogEnds(size=1, head=bytes(400_000))) for row in rows)])
    await trio.sleep(LOGS_S)
    assert [n for n in range(1, 5) if storage.log(AttemptKey(1, 0, 0, n))] == [3, 4]
    assert len(storage.attempts(1, 0, 1)) == 4
    await trio.sleep(HISTORY_S)
    assert [row.attempt for row in storage.attempts(1, 0, 1)] == [4]


async def test_a_full_disk_ends_no_purge(
    state: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    storage = Copying()
    storage.trouble = StorageFull("no room")
    nursery.start_soon(keeping(state, storage).purge)
    await trio.sleep(10 * LOGS_S + 1)
    assert len(storage.purged) == 11
    storage.trouble = None
    await trio.sleep(2 * HISTORY_S)
    assert len(storage.purged) in (12, 13)


async def test_the_audit_goes_at_its_own_age(
    state: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    storage = Copying()
    now = WALL + trio.current_time()
    ages = (0.0, 6.9, 7.1, 300.0)
    storage.commit(
        [
            AuditRecord(id=n, at=now - age * 86400, who="w", role="admin", peer="p", what="x", outcome="done")
            for n, age in enumerate(reversed(ages), 1)
        ]
    )
    nursery.start_soon(keeping(state, storage, audit_days=7).purge)
    await trio.sleep(1)
    assert [row.id for row in storage.audit(0, 100)] == [3, 4]
    await trio.sleep(0.2 * 86400)
    assert [row.id for row in storage.audit(0, 100)] == [4]


async def test_f8_what_is_old_goes_by_the_date_that_is_believed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Whatever the wall clock says: this machine's is years ahead of the one that the core believes."""
    storage = Copying()
    storage.commit([job(1)])
    rows = [attempt(1, 1, n, outcome="failed", ended_at=1e6 + n * 86400) for n in range(1, 5)]
    audit = [
        AuditRecord(id=n, at=1e6 + n * 86400, who="w", role="admin", peer="p", what="x", outcome="done")
        for n in range(1, 5)
    ]
    storage.commit([*rows, *audit])
    today = [1e6 + 5 * 86400]
    settings = MasterSettings(state_dir=str(tmp_path), history_days=10, audit_days=10)
    nursery.start_soon(Housekeeping(settings, Here(storage), lambda: today[0]).purge)
    await trio.sleep(2 * HISTORY_S)
    assert len(storage.attempts(1, 0, 1)) == len(storage.audit(0, 100)) == 4
    today[0] += 7.5 * 86400
    await trio.sleep(HISTORY_S)
    assert [row.id for row in storage.audit(0, 100)] == [3, 4]
    assert [row.attempt for row in storage.attempts(1, 0, 1)] == [3, 4]
