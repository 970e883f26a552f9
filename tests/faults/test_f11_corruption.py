"""F11: one bit of a master's state is another one. It is refused, at a start or by who reads it, or changes
nothing; never is a value served that was not written.

Bits are drawn from the pages of the database that are in use (as SQLite's dbstat tells, where it is compiled
in) and from all of its log. One class is by design: a flip in the last transaction of the log cannot be told
from a power cut that tore it; that one is left out, which is said, and all before it must be there.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
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
from drqueue.master.storage.integrity import check_start
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import open_state
from drqueue.master.storage.sums import TABLES
from drqueue.proto.intervals import IntervalSet
from drqueue.proto.model import LogEnds
from drqueue.statefile import StateError
from tests.faults import levels
from tests.master.test_daemon import a_master
from tests.master.test_storage import job, slave, taken

JOBS, FRAMES = 10, 1000
DATABASE, LOG = "master.db", "master.db-wal"

pytestmark = pytest.mark.timeout(levels.timeout_s())


class State(NamedTuple):
    """A state directory that no master is at, and all that a master finds in it."""

    folder: Path
    rows: dict[str, Any]


def ended(job: int, number: int, nth: int, dice: Random, outcome: str = "done") -> AttemptRecord:
    began = 1.7e9 + dice.random() * 1e6
    return AttemptRecord(
        job=job,
        layer=0,
        frame=number - 1,
        attempt=nth,
        number=number,
        slave=1,
        slave_name="node",
        assigned_at=began,
        lease_s=1800.0,
        slot=dice.randrange(64),
        started_at=began + 0.2,
        ended_at=began + 9.5,
        outcome=outcome,
        cpu_s=dice.random(),
        code=0 if outcome == "done" else 1,
        peak_mb=12.5,
    )


def a_job(number: int, dice: Random) -> list[AnyRecord]:
    """Of 1000 frames: some failed first, some wait, a few still run; the others are done."""
    tries: list[AttemptRecord] = []
    rows: list[AnyRecord] = [job(number, user="anna")]
    done = IntervalSet()

    def row(frame: int, state: str, attempt: int, **more: Any) -> None:
        rows.append(
            FrameRecord(job=number, layer=0, frame=frame - 1, state=state, attempt=attempt, **more)  # type: ignore[arg-type]
        )

    for frame in range(1, FRAMES + 1):
        match frame % 50:
            case 7:
                tries += [ended(number, frame, 1, dice, "failed"), ended(number, frame, 2, dice)]
                row(frame, "DONE", 2, requeued=1)
            case 8 | 9:
                tries.append(ended(number, frame, 1, dice))
                row(frame, "DONE", 1)
            case 10:
                tries.append(ended(number, frame, 1, dice, "failed"))
                ends = LogEnds(size=900, head=dice.randbytes(300), tail=b"end")
                rows.append(LogRecord(tries[-1].key, ends))
                row(frame, "WAITING", 1, avoid=(1,))
            case 11:
                tries.append(ended(number, frame, 1, dice, ""))
                row(frame, "WAITING", 1)
            case _:
                tries.append(ended(number, frame, 1, dice))
                done.add_range(frame - 1, frame)
    rows.append(LayerRecord(job=number, layer=0, done=done.pack()))
    return [*rows, *tries, LayerTotals(number, 0, FRAMES - 40, dice.random(), dice.random(), 40)]


def others() -> list[AnyRecord]:
    account = AccountRecord(
        id="a",
        kind="user",
        name="anna",
        role="artist",
        secret_hash="h" * 64,
        created_at=5.0,
        created_by="root",
    )
    audit = [
        AuditRecord(id=n, at=n * 1.5, who="root", role="admin", peer="uid 0", what="stop", outcome="done")
        for n in range(1, 200)
    ]
    return [account, slave(1), MetaRecord("next_job", str(JOBS + 1)), MetaRecord("next_slave", "2"), *audit]


def rows_of(storage: SqliteStorage) -> dict[str, Any]:
    """What a core starts from, and every row as it lies there."""
    found: dict[str, Any] = {"loaded": taken(storage.load())}
    for table in TABLES:
        try:
            found[table] = storage._connection.execute(f"SELECT * FROM {table}").fetchall()
        except sqlite3.Error as error:
            found[table] = error
    return found


def history_of(storage: SqliteStorage, changed: set[tuple[int, int]]) -> None:
    """Ask for the past of these frames (all: none named), for kept logs and the audit, as clients do."""
    storage.audit(0, 1000)
    frames = changed or {(job, frame) for job in range(1, JOBS + 1) for frame in range(1, FRAMES + 1)}
    for number, frame in sorted(frames):
        storage.latest_attempts(number, 0, [frame])
        for row in storage.attempts(number, 0, frame):
            storage.log(row.key)


@contextmanager
def opened(folder: Path) -> Iterator[SqliteStorage]:
    """As a master's start opens it."""
    with closing(open_state(str(folder))) as state:
        yield state.storage


