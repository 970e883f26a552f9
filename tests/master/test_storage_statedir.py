"""The farm's id and the epoch: never lower than before, never guessed."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.master.core.records import (
    AccountForget,
    AccountRecord,
    LineForget,
    LineRecord,
    MetaRecord,
)
from drqueue.master.storage import StorageCorrupt, StorageError, StorageFull, farmfile
from drqueue.master.storage.farmfile import RESERVED, UNKNOWN_GRANT_S
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import OpenState, open_state
from drqueue.settings import MasterSettings
from drqueue.statefile import StateError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def run(state: Path) -> tuple[str, int]:
    """One life of a master: its farm and epoch."""
    with closing(open_state(str(state))) as opened:
        return opened.farm, opened.epoch


def farm_file(state: Path) -> dict[str, object]:
    return dict(json.loads((state / "farm.json").read_text()))


def test_the_farm_stays_and_the_epoch_grows(state: Path) -> None:
    farm, epoch = run(state)
    assert (len(farm), epoch) == (32, 1)
    assert [run(state) for _ in range(3)] == [(farm, 2), (farm, 3), (farm, 4)]
    assert farm_file(state) == {"farm": farm, "epoch": 4, "jobs": 0, "slaves": 0, "granted_s": 0.0}
    assert {(p.stat().st_mode & 0o777) for p in state.iterdir()} == {0o600}


def test_farms_differ(tmp_path: Path) -> None:
    assert run(tmp_path / "a")[0] != run(tmp_path / "b")[0]


def test_the_epoch_is_in_both_places_before_it_is_told(state: Path) -> None:
    with closing(open_state(str(state))) as opened:
        assert opened.storage.meta() == {"farm": opened.farm, "epoch": "1"}
        assert farm_file(state)["epoch"] == 1


def test_a_second_master_is_refused(state: Path) -> None:
    with closing(open_state(str(state))), pytest.raises(StateError, match="in use by another master, pid"):
        open_state(str(state))
    run(state)


@pytest.mark.parametrize("higher", ["file", "database"])
def test_the_higher_of_both_epochs_counts(state: Path, higher: str) -> None:
    farm, _ = run(state)
    if higher == "file":
        (state / "farm.json").write_text(json.dumps({"farm": farm, "epoch": 70}))
    else:
        with closing(SqliteStorage(str(state / "master.db"))) as storage:
            storage.commit([MetaRecord("epoch", "70")])
    assert run(state) == (farm, 71)


def test_a_restored_backup_gets_a_higher_epoch_than_any_before(state: Path, tmp_path: Path) -> None:
    with closing(open_state(str(state))) as opened:
        opened.storage.backup(str(tmp_path / "copy.db"))
    farm, epoch = [run(state) for _ in range(3)][-1]
    shutil.copy(tmp_path / "copy.db", state / "master.db")
    assert run(state) == (farm, epoch + 1)


# Ids


def take_ids(opened: OpenState, jobs: int, slaves: int = 0) -> None:
    """What the core commits when it handed out ids up to these."""
    opened.storage.commit([MetaRecord("next_job", str(jobs)), MetaRecord("next_slave", str(slaves))])


def next_ids(state: Path) -> tuple[bool, int, int]:
    """Start on a state: was it restored, and from which ids does the core go on?"""
    with closing(open_state(str(state))) as opened:
        meta = opened.storage.meta()
        return opened.restored, int(meta.get("next_job", 0)), int(meta.get("next_slave", 0))


def test_ids_go_on_without_a_gap_after_any_restart(state: Path) -> None:
    with closing(open_state(str(state))) as opened:
        take_ids(opened, 3, 2)
    assert [next_ids(state) for _ in range(2)] == [(False, 3, 2)] * 2


@pytest.mark.parametrize("restarts", [0, 2])
def test_no_id_is_used_again_after_a_backup_was_restored(state: Path, restarts: int) -> None:
    """Also where the backup is of the latest epoch: then only its own mark tells that it is one."""
    copy = state / "copy.db"
    with closing(open_state(str(state))) as opened:
        take_ids(opened, 3, 2)
        opened.storage.backup(str(copy))
        take_ids(opened, 40, 7)
    for _ in range(restarts):
        assert next_ids(state) == (False, 40, 7)
    shutil.copy(copy, state / "master.db")
    restored, job, slave = next_ids(state)
    assert restored
    assert 40 <= job <= 40 + RESERVED
    assert 7 <= slave <= 7 + RESERVED
    assert next_ids(state) == (False, job, slave)


def test_no_id_is_used_again_after_a_copy_by_hand_was_restored(state: Path, tmp_path: Path) -> None:
    with closing(open_state(str(state))) as opened:
        take_ids(opened, 3)
    shutil.copy(state / "master.db", tmp_path / "copy.db")
    with closing(open_state(str(state))) as opened:
        take_ids(opened, 2500)
    shutil.copy(tmp_path / "copy.db", state / "master.db")
    restored, job, _ = next_ids(state)
    assert restored
    assert 2500 <= job <= 2500 + RESERVED


@given(ids=st.lists(st.integers(0, 5000), min_size=1, max_size=8).map(sorted))
def test_the_bound_is_above_every_id_when_it_is_committed(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int]
) -> None:
    """And farm.json is written once in many ids."""
    state = tmp_path_factory.mktemp("state")
    writes = set()
    with closing(open_state(str(state))) as opened:
        for number in ids:
            take_ids(opened, number)
            bound = farm_file(state)["jobs"]
            assert isinstance(bound, int)
            assert bound >= number
            writes.add(bound)
    assert len(writes) <= 2 + ids[-1] // RESERVED


def test_a_bound_that_cannot_be_written_holds_the_commit_back(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is to be tried again, as for any commit."""
    with closing(open_state(str(state))) as opened:
        for code, kind in ((errno.ENOSPC, StorageFull), (errno.EIO, StorageError)):
            with monkeypatch.context() as patch:
                patch.setattr("drqueue.statefile.os.fsync", failing(code))
                with pytest.raises(kind) as caught:
                    take_ids(opened, 1)
            assert type(caught.value) is kind
            assert "next_job" not in opened.storage.meta()
        take_ids(opened, 1)
        assert opened.storage.meta()["next_job"] == "1"


