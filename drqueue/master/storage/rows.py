"""Rows of the database, to and from records.

Rules: what is read is checked, and raises ValueError or msgspec's errors where it does not fit, never a
default; tuples stand in the order of the tables' columns (`migrations`); structured values are msgpack. Each
row has its sum (`sums`), written and proven here.
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
from drqueue.master.storage.sums import real, row_sum, whole, with_sum
from drqueue.proto.model import (
    JobSpec,
    Limit,
    LimitsChange,
    LogEnds,
    MachineInfo,
    Offers,
    Share,
    SlaveLimits,
)

#: What `attempt.rest` holds, in this order, for ever, which is the record's without its keys: new fields come
#: at the end, and have a default; the last ones are left out where they say nothing.
REST_FIELDS: Final = (
    *("frame", "slave", "slave_name", "assigned_at", "cores", "memory_mb", "lease_s", "on_unreachable"),
    *("stop", "again", "orphan", "started_at", "ended_at", "outcome", "code", "signal", "reason", "text"),
    *("cpu_s", "peak_mb", "log_bytes", "step", "count", "slot", "eligible_at"),
    *("gpus", "disk_mb", "amounts", "limits"),
)
_KEYS: Final = ("job", "layer", "number", "attempt")
_AT_OUTCOME: Final = REST_FIELDS.index("outcome")
_AT_ENDED: Final = REST_FIELDS.index("ended_at")

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
ATTEMPT_COLUMNS: Final = "job, layer, number, attempt, live, rest, crc"
#: What `read_log` takes.
LOG_COLUMNS: Final = "job, layer, frame, attempt, size, head, tail, packed, crc"


def _attempt_row(r: AttemptRecord) -> Row:
    v = msgspec.structs.astuple(r)
    rest = (v[2], *v[5:]) if r.gpus or r.disk_mb or r.amounts or r.limits else (v[2], *v[5:29])
    row = r.job, r.layer, r.number, r.attempt, 0 if r.outcome else 1, _blob(_pack(rest))
    return *row, row_sum("attempt", row)


def _frame_row(r: FrameRecord) -> Row:
    avoid = ",".join(map(str, r.avoid)) if r.avoid else ""
    row = r.job, r.layer, r.frame, r.state, r.attempt, r.requeued, avoid, r.returned
    return *row, row_sum("frame", row)


def _log_row(r: LogRecord) -> Row:
    values = *r.key, r.ends.size, _blob(r.ends.head), _blob(r.ends.tail), int(r.ends.packed)
    return with_sum("log", values)


def _layer_row(r: LayerRecord) -> Row:
    values = r.job, r.layer, r.floor, r.done, r.failed, r.cancelled, r.counted, r.reruns, r.top
    return with_sum("layer", values)


def _totals_row(r: LayerTotals) -> Row:
    return with_sum("totals", (r.job, r.layer, r.done, real(r.wall_s), real(r.cpu_s), r.failed))


def _job_row(r: JobRecord) -> Row:
    times = (real(r.submitted_at), real(r.started_at), real(r.finished_at))
    rest = (int(r.stopped), int(r.deleted), r.submitter, r.user, r.forgiven, r.stopped_for)
    return with_sum("job", (r.id, r.token, _pack(r.spec), *times, *rest))


def _slave_row(r: SlaveRecord) -> Row:
    wish = None if r.wish is None else _pack(r.wish)
    who = (r.id, r.identity, r.name, r.fingerprint)
    has = (r.cores, r.memory_mb, r.control, real(r.last_heard_at), wish, r.account, _pack(r.offers), r.sick)
    return with_sum("slave", (*who, _pack(r.machine), _pack(r.limits), *has))


def _account_row(r: AccountRecord) -> Row:
    row = msgspec.structs.astuple(msgspec.structs.replace(r, created_at=real(r.created_at)))
    return with_sum("account", tuple(int(v) if v is True or v is False else v for v in row))


def _line_row(r: LineRecord) -> Row:
    times = {"created_at": real(r.created_at), "expires_at": real(r.expires_at)}
    return with_sum("line", msgspec.structs.astuple(msgspec.structs.replace(r, **times)))


def _audit_row(r: AuditRecord) -> Row:
    return with_sum("audit", msgspec.structs.astuple(msgspec.structs.replace(r, at=real(r.at))))


def _meta_row(r: MetaRecord) -> Row:
    return with_sum("meta", (r.name, r.value))


def _limit_row(r: LimitRecord) -> Row:
    return with_sum("limits", _plain(msgspec.structs.astuple(r.limit)))


def _share_row(r: ShareRecord) -> Row:
    return with_sum("share", _plain(msgspec.structs.astuple(r.share)))


def _pool_row(r: PoolRecord) -> Row:
    return with_sum("pool", (r.name, r.policy))


def _plain(row: Row) -> Row:
    """Numbers of columns that take any."""
    return tuple(real(v) if type(v) is float else int(v) if type(v) is bool else v for v in row)


def _put(table: str, columns: int) -> str:
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"


#: How a row is written: by one statement for many of a kind.
PUT: Final[dict[type, tuple[str, Callable[[Any], Row]]]] = {
    AttemptRecord: (_put("attempt", 7), _attempt_row),
    FrameRecord: (_put("frame", 9), _frame_row),
    LogRecord: (_put("log (job, layer, frame, attempt, size, head, tail, packed, crc)", 9), _log_row),
    LayerRecord: (_put("layer", 10), _layer_row),
    JobRecord: (_put("job", 13), _job_row),
    SlaveRecord: (_put("slave", 15), _slave_row),
    AccountRecord: (_put("account", 16), _account_row),
    LineRecord: (_put("line", 11), _line_row),
    AuditRecord: (_put("audit", 10), _audit_row),
    MetaRecord: (_put("meta", 3), _meta_row),
    LayerTotals: (_put("totals", 7), _totals_row),
    LimitRecord: (_put("limits", 4), _limit_row),
    ShareRecord: (_put("share", 7), _share_row),
    PoolRecord: (_put("pool", 3), _pool_row),
}


def meta_statement(name: str, value: str) -> tuple[str, Row]:
    """What writes a named value into a database that no storage has open."""
    statement, row = PUT[MetaRecord]
    return statement, row(MetaRecord(name, value))


def read_job(row: Row) -> JobRecord:
    """From all columns of `job`."""
    number, token, spec, submitted_at, started_at, finished_at, stopped, deleted, *whose = whole("job", row)
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
    number, identity, name, fingerprint, machine, limits, *rest = whole("slave", row)
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
    return LimitRecord(_convert(whole("limits", row), Limit))


def read_share(row: Row) -> ShareRecord:
    """From all columns of `share`."""
    return ShareRecord(_convert(whole("share", row), Share))


def read_pool(row: Row) -> PoolRecord:
    """From all columns of `pool`."""
    return _convert(whole("pool", row), PoolRecord)


def read_account(row: Row) -> AccountRecord:
    """From all columns of `account`."""
    fields = dict(zip(AccountRecord.__struct_fields__, whole("account", row), strict=True))
    return msgspec.convert({**fields, "pending": bool(fields["pending"])}, AccountRecord)


def read_line(row: Row) -> LineRecord:
    """From all columns of `line`."""
    return _convert(whole("line", row), LineRecord)


def read_audit(row: Row) -> AuditRecord:
    """From all columns of `audit`."""
    return _convert(whole("audit", row), AuditRecord)


def _convert(row: Row, kind: type[_Kind]) -> _Kind:
    """Columns that stand in the order of the fields."""
    return msgspec.convert(dict(zip(kind.__struct_fields__, row, strict=True)), kind)


def read_attempt(row: Row) -> AttemptRecord:
    """From the columns of ATTEMPT_COLUMNS."""
    *keys, _live, rest = whole("attempt", row)
    fields = dict(zip(REST_FIELDS, _unpack(rest), strict=False))
    fields.update(zip(_KEYS, keys, strict=True))
    return msgspec.convert(fields, AttemptRecord)


def read_end(row: Row) -> float | None:
    """When an attempt was over, None for one that lives: from the columns of ATTEMPT_COLUMNS, quickly."""
    rest = _unpack(whole("attempt", row)[5])
    return cast(float, rest[_AT_ENDED]) if rest[_AT_OUTCOME] else None


def read_totals(row: Row) -> LayerTotals:
    """From all columns of `totals`."""
    return LayerTotals(*whole("totals", row))


def read_meta(row: Row) -> MetaRecord:
    """From all columns of `meta`."""
    return MetaRecord(*whole("meta", row))


def read_log(row: Row) -> LogEnds:
    """From the columns of LOG_COLUMNS."""
    size, head, tail, packed = whole("log", row)[4:]
    return LogEnds(size=size, head=head, tail=tail, packed=bool(packed))


def read_forgotten(row: Row) -> int:
    """From all columns of `forgotten`: a job's number."""
    return int(whole("forgotten", row)[0])


def forgotten_row(job: int) -> Row:
    """The row that says that a job's rows are to be purged."""
    return with_sum("forgotten", (job,))


def read_layer(row: Row) -> LayerRecord:
    """From all columns of `layer`."""
    job, layer, floor, done, failed, cancelled, counted, reruns, top = whole("layer", row)
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
    job, layer, frame, state, attempt, requeued, avoid, returned = whole("frame", row)
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
