"""Frames' cgroups: whole trees end by them, and all works as ever where there are none."""

import os
import signal
import time
from pathlib import Path

import pytest

from drqueue.slave import cgroups, frames
from tests.slave.cgroup_harness import LIMITS, group_of, home_of, in_group, needs_cgroups
from tests.slave.run_as_harness import needs_root
from tests.slave.supervised import K1 as A1
from tests.slave.supervised import come, passing
from tests.slave.tree_harness import HERE, PYTHON, Client, Ward, living, marked, pids_in, until

pytestmark = pytest.mark.slow

K1, K2, K3 = [0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]
ESCAPE = [*PYTHON, str(HERE / "tree_escape.py")]
DEAD_S = 2.0


@pytest.fixture(autouse=True)
def real() -> None:
    needs_cgroups()


def all_eleven(ward: Ward) -> list[int]:
    return until(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)  # type: ignore[no-any-return]


def end(keeper: Client, key: list[int]) -> None:
    keeper.send({"do": "signal", "key": key, "kill": True})
    assert keeper.next()["key"] == key


def test_what_leaves_no_trace_dies_with_its_frame(keeper: Client, ward: Ward) -> None:
    """Beside another frame of the same user, which nobody could tell it from by looking at /proc."""
    keeper.launch(K2, "/bin/sleep", "600", group=LIMITS)
    keeper.launch(K1, *ESCAPE, group=LIMITS)
    pids = all_eleven(ward)
    assert in_group(group_of(ward, K1)) == set(pids)
    keeper.send({"do": "signal", "key": K1, "kill": False})
    began = time.monotonic()
    end(keeper, K1)
    assert living(pids) == []
    assert time.monotonic() - began < DEAD_S
    until(lambda: not group_of(ward, K1).exists(), "the end of the group")
    assert len(marked(ward.token)) == 1
    end(keeper, K2)


def test_what_a_frame_leaves_behind_ends_before_its_end_is_told(keeper: Client, ward: Ward) -> None:
    keeper.launch(K2, "/bin/sleep", "600", group=LIMITS)
    ended = keeper.run(K1, *ESCAPE, "--leave", group=LIMITS)
    assert (ended["key"], ended["code"], ended["reason"]) == (K1, 7, "")
    assert len(pids_in(ward.work / "pids")) == 10
    assert living(pids_in(ward.work / "pids")) == []
    end(keeper, K2)


def test_a_helper_without_traces_lives_as_long_as_its_frame(keeper: Client, ward: Ward) -> None:
    """It is a stray of the keeper's, but its group says whose: another's end changes nothing."""
    keeper.launch(K1, *ESCAPE, group=LIMITS)
    pids = all_eleven(ward)
    assert keeper.run(K2, "/bin/sleep", "0.6", group=LIMITS)["code"] == 0
    assert living(pids) == pids
    end(keeper, K1)
    assert living(pids) == []


def test_what_is_in_no_frames_group_is_of_no_frame_that_has_one(keeper: Client, ward: Ward) -> None:
    """A brief frame's, which leaves no trace, dies with that; not with what runs for long beside it."""
    keeper.launch(K2, "/bin/sleep", "600", group=LIMITS)
    keeper.launch(K1, *ESCAPE)
    pids = all_eleven(ward)
    end(keeper, K1)
    assert living(pids) == []
    end(keeper, K2)


def test_what_was_moved_to_another_group_lives_as_long_as_its_frame(keeper: Client, ward: Ward) -> None:
    """As a container's runtime does it, which leaves no other trace; beside a frame without a group."""
    place = Path(cgroups.place().path) / f"test-{ward.token}"
    place.mkdir()
    try:
        keeper.launch(K2, "/bin/sleep", "600")
        leader = keeper.launch(K1, *ESCAPE, group=LIMITS)["pid"]
        os.kill(keeper.child, signal.SIGSTOP)
        pids = all_eleven(ward)
        for pid in pids:
            if pid != leader:
                (place / "cgroup.procs").write_text(str(pid))
        os.kill(keeper.child, signal.SIGCONT)
        end(keeper, K2)
        assert keeper.run(K3, "/bin/sleep", "0.6")["code"] == 0
        assert living(pids) == pids
        end(keeper, K1)
        assert living(pids) == []
    finally:
        until(lambda: cgroups._remove(str(place)), "the end of the test's group")


