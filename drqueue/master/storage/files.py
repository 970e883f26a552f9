"""The database's file beside what SQLite does with it: made for its owner alone; why it cannot be written."""

import errno
import os
import sqlite3
from typing import Final

from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.backups import NO_ROOM
from drqueue.statefile import sync_dir

#: SQLite takes some shorter files for empty databases.
_SMALLEST = 512

#: What the system says where no file can be opened for now.
NO_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def make_private(path: str) -> None:
    """Make the file where it is missing, for its owner alone; tighten an older one. A stump is refused."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        sync_dir(os.path.dirname(path))
    except FileExistsError:
        if not os.path.isfile(path):
            raise StorageError(f"cannot open {path}: it is no file") from None
        os.chmod(path, 0o600)
        if 0 < os.path.getsize(path) < _SMALLEST:
            raise StorageCorrupt(f"{path} is damaged: cut off") from None


def is_full(error: Exception, path: str) -> bool:
    """Does this error mean that there is no room?

    SQLite says so for ENOSPC only; of a quota or a size limit it says "disk I/O error", without the
    cause, which is found by trying to write a file as long as its own. If none can be opened, that is to
    be waited for first.
    """
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code != sqlite3.SQLITE_IOERR:
        return bool(code == sqlite3.SQLITE_FULL)
    probe = f"{path}.probe"
    try:
        with open(probe, "wb") as file:
            for name in (path, f"{path}-wal"):
                if os.path.exists(name):
                    os.pwrite(file.fileno(), b"\0" * 65536, os.path.getsize(name))
    except OSError as found:
        return found.errno in (*NO_ROOM, *NO_FILES)
    finally:
        if os.path.exists(probe):
            os.unlink(probe)
    return False
