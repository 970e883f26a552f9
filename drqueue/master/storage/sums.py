"""A sum over each row, kept with it: it tells values that are not those that were written.

Rules: one function makes sums and proves them. A sum goes over the values of all columns, keys too, and the
table's name, so that a whole row is not taken for another one's. Values are summed as SQLite gives them back:
who writes a row makes numbers of REAL columns `real` and truths of INTEGER ones `int` before.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from drqueue.master.storage import StorageCorrupt

#: All tables. Their rows end with their sum.
TABLES: Final = (
    *("meta", "job", "layer", "frame", "attempt", "log", "slave", "forgotten", "account", "line", "audit"),
    *("limits", "share", "pool", "totals"),
)

Row = tuple[Any, ...]

_pack = msgspec.msgpack.Encoder().encode
_SEEDS: Final = {name: crc32(name.encode()) for name in TABLES}
#: What of a row is no part of its sum: a log's number is given to it by the table.
_NUMBERED: Final = frozenset({"log"})


def row_sum(table: str, row: Row) -> int:
    """The sum of a row without it: 32 bits, signed, as SQLite keeps them shortest."""
    return crc32(_pack(row), _SEEDS[table]) - 0x80000000


def real(value: float) -> float:
    """A number as a REAL column gives it back: no integer, and no zero with a sign."""
    return value + 0.0


def with_sum(table: str, row: Row) -> Row:
    """A row with its sum behind it."""
    return *row, row_sum(table, row)


def whole(table: str, row: Row) -> Row:
    """A row without the sum that stands at its end; ValueError where it does not fit."""
    values = row[:-1]
    if row[-1] != row_sum(table, values):
        raise ValueError(_unfit(table, values))
    return values


def add_functions(connection: sqlite3.Connection) -> None:
    """Let SQL make and prove sums: `row_sum(table, COLUMNS)` and `is_whole(table, COLUMNS AND SUM)`."""
    connection.create_function("row_sum", -1, _row_sum, deterministic=True)
    connection.create_function("is_whole", -1, _is_whole, deterministic=True)


def check_sums(connection: sqlite3.Connection, path: str, tables: Sequence[str] = TABLES) -> None:
    """Prove all rows of these tables; StorageCorrupt names the first that does not fit."""
    add_functions(connection)
    for table in tables:
        try:
            prove_sums(connection, table)
        except ValueError as error:
            raise StorageCorrupt(f"{path} is damaged: {error}") from error


def prove_sums(
    connection: sqlite3.Connection, table: str, where: str = "TRUE", values: Sequence[object] = ()
) -> None:
    """Prove the rows of a table that are meant; ValueError names the first that does not fit."""
    columns = ", ".join(summed_columns(connection, table))
    found = connection.execute(
        f"SELECT {columns} FROM {table} WHERE ({where}) AND NOT is_whole('{table}', {columns}) LIMIT 1",
        values,
    ).fetchone()
    if found is not None:
        raise ValueError(_unfit(table, found))


def summed_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """The columns that a sum is over, and at the end that which it is in."""
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return names[1:] if table in _NUMBERED else names


def _row_sum(table: str, *row: Any) -> int:
    return row_sum(table, row)


def _is_whole(table: str, *row: Any) -> bool:
    return bool(row[-1] == row_sum(table, row[:-1]))


def _unfit(table: str, row: Row) -> str:
    """Keys come first in all tables."""
    return f"the row of {table} that begins with {', '.join(map(str, row[:3]))[:60]} does not fit its sum"
