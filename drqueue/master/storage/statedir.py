"""The master's state directory: its lock, its database, the farm's id and the master's epoch.

`farm.json` (see `farmfile`) beside `master.db` holds what a restored database must not take back.
Rules: an epoch is on the disk, in both, before anybody hears of it; a bound is raised before an id that
reaches it is handed out, by many ids at once; an account that ends is noted before that is committed, and
one that begins is struck off; where the two files contradict each other nothing is guessed. Lines, and nodes
that waited to be approved, do not come back with a backup: what was used up or rejected since would be good
again. The longest grant of time that slaves may still count on is noted before it is said to them.

`master.open` holds the epoch of a master that has not ended in good order. While it stands, `master.db-wal`
holds commits, or at least its last epoch; the database itself holds that epoch, too. So a log that is gone is
told from a database that was restored. A state of an older version has no such file, and is accepted.
"""

import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from drqueue import failpoints, log
from drqueue.master.core.holdback import JUST_NOW
from drqueue.master.core.holdback import ROW as META_RESTORED
from drqueue.master.core.records import AccountForget, AnyRecord, LineForget, MetaRecord
from drqueue.master.storage import StorageCorrupt, StorageError, StorageFull
from drqueue.master.storage.backups import NO_ROOM
from drqueue.master.storage.farmfile import (
    FARM_FILE,
    META_NEXT_JOB,
    META_NEXT_SLAVE,
    TOLD,
    FarmFile,
    reaching,
    read_farm,
    write_farm,
)
from drqueue.master.storage.files import NO_FILES
from drqueue.master.storage.sqlite import META_BACKUP, SqliteStorage, how_to_restore
from drqueue.master.storage.walcheck import Found, Verdict, check_files
from drqueue.statefile import StateError, lock_state_dir, read_json, sync_dir, write_json_atomic

DATABASE = "master.db"
OPEN_FILE = "master.open"
#: There while a backup takes the place of the database: see `restoring`.
RESTORING_FILE = "master.restoring"

#: Names of the farm's id and the epoch among the database's named values.
META_FARM = "farm"
META_EPOCH = "epoch"


