"""What every Storage must do, tried on each of them alike."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import asdict, fields, replace

from drqueue.master.core.records import (
    AnyRecord,
    AttemptRecord,
    DoneFrames,
    FrameRecord,
    FramesForget,
    JobForget,
    JobRecord,
    LayerRecord,
    LayerTotals,
    LimitForget,
    LimitRecord,
    LogRecord,
    MetaRecord,
    PoolForget,
    PoolRecord,
    Saved,
    ShareForget,
    ShareRecord,
    SlaveForget,
    SlaveRecord,
)
from drqueue.master.storage import Storage
from drqueue.master.storage.memory import MemoryStorage
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import (
    Depend,
    Gpu,
    JobSpec,
    LayerSpec,
    Limit,
    LimitsChange,
    LogEnds,
    MachineInfo,
    Needs,
    Offers,
    Share,
    SlaveLimits,
)


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
    """What was loaded, in lists."""
    return {
        name: value if name in ("meta", "audited") else list(value) for name, value in asdict(saved).items()
    }


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
        job=1, layer=0, floor=4, counted=2, reruns=3, top=5, done=b"\0\xff", failed=b"f", cancelled=b"c"
    )
    failed = frame(1, 5, state="FAILED", attempt=4, requeued=3, avoid=(7, 0, 12), returned=-2)
    live = attempt(1, 6, stop="kill", again=True, orphan=True, cores=4, memory_mb=9, on_unreachable="hold")
    live = replace(live, slot=5, lease_s=1.5, started_at=2.5, step=2, count=3, eligible_at=1.25)
    live = replace(live, gpus=(0, 2), disk_mb=7, amounts={"vram": 1.5, "seats": 2}, limits={"nuke": 2500})
    for row, usual in ((layer, set()), (failed, set()), (live, ENDED)):
        for field in fields(type(row)):
            assert field.name in usual or getattr(row, field.name) != field.default, field.name
    wish = slave(2, wish=LimitsChange(enabled=False, max_cpus=None), last_heard_at=9.25)
    wish = replace(wish, control="192.0.2.7:1", account="b")
    offers = Offers(gpus=(1,), disk_mb=5, amounts={"a": 0.5}, tags=("fast",), attributes={"site": "b"})
    wish = replace(wish, offers=offers, sick="3 frames of 3 users failed")
    whose = {"submitter": "farmer", "user": "anna", "forgiven": 4, "stopped_for": "20 frames failed"}
    whole = job(1, started_at=3.5, finished_at=4.5, stopped=True, deleted=True, **whose)
    for row in (wish, whole):
        for field in fields(type(row)):
            assert getattr(row, field.name) != field.default, field.name
    storage.commit([MetaRecord("next job", "2"), whole, layer, slave(0), wish])
    totals = LayerTotals(1, 0, done=3, wall_s=3.5, cpu_s=0.25, failed=2)
    storage.commit([failed, frame(1, 2), live, totals])
    saved = taken(reopen().load())
    assert saved["meta"] == {"next job": "2"}
    assert saved["jobs"] == [whole]
    assert saved["layers"] == [layer]
    assert saved["frames"] == [frame(1, 2), failed]
    assert saved["live"] == [live]
    assert saved["totals"] == [totals]
    assert saved["slaves"] == [slave(0), wish]


def test_a_later_row_replaces_an_earlier_one_also_within_a_commit(reopen: Reopen) -> None:
    storage = reopen()
    storage.commit([job(1), frame(1, 0), attempt(1, 1), frame(1, 0, state="DONE"), MetaRecord("a", "1")])
    storage.commit([MetaRecord("a", "2"), attempt(1, 1, outcome="done"), job(1, finished_at=8)])
    saved = taken(reopen().load())
    assert saved["meta"] == {"a": "2"}
    assert saved["jobs"] == [job(1, finished_at=8)]
    assert saved["frames"] == []
    assert saved["done"] == [DoneFrames(1, 0, IntervalSet([(0, 1)]), 1)]
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
        *(frame(1, 1, state="DONE"), LayerTotals(1, 0, 1, 1.0, 1.0)),
        LogRecord(key, LogEnds(size=1)),
    ]
    storage.commit([job(1), *rows, job(2), frame(2, 0)])
    storage.commit([JobForget(1)])
    for again in (lambda: storage, reopen):
        found = again()
        saved = taken(found.load())
        assert saved["jobs"] == [job(2)]
        assert saved["frames"] == [frame(2, 0)]
        assert saved["layers"] == saved["live"] == saved["totals"] == saved["done"] == []
        assert found.attempts(1, 0, 1) == []
        assert found.latest_attempts(1, 0, [1, 2]) == {}
        assert found.log(key) is None


def test_a_forgotten_slave_is_gone(reopen: Reopen) -> None:
    reopen().commit([slave(0), slave(1), slave(1, cores=2), SlaveForget(1)])
    assert taken(reopen().load())["slaves"] == [slave(0)]


def test_limits_shares_and_pools_are_kept_replaced_and_forgotten(reopen: Reopen) -> None:
    """Amounts stay whole numbers or fractions, as they were set."""
    storage = reopen()
    comp = ShareRecord(Share(of="project", name="comp", pool="x", weight=2.5, minimum=8, burst=0.5))
    both = [ShareRecord(Share(of=of, name="comp")) for of in ("project", "user")]
    limits = [LimitRecord(Limit(name=name, amount=2, scope="slaves")) for name in ("user:*", "nuke", "old")]
    pools = [PoolRecord("x", "fifo"), PoolRecord("y", "fifo")]
    storage.commit([*limits, comp, *both, *pools])
    closed = LimitRecord(Limit(name="nuke", amount=0.5))
    storage.commit([closed, LimitForget("old"), LimitForget("none"), ShareForget("user", "comp", "")])
    storage.commit([ShareForget("user", "comp", "x"), PoolForget("y"), PoolForget("none")])
    for again in (lambda: storage, reopen):
        saved = again().load()
        assert list(saved.limits) == [closed, limits[0]]
        assert list(saved.shares) == [both[0], comp]
        assert list(saved.pools) == [pools[0]]
        assert [type(row.limit.amount) for row in saved.limits] == [float, int]


def test_whatever_else_an_attempt_takes_comes_back_by_itself(reopen: Reopen) -> None:
    """The end of a row that says nothing of these is left out."""
    takes: list[dict[str, object]] = [
        *({"gpus": (1,)}, {"disk_mb": 7}, {"amounts": {"nuke": 0.5}}, {"limits": {"user:a": 2}}),
        {"slot": 3, "eligible_at": 4.5},
    ]
    rows = [attempt(1, n, **more) for n, more in enumerate(takes, 1)]
    reopen().commit([job(1), *rows])
    assert taken(reopen().load())["live"] == rows


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


def test_frames_that_are_only_done_come_together(reopen: Reopen) -> None:
    """By layer, with the highest attempt; whoever tells more has a row."""
    storage = reopen()
    more = [{"requeued": 1}, {"returned": -1}, {"avoid": (3,)}, {"state": "FAILED"}, {"state": "WAITING"}]
    told = [frame(1, 10 + n, **{"state": "DONE", **one}) for n, one in enumerate(more)]
    done = [frame(1, n, state="DONE", attempt=1 + n % 3) for n in (*range(8), 9, 20, 21)]
    other = [frame(1, 5, layer=2, state="DONE", attempt=7), frame(2, 5, state="DONE"), frame(3, 1)]
    storage.commit([job(1), job(2), *told, *done, *other])
    saved = taken(reopen().load())
    assert saved["frames"] == told
    assert saved["done"] == [
        DoneFrames(1, 0, IntervalSet([(0, 8), (9, 10), (20, 22)]), 3),
        DoneFrames(1, 2, IntervalSet([(5, 6)]), 7),
        DoneFrames(2, 0, IntervalSet([(5, 6)]), 1),
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
