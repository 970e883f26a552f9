"""Inputs of targets taken apart and put together: packets, records of spools, rows of databases."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from drqueue.master.storage import sums
from drqueue.slave import spool
from tests.fuzz import seeds
from tests.fuzz.mutate import unpacked


def bodies_of(stream: bytes) -> list[bytes]:
    """Bodies of packets; what is left at the end is one."""
    return _split(stream, 4, 4)


def records_of(data: bytes) -> list[bytes]:
    """Bodies of a spool's records."""
    return _split(data[len(seeds.HEADER) :], 8, 4)


def spool_of(bodies: Sequence[bytes]) -> bytes:
    """A spool of these records, with their checksums."""
    return seeds.HEADER + spool.framed_all(bodies)


def _split(data: bytes, prefix: int, length: int) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        start = at + prefix
        at = start + int.from_bytes(data[at : at + length], "big")
        found.append(data[start:at])
    return found


def files_of(data: bytes) -> tuple[bytes, bytes]:
    """farm.json and master.db: of rows by table, or of a database's bytes."""
    farm = b'{"farm": "' + b"f" * 32 + b'", "epoch": 3, "jobs": 10, "slaves": 10}'
    if data.startswith(b"SQLite"):
        return farm, data
    tables: Any = unpacked(data)
    if not isinstance(tables, dict):
        return farm, seeds.empty_database()
    given = tables.get("farm.json")
    return given if isinstance(given, bytes) else farm, _database(tables)


def _database(tables: dict[Any, Any]) -> bytes:
    """A whole database with such of these rows as its tables take."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.deserialize(seeds.empty_database())
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            rows = tables.get(table)
            for row in rows if isinstance(rows, list) else []:
                known = (
                    {name: value for name, value in row.items() if name in columns}
                    if isinstance(row, dict)
                    else {}
                )
                _insert(connection, table, known)
        _sum_up(connection)
        return connection.serialize()
    finally:
        connection.close()


def _sum_up(connection: sqlite3.Connection) -> None:
    """Sums that fit: else hardly a row would be looked at any closer."""
    sums.add_functions(connection)
    for table in sums.TABLES:
        *columns, _ = sums.summed_columns(connection, table)
        connection.execute(f"UPDATE {table} SET crc = row_sum('{table}', {', '.join(columns)})")


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    if not row:
        return
    marks = ", ".join("?" * len(row))
    try:
        connection.execute(
            f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
        )
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        return  # no table holds that