@pytest.mark.parametrize("neighbours", [0, 3])
def test_a_fork_bomb_of_300_leaves_nothing(keeper: Client, ward: Ward, neighbours: int) -> None:
    for number in range(neighbours):
        keeper.launch([9, 0, number, 1], "/bin/sleep", "600", group=LIMITS)
    keeper.launch(K1, *PYTHON, str(HERE / "tree_bomb.py"), "300", group=LIMITS)
    count = ward.work / "count"
    until(lambda: count.exists() and count.stat().st_size > 60)
    end(keeper, K1)
    assert len(marked(ward.token)) == neighbours
    for number in range(neighbours):
        end(keeper, [9, 0, number, 1])


@pytest.mark.parametrize("killed", [True, False])
def test_what_is_in_its_group_goes_with_it_whoever_started_it(
    keeper: Client, ward: Ward, killed: bool
) -> None:
    """No walk from the keeper comes to this one: the kernel kills it, and the end is not told before."""
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    try:
        wait = "while [ ! -e go ]; do sleep 0.02; done; exit 3"
        keeper.launch(K1, "/bin/sh", "-c", wait, group=LIMITS)
        (group_of(ward, K1) / "cgroup.procs").write_text(str(stranger))
        if killed:
            keeper.send({"do": "signal", "key": K1, "kill": True})
        else:
            (ward.work / "go").touch()
        ended = keeper.next()
        assert (ended["key"], ended["code"]) == (K1, None if killed else 3)
        assert living([stranger]) == []
        assert os.waitstatus_to_exitcode(os.waitpid(stranger, os.WNOHANG)[1]) == -signal.SIGKILL
    finally:
        if living([stranger]):
            os.kill(stranger, signal.SIGKILL)
            os.waitpid(stranger, 0)


def test_a_frozen_frame_dies_too(keeper: Client, ward: Ward) -> None:
    pid = keeper.launch(K1, "/bin/sleep", "600", group=LIMITS)["pid"]
    (group_of(ward, K1) / "cgroup.freeze").write_text("1")
    end(keeper, K1)
    assert living([pid]) == []


def test_groups_below_its_own_are_the_frames_too(keeper: Client, ward: Ward) -> None:
    """A frame that makes groups itself, as a container's runtime does."""
    keeper.launch(K1, "/bin/sleep", "600", group=LIMITS)
    below = group_of(ward, K1) / "inner" / "most"
    below.mkdir(parents=True)
    until(lambda: in_group(group_of(ward, K1)))
    (pid,) = in_group(group_of(ward, K1))
    (below / "cgroup.procs").write_text(str(pid))
    end(keeper, K1)
    until(lambda: not group_of(ward, K1).exists(), "the end of the groups")


# --- how it gets there


def test_the_first_process_is_born_there(keeper: Client, ward: Ward) -> None:
    """And is the same as ever: its own session, directory, umask, descriptors, signals."""
    show = "cat /proc/self/cgroup; ls -l /proc/self/fd | wc -l; umask; pwd; ps -o sid= -p $$; echo $$"
    ended = keeper.run(K1, "/bin/sh", "-c", show, group=LIMITS, umask=0o027)
    words = ward.log(K1).read_text().split()
    unified = next(word for word in words if word.startswith("0::"))
    assert ended["code"] == 0
    assert unified.endswith(f"/{home_of(ward).name}/0.0.0.1")
    # 0 to 2, ls's own, and the line that says "total".
    assert words[-5:-1] == ["5", "0027", str(ward.work), words[-1]]
    keeper.run(K2, "/bin/grep", "-E", "SigIgn|SigBlk", "/proc/self/status", group=LIMITS)
    _, blocked, _, ignored = ward.log(K2).read_text().split()
    assert (int(blocked, 16), int(ignored, 16) & ~(3 << 31)) == (0, 0)


@needs_root
def test_another_users_frame_is_born_there_and_cannot_leave(keeper: Client, ward: Ward) -> None:
    leave = "cat /proc/self/cgroup; for p in $0 $1; do echo $$ > $p/cgroup.procs && echo left; done; exit 0"
    places = [cgroups.place().path, str(home_of(ward))]
    told = keeper.run(
        K1,
        "/bin/sh",
        "-c",
        leave,
        *places,
        group=LIMITS,
        cwd="/",
        do="launch-as",
        **{"as": [54321, 54321, []]},
    )
    said = ward.log(K1).read_text()
    assert told["code"] == 0
    assert f"/{home_of(ward).name}/0.0.0.1\n" in said
    assert said.count("Permission denied") == 2
    assert "left" not in said


