"""A backup takes the place of the database, in the state directory of a master that is stopped.

Rules: the backup is copied and checked before anything is touched, and what was there is kept beside it. The
log goes first: SQLite would replay it into whatever database lies beside it. From before that until all is
done there is `master.restoring`, with which no master starts; the same restore again then finishes it. What
farm.json says is never guessed.
"""

import os
import shutil
import sqlite3
import stat
from typing import Final, NamedTuple

from msgspec.structs import replace

from drqueue.master.storage import StorageCorrupt, StorageError, StorageFull
from drqueue.master.storage.backups import NO_ROOM
from drqueue.master.storage.farmfile import (
    FARM_FILE,
    META_NEXT_JOB,
    META_NEXT_SLAVE,
    UNKNOWN_GRANT_S,
    FarmFile,
    read_farm,
    write_farm,
)
from drqueue.master.storage.integrity import check_integrity
from drqueue.master.storage.loading import load_meta
from drqueue.master.storage.migrations import MIGRATIONS, SUMMED_SINCE, check_owner
from drqueue.master.storage.rows import meta_statement
from drqueue.master.storage.sqlite import META_BACKUP
from drqueue.master.storage.statedir import (
    DATABASE,
    META_EPOCH,
    META_FARM,
    OPEN_FILE,
    RESTORING_FILE,
)
from drqueue.master.storage.sums import check_sums
from drqueue.statefile import StateError, lock_state_dir, read_json, sync_dir, write_json_atomic

#: Where farm.json is lost, nobody knows which ids were handed out since the backup: so many are skipped.
LEAP: Final = 100_000

#: What SQLite puts beside a database, and would replay into another one of that name.
_BESIDE: Final = ("-wal", "-journal", "-shm")
_OLD_MARK: Final = f"INSERT OR REPLACE INTO meta VALUES ('{META_BACKUP}', 'yes')"


class Restored(NamedTuple):
    """`kept`: where the database lies that was there, "" where there was none. `epoch`: the highest yet."""

    farm: str
    epoch: int
    kept: str


class _Look(NamedTuple):
    farm: str
    epoch: int
    jobs: int
    slaves: int


def restore(state_dir: str, backup: str, epoch_above: int | None = None) -> Restored:
    """Put a backup in the place of the database. Raises StateError, StorageError: nothing was changed then,
    or `master.restoring` is there.

    `epoch_above`: an epoch that is surely above all that were handed out, for where farm.json is lost.
    """
    database = os.path.join(state_dir, DATABASE)
    _check_file(backup, database)
    try:
        lock = lock_state_dir(state_dir, "restore")
    except StateError as error:
        raise StateError(f"{error}: a backup is restored while no master runs") from error
    try:
        return _restore(state_dir, backup, database, epoch_above)
    except OSError as error:
        full = error.errno in NO_ROOM
        why = f"cannot restore {backup} into {state_dir}: {error.strerror or error}"
        raise (StorageFull if full else StorageError)(why) from error
    finally:
        os.close(lock)


def _check_file(backup: str, database: str) -> None:
    try:
        if not stat.S_ISREG(os.stat(backup).st_mode):
            raise StorageError(f"cannot restore {backup}: it is no file")
        if os.path.exists(database) and os.path.samefile(backup, database):
            raise StorageError(f"{backup} is the database itself: name a backup of it")
    except OSError as error:
        raise StorageError(f"cannot read {backup}: {error.strerror}") from error
    for end in _BESIDE[:2]:
        if os.path.exists(f"{backup}{end}") and os.path.getsize(f"{backup}{end}"):
            raise StorageError(
                f"{backup} is only a part of what was copied: {backup}{end} belongs to it; take a backup "
                "that drqueue-master made"
            )


def _restore(state_dir: str, backup: str, database: str, epoch_above: int | None) -> Restored:
    arriving = f"{database}.new"
    farm_path, restoring = os.path.join(state_dir, FARM_FILE), os.path.join(state_dir, RESTORING_FILE)
    _remove(arriving)
    try:
        _copy(backup, arriving, state_dir)
        look = _checked(arriving, backup)
        farm = _farm(farm_path, look, backup, epoch_above)
        # Said again after it was cut short, it goes on where that came to.
        number = _number(restoring, database)
        write_json_atomic(restoring, {"backup": os.path.abspath(backup), "number": number})
        _give_to_owner(state_dir, RESTORING_FILE)
    except BaseException:
        _remove(arriving)
        raise
    # Written before the database is there: as soon as it is, its jobs may be held back by what this says.
    write_farm(farm_path, farm)
    kept = _make_way(database, number)
    os.rename(arriving, database)
    sync_dir(state_dir)
    for name in (OPEN_FILE, RESTORING_FILE):
        _remove(os.path.join(state_dir, name))
    sync_dir(state_dir)
    _give_to_owner(state_dir, FARM_FILE, "lock")
    return Restored(farm.farm, farm.epoch, kept)