def copied(state: Path, folder: Path, flips: tuple[str, int] | None = None) -> Path:
    """A state directory anew; in its file of that name one bit is another one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for path in state.iterdir():
        data = bytearray(path.read_bytes())
        if flips is not None and path.name == flips[0]:
            data[flips[1] // 8] ^= 1 << flips[1] % 8
        (folder / path.name).write_bytes(data)
    return folder


def judged(folder: Path, work: Path) -> State:
    """The state there, and what it says once a master has started on it."""
    with opened(copied(folder, work)) as storage:
        return State(folder, rows_of(storage))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where states are tried: in memory where there is room, since each start brings much to the disk."""
    if os.access("/dev/shm", os.W_OK):
        with TemporaryDirectory(prefix="drqueue-f11-", dir="/dev/shm") as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("f11")


@pytest.fixture(scope="module")
def stopped(work: Path) -> State:
    """10,000 frames, of a master that ended in good order: all is in the database."""
    folder = work / "stopped"
    dice = Random(11)
    with opened(folder) as storage:
        storage.commit(others())
        for number in range(1, JOBS + 1):
            storage.commit(a_job(number, dice))
    return judged(folder, work / "try")


#: Frames that fail one after another, each in a transaction of its own, before the master is killed.
LATE = 40


@pytest.fixture(scope="module")
def killed(work: Path, stopped: State) -> tuple[State, State]:
    """The same after some more transactions, all of them in the log; and but for the last of them."""
    states = []
    for count in (LATE, LATE - 1):
        folder = work / f"killed-{count}"
        with opened(copied(stopped.folder, work / "live")) as storage:
            for frame in range(1, count + 1):
                row = FrameRecord(job=1, layer=0, frame=frame, state="FAILED", attempt=1, requeued=9)
                storage.commit([row, ended(1, frame + 1, 9, Random(frame), "failed")])
            copied(work / "live", folder)
        states.append(judged(folder, work / "try"))
    return states[0], states[1]


def used_pages(database: Path) -> tuple[int, list[int]]:
    """The size of pages, and the numbers of those in use."""
    with closing(sqlite3.connect(database)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        try:
            found = [page for (page,) in connection.execute("SELECT pageno FROM dbstat")]
        except sqlite3.OperationalError:  # not compiled in
            (count,) = connection.execute("PRAGMA page_count").fetchone()
            found = list(range(1, count + 1))
    return size, found


def outcome(state: State, work: Path, name: str, bit: int, before: State | None = None) -> str:
    """What becomes of a start, and of who reads, with that bit flipped; `before`: see `killed`."""
    torn: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "warning", lambda what, **_: torn.append(what))
        try:
            with opened(copied(state.folder, work / "try", (name, bit))) as storage:
                rows = rows_of(storage)
                if rows == state.rows:
                    return "harmless"
                if before is not None and rows == before.rows:
                    assert any("last transaction" in what for what in torn)
                    return "last transaction left out"
                if rows["loaded"] != state.rows["loaded"]:
                    return "wrong"
                return outcome_of_reading(storage, work, changed(rows, state.rows))
        except (StorageError, StateError) as error:
            sentence = str(error)
    assert str(work / "try") in sentence
    assert len(sentence) < 600
    return "refused at start"


def changed(rows: dict[str, Any], before: dict[str, Any]) -> set[tuple[int, int]]:
    """Frames of which rows of the history are others; none where some cannot be read, or are of logs."""
    here, there = rows["attempt"], before["attempt"]
    if not isinstance(here, list):
        return set()
    frames = {(row[0], row[2]) for row in set(here) ^ set(there)}
    return {frame for frame in frames if None not in frame}


def outcome_of_reading(storage: SqliteStorage, work: Path, frames: set[tuple[int, int]]) -> str:
    """Where rows are others than they were: who reads them is told so or, if they are not to be found, their
    backup is refused, which a start that has not proven them makes at once."""
    try:
        history_of(storage, frames)
    except StorageCorrupt:
        return "refused when read"
    try:
        storage.backup(str(work / "backup.db"))
    except StorageCorrupt:
        return "refused by the backup"
    return "wrong"


