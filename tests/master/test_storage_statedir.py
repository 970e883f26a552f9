"""The farm's id and the epoch: never lower than before, never guessed."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from drqueue.master.core.records import MetaRecord
from drqueue.master.storage import StorageCorrupt
from drqueue.master.storage.sqlite import SqliteStorage
from drqueue.master.storage.statedir import open_state
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
    assert farm_file(state) == {"farm": farm, "epoch": 4}
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