@pytest.mark.parametrize(
    ("argv", "more", "reason"),
    [
        (["no-such-program"], {}, "no-command"),
        (["/bin/true"], {"cwd": "/no/such/dir"}, "no-cwd"),
        (["/bin/true", "x" * (3 << 20)], {}, "spawn-failed"),
    ],
)
def test_a_command_that_cannot_start_leaves_no_group(
    keeper: Client, ward: Ward, argv: list[str], more: dict[str, object], reason: str
) -> None:
    assert keeper.run(K1, *argv, group=LIMITS, **more)["reason"] == reason
    until(lambda: not group_of(ward, K1).exists(), "the end of the group")


def test_a_scratch_directory_may_be_there(keeper: Client, ward: Ward) -> None:
    place = ward.work / "a" / "b"
    for key in (K1, K2):
        assert keeper.run(key, "/bin/pwd", cwd=str(place), scratch=True, group=LIMITS)["code"] == 0
    assert place.stat().st_mode & 0o777 == 0o700


def test_frames_of_a_layer_known_to_be_brief_get_one_late(keeper: Client, ward: Ward) -> None:
    """Once they have run for longer than that, with all that they have started by then."""
    assert keeper.run(K1, "/bin/true", group=LIMITS)["code"] == 0
    keeper.launch(K3, *ESCAPE, group=LIMITS)
    assert not group_of(ward, K3).exists()
    pids = all_eleven(ward)
    until(lambda: group_of(ward, K3).exists() and in_group(group_of(ward, K3)) == set(pids), "the group")
    keeper.launch(K2, "/bin/sleep", "600", group=LIMITS)
    end(keeper, K3)
    assert living(pids) == []
    end(keeper, K2)


def test_what_is_brief_is_learnt_anew_and_forgotten_in_time(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "BRIEF_LAYERS", 2)
    watched = frames.Frames(lambda attempt, size: None, str(ward.state))

    def took(layer: int, seconds: float, **more: bool) -> None:
        attempt = frames.Attempt((1, layer, 0, 1), 1)
        attempt.start, attempt.end = 100.0, 100.0 + seconds
        for name, value in more.items():
            setattr(attempt, name, value)
        watched.learn(attempt)

    # What did not end by itself says nothing.
    took(4, 0.1, killing=True)
    took(4, 0.1, stopped=True)
    assert (watched.brief, watched.last_brief) == ({}, False)

    for layer in (1, 2, 1, 3):
        took(layer, 0.1)
    assert watched.brief == {(1, 2): True, (1, 3): True}
    took(2, 1.5)
    assert (watched.brief, watched.last_brief) == ({(1, 2): False, (1, 3): True}, False)


def test_an_unknown_layer_is_thought_to_be_as_what_ended_last(keeper: Client, ward: Ward) -> None:
    """Jobs of one short frame each are not to pay for a group each."""
    assert keeper.run(K1, "/bin/cat", "/proc/self/cgroup", group=LIMITS)["code"] == 0
    assert keeper.run(K2, "/bin/cat", "/proc/self/cgroup", group=LIMITS)["code"] == 0
    assert keeper.run([5, 0, 0, 1], "/bin/sleep", "1.1", group=LIMITS)["code"] == 0
    assert keeper.run([6, 0, 0, 1], "/bin/cat", "/proc/self/cgroup", group=LIMITS)["code"] == 0
    home = home_of(ward).name
    assert [home in ward.log(key).read_text() for key in (K1, K2, [6, 0, 0, 1])] == [True, False, True]


def test_without_a_word_of_groups_there_are_none(keeper: Client, ward: Ward) -> None:
    """As an older daemon has it, or one whose settings say so."""
    for number, more in enumerate(({}, {"group": None})):
        keeper.launch([0, 0, number, 1], "/bin/sleep", "600", **more)
    assert not home_of(ward).exists()
    assert cgroups.noted(str(ward.state)) is None
    for number in range(2):
        end(keeper, [0, 0, number, 1])


