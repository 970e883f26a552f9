"""What every Storage must do, tried on each of them alike."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, fields, replace

from drqueue.master.core.records import (
    AccountForget,
    AccountRecord,
    AnyRecord,
    AttemptRecord,
    AuditRecord,
    FrameRecord,
    FramesForget,
    JobForget,
    JobRecord,
    LayerRecord,
    LayerTotals,
    LineForget,
    LineRecord,
    LogRecord,
    MetaRecord,
    Saved,
    SlaveForget,
    SlaveRecord,
)
from drqueue.master.storage import Storage
from drqueue.master.storage.memory import MemoryStorage
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import (
    Depend,
    Gpu,
    JobSpec,
    LayerSpec,
    LimitsChange,
    LogEnds,
    MachineInfo,
    Needs,
    SlaveLimits,
)
from tests.master.access_rows import account, audit, line


def job(number: int, **more: object) -> JobRecord:
    layer = LayerSpec(argv=("render", "{frame}"), frames="1-100", needs=Needs(cores=2, os=("linux",)))
    spec = JobSpec(name=f"shot {number}", layers=(layer,), env={"A": "ü"}, depends=(Depend(0),))
    return replace(JobRecord(id=number, token=f"token {number}", spec=spec, submitted_at=100), **more)


def frame(job: int, number: int, **more: object) -> FrameRecord:
    return replace(FrameRecord(job=job, layer=0, frame=number, state="WAITING", attempt=1), **more)


def attempt(job: int, number: int, nth: int = 1, **more: object) -> AttemptRecord:
    row = AttemptRecord(
        job=job,
        layer=0,
        frame=number - 1,
        attempt=nth,
        number=number,
        slave=3,
        slave_name="node",
        assigned_at=5,
    )
    return replace(row, **more)


def slave(number: int, **more: object) -> SlaveRecord:
    machine = MachineInfo(hostname="node", os="linux", gpus=(Gpu(0, "card", 4096),))
    row = SlaveRecord(
        id=number,
        identity="random",
        name="node",
        fingerprint="f",
        machine=machine,
        limits=SlaveLimits(max_cpus=3),
        cores=8,
        memory_mb=16_000,
    )
    return replace(row, **more)


def big(n: int) -> list[AnyRecord]:
    """A frame of job 1 with an attempt that fills most of a page."""
    return [attempt(1, n, text="x" * 3000), frame(1, n)]


def taken(saved: Saved) -> dict[str, object]:
    """What was loaded, with sums of floats rounded, since the order of adding is not promised."""
    rows = {
        name: value if name in ("meta", "audited") else list(value) for name, value in asdict(saved).items()
    }
    rows["totals"] = [replace(t, wall_s=round(t.wall_s, 3), cpu_s=round(t.cpu_s, 3)) for t in rows["totals"]]
    return rows


def empty(saved: Saved) -> bool:
    return not any(taken(saved).values())


Reopen = Callable[[], Storage]


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the same storage again, after closing the one it gave before."""
    if request.param == "memory":
        memory = MemoryStorage()
        yield lambda: memory
        return
    opened: list[SqliteStorage] = []

    def open_again() -> Storage:
        if opened:
            opened.pop().close()
        opened.append(SqliteStorage(str(tmp_path / "master.db")))
        return opened[0]

    yield open_again
    for storage in opened:
        storage.close()


#: What the row of an attempt says only once it is over.
ENDED = {"ended_at", "outcome", "code", "signal", "reason", "text", "cpu_s", "peak_mb", "log_bytes"}


def test_a_new_storage_is_empty(reopen: Reopen) -> None:
    storage = reopen()
    assert empty(storage.load())
    assert storage.attempts(0, 0, 1) == []
    assert storage.latest_attempts(0, 0, [1, 2]) == {}
    assert storage.log(AttemptKey(0, 0, 0, 1)) is None
    assert storage.purge(1e12, 10) == 0