def failing(code: int) -> Callable[[int], None]:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_farm_file_from_before_there_were_bounds_gets_them(state: Path) -> None:
    with closing(open_state(str(state))) as opened:
        take_ids(opened, 30, 4)
        farm = opened.farm
    (state / "farm.json").write_text(json.dumps({"farm": farm, "epoch": 1}))
    assert next_ids(state) == (False, 30, 4)
    found = farm_file(state)
    assert (found["farm"], found["epoch"], found["jobs"], found["slaves"]) == (farm, 2, 30, 4)


@pytest.mark.parametrize("how", ["missing", "emptied"])
def test_a_lost_database_is_no_new_farm(state: Path, how: str) -> None:
    run(state)
    if how == "missing":
        (state / "master.db").unlink()
    else:
        (state / "master.db").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StateError, match=r"is empty, but .*farm.json says that this farm has run before"):
            open_state(str(state))
    (state / "farm.json").unlink()
    assert run(state)[1] == 1


def test_a_lost_farm_file_is_not_guessed(state: Path) -> None:
    farm, _ = run(state)
    (state / "farm.json").unlink()
    with pytest.raises(StateError, match=f'farm.json is missing.*"farm": "{farm}"'):
        open_state(str(state))
    (state / "farm.json").write_text(json.dumps({"farm": farm, "epoch": 9}))
    assert run(state) == (farm, 10)


def test_two_farms_are_not_mixed(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "master.db", tmp_path / "b" / "master.db")
    with pytest.raises(StateError, match="belongs to another farm"):
        open_state(str(tmp_path / "b"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"farm": "f"}', '{"farm": "", "epoch": 1}', '{"farm": "f", "epoch": true}'),
        *('{"farm": "f", "epoch": -1}', '{"farm": 3, "epoch": 1}'),
        *('{"farm": "f", "epoch": 1, "jobs": "9"}', '{"farm": "f", "epoch": 1, "slaves": -1}'),
        *(f'{{"farm": "f", "epoch": 1, "granted_s": {s}}}' for s in ("-1", '"9"', "true", "1e400", "NaN")),
    ],
)
def test_a_damaged_farm_file_is_refused_and_kept(state: Path, text: str) -> None:
    run(state)
    (state / "farm.json").write_text(text)
    with pytest.raises(StateError, match="is damaged"):
        open_state(str(state))
    assert (state / "farm.json").read_text() == text


def test_a_damaged_epoch_is_refused(state: Path) -> None:
    run(state)
    with closing(SqliteStorage(str(state / "master.db"))) as storage:
        storage.commit([MetaRecord("epoch", "seven")])
    with pytest.raises(StorageCorrupt, match="epoch 'seven'"):
        open_state(str(state))


