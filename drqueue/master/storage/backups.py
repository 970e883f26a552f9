"""The folder of backups beside the database: how they are named, which is the newest, which go.

Rules: only files named as `NAMES` says are ever removed; what somebody else put there stays. Times in
names are UTC, so that they sort through the change of the clocks.
"""

import errno
import os
import re
import secrets
import time
from typing import Final

from drqueue.master.storage import Storage, StorageError, StorageFull

BACKUPS: Final = "backups"
NAMES: Final = re.compile(r"master-\d{8}-\d{6}\.db")
#: Made for somebody who takes them away at once: they are no part of the rotation.
ASKED: Final = re.compile(r"asked-[0-9a-f]{8}\.db(\.new)?")
#: What nobody took away for so long (seconds) is left by somebody who was killed.
_ASKED_S: Final = 3600.0

#: What the system says where there is no room.
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: A backup must leave this much, since it shares the disk with the database that must grow.
_LEAVE_BYTES: Final = 64 << 20


def latest_backup(database: str) -> str | None:
    """The newest whole copy of a database: a backup, or what was kept before a migration."""
    folder, name = os.path.split(database)
    found = [os.path.join(folder, n) for n in _names(folder) if n.startswith(f"{name}.before-")]
    backups = os.path.join(folder, BACKUPS)
    found += [os.path.join(backups, n) for n in _names(backups) if not ASKED.fullmatch(n)]
    return max((p for p in found if not p.endswith(".new")), key=os.path.getmtime, default=None)


def age_s(database: str, wall: float) -> float | None:
    """Seconds since the newest backup was made; None where there is none. A time to come counts as now."""
    folder = os.path.join(os.path.dirname(database), BACKUPS)
    times = [os.path.getmtime(os.path.join(folder, name)) for name in _ours(folder)]
    return max(wall - max(times), 0.0) if times else None


def make_backup(storage: Storage, database: str, keep: int, wall: float) -> str:
    """Back up to a new file, then remove the oldest beyond `keep`; its path. Raises StorageError."""
    folder = os.path.join(os.path.dirname(database), BACKUPS)
    path = os.path.join(folder, time.strftime("master-%Y%m%d-%H%M%S.db", time.gmtime(wall)))
    try:
        # Left by a master that was killed in the middle of one.
        _remove(folder, [n for n in _names(folder) if n.endswith(".new") and NAMES.fullmatch(n[:-4])])
        _check_room(database, path)
        storage.backup(path)
        # Whatever the clock says, the new one stays.
        older = [name for name in _ours(folder) if name != os.path.basename(path)]
        _remove(folder, older[: max(len(older) + 1 - keep, 0)])
    except OSError as error:
        kind = StorageFull if error.errno in NO_ROOM else StorageError
        raise kind(f"cannot back up to {path}: {error.strerror or error}") from error
    return path


def make_asked(storage: Storage, database: str, wall: float) -> tuple[str, int]:
    """Back up to a new file that somebody waits for; its name and bytes. Raises StorageError."""
    folder = os.path.join(os.path.dirname(database), BACKUPS)
    path = os.path.join(folder, f"asked-{secrets.token_hex(4)}.db")
    try:
        left = [name for name in _names(folder) if ASKED.fullmatch(name)]
        _remove(folder, [name for name in left if _age_s(folder, name, wall) > _ASKED_S])
        _check_room(database, path)
        storage.backup(path)
        return os.path.basename(path), os.path.getsize(path)
    except OSError as error:
        kind = StorageFull if error.errno in NO_ROOM else StorageError
        raise kind(f"cannot back up to {path}: {error.strerror or error}") from error


def _age_s(folder: str, name: str, wall: float) -> float:
    """0 for a file that somebody takes away just now."""
    try:
        return wall - os.path.getmtime(os.path.join(folder, name))
    except FileNotFoundError:
        return 0.0


def _check_room(database: str, path: str) -> None:
    disk = os.statvfs(os.path.dirname(database))
    wanted = os.path.getsize(database) + _LEAVE_BYTES
    free = disk.f_bavail * disk.f_frsize
    if free < wanted:
        raise StorageFull(
            f"cannot back up to {path}: {wanted >> 20} MiB must be free, and {free >> 20} MiB are"
        )


def _ours(folder: str) -> list[str]:
    """Names of our backups, oldest first."""
    return sorted(name for name in _names(folder) if NAMES.fullmatch(name))


def _remove(folder: str, names: list[str]) -> None:
    for name in names:
        os.unlink(os.path.join(folder, name))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError:
        return []
