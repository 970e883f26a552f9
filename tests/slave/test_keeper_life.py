"""The keeper's connections, its life and its death, spoken to by hand over its socket."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.slave.tree_harness import HERE, PYTHON, Client, Ward, living, pids_in, stat_state, until, ward

pytestmark = pytest.mark.slow

K1, K2 = [0, 0, 0, 1], [0, 0, 1, 1]


def script(name: str, *arguments: str) -> list[str]:
    return [*PYTHON, str(HERE / name), *arguments]


# --- connections


def test_a_new_daemon_learns_all_and_the_older_is_dropped(keeper: Client, ward: Ward) -> None:
    started = keeper.launch(K1, "/bin/sleep", "600")
    ended = keeper.run(K2, "/bin/sh", "-c", "exit 7")
    failed = keeper.run([5, 5, 5, 5], "no-such-program")
    second = Client.attach(ward)
    held = second.greet()
    assert held == [started, ended, failed]
    assert keeper.closed()
    second.send(
        {"do": "forget", "key": K2}, {"do": "forget", "key": [5, 5, 5, 5]}, {"do": "forget", "key": K1}
    )
    third = Client.attach(ward)
    assert third.greet() == [started]  # what runs cannot be forgotten
    third.send({"do": "signal", "key": K1, "kill": True})
    assert third.next()["signal"] == signal.SIGKILL
    second.close()
    third.close()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"v":2}\n',
        b"[" * 100_000 + b"\n",
        b'{"v":1}\n{"do":"launch"}\n',
        b'{"v":1}\n{"do":"launch","key":[0,0,0,0],"argv":[],"env":{},"cwd":"/","log":"/x","cap":1,"umask":0}\n',
        b'{"v":1}\n{"do":"launch","key":[0,0,0,0],"argv":[1],"env":{},"cwd":"/","log":"/x","cap":1,"umask":0}\n',
        b'{"v":1}\n{"do":"launch","key":[0,0,0,0],"argv":["a"],"env":{"a":1},"cwd":"/","log":"/x","cap":1,"umask":0}\n',
        b'{"v":1}\n{"do":"launch","key":[0,0,0,0],"argv":["a"],"env":{},"cwd":"/","log":"/x","cap":1,"umask":-1}\n',
        b'{"v":1}\n{"do":"signal","key":[0,0,0,"1"]}\n',
        b'{"v":1}\n{"do":"shutdown","grace":"x"}\n',
        b'{"v":1}\n{"do":"shutdown","grace":NaN}\n',
        b'{"v":1}\n{"do":"dance"}\n',
    ],
)
def test_rubbish_costs_the_connection_and_nothing_else(keeper: Client, ward: Ward, rubbish: bytes) -> None:
    started = keeper.launch(K1, "/bin/sleep", "600")
    bad = Client.attach(ward)
    bad.sock.sendall(rubbish)
    until(bad.closed)
    bad.close()
    good = Client.attach(ward)
    assert good.greet() == [started]
    good.send({"do": "signal", "key": K1, "kill": True})
    assert good.next()["signal"] == signal.SIGKILL
    good.close()


def test_an_endless_line_is_refused(keeper: Client, ward: Ward) -> None:
    bad = Client.attach(ward)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        bad.sock.sendall(b"x" * (64 << 20))
    bad.close()
    assert keeper.run(K1, "/bin/true")["code"] == 0


def test_callers_that_never_greet_take_nobodys_place(keeper: Client, ward: Ward) -> None:
    callers = [Client.attach(ward) for _ in range(40)]
    assert keeper.run(K1, "/bin/true")["code"] == 0
    for caller in callers:
        caller.close()


def test_out_of_descriptors_is_a_failed_launch(ward: Ward) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        keeper = Client.start(ward)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.prlimit(keeper.child, resource.RLIMIT_NOFILE, (50, hard))
    reports = [keeper.launch([0, 0, number, 1], "/bin/sleep", "600") for number in range(60)]
    failed = [report for report in reports if report["is"] == "failed"]
    assert failed
    assert all(report["reason"] == "spawn-failed" for report in failed)
    assert "Too many open files" in failed[-1]["text"]
    resource.prlimit(keeper.child, resource.RLIMIT_NOFILE, (256, hard))
    keeper.shutdown()


# --- life and death of the keeper


def test_it_ends_by_itself_after_its_last_frame(ward: Ward) -> None:
    keeper = Client.start(ward, linger=0.2)
    keeper.launch(K1, "/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.05; done")
    keeper.close()
    second = Client.attach(ward)  # it waits for its frame, however short it lingers
    assert len(second.greet()) == 1
    second.close()
    (ward.work / "go").touch()
    keeper.wait()
    assert not (ward.state / "keeper.sock").exists()


def test_alone_with_a_frame_it_sleeps(ward: Ward) -> None:
    """Without a daemon, however short it lingers, it only looks four times a second."""
    keeper = Client.start(ward, linger=0.0)
    keeper.launch(K1, "/bin/sleep", "1.5")
    keeper.close()
    until(lambda: stat_state(keeper.child) == "Z")
    _, status, usage = os.wait4(keeper.child, 0)
    assert status == 0
    assert usage.ru_utime + usage.ru_stime < 0.5


def test_it_does_not_end_while_a_daemon_is_there(ward: Ward) -> None:
    keeper = Client.start(ward, linger=0.0)
    assert keeper.run(K1, "/bin/sleep", "0.3")["code"] == 0
    assert keeper.run(K2, "/bin/true")["code"] == 0
    keeper.close()
    keeper.wait()


@pytest.mark.parametrize("by_signal", [True, False])
def test_shutdown_ends_everything(ward: Ward, by_signal: bool) -> None:
    keeper = Client.start(ward)
    keeper.launch(K1, *script("tree_eleven.py", "--ignore-term"))
    pids = until(lambda: len(found := pids_in(ward.work / "pids")) == 11 and found)
    if by_signal:
        os.kill(keeper.child, signal.SIGTERM)
    else:
        keeper.send({"do": "shutdown", "grace": 0.1})
    assert keeper.next()["signal"] == signal.SIGKILL
    assert keeper.closed()
    keeper.wait()
    assert living(pids) == []
    keeper.close()


def test_shutdown_gives_grace(ward: Ward) -> None:
    keeper = Client.start(ward)
    keeper.launch(K1, "/bin/sh", "-c", "trap 'exit 5' TERM; touch ready; while :; do sleep 0.05; done")
    until((ward.work / "ready").exists)
    keeper.send({"do": "shutdown", "grace": 60})
    assert keeper.next()["code"] == 5
    assert keeper.closed()
    keeper.wait()
    keeper.close()


def test_a_second_keeper_waits_for_the_first_and_takes_over(ward: Ward) -> None:
    first = Client.start(ward)
    ours, theirs = socket.socketpair()
    from drqueue.slave import keeper_link

    argv = [*PYTHON, "-X", "utf8", keeper_link.KEEPER, str(ward.state), "30"]
    child = os.posix_spawn(sys.executable, argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)])
    theirs.close()
    second = Client(ours, ward, child)
    second.send({"v": 1})
    assert first.run(K1, "/bin/sleep", "0.3")["code"] == 0
    assert second.quiet()
    first.shutdown()
    assert second.next()["is"] == "keeper"
    assert second.next()["is"] == "held"
    assert ward.keeper_pid() == child
    assert second.run(K2, "/bin/true")["code"] == 0
    second.shutdown()


def test_a_long_state_directory(tmp_path: Path) -> None:
    """A path longer than a socket's address has room for."""
    root = tmp_path / ("long" * 30)
    root.mkdir()
    with ward(root) as it:
        keeper = Client.start(it)
        again = Client.attach(it)
        assert again.greet() == []
        assert keeper.closed()
        keeper.close()
        again.child = keeper.child
        assert again.run(K1, "/bin/true")["code"] == 0
        again.shutdown()


def test_idle_it_sleeps(keeper: Client) -> None:
    """With a daemon and without frames it wakes for nothing."""
    keeper.run(K1, "/bin/true")

    def switches() -> str:
        return (
            Path(f"/proc/{keeper.child}/status")
            .read_text()
            .partition("voluntary_ctxt_switches:")[2]
            .split()[0]
        )

    until(lambda: stat_state(keeper.child) == "S")
    before = switches()
    keeper.sock.settimeout(0.7)
    with pytest.raises(TimeoutError):
        keeper.sock.recv(1)
    assert switches() == before
    keeper.sock.settimeout(30)
