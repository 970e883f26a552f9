"""The master's state directory: its lock, its database, the farm's id and the master's epoch.

`farm.json` beside `master.db` holds the farm's random id and the highest epoch handed out; the database
holds both too, so that a restored database cannot bring an old epoch back. Rules: an epoch is on the
disk, in both, before anybody hears of it; where the two contradict each other nothing is guessed.
"""

import os
import secrets

from msgspec import Struct

from drqueue.master.core.records import MetaRecord
from drqueue.master.storage import StorageCorrupt
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.statefile import StateError, lock_state_dir, read_json, write_json_atomic

DATABASE = "master.db"
FARM_FILE = "farm.json"

#: Names of the farm's id and the epoch among the database's named values.
META_FARM = "farm"
META_EPOCH = "epoch"


class OpenState(Struct, frozen=True):
    """What a master holds from start to end. `lock_fd` keeps the directory locked until it is closed."""

    farm: str
    epoch: int
    lock_fd: int
    storage: SqliteStorage

    def close(self) -> None:
        """Release the database, then the directory."""
        self.storage.close()
        os.close(self.lock_fd)


def open_state(state_dir: str) -> OpenState:
    """Lock the directory, open the database and take the next epoch; raises StateError, StorageError."""
    lock_fd = lock_state_dir(state_dir, "master")
    try:
        storage = SqliteStorage(os.path.join(state_dir, DATABASE))
        try:
            farm, epoch = _next_epoch(os.path.join(state_dir, FARM_FILE), storage)
        except BaseException:
            storage.close()
            raise
    except BaseException:
        os.close(lock_fd)
        raise
    return OpenState(farm, epoch, lock_fd, storage)


def _next_epoch(path: str, storage: SqliteStorage) -> tuple[str, int]:
    """The farm's id and the epoch after the highest of both places, written to both."""
    meta = storage.meta()
    saved = _read_farm(path)
    if saved is None:
        if meta:
            raise StateError(
                f"{path} is missing, which tells the highest epoch handed out: put it back, or write "
                f'{{"farm": "{meta.get(META_FARM, "")}", "epoch": N}} into it, with N surely above that'
            )
        saved = (secrets.token_hex(16), 0)
        write_json_atomic(path, {"farm": saved[0], "epoch": 0})
    farm, highest = saved
    if META_FARM not in meta and highest > 0:
        raise StateError(
            f"{storage.path} is empty, but {path} says that this farm has run before: copy the latest backup "
            f"over it, or move {path} away to begin a new farm"
        )
    if meta.get(META_FARM, farm) != farm:
        raise StateError(
            f"{storage.path} belongs to another farm than {path}: put back the one that is missing"
        )
    try:
        epoch = max(highest, int(meta.get(META_EPOCH, "0"))) + 1
    except ValueError as error:
        raise StorageCorrupt(f"{storage.path} is damaged: epoch {meta[META_EPOCH]!r}") from error
    storage.commit([MetaRecord(META_FARM, farm), MetaRecord(META_EPOCH, str(epoch))])
    write_json_atomic(path, {"farm": farm, "epoch": epoch})
    return farm, epoch


def _read_farm(path: str) -> tuple[str, int] | None:
    """The farm's id and the highest epoch that the file names, None where there is no file."""
    value = read_json(path)
    if value is None:
        return None
    farm, epoch = value.get("farm"), value.get("epoch")
    if not isinstance(farm, str) or not farm or type(epoch) is not int or epoch < 0:
        raise StateError(f"{path} is damaged: it must hold a farm's id and an epoch; restore it")
    return farm, epoch
