"""`drqueue up`: it ends without a trace, lives beside others, starts nothing where a farm runs already."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import Cli, Up, farm_up, processes_with, start_up, wait_until

pytestmark = pytest.mark.slow
STUBBORN = "trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.05; done"
RUNAWAY = "(setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300' &) ; sleep 300"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A farm of one slave, s1, that the tests which take it leave as they find it."""
    with farm_up(tmp_path_factory.mktemp("up"), slaves=1) as farm:
        yield farm


def started(cli: Cli, pid_file: Path, command: str) -> int:
    """Submit a command that writes its pid there; the pid once it runs."""
    cli.submit("--", command.format(pid_file))
    return int(wait_until("a frame's pid", lambda: pid_file.exists() and pid_file.read_text()))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_frames_keepers_and_daemons(tmp_path: Path, sign: signal.Signals) -> None:
    """One frame that ignores TERM, one that has forked away: both are gone when `up` is."""
    with start_up(tmp_path, slaves=1, cores=2) as up:
        assert up.line() == "farm is up\n"
        pids = [
            started(up.cli, tmp_path / "stubborn", STUBBORN),
            started(up.cli, tmp_path / "runaway", RUNAWAY),
        ]
        assert len(processes_with(up.state_dir)) >= 3, "two daemons and a keeper"
        said = up.end(sign)
    assert said.status == 0
    assert "ending the farm" in said.err
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert processes_with(tmp_path) == []
    assert not (up.state_dir / "master.sock").exists()


def test_what_was_queued_is_there_when_the_farm_comes_up_again(tmp_path: Path) -> None:
    """Ctrl-C in mid-render: the frames that ran run again, finished ones stay, and no failure is counted."""
    with farm_up(tmp_path, slaves=1) as up:
        job = up.cli.submit("--frames", "1-3", "--retries", 0, "--", 'test "$DRQUEUE_FRAME" = 1 || sleep 1')
        up.cli.until_states(job, {1: "DONE", 2: "RUNNING"})
    with farm_up(tmp_path, slaves=1) as up:
        frames = up.cli.done(job)
        assert [view.attempt for view in frames.values()] == [1, 2, 1]
        assert [view.requeued for view in frames.values()] == [0, 0, 0]


