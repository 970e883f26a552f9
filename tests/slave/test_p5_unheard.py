"""P5: how frames ended while no daemon was there outlives the keeper. The keeper's side, and the file."""

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.slave import unheard
from tests.slave.tree_harness import HERE, PYTHON, Client, Ward, living, pids_in, stat_state, until

K1, K2, K3 = [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 2, 1]
UNTIL_GO = "while [ ! -e go ]; do sleep 0.02; done; "


def results(ward: Ward) -> list[dict[str, object]]:
    """What stands in the file."""
    import json

    lines, damaged = unheard.read(str(ward.state))
    assert damaged == 0
    return [json.loads(line) for line in lines]


def alone(ward: Ward, *scripts: str, linger: float = 30.0) -> Client:
    """A keeper with frames that run until the file `go` is there, and without a daemon."""
    keeper = Client.start(ward, linger=linger)
    for number, script in enumerate(scripts):
        keeper.launch([0, 0, number, 1], "/bin/sh", "-c", UNTIL_GO + script)
    keeper.close()
    return keeper


def killed(keeper: Client) -> None:
    """kill -9 of the keeper."""
    os.kill(keeper.child, signal.SIGKILL)
    os.waitpid(keeper.child, 0)


# --- the keeper


@pytest.mark.slow
def test_p5_ends_stand_there_once_the_keeper_is_gone(ward: Ward) -> None:
    """Each as a daemon would have heard it."""
    keeper = alone(ward, "exit 7", "echo hello", linger=0.0)
    assert not (ward.state / unheard.NAME).exists()
    (ward.work / "go").touch()
    keeper.wait()
    first, second = sorted(results(ward), key=lambda end: str(end["key"]))
    assert (first["is"], first["key"], first["code"], first["signal"]) == ("ended", K1, 7, None)
    assert (second["key"], second["code"], second["log"], second["reason"]) == (K2, 0, 6, "")
    assert (ward.state / unheard.NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_p5_a_keeper_killed_without_a_daemon_loses_no_end(ward: Ward) -> None:
    keeper = alone(ward, "kill -USR1 $$")
    (ward.work / "go").touch()
    until(lambda: results(ward))
    killed(keeper)
    (end,) = results(ward)
    assert (end["key"], end["code"], end["signal"]) == (K1, None, signal.SIGUSR1)


@pytest.mark.slow
def test_p5_what_was_told_and_not_forgotten_is_written_when_the_daemon_goes(ward: Ward) -> None:
    """It may have died before it kept that. What it forgot it does not need, nor anything while it lives."""
    keeper = Client.start(ward)
    ended = keeper.run(K1, "/bin/sh", "-c", "exit 5")
    failed = keeper.run(K2, "no-such-program")
    assert keeper.run(K3, "/bin/true")["code"] == 0
    keeper.send({"do": "forget", "keys": [K3]}, {"do": "ping"})
    assert keeper.next() == {"is": "pong"}
    assert not (ward.state / unheard.NAME).exists()
    keeper.close()
    until(lambda: results(ward))
    assert results(ward) == [ended, failed]
    second = Client.attach(ward)
    assert second.greet() == [ended, failed]
    second.close()
    until(lambda: stat_state(keeper.child) == "S")
    third = Client.attach(ward)
    assert third.greet() == [ended, failed]
    assert results(ward) == [ended, failed]  # once
    unheard.remove(str(ward.state))  # as a daemon does that has it all; what comes then starts a new file
    third.send({"do": "forget", "key": K1}, {"do": "ping"})
    assert third.next() == {"is": "pong"}
    third.close()
    until(lambda: results(ward))
    assert results(ward) == [failed]
    killed(keeper)


@pytest.mark.slow
def test_p5_a_keeper_whose_disk_is_full_waits_with_what_it_holds(ward: Ward) -> None:
    """It says so once, outlives its lingering, and ends when the file is written."""
    keeper = alone(ward, "exit 9", linger=0.0)
    _, hard = resource.prlimit(keeper.child, resource.RLIMIT_FSIZE)
    log = ward.state / "keeper.log"
    os.truncate(log, 0)
    # Of the keeper's own: room for one line of its log, in no file for a result.
    resource.prlimit(keeper.child, resource.RLIMIT_FSIZE, (120, hard))
    (ward.work / "go").touch()
    until(lambda: "results are held until keeper.ended can be written" in log.read_text())
    until(lambda: stat_state(keeper.child) == "S")
    assert results(ward) == []
    assert (ward.state / unheard.NAME).stat().st_size == 0  # no half of a line either
    resource.prlimit(keeper.child, resource.RLIMIT_FSIZE, (hard, hard))
    keeper.wait()
    assert [end["code"] for end in results(ward)] == [9]
    assert log.read_text().count("\n") == 1


@pytest.mark.slow
def test_p5_a_keeper_that_cannot_even_log_waits_too(ward: Ward) -> None:
    """F10: its log lies on the very disk that is full."""
    keeper = alone(ward, "exit 9", linger=0.0)
    _, hard = resource.prlimit(keeper.child, resource.RLIMIT_FSIZE)
    resource.prlimit(keeper.child, resource.RLIMIT_FSIZE, (0, hard))
    (ward.work / "go").touch()
    until((ward.state / unheard.NAME).exists)
    until(lambda: stat_state(keeper.child) == "S")
    assert results(ward) == []
    resource.prlimit(keeper.child, resource.RLIMIT_FSIZE, (hard, hard))
    keeper.wait()
    assert [end["code"] for end in results(ward)] == [9]


@pytest.mark.slow
def test_p5_what_is_killed_with_the_keeper_did_not_end_by_itself(ward: Ward) -> None:
    """Then it counts as lost, and as nobody's failure; what had ended before is known."""
    keeper = Client.start(ward)
    ended = keeper.run(K2, "/bin/sh", "-c", "exit 3")
    keeper.launch(K1, *PYTHON, str(HERE / "tree_eleven.py"), "--ignore-term")
    pids = until(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
    keeper.close()
    until(lambda: results(ward))
    os.kill(keeper.child, signal.SIGTERM)
    keeper.wait()
    assert living(pids) == []
    assert results(ward) == [ended]


@pytest.mark.slow
def test_p5_a_keeper_without_its_directory_ends(ward: Ward) -> None:
    keeper = alone(ward, "exit 1", linger=0.0)
    shutil.rmtree(ward.state)
    (ward.work / "go").touch()
    keeper.wait()


# --- the file


def test_each_call_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write

    def count(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", count)
    it = unheard.Unheard(str(tmp_path))
    assert it.keep([])
    assert not (tmp_path / unheard.NAME).exists()
    assert it.keep(["a", "b"])
    assert it.keep(["a", "b"])
    assert it.keep(["a", "b", "c"])
    assert len(writes) == 2
    assert unheard.read(str(tmp_path)) == ([b"a", b"b", b"c"], 0)


def test_a_write_cut_short_is_taken_back_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    it = unheard.Unheard(str(tmp_path))
    assert it.keep(["a"])
    whole = (tmp_path / unheard.NAME).read_bytes()
    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:9]))
        assert not it.keep(["a", "b"])
        assert not it.keep(["a", "b"])
    assert (tmp_path / unheard.NAME).read_bytes() == whole
    assert capfd.readouterr().err.count("No space left on device") == 1
    assert it.keep(["a", "b"])
    assert unheard.read(str(tmp_path)) == ([b"a", b"b"], 0)


