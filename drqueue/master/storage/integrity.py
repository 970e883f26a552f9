"""Is the database what SQLite wrote, and are its rows what was written?

Rules: a start never waits long for it, and never begins on rows that were not checked, but for the history of
attempts and the kept logs of a large farm: these the next backup checks, whole, which is then made at once.
"""

import sqlite3
from typing import Final

from drqueue.master.storage import StorageCorrupt
from drqueue.master.storage.sums import TABLES, check_sums

#: A file up to this size is checked whole at a start: it takes some seconds at most.
WHOLE_BYTES: Final = 256 << 20
#: What grows with all that a farm ever did.
_HISTORY: Final = ("attempt", "log")


def check_integrity(connection: sqlite3.Connection, path: str) -> None:
    """Read every page, row and index entry; StorageCorrupt names the first thing that is wrong."""
    _check(connection, path, "1")


def check_start(
    connection: sqlite3.Connection, path: str, *, summed: bool = True, whole_bytes: int = WHOLE_BYTES
) -> bool:
    """Check as much as a start has time for; was that all? StorageCorrupt as `check_integrity`.

    `summed`: the rows have sums, which are proven, too.
    """
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size <= whole_bytes:
        check_integrity(connection, path)
        if summed:
            check_sums(connection, path)
        return True
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        if table not in _HISTORY:
            _check(connection, path, table)
    if summed:
        check_sums(connection, path, [table for table in TABLES if table not in _HISTORY])
    return False


def _check(connection: sqlite3.Connection, path: str, what: str) -> None:
    found = str(connection.execute(f"PRAGMA integrity_check({what})").fetchone()[0])
    if found != "ok":
        raise StorageCorrupt(f"{path} is damaged: {' '.join(found.split())[:150]}")