@pytest.mark.parametrize("group", [[1], [1, 2, 3], [-1, 0], [0, -1], ["1", 0], {"a": 1}, True, [True, 0]])
def test_limits_that_are_none_cost_the_connection(keeper: Client, ward: Ward, group: object) -> None:
    other = Client.attach(ward)
    other.greet()
    other.send({"do": "launch", "key": K1, "argv": ["a"], "env": {}, "cwd": "/", "umask": 0, "log": "/x",
                "cap": 1, "group": group})  # fmt: skip
    assert other.closed()
    other.close()


# --- the keeper's own


def test_it_cleans_up_behind_itself_and_behind_one_that_was_killed(ward: Ward) -> None:
    client = Client.start(ward)
    started = client.launch(K1, "/bin/sleep", "600", group=LIMITS)
    assert cgroups.noted(str(ward.state)) == (str(home_of(ward)), " ".join(_controllers(ward)))
    os.kill(client.child, signal.SIGKILL)
    os.waitpid(client.child, 0)
    client.close()
    assert cgroups.members(str(ward.state), (0, 0, 0, 1)) == [started["pid"]]
    os.kill(started["pid"], signal.SIGKILL)
    until(lambda: living([started["pid"]]) == [])
    client = Client.start(ward)
    # The same key again: the group that was left has to go first.
    assert client.run(K1, "/bin/true", group=LIMITS)["code"] == 0
    client.shutdown()
    assert not home_of(ward).exists()
    assert cgroups.noted(str(ward.state)) is None


def _controllers(ward: Ward) -> list[str]:
    handed = (home_of(ward) / "cgroup.subtree_control").read_text().split()
    return [name for name in cgroups.CONTROLLERS if name in handed]


def test_a_group_that_still_lives_is_nobody_elses(keeper: Client, ward: Ward) -> None:
    """An attempt's number that another farm gave before: its frame runs on, this one goes without a group."""
    keeper.launch(K2, "/bin/sleep", "600", group=LIMITS)
    (stranger,) = in_group(group_of(ward, K2))
    group_of(ward, K1).mkdir()
    (group_of(ward, K1) / "cgroup.procs").write_text(str(stranger))
    keeper.launch(K1, "/bin/sleep", "600", group=LIMITS)
    assert in_group(group_of(ward, K1)) == {stranger}
    end(keeper, K1)
    assert living([stranger]) == [stranger]
    end(keeper, K2)
    until(lambda: cgroups._remove(str(group_of(ward, K1))), "the end of the stranger's group")


def test_a_home_that_somebody_removed_is_made_again(keeper: Client, ward: Ward) -> None:
    keeper.launch(K1, "/bin/sleep", "600", group=LIMITS)
    end(keeper, K1)
    until(lambda: _removed(home_of(ward)), "a home without groups")
    keeper.launch(K2, "/bin/sleep", "600", group=LIMITS)
    assert in_group(group_of(ward, K2))
    end(keeper, K2)


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def test_homes_that_are_empty_for_long_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(cgroups.place().path) / f"test-{os.getpid()}-{tmp_path.name}"
    base.mkdir()
    try:
        for name in ("drqueue-1-1/0.0.0.1", "drqueue-1-2/0.0.0.1", "drqueue-1-3", "other"):
            (base / name).mkdir(parents=True)
        child = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
        (base / "drqueue-1-2/0.0.0.1/cgroup.procs").write_text(str(child))
        cgroups.sweep(str(base))
        assert len([path for path in base.iterdir() if path.is_dir()]) == 4
        later = time.time() + cgroups.LEFT_S + 1
        monkeypatch.setattr(time, "time", lambda: later)
        cgroups.sweep(str(base))
        assert {path.name for path in base.iterdir() if path.is_dir()} == {"drqueue-1-2", "other"}
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finally:
        until(lambda: cgroups._remove(str(base)), "the end of the test's groups")


# --- without its keeper


async def test_an_orphan_without_traces_dies_too(ward: Ward) -> None:
    """Its keeper is killed: init has its escapees, and only the group still says whose they are."""
    async with passing(ward) as daemon:
        daemon.launch(A1, *ESCAPE, group=(0, 0))
        pids = await come(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
        os.kill(ward.keeper_pid(), signal.SIGKILL)
        await come(lambda: not daemon.supervisor._held)
        daemon.signal(A1, kill=True)
        await come(lambda: living(pids) == [])
    cgroups._remove(str(home_of(ward)))