def _copy(backup: str, path: str, state_dir: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as target:
        try:
            source = open(backup, "rb")  # noqa: SIM115  (closed below)
        except OSError as error:
            raise StorageError(f"cannot read {backup}: {error.strerror}") from error
        with source:
            shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(fd)
    _give_to_owner(state_dir, os.path.basename(path))


def _checked(path: str, backup: str) -> _Look:
    """What the copy says, once it is proven whole and marked as a backup."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            version = check_owner(connection, backup, len(MIGRATIONS))
            if not version:
                raise StorageError(f"{backup} is empty")
            connection.execute("PRAGMA journal_mode=DELETE")
            check_integrity(connection, backup)
            if version >= SUMMED_SINCE:
                check_sums(connection, backup)
                meta = load_meta(connection)
                connection.execute(*meta_statement(META_BACKUP, "yes"))
            else:
                meta = dict(connection.execute("SELECT name, value FROM meta"))
                connection.execute(_OLD_MARK)
            farm = meta.get(META_FARM, "")
            numbers = [int(meta.get(name, "0")) for name in (META_EPOCH, META_NEXT_JOB, META_NEXT_SLAVE)]
        finally:
            connection.close()
    except StorageCorrupt as error:
        raise StorageCorrupt(f"{error}; nothing was changed: take another backup") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise StorageFull(f"cannot restore {backup} into {path}: {error}") from error
        raise StorageCorrupt(
            f"{backup} is damaged: {error}; nothing was changed: take another backup"
        ) from error
    except ValueError as error:
        raise StorageCorrupt(f"{backup} is damaged: {error}; nothing was changed") from error
    if not farm:
        raise StorageError(f"{backup} is of no farm: no master ever ran on it")
    return _Look(farm, *numbers)


def _farm(path: str, look: _Look, backup: str, epoch_above: int | None) -> FarmFile:
    """What farm.json is to say: an epoch above all before, whatever became of it."""
    saved = read_farm(path)
    if saved is None:
        if epoch_above is None:
            raise StateError(
                f"{path} is missing, which tells the highest epoch handed out: put it back, or say "
                f"--farm-epoch-above N, with N surely above that (the backup is of epoch {look.epoch})"
            )
        leapt = LEAP + look.jobs, LEAP + look.slaves
        return FarmFile(look.farm, max(look.epoch, epoch_above) + 1, *leapt, granted_s=UNKNOWN_GRANT_S)
    if saved.farm != look.farm:
        raise StateError(f"{backup} is of farm {look.farm[:8]}, and {path} of farm {saved.farm[:8]}")
    return replace(saved, epoch=max(saved.epoch, look.epoch, epoch_above or 0) + 1)


def _number(restoring: str, database: str) -> int:
    """By which number what is there is kept: one that is free, or that of a restore that was cut short."""
    begun = read_json(restoring) or {}
    number = begun.get("number", 0)
    if isinstance(number, int) and number > 0 and not os.path.lexists(f"{database}.replaced-{number}"):
        return number
    number = 1
    while any(os.path.lexists(f"{database}.replaced-{number}{end}") for end in ("", *_BESIDE)):
        number += 1
    return number


def _make_way(database: str, number: int) -> str:
    """Move the database and, first, its log aside; where it lies now, or ""."""
    kept = f"{database}.replaced-{number}"
    for end in (*_BESIDE, ""):
        if os.path.lexists(f"{database}{end}"):
            os.rename(f"{database}{end}", f"{kept}{end}")
    return kept if os.path.lexists(kept) else ""


def _give_to_owner(state_dir: str, *names: str) -> None:
    """What root writes here is the master's, which may run as another user."""
    if os.geteuid() == 0:
        owner = os.stat(state_dir)
        for name in names:
            os.chown(os.path.join(state_dir, name), owner.st_uid, owner.st_gid)


def _remove(path: str) -> None:
    for end in ("", *_BESIDE):
        if os.path.lexists(f"{path}{end}"):
            os.unlink(f"{path}{end}")