def test_where_services_listen_is_nothing_to_up(tmp_path: Path) -> None:
    """What is exported for the machine's services does not open this farm to the network."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DRQUEUE_LISTEN", f"127.0.0.1:{port}")
            with farm_up(tmp_path, slaves=1) as up:
                assert up.cli.run("slaves").status == 0


def test_two_farms_side_by_side(up: Up, tmp_path: Path) -> None:
    """Each has its own jobs and slaves, counted from 0; ending one leaves the other be."""
    ours = up.cli.submit("--name", "ours", "--", "true")
    with farm_up(tmp_path, slaves=1) as other:
        assert other.cli.submit("--name", "theirs", "--", "true") == 0
        assert other.cli.wait(0).name == "theirs"
    assert up.cli.wait(ours).name == "ours"
    assert "theirs" not in up.cli.run("jobs", "--all").out


def test_a_second_up_in_the_same_folder_is_refused(up: Up) -> None:
    """One sentence that names the folder, status 1, and the first farm does not notice."""
    with start_up(up.state_dir.parent, slaves=1) as second:
        said = second.finish()
    assert said.status == 1
    assert said.out == ""
    assert said.sentence == f"drqueue: a master runs in {up.state_dir} already"
    up.cli.done(up.cli.submit("--", "true"))


def test_a_master_names_the_one_that_holds_the_folder(up: Up) -> None:
    """drqueue-master in a folder in use: one sentence with the pid, status 1."""
    said = up.cli.run("--state-dir", up.state_dir, module="drqueue.master", status=1)
    holder = int((up.state_dir / "lock").read_text().split()[1])
    assert said.sentence == (
        f"drqueue-master: state directory {up.state_dir} is in use by another master, pid {holder}"
    )
    os.kill(holder, 0)
    said = up.cli.run("--state-dir", up.state_dir / "slave-s1", module="drqueue.slave", status=1)
    assert "in use by another slave, pid" in said.sentence


def test_a_daemon_that_dies_ends_up_with_its_last_words(tmp_path: Path) -> None:
    """kill -9 of the master: `up` ends the rest, says what happened, status 1."""
    with start_up(tmp_path, slaves=1) as up:
        assert up.line() == "farm is up\n"
        os.kill(int((up.state_dir / "lock").read_text().split()[1]), signal.SIGKILL)
        said = up.finish()
    assert said.status == 1
    assert "drqueue: master ended with signal 9 (log: " in said.err
    assert "Traceback" not in said.err
    assert processes_with(tmp_path) == []


def test_slaves_of_one_name_get_a_suffix(up: Up, tmp_path: Path) -> None:
    """A second s1 becomes s1-2, and keeps that name over a restart."""
    words = ("--name", "s1", "--state-dir", tmp_path / "other", "--cores", 1, "--kill-frames-on-exit")
    master = ("--master", f"unix:{up.state_dir}/master.sock")
    for _ in range(2):
        with up.cli.start(*words, *master, module="drqueue.slave") as other:
            wait_until("the second slave", lambda: up.cli.slave("s1-2").linked if names(up.cli) else None)
            assert names(up.cli) == {"s1", "s1-2"}
            other.process.terminate()
            assert other.finish().status == 0
        wait_until("its unlinking", lambda: not up.cli.slave("s1-2").linked)
    assert processes_with(tmp_path / "other") == []
    up.cli.run("slave", "forget", "s1-2")
    assert names(up.cli) is None


def names(cli: Cli) -> set[str] | None:
    """The names of two slaves, None where there are fewer."""
    with cli.client() as client:
        found = {view.name for view in client.slaves()}
    return found if len(found) > 1 else None


def test_a_copied_slave_takes_an_identity_of_its_own(up: Up, tmp_path: Path) -> None:
    """A state directory copied under a running slave and started on the same machine: no frame suffers."""
    gate = tmp_path / "gate"
    job = up.cli.submit("--", f"until test -e {gate}; do sleep 0.02; done")
    up.cli.until_states(job, {1: "RUNNING"})
    copy, log = tmp_path / "copy", tmp_path / "copy.log"
    shutil.copytree(up.state_dir / "slave-s1", copy, ignore=shutil.ignore_patterns("*.sock"))
    words = ("--name", "twin", "--state-dir", copy, "--master", f"unix:{up.state_dir}/master.sock")
    with (
        up.cli.start(*words, "--kill-frames-on-exit", module="drqueue.slave", err=log) as twin,
        up.cli.client() as client,
    ):
        wait_until("it is linked", lambda: {view.name for view in client.slaves() if view.linked} >= {"twin"})
        assert "this disk or folder is a copy" in log.read_text()
        assert next(view for view in client.slaves() if view.name == "s1").linked
        twin.process.terminate()
        assert twin.finish().status == 0
    gate.touch()
    assert up.cli.done(job)[1].attempt == 1
    with up.cli.client() as client:
        wait_until("twin is gone", lambda: not any(v.linked for v in client.slaves() if v.name == "twin"))
    up.cli.run("slave", "forget", "twin")


def test_a_copied_slave_is_refused_by_name(up: Up, tmp_path: Path) -> None:
    """One that cannot know of its original: the master names both; no frame suffers."""
    gate = tmp_path / "gate"
    job = up.cli.submit("--", f"until test -e {gate}; do sleep 0.02; done")
    up.cli.until_states(job, {1: "RUNNING"})
    copy = tmp_path / "copy"
    shutil.copytree(up.state_dir / "slave-s1", copy, ignore=shutil.ignore_patterns("*.sock"))
    identity = json.loads((copy / "identity.json").read_text())
    (copy / "identity.json").write_text(json.dumps({**identity, "path": "/in/another/container"}))
    log = tmp_path / "copy.log"
    words = ("--name", "twin", "--state-dir", copy, "--master", f"unix:{up.state_dir}/master.sock")
    with up.cli.start(*words, "--kill-frames-on-exit", module="drqueue.slave", err=log) as twin:
        wait_until("its refusal", lambda: "the master refuses this slave" in log.read_text())
        twin.process.terminate()
        assert twin.finish().status == 0
    sentence = next(line for line in log.read_text().splitlines() if "refuses" in line)
    assert "slave s1 (id 0) on" in sentence
    assert "twin on" in sentence
    with up.cli.client() as client:
        assert "twin" not in {view.name for view in client.slaves()}
    assert up.cli.frames(job)[1].state == "RUNNING"
    gate.touch()
    assert up.cli.done(job)[1].attempt == 1
    assert processes_with(copy) == []
