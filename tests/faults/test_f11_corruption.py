"""F11: one bit of a master's state is another one. It is refused, at a start or by who reads it, or changes
nothing; never is a value served that was not written.

Bits are drawn from the pages of the database that are in use (as SQLite's dbstat tells, where it is compiled
in) and from all of its log. One class is by design: a flip in the last transaction of the log cannot be told
from a power cut that tore it; that one is left out, which is said, and all before it must be there.
"""

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from drqueue import log
from drqueue.master.core.records import (
    AccountRecord,
    AnyRecord,
    AttemptRecord,
    AuditRecord,
    FrameRecord,
    LayerRecord,
    LayerTotals,
    LogRecord,
    MetaRecord,
)
from drqueue.master.storage import StorageCorrupt, StorageError
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import open_state
from drqueue.master.storage.walcheck import Verdict
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import LogEnds
from drqueue.statefile import StateError
from tests.faults import levels
from tests.master.test_storage import job, slave, taken

JOBS, FRAMES = 10, 1000
DATABASE, LOG = "master.db", "master.db-wal"

pytestmark = pytest.mark.timeout(levels.timeout_s())


class State(NamedTuple):
    """A state directory as it lay there when a master was killed; what it says, and said before its last
    transaction."""

    folder: Path
    says: dict[str, Any]
    said: dict[str, Any]


def ended(job: int, number: int, nth: int, dice: Random, outcome: str = "done") -> AttemptRecord:
    began = 1.7e9 + dice.random() * 1e6
    return AttemptRecord(
        **{"job": job, "layer": 0, "frame": number - 1, "attempt": nth, "number": number, "slave": 1},
        **{"slave_name": "node", "assigned_at": began, "lease_s": 1800.0, "slot": dice.randrange(64)},
        **{"started_at": began + 0.2, "ended_at": began + 9.5, "outcome": outcome, "cpu_s": dice.random()},
        **{"code": 0 if outcome == "done" else 1, "peak_mb": 12.5},
    )


def rows_of(number: int, dice: Random) -> list[AnyRecord]:
    """A job of 1000 frames: some failed first, some wait, a few still run; the others are done."""
    rows: list[AnyRecord] = [job(number, user="anna")]
    done = IntervalSet()
    for frame in range(1, FRAMES + 1):
        match frame % 50:
            case 7:
                rows += [ended(number, frame, 1, dice, "failed"), ended(number, frame, 2, dice)]
                rows.append(FrameRecord(job=number, layer=0, frame=frame - 1, state="DONE", attempt=2, requeued=1))
            case 8 | 9:
                rows.append(ended(number, frame, 1, dice))
                rows.append(FrameRecord(job=number, layer=0, frame=frame - 1, state="DONE", attempt=1))
            case 10:
                rows.append(ended(number, frame, 1, dice, "failed"))
                rows.append(LogRecord(rows[-1].key, LogEnds(size=900, head=dice.randbytes(300), tail=b"end")))  # type: ignore[union-attr]
                rows.append(
                    FrameRecord(job=number, layer=0, frame=frame - 1, state="WAITING", attempt=1, avoid=(1,))
                )
            case 11:
                rows.append(ended(number, frame, 1, dice, ""))
                rows.append(FrameRecord(job=number, layer=0, frame=frame - 1, state="WAITING", attempt=1))
            case _:
                rows.append(ended(number, frame, 1, dice))
                done.add_range(frame - 1, frame)
    rows.append(LayerRecord(job=number, layer=0, done=done.packed()))
    return [*rows, LayerTotals(number, 0, FRAMES - 40, dice.random(), dice.random(), 40)]


def everything(storage: SqliteStorage) -> dict[str, Any]:
    """All that anybody can be told, and the core starts from."""
    says = taken(storage.load())
    for number in range(1, JOBS + 1):
        for frame in range(1, FRAMES + 1):
            rows = storage.attempts(number, 0, frame)
            says[f"{number}/{frame}"] = rows, [storage.log(row.key) for row in rows]
    says["audit"] = storage.audit(0, 1000)
    return says