def test_it_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unheard, "MOST", 1000)
    it = unheard.Unheard(str(tmp_path))
    lines = [f"{number}" for number in range(100)]
    kept = next(n for n in range(100) if not it.keep(lines[: n + 1]))
    assert 5 < kept < 50
    assert (tmp_path / unheard.NAME).stat().st_size <= 1000
    assert unheard.read(str(tmp_path))[0] == [line.encode() for line in lines[:kept]]
    unheard.remove(str(tmp_path))
    assert it.keep(lines[:5])


def test_another_boots_lines_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unheard.Unheard(str(tmp_path)).keep(["a"])
    with monkeypatch.context() as patch:
        patch.setattr(unheard, "boot", lambda: "another")
        assert unheard.read(str(tmp_path)) == ([], 0)
        assert unheard.Unheard(str(tmp_path)).keep(["b"])
        assert unheard.read(str(tmp_path)) == ([b"b"], 0)
    assert unheard.read(str(tmp_path)) == ([b"a"], 0)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / unheard.NAME).symlink_to(tmp_path / "elsewhere")
    assert not unheard.Unheard(str(tmp_path)).keep(["a"])
    with pytest.raises(OSError, match="symbolic links"):
        unheard.read(str(tmp_path))
    unheard.remove(str(tmp_path))
    os.mkfifo(tmp_path / unheard.NAME)
    with pytest.raises(OSError, match="no file"):
        unheard.read(str(tmp_path))


LINES = [f'{{"is":"ended","key":[1,0,{number},1],"code":{number}}}' for number in range(5)]


@given(st.data())
def test_damage_loses_lines_and_invents_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere, and bits flipped anywhere: a flip costs two lines at most, where it joins them."""
    folder = tmp_path_factory.mktemp("ended")
    assert unheard.Unheard(str(folder)).keep(LINES)
    path = folder / unheard.NAME
    whole = bytearray(path.read_bytes())
    flips = data.draw(st.lists(st.integers(0, 8 * len(whole) - 1), max_size=3, unique=True))
    for bit in flips:
        whole[bit // 8] ^= 1 << bit % 8
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    found, damaged = unheard.read(str(folder))
    wanted = [line.encode() for line in LINES]
    assert [line for line in wanted if line in found] == found
    size = len(whole) // len(LINES)
    assert len(found) >= cut // size - 2 * len(flips)
    assert damaged <= 1 + 2 * len(flips)
    assert unheard.Unheard(str(folder)).keep(["later"])  # nor does it spoil what follows
    assert unheard.read(str(folder))[0] == [*found, b"later"]
