"""Any rows in any order: the file holds what memory holds."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drqueue.master.core.records import (
    AccountForget,
    AccountRecord,
    AnyRecord,
    AuditRecord,
    FramesForget,
    JobForget,
    JobRecord,
    LayerRecord,
    LayerTotals,
    LimitForget,
    LimitRecord,
    LineForget,
    LineRecord,
    LogRecord,
    MetaRecord,
    PoolForget,
    PoolRecord,
    ShareForget,
    ShareRecord,
    SlaveForget,
    SlaveRecord,
)
from drqueue.master.storage.memory import MemoryStorage
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import Limit, LimitsChange, LogEnds, Share
from tests.master.access_rows import account, audit, line
from tests.master.test_storage import attempt, frame, job, purge_all, slave, taken

small = st.integers(0, 2)
when = st.sampled_from([0, 0.5, 99.0, 1e9])
text = st.text(max_size=5)
who = st.sampled_from(["user", "project"])
jobs = st.builds(job, small, submitted_at=when, finished_at=when, deleted=st.booleans(), token=text)
records = st.one_of(
    st.builds(MetaRecord, st.sampled_from("abc"), text),
    jobs,
    st.builds(LayerRecord, job=small, layer=small, floor=small, top=small, done=st.binary(max_size=4)),
    st.builds(LayerTotals, job=small, layer=small, done=small, wall_s=when, cpu_s=when, failed=small),
    st.builds(
        frame,
        small,
        small,
        layer=small,
        state=st.sampled_from(["WAITING", "DONE", "FAILED", "CANCELLED"]),
        avoid=st.lists(small, max_size=1).map(tuple),
        attempt=small,
        returned=small,
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
        eligible_at=when,
        gpus=st.lists(small, max_size=2).map(tuple),
        limits=st.dictionaries(text, small, max_size=1),
    ),
    st.builds(JobForget, small),
    st.builds(slave, small, name=text, wish=st.none() | st.builds(LimitsChange, max_cpus=st.none() | small)),
    st.builds(SlaveForget, small),
    st.builds(lambda name, n: LimitRecord(Limit(name=name, amount=n)), text, small | when),
    st.builds(LimitForget, text),
    st.builds(
        lambda of, name, n: ShareRecord(Share(of=of, name=name, burst=n)), who, text, st.none() | small
    ),
    st.builds(ShareForget, who, text, st.just("")),
    st.builds(PoolRecord, text, st.sampled_from(["fair", "fifo"])),
    st.builds(PoolForget, text),
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
    *(LimitRecord, LimitForget, ShareRecord, ShareForget, PoolRecord, PoolForget),
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
