"""Where scratch directories are, whose the folder must be, and what is removed from it."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from drqueue.proto.ids import AttemptKey
from drqueue.slave.run_as import RunAs, User, Users
from drqueue.slave.scratch import MARKER, Scratch, scratch_key, scratch_root
from drqueue.statefile import StateError
from tests.slave.run_as_harness import OTHER, needs_root

KEY = AttemptKey(1, 0, 5, 2)


class Book(Users):
    """Everybody is called render."""

    def by_name(self, name: str) -> User | None:
        return User(name, *OTHER, "/")

    def by_uid(self, uid: int) -> User | None:
        return User("render", *OTHER, "/") if uid == OTHER[0] else None


class Removals:
    """What a keeper would have been asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], object]] = []

    def __call__(self, paths: list[str], user: object) -> None:
        self.asked.append((sorted(paths), user))


def scratch(tmp_path: Path, others: bool, work_dir: str = "", removals: Removals | None = None) -> Scratch:
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    run_as = RunAs("render" if others else "self", (), users=Book(), may_change=True, uid_min=1000)
    return Scratch(work_dir, str(state), run_as, removals or Removals())


def names(folder: Path) -> Iterable[str]:
    return sorted(path.name for path in folder.iterdir())


def test_where_it_is(tmp_path: Path) -> None:
    assert scratch_root("", "/s/state", False) == "/s/state/scratch"
    assert scratch_root("", "/s/state/", True) == "/s/state-work"
    assert scratch_root("/fast", "/s/state", True) == "/fast"
    assert scratch_key("1.0.5.2") == KEY
    assert scratch_key("1.0.5") is scratch_key("tmp") is scratch_key("1.0.5.2.3") is None


def test_frames_of_the_slaves_own_user_stay_inside(tmp_path: Path) -> None:
    made = scratch(tmp_path, others=False)
    assert made.root == str(tmp_path / "state" / "scratch")
    assert names(tmp_path / "state") == []


def test_others_share_a_sticky_folder_beside_it(tmp_path: Path) -> None:
    for _ in range(2):
        made = scratch(tmp_path, others=True)
        info = Path(made.root).stat()
        assert (made.root, info.st_mode & 0o7777) == (str(tmp_path / "state-work"), 0o1777)
        assert (Path(made.root) / MARKER).stat().st_mode & 0o777 == 0o600
        os.chmod(made.root, 0o777)


def test_a_named_folder_is_closed_where_no_others_use_it(tmp_path: Path) -> None:
    made = scratch(tmp_path, others=False, work_dir=str(tmp_path / "fast"))
    assert Path(made.root).stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("kind", ["link", "file", "missing parent"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "fast"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        place.touch()
    else:
        place = place / "deeper"
    with pytest.raises(StateError, match=f"cannot use {place} for scratch directories"):
        scratch(tmp_path, others=True, work_dir=str(place))


def test_two_slaves_do_not_share_one(tmp_path: Path) -> None:
    work = str(tmp_path / "fast")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    scratch(tmp_path / "a", others=True, work_dir=work)
    with pytest.raises(StateError, match=f"used by the slave of {tmp_path}/a/state"):
        scratch(tmp_path / "b", others=True, work_dir=work)
    (tmp_path / "a" / "state").rmdir()
    assert scratch(tmp_path / "b", others=True, work_dir=work).root == work


@needs_root
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state-work"
    place.mkdir()
    os.chown(place, OTHER[0], OTHER[1])
    with pytest.raises(StateError, match="is not this slave's"):
        scratch(tmp_path, others=True)


@needs_root
def test_a_name_that_another_user_laid_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state-work").mkdir()
    (tmp_path / "state-work" / MARKER).touch()
    os.chown(tmp_path / "state-work" / MARKER, OTHER[0], OTHER[1])
    with pytest.raises(StateError, match="of another user"):
        scratch(tmp_path, others=True)


async def test_own_leftovers_go_and_links_are_not_followed(tmp_path: Path) -> None:
    made = scratch(tmp_path, others=False)
    root = Path(made.root)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    for name in ("1.0.5.2", "1.0.6.1", "1.0.7.1"):
        (root / name / "deep").mkdir(parents=True)
        (root / name / "link").symlink_to(tmp_path / "victim")
    (root / "1.0.8.1").symlink_to(tmp_path / "victim")
    (root / "junk").touch()
    await made.remove(AttemptKey(1, 0, 6, 1))
    assert names(root) == ["1.0.5.2", "1.0.7.1", "1.0.8.1", "junk"]
    await made.purge({KEY: None})
    assert names(root) == ["1.0.5.2"]
    assert names(tmp_path / "victim") == ["file"]
    await made.remove(AttemptKey(9, 0, 6, 1))  # there is none: nothing happens


@needs_root
async def test_others_leftovers_go_as_their_owner(tmp_path: Path) -> None:
    """Each user's by that user; what belongs to nobody here stays; the slave's own are removed by itself."""
    removals = Removals()
    made = scratch(tmp_path, others=True, removals=removals)
    root = Path(made.root)
    owners = {"1.0.5.2": OTHER[0], "1.0.6.1": OTHER[0], "1.0.7.1": 54_999, "1.0.8.1": 7, "1.0.9.1": 0}
    for name, uid in owners.items():
        (root / name).mkdir()
        os.chown(root / name, uid, 77)
    inside = tmp_path / "state" / "scratch" / "2.0.1.1"  # from when frames were the slave's own
    inside.mkdir(parents=True)
    await made.purge({KEY: None})
    assert sorted(removals.asked, key=str) == [
        ([str(root / "1.0.6.1")], OTHER),
        ([str(root / "1.0.7.1")], (54_999, 77, ())),
    ]
    assert names(root) == sorted([MARKER, "1.0.5.2", "1.0.6.1", "1.0.7.1", "1.0.8.1"])
    assert not inside.exists()
    removals.asked.clear()
    await made.remove(KEY)
    assert removals.asked == [([str(root / "1.0.5.2")], OTHER)]
