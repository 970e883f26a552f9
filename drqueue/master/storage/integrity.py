"""Is the database what SQLite wrote?

Rules: a start never waits long for it, and never begins on rows that were not checked, but for the history of
attempts and the kept logs of a large farm: these the next backup checks, whole, which is then made at once.
"""

import sqlite3
from typing import Final

from drqueue.master.storage import StorageCorrupt

#: A file up to this size is checked whole at a start: it takes about a second.
WHOLE_BYTES: Final = 256 << 20
#: What grows with all that a farm ever did.
_HISTORY: Final = ("attempt", "log")


def check_integrity(connection: sqlite3.Connection, path: str) -> None:
    """Read every page, row and index entry; StorageCorrupt names the first thing that is wrong."""
    _check(connection, path, "1")


def check_start(connection: sqlite3.Connection, path: str, whole_bytes: int = WHOLE_BYTES) -> bool:
    """Check as much as a start has time for; was that all? StorageCorrupt as `check_integrity`."""
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size <= whole_bytes:
        check_integrity(connection, path)
        return True
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        if table not in _HISTORY:
            _check(connection, path, table)
    return False


def _check(connection: sqlite3.Connection, path: str, what: str) -> None:
    found = str(connection.execute(f"PRAGMA integrity_check({what})").fetchone()[0])
    if found != "ok":
        raise StorageCorrupt(f"{path} is damaged: {' '.join(found.split())[:150]}")