def tried(count: int, flip: Callable[[], tuple[str, int]], judge: Callable[[str, int], str]) -> Counter[str]:
    """So many flips, and how often there was each outcome; fails with those that made a wrong value."""
    found: Counter[str] = Counter()
    wrong = []
    for _ in range(count):
        name, bit = flip()
        what = judge(name, bit)
        found[what] += 1
        if what == "wrong":
            wrong.append((name, bit))
    print(dict(found))
    assert wrong == [], "bits that made wrong values"
    return found


def test_f11_flips_in_used_pages_of_the_database(work: Path, stopped: State) -> None:
    rng = levels.rng("F11")
    size, pages = used_pages(stopped.folder / DATABASE)

    def flip() -> tuple[str, int]:
        return DATABASE, (rng.choice(pages) - 1) * size * 8 + rng.randrange(size * 8)

    count = levels.count("F11", ci=140, nightly=1000, release=10_000)
    found = tried(count, flip, lambda name, bit: outcome(stopped, work, name, bit))
    assert found["refused at start"] > count // 2


def test_f11_flips_in_the_log_of_a_master_that_was_killed(work: Path, killed: tuple[State, State]) -> None:
    """The log's header, frames of every transaction, and the database that it belongs to."""
    rng = levels.rng("F11 log")
    state, before = killed
    lengths = {name: (state.folder / name).stat().st_size for name in (DATABASE, LOG)}

    def flip() -> tuple[str, int]:
        name = rng.choice((LOG, LOG, LOG, DATABASE))
        return name, rng.randrange(lengths[name] * 8)

    count = levels.count("F11 log", ci=40, nightly=1000, release=2000)
    found = tried(count, flip, lambda name, bit: outcome(state, work, name, bit, before))
    assert found["refused at start"] > count // 2
    assert found["last transaction left out"] <= count // 5


def test_f11_flips_in_a_database_too_large_to_be_checked_whole(
    work: Path, stopped: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its history is proven by who reads it, and all of it by the backup that such a start makes at once."""
    rng = levels.rng("F11 large")
    check = partial(check_start, whole_bytes=0)
    monkeypatch.setattr("drqueue.master.storage.sqlite.check_start", check)
    size, pages = used_pages(stopped.folder / DATABASE)

    def flip() -> tuple[str, int]:
        return DATABASE, (rng.choice(pages) - 1) * size * 8 + rng.randrange(size * 8)

    count = levels.count("F11 large", ci=20, nightly=1000, release=2000)
    found = tried(count, flip, lambda name, bit: outcome(stopped, work, name, bit))
    assert found["refused when read"] > count // 3


@pytest.mark.slow
def test_f11_the_command_that_a_refusal_names_brings_the_farm_back(
    work: Path, stopped: State, tmp_path: Path
) -> None:
    """Real starts: refused with status 1 and one sentence; restored, and up again, well within a minute."""
    rng = levels.rng("F11 starts")
    size, pages = used_pages(stopped.folder / DATABASE)
    # The first page says what file it is: one that is none of ours has no backups of ours.
    pages.remove(1)
    for _ in range(levels.count("F11 starts", ci=2, nightly=10, release=50)):
        while True:
            bit = (rng.choice(pages) - 1) * size * 8 + rng.randrange(size * 8)
            if outcome(stopped, work, DATABASE, bit) == "refused at start":
                break
        state = copied(stopped.folder, tmp_path / "state", (DATABASE, bit))
        backups = state / "backups"
        backups.mkdir()
        shutil.copy(stopped.folder / DATABASE, backups / "master-20260131-030000.db")
        began = time.monotonic()
        refused = run("--state-dir", str(state))
        assert refused.returncode == 1
        (sentence,) = refused.stderr.splitlines()
        named = re.search(
            r"restore, with the master stopped: drqueue-master (restore --state-dir .*)$", sentence
        )
        assert named is not None, sentence
        restored = run(*named[1].split(" "))
        assert restored.returncode == 0, restored.stderr
        with a_master(state, "--new-certificate") as master:
            took = time.monotonic() - began
            with master.link() as link:
                assert len(link.jobs()) == JOBS
            assert master.stop() == 0
        print(f"bit {bit}: back in {took:.1f} s")
        assert took < 60


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "drqueue.master", *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
