"""What a master starts from, read from the database.

Rules: frames come as they are asked for, everything else at once; no cursor stays open between them.
Rows are checked as they are read (`rows`), and `errors` turns what does not fit into a StorageError.
"""

import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager

from drqueue.master.core.records import AttemptRecord, DoneFrames, FrameRecord, Saved
from drqueue.master.storage.rows import (
    ATTEMPT_COLUMNS,
    read_account,
    read_attempt,
    read_audit,
    read_frame,
    read_job,
    read_layer,
    read_limit,
    read_line,
    read_meta,
    read_pool,
    read_share,
    read_slave,
    read_totals,
)
from drqueue.proto.intervals import IntervalSet

Errors = Callable[[str], AbstractContextManager[None]]

#: Frames read at once.
_FRAMES_AT_ONCE = 10_000

_OF_LIVE = "FROM attempt INDEXED BY attempt_live WHERE live = 1"
_LIVE = f"SELECT {ATTEMPT_COLUMNS} {_OF_LIVE} ORDER BY job, layer, number, attempt"

_IS_WHOLE = "is_whole('frame', job, layer, frame, state, attempt, requeued, avoid, returned, crc)"

_LAST_AUDITED = "SELECT * FROM audit ORDER BY id DESC LIMIT 1"

#: A row that says nothing else.
_ONLY_DONE = "state = 'DONE' AND requeued = 0 AND returned = 0 AND avoid = ''"


def load(connection: sqlite3.Connection, errors: Errors) -> Saved:
    """All that the core starts from."""
    with errors("read"):
        query = connection.execute
        jobs = [read_job(row) for row in query("SELECT * FROM job ORDER BY id")]
        layers = query("SELECT * FROM layer WHERE job IN (SELECT id FROM job) ORDER BY job, layer")
        totals = query("SELECT * FROM totals WHERE job IN (SELECT id FROM job) ORDER BY job, layer")
        shares = query("SELECT * FROM share ORDER BY sharer, name, pool")
        return Saved(
            meta=load_meta(connection),
            jobs=jobs,
            layers=[read_layer(row) for row in layers],
            frames=_frames(connection, errors, [job.id for job in jobs]),
            done=_done(connection, errors, [job.id for job in jobs]),
            live=_live(connection, {job.id for job in jobs}),
            totals=[read_totals(row) for row in totals],
            slaves=[read_slave(row) for row in query("SELECT * FROM slave ORDER BY id")],
            accounts=[read_account(row) for row in query("SELECT * FROM account ORDER BY id")],
            lines=[read_line(row) for row in query("SELECT * FROM line ORDER BY token_hash")],
            limits=[read_limit(row) for row in query("SELECT * FROM limits ORDER BY name")],
            shares=[read_share(row) for row in shares],
            pools=[read_pool(row) for row in query("SELECT * FROM pool ORDER BY name")],
            audited=max((read_audit(row).id for row in query(_LAST_AUDITED)), default=0),
        )


def load_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """The named values."""
    rows = map(read_meta, connection.execute("SELECT * FROM meta ORDER BY name"))
    return {row.name: row.value for row in rows}


def _live(connection: sqlite3.Connection, jobs: Container[int]) -> list[AttemptRecord]:
    """Attempts that live: all that their index names, though a large file's history was not checked."""
    live = [read_attempt(row) for row in connection.execute(_LIVE)]
    (named,) = connection.execute(f"SELECT count(*) {_OF_LIVE}").fetchone()
    if len(live) != named:
        raise ValueError(f"of {named} attempts that live {len(live)} are found")
    return [attempt for attempt in live if attempt.job in jobs]


def _frames(connection: sqlite3.Connection, errors: Errors, jobs: Iterable[int]) -> Iterator[FrameRecord]:
    for job in jobs:
        layer, frame = -1, -1
        while True:
            with errors("read"):
                rows = connection.execute(
                    f"SELECT * FROM frame WHERE job = ? AND (layer, frame) > (?, ?) AND NOT ({_ONLY_DONE}) "
                    "ORDER BY layer, frame LIMIT ?",
                    (job, layer, frame, _FRAMES_AT_ONCE),
                )
                batch = [read_frame(row) for row in rows]
            yield from batch
            if len(batch) < _FRAMES_AT_ONCE:
                break
            layer, frame = batch[-1].layer, batch[-1].frame


def _done(connection: sqlite3.Connection, errors: Errors, jobs: Iterable[int]) -> Iterator[DoneFrames]:
    for job in jobs:
        layer = -1
        while True:
            with errors("read"):
                following = "SELECT min(layer) FROM frame WHERE job = ? AND layer > ?"
                layer = connection.execute(following, (job, layer)).fetchone()[0]
                found = None if layer is None else _only_done(connection, job, layer)
            if found is None:
                break
            if found.positions:
                yield found


def _only_done(connection: sqlite3.Connection, job: int, layer: int) -> DoneFrames:
    """By stretches, since a start may meet a million of them."""
    found = IntervalSet()
    last, top = -1, 0
    while True:
        part = (
            "FROM (SELECT * FROM frame WHERE job = ? AND layer = ? AND frame > ? "
            f"AND {_ONLY_DONE} ORDER BY frame LIMIT ?)"
        )
        which = (job, layer, last, _FRAMES_AT_ONCE)
        many, first, last, highest, good = connection.execute(
            f"SELECT count(*), min(frame), max(frame), max(attempt), sum({_IS_WHOLE}) {part}", which
        ).fetchone()
        if not many:
            return DoneFrames(job, layer, found, top)
        if good != many:
            raise ValueError(f"a frame of {job}/{layer} from {first} to {last} does not fit its sum")
        top = max(top, highest)
        if last - first + 1 == many:
            found.add_range(first, last + 1)
            continue
        start = end = first
        for (frame,) in connection.execute(f"SELECT frame {part}", which):
            if frame != end:
                found.add_range(start, end)
                start = frame
            end = frame + 1
        found.add_range(start, end)
