"""Rows of the database, to and from records.

Rules: what is read is checked, and raises ValueError or msgspec's errors where it does not fit, never a
default; tuples stand in the order of the tables' columns (`migrations`); structured values are msgpack.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import msgspec

from drqueue.master.core.records import (
    AccountRecord,
    AttemptRecord,
    AuditRecord,
    FrameRecord,
    JobRecord,
    LayerRecord,
    LayerTotals,
    LimitRecord,
    LineRecord,
    LogRecord,
    MetaRecord,
    PoolRecord,
    ShareRecord,
    SlaveRecord,
)
from drqueue.proto.model import JobSpec, Limit, LimitsChange, MachineInfo, Offers, Share, SlaveLimits

#: What `attempt.rest` holds, in this order, for ever, which is the record's: new fields come at the end, and
#: have a default. What stands in a column is nil, and the last ones are left out where they say nothing.
ATTEMPT_FIELDS: Final = (
    *("job", "layer", "frame", "attempt", "number", "slave", "slave_name", "assigned_at", "cores"),
    *("memory_mb", "lease_s", "on_unreachable", "stop", "again", "orphan", "started_at", "ended_at"),
    *("outcome", "code", "signal", "reason", "text", "cpu_s", "peak_mb", "log_bytes", "step", "count"),
    *("slot", "eligible_at", "gpus", "disk_mb", "amounts", "limits"),
)
_AT_COLUMNS: Final = ("outcome", "started_at", "ended_at", "cpu_s")

_FRAME_STATES = frozenset({"WAITING", "DONE", "FAILED", "CANCELLED"})
_pack = msgspec.msgpack.Encoder().encode
#: For rows that come by the thousand: sqlite3 would look for an adapter of `bytes` (and of bool), which costs
#: more than a copy.
_blob = bytearray
_unpack = msgspec.msgpack.Decoder().decode
_read_spec = msgspec.msgpack.Decoder(JobSpec).decode
_read_machine = msgspec.msgpack.Decoder(MachineInfo).decode
_read_limits = msgspec.msgpack.Decoder(SlaveLimits).decode
_read_wish = msgspec.msgpack.Decoder(LimitsChange).decode
_read_offers = msgspec.msgpack.Decoder(Offers).decode

Row = tuple[Any, ...]
_Kind = TypeVar("_Kind", bound=msgspec.Struct)

#: What `read_attempt` takes.
ATTEMPT_COLUMNS: Final = "job, layer, number, attempt, outcome, started_at, ended_at, cpu_s, rest"


def _attempt_row(r: AttemptRecord) -> Row:
    v = msgspec.structs.astuple(r)
    taken = v[29:] if r.gpus or r.disk_mb or r.amounts or r.limits else ()
    rest = _pack((*v[:15], None, None, None, *v[18:22], None, *v[23:29], *taken))
    return r.job, r.layer, r.number, r.attempt, r.outcome, r.started_at, r.ended_at, r.cpu_s, _blob(rest)


def _frame_row(r: FrameRecord) -> Row:
    avoid = ",".join(map(str, r.avoid)) if r.avoid else ""
    return r.job, r.layer, r.frame, r.state, r.attempt, r.requeued, avoid, r.returned


def _log_row(r: LogRecord) -> Row:
    return *r.key, r.ends.size, _blob(r.ends.head), _blob(r.ends.tail), int(r.ends.packed)


def _layer_row(r: LayerRecord) -> Row:
    return r.job, r.layer, r.floor, r.done, r.failed, r.cancelled, r.counted, r.reruns, r.top


def _totals_row(r: LayerTotals) -> Row:
    return msgspec.structs.astuple(r)


def _job_row(r: JobRecord) -> Row:
    times = (r.submitted_at, r.started_at, r.finished_at)
    rest = (r.stopped, r.deleted, r.submitter, r.user, r.forgiven, r.stopped_for)
    return r.id, r.token, _pack(r.spec), *times, *rest


def _slave_row(r: SlaveRecord) -> Row:
    wish = None if r.wish is None else _pack(r.wish)
    who = (r.id, r.identity, r.name, r.fingerprint)
    rest = (r.cores, r.memory_mb, r.control, r.last_heard_at, wish, r.account, _pack(r.offers), r.sick)
    return *who, _pack(r.machine), _pack(r.limits), *rest


def _account_row(r: AccountRecord) -> Row:
    return msgspec.structs.astuple(r)


def _line_row(r: LineRecord) -> Row:
    return msgspec.structs.astuple(r)


def _audit_row(r: AuditRecord) -> Row:
    return msgspec.structs.astuple(r)


def _meta_row(r: MetaRecord) -> Row:
    return r.name, r.value


def _limit_row(r: LimitRecord) -> Row:
    return msgspec.structs.astuple(r.limit)


def _share_row(r: ShareRecord) -> Row:
    return msgspec.structs.astuple(r.share)


def _pool_row(r: PoolRecord) -> Row:
    return r.name, r.policy


def _put(table: str, columns: int) -> str:
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"


#: How a row is written: by one statement for many of a kind.
PUT: Final[dict[type, tuple[str, Callable[[Any], Row]]]] = {
    AttemptRecord: (_put("attempt", 9), _attempt_row),
    FrameRecord: (_put("frame", 8), _frame_row),
    LogRecord: (_put("log (job, layer, frame, attempt, size, head, tail, packed)", 8), _log_row),
    LayerRecord: (_put("layer", 9), _layer_row),
    JobRecord: (_put("job", 12), _job_row),
    SlaveRecord: (_put("slave", 14), _slave_row),
    AccountRecord: (_put("account", 15), _account_row),
    LineRecord: (_put("line", 10), _line_row),
    AuditRecord: (_put("audit", 9), _audit_row),
    MetaRecord: (_put("meta", 2), _meta_row),
    LayerTotals: (_put("totals", 6), _totals_row),
    LimitRecord: (_put("limits", 3), _limit_row),
    ShareRecord: (_put("share", 6), _share_row),
    PoolRecord: (_put("pool", 2), _pool_row),
}


def read_job(row: Row) -> JobRecord:
    """From all columns of `job`."""
    number, token, spec, submitted_at, started_at, finished_at, stopped, deleted, *whose = row
    submitter, user, forgiven, stopped_for = whose
    return JobRecord(
        id=number,
        token=token,
        spec=_read_spec(spec),
        submitted_at=submitted_at,
        started_at=started_at,
        finished_at=finished_at,
        stopped=bool(stopped),
        deleted=bool(deleted),
        submitter=submitter,
        user=user,
        forgiven=forgiven,
        stopped_for=stopped_for,
    )


def read_slave(row: Row) -> SlaveRecord:
    """From all columns of `slave`."""
    number, identity, name, fingerprint, machine, limits, *rest = row
    cores, memory_mb, control, heard_at, wish, account, offers, sick = rest
    return SlaveRecord(
        id=number,
        identity=identity,
        name=name,
        fingerprint=fingerprint,
        machine=_read_machine(machine),
        limits=_read_limits(limits),
        cores=cores,
        memory_mb=memory_mb,
        control=control,
        last_heard_at=heard_at,
        wish=None if wish is None else _read_wish(wish),
        account=account,
        offers=_read_offers(offers),
        sick=sick,
    )


def read_limit(row: Row) -> LimitRecord:
    """From all columns of `limits`."""
    return LimitRecord(_convert(row, Limit))


def read_share(row: Row) -> ShareRecord:
    """From all columns of `share`."""
    return ShareRecord(_convert(row, Share))


def read_pool(row: Row) -> PoolRecord:
    """From all columns of `pool`."""
    return _convert(row, PoolRecord)


def read_account(row: Row) -> AccountRecord:
    """From all columns of `account`."""
    fields = dict(zip(AccountRecord.__struct_fields__, row, strict=True))
    return msgspec.convert({**fields, "pending": bool(fields["pending"])}, AccountRecord)


def read_line(row: Row) -> LineRecord:
    """From all columns of `line`."""
    return _convert(row, LineRecord)


def read_audit(row: Row) -> AuditRecord:
    """From all columns of `audit`."""
    return _convert(row, AuditRecord)


def _convert(row: Row, kind: type[_Kind]) -> _Kind:
    """Columns that stand in the order of the fields."""
    return msgspec.convert(dict(zip(kind.__struct_fields__, row, strict=True)), kind)


def read_attempt(row: Row) -> AttemptRecord:
    """From the columns of ATTEMPT_COLUMNS: what stands twice must be the same."""
    fields = dict(zip(ATTEMPT_FIELDS, cast(list[object], _unpack(row[8])), strict=False))
    for name, value in zip(_AT_COLUMNS, row[4:8], strict=True):
        if fields.get(name) is None:
            fields[name] = value
    r = msgspec.convert(fields, AttemptRecord)
    if (r.job, r.layer, r.number, r.attempt, r.outcome) != row[:5]:
        raise ValueError(f"attempt {r.key} stands in the row of another")
    return r


def read_layer(row: Row) -> LayerRecord:
    """From all columns of `layer`."""
    job, layer, floor, done, failed, cancelled, counted, reruns, top = row
    return LayerRecord(
        job=job,
        layer=layer,
        floor=floor,
        counted=counted,
        reruns=reruns,
        top=top,
        done=done,
        failed=failed,
        cancelled=cancelled,
    )


def read_frame(row: Row) -> FrameRecord:
    """From all columns of `frame`. A start reads a million of these."""
    job, layer, frame, state, attempt, requeued, avoid, returned = row
    if state not in _FRAME_STATES:
        raise ValueError(f"frame {job}/{layer}/{frame} is {state!r}")
    return FrameRecord(
        job=job,
        layer=layer,
        frame=frame,
        state=state,
        attempt=attempt,
        requeued=requeued,
        avoid=tuple(map(int, avoid.split(","))) if avoid else (),
        returned=returned,
    )