def test_every_kind_of_row_comes_back_as_it_was(reopen: Reopen) -> None:
    storage = reopen()
    layer = LayerRecord(
        job=1, layer=0, floor=4, counted=2, reruns=3, done=b"\0\xff", failed=b"f", cancelled=b"c"
    )
    failed = frame(1, 5, state="FAILED", attempt=4, requeued=3, avoid=(7, 0, 12), returned=-2)
    live = attempt(1, 6, stop="kill", again=True, orphan=True, cores=4, memory_mb=9, on_unreachable="hold")
    live = replace(live, slot=5, lease_s=1.5, started_at=2.5, step=2, count=3)
    for row, usual in ((layer, set()), (failed, set()), (live, ENDED)):
        for field in fields(type(row)):
            assert field.name in usual or getattr(row, field.name) != field.default, field.name
    wish = slave(2, wish=LimitsChange(enabled=False, max_cpus=None), last_heard_at=9.25)
    storage.commit([MetaRecord("next job", "2"), job(1, started_at=3.5, stopped=True), layer, slave(0), wish])
    storage.commit([failed, frame(1, 2), live])
    saved = taken(reopen().load())
    assert saved["meta"] == {"next job": "2"}
    assert saved["jobs"] == [job(1, started_at=3.5, stopped=True)]
    assert saved["layers"] == [layer]
    assert saved["frames"] == [frame(1, 2), failed]
    assert saved["live"] == [live]
    assert saved["slaves"] == [slave(0), wish]


def test_a_later_row_replaces_an_earlier_one_also_within_a_commit(reopen: Reopen) -> None:
    storage = reopen()
    storage.commit([job(1), frame(1, 0), attempt(1, 1), frame(1, 0, state="DONE"), MetaRecord("a", "1")])
    storage.commit([MetaRecord("a", "2"), attempt(1, 1, outcome="done"), job(1, finished_at=8)])
    saved = taken(reopen().load())
    assert saved["meta"] == {"a": "2"}
    assert saved["jobs"] == [job(1, finished_at=8)]
    assert saved["frames"] == [frame(1, 0, state="DONE")]
    assert saved["live"] == []


def test_frames_forgotten_are_those_of_the_range_and_of_before(reopen: Reopen) -> None:
    storage = reopen()
    storage.commit([job(1), *(frame(1, n) for n in range(10)), frame(1, 3, layer=1), job(2), frame(2, 3)])
    storage.commit([frame(1, 8, requeued=1), FramesForget(1, 0, 2, 9), frame(1, 4, state="FAILED")])
    saved = taken(reopen().load())
    kept = [frame(1, 0), frame(1, 1), frame(1, 4, state="FAILED"), frame(1, 9)]
    kept += [frame(1, 3, layer=1), frame(2, 3)]
    assert saved["frames"] == kept


def test_a_forgotten_job_is_gone_with_all_its_rows(reopen: Reopen) -> None:
    storage = reopen()
    key = AttemptKey(1, 0, 0, 1)
    rows: list[AnyRecord] = [
        *(LayerRecord(job=1, layer=0), frame(1, 0), attempt(1, 1), attempt(1, 2, outcome="done")),
        LogRecord(key, LogEnds(size=1)),
    ]
    storage.commit([job(1), *rows, job(2), frame(2, 0)])
    storage.commit([JobForget(1)])
    for again in (lambda: storage, reopen):
        found = again()
        saved = taken(found.load())
        assert saved["jobs"] == [job(2)]
        assert saved["frames"] == [frame(2, 0)]
        assert saved["layers"] == saved["live"] == saved["totals"] == []
        assert found.attempts(1, 0, 1) == []
        assert found.latest_attempts(1, 0, [1, 2]) == {}
        assert found.log(key) is None


def test_a_forgotten_slave_is_gone(reopen: Reopen) -> None:
    reopen().commit([slave(0), slave(1), slave(1, cores=2), SlaveForget(1)])
    assert taken(reopen().load())["slaves"] == [slave(0)]