class FarmStorage(SqliteStorage):
    """The database, whose commits keep the bounds in farm.json above the ids that they hand out."""

    def __init__(self, path: str, farm_path: str, open_path: str) -> None:
        """As its base, once the log is found good: raises StorageCorrupt where it is not."""
        self._farm_path = farm_path
        self._farm: FarmFile | None = None
        self._farm_turn = threading.Lock()
        self._open_path = open_path
        self._runs = False
        self._found = _look_at_log(path)
        try:
            super().__init__(path)
        except BaseException:
            self._forget_closed_log()
            raise

    def check_log_is_there(self, epoch: int) -> None:
        """Raise StorageCorrupt where this database, of that epoch, had a log that is gone."""
        if self._found.verdict is not Verdict.NOTHING:
            return
        opened = read_json(self._open_path)
        if opened is not None and opened.get("epoch") == epoch:
            raise StorageCorrupt(
                f"{self.path} is damaged: what was saved last is in {self.path}-wal, which is gone, though "
                f"the master did not end in good order: put it back; "
                f"{how_to_restore(self.path)}; or delete {self._open_path} to go on with what there is"
            )

    def run(self, farm: FarmFile) -> None:
        """Keep the farm's file, whose epoch is committed, and note that a master runs."""
        if not self.copy_log():
            raise StorageError(f"cannot save {self.path}: it is read meanwhile")
        self.keep(farm)
        # The log begins anew with this: a log whose pages the database has would harm it if it were torn.
        self.commit([MetaRecord(META_EPOCH, str(farm.epoch))])
        write_json_atomic(self._open_path, {"epoch": farm.epoch})
        self._runs = True

    def keep(self, farm: FarmFile) -> None:
        """Write farm.json; raises StateError. From now on its bounds are raised as ids go."""
        write_farm(self._farm_path, farm)
        self._farm = farm

    def note_grant(self, seconds: float, *, longest: bool = False) -> None:
        """See `OpenState`. May be called beside a commit. `longest`: a longer one that is noted stays."""
        with self._farm_turn:
            if self._farm is None:
                raise StorageError(f"{self._farm_path} is not kept yet")
            granted = max(seconds, self._farm.granted_s) if longest else seconds
            if granted != self._farm.granted_s:
                self._raise(replace(self._farm, granted_s=granted))

    def commit(self, records: Sequence[AnyRecord]) -> None:
        """Raise the bounds where these rows reach them, then write the rows."""
        if self._farm is not None and not TOLD.isdisjoint(map(type, records)):
            with self._farm_turn:
                farm = reaching(self._farm, records)
                if farm != self._farm:
                    self._raise(farm)
        super().commit(records)

    def _release(self) -> None:
        # SQLite removes the log as it closes: a kill at any moment must find it, or find the note gone. A log
        # that a killed master left goes, too, where a start is given up.
        if self._runs or self._found.verdict is not Verdict.NOTHING:
            try:
                # What is still being read holds the end of the log up until that is over, whenever that is.
                self.copy_log()
                self._forget_open()
            except StorageError as error:
                log.warning("the database's log stays beside it", why=error)
        super()._release()
        self._forget_closed_log()
        self._runs = False

    def _forget_closed_log(self) -> None:
        """Nobody need miss a log that was there and that SQLite took away, having copied it."""
        there = self._runs or self._found.verdict is not Verdict.NOTHING
        if there and not os.path.exists(f"{self.path}-wal"):
            self._forget_open()

    def _forget_open(self) -> None:
        try:
            os.unlink(self._open_path)
            sync_dir(os.path.dirname(self._open_path))
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cannot note that the master ended in good order", why=error)

    def _raise(self, farm: FarmFile) -> None:
        if failpoints.ACTIVE:
            failpoints.hit("bounds-before")
        try:
            self.keep(farm)
        except StateError as error:
            cause = error.__cause__
            full = isinstance(cause, OSError) and cause.errno in (*NO_ROOM, *NO_FILES)
            raise (StorageFull if full else StorageError)(str(error)) from error
        if failpoints.ACTIVE:
            failpoints.hit("bounds-after")


class OpenState(Struct, frozen=True):
    """What a master holds from start to end. `lock_fd` keeps the directory locked until it is closed.

    `restored`: the database is a copy of an earlier one, so ids go on above all that were reserved.
    `gone`: ids of accounts that ended, also of those that a copy knows as good.
    `granted_s`: the longest time in seconds for which an earlier master let slaves go on without one; 0.0:
    none that can still last. The database may be older than that grant.
    """

    farm: str
    epoch: int
    lock_fd: int
    storage: FarmStorage
    restored: bool = False
    gone: tuple[str, ...] = ()
    granted_s: float = 0.0

    def note_grant(self, seconds: float) -> None:
        """Note a grant, before any slave is told: the longest counts. Raises StorageError, StorageFull.

        Once it is noted, a start says so until `forget_grant`. From any thread.
        """
        self.storage.note_grant(seconds, longest=True)

    def forget_grant(self) -> None:
        """Strike off what was granted: no slave counts on it any more. Raises as `note_grant`."""
        self.storage.note_grant(0.0)

    def close(self) -> None:
        """Release the database, then the directory."""
        self.storage.close()
        os.close(self.lock_fd)


def open_state(state_dir: str) -> OpenState:
    """Lock the directory, open the database and take the next epoch; raises StateError, StorageError."""
    lock_fd = lock_state_dir(state_dir, "master")
    try:
        storage = _open(state_dir)
        try:
            farm, restored = _next_epoch(os.path.join(state_dir, FARM_FILE), storage)
        except BaseException:
            storage.close()
            raise
    except BaseException:
        os.close(lock_fd)
        raise
    return OpenState(farm.farm, farm.epoch, lock_fd, storage, restored, farm.gone, farm.granted_s)


@contextmanager
def open_stopped(state_dir: str) -> Iterator[FarmStorage]:
    """The database of a master that does not run, locked; its epoch stays. Raises as `open_state`.

    As it is closed, its log is in it, as after a master that ended in good order.
    """
    lock_fd = lock_state_dir(state_dir, "backup")
    try:
        storage = _open(state_dir)
        try:
            meta = storage.meta()
            if not meta.get(META_BACKUP):
                storage.check_log_is_there(_number(storage.path, meta, META_EPOCH))
            yield storage
        finally:
            storage.close()
    finally:
        os.close(lock_fd)