def test_a_first_start_that_was_cut_short_is_finished(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStorage, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            open_state(str(state))
    written = farm_file(state)
    assert written["epoch"] == 0
    assert run(state) == (written["farm"], 1)


# -- what slaves count on ---------------------------------------------------------------------------------


def granted(state: Path) -> float:
    with closing(open_state(str(state))) as opened:
        return opened.granted_s


def test_the_longest_grant_outlives_restarts_and_a_restored_backup(state: Path) -> None:
    """Until it is struck off; a start alone does not do that."""
    copy = state / "copy.db"
    noted = []
    with closing(open_state(str(state))) as opened:
        opened.storage.backup(str(copy))
        assert opened.granted_s == 0.0
        for seconds in (600.0, 86400.0, 1800.0):
            opened.note_grant(seconds)
            noted.append(farm_file(state)["granted_s"])
        take_ids(opened, 5)
    assert noted == [600.0, 86400.0, 86400.0]
    assert [granted(state) for _ in range(2)] == [86400.0] * 2
    shutil.copy(copy, state / "master.db")
    with closing(open_state(str(state))) as opened:
        assert (opened.restored, opened.granted_s) == (True, 86400.0)
        opened.forget_grant()
        take_ids(opened, 3000)
    assert granted(state) == 0.0
    assert farm_file(state)["jobs"] == 3000 + RESERVED, "nothing else went"


def test_a_grant_that_nobody_noted_counts_as_a_day(state: Path) -> None:
    """An older version noted none, and a file that was written by hand says nothing of it."""
    farm, _ = run(state)
    (state / "farm.json").write_text(json.dumps({"farm": farm, "epoch": 5}))
    assert [granted(state) for _ in range(2)] == [UNKNOWN_GRANT_S] * 2
    assert MasterSettings(state_dir="").upgrade_lease_s <= UNKNOWN_GRANT_S


def test_a_grant_that_cannot_be_noted_is_told(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_state(str(state))) as opened:
        with monkeypatch.context() as patch:
            patch.setattr("drqueue.statefile.os.fsync", failing(errno.ENOSPC))
            with pytest.raises(StorageFull, match=r"cannot write .*farm.json"):
                opened.note_grant(60.0)
        assert farm_file(state)["granted_s"] == 0.0
        opened.note_grant(60.0)
        assert farm_file(state)["granted_s"] == 60.0


# -- who was let in --------------------------------------------------------------------------------------


def an_account(number: str, **fields: Any) -> AccountRecord:
    return AccountRecord(
        id=number,
        kind="node",
        name=f"n{number}",
        role="node",
        secret_hash=number * 8,
        created_at=1.0,
        created_by="",
        **fields,
    )


def a_line(token: str) -> LineRecord:
    return LineRecord(
        token_hash=token,
        kind="node",
        name="",
        role="node",
        created_at=1.0,
        created_by="root",
        expires_at=1e12,
        uses_left=1,
    )


def test_a_backup_brings_back_nobody_who_was_revoked_and_no_line(state: Path) -> None:
    """Nor a node that waited, which may have been rejected since; who came again after all is good."""
    copy = state / "copy.db"
    with closing(open_state(str(state))) as opened:
        opened.storage.commit([an_account(number) for number in "abc"])
        opened.storage.commit([an_account("d", pending=True), a_line("used"), a_line("open")])
        opened.storage.backup(str(copy))
        opened.storage.commit([AccountForget("a"), AccountForget("b"), LineForget("used")])
        opened.storage.commit([an_account("b"), an_account("e")])
    for _ in range(2):
        shutil.copy(copy, state / "master.db")
        with closing(open_state(str(state))) as opened:
            saved = opened.storage.load()
            assert opened.restored
            assert opened.gone == ("a",)
            assert [account.id for account in saved.accounts] == ["a", "b", "c"], "the core ends them"
            assert list(saved.lines) == []
    with closing(open_state(str(state))) as opened:
        opened.storage.commit([a_line("new"), an_account("f", pending=True)])
    with closing(open_state(str(state))) as opened:
        saved = opened.storage.load()
        assert (len(list(saved.lines)), len(list(saved.accounts))) == (1, 4), "a mere restart keeps them"


def test_who_is_gone_is_noted_before_that_is_committed_and_bounded(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farmfile, "GONE_MOST", 3)
    with closing(open_state(str(state))) as opened:
        for number in "abcdea":
            opened.storage.commit([AccountForget(number)])
        assert farm_file(state)["gone"] == ["d", "e", "a"]
        opened.storage.commit([an_account("e"), AccountForget("e"), an_account("a")])
        assert farm_file(state)["gone"] == ["d", "e"]


@pytest.mark.parametrize("gone", [5, "abc", [5], {"a": 1}])
def test_a_farm_file_with_other_accounts_than_names_is_damaged(state: Path, gone: object) -> None:
    farm, epoch = run(state)
    (state / "farm.json").write_text(json.dumps({"farm": farm, "epoch": epoch, "gone": gone}))
    with pytest.raises(StateError, match="is damaged"):
        open_state(str(state))