def test_history_is_oldest_first_and_found_by_frame_number(reopen: Reopen) -> None:
    storage = reopen()
    # After a change of the range the frame of number 7 has another index: both are its history.
    old, new = (
        attempt(1, 7, 1, frame=3, outcome="failed", code=1, reason="timeout"),
        attempt(1, 7, 12, frame=0),
    )
    storage.commit([job(1), new, old, attempt(1, 8, 2)])
    storage = reopen()
    assert storage.attempts(1, 0, 7) == [old, new]
    assert storage.latest_attempts(1, 0, [7, 8, 9]) == {7: new, 8: attempt(1, 8, 2)}
    assert storage.attempts(1, 1, 7) == []


def test_logs_are_found_by_attempt(reopen: Reopen) -> None:
    ends = LogEnds(size=200_000, head=b"begin\0", tail=b"end", packed=True)
    reopen().commit([job(1), LogRecord(AttemptKey(1, 0, 4, 2), ends)])
    assert reopen().log(AttemptKey(1, 0, 4, 2)) == ends
    assert reopen().log(AttemptKey(1, 0, 4, 1)) is None


def test_totals_are_sums_over_attempts_of_the_latest_run_that_are_over(reopen: Reopen) -> None:
    done = {"outcome": "done", "started_at": 10.0, "cpu_s": 1.5}
    rows = [
        attempt(1, 1, 1, outcome="failed", started_at=1.0, ended_at=9.0, cpu_s=7.0),
        attempt(1, 1, 2, ended_at=12.5, **done),
        attempt(1, 2, 1, ended_at=11.0, **done),
        attempt(1, 3, 1, ended_at=4.0, **done),  # the wall clock was set back meanwhile
        attempt(1, 4, 1),
        attempt(1, 1, 1, layer=2, ended_at=10.25, **done),
        attempt(1, 1, 3, layer=3, ended_at=10.5, **done),
        attempt(1, 1, 4, layer=3, outcome="lost", started_at=1.0, ended_at=9.0, cpu_s=2.0),
        attempt(1, 1, 2, layer=4, ended_at=10.5, **done),
    ]
    runs = [
        LayerRecord(job=1, layer=0),
        LayerRecord(job=1, layer=3, counted=3),
        LayerRecord(job=1, layer=4, counted=2),
    ]
    reopen().commit([job(1), *runs, *rows])
    assert taken(reopen().load())["totals"] == [
        LayerTotals(job=1, layer=0, done=3, wall_s=3.5, cpu_s=11.5),
        LayerTotals(job=1, layer=2, done=1, wall_s=0.25, cpu_s=1.5),
        LayerTotals(job=1, layer=3, done=0, wall_s=0.0, cpu_s=2.0),
    ]


def purge_all(storage: Storage, before: float, limit: int) -> None:
    for _ in range(10_000):
        if storage.purge(before, limit) == 0:
            return
    pytest.fail("purge never ends")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_purge_drops_old_attempts_but_each_frames_last(reopen: Reopen, limit: int) -> None:
    storage = reopen()
    over = {"outcome": "failed", "ended_at": 50.0}
    late = {"outcome": "failed", "ended_at": 500.0}
    old = [attempt(1, number, nth, **over) for number in (-2, 1, 4) for nth in (1, 2, 3)]
    kept = [attempt(1, number, 4, **over) for number in (-2, 1, 4)]
    kept += [
        attempt(1, 5, 1, **late),
        attempt(1, 5, 2),
        attempt(1, 6, 1, ended_at=50.0),
        attempt(1, 6, 2, **over),
    ]
    young = [attempt(2, 1, 1, **late), attempt(2, 1, 2, **late)]
    logs = [LogRecord(row.key, LogEnds(size=row.attempt)) for row in old + kept]
    storage.commit([job(1), *old, *kept, *logs, job(2, submitted_at=300), *young, job(3)])
    purge_all(storage, 200, limit)
    storage = reopen()
    left = [row for n in (-2, 1, 4, 5, 6) for row in storage.attempts(1, 0, n)]
    assert left == kept
    assert storage.attempts(2, 0, 1) == young
    assert [storage.log(row.key) for row in old] == [None] * len(old)
    assert None not in [storage.log(row.key) for row in kept]


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_purging_forgotten_jobs_leaves_the_others(reopen: Reopen, limit: int) -> None:
    storage = reopen()
    rows = [row for n in range(1, 8) for row in (frame(1, n), attempt(1, n), frame(2, n), attempt(2, n))]
    storage.commit([job(1), job(2), *rows])
    before = taken(storage.load())
    storage.commit([JobForget(1)])
    purge_all(storage, 0, limit)
    after = taken(reopen().load())
    for name in ("jobs", "frames", "live"):
        assert after[name] == [r for r in before[name] if 2 in (getattr(r, "job", 0), getattr(r, "id", 0))]