def _open(state_dir: str) -> FarmStorage:
    restoring = os.path.join(state_dir, RESTORING_FILE)
    begun = read_json(restoring)
    if begun is not None:
        raise StateError(
            f"a restore into {state_dir} was cut short: say `drqueue-master restore {begun.get('backup')}` "
            "again, with the same settings"
        )
    paths = [os.path.join(state_dir, name) for name in (DATABASE, FARM_FILE, OPEN_FILE)]
    return FarmStorage(*paths)


def _next_epoch(path: str, storage: FarmStorage) -> tuple[FarmFile, bool]:
    """The farm with the epoch after the highest of both places, written to both; was it restored?"""
    meta = storage.meta()
    saved = read_farm(path)
    if saved is None:
        if meta:
            raise StateError(
                f"{path} is missing, which tells the highest epoch handed out: put it back, or write "
                f'{{"farm": "{meta.get(META_FARM, "")}", "epoch": N}} into it, with N surely above that'
            )
        saved = FarmFile(secrets.token_hex(16), 0)
        write_farm(path, saved)
    if META_FARM not in meta and saved.epoch > 0:
        raise StateError(
            f"{storage.path} is empty, but {path} says that this farm has run before: "
            f"{how_to_restore(storage.path)}; or move {path} away to begin a new farm"
        )
    if meta.get(META_FARM, saved.farm) != saved.farm:
        raise StateError(
            f"{storage.path} belongs to another farm than {path}: put back the one that is missing"
        )
    epoch, jobs, slaves = (
        _number(storage.path, meta, name) for name in (META_EPOCH, META_NEXT_JOB, META_NEXT_SLAVE)
    )
    if not meta.get(META_BACKUP):
        storage.check_log_is_there(epoch)
    # A backup says so itself; a file that was copied by hand has missed at least the start after it.
    restored = bool(meta.get(META_BACKUP)) or epoch < saved.epoch
    farm = FarmFile(
        saved.farm,
        max(saved.epoch, epoch) + 1,
        max(saved.jobs, jobs),
        max(saved.slaves, slaves),
        saved.gone,
        saved.granted_s,
    )
    records: list[AnyRecord] = [MetaRecord(META_FARM, farm.farm), MetaRecord(META_EPOCH, str(farm.epoch))]
    if restored:
        records += [
            MetaRecord(META_NEXT_JOB, str(farm.jobs)),
            MetaRecord(META_NEXT_SLAVE, str(farm.slaves)),
            MetaRecord(META_BACKUP, ""),
            MetaRecord(META_RESTORED, JUST_NOW),
        ]
        rows = storage.load()
        records += [LineForget(line.token_hash) for line in rows.lines]
        records += [AccountForget(account.id) for account in rows.accounts if account.pending]
    storage.commit(records)
    if failpoints.ACTIVE:
        failpoints.hit("epoch-within")
    storage.run(farm)
    return farm, restored


def _look_at_log(path: str) -> Found:
    """Judge the log before SQLite opens it; raises StorageError, StorageCorrupt."""
    try:
        found = check_files(path)
    except OSError as error:
        raise StorageError(f"cannot read {path}-wal: {error.strerror}") from error
    if found.verdict is Verdict.DAMAGED:
        raise StorageCorrupt(
            f"{path}-wal is damaged at byte {found.at}, and what was saved behind it would be lost; "
            f"{how_to_restore(path)}"
        )
    if found.verdict is Verdict.TORN:
        log.warning(
            "the last transaction in the database's log is not whole and was left out: so a power cut leaves "
            "one that nobody was told of; if there was none, look at the disk",
            file=f"{path}-wal",
            byte=found.at,
        )
    return found


def _number(path: str, meta: Mapping[str, str], name: str) -> int:
    try:
        return int(meta.get(name, "0"))
    except ValueError as error:
        raise StorageCorrupt(f"{path} is damaged: {name} {meta[name]!r}") from error
