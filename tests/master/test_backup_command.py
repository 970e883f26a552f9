"""`drqueue-master backup FILE`: of a running master and of a stopped one, whole and private."""

import errno
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from drqueue.client.farm import local_farm
from drqueue.master.backup_command import main
from drqueue.master.core.records import AccountRecord, MetaRecord
from drqueue.master.storage import StorageCorrupt, StorageFull
from drqueue.master.storage.backups import ASKED, BACKUPS, latest_backup, make_asked
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import OpenState, open_state
from drqueue.proto.messages import BackedUp, BackUp, Refusal
from drqueue.proto.model import JobSpec, LayerSpec
from drqueue.proto.roles import Who
from drqueue.statefile import lock_state_dir
from tests.master.rig import ROOT, Rig, ask
from tests.master.test_storage import job


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A killed master's, whose last jobs are in its log."""
    with closing(open_state(str(tmp_path / "live"))) as opened:
        commit(opened, range(3))
    with closing(open_state(str(tmp_path / "live"))) as opened:
        commit(opened, range(3, 6))
        (tmp_path / "state").mkdir(mode=0o700)
        for path in (tmp_path / "live").iterdir():
            (tmp_path / "state" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "state"


def commit(opened: OpenState, jobs: range) -> None:
    for n in jobs:
        opened.storage.commit([job(n), MetaRecord("next_job", str(n + 1))])


def backup(state: Path, file: Path) -> int:
    return main("backup", ["--state-dir", str(state), str(file)])


def jobs_in(file: Path) -> list[int]:
    with closing(SqliteStorage(str(file))) as copy:
        return [row.id for row in copy.load().jobs]


def test_of_a_stopped_master_it_is_copied_directly(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what only its log holds; the next start finds all as it was, under the epoch that follows."""
    assert backup(state, tmp_path / "copy.db") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'copy.db'}: ")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    with closing(open_state(str(state))) as opened:
        assert (opened.epoch, opened.restored) == (3, False)
        assert [row.id for row in opened.storage.load().jobs] == list(range(6))
    assert jobs_in(tmp_path / "copy.db") == list(range(6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "live", "state"]


def test_what_it_makes_is_restored_by_the_other_command(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.db"
    assert backup(state, copy) == 0
    with closing(open_state(str(state))) as opened:
        commit(opened, range(6, 9))
    assert main("restore", ["--state-dir", str(state), str(copy)]) == 0
    assert f"what was there is {state}/master.db.replaced-1. Start the master" in capsys.readouterr().out
    with closing(open_state(str(state))) as opened:
        assert (opened.epoch, opened.restored) == (5, True)
        assert [row.id for row in opened.storage.load().jobs] == list(range(6))


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("taken.db", "taken.db is there already: name another file, or remove it"),
        ("none/copy.db", "there is no folder "),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_it_cannot_be_written_it_says_so(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, sentence: str
) -> None:
    (tmp_path / "taken.db").write_text("mine")
    assert backup(state, tmp_path / file) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert (tmp_path / "taken.db").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "state", "taken.db"]


def test_where_there_is_no_master_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backup(tmp_path / "none", tmp_path / "copy.db") == 1
    assert "there is no master's database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_makes_none(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((state / "master.db-wal").read_bytes())
    data[5000] ^= 1
    (state / "master.db-wal").write_bytes(data)
    assert backup(state, tmp_path / "copy.db") == 1
    assert "master.db-wal is damaged at byte" in capsys.readouterr().err
    assert not (tmp_path / "copy.db").exists()


def test_a_database_whose_log_is_gone_makes_none(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As at a start: what was saved last is not there."""
    (state / "master.db-wal").unlink()
    for _ in range(2):
        assert backup(state, tmp_path / "copy.db") == 1
        assert "master.db-wal, which is gone" in capsys.readouterr().err
    assert not (tmp_path / "copy.db").exists()


def test_a_full_disk_leaves_nothing_behind(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("drqueue.master.storage.migrations.os.fsync", fail)
        assert backup(state, tmp_path / "copy.db") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "state"]
    assert backup(state, tmp_path / "copy.db") == 0


def test_one_who_holds_the_directory_and_answers_nobody_is_named(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_state_dir(str(state), "master")
    try:
        assert backup(state, tmp_path / "copy.db") == 1
    finally:
        os.close(lock)
    said = capsys.readouterr().err
    assert f"is in use by a master, pid {os.getpid()}, and unix:{state}/master.sock does not answer" in said


@pytest.mark.parametrize("argv", [[], ["a", "b"], ["--farm-epoch-above", "x", "f"], ["--frob", "f"]])
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_wrong_usage_is_told(command: str, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command, argv)
    assert ended.value.code == 2
    assert f"usage: drqueue-master {command}" in capsys.readouterr().err


# -- what the running master does --------------------------------------------------------------------------


def test_what_somebody_asked_for_is_no_part_of_the_rotation(state: Path) -> None:
    """And what nobody took away goes after an hour."""
    now = time.time()
    with closing(SqliteStorage(str(state / "master.db"))) as storage:
        made = [make_asked(storage, str(state / "master.db"), now) for _ in range(2)]
        assert all(ASKED.fullmatch(name) for name, _ in made)
        folder = state / BACKUPS
        assert [(folder / name).stat().st_size for name, _ in made] == [size for _, size in made]
        assert latest_backup(str(state / "master.db")) is None
        os.utime(folder / made[0][0], (now - 3700, now - 3700))
        os.utime(folder / made[1][0], (now - 3500, now - 3500))
        (last, _) = make_asked(storage, str(state / "master.db"), now)
        assert sorted(path.name for path in folder.iterdir()) == sorted([made[1][0], last])


async def test_a_backup_is_for_admins_on_the_masters_own_machine(nursery: trio.Nursery) -> None:
    """It is audited when it is made; why there is none is told."""
    rig = Rig()
    nursery.start_soon(rig.run)
    away = Who(name="joe", role="admin", account="0123456789abcdef", peer="192.0.2.9")
    rig.core.state.register.put(
        AccountRecord(
            id=away.account,
            kind="user",
            name="joe",
            role="admin",  # type: ignore[arg-type]
            secret_hash=f"{away.account:0<64}",
            created_at=0,
            created_by="test",  # type: ignore[arg-type]
        ),
        [],
    )
    sue = Who(name="sue", role="supervisor", peer="uid 1002")
    async with rig.client() as root, rig.client(who=away) as far, rig.client(who=sue) as hers:
        assert await ask(root, BackUp(rq=1)) == BackedUp(rq=1, name="asked-00000000.db", size=4096)
        for link, sentence in ((far, "those on the master's machine"), (hers, "takes an admin")):
            refusal = await ask(link, BackUp(rq=2))
            assert isinstance(refusal, Refusal)
            assert refusal.code == "not-allowed"
            assert sentence in refusal.text
        for error, code in ((StorageFull("no room"), "disk-full"), (StorageCorrupt("bad"), "backup-failed")):
            rig.backup_fails = error
            assert await ask(root, BackUp(rq=3)) == Refusal(rq=3, code=code, text=str(error))
        await trio.testing.wait_all_tasks_blocked()
    made = [(who, outcome) for who, what, outcome in rig.audit() if what == "back up the master"]
    assert made == [(ROOT.name, "done"), ("sue", "not-allowed")]


@pytest.mark.slow
async def test_a_running_master_makes_one_while_jobs_go_on(tmp_path: Path) -> None:
    """With all that was acknowledged before it was asked for; its own folder is empty again."""
    async with local_farm(str(tmp_path / "farm"), slaves=0) as (farm, client):
        state = Path(farm.master.state_dir)
        layer = LayerSpec(argv=("/bin/true",), frames="1-1000")

        async def run(*words: str) -> tuple[int | None, str]:
            argv = [sys.executable, "-m", "drqueue.master", *words]
            done = await trio.run_process(argv, check=False, capture_stdout=True, capture_stderr=True)
            return done.returncode, (done.stdout + done.stderr).decode()

        jobs = [await client.submit(JobSpec(name="one", layers=(layer,))) for _ in range(3)]
        results: list[tuple[int | None, str]] = []

        async def back_up(name: str) -> None:
            results.append(await run("backup", "--state-dir", str(state), str(tmp_path / name)))

        async with trio.open_nursery() as nursery:
            for name in ("a.db", "b.db"):
                nursery.start_soon(back_up, name)
            for _ in range(10):
                await client.submit(JobSpec(name="meanwhile", layers=(layer,)))
        assert [status for status, _ in results] == [0, 0], results
        for name in ("a.db", "b.db"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
            found = jobs_in(tmp_path / name)
            assert found[:3] == jobs
            assert found == list(range(len(found)))
        assert list((state / BACKUPS).iterdir()) == []
        status, said = await run("restore", "--state-dir", str(state), str(tmp_path / "a.db"))
        assert status == 1
        assert "a backup is restored while no master runs" in said
        assert len(await client.jobs()) == 13