def kept_logs(storage: Storage, rows: Sequence[AttemptRecord]) -> list[int]:
    return [row.attempt for row in rows if storage.log(row.key) is not None]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_the_oldest_logs_go_until_the_rest_fits(reopen: Reopen, limit: int) -> None:
    """Oldest is what was written first, whatever its job's number; each has 10 bytes."""
    storage = reopen()
    rows = [attempt(2 - n % 2, 1, n) for n in range(1, 11)]
    storage.commit([job(1), job(2)])
    for row in rows:
        storage.commit([LogRecord(row.key, LogEnds(size=99, head=b"begin", tail=b"ended"))])
    storage = reopen()
    assert storage.purge_logs(100, limit) == 0
    assert kept_logs(storage, rows) == [*range(1, 11)]
    dropped = 0
    while batch := storage.purge_logs(64, limit):
        assert batch <= limit
        dropped += batch
        assert kept_logs(storage, rows) == [*range(dropped + 1, 11)]
    assert kept_logs(reopen(), rows) == [*range(5, 11)]


def test_a_log_that_is_written_again_is_young_and_counts_once(reopen: Reopen) -> None:
    storage = reopen()
    rows = [attempt(1, 1, n) for n in range(1, 4)]
    logs = [LogRecord(row.key, LogEnds(size=9, head=b"x" * 10)) for row in rows]
    storage.commit([job(1), *logs])
    storage.commit([logs[0]])
    assert storage.purge_logs(30, 10) == 0
    assert storage.purge_logs(20, 10) == 1
    assert kept_logs(storage, rows) == [1, 3]


def test_a_refused_commit_does_not_count(reopen: Reopen) -> None:
    storage = reopen()
    log = LogRecord(AttemptKey(1, 0, 0, 1), LogEnds(size=9, head=b"x" * 50))
    storage.commit([job(1), log])
    if isinstance(storage, SqliteStorage):
        with pytest.raises(OverflowError):
            storage.commit([LogRecord(AttemptKey(1, 0, 0, 2), log.ends), frame(1, 1 << 70)])
    assert storage.purge_logs(50, 10) == 0
    assert storage.log(log.key) is not None


small = st.integers(0, 2)
when = st.sampled_from([0, 0.5, 99.0, 1e9])
text = st.text(max_size=5)
jobs = st.builds(job, small, submitted_at=when, finished_at=when, deleted=st.booleans(), token=text)
records = st.one_of(
    st.builds(MetaRecord, st.sampled_from("abc"), text),
    jobs,
    st.builds(LayerRecord, job=small, layer=small, floor=small, done=st.binary(max_size=4)),
    st.builds(
        frame,
        small,
        small,
        layer=small,
        state=st.sampled_from(["WAITING", "DONE", "FAILED", "CANCELLED"]),
        avoid=st.lists(small, max_size=3).map(tuple),
    ),
    st.builds(FramesForget, small, small, small, small),
    st.builds(
        attempt,
        small,
        st.integers(-1, 1),
        small,
        layer=small,
        outcome=st.sampled_from(["", "done", "failed"]),
        code=st.none() | small,
        signal=st.none() | small,
        started_at=when,
        ended_at=when,
        cpu_s=when,
        text=text,
    ),
    st.builds(JobForget, small),
    st.builds(slave, small, name=text, wish=st.none() | st.builds(LimitsChange, max_cpus=st.none() | small)),
    st.builds(SlaveForget, small),
    st.builds(account, text, name=text, pending=st.booleans(), next_hash=text, created_at=when),
    st.builds(AccountForget, text),
    st.builds(line, text, expires_at=when, uses_left=small, net=text, replaces=text),
    st.builds(LineForget, text),
    st.builds(audit, small, at=when, what=text, count=small),
    st.builds(
        LogRecord,
        st.builds(AttemptKey, small, small, st.integers(-2, 0), small),
        st.builds(LogEnds, size=small, head=st.binary(max_size=3)),
    ),
)


#: Rows of their own, which no job has to be there for.
FREE = (
    *(MetaRecord, SlaveRecord, SlaveForget),
    *(AccountRecord, AccountForget, LineRecord, LineForget, AuditRecord),
)


def lawful(commits: Sequence[Sequence[AnyRecord]]) -> list[list[AnyRecord]]:
    """The commits without what no core writes: rows for a job that does not exist, or no longer."""
    alive: set[int] = set()
    gone: set[int] = set()
    result: list[list[AnyRecord]] = []
    for commit in commits:
        kept: list[AnyRecord] = []
        for record in commit:
            if isinstance(record, JobRecord):
                if record.id in gone:
                    continue
                alive.add(record.id)
            elif isinstance(record, LogRecord):
                if record.key.job not in alive:
                    continue
            elif isinstance(record, FREE):
                pass
            elif record.job not in alive:
                continue
            if isinstance(record, JobForget):
                alive.remove(record.job)
                gone.add(record.job)
            kept.append(record)
        result.append(kept)
    return result


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    start=st.lists(jobs, max_size=3),
    commits=st.lists(st.lists(records, max_size=25), max_size=6),
    limit=st.integers(1, 4),
)
def test_a_file_holds_what_memory_holds(
    tmp_path_factory: pytest.TempPathFactory,
    start: list[AnyRecord],
    commits: list[list[AnyRecord]],
    limit: int,
) -> None:
    path = str(tmp_path_factory.mktemp("db") / "master.db")
    memory, sqlite = MemoryStorage(), SqliteStorage(path)
    for commit in lawful([start, *commits]):
        memory.commit(commit)
        sqlite.commit(commit)
    assert taken(sqlite.load()) == taken(memory.load())
    sqlite.close()
    sqlite = SqliteStorage(path)
    try:
        for _ in range(2):
            assert taken(sqlite.load()) == taken(memory.load())
            for number in range(3):
                for layer in range(3):
                    for n in range(-1, 2):
                        assert sqlite.attempts(number, layer, n) == memory.attempts(number, layer, n)
                    numbers = range(-1, 2)
                    found = sqlite.latest_attempts(number, layer, numbers)
                    assert found == memory.latest_attempts(number, layer, numbers)
                    for key in (AttemptKey(number, layer, f, a) for f in range(-2, 1) for a in range(3)):
                        assert sqlite.log(key) == memory.log(key)
            purge_all(sqlite, 80, limit)
            purge_all(memory, 80, limit)
            assert sqlite.purge_logs(5, limit) == memory.purge_logs(5, limit)
            assert sqlite.audit(0, limit) == memory.audit(0, limit)
            assert sqlite.purge_audit(80, limit) == memory.purge_audit(80, limit)
            assert sqlite.audit_latest(2) == memory.audit_latest(2)
    finally:
        sqlite.close()
